# Editor: changes to a file system, kept in memory, to be laid over its device. FileMap: the blocks of one file.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.ext4_disk cimport ext4_inode_t
from splitreel.core.ext4_lookup cimport extent_list_t
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.fault cimport fault_t
from splitreel.core.spans cimport SpannedDevice

# Blocks first..end - 1 of a file are mapped nowhere.
cdef int cut_range(extent_list_t* list, uint64_t first, uint64_t end, fault_t* fault) noexcept nogil
# Blocks of a file are mapped there, whatever they were mapped to.
cdef int lay_range(extent_list_t* list, uint64_t logical, uint64_t physical, uint32_t count, uint32_t flags,
                   fault_t* fault) noexcept nogil

cdef class FileMap:
    cdef extent_list_t extents
    cdef extent_list_t nodes                       # blocks of its extent tree that may be used again
    cdef bint changed
    cdef uint64_t place(self, uint64_t logical) noexcept nogil    # block, 0 where there is none

cdef class Editor:
    # One thread at a time, with the GIL: it does its work when a device is opened, a few thousand records at most.
    cdef BlockDevice device
    cdef ext4_geometry_t geometry
    cdef dict blocks                               # number -> bytearray: those changed, and some that were only read
    cdef set changed                               # numbers of those that were changed
    cdef dict maps                                 # inode -> FileMap
    cdef list excluded                             # (block, count): will be used, whatever the bitmaps say
    cdef uint64_t next_group, next_bit             # where the search for a free block goes on
    # A block as it is now; borrowed until the next call.
    cdef const uint8_t* look(self, uint64_t block) except NULL
    # The same, to be changed; it stays where it is.
    cdef uint8_t* edit(self, uint64_t block) except NULL
    # An inode in its block as it is now; borrowed until the next call.
    cdef const ext4_inode_t* look_at(self, uint32_t number) except NULL
    # The same, to be changed; it stays where it is.
    cdef ext4_inode_t* inode(self, uint32_t number) except NULL
    cdef uint64_t place(self, uint32_t number) except? 0
    cdef int seal_inode(self, uint32_t number) except -1          # makes its checksum right
    # Whether the kernel would find an inode of this number while it replays: linked, of a known type, no reserved one.
    cdef bint is_file(self, uint32_t number) except -1
    cdef int mark_used(self, uint32_t number) except -1           # the inode table is read that far
    cdef FileMap map_of(self, uint32_t number)
    cdef int forget_map(self, uint32_t number) except -1          # nothing is mapped any more
    cdef uint64_t allocate(self) except 0                         # a block that nothing uses
    cdef int flush(self, SpannedDevice over) except -1

    cdef int fail(self, int code, uint32_t number, const char* text) except -1
    cdef uint8_t* descriptor(self, uint64_t group) except NULL
    cdef uint64_t free_block(self, uint64_t group) except? 0
    cdef bint is_excluded(self, uint64_t block) except -1
    cdef int write_map(self, uint32_t number, FileMap map) except -1
    cdef bytes write_level(self, FileMap map, bytes records, uint32_t depth, uint32_t seed)
