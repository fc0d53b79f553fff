# xfs_deferred: heap records of files whose symlink target or attribute fork stands in blocks that are not read yet.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport ExtentMap, extent_t
from splitreel.core.fault cimport fault_t
from splitreel.core.heap cimport HeapWriter
from splitreel.core.sweep cimport Sweep, block_list_t, block_ref_t
from splitreel.core.xfs_superblock cimport xfs_geometry_t

cdef struct deferred_t:
    uint64_t target                                # in the arena: the target, when it stands in the inode
    uint64_t attrs                                 # in the arena: a local attribute fork
    uint64_t fork                                  # index of the first extent of the attribute fork
    uint64_t target_at                             # in the batch: blocks of the target
    uint64_t fork_at                               # in the batch: blocks of the attribute fork
    uint32_t target_size
    uint32_t attrs_size
    uint32_t fork_count
    uint32_t file
    bint remote_target
    bint unreadable                                # of the batch: a block did not read

cdef class XfsDeferred:
    # Fill during the scan of inodes, files in rising order; then read. Not for Python.
    cdef const xfs_geometry_t* geometry
    cdef Sweep sweep
    cdef HeapWriter heap
    cdef deferred_t* items
    cdef size_t count, capacity
    cdef uint8_t* arena                            # bytes that stood in inodes
    cdef uint64_t arena_size, arena_capacity
    cdef const extent_t* forks                     # extents of attribute forks
    cdef uint8_t* batch
    cdef uint64_t batch_size, batch_capacity
    cdef block_list_t blocks
    cdef uint64_t blocks_left                      # no fork is shared: all of them have no more than the file system
    # Copies what stands in the inode. extent of forks: first and count of the attribute fork, or 0.
    cdef int add(self, const deferred_t* item, const uint8_t* target, const uint8_t* attrs,
                 fault_t* fault) noexcept nogil
    # Reads all forks in disk order, and appends the heap records.
    cdef int read(self, ExtentMap target, const extent_t* forks, fault_t* fault) noexcept nogil
    cdef void reset(self) noexcept nogil
    cdef int keep(self, const uint8_t* data, uint32_t size, uint64_t* offset, fault_t* fault) noexcept nogil
    cdef int list_item(self, ExtentMap target, size_t index, fault_t* fault) noexcept nogil
    cdef int list_target(self, ExtentMap target, size_t index, fault_t* fault) noexcept nogil
    cdef int list_extents(self, size_t index, const extent_t* extents, uint32_t count, uint32_t part, uint64_t* at,
                          fault_t* fault) noexcept nogil
    cdef int read_batch(self, ExtentMap target, fault_t* fault) noexcept nogil
    cdef int finish(self, ExtentMap target, deferred_t* item, fault_t* fault) noexcept nogil
    cdef int finish_target(self, ExtentMap target, const deferred_t* item, uint8_t* buffer) noexcept nogil
    cdef int finish_attrs(self, ExtentMap target, const deferred_t* item, fault_t* fault) noexcept nogil
