# ext4_groups: group descriptors, found and verified, and the blocks that are the file system's own.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.ext4_superblock cimport ext4_geometry_t, stretch_t, stretches_t
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport block_list_t

cdef struct ext4_group_t:
    uint64_t block_bitmap                          # block
    uint64_t inode_bitmap                          # block
    uint64_t inode_table                           # block
    uint32_t used_inodes                           # head of the table that was ever used
    bint is_verified                               # its checksum matches

cdef bint has_superblock(const ext4_geometry_t* geometry, uint64_t group) noexcept nogil
# The block that holds descriptors number index * per block and up.
cdef uint64_t descriptor_block(const ext4_geometry_t* geometry, uint64_t index) noexcept nogil
# All descriptors, in order: first is the first group of each piece, limit the number of its groups.
cdef int list_descriptors(const ext4_geometry_t* geometry, block_list_t* list, fault_t* fault) noexcept nogil
cdef uint16_t group_checksum(const ext4_geometry_t* geometry, uint32_t group, const uint8_t* raw) noexcept nogil
# One whose checksum differs says nothing of its table's used head, which is then all of it.
cdef int decode_group(const ext4_geometry_t* geometry, uint64_t group, const uint8_t* raw, ext4_group_t* out,
                      fault_t* fault) noexcept nogil
# FAULT_CORRUPT also when its checksum differs.
cdef int decode_verified_group(const ext4_geometry_t* geometry, uint64_t group, const uint8_t* raw, ext4_group_t* out,
                               fault_t* fault) noexcept nogil

cdef int add_stretch(const ext4_geometry_t* geometry, stretches_t* list, uint64_t first, uint64_t count,
                     fault_t* fault) noexcept nogil
# Superblock copy, descriptors and bitmaps of one group to list, its inode table to tables.
cdef int add_group_stretches(const ext4_geometry_t* geometry, stretches_t* tables, stretches_t* list, uint64_t number,
                             const ext4_group_t* group, fault_t* fault) noexcept nogil
# Adds the tables to the list and arranges it; FAULT_CORRUPT when two groups claim one table: inodes would be doubled.
cdef int join_tables(const ext4_geometry_t* geometry, stretches_t* tables, stretches_t* list,
                     fault_t* fault) noexcept nogil
cdef void arrange_stretches(stretches_t* list) noexcept nogil
cdef void free_stretches(stretches_t* list) noexcept nogil
# Whether any of the blocks is in an arranged list.
cdef bint is_metadata(const stretches_t* list, uint64_t block, uint64_t count) noexcept nogil
# NULL where the blocks can be a file's; else outside (the file system) or own (they are the file system's).
cdef const char* verify_place(const ext4_geometry_t* geometry, uint64_t block, uint64_t count, const char* outside,
                              const char* own) noexcept nogil
