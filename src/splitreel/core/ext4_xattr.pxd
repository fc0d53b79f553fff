# ext4_xattr: extended attributes from the inode and from a block, verified, ACLs converted, for a heap record.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.fault cimport fault_t
from splitreel.core.heap cimport HeapWriter

# *text: what is wrong with the area, or with single attributes that are left out of it, or NULL.
# area begins behind the magic number; offsets of values count from there.
cdef int add_area(HeapWriter heap, const uint8_t* area, uint32_t size, const char** text,
                  fault_t* fault) noexcept nogil
# Offsets of values count from the block's start.
cdef int add_block(HeapWriter heap, const ext4_geometry_t* geometry, uint64_t block, const uint8_t* data,
                   const char** text, fault_t* fault) noexcept nogil
