"""ext4_directory verifies directory blocks and reads the names in them. It takes types from inodes alone.

Source: Linux Documentation/filesystems/ext4, "Directory Entries"; fs/ext4/dir.c and namei.c for the checks. Every block
is scanned in order: hash tree blocks look like blocks of empty entries, so that no hash tree need be trusted.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    ext4_digest,
    ext4_dir_entry_t,
    ext4_dx_countlimit_t,
    ext4_le16,
    ext4_le32,
    ext4_load32,
)
from splitreel.core.ext4_inode cimport inode_seed
from splitreel.core.extent cimport FILE_DAMAGED, ExtentMap, extent_t, file_t
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport SWEEP_SPAN, append_block, block_ref_t
from splitreel.core.walk cimport NameWalk, directory_t

cdef enum:
    ENTRY = 8                                      # bytes of an entry without its name
    TAIL = 12                                      # bytes of the fake entry that holds a block's checksum
    TAIL_TYPE = 0xDE
    DOT_SIZE = 12
    DX_ROOT_COUNT = 32                             # offset of the count in a hash tree's root, behind "." and ".."
    DX_NODE_COUNT = 8                              # and in its other nodes, behind an empty entry
    DX_ENTRY = 8
    LARGEST_BLOCK = 65536
    INLINE_ENTRIES = 56                            # bytes of i_block behind the parent's inode
    S_IFMT = 0o170000
    S_IFREG = 0o100000
    S_IFDIR = 0o040000
    S_IFLNK = 0o120000
    S_IFCHR = 0o020000
    S_IFBLK = 0o060000
    S_IFIFO = 0o010000
    S_IFSOCK = 0o140000


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
    if crc_differs(crc, ext4_load32(tail + 4)):
        return b"a hash tree node's checksum does not match"
    return NULL


cdef const char* verify_block(const uint8_t* data, uint32_t block_size, uint32_t seed) noexcept nogil:
    """The hash tree first: a block that became its root may still end in the tail that it had before."""
    cdef uint32_t at = hash_tree_count(data, block_size)
    if at != 0:
        return verify_hash_node(data, block_size, at, seed)
    if not has_tail(data, block_size):
        return b"a directory block without a checksum"
    if crc_differs(~crc32c_update(seed, data, block_size - TAIL), ext4_load32(data + block_size - 4)):
        return b"a directory block's checksum does not match"
    return NULL


cdef uint32_t entry_type(uint8_t file_type) noexcept nogil:
    """S_IFMT bits that an entry's file_type states: 0 for none, all of them for what no kernel writes."""
    cdef uint32_t* types = [0, S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK]
    return types[file_type] if file_type < 8 else <uint32_t>S_IFMT


cdef bint is_dot(const uint8_t* entry, uint32_t name_size, uint32_t number) noexcept nogil:
    """The entries . and .. that begin every directory."""
    if number == 0:
        return name_size == 1 and entry[ENTRY] == 46
    return name_size == 2 and entry[ENTRY] == 46 and entry[ENTRY + 1] == 46


# The walk.

cdef class DirectoryWalk(NameWalk):
    """Every name of an ext4 file system. One walk at a time, one thread at a time; no Python face."""

    cdef int64_t find(self, ExtentMap target, uint64_t inode) noexcept nogil:
        """Index of the file of an inode, or -1. Inodes of a group are used from its first on, so the guess hits.

        What has no type is no file: an inode that holds an attribute's value.
        """
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
                return <int64_t>middle if target.files[middle].mode != 0 else -1
            if target.files[middle].inode < inode:
                low = middle + 1
            else:
                high = middle
            middle = low + (high - low) // 2
        if (inode - 1) % self.index.inodes_per_group >= self.index.used_inodes[group]:
            self.index.used_inodes[group] = self.index.inodes_per_group
            self.index.is_short = True
        return -1

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

    cdef int read_blocks(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil:
        cdef uint32_t part
        for part in range(ref.count):
            if self.read_block(target, ref, part, data + <size_t>part * self.geometry.block_size, fault) < 0:
                return fault.code
        return 0

    cdef int read_local(self, ExtentMap target, const directory_t* directory, const uint8_t* bytes, uint32_t size,
                        fault_t* fault) noexcept nogil:
        """Entries in i_block, behind the parent's inode, and those in the attribute: no entry is in both."""
        if self.read_entries(target, directory, 0, bytes, INLINE_ENTRIES, False, fault) < 0:
            return fault.code
        return self.read_entries(target, directory, 0, bytes + INLINE_ENTRIES, size - INLINE_ENTRIES, False, fault)

    cdef int read_block(self, ExtentMap target, const block_ref_t* ref, uint32_t part, const uint8_t* data,
                        fault_t* fault) noexcept nogil:
        cdef file_t* directory = &target.files[ref.owner]
        cdef uint32_t size = self.geometry.block_size
        cdef uint64_t offset = (ref.block + part) * size
        cdef directory_t place = directory_t(ref.owner, ref.limit)
        cdef const char* text = NULL
        cdef uint32_t seed
        directory.fingerprint += ext4_digest(ref.first + part, data, size)
        if self.geometry.metadata_csum:
            seed = inode_seed(self.geometry, <uint32_t>directory.inode, directory.generation)
            text = verify_block(data, size, seed)
        if text != NULL:
            self.damaged(target, ref.owner, offset, text)
            return 0
        return self.read_entries(target, &place, offset, data, size, ref.first + part == 0, fault)

    cdef int read_entries(self, ExtentMap target, const directory_t* directory, uint64_t offset, const uint8_t* data,
                          uint32_t size, bint dots, fault_t* fault) noexcept nogil:
        """All entries of one area. What is wrong ends it, since the next cannot be found.

        offset: on the device, 0 when it is in the inode. dots: it begins with . and ..
        """
        cdef uint32_t at = 0, record, name_size, number = 0
        cdef const ext4_dir_entry_t* entry
        cdef const char* text
        cdef uint64_t place
        while at < size:
            entry = <const ext4_dir_entry_t*>(data + at)
            text = self.check_entry(entry, size - at, &record, &name_size)
            place = offset + at if offset > 0 else 0
            if text != NULL:
                self.damaged(target, directory.file, place, text)
                return 0
            if entry.inode != 0 and not (dots and number < 2 and is_dot(data + at, name_size, number)):
                if self.add_entry(target, directory, place, ext4_le32(entry.inode), data + at + ENTRY, name_size,
                                  entry_type(entry.file_type) if self.geometry.filetype else 0, fault) < 0:
                    return fault.code
            number += 1
            at += record
        return 0

    cdef const char* check_entry(self, const ext4_dir_entry_t* entry, uint32_t room, uint32_t* record,
                                 uint32_t* name_size) noexcept nogil:
        """Sizes of the entry and of its name, or text of why there is no going on behind it."""
        if room < ENTRY:
            return b"a directory entry does not fit its block"
        record[0] = record_size(self.geometry.block_size, entry.rec_len)
        name_size[0] = entry.name_len
        if not self.geometry.filetype:
            name_size[0] |= <uint32_t>entry.file_type << 8
        if record[0] < DOT_SIZE or record[0] % 4 != 0 or record[0] > room:
            return b"a directory entry's rec_len is out of range"
        if record[0] != room and room - record[0] < DOT_SIZE:
            return b"a directory entry ends too close to the end of its block"
        if entry.inode != 0 and (name_size[0] > 255 or ENTRY + name_size[0] > record[0]):
            return b"a directory entry's name does not fit its rec_len"
        return NULL
