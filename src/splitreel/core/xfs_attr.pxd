# xfs_attr: extended attributes of XFS, from the inode or from the blocks of its attribute fork, into a heap record.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport extent_t
from splitreel.core.fault cimport fault_t
from splitreel.core.heap cimport HeapWriter
from splitreel.core.xfs_fork cimport xfs_fork_t
from splitreel.core.xfs_superblock cimport xfs_geometry_t

# Both add what they find to a heap record that was begun and return the text of what is wrong, or NULL. What is wrong
# with one attribute (its value, its namespace, an ACL) costs this one; with a block, or an attribute fork in an inode,
# all that stands in it, and the leaves behind it. fault.code: 0, or below 0 for want of memory, and then the text is
# NULL.

# fork: size bytes of an attribute fork in local format.
cdef const char* attr_shortform(HeapWriter heap, const uint8_t* fork, uint32_t size, fault_t* fault) noexcept nogil
# The fork's extents in order, logical in blocks of the fork, physical linear; bytes: of all their blocks, one extent
# behind the other.
cdef const char* attr_fork(HeapWriter heap, const xfs_geometry_t* geometry, uint64_t owner, const extent_t* extents,
                           uint32_t count, const uint8_t* bytes, fault_t* fault) noexcept nogil

# What a reading of one fork needs beside its blocks.
cdef struct attr_reader_t:
    xfs_fork_t fork
    uint8_t* value                                 # XFS_XATTR_SIZE_MAX bytes, once a remote one was met
    uint64_t room                                  # bytes of names and values that the fork can still hold
