# What the software drive says of itself and its cartridge: INQUIRY, MODE, LOG, attributes, density, opcodes: bytes.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.softdrive_medium cimport Medium

cdef enum:
    PAGE_BYTES = 16384                             # room that every builder below may count on
    INVALID_FIELD = -1                             # 05/2400, of the CDB
    INVALID_PARAMETER = -2                         # 05/2600
    PARAMETER_LENGTH = -3                          # 05/1A00
    NO_SAVED_PAGES = -4                            # 05/3900

cdef struct settings_t:
    uint32_t block_length                          # 0: variable
    uint8_t buffered_mode                          # 0: every WRITE is on disk before it returns
    bint compression                               # remembered, without effect
    bint descriptor_sense                          # D_SENSE of the control mode page

cdef struct drive_state_t:
    settings_t settings
    uint64_t tape_alerts                           # bit n - 1 is flag n
    uint64_t write_errors
    uint64_t read_errors
    char serial[16]                                # NUL-terminated

# Each returns the bytes it put at out, before the allocation length cuts them, or one of the refusals above.
cdef int inquiry(uint8_t* out, const uint8_t* cdb, const drive_state_t* drive) noexcept nogil
cdef int mode_sense(uint8_t* out, const uint8_t* cdb, const drive_state_t* drive, Medium medium) noexcept nogil
cdef int mode_select(const uint8_t* data, uint32_t size, const uint8_t* cdb, drive_state_t* drive,
                     Medium medium) noexcept nogil
cdef int log_sense(uint8_t* out, const uint8_t* cdb, drive_state_t* drive, Medium medium) noexcept nogil
cdef int read_attribute(uint8_t* out, const uint8_t* cdb, const drive_state_t* drive, Medium medium) noexcept nogil
cdef int write_attribute(const uint8_t* data, uint32_t size, Medium medium) noexcept nogil
cdef int report_density(uint8_t* out, const drive_state_t* drive, Medium medium) noexcept nogil
cdef int report_opcodes(uint8_t* out, const uint8_t* cdb) noexcept nogil
cdef uint32_t cdb_length(uint8_t opcode) noexcept nogil        # 0: this drive does not know the command
