# SpanTable: which bytes of which source a device is made of. next_piece() is all that a reader needs of it.
#
# An address below `size` is a byte of the device. Behind it, from `hidden` on, lie the legs of stripes, one after the
# other, so that a striped stretch takes one entry however large it is, and legs may themselves be of any kind.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.fault cimport fault_t

cdef extern from "<sys/uio.h>" nogil:
    ctypedef struct iovec "struct iovec":
        void* iov_base
        size_t iov_len

cdef enum:
    MOST_VECTORS = 64

cdef enum span_kind_t:
    SPAN_LINEAR                                    # of a source, from physical on
    SPAN_ZERO
    SPAN_MEMORY                                    # of bytes, from physical on
    SPAN_STRIPED                                   # of stripes[index]; physical counts from the stripe's begin

cdef struct span_t:
    uint64_t start                                 # it ends where the next one starts
    uint64_t physical
    uint32_t kind
    uint32_t index                                 # of the source or stripe

cdef struct stripe_t:
    uint64_t stripe_size                           # bytes on one leg before the next one's turn
    uint32_t first_leg
    uint32_t leg_count

cdef struct span_source_t:
    uint64_t size
    int fd                                         # O_DIRECT where the source allows it
    int buffered_fd                                # for what is not aligned; -1 when all is
    uint32_t block_size                            # bounces are read in multiples of it
    uint32_t alignment                             # that fd needs of offset, length and memory; 1 when not direct
    char* name

cdef struct span_piece_t:
    uint64_t physical
    uint64_t size
    const uint8_t* bytes                           # of SPAN_MEMORY
    uint32_t kind                                  # any but SPAN_STRIPED
    uint32_t source                                # of SPAN_LINEAR

cdef struct span_table_t:
    uint64_t size                                  # bytes of the device
    uint64_t end                                   # of the addresses; hidden_start() when there are no legs
    span_t* spans
    size_t count
    size_t capacity
    stripe_t* stripes
    uint32_t stripe_count
    uint64_t* legs                                 # addresses at which they start
    uint32_t leg_count
    span_source_t* sources
    uint32_t source_count
    uint8_t* bytes
    size_t bytes_size
    size_t bytes_capacity

cdef class SpanTable:
    # Owns what it points to, descriptors included. Once sealed it never changes: any number of threads may read it.
    cdef span_table_t table

# What stands at offset, at most size bytes of it: one piece, never empty. offset must lie below table.size.
cdef void next_piece(const span_table_t* table, uint64_t offset, uint64_t size, span_piece_t* piece) noexcept nogil
# The descriptor to read a linear piece with into memory with room up to the next multiple of its alignment, and that
# alignment: 1 for one that is not direct.
cdef int piece_descriptor(const span_table_t* table, const span_piece_t* piece, const void* destination,
                          uint32_t* alignment) noexcept nogil
# How many bytes from offset on, at most size, stand in stripes of which a leg holds several in a row: these can be read
# leg by leg, as read_leg says; 0: piece by piece. Never so many that a leg needs more than MOST_VECTORS.
cdef uint64_t stripe_group(const span_table_t* table, uint64_t offset, uint64_t size,
                           uint32_t* leg_count) noexcept nogil
# What one leg holds of a group: a run on one source, to go to memory piece by piece. Returns its bytes; 0 when that leg
# is no single run, or not aligned as its source needs it.
cdef uint64_t read_leg(const span_table_t* table, uint64_t offset, uint64_t size, uint32_t leg, uint8_t* destination,
                       iovec* vectors, uint32_t* vector_count, span_piece_t* piece) noexcept nogil
# The first address of a table at which legs may stand: the same in every table that a span is taken over from or to.
cdef uint64_t hidden_start(const span_table_t* table) noexcept nogil

# For building. A stretch follows the one before it; what continues it is joined to it.
cdef int append_span(span_table_t* table, uint64_t start, uint64_t physical, uint32_t kind, uint32_t index,
                     fault_t* fault) noexcept nogil
cdef size_t find_span(const span_table_t* table, uint64_t address) noexcept nogil
cdef uint64_t span_end(const span_table_t* table, size_t index) noexcept nogil
cdef int append_stripe(span_table_t* table, uint64_t stripe_size, fault_t* fault) noexcept nogil
cdef int append_leg(span_table_t* table, uint64_t start, fault_t* fault) noexcept nogil   # of the last stripe
# Room for a leg, behind all others. Its spans are appended after those of the device, in the order of the legs.
cdef int reserve_leg(span_table_t* table, uint64_t size, uint64_t* start, fault_t* fault) noexcept nogil
cdef int append_source(span_table_t* table, const span_source_t* source, fault_t* fault) noexcept nogil
cdef int append_bytes(span_table_t* table, const uint8_t* bytes, size_t size, fault_t* fault) noexcept nogil
# Opens what is needed for pieces that are not aligned as their source needs it.
cdef int open_buffered(span_table_t* table, fault_t* fault) noexcept nogil
