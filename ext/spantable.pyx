"""spantable says which bytes of which source stand at an offset of a spanned device. It reads no source.

One flat list of stretches, sorted, looked up by halving. A striped stretch is one entry, its stripes are computed: a
volume of 1 TB in stripes of 64 KiB would otherwise take sixteen million.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from splitreel.core.fault cimport FAULT_IO, FAULT_LIMIT, FAULT_NO_MEMORY, fault_t, set_fault, set_os_fault

cdef extern from "<fcntl.h>" nogil:
    int c_open "open"(const char* path, int flags, ...)
    int posix_fadvise(int fd, int64_t offset, int64_t size, int advice)
    const int O_RDONLY, O_CLOEXEC, POSIX_FADV_DONTNEED

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)

cdef enum:
    MOST_SPANS = 1 << 27                           # 3 GiB: a journal of 2^26 blocks, each replacing another
    MOST_STRIPES = 1 << 16
    MOST_LEGS = 1 << 20
    MOST_SOURCES = 1 << 10                         # a process has 1024 descriptors unless it was given more
    LEG_ALIGNMENT = 1 << 16                        # no source has larger blocks

cdef uint64_t MOST_ADDRESS = <uint64_t>1 << 63
cdef const char* BUILDING = "laying out a device"


cdef class SpanTable:
    """Owns a table. Not for use from Python."""

    def __dealloc__(self):
        cdef span_source_t* source
        cdef uint32_t i
        for i in range(self.table.source_count):
            source = &self.table.sources[i]
            if source.fd >= 0:
                c_close(source.fd)
            if source.buffered_fd >= 0:
                c_close(source.buffered_fd)
            free(source.name)
        free(self.table.spans)
        free(self.table.stripes)
        free(self.table.legs)
        free(self.table.sources)
        free(self.table.bytes)


# Looking up.

cdef size_t find_span(const span_table_t* table, uint64_t address) noexcept nogil:
    """The last span that starts at or before an address; the first one starts at 0."""
    cdef size_t low = 0, high = table.count, middle
    while high - low > 1:
        middle = low + (high - low) // 2
        if table.spans[middle].start <= address:
            low = middle
        else:
            high = middle
    return low


cdef uint64_t span_end(const span_table_t* table, size_t index) noexcept nogil:
    return table.spans[index + 1].start if index + 1 < table.count else table.end


cdef void next_piece(const span_table_t* table, uint64_t offset, uint64_t size, span_piece_t* piece) noexcept nogil:
    # It ends: the legs of a stripe stand behind what the stripe is part of, and so do theirs.
    cdef size_t index = find_span(table, offset)
    cdef const span_t* span = &table.spans[index]
    cdef const stripe_t* stripe
    cdef uint64_t at, number
    while True:
        size = min(size, span_end(table, index) - offset)
        at = span.physical + (offset - span.start)
        if span.kind != SPAN_STRIPED:
            break
        stripe = &table.stripes[span.index]
        number = at // stripe.stripe_size
        at %= stripe.stripe_size
        size = min(size, stripe.stripe_size - at)
        offset = (table.legs[stripe.first_leg + number % stripe.leg_count]
                  + number // stripe.leg_count * stripe.stripe_size + at)
        index = find_span(table, offset)
        span = &table.spans[index]
    piece.physical = at
    piece.size = size
    piece.kind = span.kind
    piece.source = span.index
    piece.bytes = table.bytes + at if span.kind == SPAN_MEMORY else NULL


cdef uint64_t stripe_group(const span_table_t* table, uint64_t offset, uint64_t size,
                           uint32_t* leg_count) noexcept nogil:
    cdef size_t index = find_span(table, offset)
    cdef const stripe_t* stripe
    if table.spans[index].kind != SPAN_STRIPED:
        return 0
    stripe = &table.stripes[table.spans[index].index]
    size = min(size, span_end(table, index) - offset)
    if size // stripe.stripe_size <= stripe.leg_count:
        return 0
    leg_count[0] = stripe.leg_count
    return min(size, stripe.stripe_size * stripe.leg_count * (MOST_VECTORS - 1))


cdef uint64_t read_leg(const span_table_t* table, uint64_t offset, uint64_t size, uint32_t leg, uint8_t* destination,
                       iovec* vectors, uint32_t* vector_count, span_piece_t* piece) noexcept nogil:
    cdef size_t index = find_span(table, offset)
    cdef const span_t* span = &table.spans[index]
    cdef const stripe_t* stripe = &table.stripes[span.index]
    cdef uint64_t at = span.physical + (offset - span.start)
    cdef uint64_t first = at // stripe.stripe_size
    cdef uint64_t number = first + (leg + stripe.leg_count - first % stripe.leg_count) % stripe.leg_count
    cdef uint64_t begin = max(number * stripe.stripe_size, at)
    cdef uint64_t address = (table.legs[stripe.first_leg + leg] + number // stripe.leg_count * stripe.stripe_size
                             + (begin - number * stripe.stripe_size))
    cdef uint64_t end, total = 0, mixed = 0
    vector_count[0] = 0
    while begin < at + size:
        end = min((number + 1) * stripe.stripe_size, at + size)
        vectors[vector_count[0]].iov_base = destination + (begin - at)
        vectors[vector_count[0]].iov_len = end - begin
        mixed |= <uint64_t>(destination + (begin - at)) | (end - begin)
        vector_count[0] += 1
        total += end - begin
        number += stripe.leg_count
        begin = number * stripe.stripe_size
    next_piece(table, address, total, piece)
    if piece.kind != SPAN_LINEAR or piece.size != total:
        return 0
    mixed |= piece.physical
    return total if mixed & (table.sources[piece.source].alignment - 1) == 0 else 0


cdef int piece_descriptor(const span_table_t* table, const span_piece_t* piece, const void* destination,
                          uint32_t* alignment) noexcept nogil:
    cdef const span_source_t* source = &table.sources[piece.source]
    if (piece.physical | <uint64_t>destination) & (source.alignment - 1):
        alignment[0] = 1
        return source.buffered_fd
    alignment[0] = source.alignment
    return source.fd


cdef uint64_t hidden_start(const span_table_t* table) noexcept nogil:
    return (table.size + LEG_ALIGNMENT - 1) & ~<uint64_t>(LEG_ALIGNMENT - 1)


# Building.

cdef int reserve_leg(span_table_t* table, uint64_t size, uint64_t* start, fault_t* fault) noexcept nogil:
    cdef uint64_t room = (size + LEG_ALIGNMENT - 1) & ~<uint64_t>(LEG_ALIGNMENT - 1)
    if size > MOST_ADDRESS - LEG_ALIGNMENT or room > MOST_ADDRESS - table.end:
        return set_fault(fault, FAULT_LIMIT, BUILDING, 0, 0, "its stripes need more than 2^63 bytes of addresses")
    start[0] = table.end
    table.end += room
    return 0


cdef int grow(void** items, size_t wanted, fault_t* fault) noexcept nogil:
    cdef void* moved = realloc(items[0], max(wanted, <size_t>1))
    if moved == NULL:
        return set_fault(fault, FAULT_NO_MEMORY, BUILDING, 0, 0, NULL)
    items[0] = moved
    return 0


cdef bint continues(const span_t* last, uint64_t start, uint64_t physical, uint32_t kind,
                    uint32_t index) noexcept nogil:
    if last.kind != kind or last.index != index:
        return False
    return kind == SPAN_ZERO or last.physical + (start - last.start) == physical


cdef int append_span(span_table_t* table, uint64_t start, uint64_t physical, uint32_t kind, uint32_t index,
                     fault_t* fault) noexcept nogil:
    # The one before it reaches up to it, over the gap that may lie between the legs of stripes.
    cdef span_t* span
    if table.count != 0 and continues(&table.spans[table.count - 1], start, physical, kind, index):
        return 0
    if table.count == MOST_SPANS:
        return set_fault(fault, FAULT_LIMIT, BUILDING, 0, start, "it is made of more than 2^27 stretches")
    if table.count == table.capacity:
        if grow(<void**>&table.spans, max(table.capacity * 2, <size_t>16) * sizeof(span_t), fault) < 0:
            return fault.code
        table.capacity = max(table.capacity * 2, <size_t>16)
    span = &table.spans[table.count]
    span.start = start
    span.physical = physical if kind != SPAN_ZERO else 0
    span.kind = kind
    span.index = index
    table.count += 1
    return 0


cdef int append_stripe(span_table_t* table, uint64_t stripe_size, fault_t* fault) noexcept nogil:
    if table.stripe_count == MOST_STRIPES:
        return set_fault(fault, FAULT_LIMIT, BUILDING, 0, 0, "it has more than 65536 striped stretches")
    if grow(<void**>&table.stripes, (table.stripe_count + 1) * sizeof(stripe_t), fault) < 0:
        return fault.code
    table.stripes[table.stripe_count].stripe_size = stripe_size
    table.stripes[table.stripe_count].first_leg = table.leg_count
    table.stripes[table.stripe_count].leg_count = 0
    table.stripe_count += 1
    return 0


cdef int append_leg(span_table_t* table, uint64_t start, fault_t* fault) noexcept nogil:
    if table.leg_count == MOST_LEGS:
        return set_fault(fault, FAULT_LIMIT, BUILDING, 0, 0, "its stripes have more than 2^20 legs")
    if grow(<void**>&table.legs, (table.leg_count + 1) * sizeof(uint64_t), fault) < 0:
        return fault.code
    table.legs[table.leg_count] = start
    table.leg_count += 1
    table.stripes[table.stripe_count - 1].leg_count += 1
    return 0


cdef int append_source(span_table_t* table, const span_source_t* source, fault_t* fault) noexcept nogil:
    if table.source_count == MOST_SOURCES:
        return set_fault(fault, FAULT_LIMIT, BUILDING, 0, 0, "it lies on more than 1024 devices")
    if grow(<void**>&table.sources, (table.source_count + 1) * sizeof(span_source_t), fault) < 0:
        return fault.code
    table.sources[table.source_count] = source[0]
    table.source_count += 1
    return 0


cdef int append_bytes(span_table_t* table, const uint8_t* bytes, size_t size, fault_t* fault) noexcept nogil:
    cdef size_t wanted = table.bytes_size + size
    if size == 0:
        return 0
    if wanted > table.bytes_capacity:
        wanted = max(wanted, table.bytes_capacity * 2)
        if grow(<void**>&table.bytes, wanted, fault) < 0:
            return fault.code
        table.bytes_capacity = wanted
    memcpy(table.bytes + table.bytes_size, bytes, size)
    table.bytes_size += size
    return 0


# Descriptors for what O_DIRECT cannot read.

cdef int reopen_buffered(span_source_t* source, fault_t* fault) noexcept nogil:
    # By its descriptor, not its path: another device may bear that by now.
    cdef char path[64]
    cdef int failed
    if source.alignment == 1 or source.buffered_fd >= 0:
        return 0
    snprintf(path, sizeof(path), "/proc/self/fd/%d", source.fd)
    source.buffered_fd = c_open(path, O_RDONLY | O_CLOEXEC)
    if source.buffered_fd < 0:
        return set_os_fault(fault, FAULT_IO, errno, "opening a device for reads that are not aligned", 0)
    failed = posix_fadvise(source.buffered_fd, 0, 0, POSIX_FADV_DONTNEED)
    if failed != 0:
        return set_os_fault(fault, FAULT_IO, failed, "dropping cached pages", 0)
    return 0


cdef int open_buffered(span_table_t* table, fault_t* fault) noexcept nogil:
    # A stripe that is not aligned may make any leg so: then all sources are opened.
    cdef uint64_t worst = 0
    cdef bint all_sources = False
    cdef const span_t* span
    cdef size_t i
    for i in range(table.source_count):
        worst |= table.sources[i].alignment - 1
    for i in range(table.count):
        span = &table.spans[i]
        if span.kind == SPAN_LINEAR and (span.start | span.physical) & (table.sources[span.index].alignment - 1):
            if reopen_buffered(&table.sources[span.index], fault) < 0:
                return fault.code
        elif (span.kind == SPAN_STRIPED
              and (span.start | span.physical | table.stripes[span.index].stripe_size) & worst):
            all_sources = True
    if all_sources:
        for i in range(table.source_count):
            if reopen_buffered(&table.sources[i], fault) < 0:
                return fault.code
    return 0
