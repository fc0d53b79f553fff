# spanjoin: one table taken over into another, for devices that are made of others.

from libc.stdint cimport uint32_t, uint64_t

from splitreel.core.fault cimport fault_t
from splitreel.core.spantable cimport span_table_t

cdef struct import_t:                              # a table that was taken over, and where to
    const span_table_t* table                      # borrowed until the last take_spans()
    uint32_t first_source
    uint32_t first_stripe
    uint64_t hidden
    uint64_t bytes

# Sources (with descriptors of their own), stripes and memory of a table; its spans are taken as they are needed.
cdef int join_table(span_table_t* out, const span_table_t* table, import_t* item, fault_t* fault) noexcept nogil
# Appends what stands at an address of a table that was joined.
cdef int take_spans(span_table_t* out, const import_t* item, uint64_t start, uint64_t source, uint64_t size,
                    fault_t* fault) noexcept nogil
# Appends the legs of all tables joined, in their order, behind the spans of the device itself.
cdef int join_legs(span_table_t* out, const import_t* imports, uint32_t count, fault_t* fault) noexcept nogil
