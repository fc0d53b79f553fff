# ExtentMap: the files of one file system at one instant, as columns.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.fault cimport fault_t
from splitreel.core.mapfile cimport section_t

# The records and flags of the columns, and packed times: cimport them from here.
from splitreel.core.columns cimport (
    EXTENT_INLINE,
    EXTENT_SHARED,
    EXTENT_UNWRITTEN,
    FILE_DAMAGED,
    FILE_INLINE,
    FILE_TARGET,
    FILE_XATTRS,
    columns_t,
    extent_flag_t,
    extent_t,
    file_flag_t,
    file_t,
    name_t,
    pack_time,
    time_nanoseconds,
    time_seconds,
)

# What a reader found wrong, and went on past.
cdef struct problem_t:
    uint64_t inode
    uint64_t offset                                # bytes on the device
    char text[112]

cdef class ExtentMap:
    # Owns its arrays; grows by doubling to a declared cap, then faults. Sealed: sorted, read-only. One thread at a time
    # while it is filled; any number of readers once sealed.
    cdef file_t* files
    cdef extent_t* extents
    cdef name_t* names
    cdef uint8_t* name_heap
    cdef uint8_t* heap
    cdef problem_t* problems
    cdef readonly uint64_t file_count, extent_count, name_count, name_heap_size, heap_size, problem_count
    cdef uint64_t file_capacity, extent_capacity, name_capacity, name_heap_capacity, heap_capacity, problem_capacity
    cdef readonly uint32_t block_size              # bytes
    cdef readonly uint64_t device_size             # bytes
    cdef readonly bint sealed
    cdef readonly object fs_type                   # "ext4"
    cdef uint8_t uuid[16]
    cdef int views                                 # unused: a column keeps its map alive, and a sealed map never moves
    cdef object mapping                            # the mmap of a loaded map, or None
    cdef uint64_t problem_stored                   # of problem_count, how many stand in problems
    cdef bint in_order                             # files were appended in the order of their inodes

    # Caps: 2^32 - 2 files, extents and names, 2^32 - 1 bytes of names, 64 GiB of heap: FAULT_LIMIT beyond.
    # append_file sets first_extent and extent_count itself.
    cdef int append_file(self, const file_t* file, fault_t* fault) noexcept nogil      # index is file_count - 1 after
    cdef int append_extent(self, uint64_t logical, uint64_t physical, uint32_t count, uint32_t flags,
                           fault_t* fault) noexcept nogil    # to the last appended file; merges with the one before
    cdef int append_name(self, uint32_t parent, uint32_t file, const uint8_t* name, uint32_t size,
                         fault_t* fault) noexcept nogil
    cdef int append_heap(self, const void* data, uint64_t size, uint64_t* offset, fault_t* fault) noexcept nogil
    cdef void append_problem(self, uint64_t inode, uint64_t offset, const char* text) noexcept nogil  # bounded
    # Sorts files by inode, arranges extents and heap in file order, merges, moves the root to name 0, verifies all.
    cdef int seal(self, fault_t* fault) noexcept nogil
    # Index into files, or -1. Also before seal: in log time while files were appended in the order of their inodes.
    cdef int64_t find_inode(self, uint64_t inode) noexcept nogil
    # Path of names[index] without a leading slash, root empty; returns its length, or -1 when it exceeds capacity.
    # Sealed maps only.
    cdef int64_t path(self, uint64_t index, uint8_t* destination, size_t capacity) noexcept nogil
    cdef uint64_t path_size(self, uint64_t index) noexcept nogil
    cdef columns_t columns(self) noexcept nogil    # the arrays, borrowed
    cdef list sections(self)                       # of a saved map, as Columns
    cdef bytes uuid_bytes(self)
    cdef int adopt(self, const section_t* sections, uint64_t problem_count) except -1
    cdef int need_sealed(self) except -1
    cdef int need_index(self, int64_t index, uint64_t count) except -1
