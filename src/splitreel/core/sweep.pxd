# Sweep: the blocks of a list, handed out in its order, with many reads in flight. block_list_t: such a list.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.engine cimport ReadEngine
from splitreel.core.fault cimport fault_t

cdef enum:
    SWEEP_SPAN = 1 << 20                           # bytes one read takes at most; a reference is not larger
    SWEEP_DEPTH = 64                               # reads in flight

# 24 bytes. count adjacent blocks; owner, first and limit are the caller's own.
cdef struct block_ref_t:
    uint64_t block
    uint32_t count
    uint32_t owner
    uint32_t first
    uint32_t limit

cdef struct block_list_t:
    block_ref_t* items
    size_t count
    size_t capacity

cdef int append_block(block_list_t* list, uint64_t block, uint32_t count, uint32_t owner, uint32_t first,
                      uint32_t limit,
                      fault_t* fault) noexcept nogil
cdef void free_blocks(block_list_t* list) noexcept nogil
cdef void sort_blocks(block_list_t* list) noexcept nogil       # by block, then owner and first
cdef int grow_array(void** items, size_t* capacity, size_t count, size_t item_size, fault_t* fault) noexcept nogil

cdef struct sweep_read_t:
    uint64_t offset                                # bytes on the device, aligned
    size_t place                                   # in the ring
    size_t end_item                                # the first reference behind it
    uint32_t size
    int os_errno
    bint done

cdef class Sweep:
    # One thread at a time, one list at a time. Adjacent and nearly adjacent references become one read.
    cdef BlockDevice device
    cdef ReadEngine engine
    cdef uint32_t block_size
    cdef uint8_t* ring
    cdef size_t ring_size, head_place, tail_place
    cdef sweep_read_t reads[SWEEP_DEPTH]
    cdef uint64_t first_read, next_read            # numbers of reads, slot = number % SWEEP_DEPTH
    cdef const block_ref_t* items
    cdef size_t count, cursor, submitted           # references handed out, references covered by reads
    cdef uint64_t bytes_read, read_count
    cdef void start(self, const block_list_t* list) noexcept nogil
    # The next reference and its bytes, valid until the call after. 1 while there are any, 0 at the end, FAULT_IO for a
    # reference that does not read (the sweep goes on with the next), another fault when the engine fails.
    cdef int next(self, const block_ref_t** ref, const uint8_t** data, fault_t* fault) noexcept nogil
    cdef void stop(self) noexcept nogil            # forget the rest
    cdef size_t plan_read(self, sweep_read_t* read) noexcept nogil
    cdef bint reserve_ring(self, sweep_read_t* read) noexcept nogil
    cdef int fill_queue(self, fault_t* fault) noexcept nogil
    cdef int wait_for(self, uint64_t number, fault_t* fault) noexcept nogil
    cdef void release(self) noexcept nogil
