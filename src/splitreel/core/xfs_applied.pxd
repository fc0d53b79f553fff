# xfs_applied: whether what the log of an XFS file system holds between its ends stands in place already.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport fault_t
from splitreel.core.xfs_log cimport XfsLog, xlog_record_t
from splitreel.core.xfs_superblock cimport xfs_geometry_t

cdef enum:
    OPEN_TRANSACTIONS = 16                         # that are told apart in one log, and intents that wait
    OPEN_INTENTS = 256

cdef struct open_transaction_t:
    uint64_t lsn                                   # of the record it began in: what its objects bear once in place
    uint32_t tid
    uint32_t left                                  # regions of the item at hand
    bint used

cdef class XfsApplied:
    # One thread at a time; no Python face.
    cdef BlockDevice device                        # of the data
    cdef const xfs_geometry_t* geometry
    cdef open_transaction_t transactions[OPEN_TRANSACTIONS]
    cdef uint64_t intents[OPEN_INTENTS]            # ids of those that were not seen done
    cdef int intent_count
    # A log whose ends were found. 1: replaying it would change nothing that is read; 0: it would, or it cannot be told.
    cdef int all_in_place(self, XfsLog log, fault_t* fault) noexcept nogil
    # Version 4, whose metadata cannot tell: 1 when behind the record at the tail stands only the superblock, as after a
    # freeze, and hardly ever after a crash.
    cdef int only_tail(self, XfsLog log, fault_t* fault) noexcept nogil
    cdef int check_record(self, const xlog_record_t* record, fault_t* fault) noexcept nogil
    cdef int check_region(self, open_transaction_t* transaction, uint8_t flags, const uint8_t* region, uint32_t size,
                          fault_t* fault) noexcept nogil
    cdef int check_item(self, const uint8_t* region, uint32_t size, uint64_t lsn, fault_t* fault) noexcept nogil
    cdef int check_buffer(self, const uint8_t* region, uint32_t size, uint64_t lsn, fault_t* fault) noexcept nogil
    cdef int check_inode(self, const uint8_t* region, uint32_t size, uint64_t lsn, fault_t* fault) noexcept nogil
    cdef int check_intent(self, uint16_t type, const uint8_t* region, uint32_t size) noexcept nogil
    cdef open_transaction_t* find(self, uint32_t tid) noexcept nogil
    cdef bint begin(self, uint32_t tid, uint64_t lsn) noexcept nogil
