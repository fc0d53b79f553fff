"""xfs_applied says whether what an XFS log holds stands in place already. It replays nothing and writes nothing.

The tail moves only with the next record: a freeze leaves the last change before it between tail and head, though it was
written in place, and on top the superblock. A database that overwrites its files is always frozen so. Recovery would
skip such a change: every metadata object of version 5 bears the log sequence number of its last change. Source:
fs/xfs/xfs_inode_item_recover.c; xlog_recover_get_buf_lsn of fs/xfs/xfs_buf_item_recover.c.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from splitreel.core.xfs_disk cimport (
    XFS_AGF_MAGIC,
    XFS_AGI_MAGIC,
    XFS_BMAP_CRC_MAGIC,
    XFS_DINODE_MAGIC,
    xfs_dinode_t,
    xfs_be16,
    xfs_be32,
    xfs_be64,
    xfs_load16,
    xfs_load32,
    xfs_load64,
)
from splitreel.core.xfs_log cimport (
    XLOG_BLOCK,
    XLOG_COMMIT_TRANS,
    XLOG_CONTINUE_TRANS,
    XLOG_START_TRANS,
    XLOG_WAS_CONT_TRANS,
    next_operation,
    only_superblock,
    xfs_buf_log_format_t,
    xfs_inode_log_format_t,
    xfs_trans_header_t,
    xlog_op_header_t,
)
from splitreel.core.xfs_superblock cimport xfs_inode_offset, xfs_valid_inode

cdef extern from "<endian.h>" nogil:
    uint16_t le16toh(uint16_t value)
    uint32_t le32toh(uint32_t value)
    uint64_t le64toh(uint64_t value)

cdef enum:
    TRANSACTION_CLIENT = 0x69
    TRANSACTION_MAGIC = 0x5452414E
    ITEM_EFI = 0x1236
    ITEM_EFD = 0x1237
    ITEM_INODE = 0x123B
    ITEM_BUFFER = 0x123C
    ITEM_DQUOT = 0x123D
    ITEM_QUOTAOFF = 0x123E
    ITEM_ICREATE = 0x123F
    ITEM_FIRST_INTENT = 0x1240                     # from here on intents are even, and the next number says: done
    ITEM_LAST_DONE = 0x124F
    INTENT_ID = 8                                  # offset of an intent's id, in what says that it is done too
    # Inode clusters: of these only the list of unlinked inodes is replayed. Cancelled: nothing is. Quota: not read.
    BUFFER_NEUTRAL = 0x1 | 0x2 | 0x4 | 0x8 | 0x10

# Where metadata blocks keep their log sequence number and UUID, by the magic number at their start.
cdef struct block_lsn_t:
    uint32_t magic, lsn, uuid

cdef block_lsn_t* blocks = [
    block_lsn_t(0x41423342, 24, 32), block_lsn_t(0x41423343, 24, 32),      # AB3B, AB3C: free space
    block_lsn_t(0x49414233, 24, 32), block_lsn_t(0x46494233, 24, 32),      # IAB3, FIB3: inodes, free inodes
    block_lsn_t(0x524D4233, 24, 32), block_lsn_t(0x52334643, 24, 32),      # RMB3, R3FC: owners, reference counts
    block_lsn_t(XFS_BMAP_CRC_MAGIC, 32, 40), block_lsn_t(XFS_AGF_MAGIC, 208, 64), block_lsn_t(XFS_AGI_MAGIC, 320, 296),
    block_lsn_t(0x5841464C, 24, 8),                                        # XAFL
    block_lsn_t(0x58444233, 16, 24), block_lsn_t(0x58444433, 16, 24),      # XDB3, XDD3: directories
    block_lsn_t(0x58444633, 16, 24),                                       # XDF3
    block_lsn_t(0x58534C4D, 48, 16),                                       # XSLM
    block_lsn_t(0, 0, 0),
]


cdef bint is_newer(uint64_t lsn, uint64_t than) noexcept nogil:
    """Cycle and block of the log make one number; objects that were never logged have 0 or ~0."""
    return lsn != 0 and lsn != ~<uint64_t>0 and lsn >= than


cdef bint block_is_newer(const uint8_t* data, const uint8_t* uuid, uint64_t than) noexcept nogil:
    """A metadata block of this file system that was written with the change, or a later one."""
    cdef const block_lsn_t* known = blocks
    cdef uint32_t magic = xfs_load32(data), short_magic = xfs_load16(data + 8)
    # Leaves and nodes of directories and attributes: 3DF1, 3DFF, 3EBE, 3BEE.
    if short_magic == 0x3DF1 or short_magic == 0x3DFF or short_magic == 0x3EBE or short_magic == 0x3BEE:
        return memcmp(data + 32, uuid, 16) == 0 and is_newer(xfs_load64(data + 24), than)
    while known.magic != 0:
        if known.magic == magic:
            return memcmp(data + known.uuid, uuid, 16) == 0 and is_newer(xfs_load64(data + known.lsn), than)
        known += 1
    return False


cdef class XfsApplied:
    """Compares the items of a log with what stands on the device. One log an object."""

    def __cinit__(self, BlockDevice device not None):
        self.device = device

    cdef int all_in_place(self, XfsLog log, fault_t* fault) noexcept nogil:
        cdef xlog_record_t record
        cdef uint64_t at = log.tail, passed = 0
        cdef int rc
        self.geometry = log.geometry
        self.intent_count = 0
        memset(self.transactions, 0, sizeof(self.transactions))
        while at != log.head and passed < log.count:
            rc = log.read_record(at, &record, fault)
            if rc == 1:
                rc = self.check_record(&record, fault)
            if rc != 1:
                return rc
            passed += (record.end + log.count - at) % log.count
            at = record.end
        return self.intent_count == 0

    cdef int only_tail(self, XfsLog log, fault_t* fault) noexcept nogil:
        cdef xlog_record_t record
        cdef uint64_t at = log.tail, passed = 0
        cdef int rc
        while at != log.head and passed < log.count:
            rc = log.read_record(at, &record, fault)
            if rc != 1:
                return rc
            if at != log.tail and not only_superblock(&record):
                return 0
            passed += (record.end + log.count - at) % log.count
            at = record.end
        return passed > 0 and record.block != log.tail

    # Transactions.

    cdef open_transaction_t* find(self, uint32_t tid) noexcept nogil:
        cdef int i
        for i in range(OPEN_TRANSACTIONS):
            if self.transactions[i].used and self.transactions[i].tid == tid:
                return &self.transactions[i]
        return NULL

    cdef bint begin(self, uint32_t tid, uint64_t lsn) noexcept nogil:
        cdef int i
        for i in range(OPEN_TRANSACTIONS):
            if not self.transactions[i].used:
                self.transactions[i] = open_transaction_t(lsn, tid, 0, True)
                return True
        return False

    cdef int check_record(self, const xlog_record_t* record, fault_t* fault) noexcept nogil:
        """Of a transaction that began before the tail, recovery takes nothing; of one without its end neither."""
        cdef open_transaction_t* transaction
        cdef xlog_op_header_t op
        cdef const uint8_t* region
        cdef uint32_t at = 0
        cdef int rc
        for _ in range(record.op_count):
            if next_operation(record, &at, &op, &region) != NULL:
                return 0
            if op.oh_clientid != TRANSACTION_CLIENT:
                continue
            transaction = self.find(xfs_be32(op.oh_tid))
            if op.oh_flags & XLOG_START_TRANS:
                if transaction != NULL or not self.begin(xfs_be32(op.oh_tid), record.lsn):
                    return 0
            elif transaction != NULL and op.oh_flags & XLOG_COMMIT_TRANS:
                transaction.used = False
            elif transaction != NULL and op.oh_len != 0:
                rc = self.check_region(transaction, op.oh_flags, region, xfs_be32(op.oh_len), fault)
                if rc != 1:
                    return rc
        return 1

    cdef int check_region(self, open_transaction_t* transaction, uint8_t flags, const uint8_t* region, uint32_t size,
                          fault_t* fault) noexcept nogil:
        """The first region of an item says what it is and how many follow. One that is cut in two cannot be told."""
        if flags & XLOG_WAS_CONT_TRANS:
            return 1
        if transaction.left > 0:
            transaction.left -= 1
            return 1
        if flags & XLOG_CONTINUE_TRANS or size < INTENT_ID:
            return 0
        if le32toh((<const xfs_trans_header_t*>region).th_magic) == TRANSACTION_MAGIC:
            return 1
        transaction.left = le16toh((<const xfs_buf_log_format_t*>region).blf_size)
        if transaction.left == 0:
            return 0
        transaction.left -= 1
        return self.check_item(region, size, transaction.lsn, fault)

    # Items.

    cdef int check_item(self, const uint8_t* region, uint32_t size, uint64_t lsn, fault_t* fault) noexcept nogil:
        cdef uint16_t type = le16toh((<const xfs_buf_log_format_t*>region).blf_type)
        if type == ITEM_BUFFER:
            return self.check_buffer(region, size, lsn, fault)
        if type == ITEM_INODE:
            return self.check_inode(region, size, lsn, fault)
        # A chunk of inodes that was made: its inodes and the trees that lead to it are items of their own.
        if type == ITEM_ICREATE or type == ITEM_DQUOT or type == ITEM_QUOTAOFF:
            return 1
        if type == ITEM_EFI or type == ITEM_EFD or (type >= ITEM_FIRST_INTENT and type <= ITEM_LAST_DONE):
            return self.check_intent(type, region, size)
        return 0

    cdef int check_buffer(self, const uint8_t* region, uint32_t size, uint64_t lsn, fault_t* fault) noexcept nogil:
        cdef const xfs_buf_log_format_t* item = <const xfs_buf_log_format_t*>region
        cdef uint8_t data[XLOG_BLOCK]
        cdef uint64_t block
        if size < sizeof(xfs_buf_log_format_t):
            return 0
        block = le64toh(item.blf_blkno)
        if block == 0 or le16toh(item.blf_flags) & BUFFER_NEUTRAL:
            return 1
        if block >= self.device.size // XLOG_BLOCK:
            return 0
        if self.device.read(block * XLOG_BLOCK, data, XLOG_BLOCK, fault) < 0:
            return fault.code
        return block_is_newer(data, self.geometry.meta_uuid, lsn)

    cdef int check_inode(self, const uint8_t* region, uint32_t size, uint64_t lsn, fault_t* fault) noexcept nogil:
        cdef const xfs_inode_log_format_t* item = <const xfs_inode_log_format_t*>region
        cdef xfs_dinode_t inode
        cdef uint64_t number
        if size != sizeof(xfs_inode_log_format_t):
            return 0
        number = le64toh(item.ilf_ino)
        if not xfs_valid_inode(self.geometry, number):
            return 0
        if self.device.read(xfs_inode_offset(self.geometry, number), &inode, sizeof(xfs_dinode_t), fault) < 0:
            return fault.code
        return (xfs_be16(inode.di_magic) == XFS_DINODE_MAGIC and xfs_be64(inode.di_ino) == number
                and is_newer(xfs_be64(inode.di_lsn), lsn))

    cdef int check_intent(self, uint16_t type, const uint8_t* region, uint32_t size) noexcept nogil:
        """What was begun in these records must be done in them; what was begun before was done before."""
        cdef uint64_t number
        cdef int i
        if size < INTENT_ID + sizeof(uint64_t):
            return 0
        memcpy(&number, region + INTENT_ID, sizeof(uint64_t))
        if type & 1 == 0:
            if self.intent_count == OPEN_INTENTS:
                return 0
            self.intents[self.intent_count] = number
            self.intent_count += 1
            return 1
        for i in range(self.intent_count):
            if self.intents[i] == number:
                self.intent_count -= 1
                self.intents[i] = self.intents[self.intent_count]
                break
        return 1
