# ext4_tree: nodes of extent trees, verified and decoded. ExtentTrees: the trees of the files of one piece of table.

from libc.stdint cimport uint8_t, uint32_t

from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.trees cimport Trees

# Text of what is wrong with the node, or NULL. depth -1: the root, of any depth. Blocks first..last are the node's.
cdef const char* verify_node(const ext4_geometry_t* geometry, const uint8_t* node, uint32_t room, int depth,
                             uint32_t first, uint32_t last) noexcept nogil
cdef int append_leaf(ExtentMap target, const uint8_t* node, fault_t* fault) noexcept nogil

cdef class ExtentTrees(Trees):
    # tree_t.owner is inode_seed.
    cdef const ext4_geometry_t* geometry
