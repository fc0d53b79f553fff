# xfs_fork: a fork whose blocks are in memory: where each one stands, whether it is what it says of itself, and the
# values and symlink targets that lie in blocks of their own.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport extent_t
from splitreel.core.fault cimport fault_t
from splitreel.core.xfs_names_disk cimport xfs_self_t
from splitreel.core.xfs_superblock cimport xfs_geometry_t

cdef struct xfs_fork_t:
    const xfs_geometry_t* geometry
    const extent_t* extents                        # in order; physical is linear
    const uint8_t* bytes                           # of all their blocks, one extent behind the other
    uint64_t* starts                               # blocks of the extents before each one
    uint64_t owner                                 # inode
    uint64_t block_count
    uint32_t extent_count

cdef int open_fork(xfs_fork_t* fork, const xfs_geometry_t* geometry, uint64_t owner, const extent_t* extents,
                   uint32_t count, const uint8_t* bytes, fault_t* fault) noexcept nogil
cdef void close_fork(xfs_fork_t* fork) noexcept nogil
# A block's bytes and its linear number, or NULL when it is not mapped.
cdef const uint8_t* fork_block(const xfs_fork_t* fork, uint64_t logical, uint64_t* physical) noexcept nogil

# Text of what is wrong with version 5 metadata of size bytes from a linear block on, or NULL: checksum, place, file
# system, owner.
cdef const char* verify_self(const xfs_geometry_t* geometry, const xfs_self_t* at, const uint8_t* data, uint32_t size,
                             uint64_t block, uint64_t owner) noexcept nogil

# The size bytes of an attribute's value that begins at a block of the fork; text of what is wrong, or NULL.
cdef const char* remote_value(const xfs_fork_t* fork, uint64_t logical, uint32_t size, uint8_t* out) noexcept nogil
# The target of a symlink, size bytes, at most XFS_SYMLINK_MAXLEN; bytes are the blocks of its extents one behind the
# other. Text of what is wrong, or NULL; out then holds a target without null bytes.
cdef const char* symlink_target(const xfs_geometry_t* geometry, uint64_t owner, const extent_t* extents,
                                uint32_t count, const uint8_t* bytes, uint32_t size, uint8_t* out) noexcept nogil

# For tests of those who read a fork.
cdef int geometry_of(bytes sector, xfs_geometry_t* geometry) except -1
cdef extent_t* extents_of(list rows, uint64_t block_count) except NULL
