"""ext4_tree verifies extent trees and turns their leaves into extents. It decides nothing about their files.

Source: Linux Documentation/filesystems/ext4, "Extent Tree"; fs/ext4/extents.c for the checks. A node is verified before
anything in it is used. Depth falls by one at each level, and no block is met twice, so that a walk ends.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    EXT4_MAX_DEPTH,
    ext4_digest,
    ext4_extent_header_t,
    ext4_extent_idx_t,
    ext4_extent_t,
    ext4_le16,
    ext4_le32,
    ext4_load32,
)
from splitreel.core.ext4_groups cimport verify_place
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.sweep cimport append_block, block_list_t, block_ref_t, free_blocks
from splitreel.core.extent cimport EXTENT_UNWRITTEN, ExtentMap
from splitreel.core.fault cimport FAULT_IO, FAULT_NO_MEMORY, fault_t, set_fault

cdef enum:
    EXTENT_MAGIC = 0xF30A
    RECORD = 12                                    # bytes of a header, an index and an extent alike
    MAX_WRITTEN = 32768                            # exactly this length is written; above, unwritten of length - 32768
    ROOT_ROOM = 60
    MAX_BLOCK = 0xFFFFFFFF
    TAIL = 4


# Nodes.

cdef const char* verify_extents(const ext4_geometry_t* geometry, const uint8_t* node, uint32_t entries, uint32_t first,
                                uint32_t last) noexcept nogil:
    cdef const ext4_extent_t* extent = <const ext4_extent_t*>(node + RECORD)
    cdef uint64_t next_block = first, block, start
    cdef const char* text
    cdef uint32_t i, size
    for i in range(entries):
        block = ext4_le32(extent[i].ee_block)
        size = ext4_le16(extent[i].ee_len)
        if size > MAX_WRITTEN:
            size -= MAX_WRITTEN
        start = ext4_le32(extent[i].ee_start_lo) | <uint64_t>ext4_le16(extent[i].ee_start_hi) << 32
        if size == 0:
            return b"an extent of length 0"
        if block < next_block:
            return b"extents overlap or are out of order"
        next_block = block + size
        if next_block - 1 > last:
            return b"an extent reaches past what its node is for"
        text = verify_place(geometry, start, size, b"an extent lies outside the file system",
                            b"an extent lies in the file system's own metadata")
        if text != NULL:
            return text
    return NULL


cdef const char* verify_index(const ext4_geometry_t* geometry, const uint8_t* node, uint32_t entries, uint32_t first,
                              uint32_t last) noexcept nogil:
    cdef const ext4_extent_idx_t* index = <const ext4_extent_idx_t*>(node + RECORD)
    cdef uint64_t next_block = first, block, leaf
    cdef const char* text
    cdef uint32_t i
    if entries == 0:
        return b"an index node without entries"
    for i in range(entries):
        block = ext4_le32(index[i].ei_block)
        leaf = ext4_le32(index[i].ei_leaf_lo) | <uint64_t>ext4_le16(index[i].ei_leaf_hi) << 32
        if block < next_block or block > last:
            return b"index entries are out of order"
        next_block = block + 1
        text = verify_place(geometry, leaf, 1, b"an extent tree block lies outside the file system",
                            b"an extent tree block lies in the file system's own metadata")
        if text != NULL:
            return text
    return NULL


cdef const char* verify_node(const ext4_geometry_t* geometry, const uint8_t* node, uint32_t room, int depth,
                             uint32_t first, uint32_t last) noexcept nogil:
    """Magic, depth, entries <= max <= what fits, then every entry. Below the root, the first entry starts at first."""
    cdef const ext4_extent_header_t* header = <const ext4_extent_header_t*>node
    cdef uint32_t entries = ext4_le16(header.eh_entries)
    cdef uint32_t most = ext4_le16(header.eh_max)
    if ext4_le16(header.eh_magic) != EXTENT_MAGIC:
        return b"an extent node without its magic number"
    if ext4_le16(header.eh_depth) > EXT4_MAX_DEPTH or (depth >= 0 and ext4_le16(header.eh_depth) != depth):
        return b"an extent node of the wrong depth"
    if entries > most or most == 0 or (most + 1) * RECORD > room:
        return b"an extent node with more entries than fit"
    if depth >= 0 and entries > 0 and ext4_load32(node + RECORD) != first:
        return b"an extent node does not start where its index says"
    if header.eh_depth == 0:
        return verify_extents(geometry, node, entries, first, last)
    return verify_index(geometry, node, entries, first, last)


cdef int append_leaf(ExtentMap target, const uint8_t* node, fault_t* fault) noexcept nogil:
    """The extents of a verified leaf, to the file appended last."""
    cdef const ext4_extent_t* extent = <const ext4_extent_t*>(node + RECORD)
    cdef uint32_t entries = ext4_le16((<const ext4_extent_header_t*>node).eh_entries)
    cdef uint32_t i, size, flags
    cdef uint64_t start
    for i in range(entries):
        size = ext4_le16(extent[i].ee_len)
        flags = EXTENT_UNWRITTEN if size > MAX_WRITTEN else 0
        if size > MAX_WRITTEN:
            size -= MAX_WRITTEN
        start = ext4_le32(extent[i].ee_start_lo) | <uint64_t>ext4_le16(extent[i].ee_start_hi) << 32
        if target.append_extent(ext4_le32(extent[i].ee_block), start, size, flags, fault) < 0:
            return fault.code
    return 0


# A set of blocks.

cdef bint place_block(block_set_t* blocks, uint64_t block) noexcept nogil:
    """False when it is there already. The set has an empty place."""
    cdef size_t at = <size_t>(block * 0x9E3779B97F4A7C15u >> 20) & (blocks.capacity - 1)
    while blocks.places[at] != 0:
        if blocks.places[at] == block:
            return False
        at = (at + 1) & (blocks.capacity - 1)
    blocks.places[at] = block
    return True


cdef int add_to_set(block_set_t* blocks, uint64_t block, fault_t* fault) noexcept nogil:
    """1 when the block is new, 0 when it was there, or FAULT_NO_MEMORY."""
    cdef block_set_t larger
    cdef size_t i
    if blocks.count * 2 >= blocks.capacity:
        larger.capacity = blocks.capacity * 2 if blocks.capacity else <size_t>1024
        larger.count = blocks.count
        larger.places = <uint64_t*>calloc(larger.capacity, sizeof(uint64_t))
        if larger.places == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"reading extent trees", 0, 0, NULL)
        for i in range(blocks.capacity):
            if blocks.places[i] != 0:
                place_block(&larger, blocks.places[i])
        free(blocks.places)
        blocks[0] = larger
    if not place_block(blocks, block):
        return 0
    blocks.count += 1
    return 1


cdef int merge_owners(const block_list_t* own, const block_list_t* above, block_list_t* merged,
                      fault_t* fault) noexcept nogil:
    cdef const block_ref_t* ref
    cdef size_t i = 0, j = 0
    merged.count = 0
    while i < own.count or j < above.count:
        if j == above.count or (i < own.count and own.items[i].owner <= above.items[j].owner):
            ref = &own.items[i]
            i += 1
        else:
            ref = &above.items[j]
            j += 1
        if append_block(merged, ref.block, ref.count, ref.owner, ref.first, ref.limit, fault) < 0:
            return fault.code
    return 0


# Trees.

cdef class ExtentTrees:
    """The extent trees of the inodes of one piece of inode table after the other. Not for Python."""

    def __dealloc__(self):
        self.reset()

    cdef void reset(self) noexcept nogil:
        cdef int i
        for i in range(EXT4_MAX_DEPTH):
            free_blocks(&self.roots[i])
        free_blocks(&self.lists[0])
        free_blocks(&self.lists[1])
        free(self.seen.places)
        memset(&self.seen, 0, sizeof(block_set_t))

    cdef void clear(self) noexcept nogil:
        """Ready for another piece of inode table; blocks that were met stay met."""
        cdef int i
        for i in range(EXT4_MAX_DEPTH):
            self.roots[i].count = 0
        self.leaf_state = 0

    cdef int add_root(self, uint32_t owner, tree_t* tree, const uint8_t* root, fault_t* fault) noexcept nogil:
        return self.add_children(&self.roots[tree.depth - 1], owner, tree, root, MAX_BLOCK, fault)

    cdef int add_children(self, block_list_t* list, uint32_t owner, tree_t* tree, const uint8_t* node, uint32_t last,
                          fault_t* fault) noexcept nogil:
        cdef const ext4_extent_idx_t* index = <const ext4_extent_idx_t*>(node + RECORD)
        cdef uint32_t entries = ext4_le16((<const ext4_extent_header_t*>node).eh_entries)
        cdef uint32_t i, limit
        cdef uint64_t block
        cdef int new
        for i in range(entries):
            block = ext4_le32(index[i].ei_leaf_lo) | <uint64_t>ext4_le16(index[i].ei_leaf_hi) << 32
            limit = ext4_le32(index[i + 1].ei_block) - 1 if i + 1 < entries else last
            new = add_to_set(&self.seen, block, fault)
            if new < 0:
                return new
            if new == 0:
                tree.damage = b"a block of its extent tree is used twice"
                tree.offset = block * self.geometry.block_size
                return 0
            if append_block(list, block, 1, owner, ext4_le32(index[i].ei_block), limit, fault) < 0:
                return fault.code
        return 0

    cdef const char* check_block(self, const tree_t* tree, const block_ref_t* ref, const uint8_t* node,
                                 int level) noexcept nogil:
        """Verifies a node that came from disk, its checksum tail first."""
        cdef uint32_t size = self.geometry.block_size
        cdef uint32_t most = ext4_le16((<const ext4_extent_header_t*>node).eh_max)
        cdef uint32_t tail = (most + 1) * RECORD
        if self.geometry.metadata_csum:
            if tail + TAIL > size:
                return b"an extent node with more entries than fit"
            if crc_differs(~crc32c_update(tree.seed, node, tail), ext4_load32(node + tail)):
                return b"an extent node's checksum does not match"
        return verify_node(self.geometry, node, size, level, ref.first, ref.limit)

    cdef int read_level(self, tree_t* trees, int level, const block_list_t* nodes, block_list_t* children,
                        fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* node
        cdef const char* text
        cdef tree_t* tree
        cdef int rc
        children.count = 0
        self.sweep.start(nodes)
        while True:
            rc = self.sweep.next(&ref, &node, fault)
            if rc == 0:
                return 0
            if rc < 0 and rc != FAULT_IO:
                return rc
            tree = &trees[ref.owner]
            text = b"a block of its extent tree does not read"
            if rc > 0:
                text = self.check_block(tree, ref, node, level)
            if text != NULL:
                tree.damage = text
                tree.offset = ref.block * self.geometry.block_size
                continue
            tree.digest += ext4_digest(ref.first, node, self.geometry.block_size)
            if self.add_children(children, ref.owner, tree, node, ref.limit, fault) < 0:
                return fault.code

    cdef int resolve(self, tree_t* trees, fault_t* fault) noexcept nogil:
        cdef block_list_t* merged = &self.lists[0]
        cdef block_list_t* children = &self.lists[1]
        cdef int level
        children.count = 0
        for level in range(EXT4_MAX_DEPTH - 1, -1, -1):
            if merge_owners(&self.roots[level], children, merged, fault) < 0:
                return fault.code
            if level > 0 and merged.count > 0 and self.read_level(trees, level, merged, children, fault) < 0:
                return fault.code
            if merged.count == 0:
                children.count = 0
        self.sweep.start(merged)
        return self.next_leaf(fault)

    cdef int next_leaf(self, fault_t* fault) noexcept nogil:
        self.leaf_state = self.sweep.next(&self.leaf, &self.leaf_data, fault)
        return self.leaf_state if self.leaf_state < 0 and self.leaf_state != FAULT_IO else 0

    cdef int append_leaves(self, uint32_t owner, tree_t* tree, ExtentMap target, fault_t* fault) noexcept nogil:
        """Leaves of owners before this one belong to inodes that were refused after their trees were read."""
        cdef const char* text
        while self.leaf_state != 0 and self.leaf.owner < owner:
            if self.next_leaf(fault) < 0:
                return fault.code
        while self.leaf_state != 0 and self.leaf.owner == owner:
            text = b"a block of its extent tree does not read"
            if self.leaf_state > 0:
                text = self.check_block(tree, self.leaf, self.leaf_data, 0)
            if text != NULL:
                tree.damage = text
                tree.offset = self.leaf.block * self.geometry.block_size
            else:
                tree.digest += ext4_digest(self.leaf.first, self.leaf_data, self.geometry.block_size)
                if append_leaf(target, self.leaf_data, fault) < 0:
                    return fault.code
            if self.next_leaf(fault) < 0:
                return fault.code
        return 0
