# ext4_records: the heap records of inodes: symlink targets, inline data, extended attributes, wherever they stand.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_directory cimport DirectoryWalk
from splitreel.core.ext4_disk cimport ext4_inode_t
from splitreel.core.ext4_inode cimport inode_area_t
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.ext4_values cimport ValueReader
from splitreel.core.ext4_xattr cimport XattrDecoder
from splitreel.core.extent cimport ExtentMap, file_t
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t

cdef struct pending_t:                             # a file whose record needs a block that is not read yet
    uint64_t xattr_block                           # 0: none
    uint64_t area                                  # in the arena: bytes of the xattrs in its inode
    uint64_t target                                # in the arena: bytes of its target or inline data
    uint32_t area_size
    uint32_t target_size
    uint32_t file
    bint slow_symlink                              # the target stands in the file's first block

cdef class RecordPass:
    # add_inode for every inode in use, then read_blocks once. One map at a time, one thread at a time.
    cdef const ext4_geometry_t* geometry
    cdef Sweep sweep
    cdef XattrDecoder xattrs
    cdef ValueReader values
    cdef DirectoryWalk directories
    cdef block_list_t blocks
    cdef pending_t* pending
    cdef size_t pending_count, pending_capacity
    cdef uint8_t* arena
    cdef uint64_t arena_size, arena_capacity
    cdef uint8_t* room                             # inline data of one file, room_size bytes
    cdef uint32_t room_size
    cdef int prepare(self, const ext4_geometry_t* geometry, fault_t* fault) noexcept nogil
    cdef void reset(self) noexcept nogil           # gives back what one map needed
    # The record of the file appended last, now when all of it stands in the inode, else later. block: of the inode.
    cdef int add_inode(self, ExtentMap target, const uint8_t* raw, int layout, uint64_t block,
                       fault_t* fault) noexcept nogil
    # All records that wait for a block, and the values that stand in inodes of their own.
    cdef int read_blocks(self, ExtentMap target, fault_t* fault) noexcept nogil

    cdef int add_inline(self, ExtentMap target, const ext4_inode_t* inode, const inode_area_t* area, uint64_t block,
                        uint32_t* size, fault_t* fault) noexcept nogil
    cdef int keep_bytes(self, const uint8_t* data, uint32_t size, uint64_t* offset, fault_t* fault) noexcept nogil
    cdef int defer(self, const pending_t* item, const uint8_t* target, const uint8_t* area,
                   fault_t* fault) noexcept nogil
    cdef int list_blocks(self, ExtentMap target, bint targets, fault_t* fault) noexcept nogil
    cdef int sweep_blocks(self, ExtentMap target, bint targets, fault_t* fault) noexcept nogil
    cdef bint has_target_block(self, ExtentMap target, const file_t* file) noexcept nogil
    cdef int take_target(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil
    cdef int take_xattrs(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil
    cdef uint32_t target_length(self, ExtentMap target, file_t* file, const uint8_t* bytes,
                                uint32_t size) noexcept nogil
    cdef int write(self, ExtentMap target, const pending_t* item, const uint8_t* bytes, const uint8_t* area,
                   const uint8_t* data, fault_t* fault) noexcept nogil
    cdef void damaged(self, ExtentMap target, uint32_t file, uint64_t offset, const char* text) noexcept nogil
