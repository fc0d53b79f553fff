"""ext4_groups finds and verifies group descriptors, and knows the file system's own blocks. It reads no device.

Source: Linux Documentation/filesystems/ext4, "Block Group Descriptors", "Meta Block Groups"; fs/ext4/super.c
(descriptor_loc), fs/ext4/balloc.c (ext4_bg_has_super, ext4_bg_num_gdb) and fs/ext4/block_validity.c.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort
from libc.string cimport memset

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    BG_INODE_UNINIT,
    COMPAT_RESIZE_INODE,
    COMPAT_SPARSE_SUPER2,
    INCOMPAT_META_BG,
    RO_COMPAT_SPARSE_SUPER,
    ext4_group_desc_t,
    ext4_le16,
    ext4_le32,
)
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.fault cimport FAULT_CORRUPT, fault_t, set_fault
from splitreel.core.sweep cimport SWEEP_SPAN, append_block, block_list_t, grow_array

cdef enum:
    CHECKSUM_OFFSET = 0x1E                         # of bg_checksum


# Where the descriptors stand.

cdef bint is_power(uint64_t number, uint64_t base) noexcept nogil:
    while number > base and number % base == 0:
        number //= base
    return number == base


cdef bint has_superblock(const ext4_geometry_t* geometry, uint64_t group) noexcept nogil:
    """Whether the group begins with a copy of the superblock."""
    if group == 0:
        return True
    if geometry.compat & COMPAT_SPARSE_SUPER2:
        return group == geometry.backup_groups[0] or group == geometry.backup_groups[1]
    if group == 1 or not geometry.ro_compat & RO_COMPAT_SPARSE_SUPER:
        return True
    return is_power(group, 3) or is_power(group, 5) or is_power(group, 7)


cdef uint64_t group_start(const ext4_geometry_t* geometry, uint64_t group) noexcept nogil:
    return geometry.first_data_block + group * geometry.blocks_per_group


cdef uint64_t descriptor_block(const ext4_geometry_t* geometry, uint64_t index) noexcept nogil:
    """The block of descriptors number index: behind the superblock, or with meta_bg in the first of its own groups.

    With 1 KiB blocks the superblock is block 1 even where first_data_block is 0 (bigalloc).
    """
    cdef uint64_t group
    if not geometry.incompat & INCOMPAT_META_BG or index < geometry.first_meta_bg or index == 0:
        return geometry.superblock_block + 1 + index
    group = index * (geometry.block_size // geometry.desc_size)
    return group_start(geometry, group) + has_superblock(geometry, group)


cdef int list_descriptors(const ext4_geometry_t* geometry, block_list_t* list, fault_t* fault) noexcept nogil:
    cdef uint64_t per_block = geometry.block_size // geometry.desc_size
    cdef uint64_t total = (geometry.group_count + per_block - 1) // per_block
    cdef uint32_t most = SWEEP_SPAN // geometry.block_size
    cdef uint64_t index = 0, block, groups
    cdef uint32_t count
    list.count = 0
    while index < total:
        block = descriptor_block(geometry, index)
        count = 1
        while count < most and index + count < total and descriptor_block(geometry, index + count) == block + count:
            count += 1
        if block + count > geometry.block_count:
            return set_fault(fault, FAULT_CORRUPT, b"finding the group descriptors", index * per_block,
                             block * geometry.block_size, b"they lie outside the file system")
        groups = min(count * per_block, geometry.group_count - index * per_block)
        if append_block(list, block, count, 0, <uint32_t>(index * per_block), <uint32_t>groups, fault) < 0:
            return fault.code
        index += count
    return 0


# Descriptors.

cdef uint16_t crc16_update(uint16_t crc, const uint8_t* data, size_t size) noexcept nogil:
    """CRC-16 of uninit_bg: polynomial 0xA001 reflected, no inversion. Bit by bit suffices: 64 bytes a group."""
    cdef size_t i
    cdef int _bit
    for i in range(size):
        crc ^= data[i]
        for _bit in range(8):
            crc = (crc >> 1) ^ (0xA001 if crc & 1 else 0)
    return crc


cdef uint16_t group_checksum(const ext4_geometry_t* geometry, uint32_t group, const uint8_t* raw) noexcept nogil:
    """What bg_checksum must be; without checksums, what it is."""
    cdef uint32_t number = ext4_le32(group)
    cdef uint16_t zero = 0, crc16
    cdef uint32_t crc
    if geometry.metadata_csum:
        crc = crc32c_update(geometry.csum_seed, &number, 4)
        crc = crc32c_update(crc, raw, CHECKSUM_OFFSET)
        crc = crc32c_update(crc, &zero, 2)
        crc = ~crc32c_update(crc, raw + CHECKSUM_OFFSET + 2, geometry.desc_size - CHECKSUM_OFFSET - 2)
        return <uint16_t>(crc & 0xFFFF)
    if geometry.gdt_csum:
        crc16 = crc16_update(0xFFFF, geometry.uuid, 16)
        crc16 = crc16_update(crc16, <const uint8_t*>&number, 4)
        crc16 = crc16_update(crc16, raw, CHECKSUM_OFFSET)
        crc16 = crc16_update(crc16, raw + CHECKSUM_OFFSET + 2, geometry.desc_size - CHECKSUM_OFFSET - 2)
        return crc16
    return ext4_le16((<const ext4_group_desc_t*>raw).bg_checksum)


cdef bint group_checksum_matches(const ext4_geometry_t* geometry, uint32_t group, const uint8_t* raw) noexcept nogil:
    return not crc_differs(ext4_le16((<const ext4_group_desc_t*>raw).bg_checksum), group_checksum(geometry, group, raw))


cdef int decode_group(const ext4_geometry_t* geometry, uint64_t group, const uint8_t* raw, ext4_group_t* out,
                      fault_t* fault) noexcept nogil:
    """The inode table and how much of it was ever used.

    Only with group checksums are INODE_UNINIT and bg_itable_unused to be believed; without them, lazy initialisation
    does not exist. Beyond the used head may stand inodes of a former file system.
    """
    cdef const ext4_group_desc_t* desc = <const ext4_group_desc_t*>raw
    cdef uint32_t table_blocks = geometry.inodes_per_group // (geometry.block_size // geometry.inode_size)
    cdef uint32_t unused = ext4_le16(desc.bg_itable_unused_lo)
    out.is_verified = group_checksum_matches(geometry, <uint32_t>group, raw)
    out.block_bitmap = ext4_le32(desc.bg_block_bitmap_lo)
    out.inode_bitmap = ext4_le32(desc.bg_inode_bitmap_lo)
    out.inode_table = ext4_le32(desc.bg_inode_table_lo)
    if geometry.desc_size >= 64:
        out.block_bitmap |= <uint64_t>ext4_le32(desc.bg_block_bitmap_hi) << 32
        out.inode_bitmap |= <uint64_t>ext4_le32(desc.bg_inode_bitmap_hi) << 32
        out.inode_table |= <uint64_t>ext4_le32(desc.bg_inode_table_hi) << 32
        unused |= <uint32_t>ext4_le16(desc.bg_itable_unused_hi) << 16
    if (out.inode_table <= geometry.first_data_block or out.inode_table > geometry.block_count
            or geometry.block_count - out.inode_table < table_blocks):
        return set_fault(fault, FAULT_CORRUPT, b"verifying a group descriptor", group, 0,
                         b"the inode table lies outside the file system")
    out.used_inodes = geometry.inodes_per_group
    if (geometry.metadata_csum or geometry.gdt_csum) and out.is_verified:
        if unused > geometry.inodes_per_group:
            return set_fault(fault, FAULT_CORRUPT, b"verifying a group descriptor", group, 0,
                             b"more unused inodes than there are")
        out.used_inodes -= unused
        if ext4_le16(desc.bg_flags) & BG_INODE_UNINIT:
            out.used_inodes = 0
    return 0


cdef int decode_verified_group(const ext4_geometry_t* geometry, uint64_t group, const uint8_t* raw, ext4_group_t* out,
                               fault_t* fault) noexcept nogil:
    if decode_group(geometry, group, raw, out, fault) < 0:
        return fault.code
    if not out.is_verified:
        return set_fault(fault, FAULT_CORRUPT, b"verifying a group descriptor", group, 0,
                         b"its checksum does not match")
    return 0


# Blocks of the file system's own.

cdef int compare_stretches(const void* left, const void* right) noexcept nogil:
    cdef const stretch_t* a = <const stretch_t*>left
    cdef const stretch_t* b = <const stretch_t*>right
    return (a.first > b.first) - (a.first < b.first)


cdef int add_stretch(const ext4_geometry_t* geometry, stretches_t* list, uint64_t first, uint64_t count,
                     fault_t* fault) noexcept nogil:
    """Joined to the one before when it continues it; left out where it lies outside the file system."""
    if first >= geometry.block_count or count == 0:
        return 0
    count = min(count, geometry.block_count - first)
    if list.count > 0 and first == list.items[list.count - 1].end:
        list.items[list.count - 1].end += count
        return 0
    if grow_array(<void**>&list.items, &list.capacity, list.count, sizeof(stretch_t), fault) < 0:
        return fault.code
    list.items[list.count].first = first
    list.items[list.count].end = first + count
    list.count += 1
    return 0


cdef uint64_t head_blocks(const ext4_geometry_t* geometry, uint64_t group) noexcept nogil:
    """Blocks at the start of a group that hold the superblock's copy, descriptors, and what resize_inode keeps free."""
    cdef uint64_t per_block = geometry.block_size // geometry.desc_size
    cdef uint64_t index = group // per_block
    cdef uint64_t place = group % per_block
    cdef uint64_t count = has_superblock(geometry, group)
    if geometry.incompat & INCOMPAT_META_BG and index >= geometry.first_meta_bg:
        return count + (place == 0 or place == 1 or place == per_block - 1)
    if count == 0:
        return 0
    if geometry.incompat & INCOMPAT_META_BG:
        count += geometry.first_meta_bg
    else:
        count += (geometry.group_count + per_block - 1) // per_block
    return count + (geometry.reserved_gdt_blocks if geometry.compat & COMPAT_RESIZE_INODE else 0)


