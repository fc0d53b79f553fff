# xfs_group: what allocation groups say: where inodes are, and which blocks more than one file refers to.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t
from splitreel.core.trees cimport block_set_t
from splitreel.core.xfs_btree cimport shared_list_t
from splitreel.core.xfs_superblock cimport xfs_geometry_t

cdef enum:
    XFS_INODES_PER_CHUNK = 64

cdef struct chunk_t:                               # 64 inodes that stand next to each other
    uint64_t first                                 # inode
    uint64_t used                                  # a bit for each, the lowest for the first

cdef struct chunk_list_t:                          # in rising order, not overlapping
    chunk_t* items
    size_t count
    size_t capacity

cdef class XfsGroups:
    # Reads the headers of all groups at once, then their B+trees, a level of all of them at a time. Not for Python.
    cdef const xfs_geometry_t* geometry
    cdef Sweep sweep
    cdef chunk_list_t chunks                       # with inodes in use
    cdef shared_list_t shared
    cdef block_list_t inode_trees, refcount_trees  # roots: owner is the group, limit the level
    cdef block_list_t lists[2]
    cdef block_set_t seen
    cdef uint64_t inodes_left, shared_left         # as many as the file system has room for, no more
    # A group whose header or trees are damaged is a problem on the map: what they alone say is lost.
    cdef int read(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef void reset(self) noexcept nogil

    cdef void damaged(self, ExtentMap target, uint64_t group, uint64_t block, const char* text) noexcept nogil
    cdef int read_headers(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int take_headers(self, ExtentMap target, uint32_t group, const uint8_t* data, fault_t* fault) noexcept nogil
    cdef const char* verify_header(self, const uint8_t* header, uint32_t magic, uint32_t group, uint32_t uuid_offset,
                                   uint32_t crc_offset) noexcept nogil
    cdef int add_root(self, ExtentMap target, block_list_t* list, uint32_t group, uint32_t root, uint32_t level,
                      fault_t* fault) noexcept nogil
    cdef int read_trees(self, ExtentMap target, block_list_t* roots, bint inodes, fault_t* fault) noexcept nogil
    cdef int take_node(self, ExtentMap target, const block_ref_t* ref, const uint8_t* node, bint inodes,
                       block_list_t* children, fault_t* fault) noexcept nogil
    cdef int take_pointers(self, ExtentMap target, const block_ref_t* ref, const uint8_t* pointers, uint32_t count,
                           block_list_t* children, fault_t* fault) noexcept nogil
    cdef int take_chunks(self, ExtentMap target, const block_ref_t* ref, const uint8_t* records, uint32_t count,
                         fault_t* fault) noexcept nogil
    cdef int take_shared(self, ExtentMap target, const block_ref_t* ref, const uint8_t* records, uint32_t count,
                         fault_t* fault) noexcept nogil
    cdef bint chunk_fits(self, uint32_t group, uint64_t first, uint64_t used) noexcept nogil
    cdef void arrange_chunks(self, ExtentMap target) noexcept nogil
    cdef void arrange_shared(self) noexcept nogil
