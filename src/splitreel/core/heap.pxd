# heap: the heap record of one file at a time: symlink target (or inline data) and extended attributes, sorted.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.extent cimport ExtentMap, file_t
from splitreel.core.fault cimport fault_t

cdef struct attr_t:
    uint64_t at                                    # in memory, where it stands as it will in the record
    uint64_t place                                 # of its value in the map's heap after finish; 0: left out
    uint32_t size
    uint32_t source
    uint32_t tag                                   # the caller's own, 0 unless set

cdef class HeapWriter:
    # begin, set_target, add... in any order, finish. Names and values are copied: what they point to may go away.
    # One thread at a time; memory grows to the largest record and is kept.
    cdef attr_t* attrs
    cdef uint64_t attr_capacity
    cdef uint8_t* memory
    cdef uint64_t used, capacity
    cdef const uint8_t* target
    cdef uint32_t target_size
    cdef bint too_large                            # attributes of more than 256 MiB: none of them is kept
    cdef readonly uint32_t attr_count
    cdef void begin(self) noexcept nogil
    # Borrowed until finish.
    cdef void set_target(self, const uint8_t* bytes, uint32_t size) noexcept nogil
    # prefix: "user." ...; of two attributes with one full name the one with the lower source is kept.
    cdef int add(self, const char* prefix, const uint8_t* name, uint32_t name_size, const uint8_t* value,
                 uint32_t value_size, uint32_t source, fault_t* fault) noexcept nogil
    # As add, but the value_size bytes are for the caller to fill before the next call.
    cdef int add_room(self, const char* prefix, const uint8_t* name, uint32_t name_size, uint32_t value_size,
                      uint32_t source, uint8_t** room, fault_t* fault) noexcept nogil
    # Tags the attribute added last, so that it can be found among attrs after finish has sorted them.
    cdef void tag(self, uint32_t tag) noexcept nogil
    # Forget all but the first count attributes: of an area that turns out to be bad nothing is kept.
    cdef void keep_first(self, uint32_t count) noexcept nogil
    # Appends the record and sets heap_offset, heap_size and flags of the file; nothing when there is nothing. The
    # record of a regular file with FILE_INLINE holds its data for a target.
    cdef int finish(self, ExtentMap target, file_t* file, fault_t* fault) noexcept nogil
    cdef int append(self, ExtentMap target, const void* data, uint32_t size, file_t* file,
                    fault_t* fault) noexcept nogil