cdef int add_group_stretches(const ext4_geometry_t* geometry, stretches_t* tables, stretches_t* list, uint64_t number,
                             const ext4_group_t* group, fault_t* fault) noexcept nogil:
    cdef uint64_t head = head_blocks(geometry, number)
    cdef uint64_t start = group_start(geometry, number)
    cdef uint32_t table = geometry.inodes_per_group // (geometry.block_size // geometry.inode_size)
    if number == 0:                                # block 0 too, where it is the boot sector's alone
        head += geometry.superblock_block
        start = 0
    if (add_stretch(geometry, list, start, head, fault) < 0
            or add_stretch(geometry, list, group.block_bitmap, 1, fault) < 0
            or add_stretch(geometry, list, group.inode_bitmap, 1, fault) < 0
            or add_stretch(geometry, tables, group.inode_table, table, fault) < 0):
        return fault.code
    return 0


cdef void sort_stretches(stretches_t* list) noexcept nogil:
    if list.count > 1:
        qsort(list.items, list.count, sizeof(stretch_t), compare_stretches)


cdef void arrange_stretches(stretches_t* list) noexcept nogil:
    """Sorted, and those that touch or overlap as one."""
    cdef size_t kept = 0, i
    if list.count == 0:
        return
    sort_stretches(list)
    for i in range(1, list.count):
        if list.items[i].first <= list.items[kept].end:
            list.items[kept].end = max(list.items[kept].end, list.items[i].end)
        else:
            kept += 1
            list.items[kept] = list.items[i]
    list.count = kept + 1


