"""xfs_btree verifies blocks of XFS's B+trees and turns the leaves of forks into extents. It reads no device by itself.

Source: "XFS Algorithms & Data Structures", "Short Format B+Trees", "Long Format B+Trees", "Extent List"; the checks of
fs/xfs/libxfs/xfs_btree.c and xfs_bmap.c, and xfs_reflink.c for what FIEMAP calls shared.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from splitreel.core.extent cimport EXTENT_SHARED, EXTENT_UNWRITTEN, ExtentMap
from splitreel.core.sweep cimport block_list_t, block_ref_t, grow_array
from splitreel.core.trees cimport TREES_MAX_DEPTH
from splitreel.core.xfs_disk cimport (
    XFS_BMAP_CRC_MAGIC,
    XFS_BMAP_MAGIC,
    xfs_be16,
    xfs_be32,
    xfs_be64,
    xfs_bmdr_block_t,
    xfs_btree_lblock_t,
    xfs_btree_sblock_t,
    xfs_load64,
)
from splitreel.core.xfs_superblock cimport xfs_crc_ok, xfs_linear_block, xfs_valid_blocks

cdef enum:
    SHORT_CRC_OFFSET = 52
    LONG_CRC_OFFSET = 64
    DADDR_LOG = 9                                  # blocks name their own place in units of 512 bytes
    RECORD = 16                                    # bytes of a record, and of a key and a pointer together
    KEY = 8
    ROOT_HEADER = 4
    STARTOFF_BITS = 54
    COUNT_BITS = 21


# Blocks.

cdef const char* verify_short_block(const xfs_geometry_t* geometry, const uint8_t* data, uint32_t magic,
                                    uint32_t magic_crc, uint64_t block, uint32_t group, uint32_t level,
                                    uint32_t record_size) noexcept nogil:
    cdef const xfs_btree_sblock_t* header = <const xfs_btree_sblock_t*>data
    cdef uint32_t most = (geometry.block_size - geometry.btree_header) // record_size
    if xfs_be32(header.bb_magic) != (magic_crc if geometry.crc else magic):
        return b"a B+tree block without its magic number"
    if geometry.crc:
        if not xfs_crc_ok(data, geometry.block_size, SHORT_CRC_OFFSET):
            return b"a B+tree block's checksum does not match"
        if memcmp(header.bb_uuid, geometry.meta_uuid, 16) != 0:
            return b"a B+tree block of another file system"
        if xfs_be64(header.bb_blkno) != block << (geometry.block_log - DADDR_LOG) or xfs_be32(header.bb_owner) != group:
            return b"a B+tree block that belongs elsewhere"
    if xfs_be16(header.bb_level) != level:
        return b"a B+tree block of the wrong level"
    if xfs_be16(header.bb_numrecs) > most:
        return b"a B+tree block with more records than fit"
    return NULL


cdef const char* verify_long_block(const xfs_geometry_t* geometry, const uint8_t* data, uint64_t block, uint64_t owner,
                                   uint32_t level) noexcept nogil:
    cdef const xfs_btree_lblock_t* header = <const xfs_btree_lblock_t*>data
    cdef uint32_t most = (geometry.block_size - geometry.btree_long_header) // RECORD
    if xfs_be32(header.bb_magic) != (XFS_BMAP_CRC_MAGIC if geometry.crc else XFS_BMAP_MAGIC):
        return b"an extent tree block without its magic number"
    if geometry.crc:
        if not xfs_crc_ok(data, geometry.block_size, LONG_CRC_OFFSET):
            return b"an extent tree block's checksum does not match"
        if memcmp(header.bb_uuid, geometry.meta_uuid, 16) != 0:
            return b"an extent tree block of another file system"
        if xfs_be64(header.bb_blkno) != block << (geometry.block_log - DADDR_LOG):
            return b"an extent tree block that belongs elsewhere"
        if xfs_be64(header.bb_owner) != owner:
            return b"an extent tree block of another inode"
    if xfs_be16(header.bb_level) != level:
        return b"an extent tree block of the wrong level"
    if header.bb_numrecs == 0 or xfs_be16(header.bb_numrecs) > most:
        return b"an extent tree block with no records, or more than fit"
    return NULL


# Records.

cdef uint64_t record_logical(const xfs_bmbt_rec_t* record) noexcept nogil:
    return xfs_be64(record.l0) >> 9 & ((<uint64_t>1 << STARTOFF_BITS) - 1)


cdef uint64_t record_block(const xfs_bmbt_rec_t* record) noexcept nogil:
    return (xfs_be64(record.l0) & 0x1FF) << 43 | xfs_be64(record.l1) >> COUNT_BITS


cdef uint32_t record_count(const xfs_bmbt_rec_t* record) noexcept nogil:
    return xfs_be64(record.l1) & ((1 << COUNT_BITS) - 1)


cdef bint record_unwritten(const xfs_bmbt_rec_t* record) noexcept nogil:
    return xfs_be64(record.l0) >> 63 != 0


cdef const char* verify_records(const xfs_geometry_t* geometry, const xfs_bmbt_rec_t* records, uint32_t count,
                                uint64_t* next) noexcept nogil:
    cdef uint64_t logical, block, size
    cdef uint32_t i
    for i in range(count):
        logical = record_logical(&records[i])
        block = record_block(&records[i])
        size = record_count(&records[i])
        if size == 0:
            return b"an extent of length 0"
        if logical < next[0]:
            return b"extents overlap or are out of order"
        next[0] = logical + size
        if next[0] >> STARTOFF_BITS != 0:
            return b"an extent reaches past what a file can map"
        if not xfs_valid_blocks(geometry, block, size):
            return b"an extent lies outside its allocation group"
        if geometry.log_start != 0 and block < geometry.log_start + geometry.log_blocks and (
                geometry.log_start < block + size):
            return b"an extent lies in the log"
        if record_unwritten(&records[i]) and not geometry.extflg:
            return b"an extent is flagged unwritten, which this file system does not know"
    return NULL


# Roots.

cdef uint32_t root_most(uint32_t size) noexcept nogil:
    """Records that a fork of size bytes has room for: pointers stand behind room for that many keys."""
    return (size - ROOT_HEADER) // RECORD


cdef int root_depth(const uint8_t* root) noexcept nogil:
    return xfs_be16((<const xfs_bmdr_block_t*>root).bb_level)


cdef const char* verify_index(const xfs_geometry_t* geometry, const uint8_t* keys, const uint8_t* pointers,
                              uint32_t count) noexcept nogil:
    cdef uint64_t key, before = 0
    cdef uint32_t i
    for i in range(count):
        key = xfs_load64(keys + i * KEY)
        if (i > 0 and key <= before) or key >> STARTOFF_BITS != 0:
            return b"keys of an extent tree are out of order"
        if not xfs_valid_blocks(geometry, xfs_load64(pointers + i * KEY), 1):
            return b"an extent tree block lies outside its allocation group"
        before = key
    return NULL


cdef const char* verify_root(const xfs_geometry_t* geometry, const uint8_t* root, uint32_t size) noexcept nogil:
    cdef uint32_t count
    if size < ROOT_HEADER + RECORD:
        return b"a fork without room for the root of an extent tree"
    count = xfs_be16((<const xfs_bmdr_block_t*>root).bb_numrecs)
    if root_depth(root) == 0 or root_depth(root) >= TREES_MAX_DEPTH:
        return b"the root of an extent tree is of level 0 or above 8"
    if count == 0 or count > root_most(size):
        return b"the root of an extent tree has no records, or more than fit"
    return verify_index(geometry, root + ROOT_HEADER, root + ROOT_HEADER + root_most(size) * KEY, count)


# Trees.

cdef class XfsTrees(Trees):
    """The B+trees of data forks, or of attribute forks. Not for Python."""

    cdef const char* verify(self, const tree_t* tree, const block_ref_t* ref, const uint8_t* node,
                            int level) noexcept nogil:
        """A node's first key is its parent's."""
        cdef const char* text = verify_long_block(self.geometry, node, ref.block, tree.owner, level)
        cdef const uint8_t* first = node + self.geometry.btree_long_header
        cdef uint64_t key = <uint64_t>ref.first << 32 | ref.limit
        cdef uint32_t count = xfs_be16((<const xfs_btree_lblock_t*>node).bb_numrecs)
        if text == NULL and level > 0:
            text = verify_index(self.geometry, first, self.pointers(node), count)
        if text == NULL and (xfs_load64(first) if level > 0 else record_logical(<const xfs_bmbt_rec_t*>first)) != key:
            text = b"an extent tree block does not start where its parent says"
        return text

    cdef const uint8_t* pointers(self, const uint8_t* node) noexcept nogil:
        """Of a node: behind room for as many keys as fit a block."""
        cdef uint32_t most = (self.geometry.block_size - self.geometry.btree_long_header) // RECORD
        return node + self.geometry.btree_long_header + most * KEY

    cdef int add_children(self, block_list_t* list, uint32_t owner, tree_t* tree, const block_ref_t* ref,
                          const uint8_t* node, fault_t* fault) noexcept nogil:
        cdef const uint8_t* keys = node + self.geometry.btree_long_header
        cdef const uint8_t* pointers = self.pointers(node)
        cdef uint32_t count = xfs_be16((<const xfs_btree_lblock_t*>node).bb_numrecs)
        cdef uint64_t key, block
        cdef uint32_t i
        cdef int rc
        if ref == NULL:
            keys = node + ROOT_HEADER
            pointers = keys + root_most(self.root_size) * KEY
            count = xfs_be16((<const xfs_bmdr_block_t*>node).bb_numrecs)
        for i in range(count):
            key = xfs_load64(keys + i * KEY)
            block = xfs_linear_block(self.geometry, xfs_load64(pointers + i * KEY))
            rc = self.add_child(list, owner, tree, block, <uint32_t>(key >> 32), <uint32_t>key, fault)
            if rc <= 0:
                return rc
        return 0

    cdef int take_leaf(self, ExtentMap target, tree_t* tree, const uint8_t* node, fault_t* fault) noexcept nogil:
        cdef const xfs_bmbt_rec_t* records = <const xfs_bmbt_rec_t*>(node + self.geometry.btree_long_header)
        cdef uint32_t count = xfs_be16((<const xfs_btree_lblock_t*>node).bb_numrecs)
        cdef const char* text = verify_records(self.geometry, records, count, &tree.end)
        if text != NULL:
            tree.damage = text
            tree.offset = self.leaf.block * self.geometry.block_size
            return 0
        return self.take_records(target, tree, records, count, fault)

    cdef int take_records(self, ExtentMap target, const tree_t* tree, const xfs_bmbt_rec_t* records, uint32_t count,
                          fault_t* fault) noexcept nogil:
        cdef uint64_t logical, physical
        cdef uint32_t i, size
        cdef int rc
        for i in range(count):
            logical = record_logical(&records[i])
            physical = xfs_linear_block(self.geometry, record_block(&records[i]))
            size = record_count(&records[i])
            if self.fork != NULL:
                rc = self.append_fork(logical, physical, size, fault)
            elif record_unwritten(&records[i]):
                rc = target.append_extent(logical, physical, size, EXTENT_UNWRITTEN, fault)
            elif tree.flags & TREE_SHARING:
                rc = self.append_shared(target, logical, physical, size, fault)
            else:
                rc = target.append_extent(logical, physical, size, 0, fault)
            if rc < 0:
                return rc
        return 0

    cdef int append_fork(self, uint64_t logical, uint64_t physical, uint32_t count, fault_t* fault) noexcept nogil:
        cdef fork_list_t* fork = self.fork
        if grow_array(<void**>&fork.items, &fork.capacity, fork.count, sizeof(extent_t), fault) < 0:
            return fault.code
        fork.items[fork.count] = extent_t(logical, physical, count, 0)
        fork.count += 1
        return 0

    cdef int append_shared(self, ExtentMap target, uint64_t logical, uint64_t physical, uint64_t count,
                           fault_t* fault) noexcept nogil:
        """Split where sharing begins and ends: FIEMAP says of each written piece whether others refer to it."""
        cdef const shared_range_t* ranges = self.shared.items
        cdef uint64_t end = physical + count, stop
        cdef size_t at = self.find_shared(physical)
        cdef uint32_t flags
        while physical < end:
            flags = 0
            stop = end
            if at < self.shared.count and ranges[at].first <= physical:
                flags = EXTENT_SHARED
                stop = min(end, ranges[at].end)
                at += 1
            elif at < self.shared.count:
                stop = min(end, ranges[at].first)
            if target.append_extent(logical, physical, <uint32_t>(stop - physical), flags, fault) < 0:
                return fault.code
            logical += stop - physical
            physical = stop
        return 0

    cdef size_t find_shared(self, uint64_t physical) noexcept nogil:
        """The first range that ends behind a block."""
        cdef size_t low = 0, high = self.shared.count, middle
        while low < high:
            middle = low + (high - low) // 2
            if self.shared.items[middle].end <= physical:
                low = middle + 1
            else:
                high = middle
        return low
