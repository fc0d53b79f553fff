# Status codes and the fault record: how C-level code says what happened. Cimports nothing; everything cimports it.
#
# Layer order of core, lowest first (a module cimports only what stands before it; siblings share a line, never meet):
#   fault < checksum < device < engine < extent < ext4 < plan(pax) < sense < tape < sg | iscsi | softdrive < stream
# A C-level function returns a status: 0 done, above 0 a condition, below 0 a fault described in *fault.

from libc.stdint cimport uint8_t, uint64_t

cdef enum status_t:
    DONE = 0
    # Conditions: the caller goes on with another branch.
    EARLY_WARNING = 1                  # the block was accepted; end of medium is near
    PROGRAMMABLE_EARLY_WARNING = 2     # likewise, farther from the end
    FILEMARK = 3
    END_OF_DATA = 4
    BEGINNING_OF_PARTITION = 5
    INCORRECT_LENGTH = 6               # block read, of another length than asked for
    STALE = 7
    # Faults.
    FAULT_NO_MEMORY = -1
    FAULT_IO = -2                      # os_errno says what the kernel said
    FAULT_SHORT_DEVICE = -3            # offset beyond the end of the device
    FAULT_ALIGNMENT = -4
    FAULT_MISUSE = -5                  # a caller broke a contract
    FAULT_LIMIT = -6                   # a declared bound was reached
    FAULT_CANCELLED = -7
    FAULT_COUNT_MISMATCH = -8          # bytes in and bytes out differ
    FAULT_CHECKSUM = -9
    FAULT_CORRUPT = -20
    FAULT_UNSUPPORTED = -21
    FAULT_NEEDS_RECOVERY = -22
    FAULT_NOT_FOUND = -23
    FAULT_STALE_MAP = -30
    FAULT_MAP_FILE = -31               # a saved extent map cannot be read or written
    FAULT_CHECK_CONDITION = -40
    FAULT_DEFERRED = -41
    FAULT_UNIT_ATTENTION = -42
    FAULT_END_OF_MEDIUM = -43          # VOLUME OVERFLOW: the block was not accepted
    FAULT_WRITE_PROTECTED = -44
    FAULT_NOT_READY = -45
    FAULT_RESERVATION_CONFLICT = -46
    FAULT_BUSY = -47
    FAULT_TRANSPORT = -48              # whether the command ran is unknown; so is the position
    FAULT_POSITION = -49

cdef struct fault_t:
    int code                           # a status_t below 0
    int os_errno
    uint8_t sense_key
    uint8_t asc
    uint8_t ascq
    const char* site                   # what was being done: a string literal, "reading a group descriptor"
    uint64_t object                    # inode, group, or tape object, as site says; 0 when it says nothing
    uint64_t offset                    # byte offset on the device, or object number on tape
    char detail[128]                   # NUL-terminated; a feature's name, a bound, what was found

cdef int set_fault(fault_t* fault, int code, const char* site, uint64_t object, uint64_t offset,
                   const char* detail) noexcept nogil   # returns code; detail may be NULL
cdef int set_os_fault(fault_t* fault, int code, int os_errno, const char* site, uint64_t offset) noexcept nogil
cdef int raise_fault(const fault_t* fault) except -1
