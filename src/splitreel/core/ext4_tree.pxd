# ext4_tree: nodes of extent trees, verified and decoded. Nodes: all tree blocks of the files of one piece of table.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_disk cimport EXT4_MAX_DEPTH
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t

# What is known of an inode before its tree is read. One for each slot of a piece of inode table.
cdef struct tree_t:
    uint64_t digest                                # of the tree blocks seen so far
    uint64_t offset                                # of the block that is damaged, bytes on the device
    const char* damage                             # what is wrong; NULL while nothing is
    uint32_t seed                                  # inode_seed
    uint32_t depth                                 # of the root; 0: extents stand in the inode
    uint64_t end                                   # mapped by indirect blocks: the first block behind the file's end

# Text of what is wrong with the node, or NULL. depth -1: the root, of any depth. Blocks first..last are the node's.
cdef const char* verify_node(const ext4_geometry_t* geometry, const uint8_t* node, uint32_t room, int depth,
                             uint32_t first, uint32_t last) noexcept nogil
cdef int append_leaf(ExtentMap target, const uint8_t* node, fault_t* fault) noexcept nogil

cdef struct block_set_t:                           # block numbers, open addressing; 0 is an empty place
    uint64_t* places
    size_t capacity                                # a power of two
    size_t count

# 1 when the block is new, 0 when it was there, or FAULT_NO_MEMORY.
cdef int add_to_set(block_set_t* blocks, uint64_t block, fault_t* fault) noexcept nogil
# What roots lead to and what nodes of the level above lead to, in the order of their owners; of one owner roots first.
cdef int merge_owners(const block_list_t* own, const block_list_t* above, block_list_t* merged,
                      fault_t* fault) noexcept nogil

cdef class ExtentTrees:
    # Resolves the trees below the roots of many inodes, level by level with a deep queue, until only leaves are left,
    # which come in the order of the inodes.
    cdef const ext4_geometry_t* geometry
    cdef Sweep sweep
    cdef block_list_t roots[EXT4_MAX_DEPTH]        # children of roots, by the level they stand on
    cdef block_list_t lists[2]
    cdef block_set_t seen                          # every tree block of this file system that was met
    cdef const block_ref_t* leaf
    cdef const uint8_t* leaf_data
    cdef int leaf_state
    cdef void clear(self) noexcept nogil
    cdef void reset(self) noexcept nogil           # as new: also the blocks that were met are forgotten
    # The children of a verified root of depth > 0.
    cdef int add_root(self, uint32_t owner, tree_t* tree, const uint8_t* root, fault_t* fault) noexcept nogil
    cdef int add_children(self, block_list_t* list, uint32_t owner, tree_t* tree, const uint8_t* node, uint32_t last,
                          fault_t* fault) noexcept nogil
    # Reads all index nodes and starts on the leaves. trees[owner] collects digests and damage.
    cdef int resolve(self, tree_t* trees, fault_t* fault) noexcept nogil
    cdef int read_level(self, tree_t* trees, int level, const block_list_t* nodes, block_list_t* children,
                        fault_t* fault) noexcept nogil
    cdef const char* check_block(self, const tree_t* tree, const block_ref_t* ref, const uint8_t* node,
                                 int level) noexcept nogil
    cdef int next_leaf(self, fault_t* fault) noexcept nogil
    # Appends the extents of owner's leaves to the file appended last. Owners must come in rising order.
    cdef int append_leaves(self, uint32_t owner, tree_t* tree, ExtentMap target, fault_t* fault) noexcept nogil
