# Column: a read-only buffer of records over memory that an owner keeps, or over malloc'ed memory of its own.

from libc.stdint cimport uint64_t

# PEP 3118 formats of file_t, extent_t and name_t.
cdef bytes FILE_FORMAT, EXTENT_FORMAT, NAME_FORMAT

cdef class Column:
    cdef void* data
    cdef Py_ssize_t count, itemsize
    cdef bytes format                              # PEP 3118
    cdef object owner                              # None: data is the column's own, freed with it

cdef Column make_column(object owner, void* data, uint64_t count, Py_ssize_t itemsize, bytes format)
