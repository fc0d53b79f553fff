# ext4_values: values of extended attributes that stand in inodes of their own (ea_inode), read into the heap of a map.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.ext4_xattr cimport XattrDecoder, value_t
from splitreel.core.extent cimport ExtentMap, file_t
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport Sweep, block_list_t

cdef struct value_inode_t:                         # beside its place among the files, where it has mode 0
    uint32_t file                                  # index into files
    uint32_t hash                                  # i_atime: of the value
    uint32_t parent                                # i_mtime: in Lustre's form, the inode whose attribute it is
    bint has_xattrs

cdef class ValueReader:
    # keep for every inode with EXT4_EA_INODE_FL, appended to the files with all its extents; read once.
    cdef const ext4_geometry_t* geometry
    cdef Sweep sweep
    cdef XattrDecoder xattrs
    cdef value_inode_t* inodes
    cdef size_t inode_count, inode_capacity
    cdef block_list_t blocks
    cdef void reset(self) noexcept nogil
    # The file appended last holds a value. Until files without a name are left out it stands among them with mode 0,
    # a type that leads nowhere.
    cdef int keep(self, ExtentMap target, const uint8_t* raw, fault_t* fault) noexcept nogil
    # Fills all values in; a value that cannot be had costs its attribute.
    cdef int read(self, ExtentMap target, fault_t* fault) noexcept nogil

    cdef const value_inode_t* find(self, ExtentMap target, uint32_t inode) noexcept nogil
    cdef const char* check(self, ExtentMap target, const value_inode_t* holder, const value_t* value) noexcept nogil
    cdef int list_blocks(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int list_value(self, ExtentMap target, const file_t* file, size_t leader, fault_t* fault) noexcept nogil
    cdef int sweep_blocks(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef void verify(self, ExtentMap target, value_t* value, const value_t* leader) noexcept nogil
    cdef int settle(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int rewrite(self, ExtentMap target, value_t* values, size_t count, fault_t* fault) noexcept nogil
