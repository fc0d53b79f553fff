# trees: the extent trees of many files at once, read level by level with a deep queue. Trees: what those of all file
# systems have in common; a reader's own inherits from it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t

cdef enum:
    TREES_MAX_DEPTH = 9                            # levels of index nodes, the root's among them, above the leaves

# What is known of one file before its tree is read, and found while it is.
cdef struct tree_t:
    uint64_t owner                                 # what blocks of this file are known by: an inode, a checksum's seed
    uint64_t digest                                # of the tree blocks seen so far
    uint64_t end                                   # first logical block behind the file, or behind its extents so far
    uint64_t offset                                # of the block that is damaged, bytes on the device
    const char* damage                             # what is wrong; NULL while nothing is
    uint32_t depth                                 # of the root; 0: no blocks
    uint32_t flags                                 # the reader's own

cdef struct block_set_t:                           # block numbers, open addressing; 0 is an empty place
    uint64_t* places
    size_t capacity                                # a power of two
    size_t count

# 1 when the block is new, 0 when it was there, or FAULT_NO_MEMORY. Block 0 cannot be held.
cdef int add_to_set(block_set_t* blocks, uint64_t block, fault_t* fault) noexcept nogil
cdef void free_set(block_set_t* blocks) noexcept nogil
# What roots lead to and what nodes of the level above lead to, in the order of their owners; of one owner roots first.
cdef int merge_owners(const block_list_t* own, const block_list_t* above, block_list_t* merged,
                      fault_t* fault) noexcept nogil

cdef class Trees:
    # Resolves the trees below the roots of many files, level by level, until only leaves are left, which come in the
    # order of the files. Not for Python.
    cdef Sweep sweep
    cdef block_list_t roots[TREES_MAX_DEPTH]       # children of roots, by the level they stand on
    cdef block_list_t lists[2]
    cdef block_set_t seen                          # every tree block of this file system that was met
    cdef const block_ref_t* leaf
    cdef const uint8_t* leaf_data
    cdef int leaf_state
    cdef void clear(self) noexcept nogil           # for other files; blocks that were met stay met
    cdef void reset(self) noexcept nogil           # as new
    # The children of a verified root, tree.depth > 0. Owners must come in rising order.
    cdef int add_root(self, uint32_t owner, tree_t* tree, const uint8_t* root, fault_t* fault) noexcept nogil
    # Reads all index nodes and starts on the leaves. trees[owner] collects digests and damage.
    cdef int resolve(self, tree_t* trees, fault_t* fault) noexcept nogil
    # Takes the leaves of owner. Owners must come in rising order.
    cdef int take_leaves(self, uint32_t owner, tree_t* tree, ExtentMap target, fault_t* fault) noexcept nogil

    # For add_children: one child, with what its own verification needs. 1, or 0: the block was met before, and the tree
    # is damaged; or a fault.
    cdef int add_child(self, block_list_t* list, uint32_t owner, tree_t* tree, uint64_t block, uint32_t first,
                       uint32_t limit, fault_t* fault) noexcept nogil

    # What a file system does in its own way (virtual).
    # Text of what is wrong with a block that came from disk, or NULL.
    cdef const char* verify(self, const tree_t* tree, const block_ref_t* ref, const uint8_t* node,
                            int level) noexcept nogil
    # add_child for each entry of a verified node, until one is refused; ref is NULL for a root.
    cdef int add_children(self, block_list_t* list, uint32_t owner, tree_t* tree, const block_ref_t* ref,
                          const uint8_t* node, fault_t* fault) noexcept nogil
    # The extents of a verified leaf; sets tree.damage when they do not fit those before.
    cdef int take_leaf(self, ExtentMap target, tree_t* tree, const uint8_t* node, fault_t* fault) noexcept nogil

    # Its own.
    cdef int read_level(self, tree_t* trees, int level, const block_list_t* nodes, block_list_t* children,
                        fault_t* fault) noexcept nogil
    cdef const char* check_block(self, tree_t* tree, const block_ref_t* ref, const uint8_t* node, int state,
                                 int level) noexcept nogil
    cdef int next_leaf(self, fault_t* fault) noexcept nogil
