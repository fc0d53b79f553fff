# ext4_journal: a file system whose journal was not emptied, as recovery would leave it; nothing is written.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.ext4_disk cimport ext4_superblock_t
from splitreel.core.ext4_edit cimport Editor
from splitreel.core.ext4_lookup cimport extent_list_t
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.fault cimport fault_t
from splitreel.core.jbd2 cimport Journal
from splitreel.core.spans cimport SpannedDevice

# Whether a device holds an ext file system that says that its journal was not emptied.
cdef bint needs_recovery(BlockDevice device) noexcept nogil

cdef class Recovery:
    # Recovery(device, others) makes it; device then reads as the recovered file system. One thread at a time.
    cdef readonly BlockDevice device
    cdef readonly list warnings
    cdef BlockDevice origin                        # the device given
    cdef tuple others                              # devices that may hold the journal
    cdef Journal journal
    cdef bint external                             # the journal is on another device
    cdef ext4_superblock_t superblock              # as it stands on the origin
    cdef ext4_geometry_t geometry                  # before, then after the journal
    # STALE when the origin or its journal were written to since.
    cdef int check_unchanged(self, fault_t* fault) noexcept nogil

    cdef int read_superblock(self, BlockDevice device, fault_t* fault) noexcept nogil
    cdef int open_inode(self, fault_t* fault) noexcept nogil
    cdef int open_backup(self, fault_t* fault) noexcept nogil
    cdef int map_inode(self, uint8_t* raw, fault_t* fault) noexcept nogil
    cdef int map_backup(self, uint8_t* raw, fault_t* fault) noexcept nogil
    cdef int add_extents(self, const extent_list_t* list, uint64_t size, fault_t* fault) noexcept nogil
    cdef int edit(self, Editor editor) except -1
    cdef int find_journal(self) except -1
    cdef int open_external(self) except -1
    cdef bint holds_journal(self, BlockDevice other) noexcept nogil
    cdef int load_external(self, BlockDevice other, fault_t* fault) noexcept nogil
    cdef int lay_copies(self, SpannedDevice over, fault_t* fault) noexcept nogil
    cdef int close_superblock(self, ext4_superblock_t* closed, fault_t* fault) noexcept nogil
