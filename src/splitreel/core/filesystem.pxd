# filesystem: what every reader of a file system offers, and what it tells of its last map.

from libc.stdint cimport uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t

cdef struct map_counts_t:
    uint64_t inodes, unnamed, directory_blocks, bytes_read, reads
    double seconds[4]                              # groups, inodes and extents, targets and xattrs, names

cdef enum:
    MAP_AGAIN = 1                                  # of map_all: what it took for granted does not hold; call it again

cdef class Filesystem:
    # A reader. Opened on a device; verifies the superblock and refuses unsupported features before all else.
    cdef readonly BlockDevice device
    cdef readonly uint32_t block_size
    cdef readonly object uuid                      # bytes, 16
    cdef readonly object fs_type                   # "ext4"; None: the class's name in lower case
    cdef readonly list warnings
    cdef map_counts_t counts                       # of the last map
    cdef int map_all(self, ExtentMap target, fault_t* fault) noexcept nogil
    # FAULT_STALE_MAP: the device was written to since it was opened or mapped last.
    cdef int check_unchanged(self, fault_t* fault) noexcept nogil

cdef double now() noexcept nogil                   # seconds, of a clock that is never set
