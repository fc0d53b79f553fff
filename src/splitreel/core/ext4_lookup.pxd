# ext4_lookup: single inodes and the blocks of single files, for what has to be known before a file system is mapped.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport extent_t
from splitreel.core.fault cimport fault_t

cdef struct extent_list_t:                         # in logical order, adjacent ones merged
    extent_t* items
    size_t count
    size_t capacity

cdef int append_run(extent_list_t* list, uint64_t logical, uint64_t physical, uint32_t count, uint32_t flags,
                    fault_t* fault) noexcept nogil
cdef void free_extents(extent_list_t* list) noexcept nogil
# Bytes on the device of a group's descriptor, of an inode.
cdef uint64_t descriptor_offset(const ext4_geometry_t* geometry, uint64_t group) noexcept nogil
cdef int find_inode(BlockDevice device, const ext4_geometry_t* geometry, uint32_t number, uint64_t* offset,
                    fault_t* fault) noexcept nogil
# inode_size bytes, as they stand there: for the caller to verify.
cdef int read_inode(BlockDevice device, const ext4_geometry_t* geometry, uint32_t number, uint8_t* raw,
                    fault_t* fault) noexcept nogil
# What a verified inode maps, of extents or indirect blocks; the list is emptied first. nodes, when not NULL: the blocks
# of the map itself, those nearer to the root first, as physical.
cdef int list_extents(BlockDevice device, const ext4_geometry_t* geometry, uint32_t number, const uint8_t* raw,
                      extent_list_t* list, extent_list_t* nodes, fault_t* fault) noexcept nogil
