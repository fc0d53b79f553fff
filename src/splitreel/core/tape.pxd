# Transport: executes CDBs. Tape: bulk WRITE, READ and WRITE FILEMARKS.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.fault cimport fault_t
from splitreel.core.sense cimport decode_reply, decode_sense, reply_t, sense_t     # also to be had from here

cdef enum direction_t:
    NO_DATA = 0
    TO_DEVICE = 1
    FROM_DEVICE = 2

cdef class Transport:
    # One thread at a time, one command outstanding by default. Never retries and never reconnects by itself.
    # Subclasses implement command(); submit/reap default to running the command at once.
    cdef readonly object name                      # as the user gave it
    cdef readonly uint32_t max_transfer            # bytes in one command
    cdef object pyscsi_opcodes
    cdef object pyscsi_devicetype
    cdef reply_t pending_reply
    cdef uint64_t pending_tag
    cdef int pending
    cdef int busy                                  # 1 while issue() is inside command()
    cdef bint closed
    # DONE when the target answered, whatever it answered (reply says); below 0 when the path failed: FAULT_TRANSPORT.
    cdef int command(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                     uint32_t timeout_ms, reply_t* reply, fault_t* fault) noexcept nogil
    # command() with a cleared reply, refused while another thread is inside or after close(); what Tape calls.
    cdef int issue(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                   uint32_t timeout_ms, reply_t* reply, fault_t* fault) noexcept nogil
    cdef int run(self, cdb, int direction, data, uint32_t timeout_ms, reply_t* reply) except -1
    cdef int submit(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                    uint32_t timeout_ms, uint64_t tag, fault_t* fault) noexcept nogil
    cdef int reap(self, reply_t* reply, uint64_t* tag, fault_t* fault) noexcept nogil
    cdef void close_transport(self) noexcept       # idempotent

cdef class Tape:
    # The stream's view of a drive. CDBs are templates, encoded once by pyscsi in splitreel.drive; lengths patched here.
    # object_id counts what we wrote or passed: one for each block and each filemark since beginning of partition.
    cdef readonly Transport transport
    cdef uint8_t write_cdb[16]
    cdef uint8_t read_cdb[16]
    cdef uint8_t filemarks_cdb[16]
    cdef uint32_t write_cdb_size, read_cdb_size, filemarks_cdb_size
    cdef uint32_t write_timeout_ms, read_timeout_ms, filemarks_timeout_ms
    cdef readonly uint32_t max_block               # bytes
    cdef public uint64_t object_id
    # Writes size bytes as one logical block, never split, never padded. EARLY_WARNING and PROGRAMMABLE_EARLY_WARNING:
    # the block was accepted. On a fault object_id does not count the block.
    cdef int write_block(self, uint8_t* block, uint32_t size, fault_t* fault) noexcept nogil
    # Reads one logical block; *got is its length. FILEMARK (position is behind it), END_OF_DATA, or a fault. A block
    # longer than capacity is a fault (FAULT_LIMIT), a shorter one is DONE.
    cdef int read_block(self, uint8_t* destination, uint32_t capacity, uint32_t* got, fault_t* fault) noexcept nogil
    # count filemarks; immediate = not waited for. count 0 and not immediate is a synchronise.
    cdef int write_filemarks(self, uint32_t count, bint immediate, fault_t* fault) noexcept nogil
    cdef int at(self, int code, fault_t* fault) noexcept nogil     # code, with fault.object set to object_id
    cdef int check_write(self, const reply_t* reply, sense_t* sense, const char* site, fault_t* fault) noexcept nogil
    cdef int block_length(self, const reply_t* reply, const sense_t* sense, uint32_t capacity, uint32_t* got,
                          fault_t* fault) noexcept nogil
