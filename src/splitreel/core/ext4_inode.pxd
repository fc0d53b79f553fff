# ext4_inode: one inode, verified and decoded into a file_t.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.ext4_disk cimport ext4_inode_t
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport file_t

cdef enum inode_layout_t:
    LAYOUT_NONE = 0                                # no blocks: devices, sockets, fast symlinks
    LAYOUT_FAST_SYMLINK = 1
    LAYOUT_INLINE = 2
    LAYOUT_EXTENTS = 3
    LAYOUT_INDIRECT = 4

cdef struct inode_area_t:                          # where xattrs stand inside the inode; size 0: none
    const uint8_t* bytes
    uint32_t size

cdef bint known_type(uint16_t mode) noexcept nogil
cdef bint inode_in_use(const ext4_geometry_t* geometry, uint32_t number, const ext4_inode_t* raw) noexcept nogil
# scratch: inode_size bytes. Text of what is wrong, or NULL.
cdef const char* verify_inode(const ext4_geometry_t* geometry, uint32_t number, const uint8_t* raw,
                              uint8_t* scratch) noexcept nogil
# All fields but extents and heap. scratch as verify_inode left it.
cdef void decode_inode(const ext4_geometry_t* geometry, uint32_t number, const uint8_t* raw, uint8_t* scratch,
                       file_t* out) noexcept nogil
cdef uint64_t inode_size(const ext4_geometry_t* geometry, const ext4_inode_t* raw) noexcept nogil
# LAYOUT_…, or -1 with the reason in *text.
cdef int inode_layout(const ext4_geometry_t* geometry, const ext4_inode_t* raw, uint64_t size,
                      const char** text) noexcept nogil
# Bytes that a file of this layout can have; 0: the layout sets no bound.
cdef uint64_t layout_reach(const ext4_geometry_t* geometry, int layout) noexcept nogil
cdef inode_area_t inode_xattrs(const ext4_geometry_t* geometry, const uint8_t* raw) noexcept nogil
cdef uint64_t inode_xattr_block(const ext4_geometry_t* geometry, const ext4_inode_t* raw) noexcept nogil
# A finished CRC32C over seed, inode and generation: what every block of this inode is checksummed with.
cdef uint32_t inode_seed(const ext4_geometry_t* geometry, uint32_t number, uint32_t generation) noexcept nogil
