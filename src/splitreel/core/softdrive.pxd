# SoftDrive: a tape drive in software. Executes CDBs of SSC-4 over a Medium.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.sense cimport reply_t
from splitreel.core.softdrive_base cimport DriveBase

cdef class SoftDrive(DriveBase):
    cdef int dispatch(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
    cdef int dispatch_motion(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
    cdef int dispatch_data(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
    cdef int warn(self, uint64_t before, reply_t* reply) noexcept nogil
    cdef int read(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
    cdef int read_blocks(self, uint32_t count, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
    cdef int write(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
    cdef int filemarks(self, const uint8_t* cdb, reply_t* reply) noexcept nogil
    cdef int space(self, const uint8_t* cdb, reply_t* reply) noexcept nogil
    cdef int space_over(self, bint filemarks, int64_t count, reply_t* reply) noexcept nogil
    cdef int locate(self, const uint8_t* cdb, reply_t* reply) noexcept nogil
    cdef int read_position(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
    cdef uint8_t position_flags(self) noexcept nogil
    cdef int load_unload(self, const uint8_t* cdb, reply_t* reply) noexcept nogil
    cdef int erase(self, reply_t* reply) noexcept nogil
    cdef int select(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
