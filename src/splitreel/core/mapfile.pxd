# mapfile: the bytes of a saved extent map. Layout: see mapfile.pyx.

from libc.stdint cimport uint64_t

cdef struct section_t:
    void* data                                     # inside the mapping
    uint64_t count                                 # records

cdef enum:
    SECTION_COUNT = 6                              # files, extents, names, name heap, heap, problems

# columns: SECTION_COUNT Columns. identity: (fs_type, uuid, block_size, device_size, problem_count).
cdef object write_map(object path, tuple identity, list columns)
# Fills sections, whose record sizes must be those given; returns (identity, the object that keeps the memory mapped).
cdef tuple read_map(object path, tuple record_sizes, section_t* sections)
cdef bytes digest_columns(list columns)
