"""ext4_entries adds names to directories and takes them out, in memory, through an Editor. It knows no hash trees.

A name goes into the first leaf with room, or into a new one at the end: whoever reads all leaves finds it, who looks it
up by its hash may not. Source: Linux Documentation/filesystems/ext4, "Directory Entries"; fs/ext4/namei.c.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from splitreel.core.checksum cimport crc32c_update
from splitreel.core.ext4_disk cimport (
    EXT4_ENCRYPT_FL,
    EXT4_INLINE_DATA_FL,
    ext4_dir_entry_t,
    ext4_inode_t,
    ext4_le16,
    ext4_le32,
)
from splitreel.core.ext4_edit cimport Editor, FileMap, lay_range
from splitreel.core.ext4_inode cimport inode_seed
from splitreel.core.fault cimport FAULT_CORRUPT, FAULT_NEEDS_RECOVERY, fault_t, raise_fault

cdef enum:
    EXT4_INDEX_FL = 0x1000
    EXT4_CASEFOLD_FL = 0x40000000
    HEAD = 8                                       # bytes of an entry before its name
    TAIL = 12                                      # bytes of the fake entry that holds a block's checksum
    TAIL_TYPE = 0xDE
    S_IFMT = 0o170000
    FT_DIR = 2

# of S_IFMT's four bits, as in directory entries
cdef uint8_t[16] FILE_TYPES = [0, 5, 3, 0, 2, 0, 4, 0, 1, 0, 7, 0, 6, 0, 0, 0]

cdef struct place_t:                               # where an entry stands
    uint64_t logical                               # block of the directory
    uint32_t offset                                # in it
    uint32_t before                                # of the entry before, or the same offset
    uint32_t inode


cdef uint32_t record_size(uint32_t block_size, uint16_t stored) noexcept nogil:
    """rec_len; with blocks of 64 KiB, 65535 and 0 mean 65536 and the two low bits stand for bits 16 and 17."""
    cdef uint32_t size = ext4_le16(stored)
    if block_size < 65536:
        return size
    if size == 65535 or size == 0:
        return 65536
    return (size & 65532) | (size & 3) << 16


cdef uint16_t stored_size(uint32_t size) noexcept nogil:
    return ext4_le16(<uint16_t>(65535 if size == 65536 else size))


cdef uint32_t needed(uint32_t name_size) noexcept nogil:
    return (HEAD + name_size + 3) & ~<uint32_t>3


cdef uint32_t leaf_end(Editor editor) noexcept nogil:
    """Behind the last entry of a leaf, before its checksum."""
    return editor.geometry.block_size - (TAIL if editor.geometry.metadata_csum else 0)


cdef uint64_t block_count(Editor editor, uint32_t directory) except? 0:
    cdef const ext4_inode_t* inode = editor.look_at(directory)
    cdef uint32_t flags = ext4_le32(inode.i_flags)
    if flags & (EXT4_INLINE_DATA_FL | EXT4_CASEFOLD_FL | EXT4_ENCRYPT_FL):
        editor.fail(FAULT_NEEDS_RECOVERY, directory,
                    b"a fast commit in an inline, casefolded or encrypted directory: run e2fsck on a copy")
    return ext4_le32(inode.i_size_lo) // editor.geometry.block_size


cdef int seal_leaf(Editor editor, uint32_t directory, uint64_t block) except -1:
    """Makes the checksum at its end right."""
    cdef uint32_t size = editor.geometry.block_size, seed, crc
    cdef uint8_t* data
    cdef ext4_dir_entry_t* tail
    if not editor.geometry.metadata_csum:
        return 0
    seed = inode_seed(&editor.geometry, directory, ext4_le32(editor.inode(directory).i_generation))
    data = editor.edit(block)
    tail = <ext4_dir_entry_t*>(data + size - TAIL)
    memset(tail, 0, TAIL)
    tail.rec_len = ext4_le16(TAIL)
    tail.file_type = TAIL_TYPE
    crc = ext4_le32(~crc32c_update(seed, data, size - TAIL))
    memcpy(data + size - 4, &crc, 4)
    return 0


cdef const ext4_dir_entry_t* entry_at(Editor editor, uint32_t directory, const uint8_t* data,
                                      uint32_t at) except NULL:
    cdef uint32_t size = editor.geometry.block_size
    cdef const ext4_dir_entry_t* entry = <const ext4_dir_entry_t*>(data + at)
    cdef uint32_t record = record_size(size, entry.rec_len) if at + HEAD <= size else 0
    if record < HEAD or record % 4 != 0 or record > size - at or (entry.inode != 0 and needed(entry.name_len) > record):
        editor.fail(FAULT_CORRUPT, directory, b"a fast commit changes a directory whose entries are damaged")
    return entry


cdef bint find_place(Editor editor, uint32_t directory, bytes name, place_t* place) except -1:
    """Looks through all blocks; index blocks of a hash tree look like one free entry, or hold only . and .."""
    cdef FileMap map = editor.map_of(directory)
    cdef uint64_t logical, block
    cdef const uint8_t* data
    cdef const ext4_dir_entry_t* entry
    cdef uint32_t at, before
    for logical in range(block_count(editor, directory)):
        block = map.place(logical)
        if block == 0:
            continue
        data = editor.look(block)
        at = before = 0
        while at < editor.geometry.block_size:
            entry = entry_at(editor, directory, data, at)
            if entry.inode != 0 and entry.name_len == len(name) and memcmp(entry.name, <char*>name, len(name)) == 0:
                place.logical = logical
                place.offset = at
                place.before = before
                place.inode = ext4_le32(entry.inode)
                return True
            before = at
            at += record_size(editor.geometry.block_size, entry.rec_len)
    return False


cdef uint32_t find_name(Editor editor, uint32_t directory, bytes name) except? 0:
    cdef place_t place
    return place.inode if find_place(editor, directory, name, &place) else 0


cdef int remove_name(Editor editor, uint32_t directory, bytes name) except -1:
    """The entry before it takes its room; one that begins a block becomes a free one."""
    cdef uint32_t size = editor.geometry.block_size
    cdef ext4_dir_entry_t* entry
    cdef ext4_dir_entry_t* before
    cdef place_t place
    cdef uint64_t block
    cdef uint8_t* data
    if not find_place(editor, directory, name, &place):
        return 0
    block = editor.map_of(directory).place(place.logical)
    data = editor.edit(block)
    entry = <ext4_dir_entry_t*>(data + place.offset)
    if place.before != place.offset:
        before = <ext4_dir_entry_t*>(data + place.before)
        before.rec_len = stored_size(record_size(size, before.rec_len) + record_size(size, entry.rec_len))
    else:
        entry.inode = 0
    return seal_leaf(editor, directory, block)


cdef int write_entry(Editor editor, ext4_dir_entry_t* entry, bytes name, uint32_t number) except -1:
    cdef uint8_t kind = FILE_TYPES[ext4_le16(editor.look_at(number).i_mode) >> 12]
    entry.inode = ext4_le32(number)
    entry.name_len = <uint8_t>len(name)
    entry.file_type = kind if editor.geometry.filetype else <uint8_t>0
    memcpy(entry.name, <char*>name, len(name))
    return 0


cdef bint add_to_leaf(Editor editor, uint32_t directory, uint64_t block, bint hashed, bytes name,
                      uint32_t number) except -1:
    """Into a free entry, or behind the name of one that has room to spare."""
    cdef uint32_t size = editor.geometry.block_size, at = 0, record, used
    cdef uint8_t* data = <uint8_t*>editor.look(block)
    cdef ext4_dir_entry_t* entry
    while at < leaf_end(editor):
        entry = <ext4_dir_entry_t*>entry_at(editor, directory, data, at)
        record = record_size(size, entry.rec_len)
        used = needed(entry.name_len) if entry.inode != 0 else 0
        if hashed and at == 0 and used == 0 and record == size:
            return False                           # an index block of a hash tree
        if record - used >= needed(<uint32_t>len(name)):
            data = editor.edit(block)
            if used != 0:
                (<ext4_dir_entry_t*>(data + at)).rec_len = stored_size(used)
                entry = <ext4_dir_entry_t*>(data + at + used)
                entry.rec_len = stored_size(record - used)
            write_entry(editor, entry, name, number)
            seal_leaf(editor, directory, block)
            return True
        at += record
    return False


cdef int add_name(Editor editor, uint32_t directory, bytes name, uint32_t number) except -1:
    cdef FileMap map = editor.map_of(directory)
    cdef bint hashed = ext4_le32(editor.look_at(directory).i_flags) & EXT4_INDEX_FL != 0
    cdef uint64_t count = block_count(editor, directory), logical, block
    for logical in range(hashed, count):           # the first block of a hash tree is its root
        block = map.place(logical)
        if block != 0 and add_to_leaf(editor, directory, block, hashed, name, number):
            return 0
    block = append_leaf(editor, directory, count)
    add_to_leaf(editor, directory, block, False, name, number)
    return 0


cdef uint64_t append_leaf(Editor editor, uint32_t directory, uint64_t logical) except 0:
    """An empty block at the end of a directory."""
    cdef uint64_t block = editor.allocate()
    cdef FileMap map = editor.map_of(directory)
    cdef fault_t fault
    if lay_range(&map.extents, logical, block, 1, 0, &fault) < 0:
        raise_fault(&fault)
    map.changed = True
    (<ext4_dir_entry_t*>editor.edit(block)).rec_len = stored_size(leaf_end(editor))
    seal_leaf(editor, directory, block)
    editor.inode(directory).i_size_lo = ext4_le32(<uint32_t>((logical + 1) * editor.geometry.block_size))
    editor.seal_inode(directory)
    return block


cdef bint make_directory(Editor editor, uint32_t number, uint32_t parent) except -1:
    cdef ext4_dir_entry_t* entry
    cdef uint64_t block
    cdef uint8_t* data
    if editor.map_of(number).place(0) != 0:
        return False
    block = append_leaf(editor, number, 0)
    data = editor.edit(block)
    entry = <ext4_dir_entry_t*>data
    write_entry(editor, entry, b".", number)
    entry.rec_len = stored_size(needed(1))
    entry = <ext4_dir_entry_t*>(data + needed(1))
    write_entry(editor, entry, b"..", parent)
    entry.rec_len = stored_size(leaf_end(editor) - needed(1))
    seal_leaf(editor, number, block)
    return True
