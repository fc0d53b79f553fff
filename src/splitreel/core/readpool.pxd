# readpool: threads that read; the engine's other way where io_uring is not allowed.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.spantable cimport span_table_t

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
    uint32_t piece                                 # of a spanned device: bytes still to come of the piece being read,
    uint32_t alignment                             # and where in it a short read may go on

cdef struct pool_t

# 0 or -errno. The requests are the caller's and stay his; alignment as for pread_full. A table, unless it is NULL, says
# what is read in place of fd, and must outlive the pool.
cdef int pool_open(pool_t** opened, request_t* requests, uint32_t depth, int fd, uint32_t alignment,
                   const span_table_t* table) noexcept nogil
# Starts requests[slot]; at most depth at once.
cdef void pool_push(pool_t* pool, uint32_t slot) noexcept nogil
# Up to capacity slots whose os_errno is set, once there are minimum; that many must be in flight.
cdef uint32_t pool_pop(pool_t* pool, uint32_t* slots, uint32_t capacity, uint32_t minimum) noexcept nogil
# The next read that a request to a spanned device needs: how many bytes, of which descriptor, from where; 0 when nothing
# is left. What stands in memory is copied, and piece and alignment of the request set. EIO beyond the end.
cdef uint32_t next_read(const span_table_t* table, request_t* request, int* fd, uint64_t* physical) noexcept nogil
# Finishes what is queued, joins all threads, frees the pool.
cdef void pool_close(pool_t* pool) noexcept nogil
