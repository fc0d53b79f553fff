# ReadEngine: many reads of one device in flight. io_uring where the kernel allows it, else threads; chosen at run time.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport AlignedBuffer, BlockDevice
from splitreel.core.fault cimport fault_t
from splitreel.core.readpool cimport pool_t, request_t
from splitreel.core.spantable cimport SpanTable, iovec, span_table_t

cdef struct read_completion_t:
    uint64_t tag
    int os_errno                                   # 0, or why the read failed; short reads are finished inside

cdef class ReadEngine:
    # One thread at a time. Memory given to submit() must stay valid until its completion is reaped or close() returned.
    cdef readonly object name                      # "io_uring" or "threads"
    cdef readonly uint32_t depth
    cdef readonly uint32_t in_flight
    # Aligned to the device's logical block size in offset, size and memory. Needs in_flight < depth. size <= 1 GiB.
    # The last block of an image may end early: the rest of the destination is zeroed. Beyond the end: EIO when reaped.
    cdef int submit(self, uint64_t offset, uint8_t* destination, uint32_t size, uint64_t tag,
                    fault_t* fault) noexcept nogil
    cdef int flush(self, fault_t* fault) noexcept nogil        # hand what was submitted to the kernel
    # Up to capacity completions into out; waits for at least `minimum` of them, or for all in flight if fewer.
    # Flushes. Returns their count, or a fault.
    cdef int reap(self, read_completion_t* out, uint32_t capacity, uint32_t minimum, fault_t* fault) noexcept nogil
    cdef void drain(self) noexcept nogil                       # wait for all in flight, forget their results

    # The rest is the engine's own.
    cdef bint is_open
    cdef int fd                                    # a duplicate: the device may be closed first; -1 with a table
    cdef SpanTable spans                           # likewise: its table outlives the device
    cdef const span_table_t* table                 # NULL unless the device is made of stretches of others
    cdef int owner                                 # process that opened it: a forked child has no threads and no reads
    cdef uint64_t device_size
    cdef uint32_t block_size
    cdef uint32_t alignment                        # of where a short read may go on; 1 when not direct
    cdef request_t* requests
    cdef uint32_t* free_slots
    cdef iovec* vectors                            # MOST_VECTORS for each request to a device in stripes; else NULL
    cdef uint32_t free_count
    cdef void* uring                               # one of these two is set
    cdef pool_t* pool
    cdef object held                               # Python objects whose memory is being read into
    cdef int start(self, BlockDevice device, int try_uring, int try_threads, fault_t* fault) noexcept nogil
    cdef int start_uring(self) noexcept nogil
    cdef int check(self, uint64_t offset, uint8_t* destination, uint32_t size, fault_t* fault) noexcept nogil
    cdef int queue(self, uint32_t slot) noexcept nogil
    cdef int queue_piece(self, uint32_t slot) noexcept nogil
    cdef int reap_uring(self, read_completion_t* out, uint32_t capacity, uint32_t minimum) noexcept nogil
    cdef bint finish(self, uint32_t slot, int result) noexcept nogil
    cdef void complete(self, uint32_t slot, read_completion_t* out) noexcept nogil
    cdef void close_engine(self) noexcept nogil
    cdef int hold(self, object memory) except -1
    cdef int run_batch(self, AlignedBuffer memory, list requests, list starts, list errors) except -1
    cdef int note(self, list errors) except -1
