"""ext4_directory verifies directory blocks and appends the names in them to a map. It takes types from inodes alone.

Source: Linux Documentation/filesystems/ext4, "Directory Entries"; fs/ext4/dir.c and namei.c for the checks. Every block
is scanned in order: hash tree blocks look like blocks of empty entries, so that no hash tree need be trusted.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr

from splitreel.core.checksum cimport crc32c_update
from splitreel.core.columns cimport MAX_DEPTH
from splitreel.core.ext4_disk cimport (
    EXT4_ROOT_INO,
    ext4_digest,
    ext4_dir_entry_t,
    ext4_dx_countlimit_t,
    ext4_le16,
    ext4_le32,
    ext4_load32,
)
from splitreel.core.ext4_inode cimport inode_seed
from splitreel.core.sweep cimport SWEEP_SPAN, append_block, block_ref_t, free_blocks
from splitreel.core.sweep cimport grow_array, sort_blocks
from splitreel.core.extent cimport FILE_DAMAGED, ExtentMap, extent_t, file_t
from splitreel.core.fault cimport FAULT_CORRUPT, FAULT_IO, FAULT_NO_MEMORY, fault_t, set_fault

cdef enum:
    ENTRY = 8                                      # bytes of an entry without its name
    FILE_TYPE = 7                                  # offset of file_type
    TAIL = 12                                      # bytes of the fake entry that holds a block's checksum
    TAIL_TYPE = 0xDE
    DOT_SIZE = 12
    DX_ROOT_COUNT = 32                             # offset of the count in a hash tree's root, behind "." and ".."
    DX_NODE_COUNT = 8                              # and in its other nodes, behind an empty entry
    DX_ENTRY = 8
    LARGEST_BLOCK = 65536
    S_IFMT = 0o170000
    S_IFDIR = 0o040000


# Blocks.

cdef uint32_t record_size(uint32_t block_size, uint16_t raw) noexcept nogil:
    """rec_len; with blocks of 64 KiB, 65535 and 0 mean 65536 and the two low bits stand for bits 16 and 17."""
    cdef uint32_t size = ext4_le16(raw)
    if block_size < LARGEST_BLOCK:
        return size
    if size == 65535 or size == 0:
        return block_size
    return (size & 65532) | (size & 3) << 16


cdef bint has_tail(const uint8_t* data, uint32_t block_size) noexcept nogil:
    cdef const ext4_dir_entry_t* tail = <const ext4_dir_entry_t*>(data + block_size - TAIL)
    return (tail.inode == 0 and ext4_le16(tail.rec_len) == TAIL and tail.name_len == 0
            and tail.file_type == TAIL_TYPE)


cdef uint32_t hash_tree_count(const uint8_t* data, uint32_t block_size) noexcept nogil:
    """Offset of limit and count when the block is a node of a hash tree, else 0."""
    cdef const ext4_dir_entry_t* entry = <const ext4_dir_entry_t*>data
    cdef uint32_t first = record_size(block_size, entry.rec_len)
    if first == block_size and entry.inode == 0:
        return DX_NODE_COUNT
    if first != DOT_SIZE:
        return 0
    entry = <const ext4_dir_entry_t*>(data + DOT_SIZE)
    if record_size(block_size, entry.rec_len) != block_size - DOT_SIZE or data[DX_ROOT_COUNT - 3] != 8:
        return 0
    return DX_ROOT_COUNT


cdef const char* verify_hash_node(const uint8_t* data, uint32_t block_size, uint32_t at, uint32_t seed) noexcept nogil:
    """The checksum of a hash tree node: all up to the last used entry, the tail's reserved word, a zero word."""
    cdef const ext4_dx_countlimit_t* header = <const ext4_dx_countlimit_t*>(data + at)
    cdef uint32_t limit = ext4_le16(header.limit)
    cdef uint32_t count = ext4_le16(header.count)
    cdef uint32_t zero = 0, crc
    cdef const uint8_t* tail = data + at + limit * DX_ENTRY
    if count > limit or at + limit * DX_ENTRY + 8 > block_size:
        return b"a hash tree node with more entries than fit"
    crc = crc32c_update(seed, data, at + count * DX_ENTRY)
    crc = crc32c_update(crc, tail, 4)
    crc = ~crc32c_update(crc, &zero, 4)
    if crc != ext4_load32(tail + 4):
        return b"a hash tree node's checksum does not match"
    return NULL


