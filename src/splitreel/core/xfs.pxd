# Xfs: the reader of XFS file systems. Everything it needs to map is allocated when it is opened.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport ExtentMap, file_t
from splitreel.core.fault cimport fault_t
from splitreel.core.filesystem cimport Filesystem
from splitreel.core.heap cimport HeapWriter
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t
from splitreel.core.trees cimport tree_t
from splitreel.core.xfs_applied cimport XfsApplied
from splitreel.core.xfs_btree cimport XfsTrees, fork_list_t
from splitreel.core.xfs_deferred cimport XfsDeferred
from splitreel.core.xfs_directory cimport XfsWalk
from splitreel.core.xfs_group cimport XfsGroups
from splitreel.core.xfs_inode cimport xfs_fork_area_t
from splitreel.core.xfs_log cimport XfsLog
from splitreel.core.xfs_superblock cimport xfs_geometry_t

cdef struct xfs_slot_t:                            # one inode of a window, as far as it is known
    uint64_t number
    const char* text                               # what is wrong with the inode or its data fork
    const char* attr_text                          # with its attribute fork
    xfs_fork_area_t data, attr
    uint64_t fork                                  # index of the first extent of the attribute fork
    uint32_t fork_count
    int state                                      # inode_state_t

cdef class Xfs(Filesystem):
    # One thread at a time.
    cdef xfs_geometry_t geometry
    cdef uint8_t* superblock                       # its sector as it was when the map was begun
    cdef int trust                                 # xfs_trust_t
    cdef XfsLog log                                # as it was judged; None: nobody looked at it
    cdef Sweep chunk_sweep, block_sweep
    cdef XfsGroups groups
    cdef XfsTrees data_trees, attr_trees
    cdef XfsDeferred deferred
    cdef HeapWriter heap
    cdef XfsWalk directories
    cdef block_list_t blocks
    cdef fork_list_t forks                         # extents of attribute forks
    cdef uint8_t* window                           # inodes in use, copied from where they stand
    cdef xfs_slot_t* slots                         # one for each
    cdef tree_t* data_roots
    cdef tree_t* attr_roots
    cdef uint8_t* scratch                          # an inode
    cdef uint32_t window_count, window_capacity
    cdef int read_superblock(self, uint8_t* sector, fault_t* fault) noexcept nogil
    cdef int open_superblock(self, fault_t* fault) noexcept nogil
    cdef int make_parts(self) except -1
    cdef int log_state(self, XfsLog log, XfsApplied applied, bint external, fault_t* fault) noexcept nogil
    cdef int check_log(self, others) except -1
    cdef int allocate(self, fault_t* fault) noexcept nogil
    cdef void forget(self) noexcept nogil
    cdef int run_passes(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int list_chunks(self, fault_t* fault) noexcept nogil
    cdef int list_chunk(self, uint32_t index, fault_t* fault) noexcept nogil
    cdef int scan_inodes(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int take_inodes(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil
    cdef void read_by_block(self, ExtentMap target, const block_ref_t* ref, uint8_t* data) noexcept nogil
    cdef int close_window(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int examine(self, uint32_t index, fault_t* fault) noexcept nogil
    cdef const char* examine_root(self, XfsTrees trees, uint32_t index, tree_t* tree, const xfs_fork_area_t* area,
                                  fault_t* fault) noexcept nogil
    cdef int take_attr_forks(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int take_attr_fork(self, ExtentMap target, uint32_t index, fault_t* fault) noexcept nogil
    cdef int append_inode(self, ExtentMap target, uint32_t index, fault_t* fault) noexcept nogil
    cdef int append_data(self, ExtentMap target, uint32_t index, fault_t* fault) noexcept nogil
    cdef int append_heap(self, ExtentMap target, uint32_t index, fault_t* fault) noexcept nogil
    cdef int defer_heap(self, ExtentMap target, uint32_t index, bint remote_target, fault_t* fault) noexcept nogil
    cdef bint take_target(self, ExtentMap target, file_t* file, const xfs_fork_area_t* area) noexcept nogil
    cdef void damaged(self, ExtentMap target, uint64_t offset, const char* text) noexcept nogil
