"""xfs_group reads the headers and the inode and refcount B+trees of allocation groups. It reads no inode.

Source: "XFS Algorithms & Data Structures", "Allocation Groups", "AG Inode Management", "Sharing Data Blocks";
fs/xfs/libxfs/xfs_ialloc.c and xfs_refcount.c for the checks. The free inode B+tree and the counters say nothing that
the inode B+tree does not.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, qsort
from libc.string cimport memcmp, memset

from splitreel.core.fault cimport FAULT_IO, fault_t
from splitreel.core.sweep cimport append_block, block_ref_t, free_blocks, grow_array
from splitreel.core.trees cimport TREES_MAX_DEPTH, add_to_set, free_set
from splitreel.core.xfs_btree cimport shared_range_t, verify_short_block
from splitreel.core.xfs_disk cimport (
    XFS_AGF_MAGIC,
    XFS_AGI_MAGIC,
    XFS_IBT_CRC_MAGIC,
    XFS_IBT_MAGIC,
    XFS_REFC_CRC_MAGIC,
    xfs_agf_t,
    xfs_agi_t,
    xfs_be16,
    xfs_be32,
    xfs_be64,
    xfs_btree_sblock_t,
    xfs_inobt_rec_t,
    xfs_load32,
    xfs_refcount_rec_t,
)
from splitreel.core.xfs_superblock cimport xfs_ag_size, xfs_crc_ok, xfs_linear_block, xfs_valid_blocks

cdef enum:
    AGF_SECTOR = 1
    AGI_SECTOR = 2
    AG_VERSION = 1
    AGF_UUID = 64                                  # offsets
    AGF_CRC = 216
    AGI_UUID = 296
    AGI_CRC = 312
    INODE_KEY = 4                                  # bytes of keys and pointers
    REFCOUNT_KEY = 4
    POINTER = 4
    INODE_RECORD = 16
    REFCOUNT_RECORD = 12
    HOLES = 16                                     # bits of ir_holemask
    INODES_PER_HOLE = 4                            # inodes that each of them stands for
    COW_FLAG = 1 << 31                             # of rc_startblock: set aside for copy on write, no file's


cdef int compare_chunks(const void* left, const void* right) noexcept nogil:
    cdef uint64_t a = (<const chunk_t*>left).first
    cdef uint64_t b = (<const chunk_t*>right).first
    return (a > b) - (a < b)


cdef int compare_ranges(const void* left, const void* right) noexcept nogil:
    cdef uint64_t a = (<const shared_range_t*>left).first
    cdef uint64_t b = (<const shared_range_t*>right).first
    return (a > b) - (a < b)


cdef uint64_t present_inodes(uint16_t holemask) noexcept nogil:
    """A bit for each inode of a chunk that is not in a hole."""
    cdef uint64_t present = 0
    cdef int i
    for i in range(HOLES):
        if not holemask >> i & 1:
            present |= <uint64_t>((1 << INODES_PER_HOLE) - 1) << (i * INODES_PER_HOLE)
    return present


cdef uint32_t present_count(uint16_t holemask) noexcept nogil:
    cdef uint32_t count = 0
    cdef int i
    for i in range(HOLES):
        count += INODES_PER_HOLE * (1 - (holemask >> i & 1))
    return count


cdef class XfsGroups:
    """What the allocation groups say. One thread at a time; not for Python."""

    def __dealloc__(self):
        self.reset()

    cdef void reset(self) noexcept nogil:
        free(self.chunks.items)
        free(self.shared.items)
        memset(&self.chunks, 0, sizeof(chunk_list_t))
        memset(&self.shared, 0, sizeof(shared_list_t))
        free_blocks(&self.inode_trees)
        free_blocks(&self.refcount_trees)
        free_blocks(&self.lists[0])
        free_blocks(&self.lists[1])
        free_set(&self.seen)

    cdef void damaged(self, ExtentMap target, uint64_t group, uint64_t block, const char* text) noexcept nogil:
        """The inode told is the first that the group can have."""
        cdef char whole[112]
        snprintf(whole, sizeof(whole), b"allocation group %llu: %s", <unsigned long long>group, text)
        target.append_problem(group << self.geometry.agino_log, block * self.geometry.block_size, whole)

    cdef int read(self, ExtentMap target, fault_t* fault) noexcept nogil:
        self.chunks.count = self.shared.count = 0
        self.inodes_left = self.geometry.block_count << self.geometry.inopblog
        self.shared_left = self.geometry.block_count
        if (self.read_headers(target, fault) < 0 or self.read_trees(target, &self.inode_trees, True, fault) < 0
                or self.read_trees(target, &self.refcount_trees, False, fault) < 0):
            return fault.code
        self.arrange_chunks(target)
        self.arrange_shared()
        return 0

    # Headers.

    cdef int read_headers(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef block_list_t* headers = &self.lists[0]
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef uint32_t group
        cdef int rc
        headers.count = self.inode_trees.count = self.refcount_trees.count = 0
        for group in range(self.geometry.ag_count):
            if append_block(headers, <uint64_t>group * self.geometry.ag_blocks, self.geometry.first_ag_block, group, 0,
                            0, fault) < 0:
                return fault.code
        self.sweep.start(headers)
        while True:
            rc = self.sweep.next(&ref, &data, fault)
            if rc == 0:
                return 0
            if rc < 0 and rc != FAULT_IO:
                return rc
            if rc == FAULT_IO:
                self.damaged(target, ref.owner, ref.block, b"its headers do not read: its inodes are lost")
            elif self.take_headers(target, ref.owner, data, fault) < 0:
                return fault.code

    cdef const char* verify_header(self, const uint8_t* header, uint32_t magic, uint32_t group, uint32_t uuid_offset,
                                   uint32_t crc_offset) noexcept nogil:
        """Magic, version, group and its length stand at the same places in AGF and AGI."""
        cdef const xfs_agi_t* words = <const xfs_agi_t*>header
        if xfs_be32(words.agi_magicnum) != magic or xfs_be32(words.agi_versionnum) != AG_VERSION:
            return b"a header without its magic number: its inodes are lost"
        if self.geometry.crc and not xfs_crc_ok(header, self.geometry.sector_size, crc_offset):
            return b"a header's checksum does not match: its inodes are lost"
        if self.geometry.crc and memcmp(header + uuid_offset, self.geometry.meta_uuid, 16) != 0:
            return b"a header of another file system: its inodes are lost"
        if (xfs_be32(words.agi_seqno) != group or xfs_be32(words.agi_length) != xfs_ag_size(self.geometry, group)):
            return b"a header that is of another group or length: its inodes are lost"
        return NULL

    cdef int take_headers(self, ExtentMap target, uint32_t group, const uint8_t* data, fault_t* fault) noexcept nogil:
        cdef const xfs_agi_t* agi = <const xfs_agi_t*>(data + AGI_SECTOR * self.geometry.sector_size)
        cdef const xfs_agf_t* agf = <const xfs_agf_t*>(data + AGF_SECTOR * self.geometry.sector_size)
        cdef const char* text = self.verify_header(<const uint8_t*>agi, XFS_AGI_MAGIC, group, AGI_UUID, AGI_CRC)
        cdef uint64_t block = <uint64_t>group * self.geometry.ag_blocks
        if text != NULL:
            self.damaged(target, group, block, text)
        elif self.add_root(target, &self.inode_trees, group, xfs_be32(agi.agi_root), xfs_be32(agi.agi_level),
                           fault) < 0:
            return fault.code
        if not self.geometry.reflink:
            return 0
        if self.verify_header(<const uint8_t*>agf, XFS_AGF_MAGIC, group, AGF_UUID, AGF_CRC) != NULL:
            self.damaged(target, group, block, b"a bad AGF: which of its blocks are shared is not known")
            return 0
        return self.add_root(target, &self.refcount_trees, group, xfs_be32(agf.agf_refcount_root),
                             xfs_be32(agf.agf_refcount_level), fault)

    cdef int add_root(self, ExtentMap target, block_list_t* list, uint32_t group, uint32_t root, uint32_t level,
                      fault_t* fault) noexcept nogil:
        """A level counts from 1 in headers, from 0 in blocks."""
        cdef uint64_t block = <uint64_t>group << self.geometry.agblklog | root
        if (level == 0 or level > TREES_MAX_DEPTH or root >> self.geometry.agblklog != 0
                or not xfs_valid_blocks(self.geometry, block, 1)):
            self.damaged(target, group, <uint64_t>group * self.geometry.ag_blocks,
                         b"the root of a B+tree is out of range")
            return 0
        return append_block(list, xfs_linear_block(self.geometry, block), 1, group, 0, level - 1, fault)

    # Trees.

    cdef int read_trees(self, ExtentMap target, block_list_t* roots, bint inodes, fault_t* fault) noexcept nogil:
        """Level by level: what is read gives the next list. No block is met twice, so that it ends."""
        cdef block_list_t* nodes = roots
        cdef block_list_t* children = &self.lists[0]
        cdef const block_ref_t* ref
        cdef const uint8_t* node
        cdef int rc
        while nodes.count > 0:
            children.count = 0
            self.sweep.start(nodes)
            while True:
                rc = self.sweep.next(&ref, &node, fault)
                if rc == 0:
                    break
                if rc < 0 and rc != FAULT_IO:
                    return rc
                if rc == FAULT_IO:
                    self.damaged(target, ref.owner, ref.block, b"a B+tree block does not read")
                elif self.take_node(target, ref, node, inodes, children, fault) < 0:
                    return fault.code
            nodes = children
            children = &self.lists[1] if nodes == &self.lists[0] else &self.lists[0]
        return 0

    cdef int take_node(self, ExtentMap target, const block_ref_t* ref, const uint8_t* node, bint inodes,
                       block_list_t* children, fault_t* fault) noexcept nogil:
        cdef uint32_t count = xfs_be16((<const xfs_btree_sblock_t*>node).bb_numrecs)
        cdef const uint8_t* records = node + self.geometry.btree_header
        cdef uint32_t key = INODE_KEY if inodes else REFCOUNT_KEY
        cdef uint32_t record = INODE_RECORD if inodes else REFCOUNT_RECORD
        cdef uint32_t most
        cdef const char* text
        if ref.limit > 0:
            record = key + POINTER
        if inodes:
            text = verify_short_block(self.geometry, node, XFS_IBT_MAGIC, XFS_IBT_CRC_MAGIC, ref.block, ref.owner,
                                      ref.limit, record)
        else:
            text = verify_short_block(self.geometry, node, 0, XFS_REFC_CRC_MAGIC, ref.block, ref.owner, ref.limit,
                                      record)
        if text != NULL:
            self.damaged(target, ref.owner, ref.block, text)
            return 0
        if ref.limit > 0:
            most = (self.geometry.block_size - self.geometry.btree_header) // record
            return self.take_pointers(target, ref, records + most * key, count, children, fault)
        if inodes:
            return self.take_chunks(target, ref, records, count, fault)
        return self.take_shared(target, ref, records, count, fault)

    cdef int take_pointers(self, ExtentMap target, const block_ref_t* ref, const uint8_t* pointers, uint32_t count,
                           block_list_t* children, fault_t* fault) noexcept nogil:
        cdef uint64_t block
        cdef uint32_t i, child
        cdef int new
        for i in range(count):
            child = xfs_load32(pointers + i * POINTER)
            block = <uint64_t>ref.owner << self.geometry.agblklog | child
            if child >> self.geometry.agblklog != 0 or not xfs_valid_blocks(self.geometry, block, 1):
                self.damaged(target, ref.owner, ref.block, b"a B+tree block lies outside its allocation group")
                continue
            block = xfs_linear_block(self.geometry, block)
            new = add_to_set(&self.seen, block, fault)
            if new < 0:
                return new
            if new == 0:
                self.damaged(target, ref.owner, block, b"a B+tree block is used twice")
            elif append_block(children, block, 1, ref.owner, 0, ref.limit - 1, fault) < 0:
                return fault.code
        return 0

    # Records.

    cdef bint chunk_fits(self, uint32_t group, uint64_t first, uint64_t used) noexcept nogil:
        """It begins where inode clusters can, and all that is in use lies in the group."""
        cdef uint32_t per_block = 1 << self.geometry.inopblog
        cdef uint64_t block, last = 0
        cdef int i
        if first % min(per_block, <uint32_t>XFS_INODES_PER_CHUNK) != 0 or first >> self.geometry.agino_log != 0:
            return False
        for i in range(XFS_INODES_PER_CHUNK):
            if used >> i & 1:
                last = i
        block = first >> self.geometry.inopblog
        last = (first + last) >> self.geometry.inopblog
        return last >> self.geometry.agblklog == 0 and xfs_valid_blocks(
            self.geometry, <uint64_t>group << self.geometry.agblklog | block, last - block + 1)

    cdef int take_chunks(self, ExtentMap target, const block_ref_t* ref, const uint8_t* records, uint32_t count,
                         fault_t* fault) noexcept nogil:
        cdef const xfs_inobt_rec_t* record = <const xfs_inobt_rec_t*>records
        cdef chunk_list_t* chunks = &self.chunks
        cdef uint16_t holemask
        cdef uint64_t used
        cdef uint32_t i
        for i in range(count):
            holemask = xfs_be16(record[i].ir_holemask) if self.geometry.sparse_inodes else 0
            used = ~xfs_be64(record[i].ir_free) & present_inodes(holemask)
            if used == 0:
                continue
            if self.inodes_left < present_count(holemask):
                self.damaged(target, ref.owner, ref.block, b"more inodes than the file system has room for")
                return 0
            self.inodes_left -= present_count(holemask)
            if not self.chunk_fits(ref.owner, xfs_be32(record[i].ir_startino), used):
                self.damaged(target, ref.owner, ref.block, b"inodes that lie outside the group")
                continue
            if grow_array(<void**>&chunks.items, &chunks.capacity, chunks.count, sizeof(chunk_t), fault) < 0:
                return fault.code
            chunks.items[chunks.count].first = (<uint64_t>ref.owner << self.geometry.agino_log
                                                | xfs_be32(record[i].ir_startino))
            chunks.items[chunks.count].used = used
            chunks.count += 1
        return 0

    cdef void arrange_chunks(self, ExtentMap target) noexcept nogil:
        """Trees of different heights come out of order; no inode is in two chunks."""
        cdef chunk_t* items = self.chunks.items
        cdef size_t i, kept = 0
        for i in range(1, self.chunks.count):
            if items[i - 1].first >= items[i].first:
                qsort(items, self.chunks.count, sizeof(chunk_t), compare_chunks)
                break
        for i in range(self.chunks.count):
            if kept > 0 and items[i].first - items[kept - 1].first < XFS_INODES_PER_CHUNK:
                target.append_problem(items[i].first, 0, b"inodes that are listed twice")
                continue
            items[kept] = items[i]
            kept += 1
        self.chunks.count = kept

    cdef int take_shared(self, ExtentMap target, const block_ref_t* ref, const uint8_t* records, uint32_t count,
                         fault_t* fault) noexcept nogil:
        cdef const xfs_refcount_rec_t* record = <const xfs_refcount_rec_t*>records
        cdef shared_list_t* shared = &self.shared
        cdef uint64_t block
        cdef uint32_t i, first
        for i in range(count):
            first = xfs_be32(record[i].rc_startblock)
            if first & COW_FLAG or xfs_be32(record[i].rc_refcount) < 2:
                continue
            block = <uint64_t>ref.owner << self.geometry.agblklog | first
            if first >> self.geometry.agblklog != 0 or not xfs_valid_blocks(
                    self.geometry, block, xfs_be32(record[i].rc_blockcount)):
                self.damaged(target, ref.owner, ref.block, b"shared blocks that lie outside the group")
                continue
            if self.shared_left < xfs_be32(record[i].rc_blockcount):
                self.damaged(target, ref.owner, ref.block, b"more shared blocks than the file system has")
                return 0
            self.shared_left -= xfs_be32(record[i].rc_blockcount)
            if grow_array(<void**>&shared.items, &shared.capacity, shared.count, sizeof(shared_range_t), fault) < 0:
                return fault.code
            shared.items[shared.count].first = xfs_linear_block(self.geometry, block)
            shared.items[shared.count].end = shared.items[shared.count].first + xfs_be32(record[i].rc_blockcount)
            shared.count += 1
        return 0

    cdef void arrange_shared(self) noexcept nogil:
        """In order, joined where they touch: how often a block is shared makes no difference."""
        cdef shared_range_t* items = self.shared.items
        cdef size_t i, kept = 0
        for i in range(1, self.shared.count):
            if items[i - 1].first >= items[i].first:
                qsort(items, self.shared.count, sizeof(shared_range_t), compare_ranges)
                break
        for i in range(self.shared.count):
            if kept > 0 and items[i].first <= items[kept - 1].end:
                items[kept - 1].end = max(items[kept - 1].end, items[i].end)
                continue
            items[kept] = items[i]
            kept += 1
        self.shared.count = kept