cdef const char* verify_block(const uint8_t* data, uint32_t block_size, uint32_t seed) noexcept nogil:
    """The hash tree first: a block that became its root may still end in the tail that it had before."""
    cdef uint32_t at = hash_tree_count(data, block_size)
    if at != 0:
        return verify_hash_node(data, block_size, at, seed)
    if not has_tail(data, block_size):
        return b"a directory block without a checksum"
    if ~crc32c_update(seed, data, block_size - TAIL) != ext4_load32(data + block_size - 4):
        return b"a directory block's checksum does not match"
    return NULL


cdef const char* verify_name(const uint8_t* name, uint32_t size) noexcept nogil:
    """What no kernel would make, and no restore must follow out of its directory."""
    if size == 0:
        return b"an entry without a name"
    if memchr(name, 0, size) != NULL or memchr(name, 47, size) != NULL:
        return b"an entry's name holds a slash or a null byte"
    if name[0] == 46 and (size == 1 or (size == 2 and name[1] == 46)):
        return b"an entry named . or .. out of its place"
    return NULL


cdef uint8_t entry_type(uint16_t mode) noexcept nogil:
    """file_type that an entry of an inode of this mode has."""
    cdef uint16_t kind = mode >> 12
    cdef const uint8_t* types = b"\x00\x05\x03\x00\x02\x00\x04\x00\x01\x00\x07\x00\x06\x00\x00\x00"
    return types[kind]


# The walk.

