# paths: the names of verified columns as a tree.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.columns cimport columns_t
from splitreel.core.fault cimport fault_t

cdef uint64_t path_size(const columns_t* columns, uint64_t index) noexcept nogil
cdef void fill_path(const columns_t* columns, uint64_t index, uint8_t* destination, uint64_t size) noexcept nogil
# order[name_count]: indexes of names, sorted by the bytes of their paths.
cdef int order_paths(const columns_t* columns, uint32_t* order, fault_t* fault) noexcept nogil
# Name index of a path without a leading slash, or -1.
cdef int64_t find_path(const columns_t* columns, const uint8_t* path, uint64_t size) noexcept nogil
