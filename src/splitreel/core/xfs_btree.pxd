# xfs_btree: headers of B+tree blocks and the records of bmap trees, verified. XfsTrees: the trees of forks.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.columns cimport extent_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport block_list_t, block_ref_t
from splitreel.core.trees cimport Trees, tree_t
from splitreel.core.xfs_disk cimport xfs_bmbt_rec_t
from splitreel.core.xfs_superblock cimport xfs_geometry_t

cdef enum tree_flag_t:                             # of tree_t.flags
    TREE_SHARING = 1                               # a reflink inode: parts of its extents may be shared

# Blocks of a group that more than one file refers to; in rising order, not adjacent.
cdef struct shared_range_t:
    uint64_t first                                 # linear block
    uint64_t end

cdef struct shared_list_t:
    shared_range_t* items
    size_t count
    size_t capacity

cdef struct fork_list_t:                           # extents of attribute forks
    extent_t* items
    size_t count
    size_t capacity

# Text of what is wrong, or NULL: magic, level, 0 <= records <= what fits; version 5: checksum, place, UUID, owner.
# block: linear. record_size: of a leaf's record, or of key and pointer together.
cdef const char* verify_short_block(const xfs_geometry_t* geometry, const uint8_t* data, uint32_t magic,
                                    uint32_t magic_crc, uint64_t block, uint32_t group, uint32_t level,
                                    uint32_t record_size) noexcept nogil
cdef const char* verify_long_block(const xfs_geometry_t* geometry, const uint8_t* data, uint64_t block, uint64_t owner,
                                   uint32_t level) noexcept nogil
# Records of a fork, in order: text of what is wrong, or NULL. next: the first logical block they may map; moves on.
cdef const char* verify_records(const xfs_geometry_t* geometry, const xfs_bmbt_rec_t* records, uint32_t count,
                                uint64_t* next) noexcept nogil
# The root of a B+tree in the size bytes of a fork.
cdef const char* verify_root(const xfs_geometry_t* geometry, const uint8_t* root, uint32_t size) noexcept nogil
cdef int root_depth(const uint8_t* root) noexcept nogil

cdef class XfsTrees(Trees):
    # B+trees of data forks, whose extents go to the map, or of attribute forks, whose extents go to a list.
    cdef const xfs_geometry_t* geometry
    cdef const shared_list_t* shared
    cdef fork_list_t* fork                         # NULL: of data forks
    cdef uint32_t root_size                        # bytes of the fork whose root is being added
    # Verified records, to the file appended last or to the list.
    cdef int take_records(self, ExtentMap target, const tree_t* tree, const xfs_bmbt_rec_t* records, uint32_t count,
                          fault_t* fault) noexcept nogil
    cdef int append_shared(self, ExtentMap target, uint64_t logical, uint64_t physical, uint64_t count,
                           fault_t* fault) noexcept nogil
    cdef const uint8_t* pointers(self, const uint8_t* node) noexcept nogil
    cdef int append_fork(self, uint64_t logical, uint64_t physical, uint32_t count, fault_t* fault) noexcept nogil
    cdef size_t find_shared(self, uint64_t physical) noexcept nogil
