# ext4_xattr: extended attributes from the inode and from a block, verified, ACLs converted, for a heap record.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.ext4_disk cimport ext4_xattr_entry_t
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.heap cimport HeapWriter

cdef struct value_t:                               # of an attribute whose value stands in an inode of its own
    uint64_t at                                    # in the map's heap, where room is kept for it; 0: nowhere
    uint32_t size
    uint32_t file                                  # whose attribute: index into files
    uint32_t inode                                 # that holds the value
    uint32_t entry_hash                            # e_hash: over name and value
    uint32_t name_hash[2]                          # the same over the name alone, of unsigned and of signed characters
    bint acl                                       # to be converted
    const char* wrong                              # why it cannot be had, or NULL

# The value of system.data in an inode's area, NULL when there is none. Text of what is wrong with the area, or NULL.
cdef const char* find_inline_data(const uint8_t* area, uint32_t size, const uint8_t** value,
                                  uint32_t* value_size) noexcept nogil
# Adds an ACL as it is on disk to a record; *said: why it was left out.
cdef int add_acl(HeapWriter heap, const char* prefix, const uint8_t* name, uint32_t name_size, const uint8_t* value,
                 uint32_t size, uint32_t source, const char** said, fault_t* fault) noexcept nogil

cdef class XattrDecoder:
    # begin, add_area and add_block, finish: one record. One thread at a time.
    cdef const ext4_geometry_t* geometry
    cdef HeapWriter heap
    cdef value_t* values                           # of all records since reset, for a reader to fill in
    cdef size_t value_count, value_capacity
    cdef uint64_t value_room                       # bytes that values may yet take; reset sets it
    cdef uint64_t verified_block                   # of files that share a block only the first verifies it
    cdef const char* verified_text
    cdef void reset(self, uint64_t value_room) noexcept nogil
    cdef void begin(self) noexcept nogil
    # *text: what is wrong with the area, or with single attributes that are left out of it, or NULL.
    # area begins behind the magic number; offsets of values count from there.
    cdef int add_area(self, const uint8_t* area, uint32_t size, const char** text, fault_t* fault) noexcept nogil
    # Offsets of values count from the block's start.
    cdef int add_block(self, uint64_t block, const uint8_t* data, const char** text, fault_t* fault) noexcept nogil
    # As HeapWriter's; values of this record then know where they belong.
    cdef int finish(self, ExtentMap target, uint32_t file, fault_t* fault) noexcept nogil

    cdef int add_entries(self, const uint8_t* entries, uint32_t room, const uint8_t* base, uint32_t end,
                         uint32_t source, const char** text, fault_t* fault) noexcept nogil
    cdef int add_entry(self, const ext4_xattr_entry_t* entry, const uint8_t* value, uint32_t source,
                       const char** said, fault_t* fault) noexcept nogil
    cdef int add_value(self, const ext4_xattr_entry_t* entry, uint32_t source, const char** said,
                       fault_t* fault) noexcept nogil
    cdef const char* check_inode(self, const ext4_xattr_entry_t* entry) noexcept nogil
