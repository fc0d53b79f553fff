# ext4_indirect: files mapped by direct and indirect blocks. IndirectTrees: all those of one piece of inode table.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t
from splitreel.core.trees cimport block_set_t, tree_t

cdef enum:
    INDIRECT_LEVELS = 3                            # single, double, triple

# Blocks that direct, single, double and triple pointers reach, 2^32 at most: what a file's size is bounded by.
cdef uint64_t indirect_reach(const ext4_geometry_t* geometry) noexcept nogil
# Whether i_block has more than direct pointers for a file of end blocks.
cdef bint has_indirect(const uint8_t* block, uint64_t end) noexcept nogil

cdef class IndirectTrees:
    # As ExtentTrees: all blocks of pointers of many inodes, level by level with a deep queue, until only those are left
    # that point at data, which come in the order of the inodes. ref.first is the logical block a node begins with.
    cdef const ext4_geometry_t* geometry
    cdef Sweep sweep
    cdef block_set_t* seen                         # shared with the extent trees: a block is in one tree, once
    cdef block_list_t roots[INDIRECT_LEVELS]       # what inodes point at, by level: 0 points at data
    cdef block_list_t lists[2]
    cdef const block_ref_t* leaf
    cdef const uint8_t* leaf_data
    cdef int leaf_state
    cdef void clear(self) noexcept nogil
    cdef void reset(self) noexcept nogil
    # The blocks that i_block points at besides data, for a file of tree.end blocks.
    cdef int add_roots(self, uint32_t owner, tree_t* tree, const uint8_t* block, fault_t* fault) noexcept nogil
    cdef int add_node(self, block_list_t* list, uint32_t owner, tree_t* tree, uint32_t block, uint64_t first,
                      fault_t* fault) noexcept nogil
    cdef int add_children(self, block_list_t* list, const block_ref_t* ref, tree_t* tree, const uint8_t* node,
                          int level, fault_t* fault) noexcept nogil
    # Reads all levels but the lowest and starts on that. trees[owner] collects digests and damage.
    cdef int resolve(self, tree_t* trees, fault_t* fault) noexcept nogil
    cdef int read_level(self, tree_t* trees, int level, const block_list_t* nodes, block_list_t* children,
                        fault_t* fault) noexcept nogil
    cdef int next_leaf(self, fault_t* fault) noexcept nogil
    # Appends all blocks of owner's file, to the file appended last. Owners must come in rising order.
    cdef int append_blocks(self, uint32_t owner, tree_t* tree, const uint8_t* block, ExtentMap target,
                           fault_t* fault) noexcept nogil
    cdef int append_pointers(self, tree_t* tree, const uint8_t* pointers, uint32_t count, uint64_t first,
                             ExtentMap target, fault_t* fault) noexcept nogil
