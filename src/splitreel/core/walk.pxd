# walk: every name of a file system from the root downward, a level of the tree at a time, blocks of a level in disk
# order. NameWalk: what the directories of all file systems have in common; a reader's own walk inherits from it.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t

cdef struct directory_t:
    uint32_t file                                  # index into files
    uint32_t name                                  # index into names

cdef struct local_t:                               # a directory whose entries stand in its inode
    uint64_t at                                    # in the arena
    uint32_t size
    uint32_t file

cdef struct seen_t:
    uint32_t hash
    uint32_t name                                  # index into names

cdef struct seen_names_t:                          # names by their hashes; those below first are forgotten
    seen_t* items
    size_t count, capacity                         # a power of two
    uint64_t first

cdef class NameWalk:
    # One walk at a time, one thread at a time; no Python face.
    cdef Sweep sweep
    cdef block_list_t blocks                       # of the level at hand
    cdef uint32_t unit                             # blocks that make one directory block; the reader sets it, else 1
    cdef uint64_t blocks_left                      # the reader sets it: the file system has no more blocks
    cdef readonly uint64_t block_count
    cdef directory_t* levels[2]
    cdef size_t level_count[2]
    cdef size_t level_capacity[2]
    cdef int next_level                            # which of the two is being filled
    cdef uint8_t* named                            # a bit for each file: it has a name
    cdef uint8_t* spread                           # a bit for each directory whose blocks are more than one reference
    cdef seen_names_t near, far                    # of the reference at hand, of all spread directories of the level
    cdef seen_names_t* seen                        # one of the two
    cdef local_t* locals
    cdef size_t local_count, local_capacity
    cdef uint8_t* arena
    cdef uint64_t arena_size, arena_capacity

    # During the scan of inodes, files in rising order: the entries of a directory that stand in its inode. Copied.
    cdef int keep_local(self, uint32_t file, const uint8_t* bytes, uint32_t size, fault_t* fault) noexcept nogil
    # Appends all names, parents before children.
    cdef int walk(self, ExtentMap target, uint64_t root_inode, fault_t* fault) noexcept nogil
    cdef bint is_named(self, uint64_t file) noexcept nogil
    # Leaves out files without a name (open and unlinked at the freeze, or cut off by damage); how many in *dropped.
    cdef int drop_unnamed(self, ExtentMap target, uint64_t* dropped, fault_t* fault) noexcept nogil
    cdef void reset(self) noexcept nogil           # gives back what one walk needed
    cdef void damaged(self, ExtentMap target, uint32_t file, uint64_t offset, const char* text) noexcept nogil
    # Checks the name, finds the inode, refuses a second name of a directory, appends, queues directories.
    # type: S_IFMT bits that the entry states, 0 when it states none. offset: of the entry, bytes on the device.
    cdef int add_entry(self, ExtentMap target, const directory_t* directory, uint64_t offset, uint64_t inode,
                       const uint8_t* name, uint32_t name_size, uint32_t type, fault_t* fault) noexcept nogil

    # What a file system does in its own way (virtual).
    cdef int64_t find(self, ExtentMap target, uint64_t inode) noexcept nogil           # default: target.find_inode
    # Appends the directory's blocks to self.blocks: owner = directory.file, limit = directory.name, first = logical.
    cdef int list_blocks(self, ExtentMap target, const directory_t* directory, fault_t* fault) noexcept nogil
    # The bytes of one reference of that list.
    cdef int read_blocks(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil
    cdef int read_local(self, ExtentMap target, const directory_t* directory, const uint8_t* bytes, uint32_t size,
                        fault_t* fault) noexcept nogil

    # Its own.
    cdef int push(self, uint32_t file, uint32_t name, fault_t* fault) noexcept nogil
    cdef bint is_seen(self, ExtentMap target, uint32_t parent, uint32_t hash, const uint8_t* name,
                      uint32_t name_size) noexcept nogil
    cdef int begin(self, ExtentMap target, uint64_t root_inode, fault_t* fault) noexcept nogil
    cdef const local_t* find_local(self, uint32_t file) noexcept nogil
    cdef int list_level(self, ExtentMap target, int level, fault_t* fault) noexcept nogil
    cdef int read_level(self, ExtentMap target, int level, fault_t* fault) noexcept nogil
    cdef int read_singly(self, ExtentMap target, const block_ref_t* ref, uint8_t* data, fault_t* fault) noexcept nogil
    cdef void leave_out(self, ExtentMap target, int level) noexcept nogil
