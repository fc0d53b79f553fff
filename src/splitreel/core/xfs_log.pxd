# xfs_log: the log of an XFS file system: where it begins and ends, its records, and whether it holds changes that are
# not in place yet.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport fault_t
from splitreel.core.xfs_superblock cimport xfs_geometry_t

cdef enum:
    XLOG_BLOCK = 512                               # a basic block: what the log counts in
    XLOG_MAX_RECORD = 1 << 18                      # bytes of a record's data

cdef extern from "xfs_log_disk.h" nogil:
    ctypedef struct xlog_rec_header_t:
        uint32_t h_magicno, h_cycle, h_version, h_len, h_crc, h_num_logops, h_fmt, h_size
        uint64_t h_lsn, h_tail_lsn
        uint32_t h_cycle_data[64]
        uint8_t h_fs_uuid[16]

    ctypedef struct xlog_rec_ext_header_t:
        uint32_t xh_cycle
        uint32_t xh_cycle_data[64]

    ctypedef struct xlog_op_header_t:
        uint32_t oh_tid, oh_len
        uint8_t oh_clientid, oh_flags

    ctypedef struct xfs_trans_header_t:
        uint32_t th_magic, th_type, th_tid, th_num_items

    ctypedef struct xfs_buf_log_format_t:
        uint16_t blf_type, blf_size, blf_flags, blf_len
        uint64_t blf_blkno
        uint32_t blf_map_size

    ctypedef struct xfs_inode_log_format_t:
        uint16_t ilf_type, ilf_size
        uint64_t ilf_ino

cdef enum xlog_op_flag_t:                          # of oh_flags
    XLOG_START_TRANS = 1
    XLOG_COMMIT_TRANS = 2
    XLOG_CONTINUE_TRANS = 4
    XLOG_WAS_CONT_TRANS = 8
    XLOG_END_TRANS = 16
    XLOG_UNMOUNT_TRANS = 32

cdef enum xfs_log_state_t:
    LOG_CLEAN = 0                                  # unmounted, or never written
    LOG_FROZEN = 1                                 # nothing but the superblock: what a freeze leaves, on purpose
    LOG_DIRTY = 2                                  # it must be replayed

cdef struct xlog_record_t:
    uint64_t block                                 # of its header, in the log
    uint64_t end                                   # the block behind it
    uint64_t lsn
    uint64_t tail_lsn
    const uint8_t* data                            # as the transactions wrote them; valid until the next read_record
    uint32_t size                                  # bytes
    uint32_t op_count
    uint32_t cycle

cdef class XfsLog:
    # One thread at a time. find_ends first; then records from tail to head with read_record.
    cdef BlockDevice device
    cdef const xfs_geometry_t* geometry
    cdef uint64_t base                             # of the log, bytes on the device
    cdef uint64_t count                            # basic blocks
    cdef uint64_t head, tail                       # blocks; equal when there is nothing between them
    cdef bint unmounted                            # the last record says so, or the log was never written
    cdef uint8_t* buffer                           # a record with its headers, wrapped parts joined
    cdef uint8_t* window
    # start: bytes on the device, size: of the log. Borrowed geometry.
    cdef int open(self, uint64_t start, uint64_t size, const xfs_geometry_t* geometry, fault_t* fault) noexcept nogil
    # The log that a superblock names; external: the device is the log's own.
    cdef int open_of(self, const xfs_geometry_t* geometry, bint external, fault_t* fault) noexcept nogil
    # Head and tail as the kernel finds them, torn records at the head left out. FAULT_CORRUPT: there is no log here.
    cdef int find_ends(self, fault_t* fault) noexcept nogil
    # 1: a whole record of this file system begins at block, now in *record; 0: none does; or a fault.
    cdef int read_record(self, uint64_t block, xlog_record_t* record, fault_t* fault) noexcept nogil
    # xfs_log_state_t, or a fault.
    cdef int judge(self, fault_t* fault) noexcept nogil
    cdef int read_blocks(self, uint64_t block, uint64_t count, uint8_t* destination, fault_t* fault) noexcept nogil
    cdef int cycle_of(self, uint64_t block, uint32_t* cycle, fault_t* fault) noexcept nogil
    cdef int first_with(self, uint32_t cycle, uint64_t low, uint64_t high, uint64_t* found,
                        fault_t* fault) noexcept nogil
    cdef int guess_head(self, uint32_t* cycle, fault_t* fault) noexcept nogil
    cdef int settle_head(self, xlog_record_t* last, fault_t* fault) noexcept nogil
    cdef uint64_t eighth_header(self, uint64_t first, uint64_t count) noexcept nogil
    cdef int take_tail(self, const xlog_record_t* last, fault_t* fault) noexcept nogil

# Text of what is wrong with an operation at data[at], or NULL; *op and the region behind it are in bounds then.
cdef const char* next_operation(const xlog_record_t* record, uint32_t* at, xlog_op_header_t* op,
                                const uint8_t** region) noexcept nogil
# Every item of every transaction in the record is the superblock; what cannot be followed is not.
cdef bint only_superblock(const xlog_record_t* record) noexcept nogil
