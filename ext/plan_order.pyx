"""plan_order says in which order names go to tape, and where a file larger than a segment is cut. It places nothing."""

from cpython.buffer cimport PyBUF_CONTIG_RO, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from splitreel.core.columns cimport EXTENT_INLINE, EXTENT_UNWRITTEN, columns_t, file_t
from splitreel.core.fault cimport FAULT_NO_MEMORY, fault_t, set_fault
from splitreel.core.runs cimport next_run, open_runs, run_t, runs_t

cdef extern from "<stdlib.h>" nogil:
    void qsort_r(void* base, size_t count, size_t size,
                 int (*compare)(const void*, const void*, void*) noexcept nogil, void* context)

cdef enum:
    TYPE_MASK = 0o170000
    DIRECTORY = 0o040000

cdef struct key_t:
    uint64_t key
    uint32_t rank                                  # in path order: breaks ties
    uint32_t name


cdef int compare_keys(const void* left, const void* right, void* context) noexcept nogil:
    cdef const key_t* a = <const key_t*>left
    cdef const key_t* b = <const key_t*>right
    if a.key != b.key:
        return -1 if a.key < b.key else 1
    return (a.rank > b.rank) - (a.rank < b.rank)


cdef uint64_t sort_key(const columns_t* columns, uint32_t name, bint physical) noexcept nogil:
    """0 for directories, which go first: what lies in them is extracted behind them. Else inode or first block."""
    cdef const file_t* file = &columns.files[columns.names[name].file]
    cdef uint64_t i
    if file.mode & TYPE_MASK == DIRECTORY:
        return 0
    if not physical:
        return file.inode + 1
    for i in range(file.first_extent, file.first_extent + file.extent_count):
        if not columns.extents[i].flags & (EXTENT_UNWRITTEN | EXTENT_INLINE):
            return columns.extents[i].physical + 2
    return 1


cdef int sort_names(const columns_t* columns, uint32_t* order, bint physical, fault_t* fault) noexcept nogil:
    cdef uint64_t i
    cdef key_t* keys = <key_t*>malloc(columns.name_count * sizeof(key_t) + 1)
    if keys == NULL:
        return set_fault(fault, FAULT_NO_MEMORY, b"planning", 0, 0, NULL)
    for i in range(columns.name_count):
        keys[i].key = sort_key(columns, order[i], physical)
        keys[i].rank = <uint32_t>i
        keys[i].name = order[i]
    qsort_r(keys, columns.name_count, sizeof(key_t), compare_keys, NULL)
    for i in range(columns.name_count):
        order[i] = keys[i].name
    free(keys)
    return 0


cdef uint64_t cut_part(const columns_t* columns, const file_t* file, uint64_t start, uint64_t limit) noexcept nogil:
    """End of the part that begins at byte start: where its data reach limit, or the end of the file."""
    cdef runs_t runs
    cdef run_t run
    cdef uint64_t total = 0
    open_runs(&runs, columns, file, start, file.size - start)
    while next_run(&runs, &run):
        if run.size > limit - total:
            return run.logical + (limit - total)
        total += run.size
    return file.size


cdef uint32_t count_parts(const columns_t* columns, const file_t* file, uint64_t limit) noexcept nogil:
    cdef uint64_t at = 0
    cdef uint32_t parts = 0
    while at < file.size:
        at = cut_part(columns, file, at, limit)
        parts += 1
    return parts


cdef int mark_selection(selection, uint8_t* wanted, uint64_t names) except -1:
    cdef Py_buffer view
    cdef const uint32_t* indexes
    cdef Py_ssize_t i
    PyObject_GetBuffer(selection, &view, PyBUF_CONTIG_RO)
    try:
        if view.itemsize != sizeof(uint32_t):
            raise TypeError("a selection is a buffer of uint32 name indexes")
        indexes = <const uint32_t*>view.buf
        for i in range(view.len // <Py_ssize_t>sizeof(uint32_t)):
            if indexes[i] >= names:
                raise IndexError(f"the map has no name {indexes[i]}")
            wanted[indexes[i]] = 1
    finally:
        PyBuffer_Release(&view)
    return 0
