"""ext4_orphan shortens the maps of files whose truncation a crash cut short, as recovery would. It frees no inode.

Such files are listed in a chain that the superblock begins and i_dtime continues, or in the orphan file. Source: Linux
Documentation/filesystems/ext4, "Orphan file"; fs/ext4/orphan.c, ext4_orphan_cleanup.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    COMPAT_ORPHAN_FILE,
    EXT4_EXTENTS_FL,
    EXT4_INLINE_DATA_FL,
    ext4_inode_t,
    ext4_le16,
    ext4_le32,
    ext4_le64,
    ext4_load32,
    ext4_superblock_t,
)
from splitreel.core.ext4_edit cimport Editor, FileMap, cut_range
from splitreel.core.ext4_inode cimport inode_seed, inode_size
from splitreel.core.ext4_lookup cimport extent_list_t, free_extents, list_extents
from splitreel.core.fault cimport fault_t, raise_fault

cdef enum:
    STATE_ERROR = 2                                # of s_state: the kernel leaves orphans to e2fsck then
    ORPHAN_MAGIC = 0x0B10CA04
    TAIL = 8                                       # bytes: magic, checksum
    MAX_BLOCK = 0xFFFFFFFF
    MOST_ORPHANS = 1 << 20
    DIRECT = 12
    LEVELS = 3
    FAST_SYMLINK_SIZE = 60
    S_IFMT = 0o170000
    S_IFREG = 0o100000
    S_IFDIR = 0o040000
    S_IFLNK = 0o120000


cdef bint can_have(Editor editor, uint32_t number) noexcept nogil:
    return editor.geometry.first_ino <= number <= editor.geometry.inode_count


cdef list chained(Editor editor, uint32_t number):
    """The chain, as far as it is one, and no longer than any crash leaves it."""
    cdef list found = []
    seen = set()
    while can_have(editor, number) and number not in seen and len(found) < MOST_ORPHANS:
        found.append(number)
        seen.add(number)
        number = ext4_le32(editor.look_at(number).i_dtime)
    return found


cdef bint is_whole(Editor editor, uint32_t seed, uint64_t block, const uint8_t* data) noexcept nogil:
    cdef uint32_t size = editor.geometry.block_size
    cdef uint64_t number = ext4_le64(block)
    cdef uint32_t crc
    if ext4_load32(data + size - TAIL) != ORPHAN_MAGIC:
        return False
    crc = crc32c_update(seed, &number, 8)
    crc = ~crc32c_update(crc, data, size - TAIL)
    return not editor.geometry.metadata_csum or not crc_differs(ext4_load32(data + size - 4), crc)


cdef list listed(Editor editor, uint32_t file):
    """What the orphan file lists, in blocks that are sound."""
    cdef list found = []
    cdef extent_list_t extents
    cdef const ext4_inode_t* inode
    cdef const uint8_t* data
    cdef uint32_t seed, number, at
    cdef fault_t fault
    if not can_have(editor, file):
        return found
    inode = editor.inode(file)
    seed = inode_seed(&editor.geometry, file, ext4_le32(inode.i_generation))
    memset(&extents, 0, sizeof(extents))
    try:
        if list_extents(editor.device, &editor.geometry, file, <const uint8_t*>inode, &extents, NULL, &fault) < 0:
            return found
        for i in range(extents.count):
            for block in range(extents.items[i].physical, extents.items[i].physical + extents.items[i].count):
                data = editor.look(block)
                if not is_whole(editor, seed, block, data):
                    continue
                for at in range(0, editor.geometry.block_size - TAIL, 4):
                    number = ext4_load32(data + at)
                    if can_have(editor, number):
                        found.append(number)
    finally:
        free_extents(&extents)
    return found


cdef int cut_orphans(Editor editor, const ext4_superblock_t* superblock) except -1:
    cdef uint32_t number
    cdef int count = 0
    if ext4_le16(superblock.s_state) & STATE_ERROR:
        return 0
    numbers = chained(editor, ext4_le32(superblock.s_last_orphan))
    if editor.geometry.compat & COMPAT_ORPHAN_FILE:
        numbers += listed(editor, ext4_le32(superblock.s_orphan_file_inum))
    for number in numbers:
        if editor.is_file(number):
            count += cut_file(editor, number)
    return count


cdef bint cut_file(Editor editor, uint32_t number) except -1:
    """Unmaps what lies behind the end of a file. A map that is damaged stays so: the file is reported."""
    cdef const ext4_inode_t* inode = editor.look_at(number)
    cdef uint32_t flags = ext4_le32(inode.i_flags), kind = ext4_le16(inode.i_mode) & S_IFMT
    cdef uint64_t size = inode_size(&editor.geometry, inode), block_size = editor.geometry.block_size
    cdef uint64_t limit = min(size // block_size + (size % block_size != 0), <uint64_t>MAX_BLOCK)
    if flags & EXT4_INLINE_DATA_FL or (kind != S_IFREG and kind != S_IFDIR and kind != S_IFLNK):
        return False
    if kind == S_IFLNK and size < FAST_SYMLINK_SIZE:
        return False
    if flags & EXT4_EXTENTS_FL:
        return cut_tree(editor, number, limit)
    return cut_pointers(editor, number, limit)


cdef bint cut_tree(Editor editor, uint32_t number, uint64_t limit) except -1:
    cdef extent_list_t extents
    cdef FileMap map
    cdef fault_t fault
    cdef int rc
    if number not in editor.maps:
        memset(&extents, 0, sizeof(extents))
        rc = list_extents(editor.device, &editor.geometry, number, <const uint8_t*>editor.look_at(number), &extents,
                          NULL, &fault)
        free_extents(&extents)
        if rc < 0:
            return False
    map = editor.map_of(number)
    if map.extents.count == 0:
        return False
    last = map.extents.items[map.extents.count - 1]
    if last.logical + last.count <= limit:
        return False
    if cut_range(&map.extents, limit, <uint64_t>MAX_BLOCK + 1, &fault) < 0:
        raise_fault(&fault)
    map.changed = True
    return True


cdef bint cut_pointers(Editor editor, uint32_t number, uint64_t limit) except -1:
    cdef uint8_t* pointers = editor.inode(number).i_block
    cdef uint64_t logical = 0
    cdef bint any = cut_level(editor, pointers, DIRECT, 0, &logical, limit)
    cdef int level
    for level in range(1, LEVELS + 1):
        any |= cut_level(editor, pointers + 4 * (DIRECT + level - 1), 1, level, &logical, limit)
    if any:
        editor.seal_inode(number)
    return any


cdef bint cut_level(Editor editor, uint8_t* pointers, uint32_t count, int level, uint64_t* logical,
                    uint64_t limit) except -1:
    """Takes out pointers to blocks from limit on; only one block of pointers a level is cut in the middle."""
    cdef uint64_t span = 1
    cdef bint any = False
    cdef uint32_t i, block
    cdef int _level
    for _level in range(level):
        span *= editor.geometry.block_size // 4
    for i in range(count):
        block = ext4_load32(pointers + 4 * i)
        if logical[0] >= limit and block != 0:
            memset(pointers + 4 * i, 0, 4)
            any = True
        elif logical[0] + span > limit and block != 0 and level > 0 and block < editor.geometry.block_count:
            any |= cut_level(editor, editor.edit(block), editor.geometry.block_size // 4, level - 1, logical, limit)
            continue
        logical[0] += span
    return any
