# DriveBase: what every command of the software drive shares.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.sense cimport reply_t
from splitreel.core.softdrive_medium cimport Medium
from splitreel.core.softdrive_pages cimport drive_state_t
from splitreel.core.tape cimport Transport

cdef enum:
    MAX_INJECTIONS = 8
    FM = 0x80                                      # the bits beside the sense key
    EOM = 0x40
    ILI = 0x20
    STRUCK = 1                                     # strike(): the reply is filled in, do not execute
    STRUCK_AFTER = 2                               # strike(): execute, then lose the reply
    STRUCK_DEFERRED = 3                            # strike(): execute; the next command reports a deferred error

cdef enum alert_t:                                 # TapeAlert flags
    ALERT_READ_FAILURE = 0x05
    ALERT_WRITE_FAILURE = 0x06
    ALERT_WRITE_PROTECT = 0x09
    ALERT_DIRECTORY = 0x12                         # corrupted on load: a torn tail was left out, or framing breaks

cdef struct injection_t:
    int kind
    int64_t after_blocks                           # blocks to be written or read before it strikes
    int64_t count                                  # how often it strikes; 0: slot is free

cdef class DriveBase(Transport):
    cdef readonly Medium medium
    cdef drive_state_t state
    cdef uint8_t* out                              # PAGE_BYTES, replies are built here
    cdef readonly bint loaded
    cdef bint prevented
    cdef int attention                             # ASC << 8 | ASCQ of the unit attention to report, or 0
    cdef bint deferred                             # the next command reports a deferred error; buffered blocks are gone
    cdef injection_t injections[MAX_INJECTIONS]
    cdef reply_t canned                            # inject_reply(): what the next command of canned_opcode is answered
    cdef int canned_opcode                         # -1: none
    cdef readonly uint64_t strikes                 # injected faults that have struck

    cdef int strike(self, uint8_t opcode, reply_t* reply) noexcept nogil
    cdef int strike_with(self, int kind, reply_t* reply) noexcept nogil
    cdef void count_blocks(self, uint32_t count) noexcept nogil
    cdef void lose_buffer(self) noexcept nogil
    cdef int report_pending(self, reply_t* reply) noexcept nogil
    cdef int check(self, reply_t* reply, uint32_t key, uint32_t code, uint32_t bits) noexcept nogil
    cdef int check_residue(self, reply_t* reply, uint32_t key, uint32_t code, uint32_t bits,
                           int64_t information) noexcept nogil
    cdef int put_sense(self, reply_t* reply, uint32_t key, uint32_t code, uint32_t bits, bint valid,
                       int64_t information) noexcept nogil
    cdef int met(self, int what, int64_t residue, reply_t* reply) noexcept nogil
    cdef int send(self, int built, uint32_t allocation, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
    cdef int refuse(self, int why, reply_t* reply) noexcept nogil
    cdef bint protected(self, reply_t* reply) noexcept nogil
    cdef int flush(self, reply_t* reply) noexcept nogil
    cdef int request_sense(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil
