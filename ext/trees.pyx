"""trees reads the extent trees of many files at once, a level at a time. It parses no node itself.

Depth falls by one at each level, and no block is met twice, so that a walk ends; each level is one list of blocks with
many reads in flight.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport FAULT_IO, FAULT_MISUSE, FAULT_NO_MEMORY, fault_t, set_fault
from splitreel.core.sweep cimport append_block, block_list_t, block_ref_t, free_blocks

cdef extern from "digest.h" nogil:
    uint64_t digest_records(uint64_t seed, const uint8_t* data, size_t size)


# A set of blocks.

cdef bint place_block(block_set_t* blocks, uint64_t block) noexcept nogil:
    """False when it is there already. The set has an empty place."""
    cdef size_t at = <size_t>(block * 0x9E3779B97F4A7C15u >> 20) & (blocks.capacity - 1)
    while blocks.places[at] != 0:
        if blocks.places[at] == block:
            return False
        at = (at + 1) & (blocks.capacity - 1)
    blocks.places[at] = block
    return True


cdef int add_to_set(block_set_t* blocks, uint64_t block, fault_t* fault) noexcept nogil:
    cdef block_set_t larger
    cdef size_t i
    if blocks.count * 2 >= blocks.capacity:
        larger.capacity = blocks.capacity * 2 if blocks.capacity else <size_t>1024
        larger.count = blocks.count
        larger.places = <uint64_t*>calloc(larger.capacity, sizeof(uint64_t))
        if larger.places == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"reading extent trees", 0, 0, NULL)
        for i in range(blocks.capacity):
            if blocks.places[i] != 0:
                place_block(&larger, blocks.places[i])
        free(blocks.places)
        blocks[0] = larger
    if not place_block(blocks, block):
        return 0
    blocks.count += 1
    return 1


cdef void free_set(block_set_t* blocks) noexcept nogil:
    free(blocks.places)
    memset(blocks, 0, sizeof(block_set_t))


cdef int merge_owners(const block_list_t* own, const block_list_t* above, block_list_t* merged,
                      fault_t* fault) noexcept nogil:
    cdef const block_ref_t* ref
    cdef size_t i = 0, j = 0
    merged.count = 0
    while i < own.count or j < above.count:
        if j == above.count or (i < own.count and own.items[i].owner <= above.items[j].owner):
            ref = &own.items[i]
            i += 1
        else:
            ref = &above.items[j]
            j += 1
        if append_block(merged, ref.block, ref.count, ref.owner, ref.first, ref.limit, fault) < 0:
            return fault.code
    return 0


# Trees.

cdef class Trees:
    """The trees of the files of one piece of inodes after the other. Not for Python."""

    def __dealloc__(self):
        self.reset()

    cdef void reset(self) noexcept nogil:
        cdef int i
        for i in range(TREES_MAX_DEPTH):
            free_blocks(&self.roots[i])
        free_blocks(&self.lists[0])
        free_blocks(&self.lists[1])
        free_set(&self.seen)
        self.leaf_state = 0

    cdef void clear(self) noexcept nogil:
        cdef int i
        for i in range(TREES_MAX_DEPTH):
            self.roots[i].count = 0
        self.leaf_state = 0

    # What a file system does in its own way.

    cdef const char* verify(self, const tree_t* tree, const block_ref_t* ref, const uint8_t* node,
                            int level) noexcept nogil:
        return b"the base class reads nothing"

    cdef int add_children(self, block_list_t* list, uint32_t owner, tree_t* tree, const block_ref_t* ref,
                          const uint8_t* node, fault_t* fault) noexcept nogil:
        return set_fault(fault, FAULT_MISUSE, b"reading extent trees", 0, 0, b"the base class reads nothing")

    cdef int take_leaf(self, ExtentMap target, tree_t* tree, const uint8_t* node, fault_t* fault) noexcept nogil:
        return set_fault(fault, FAULT_MISUSE, b"reading extent trees", 0, 0, b"the base class reads nothing")

    # Index nodes.

    cdef int add_root(self, uint32_t owner, tree_t* tree, const uint8_t* root, fault_t* fault) noexcept nogil:
        return self.add_children(&self.roots[tree.depth - 1], owner, tree, NULL, root, fault)

    cdef int add_child(self, block_list_t* list, uint32_t owner, tree_t* tree, uint64_t block, uint32_t first,
                       uint32_t limit, fault_t* fault) noexcept nogil:
        cdef int new = add_to_set(&self.seen, block, fault)
        if new < 0:
            return new
        if new == 0:
            tree.damage = b"a block of its extent tree is used twice"
            tree.offset = block * self.sweep.block_size
            return 0
        return 1 if append_block(list, block, 1, owner, first, limit, fault) >= 0 else fault.code

    cdef const char* check_block(self, tree_t* tree, const block_ref_t* ref, const uint8_t* node, int state,
                                 int level) noexcept nogil:
        """A block as it came: its damage becomes its tree's, or it is counted among what was read."""
        cdef const char* text = b"a block of its extent tree does not read"
        if state > 0:
            text = self.verify(tree, ref, node, level)
        if text != NULL:
            tree.damage = text
            tree.offset = ref.block * self.sweep.block_size
        else:
            tree.digest += digest_records(ref.first, node, self.sweep.block_size)
        return text

    cdef int read_level(self, tree_t* trees, int level, const block_list_t* nodes, block_list_t* children,
                        fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* node
        cdef int rc
        children.count = 0
        self.sweep.start(nodes)
        while True:
            rc = self.sweep.next(&ref, &node, fault)
            if rc == 0:
                return 0
            if rc < 0 and rc != FAULT_IO:
                return rc
            if self.check_block(&trees[ref.owner], ref, node, rc, level) != NULL:
                continue
            if self.add_children(children, ref.owner, &trees[ref.owner], ref, node, fault) < 0:
                return fault.code

    cdef int resolve(self, tree_t* trees, fault_t* fault) noexcept nogil:
        cdef block_list_t* merged = &self.lists[0]
        cdef block_list_t* children = &self.lists[1]
        cdef int level
        children.count = 0
        for level in range(TREES_MAX_DEPTH - 1, -1, -1):
            if merge_owners(&self.roots[level], children, merged, fault) < 0:
                return fault.code
            if level > 0 and merged.count > 0 and self.read_level(trees, level, merged, children, fault) < 0:
                return fault.code
            if merged.count == 0:
                children.count = 0
        self.sweep.start(merged)
        return self.next_leaf(fault)

    # Leaves.

    cdef int next_leaf(self, fault_t* fault) noexcept nogil:
        self.leaf_state = self.sweep.next(&self.leaf, &self.leaf_data, fault)
        return self.leaf_state if self.leaf_state < 0 and self.leaf_state != FAULT_IO else 0

    cdef int take_leaves(self, uint32_t owner, tree_t* tree, ExtentMap target, fault_t* fault) noexcept nogil:
        """Leaves of owners before this one belong to inodes that were refused after their trees were read."""
        while self.leaf_state != 0 and self.leaf.owner < owner:
            if self.next_leaf(fault) < 0:
                return fault.code
        while self.leaf_state != 0 and self.leaf.owner == owner:
            if self.check_block(tree, self.leaf, self.leaf_data, self.leaf_state, 0) == NULL:
                if self.take_leaf(target, tree, self.leaf_data, fault) < 0:
                    return fault.code
            if self.next_leaf(fault) < 0:
                return fault.code
        return 0
