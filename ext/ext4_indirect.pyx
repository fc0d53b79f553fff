"""ext4_indirect turns direct, single, double and triple indirect pointers into extents. It decides nothing about files.

Source: Linux Documentation/filesystems/ext4, "Direct/Indirect Block Addressing"; fs/ext4/indirect.c. Blocks of pointers
bear no checksum and no word of whose they are. What bounds a walk: a pointer must lie inside the file system and not in
its metadata, no block of pointers is met twice, and what would lie behind the end of the file is not followed.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_disk cimport ext4_digest, ext4_load32
from splitreel.core.ext4_groups cimport verify_place
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport FAULT_IO, fault_t
from splitreel.core.sweep cimport append_block, block_list_t, block_ref_t, free_blocks
from splitreel.core.trees cimport add_to_set, merge_owners, tree_t

cdef enum:
    DIRECT = 12                                    # pointers in i_block before the three indirect ones
    POINTER = 4                                    # bytes
    MAX_BLOCKS = 0xFFFFFFFF                        # a logical block number has 32 bits


cdef uint64_t node_span(const ext4_geometry_t* geometry, int level) noexcept nogil:
    """Blocks of a file that one pointer of a node on this level stands for."""
    cdef uint64_t per_node = geometry.block_size // POINTER
    return 1 if level == 0 else per_node if level == 1 else per_node * per_node


cdef uint64_t indirect_reach(const ext4_geometry_t* geometry) noexcept nogil:
    cdef uint64_t per_node = geometry.block_size // POINTER
    return min(DIRECT + per_node + per_node * per_node + per_node * per_node * per_node, <uint64_t>MAX_BLOCKS + 1)


cdef bint has_indirect(const uint8_t* block, uint64_t end) noexcept nogil:
    cdef int level
    for level in range(INDIRECT_LEVELS):
        if ext4_load32(block + (DIRECT + level) * POINTER) != 0:
            return end > DIRECT
    return False


cdef void damage(tree_t* tree, uint64_t offset, const char* text) noexcept nogil:
    """The first of several is the one to be told."""
    if tree.damage == NULL:
        tree.damage = text
        tree.offset = offset


cdef class IndirectTrees:
    """The indirect blocks of the inodes of one piece of inode table after the other. Not for Python."""

    def __dealloc__(self):
        self.reset()

    cdef void reset(self) noexcept nogil:
        cdef int i
        for i in range(INDIRECT_LEVELS):
            free_blocks(&self.roots[i])
        free_blocks(&self.lists[0])
        free_blocks(&self.lists[1])

    cdef void clear(self) noexcept nogil:
        """Ready for another piece of inode table."""
        cdef int i
        for i in range(INDIRECT_LEVELS):
            self.roots[i].count = 0
        self.leaf_state = 0

    cdef int add_node(self, block_list_t* list, uint32_t owner, tree_t* tree, uint32_t block, uint64_t first,
                      fault_t* fault) noexcept nogil:
        """A block of pointers; 0 is a hole as wide as the pointer stands for."""
        cdef const char* text
        cdef int new
        if block == 0 or first >= tree.end:
            return 0
        text = verify_place(self.geometry, block, 1, b"an indirect block lies outside the file system",
                            b"an indirect block lies in the file system's own metadata")
        if text == NULL:
            new = add_to_set(self.seen, block, fault)
            if new < 0:
                return new
            if new > 0:
                return append_block(list, block, 1, owner, <uint32_t>first, 0, fault)
            text = b"an indirect block is used twice"
        damage(tree, <uint64_t>block * self.geometry.block_size, text)
        return 0

    cdef int add_roots(self, uint32_t owner, tree_t* tree, const uint8_t* block, fault_t* fault) noexcept nogil:
        cdef uint64_t first = DIRECT
        cdef int level
        for level in range(INDIRECT_LEVELS):
            if self.add_node(&self.roots[level], owner, tree, ext4_load32(block + (DIRECT + level) * POINTER), first,
                             fault) < 0:
                return fault.code
            first += node_span(self.geometry, level) * (self.geometry.block_size // POINTER)
        return 0

    cdef int add_children(self, block_list_t* list, const block_ref_t* ref, tree_t* tree, const uint8_t* node,
                          int level, fault_t* fault) noexcept nogil:
        cdef uint64_t span = node_span(self.geometry, level)
        cdef uint64_t first = ref.first
        cdef uint32_t i
        for i in range(self.geometry.block_size // POINTER):
            if first >= tree.end:
                break
            if self.add_node(list, ref.owner, tree, ext4_load32(node + i * POINTER), first, fault) < 0:
                return fault.code
            first += span
        return 0

    cdef int read_level(self, tree_t* trees, int level, const block_list_t* nodes, block_list_t* children,
                        fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* node
        cdef tree_t* tree
        cdef int rc
        children.count = 0
        self.sweep.start(nodes)
        while True:
            rc = self.sweep.next(&ref, &node, fault)
            if rc == 0:
                return 0
            if rc < 0 and rc != FAULT_IO:
                return rc
            tree = &trees[ref.owner]
            if rc == FAULT_IO:
                damage(tree, ref.block * self.geometry.block_size, b"an indirect block does not read")
                continue
            tree.digest += ext4_digest(ref.first, node, self.geometry.block_size)
            if self.add_children(children, ref, tree, node, level, fault) < 0:
                return fault.code

    cdef int resolve(self, tree_t* trees, fault_t* fault) noexcept nogil:
        cdef block_list_t* merged = &self.lists[0]
        cdef block_list_t* children = &self.lists[1]
        cdef int level
        children.count = 0
        for level in range(INDIRECT_LEVELS - 1, -1, -1):
            if merge_owners(&self.roots[level], children, merged, fault) < 0:
                return fault.code
            if level > 0 and self.read_level(trees, level, merged, children, fault) < 0:
                return fault.code
        self.sweep.start(merged)
        return self.next_leaf(fault)

    cdef int next_leaf(self, fault_t* fault) noexcept nogil:
        self.leaf_state = self.sweep.next(&self.leaf, &self.leaf_data, fault)
        return self.leaf_state if self.leaf_state < 0 and self.leaf_state != FAULT_IO else 0

    cdef int append_pointers(self, tree_t* tree, const uint8_t* pointers, uint32_t count, uint64_t first,
                             ExtentMap target, fault_t* fault) noexcept nogil:
        """Runs of pointers that rise by one, each an extent; those behind the end of the file are not looked at."""
        cdef uint64_t block
        cdef uint32_t i = 0, run
        cdef const char* text
        count = <uint32_t>min(<uint64_t>count, tree.end - first) if first < tree.end else 0
        while i < count:
            block = ext4_load32(pointers + i * POINTER)
            run = 1
            if block == 0:
                i += 1
                continue
            while i + run < count and ext4_load32(pointers + (i + run) * POINTER) == block + run:
                run += 1
            text = verify_place(self.geometry, block, run, b"a block pointer leads outside the file system",
                                b"a block pointer leads into the file system's own metadata")
            if text != NULL:
                damage(tree, block * self.geometry.block_size, text)
            elif target.append_extent(first + i, block, run, 0, fault) < 0:
                return fault.code
            i += run
        return 0

    cdef int append_blocks(self, uint32_t owner, tree_t* tree, const uint8_t* block, ExtentMap target,
                           fault_t* fault) noexcept nogil:
        """Leaves of owners before this one belong to inodes that were refused after their blocks were read."""
        if self.append_pointers(tree, block, DIRECT, 0, target, fault) < 0:
            return fault.code
        while self.leaf_state != 0 and self.leaf.owner <= owner:
            if self.leaf.owner == owner and self.leaf_state < 0:
                damage(tree, self.leaf.block * self.geometry.block_size, b"an indirect block does not read")
            elif self.leaf.owner == owner:
                tree.digest += ext4_digest(self.leaf.first, self.leaf_data, self.geometry.block_size)
                if self.append_pointers(tree, self.leaf_data, self.geometry.block_size // POINTER, self.leaf.first,
                                        target, fault) < 0:
                    return fault.code
            if self.next_leaf(fault) < 0:
                return fault.code
        return 0