cdef class DirectoryWalk:
    """Every name of a file system. One walk an object, one thread at a time; no Python face."""

    def __dealloc__(self):
        free(self.levels[0])
        free(self.levels[1])
        free(self.named)
        free_blocks(&self.blocks)

    cdef void reset(self) noexcept nogil:
        free(self.named)
        self.named = NULL
        free_blocks(&self.blocks)
        self.level_count[0] = self.level_count[1] = 0
        self.block_count = 0

    cdef void damaged(self, ExtentMap target, uint32_t file, uint64_t offset, const char* text) noexcept nogil:
        target.files[file].flags |= FILE_DAMAGED
        target.append_problem(target.files[file].inode, offset, text)

    cdef bint is_named(self, uint64_t file) noexcept nogil:
        return self.named[file >> 3] >> (file & 7) & 1

    cdef int64_t find(self, ExtentMap target, uint32_t inode) noexcept nogil:
        """Index of the file of an inode, or -1. Inodes of a group are used from its first on, so the guess hits."""
        cdef uint64_t group = (inode - 1) // self.index.inodes_per_group
        cdef uint64_t low, high, middle
        if inode == 0 or group >= self.index.group_count:
            return -1
        low = self.index.first_file[group]
        high = self.index.first_file[group + 1]
        middle = low + (inode - 1) % self.index.inodes_per_group
        while low < high:
            if middle >= high:
                middle = low + (high - low) // 2
            if target.files[middle].inode == inode:
                return <int64_t>middle
            if target.files[middle].inode < inode:
                low = middle + 1
            else:
                high = middle
            middle = low + (high - low) // 2
        return -1

    cdef int push(self, uint32_t file, uint32_t name, fault_t* fault) noexcept nogil:
        cdef int level = self.next_level
        cdef directory_t* item
        if grow_array(<void**>&self.levels[level], &self.level_capacity[level], self.level_count[level],
                      sizeof(directory_t), fault) < 0:
            return fault.code
        item = &self.levels[level][self.level_count[level]]
        item.file = file
        item.name = name
        self.level_count[level] += 1
        return 0

    cdef int walk(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef int64_t root = self.find(target, EXT4_ROOT_INO)
        cdef uint32_t depth = 1                    # of the directories of a level, counted as verify_columns does
        cdef int level
        self.blocks_left = self.geometry.block_count
        self.named = <uint8_t*>calloc(target.file_count // 8 + 1, 1)
        if self.named == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"reading directories", 0, 0, NULL)
        if root < 0 or target.files[root].mode & S_IFMT != S_IFDIR:
            return set_fault(fault, FAULT_CORRUPT, b"reading directories", EXT4_ROOT_INO, 0,
                             b"the root inode is no directory")
        self.named[root >> 3] |= <uint8_t>(1 << (root & 7))
        if target.append_name(0, <uint32_t>root, NULL, 0, fault) < 0 or self.push(<uint32_t>root, 0, fault) < 0:
            return fault.code
        while self.level_count[self.next_level] > 0:
            level = self.next_level
            self.next_level = 1 - level
            self.level_count[self.next_level] = 0
            if depth == MAX_DEPTH:
                self.leave_out(target, level)
            elif self.read_level(target, level, fault) < 0:
                return fault.code
            depth += 1
        return 0

    cdef void leave_out(self, ExtentMap target, int level) noexcept nogil:
        """Names in these directories would be deeper than a map allows; without them the rest of it is good."""
        cdef size_t i
        for i in range(self.level_count[level]):
            self.damaged(target, self.levels[level][i].file, 0,
                         b"directories nested 65536 deep: what is in this one is left out")

    cdef int read_level(self, ExtentMap target, int level, fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef uint32_t part
        cdef size_t i
        cdef int rc
        self.blocks.count = 0
        for i in range(self.level_count[level]):
            if self.list_blocks(target, &self.levels[level][i], fault) < 0:
                return fault.code
        sort_blocks(&self.blocks)
        self.sweep.start(&self.blocks)
        while True:
            rc = self.sweep.next(&ref, &data, fault)
            if rc == 0:
                return 0
            if rc == FAULT_IO:
                self.damaged(target, ref.owner, ref.block * self.geometry.block_size,
                             b"a directory block does not read")
                continue
            if rc < 0:
                return rc
            for part in range(ref.count):
                if self.read_block(target, ref, part, data + <size_t>part * self.geometry.block_size, fault) < 0:
                    return fault.code

    cdef int list_blocks(self, ExtentMap target, const directory_t* directory, fault_t* fault) noexcept nogil:
        """The directory's blocks up to its size, unwritten ones too, as the kernel does; holes hold no entries."""
        cdef const file_t* file = &target.files[directory.file]
        cdef uint64_t wanted = (file.size + self.geometry.block_size - 1) // self.geometry.block_size
        cdef uint64_t i, logical, block, end, mapped = 0
        cdef uint32_t count, most = SWEEP_SPAN // self.geometry.block_size // 4
        cdef const extent_t* extent
        for i in range(file.first_extent, file.first_extent + file.extent_count):
            extent = &target.extents[i]
            if extent.logical >= wanted:
                continue
            logical = extent.logical
            block = extent.physical
            end = min(logical + extent.count, wanted)
            if end - logical > self.blocks_left:
                self.damaged(target, directory.file, 0,
                             b"more directory blocks than the file system has: some are used twice")
                return 0
            self.blocks_left -= end - logical
            mapped += end - logical
            while logical < end:
                count = <uint32_t>min(<uint64_t>most, end - logical)
                if append_block(&self.blocks, block, count, directory.file, <uint32_t>logical, directory.name,
                                fault) < 0:
                    return fault.code
                logical += count
                block += count
        self.block_count += mapped
        if not file.flags & FILE_DAMAGED and (mapped < wanted or file.size % self.geometry.block_size or wanted == 0):
            self.damaged(target, directory.file, 0, b"a directory with holes, or of an odd size")
        return 0

    cdef int read_block(self, ExtentMap target, const block_ref_t* ref, uint32_t part, const uint8_t* data,
                        fault_t* fault) noexcept nogil:
        cdef file_t* directory = &target.files[ref.owner]
        cdef uint32_t size = self.geometry.block_size
        cdef uint64_t offset = (ref.block + part) * size
        cdef const char* text = NULL
        cdef uint32_t seed
        directory.fingerprint += ext4_digest(ref.first + part, data, size)
        if self.geometry.metadata_csum:
            seed = inode_seed(self.geometry, <uint32_t>directory.inode, directory.generation)
            text = verify_block(data, size, seed)
        if text != NULL:
            self.damaged(target, ref.owner, offset, text)
            return 0
        return self.read_entries(target, ref, ref.first + part, offset, data, fault)

    cdef int read_entries(self, ExtentMap target, const block_ref_t* ref, uint32_t logical, uint64_t offset,
                          const uint8_t* data,
                          fault_t* fault) noexcept nogil:
        """All entries of one block. What is wrong ends the block, since the next entry cannot be found."""
        cdef uint32_t size = self.geometry.block_size
        cdef uint32_t at = 0, record, name_size, number = 0
        cdef const ext4_dir_entry_t* entry
        while at < size:
            entry = <const ext4_dir_entry_t*>(data + at)
            if size - at < ENTRY:
                self.damaged(target, ref.owner, offset + at, b"a directory entry does not fit its block")
                return 0
            record = record_size(size, entry.rec_len)
            name_size = entry.name_len
            if not self.geometry.filetype:
                name_size |= <uint32_t>entry.file_type << 8
            if record < DOT_SIZE or record % 4 != 0 or record > size - at:
                self.damaged(target, ref.owner, offset + at, b"a directory entry's rec_len is out of range")
                return 0
            if entry.inode != 0:
                if name_size > 255 or ENTRY + name_size > record:
                    self.damaged(target, ref.owner, offset + at, b"a directory entry's name does not fit its rec_len")
                    return 0
                if logical > 0 or number > 1 or not self.is_dot(data + at, name_size, number):
                    if self.add_entry(target, ref, offset + at, data + at, name_size, fault) < 0:
                        return fault.code
            number += 1
            at += record
        return 0

    cdef bint is_dot(self, const uint8_t* entry, uint32_t name_size, uint32_t number) noexcept nogil:
        """The entries . and .. that begin every directory."""
        if number == 0:
            return name_size == 1 and entry[ENTRY] == 46
        return name_size == 2 and entry[ENTRY] == 46 and entry[ENTRY + 1] == 46

    cdef int add_entry(self, ExtentMap target, const block_ref_t* ref, uint64_t offset, const uint8_t* entry,
                       uint32_t name_size,
                       fault_t* fault) noexcept nogil:
        cdef uint32_t inode = ext4_le32((<const ext4_dir_entry_t*>entry).inode)
        cdef const char* text = verify_name(entry + ENTRY, name_size)
        cdef int64_t file = self.find(target, inode) if text == NULL else -1
        cdef bint is_directory
        if text == NULL and file < 0:
            text = b"an entry leads to an inode that is not in use"
        if text != NULL:
            self.damaged(target, ref.owner, offset, text)
            return 0
        is_directory = target.files[file].mode & S_IFMT == S_IFDIR
        if is_directory and self.is_named(file):
            self.damaged(target, ref.owner, offset, b"an entry leads to a directory that has another name already")
            return 0
        if (self.geometry.filetype and entry[FILE_TYPE] != 0
                and entry[FILE_TYPE] != entry_type(target.files[file].mode)):
            target.append_problem(target.files[ref.owner].inode, offset,
                                  b"an entry's file type is not that of its inode")
        self.named[file >> 3] |= <uint8_t>(1 << (file & 7))
        if target.append_name(ref.limit, <uint32_t>file, entry + ENTRY, name_size, fault) < 0:
            return fault.code
        if is_directory:
            return self.push(<uint32_t>file, <uint32_t>(target.name_count - 1), fault)
        return 0
