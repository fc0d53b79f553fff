# columns: what an extent map is made of, as plain arrays. Puts them in order and verifies them; owns no memory.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.fault cimport fault_t

cdef enum extent_flag_t:                           # values of linux/fiemap.h
    EXTENT_INLINE = 0x200
    EXTENT_UNWRITTEN = 0x800
    EXTENT_SHARED = 0x2000

cdef enum file_flag_t:
    FILE_DAMAGED = 1                               # an object of this file fails its checks: reported, never streamed
    FILE_XATTRS = 2                                # heap holds xattrs
    FILE_TARGET = 4                                # heap holds a symlink target
    # The target field of the heap record holds the file's data, which stand in its inode; its one extent is
    # {0, block of the inode, 1, EXTENT_INLINE}.
    FILE_INLINE = 8

# 24 bytes. Units: file system blocks (map.block_size). Sorted by logical within a file, no overlap, adjacent merged.
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
    uint64_t fingerprint                           # of the raw records: inode, extent nodes, directory and xattr blocks
    uint64_t first_extent                          # index into extents; sealed: the sum of the counts before
    uint64_t heap_offset                           # xattrs and target, see heap record; sealed: in file order, no gaps
    uint32_t extent_count
    uint32_t heap_size                             # 0: no record
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

cdef enum:
    MAX_INDEX = 0xFFFFFFFF                         # files, extents, names, bytes of names: one less can be held
    MAX_DEPTH = 65536                              # directories above one another

cdef struct columns_t:
    file_t* files
    extent_t* extents
    name_t* names
    uint8_t* name_heap
    uint8_t* heap
    uint64_t file_count
    uint64_t extent_count
    uint64_t name_count
    uint64_t name_heap_size
    uint64_t heap_size
    uint64_t device_size                           # bytes
    uint32_t block_size                            # bytes

cdef struct xattr_t:
    const uint8_t* name
    const uint8_t* value
    uint32_t name_size
    uint32_t value_size

# Room for wanted items in a malloc'ed array, by doubling; FAULT_LIMIT above most.
cdef int reserve(void** data, uint64_t* capacity, uint64_t wanted, uint64_t most, size_t item_size,
                 fault_t* fault) noexcept nogil
# One extent can say what the two say.
cdef bint mergeable(const extent_t* first, const extent_t* second) noexcept nogil
# Sorts files by inode, puts extents and heap records in file order, merges extents, moves the root to name 0. May
# replace files, extents and heap by other malloc'ed ones. FAULT_CORRUPT: an inode twice. All indexes are checked first.
cdef int arrange_columns(columns_t* columns, fault_t* fault) noexcept nogil
# Everything that any later use relies on: orders, ranges, heap records, names, a tree without cycles.
cdef int verify_columns(const columns_t* columns, fault_t* fault) noexcept nogil

# The functions below take verified columns.
cdef bint is_directory(const columns_t* columns, uint64_t index) noexcept nogil
# Target bytes of a record; the cursor then stands at the first xattr.
cdef const uint8_t* record_target(const uint8_t* record, uint32_t* size) noexcept nogil
# Decodes the xattr at *cursor and moves on; 0 at the end, -1 when it does not fit.
cdef int next_xattr(const uint8_t* record, uint32_t record_size, uint32_t* cursor, xattr_t* out) noexcept nogil

# A packed time is 34 bits of seconds since -2^31 and 30 bits of nanoseconds: 1901..2446, more than 64-bit nanoseconds.
cdef uint64_t pack_time(int64_t seconds, uint32_t nanoseconds) noexcept nogil
cdef int64_t time_seconds(uint64_t packed) noexcept nogil
cdef uint32_t time_nanoseconds(uint64_t packed) noexcept nogil
