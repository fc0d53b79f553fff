# BlockDevice: O_DIRECT reads of a block device or image file. AlignedBuffer, BufferRing: all bulk memory.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.fault cimport fault_t

cdef class BlockDevice:
    # One thread at a time for read(); fd may be used by an engine in another thread (pread has no shared position).
    cdef int fd
    cdef readonly object path
    cdef readonly uint64_t size                    # bytes
    cdef readonly uint32_t logical_block_size      # O_DIRECT alignment of offset, length and memory
    cdef readonly bint direct                      # False: O_DIRECT refused, page cache dropped before each open instead
    cdef uint8_t* bounce
    # Reads exactly size bytes at any offset into any memory; edges that are not aligned go through the bounce buffer.
    cdef int read(self, uint64_t offset, void* destination, size_t size, fault_t* fault) noexcept nogil

cdef class AlignedBuffer:
    cdef uint8_t* data
    cdef readonly size_t capacity
    cdef size_t used
    cdef int views                                 # exported buffers; above 0 it refuses to be refilled

cdef class BufferRing:
    # depth slots of slot_size bytes in one allocation, page-aligned; slot i is data + i * slot_size.
    cdef uint8_t* data
    cdef readonly uint32_t depth
    cdef readonly size_t slot_size
    cdef uint8_t* slot(self, uint64_t index) noexcept nogil    # index modulo depth
