# readpool: threads that read; the engine's other way where io_uring is not allowed.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.spantable cimport iovec, span_table_t

cdef enum:
    MOST_DEPTH = 1024

cdef struct request_t:
    uint64_t offset
    uint64_t tag
    uint8_t* destination
    uint32_t size                                  # as asked for
    uint32_t wanted                                # less than size where an image ends inside its last block
    uint32_t done
    uint32_t retries                               # since the last progress
    int os_errno
    # Of a spanned device.
    uint32_t piece                                 # bytes still to come of what is being read,
    uint32_t alignment                             # and where in it a short read may go on
    uint32_t group                                 # bytes behind done that are being read leg by leg; 0: piece by piece
    uint32_t legs_left                             # of the group
    uint32_t single                                # up to here piece by piece, whatever could be read otherwise
    iovec* vectors                                 # room for MOST_VECTORS; NULL: no legs

cdef struct read_step_t:
    uint64_t physical
    uint32_t size                                  # 0: nothing is left to be read
    uint32_t vector_count                          # 0: into one place, behind what is done
    int fd

cdef struct pool_t

# 0 or -errno. The requests are the caller's and stay his; alignment as for pread_full. A table, unless it is NULL, says
# what is read in place of fd, and must outlive the pool.
cdef int pool_open(pool_t** opened, request_t* requests, uint32_t depth, int fd, uint32_t alignment,
                   const span_table_t* table) noexcept nogil
# Starts requests[slot]; at most depth at once.
cdef void pool_push(pool_t* pool, uint32_t slot) noexcept nogil
# Up to capacity slots whose os_errno is set, once there are minimum; that many must be in flight.
cdef uint32_t pool_pop(pool_t* pool, uint32_t* slots, uint32_t capacity, uint32_t minimum) noexcept nogil
# The next read that a request to a spanned device needs. What stands in memory is copied meanwhile. EIO beyond the end.
cdef void next_read(const span_table_t* table, request_t* request, read_step_t* step) noexcept nogil
# What so many bytes of that read mean for the request: EIO where its source ends.
cdef void advance_read(request_t* request, uint32_t got) noexcept nogil
# Finishes what is queued, joins all threads, frees the pool.
cdef void pool_close(pool_t* pool) noexcept nogil
