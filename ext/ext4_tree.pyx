"""ext4_tree verifies extent trees and turns their leaves into extents. It decides nothing about their files.

Source: Linux Documentation/filesystems/ext4, "Extent Tree"; fs/ext4/extents.c for the checks. A node is verified before
anything in it is used. Depth falls by one at each level, and no block is met twice, so that a walk ends.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    EXT4_MAX_DEPTH,
    ext4_extent_header_t,
    ext4_extent_idx_t,
    ext4_extent_t,
    ext4_le16,
    ext4_le32,
    ext4_load32,
)
from splitreel.core.ext4_groups cimport verify_place
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport EXTENT_UNWRITTEN, ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport block_list_t, block_ref_t
from splitreel.core.trees cimport Trees, tree_t

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


# Trees.

cdef class ExtentTrees(Trees):
    """The extent trees of the inodes of one piece of inode table after the other. Not for Python."""

    cdef const char* verify(self, const tree_t* tree, const block_ref_t* ref, const uint8_t* node,
                            int level) noexcept nogil:
        """Its checksum tail first, of which tree.owner is the seed."""
        cdef uint32_t size = self.geometry.block_size
        cdef uint32_t most = ext4_le16((<const ext4_extent_header_t*>node).eh_max)
        cdef uint32_t tail = (most + 1) * RECORD
        if self.geometry.metadata_csum:
            if tail + TAIL > size:
                return b"an extent node with more entries than fit"
            if crc_differs(~crc32c_update(<uint32_t>tree.owner, node, tail), ext4_load32(node + tail)):
                return b"an extent node's checksum does not match"
        return verify_node(self.geometry, node, size, level, ref.first, ref.limit)

    cdef int add_children(self, block_list_t* list, uint32_t owner, tree_t* tree, const block_ref_t* ref,
                          const uint8_t* node, fault_t* fault) noexcept nogil:
        cdef const ext4_extent_idx_t* index = <const ext4_extent_idx_t*>(node + RECORD)
        cdef uint32_t entries = ext4_le16((<const ext4_extent_header_t*>node).eh_entries)
        cdef uint32_t last = MAX_BLOCK if ref == NULL else ref.limit
        cdef uint32_t i, limit
        cdef uint64_t block
        cdef int rc
        for i in range(entries):
            block = ext4_le32(index[i].ei_leaf_lo) | <uint64_t>ext4_le16(index[i].ei_leaf_hi) << 32
            limit = ext4_le32(index[i + 1].ei_block) - 1 if i + 1 < entries else last
            rc = self.add_child(list, owner, tree, block, ext4_le32(index[i].ei_block), limit, fault)
            if rc <= 0:
                return rc
        return 0

    cdef int take_leaf(self, ExtentMap target, tree_t* tree, const uint8_t* node, fault_t* fault) noexcept nogil:
        return append_leaf(target, node, fault)
