"""spanjoin takes the table of one device over into that of another, descriptors included. It reads neither."""

from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport strdup

from splitreel.core.fault cimport FAULT_IO, FAULT_NO_MEMORY, fault_t, set_fault, set_os_fault
from splitreel.core.spantable cimport (
    SPAN_LINEAR, SPAN_MEMORY, SPAN_STRIPED, append_bytes, append_leg, append_source, append_span, append_stripe,
    find_span, hidden_start, reserve_leg, span_end, span_source_t, span_t, span_table_t, stripe_t,
)

cdef extern from "<fcntl.h>" nogil:
    int fcntl(int fd, int command, ...)
    const int F_DUPFD_CLOEXEC

cdef const char* BUILDING = "laying out a device"


cdef int copy_source(span_table_t* out, const span_source_t* source, fault_t* fault) noexcept nogil:
    # In the table before it has descriptors, so that these are given back whatever happens.
    cdef span_source_t copied = source[0]
    copied.fd = copied.buffered_fd = -1
    copied.name = NULL
    if append_source(out, &copied, fault) < 0:
        return fault.code
    out.sources[out.source_count - 1].name = strdup(source.name)
    if out.sources[out.source_count - 1].name == NULL:
        return set_fault(fault, FAULT_NO_MEMORY, BUILDING, 0, 0, NULL)
    out.sources[out.source_count - 1].fd = fcntl(source.fd, F_DUPFD_CLOEXEC, 0)
    if out.sources[out.source_count - 1].fd < 0:
        return set_os_fault(fault, FAULT_IO, errno, "opening a source of a device", 0)
    return 0


cdef int copy_stripes(span_table_t* out, const span_table_t* table, uint64_t shift, fault_t* fault) noexcept nogil:
    cdef const stripe_t* stripe
    cdef uint32_t i, k
    for i in range(table.stripe_count):
        stripe = &table.stripes[i]
        if append_stripe(out, stripe.stripe_size, fault) < 0:
            return fault.code
        for k in range(stripe.leg_count):
            if append_leg(out, table.legs[stripe.first_leg + k] + shift, fault) < 0:
                return fault.code
    return 0


cdef int take_spans(span_table_t* out, const import_t* item, uint64_t start, uint64_t source, uint64_t size,
                    fault_t* fault) noexcept nogil:
    """Appends what stands at an address of an imported table."""
    cdef const span_table_t* table = item.table
    cdef const span_t* span
    cdef size_t index = find_span(table, source)
    cdef uint64_t part, physical
    cdef uint32_t number
    while size > 0:
        span = &table.spans[index]
        part = min(size, span_end(table, index) - source)
        physical = span.physical + (source - span.start)
        number = span.index
        if span.kind == SPAN_LINEAR:
            number += item.first_source
        elif span.kind == SPAN_STRIPED:
            number += item.first_stripe
        elif span.kind == SPAN_MEMORY:
            physical += item.bytes
        if append_span(out, start, physical, span.kind, number, fault) < 0:
            return fault.code
        start += part
        source += part
        size -= part
        index += 1
    return 0


cdef int join_table(span_table_t* out, const span_table_t* table, import_t* item, fault_t* fault) noexcept nogil:
    cdef uint32_t i
    item.table = table
    item.first_source = out.source_count
    item.first_stripe = out.stripe_count
    item.bytes = out.bytes_size
    for i in range(table.source_count):
        if copy_source(out, &table.sources[i], fault) < 0:
            return fault.code
    if (reserve_leg(out, table.end - hidden_start(table), &item.hidden, fault) < 0
            or copy_stripes(out, table, item.hidden - hidden_start(table), fault) < 0
            or append_bytes(out, table.bytes, table.bytes_size, fault) < 0):
        return fault.code
    return 0


cdef int join_legs(span_table_t* out, const import_t* imports, uint32_t count, fault_t* fault) noexcept nogil:
    cdef const import_t* item
    cdef uint64_t first
    cdef uint32_t i
    for i in range(count):
        item = &imports[i]
        first = hidden_start(item.table)
        if take_spans(out, item, item.hidden, first, item.table.end - first, fault) < 0:
            return fault.code
    return 0
