# ext4_directory: directory blocks, verified, and the names in them. DirectoryWalk: every name from the root downward.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_disk cimport ext4_dir_entry_t
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport block_ref_t
from splitreel.core.walk cimport NameWalk, directory_t

cdef struct inode_index_t:                         # index of the first file of each group, one more at the end
    uint64_t* first_file
    uint32_t* used_inodes                          # head of each group's table that is read
    bint is_short                                  # a name led behind such a head: that one is now the whole table
    uint64_t group_count
    uint32_t inodes_per_group

cdef class DirectoryWalk(NameWalk):
    cdef const ext4_geometry_t* geometry
    cdef inode_index_t* index
    cdef int read_block(self, ExtentMap target, const block_ref_t* ref, uint32_t part, const uint8_t* data,
                        fault_t* fault) noexcept nogil
    cdef int read_entries(self, ExtentMap target, const directory_t* directory, uint64_t offset, const uint8_t* data,
                          uint32_t size, bint dots, fault_t* fault) noexcept nogil
    cdef const char* check_entry(self, const ext4_dir_entry_t* entry, uint32_t room, uint32_t* record,
                                 uint32_t* name_size) noexcept nogil
