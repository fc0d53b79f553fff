# ReadEngine: many reads of one device in flight. io_uring where the kernel allows it, threads elsewhere; chosen at run time.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport fault_t

cdef struct read_completion_t:
    uint64_t tag
    int os_errno                                   # 0, or why the read failed; short reads are finished inside

cdef class ReadEngine:
    # One thread at a time. Memory given to submit() must stay valid until its completion is reaped or close() returned.
    cdef readonly object name                      # "io_uring" or "threads"
    cdef readonly uint32_t depth
    cdef uint32_t in_flight
    # Aligned to the device's logical block size in offset, size and memory. Needs in_flight < depth. size <= 1 GiB.
    cdef int submit(self, uint64_t offset, uint8_t* destination, uint32_t size, uint64_t tag, fault_t* fault) noexcept nogil
    cdef int flush(self, fault_t* fault) noexcept nogil        # hand what was submitted to the kernel
    # Up to capacity completions into out; waits for at least `minimum` of them. Returns their count, or a fault.
    cdef int reap(self, read_completion_t* out, uint32_t capacity, uint32_t minimum, fault_t* fault) noexcept nogil
    cdef void drain(self) noexcept nogil                       # wait for all in flight, forget their results