cdef int join_tables(const ext4_geometry_t* geometry, stretches_t* tables, stretches_t* list,
                     fault_t* fault) noexcept nogil:
    cdef size_t i
    sort_stretches(tables)
    for i in range(tables.count):
        if i > 0 and tables.items[i].first < tables.items[i - 1].end:
            return set_fault(fault, FAULT_CORRUPT, b"verifying group descriptors", 0,
                             tables.items[i].first * geometry.block_size, b"the inode tables of two groups overlap")
        if add_stretch(geometry, list, tables.items[i].first, tables.items[i].end - tables.items[i].first, fault) < 0:
            return fault.code
    arrange_stretches(list)
    return 0


cdef void free_stretches(stretches_t* list) noexcept nogil:
    free(list.items)
    memset(list, 0, sizeof(stretches_t))


cdef bint is_metadata(const stretches_t* list, uint64_t block, uint64_t count) noexcept nogil:
    cdef size_t low = 0, high = list.count, middle
    while low < high:                              # the first stretch that ends behind block
        middle = low + (high - low) // 2
        if list.items[middle].end <= block:
            low = middle + 1
        else:
            high = middle
    return low < list.count and list.items[low].first < block + count


cdef const char* verify_place(const ext4_geometry_t* geometry, uint64_t block, uint64_t count, const char* outside,
                              const char* own) noexcept nogil:
    if block <= geometry.first_data_block or block >= geometry.block_count or count > geometry.block_count - block:
        return outside
    return own if geometry.metadata != NULL and is_metadata(geometry.metadata, block, count) else NULL
