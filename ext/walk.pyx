"""walk appends every name of a file system to a map, from the root downward. It parses no directory block itself.

A level of the tree at a time: the blocks of all its directories are one list, read in disk order with a deep queue.
A directory has one name, so that the walk ends and no cycle can come to be.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset

from splitreel.core.columns cimport MAX_DEPTH, reserve
from splitreel.core.extent cimport FILE_DAMAGED, ExtentMap, name_t
from splitreel.core.fault cimport FAULT_CORRUPT, FAULT_IO, FAULT_MISUSE, FAULT_NO_MEMORY, fault_t, set_fault
from splitreel.core.sweep cimport block_ref_t, free_blocks, grow_array, sort_blocks

cdef enum:
    MAX_NAME = 255
    SMALL_TABLE = 1024                             # places of a table of names at first
    S_IFMT = 0o170000
    S_IFDIR = 0o040000

cdef uint64_t MAX_ARENA = <uint64_t>1 << 40        # no bound of its own: it holds no more than the inodes do


cdef const char* verify_name(const uint8_t* name, uint32_t size) noexcept nogil:
    """What no kernel would make, and no restore must follow out of its directory."""
    if size == 0:
        return b"an entry without a name"
    if size > MAX_NAME:
        return b"an entry's name is longer than 255 bytes"
    if memchr(name, 0, size) != NULL or memchr(name, 47, size) != NULL:
        return b"an entry's name holds a slash or a null byte"
    if name[0] == 46 and (size == 1 or (size == 2 and name[1] == 46)):
        return b"an entry named . or .. out of its place"
    return NULL


# Names that were seen: of two equal ones in a directory the second is refused. Most directories come in one piece, and
# a table for its names stays in the cache: 100 000 names cost 1 ms so, and 6 ms in one table for the whole level.

cdef uint32_t hash_name(uint32_t parent, const uint8_t* name, uint32_t size) noexcept nogil:
    cdef uint64_t state = parent * <uint64_t>0x9E3779B97F4A7C15 + size, word
    cdef uint32_t at = 0
    while at < size:
        word = 0
        memcpy(&word, name + at, min(<uint32_t>8, size - at))
        state = (state ^ word) * <uint64_t>0xD6E8FEB86659FD93
        state ^= state >> 32
        at += 8
    return <uint32_t>state


cdef void forget_names(seen_names_t* seen, uint64_t first) noexcept nogil:
    seen.first = first
    seen.count = 0


cdef void place_name(seen_names_t* seen, seen_t item) noexcept nogil:
    cdef size_t at = item.hash & (seen.capacity - 1)
    while seen.items[at].name >= seen.first:
        at = (at + 1) & (seen.capacity - 1)
    seen.items[at] = item


cdef int grow_names(seen_names_t* seen, fault_t* fault) noexcept nogil:
    """Room for one name more, with every second place free."""
    cdef seen_names_t larger = seen[0]
    cdef size_t i
    if seen.count * 2 < seen.capacity:
        return 0
    larger.capacity = max(seen.capacity * 2, <size_t>SMALL_TABLE)
    larger.items = <seen_t*>calloc(larger.capacity, sizeof(seen_t))
    if larger.items == NULL:
        return set_fault(fault, FAULT_NO_MEMORY, b"reading directories", 0, 0, NULL)
    for i in range(seen.capacity):
        if seen.items[i].name >= seen.first:
            place_name(&larger, seen.items[i])
    free(seen.items)
    seen[0] = larger
    return 0


cdef void free_names(seen_names_t* seen) noexcept nogil:
    free(seen.items)
    memset(seen, 0, sizeof(seen_names_t))


cdef class NameWalk:
    """Every name of a file system. One walk at a time, one thread at a time; no Python face."""

    def __cinit__(self):
        self.unit = 1

    def __dealloc__(self):
        self.reset()
        free(self.levels[0])
        free(self.levels[1])

    cdef void reset(self) noexcept nogil:
        free(self.named)
        free(self.spread)
        free(self.locals)
        free(self.arena)
        free_names(&self.near)
        free_names(&self.far)
        free_blocks(&self.blocks)
        self.named = self.spread = NULL
        self.locals = NULL
        self.arena = NULL
        self.local_count = self.local_capacity = 0
        self.arena_size = self.arena_capacity = 0
        self.level_count[0] = self.level_count[1] = 0
        self.block_count = 0

    cdef void damaged(self, ExtentMap target, uint32_t file, uint64_t offset, const char* text) noexcept nogil:
        target.files[file].flags |= FILE_DAMAGED
        target.append_problem(target.files[file].inode, offset, text)

    # What a file system does in its own way.

    cdef int64_t find(self, ExtentMap target, uint64_t inode) noexcept nogil:
        return target.find_inode(inode)

    cdef int list_blocks(self, ExtentMap target, const directory_t* directory, fault_t* fault) noexcept nogil:
        return set_fault(fault, FAULT_MISUSE, b"reading directories", 0, 0, b"the base class reads nothing")

    cdef int read_blocks(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil:
        return set_fault(fault, FAULT_MISUSE, b"reading directories", 0, 0, b"the base class reads nothing")

    cdef int read_local(self, ExtentMap target, const directory_t* directory, const uint8_t* bytes, uint32_t size,
                        fault_t* fault) noexcept nogil:
        return set_fault(fault, FAULT_MISUSE, b"reading directories", 0, 0, b"the base class reads nothing")

    # Directories that stand in their inodes.

    cdef int keep_local(self, uint32_t file, const uint8_t* bytes, uint32_t size, fault_t* fault) noexcept nogil:
        if grow_array(<void**>&self.locals, &self.local_capacity, self.local_count, sizeof(local_t), fault) < 0:
            return fault.code
        if reserve(<void**>&self.arena, &self.arena_capacity, self.arena_size + size, MAX_ARENA, 1, fault) < 0:
            return fault.code
        if size > 0:
            memcpy(self.arena + self.arena_size, bytes, size)
        self.locals[self.local_count] = local_t(self.arena_size, size, file)
        self.local_count += 1
        self.arena_size += size
        return 0

    cdef const local_t* find_local(self, uint32_t file) noexcept nogil:
        cdef size_t low = 0, high = self.local_count, middle
        while low < high:
            middle = low + (high - low) // 2
            if self.locals[middle].file < file:
                low = middle + 1
            else:
                high = middle
        return &self.locals[low] if low < self.local_count and self.locals[low].file == file else NULL

    # Files and their names.

    cdef bint is_named(self, uint64_t file) noexcept nogil:
        return self.named[file >> 3] >> (file & 7) & 1

    cdef int push(self, uint32_t file, uint32_t name, fault_t* fault) noexcept nogil:
        cdef int level = self.next_level
        if grow_array(<void**>&self.levels[level], &self.level_capacity[level], self.level_count[level],
                      sizeof(directory_t), fault) < 0:
            return fault.code
        self.levels[level][self.level_count[level]] = directory_t(file, name)
        self.level_count[level] += 1
        return 0

    cdef bint is_seen(self, ExtentMap target, uint32_t parent, uint32_t hash, const uint8_t* name,
                      uint32_t name_size) noexcept nogil:
        cdef const seen_names_t* seen = self.seen
        cdef size_t at = hash & (seen.capacity - 1)
        cdef const name_t* other
        while seen.items[at].name >= seen.first:
            if seen.items[at].hash == hash:
                other = &target.names[seen.items[at].name]
                if (other.parent == parent and other.name_size == name_size
                        and memcmp(target.name_heap + other.name_offset, name, name_size) == 0):
                    return True
            at = (at + 1) & (seen.capacity - 1)
        return False

    cdef int add_entry(self, ExtentMap target, const directory_t* directory, uint64_t offset, uint64_t inode,
                       const uint8_t* name, uint32_t name_size, uint32_t type, fault_t* fault) noexcept nogil:
        cdef const char* text = verify_name(name, name_size)
        cdef int64_t file = self.find(target, inode) if text == NULL else -1
        cdef bint is_directory = file >= 0 and target.files[file].mode & S_IFMT == S_IFDIR
        cdef uint32_t hash = hash_name(directory.name, name, name_size)
        if grow_names(self.seen, fault) < 0:
            return fault.code
        if text == NULL and file < 0:
            text = b"an entry leads to an inode that is not in use"
        elif text == NULL and is_directory and self.is_named(file):
            text = b"an entry leads to a directory that has another name already"
        if text != NULL:
            self.damaged(target, directory.file, offset, text)
            return 0
        if self.is_seen(target, directory.name, hash, name, name_size):
            target.append_problem(target.files[directory.file].inode, offset,
                                  b"an entry whose name another one in its directory has: left out")
            return 0
        if type != 0 and type != target.files[file].mode & S_IFMT:
            target.append_problem(target.files[directory.file].inode, offset,
                                  b"an entry's file type is not that of its inode")
        self.named[file >> 3] |= <uint8_t>(1 << (file & 7))
        if target.append_name(directory.name, <uint32_t>file, name, name_size, fault) < 0:
            return fault.code
        place_name(self.seen, seen_t(hash, <uint32_t>(target.name_count - 1)))
        self.seen.count += 1
        if is_directory:
            return self.push(<uint32_t>file, <uint32_t>(target.name_count - 1), fault)
        return 0

    cdef int drop_unnamed(self, ExtentMap target, uint64_t* dropped, fault_t* fault) noexcept nogil:
        cdef uint64_t i, kept = 0
        cdef uint32_t* place
        for i in range(target.file_count):
            kept += self.is_named(i)
        dropped[0] = target.file_count - kept
        if dropped[0] == 0:
            return 0
        place = <uint32_t*>malloc(target.file_count * sizeof(uint32_t))
        if place == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"leaving out files without a name", 0, 0, NULL)
        kept = 0
        for i in range(target.file_count):
            place[i] = <uint32_t>kept
            if self.is_named(i):
                target.files[kept] = target.files[i]
                kept += 1
        for i in range(target.name_count):
            target.names[i].file = place[target.names[i].file]
        target.file_count = kept
        free(place)
        return 0

    # The walk.

    cdef int begin(self, ExtentMap target, uint64_t root_inode, fault_t* fault) noexcept nogil:
        """The root is its own parent and has an empty name."""
        cdef int64_t root = self.find(target, root_inode)
        if root < 0 or target.files[root].mode & S_IFMT != S_IFDIR:
            return set_fault(fault, FAULT_CORRUPT, b"reading directories", root_inode, 0,
                             b"the root inode is no directory")
        free(self.named)
        free(self.spread)
        self.named = <uint8_t*>calloc(target.file_count // 8 + 1, 1)
        self.spread = <uint8_t*>calloc(target.file_count // 8 + 1, 1)
        if self.named == NULL or self.spread == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"reading directories", 0, 0, NULL)
        self.level_count[0] = self.level_count[1] = 0
        self.named[root >> 3] |= <uint8_t>(1 << (root & 7))
        if target.append_name(0, <uint32_t>root, NULL, 0, fault) < 0:
            return fault.code
        return self.push(<uint32_t>root, 0, fault)

    cdef int walk(self, ExtentMap target, uint64_t root_inode, fault_t* fault) noexcept nogil:
        cdef uint32_t depth = 1                    # of the directories of a level, counted as verify_columns does
        cdef int level
        if self.begin(target, root_inode, fault) < 0:
            return fault.code
        while self.level_count[self.next_level] > 0:
            level = self.next_level
            self.next_level = 1 - level
            self.level_count[self.next_level] = 0
            if depth == MAX_DEPTH:
                self.leave_out(target, level)
            elif self.list_level(target, level, fault) < 0 or self.read_level(target, level, fault) < 0:
                return fault.code
            depth += 1
        return 0

    cdef void leave_out(self, ExtentMap target, int level) noexcept nogil:
        """Names in these directories would be deeper than a map allows; without them the rest of it is good."""
        cdef size_t i
        for i in range(self.level_count[level]):
            self.damaged(target, self.levels[level][i].file, 0,
                         b"directories nested 65536 deep: what is in this one is left out")

    cdef int list_level(self, ExtentMap target, int level, fault_t* fault) noexcept nogil:
        """Directories that stand in their inodes are read at once, of others the blocks are listed.

        While it lists them, a reader may add what stands in directory blocks that come in pieces.
        """
        cdef const directory_t* directory
        cdef const local_t* entries = NULL
        cdef uint64_t named
        cdef size_t i, listed
        cdef int rc
        self.blocks.count = 0
        forget_names(&self.far, target.name_count)
        for i in range(self.level_count[level]):
            directory = &self.levels[level][i]
            listed = self.blocks.count
            named = target.name_count
            if self.local_count > 0:
                entries = self.find_local(directory.file)
            if entries != NULL:
                self.seen = &self.near
                forget_names(&self.near, target.name_count)
                rc = self.read_local(target, directory, self.arena + entries.at, entries.size, fault)
            else:
                self.seen = &self.far
                rc = self.list_blocks(target, directory, fault)
            if rc < 0:
                return rc
            if self.blocks.count > listed + (target.name_count == named):
                self.spread[directory.file >> 3] |= <uint8_t>(1 << (directory.file & 7))
        return 0

    cdef int read_level(self, ExtentMap target, int level, fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef int rc
        sort_blocks(&self.blocks)
        self.sweep.start(&self.blocks)
        while True:
            rc = self.sweep.next(&ref, &data, fault)
            if rc == 0:
                return 0
            if rc < 0 and rc != FAULT_IO:
                return rc
            self.seen = &self.far
            if not self.spread[ref.owner >> 3] >> (ref.owner & 7) & 1:
                self.seen = &self.near
                forget_names(&self.near, target.name_count)
            if rc == FAULT_IO:
                rc = self.read_singly(target, ref, <uint8_t*>data, fault)
            else:
                rc = self.read_blocks(target, ref, data, fault)
            if rc < 0:
                return rc

    cdef int read_singly(self, ExtentMap target, const block_ref_t* ref, uint8_t* data, fault_t* fault) noexcept nogil:
        """Of a reference that does not read, the directory blocks that do: it may hold hundreds."""
        cdef uint32_t size = self.sweep.block_size
        cdef block_ref_t single = ref[0]
        cdef uint32_t part = 0
        while part < ref.count:
            single.block = ref.block + part
            single.first = ref.first + part
            single.count = min(self.unit, ref.count - part)
            if self.sweep.device.read(single.block * size, data, <size_t>single.count * size, fault) < 0:
                self.damaged(target, ref.owner, single.block * size, b"a directory block does not read")
            elif self.read_blocks(target, &single, data, fault) < 0:
                return fault.code
            part += single.count
        return 0
