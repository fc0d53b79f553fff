# xfs_inode: one inode, verified and decoded into a file_t; where its forks are.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport file_t
from splitreel.core.xfs_disk cimport xfs_dinode_t
from splitreel.core.xfs_superblock cimport xfs_geometry_t

cdef enum fork_layout_t:
    FORK_NONE = 0                                  # no fork, or nothing in it
    FORK_LOCAL = 1
    FORK_EXTENTS = 2
    FORK_BTREE = 3

cdef struct xfs_fork_area_t:                       # a fork in its inode
    int layout                                     # fork_layout_t
    const uint8_t* bytes
    uint32_t size                                  # bytes of room
    uint32_t count                                 # of extents in it; only of FORK_EXTENTS

cdef enum inode_state_t:
    INODE_FREE = 0
    INODE_FILE = 1
    INODE_BAD = 2                                  # no inode at all: nothing of it can be told

# By its own word; hidden inodes and those without links are free.
cdef int inode_state(const xfs_geometry_t* geometry, uint64_t number, const xfs_dinode_t* raw) noexcept nogil
# Text of what is wrong, or NULL. Checksum, number, UUID, version, type.
cdef const char* verify_inode(const xfs_geometry_t* geometry, uint64_t number, const uint8_t* raw) noexcept nogil
# All fields but extents and heap. scratch: inode_size bytes.
cdef void decode_inode(const xfs_geometry_t* geometry, uint64_t number, const uint8_t* raw, uint8_t* scratch,
                       file_t* out) noexcept nogil
# Of a verified inode. Text of what is wrong, or NULL; what stands in the area is not verified yet.
cdef const char* data_fork(const xfs_geometry_t* geometry, const uint8_t* raw, xfs_fork_area_t* area) noexcept nogil
cdef const char* attr_fork_area(const xfs_geometry_t* geometry, const uint8_t* raw,
                                xfs_fork_area_t* area) noexcept nogil
cdef bint is_reflink(const uint8_t* raw) noexcept nogil
cdef bint known_type(uint32_t mode) noexcept nogil
