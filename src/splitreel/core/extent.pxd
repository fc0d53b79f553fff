# ExtentMap: the files of one file system at one instant, as columns. Filesystem: the interface of every reader.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport fault_t

cdef enum extent_flag_t:                           # values of linux/fiemap.h
    EXTENT_INLINE = 0x200
    EXTENT_UNWRITTEN = 0x800
    EXTENT_SHARED = 0x2000

cdef enum file_flag_t:
    FILE_DAMAGED = 1                               # an object of this file fails its checks: reported, never streamed
    FILE_XATTRS = 2                                # heap holds xattrs
    FILE_TARGET = 4                                # heap holds a symlink target

# 24 bytes. Units: file system blocks (map.block_size). Sorted by logical within a file, no overlap, adjacent ones merged.
cdef packed struct extent_t:
    uint64_t logical
    uint64_t physical
    uint32_t count
    uint32_t flags                                 # extent_flag_t

# 88 bytes. Sorted by inode in a sealed map.
cdef packed struct file_t:
    uint64_t inode
    uint64_t size                                  # bytes
    uint64_t mtime                                 # packed time, see pack_time
    uint64_t ctime
    uint64_t fingerprint                           # of the raw on-disk records: inode, extent nodes, directory and xattr blocks
    uint64_t first_extent                          # index into extents
    uint64_t heap_offset                           # xattrs and target, see heap record below
    uint32_t extent_count
    uint32_t heap_size
    uint32_t generation
    uint32_t uid
    uint32_t gid
    uint32_t rdev                                  # major << 20 | minor
    uint32_t link_count
    uint16_t mode                                  # st_mode: type and permission bits
    uint16_t flags                                 # file_flag_t

# 16 bytes. One for each directory entry; 0 is the root, whose name is empty and whose parent is itself.
cdef packed struct name_t:
    uint32_t parent                                # index of the directory's own name_t
    uint32_t file                                  # index into files
    uint32_t name_offset                           # into the name heap
    uint32_t name_size                             # 0..255

# Heap record of a file, no padding: u32 target_size, target; then for each xattr: u16 name_size, u32 value_size,
# name (full, "user.x"), value as listxattr/getxattr show it; little-endian; xattrs sorted by name bytes.

# A packed time is 34 bits of seconds since -2^31 and 30 bits of nanoseconds: 1901..2446, more than i64 nanoseconds hold.
cdef uint64_t pack_time(int64_t seconds, uint32_t nanoseconds) noexcept nogil
cdef int64_t time_seconds(uint64_t packed) noexcept nogil
cdef uint32_t time_nanoseconds(uint64_t packed) noexcept nogil

# What a reader found wrong, and went on past.
cdef struct problem_t:
    uint64_t inode
    uint64_t offset                                # bytes on the device
    char text[112]

cdef class ExtentMap:
    # Owns its arrays; grows by doubling to a declared cap, then faults. Sealed: sorted and read-only. One thread at a time
    # while it is filled; any number of readers once sealed.
    cdef file_t* files
    cdef extent_t* extents
    cdef name_t* names
    cdef uint8_t* name_heap
    cdef uint8_t* heap
    cdef problem_t* problems
    cdef readonly uint64_t file_count, extent_count, name_count, name_heap_size, heap_size, problem_count
    cdef uint64_t file_capacity, extent_capacity, name_capacity, name_heap_capacity, heap_capacity, problem_capacity
    cdef readonly uint32_t block_size              # bytes
    cdef readonly uint64_t device_size             # bytes
    cdef readonly bint sealed
    cdef readonly object fs_type                   # "ext4"
    cdef uint8_t uuid[16]
    cdef int views
    cdef object mapping                            # the mmap of a loaded map, or None

    cdef int append_file(self, const file_t* file, fault_t* fault) noexcept nogil          # index is file_count - 1 after
    cdef int append_extent(self, uint64_t logical, uint64_t physical, uint32_t count, uint32_t flags,
                           fault_t* fault) noexcept nogil    # to the last appended file; merges with the one before
    cdef int append_name(self, uint32_t parent, uint32_t file, const uint8_t* name, uint32_t size,
                         fault_t* fault) noexcept nogil
    cdef int append_heap(self, const void* data, uint64_t size, uint64_t* offset, fault_t* fault) noexcept nogil
    cdef void append_problem(self, uint64_t inode, uint64_t offset, const char* text) noexcept nogil   # bounded; counts on
    cdef int seal(self, fault_t* fault) noexcept nogil         # verifies order and ranges
    cdef int64_t find_inode(self, uint64_t inode) noexcept nogil       # index into files, or -1
    # Path of names[index] without a leading slash, root empty; returns its length, or -1 when it exceeds capacity.
    cdef int64_t path(self, uint64_t index, uint8_t* destination, size_t capacity) noexcept nogil

cdef class Filesystem:
    # A reader. Opened on a device; verifies the superblock and refuses unsupported features before anything else is read.
    cdef readonly BlockDevice device
    cdef readonly uint32_t block_size
    cdef readonly object uuid                      # bytes, 16
    cdef int map_all(self, ExtentMap target, fault_t* fault) noexcept nogil
