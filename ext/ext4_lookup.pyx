"""ext4_lookup finds single inodes and the blocks of single files, one read after the other. It maps no file system.

Source: Linux Documentation/filesystems/ext4, "Index Nodes", "Extent Tree", "Direct/Indirect Block Addressing".
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    EXT4_EXTENTS_FL,
    EXT4_MAX_DEPTH,
    ext4_extent_header_t,
    ext4_extent_idx_t,
    ext4_extent_t,
    ext4_inode_t,
    ext4_le16,
    ext4_le32,
    ext4_load32,
)
from splitreel.core.ext4_groups cimport decode_verified_group, descriptor_block, ext4_group_t
from splitreel.core.ext4_inode cimport inode_seed
from splitreel.core.ext4_tree cimport verify_node
from splitreel.core.extent cimport EXTENT_UNWRITTEN
from splitreel.core.fault cimport FAULT_CORRUPT, FAULT_NO_MEMORY, fault_t, set_fault
from splitreel.core.sweep cimport grow_array

cdef enum:
    LARGEST_DESCRIPTOR = 1024
    RECORD = 12                                    # bytes of a header, an index and an extent alike
    MAX_WRITTEN = 32768                            # exactly this length is written; above, unwritten of length - 32768
    ROOT_ROOM = 60
    MAX_BLOCK = 0xFFFFFFFF
    DIRECT = 12                                    # pointers of i_block before the three indirect ones
    LEVELS = 3

cdef const char* SITE = b"reading a single file's map"

cdef struct map_walk_t:
    const ext4_geometry_t* geometry
    uint32_t number
    uint32_t seed
    uint8_t* blocks                                # one for each level
    uint64_t budget                                # blocks that may still be met: each stands in one place
    uint64_t end                                   # blocks of the file, where the map does not say itself
    extent_list_t* list
    extent_list_t* nodes


cdef int append_run(extent_list_t* list, uint64_t logical, uint64_t physical, uint32_t count, uint32_t flags,
                    fault_t* fault) noexcept nogil:
    cdef extent_t* last
    if list.count > 0:
        last = &list.items[list.count - 1]
        if (last.logical + last.count == logical and last.physical + last.count == physical and last.flags == flags
                and <uint64_t>last.count + count <= MAX_BLOCK):
            last.count += count
            return 0
    if grow_array(<void**>&list.items, &list.capacity, list.count, sizeof(extent_t), fault) < 0:
        return fault.code
    last = &list.items[list.count]
    last.logical = logical
    last.physical = physical
    last.count = count
    last.flags = flags
    list.count += 1
    return 0


cdef void free_extents(extent_list_t* list) noexcept nogil:
    free(list.items)
    memset(list, 0, sizeof(extent_list_t))


# Inodes.

cdef uint64_t descriptor_offset(const ext4_geometry_t* geometry, uint64_t group) noexcept nogil:
    cdef uint64_t per_block = geometry.block_size // geometry.desc_size
    return (descriptor_block(geometry, group // per_block) * geometry.block_size
            + group % per_block * geometry.desc_size)


cdef int find_inode(BlockDevice device, const ext4_geometry_t* geometry, uint32_t number, uint64_t* offset,
                    fault_t* fault) noexcept nogil:
    cdef uint8_t raw[LARGEST_DESCRIPTOR]
    cdef ext4_group_t decoded
    cdef uint64_t group, index
    if number == 0 or number > geometry.inode_count:
        return set_fault(fault, FAULT_CORRUPT, b"finding an inode", number, 0, b"no inode has this number")
    group = (number - 1) // geometry.inodes_per_group
    index = (number - 1) % geometry.inodes_per_group
    if device.read(descriptor_offset(geometry, group), raw, geometry.desc_size, fault) < 0:
        return fault.code
    if decode_verified_group(geometry, group, raw, &decoded, fault) < 0:
        return fault.code
    offset[0] = decoded.inode_table * geometry.block_size + index * geometry.inode_size
    return 0


cdef int read_inode(BlockDevice device, const ext4_geometry_t* geometry, uint32_t number, uint8_t* raw,
                    fault_t* fault) noexcept nogil:
    cdef uint64_t offset
    if find_inode(device, geometry, number, &offset, fault) < 0:
        return fault.code
    return device.read(offset, raw, geometry.inode_size, fault)


# Maps.

cdef int bad_map(const map_walk_t* walk, const char* text, fault_t* fault) noexcept nogil:
    return set_fault(fault, FAULT_CORRUPT, SITE, walk.number, 0, text)


cdef int read_node(BlockDevice device, map_walk_t* walk, uint64_t block, int level, uint8_t** out,
                   fault_t* fault) noexcept nogil:
    """A block of the map, into the place of its level."""
    cdef uint32_t size = walk.geometry.block_size
    if walk.budget == 0:
        return bad_map(walk, b"blocks of its map are used twice", fault)
    walk.budget -= 1
    if walk.nodes != NULL and append_run(walk.nodes, 0, block, 1, 0, fault) < 0:
        return fault.code
    out[0] = walk.blocks + <size_t>level * size
    return device.read(block * size, out[0], size, fault)


cdef const char* verify_tail(const map_walk_t* walk, const uint8_t* node) noexcept nogil:
    cdef uint32_t tail = (ext4_le16((<const ext4_extent_header_t*>node).eh_max) + 1) * RECORD
    if not walk.geometry.metadata_csum:
        return NULL
    if tail + 4 > walk.geometry.block_size:
        return b"an extent node with more entries than fit"
    if crc_differs(ext4_load32(node + tail), ~crc32c_update(walk.seed, node, tail)):
        return b"an extent node's checksum does not match"
    return NULL


cdef int walk_leaf(map_walk_t* walk, const uint8_t* node, fault_t* fault) noexcept nogil:
    cdef const ext4_extent_t* extent = <const ext4_extent_t*>(node + RECORD)
    cdef uint32_t i, size, flags
    cdef uint64_t start
    for i in range(ext4_le16((<const ext4_extent_header_t*>node).eh_entries)):
        size = ext4_le16(extent[i].ee_len)
        flags = EXTENT_UNWRITTEN if size > MAX_WRITTEN else 0
        size -= MAX_WRITTEN if flags else 0
        start = ext4_le32(extent[i].ee_start_lo) | <uint64_t>ext4_le16(extent[i].ee_start_hi) << 32
        if append_run(walk.list, ext4_le32(extent[i].ee_block), start, size, flags, fault) < 0:
            return fault.code
    return 0


cdef int walk_tree(BlockDevice device, map_walk_t* walk, const uint8_t* node, uint32_t room, int depth, uint32_t first,
                   uint32_t last, fault_t* fault) noexcept nogil:
    """depth -1: the root, of any depth. It ends: depth falls, and the budget bounds the nodes."""
    cdef const ext4_extent_idx_t* index = <const ext4_extent_idx_t*>(node + RECORD)
    cdef const char* text = verify_node(walk.geometry, node, room, depth, first, last)
    cdef uint32_t entries, i, end
    cdef uint64_t child
    cdef uint8_t* below
    if text != NULL:
        return bad_map(walk, text, fault)
    depth = ext4_le16((<const ext4_extent_header_t*>node).eh_depth)
    if depth == 0:
        return walk_leaf(walk, node, fault)
    entries = ext4_le16((<const ext4_extent_header_t*>node).eh_entries)
    for i in range(entries):
        end = ext4_le32(index[i + 1].ei_block) - 1 if i + 1 < entries else last
        child = ext4_le32(index[i].ei_leaf_lo) | <uint64_t>ext4_le16(index[i].ei_leaf_hi) << 32
        if read_node(device, walk, child, depth - 1, &below, fault) < 0:
            return fault.code
        text = verify_tail(walk, below)
        if text != NULL:
            return bad_map(walk, text, fault)
        if walk_tree(device, walk, below, walk.geometry.block_size, depth - 1, ext4_le32(index[i].ei_block), end,
                     fault) < 0:
            return fault.code
    return 0


cdef int walk_pointers(BlockDevice device, map_walk_t* walk, const uint8_t* pointers, uint32_t count, int level,
                       uint64_t* logical, fault_t* fault) noexcept nogil:
    """count block pointers, each of blocks (level 0) or of blocks of pointers of a level below."""
    cdef uint32_t per_block = walk.geometry.block_size // 4
    cdef uint64_t span = 1
    cdef uint32_t i, block
    cdef uint8_t* below
    cdef int _level
    for _level in range(level):
        span *= per_block
    for i in range(count):
        block = ext4_load32(pointers + 4 * i)
        if logical[0] >= walk.end:
            return 0
        if block == 0:
            logical[0] += span
            continue
        if block <= walk.geometry.first_data_block or block >= walk.geometry.block_count:
            return bad_map(walk, b"a block of it lies outside the file system", fault)
        if level > 0:
            if read_node(device, walk, block, level - 1, &below, fault) < 0:
                return fault.code
            if walk_pointers(device, walk, below, per_block, level - 1, logical, fault) < 0:
                return fault.code
            continue
        if walk.budget == 0:
            return bad_map(walk, b"blocks of it are used twice", fault)
        walk.budget -= 1
        if append_run(walk.list, logical[0], block, 1, 0, fault) < 0:
            return fault.code
        logical[0] += 1
    return 0


cdef int walk_map(BlockDevice device, map_walk_t* walk, const ext4_inode_t* inode, fault_t* fault) noexcept nogil:
    cdef uint64_t logical = 0
    cdef int level
    if ext4_le32(inode.i_flags) & EXT4_EXTENTS_FL:
        return walk_tree(device, walk, inode.i_block, ROOT_ROOM, -1, 0, MAX_BLOCK, fault)
    if walk_pointers(device, walk, inode.i_block, DIRECT, 0, &logical, fault) < 0:
        return fault.code
    for level in range(1, LEVELS + 1):
        if walk_pointers(device, walk, inode.i_block + 4 * (DIRECT + level - 1), 1, level, &logical, fault) < 0:
            return fault.code
    return 0


cdef int list_extents(BlockDevice device, const ext4_geometry_t* geometry, uint32_t number, const uint8_t* raw,
                      extent_list_t* list, extent_list_t* nodes, fault_t* fault) noexcept nogil:
    cdef const ext4_inode_t* inode = <const ext4_inode_t*>raw
    cdef uint64_t size = ext4_le32(inode.i_size_lo) | <uint64_t>ext4_le32(inode.i_size_high) << 32
    cdef map_walk_t walk
    cdef int rc
    walk.geometry = geometry
    walk.number = number
    walk.seed = inode_seed(geometry, number, ext4_le32(inode.i_generation))
    walk.budget = geometry.block_count
    walk.end = MAX_BLOCK if size > <uint64_t>MAX_BLOCK * geometry.block_size else 0
    if walk.end == 0:
        walk.end = (size + geometry.block_size - 1) // geometry.block_size
    walk.list = list
    walk.nodes = nodes
    walk.blocks = <uint8_t*>malloc(<size_t>EXT4_MAX_DEPTH * geometry.block_size)
    list.count = 0
    if walk.blocks == NULL:
        return set_fault(fault, FAULT_NO_MEMORY, SITE, number, 0, NULL)
    rc = walk_map(device, &walk, inode, fault)
    free(walk.blocks)
    return rc
