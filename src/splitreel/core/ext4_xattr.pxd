# ext4_xattr: extended attributes from the inode and from a block, ACLs converted, as the heap record of a file.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport ExtentMap, file_t
from splitreel.core.fault cimport fault_t

cdef struct attr_t:
    const uint8_t* name                            # without its prefix
    const uint8_t* value
    uint32_t name_size
    uint32_t value_size
    uint32_t prefix                                # index into the table of prefixes
    uint32_t source                                # 0 inode, 1 block: of two with one name the inode's wins

cdef class HeapWriter:
    # Builds one record at a time in memory that is allocated once: begin, add_… in any order, finish.
    cdef const ext4_geometry_t* geometry
    cdef attr_t* attrs
    cdef uint32_t attr_count, attr_capacity
    cdef uint8_t* record
    cdef uint32_t record_capacity
    cdef const uint8_t* target
    cdef uint32_t target_size
    cdef int prepare(self, const ext4_geometry_t* geometry, fault_t* fault) noexcept nogil
    cdef void begin(self) noexcept nogil
    # Text of what is wrong with the area (then nothing of it is kept), or NULL.
    cdef const char* add_inode(self, const uint8_t* area, uint32_t size) noexcept nogil
    cdef const char* add_block(self, uint64_t block, const uint8_t* data) noexcept nogil
    cdef const char* add_entries(self, const uint8_t* entries, uint32_t room, const uint8_t* base, uint32_t end,
                                 uint32_t source) noexcept nogil
    # Appends the record and sets heap_offset, heap_size and flags of the file; nothing when there is nothing.
    cdef int finish(self, ExtentMap target, file_t* file, fault_t* fault) noexcept nogil
    cdef uint32_t encode(self) noexcept nogil
