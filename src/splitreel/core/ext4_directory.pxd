# ext4_directory: directory blocks, verified, and the names in them. DirectoryWalk: every name from the root downward.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t
from splitreel.core.extent cimport ExtentMap, file_t
from splitreel.core.fault cimport fault_t

cdef struct directory_t:
    uint32_t file                                  # index into files
    uint32_t name                                  # index into names

cdef struct inode_index_t:                         # index of the first file of each group, one more at the end
    uint64_t* first_file
    uint64_t group_count
    uint32_t inodes_per_group

cdef class DirectoryWalk:
    # Appends all names, parents before children, a level of the tree at a time; the blocks of a level in disk order.
    cdef const ext4_geometry_t* geometry
    cdef const inode_index_t* index
    cdef Sweep sweep
    cdef directory_t* levels[2]
    cdef size_t level_count[2]
    cdef size_t level_capacity[2]
    cdef int next_level                            # which of the two is being filled
    cdef uint8_t* named                            # a bit for each file: it has a name
    cdef uint64_t blocks_left                      # no more directory blocks than the file system has
    cdef readonly uint64_t block_count
    cdef block_list_t blocks
    cdef int walk(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef void reset(self) noexcept nogil           # gives back what one walk needed
    cdef int push(self, uint32_t file, uint32_t name, fault_t* fault) noexcept nogil
    cdef int read_level(self, ExtentMap target, int level, fault_t* fault) noexcept nogil
    cdef void leave_out(self, ExtentMap target, int level) noexcept nogil
    cdef int list_blocks(self, ExtentMap target, const directory_t* directory, fault_t* fault) noexcept nogil
    cdef int read_block(self, ExtentMap target, const block_ref_t* ref, uint32_t part, const uint8_t* data,
                        fault_t* fault) noexcept nogil
    cdef int read_entries(self, ExtentMap target, const block_ref_t* ref, uint32_t logical, uint64_t offset,
                          const uint8_t* data,
                          fault_t* fault) noexcept nogil
    cdef bint is_dot(self, const uint8_t* entry, uint32_t name_size, uint32_t number) noexcept nogil
    cdef int add_entry(self, ExtentMap target, const block_ref_t* ref, uint64_t offset, const uint8_t* entry,
                       uint32_t name_size,
                       fault_t* fault) noexcept nogil
    cdef void damaged(self, ExtentMap target, uint32_t file, uint64_t offset, const char* text) noexcept nogil
    cdef int64_t find(self, ExtentMap target, uint32_t inode) noexcept nogil
    cdef bint is_named(self, uint64_t file) noexcept nogil
