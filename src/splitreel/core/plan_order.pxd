# plan_order: the order of names, and the parts of files.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.columns cimport columns_t, file_t
from splitreel.core.fault cimport fault_t

# Puts names that stand in path order into the order of inodes or first blocks, directories first.
cdef int sort_names(const columns_t* columns, uint32_t* order, bint physical, fault_t* fault) noexcept nogil
# End of the part that begins at byte start: where its data reach limit bytes, or the end of the file.
cdef uint64_t cut_part(const columns_t* columns, const file_t* file, uint64_t start, uint64_t limit) noexcept nogil
cdef uint32_t count_parts(const columns_t* columns, const file_t* file, uint64_t limit) noexcept nogil
# Sets the flag of each name that a buffer of uint32 indexes holds.
cdef int mark_selection(selection, uint8_t* wanted, uint64_t names) except -1
