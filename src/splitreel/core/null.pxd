# NullDrive: accepts and discards, for measuring what comes before a drive.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.sense cimport reply_t
from splitreel.core.tape cimport Transport

cdef class NullDrive(Transport):
    cdef readonly uint64_t object_id, file_id      # of the position
    cdef readonly uint64_t end                     # objects written
    cdef readonly uint64_t bytes_written
    cdef uint8_t out[96]
    cdef int check(self, reply_t* reply, uint32_t key, uint32_t code) noexcept nogil
    cdef int send(self, uint32_t built, uint32_t room, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
    cdef int write(self, const uint8_t* cdb, uint32_t size, reply_t* reply) noexcept nogil
    cdef int move(self, const uint8_t* cdb, reply_t* reply) noexcept nogil
    cdef int describe(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
