# BlockDevice: O_DIRECT reads of a block device or image file. AlignedBuffer, BufferRing: all bulk memory.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.fault cimport fault_t
from splitreel.core.spantable cimport SpanTable

cdef class BlockDevice:
    # One thread at a time for read(); fd may be used by an engine in another thread (pread has no shared position).
    cdef int fd
    cdef readonly object path
    cdef readonly uint64_t size                    # bytes
    cdef readonly uint32_t logical_block_size      # O_DIRECT alignment of offset, length and memory
    cdef readonly bint direct                      # False: O_DIRECT refused, page cache dropped at each open instead
    cdef uint8_t* bounce
    cdef SpanTable spans                           # None unless it is made of stretches of others: then fd is -1
    # Reads exactly size bytes at any offset into any memory; edges that are not aligned go through the bounce buffer.
    cdef int read(self, uint64_t offset, void* destination, size_t size, fault_t* fault) noexcept nogil
    cdef int open_path(self, const char* path, fault_t* fault) noexcept nogil
    cdef int measure(self, bint is_block, uint64_t file_size, fault_t* fault) noexcept nogil
    cdef int choose_alignment(self, bint is_block, fault_t* fault) noexcept nogil
    cdef uint32_t probe_alignment(self) noexcept nogil
    cdef int become_buffered(self, fault_t* fault) noexcept nogil
    cdef bint is_open(self) noexcept nogil
    cdef void close_device(self) noexcept nogil

cdef class AlignedBuffer:
    cdef uint8_t* data
    cdef readonly size_t capacity
    cdef size_t used
    cdef int views                                 # exported buffers; above 0 it refuses to be refilled
    # Fills it with size bytes of the device; refuses while views are exported, or beyond its capacity.
    cdef int fill(self, BlockDevice device, uint64_t offset, size_t size, fault_t* fault) noexcept nogil

cdef class BufferRing:
    # depth slots of slot_size bytes in one allocation, page-aligned; slot i is data + i * slot_size.
    cdef uint8_t* data
    cdef readonly uint32_t depth
    cdef readonly size_t slot_size
    cdef void* mapped
    cdef size_t mapped_size
    cdef uint8_t* slot(self, uint64_t index) noexcept nogil    # index modulo depth

# Bytes read before the end of the file, or -errno. Loops over short reads and EINTR. With O_DIRECT, alignment is what
# it needs: a read that ends elsewhere has met the end. 1 otherwise.
cdef int64_t pread_full(int fd, uint8_t* destination, uint64_t size, uint64_t offset, uint32_t alignment) noexcept nogil
# Exactly size bytes at any offset into any memory; edges that are not aligned go through the bounce buffer.
cdef int read_range(int fd, uint32_t block_size, bint direct, uint8_t* bounce, uint64_t offset, uint8_t* destination,
                    size_t size, fault_t* fault) noexcept nogil
cdef uint8_t* new_bounce() noexcept nogil          # for read_range; free() it. NULL: no memory
# raise_fault with words for the user in place of the site and of the class's usual advice.
cdef int raise_named(const fault_t* fault, str what, str advice) except -1
