"""ext4_inode verifies one inode and decodes its attributes. It reads no device and follows no extent.

Source: Linux Documentation/filesystems/ext4, "Index Nodes" and "Inode Timestamps"; fs/ext4/inode.c for the checksum.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    EXT4_COMPRBLK_FL,
    EXT4_ENCRYPT_FL,
    EXT4_EXTENTS_FL,
    EXT4_HUGE_FILE_FL,
    EXT4_INLINE_DATA_FL,
    EXT4_ROOT_INO,
    INCOMPAT_64BIT,
    INCOMPAT_EA_INODE,
    INCOMPAT_LARGEDIR,
    RO_COMPAT_HUGE_FILE,
    ext4_digest,
    ext4_inode_t,
    ext4_le16,
    ext4_le32,
    ext4_load32,
)
from splitreel.core.ext4_indirect cimport indirect_reach
from splitreel.core.extent cimport file_t, pack_time

cdef enum:
    GOOD_OLD_SIZE = 128
    CHECKSUM_LO = 0x7C                             # offsets of the checksum's halves
    CHECKSUM_HI = 0x82
    ATIME = 0x08
    ATIME_EXTRA = 0x8C
    XATTR_MAGIC = 0xEA020000
    EXTENT_MAGIC = 0xF30A
    FAST_SYMLINK_SIZE = 60
    SECTOR = 512                                   # what i_blocks counts without HUGE_FILE_FL
    S_IFMT = 0o170000
    S_IFREG = 0o100000
    S_IFDIR = 0o040000
    S_IFLNK = 0o120000
    S_IFCHR = 0o020000
    S_IFBLK = 0o060000
    S_IFIFO = 0o010000
    S_IFSOCK = 0o140000


cdef bint inode_in_use(const ext4_geometry_t* geometry, uint32_t number, const ext4_inode_t* raw) noexcept nogil:
    """A file by its own word, or an attribute's value: linked, with a mode, none of the file system's own inodes."""
    cdef int i
    if raw.i_links_count == 0 or raw.i_mode == 0:
        return False
    if number < geometry.first_ino and number != EXT4_ROOT_INO:
        return False
    for i in range(4):
        if number == geometry.hidden[i]:
            return False
    return True


cdef uint32_t extra_size(const ext4_geometry_t* geometry, const ext4_inode_t* raw) noexcept nogil:
    """i_extra_isize, or 0 where it cannot be right."""
    cdef uint32_t extra
    if geometry.inode_size <= GOOD_OLD_SIZE:
        return 0
    extra = ext4_le16(raw.i_extra_isize)
    return extra if extra % 4 == 0 and extra <= geometry.inode_size - GOOD_OLD_SIZE else 0


cdef uint32_t inode_seed(const ext4_geometry_t* geometry, uint32_t number, uint32_t generation) noexcept nogil:
    cdef uint32_t words[2]
    words[0] = ext4_le32(number)
    words[1] = ext4_le32(generation)
    return crc32c_update(geometry.csum_seed, words, 8)


cdef bint known_type(uint16_t mode) noexcept nogil:
    cdef uint16_t kind = mode & S_IFMT
    return (kind == S_IFREG or kind == S_IFDIR or kind == S_IFLNK or kind == S_IFCHR or kind == S_IFBLK
            or kind == S_IFIFO or kind == S_IFSOCK)


cdef const char* verify_inode(const ext4_geometry_t* geometry, uint32_t number, const uint8_t* raw,
                              uint8_t* scratch) noexcept nogil:
    """Checks checksum and type; leaves a copy without checksum fields in scratch."""
    cdef const ext4_inode_t* inode = <const ext4_inode_t*>raw
    cdef uint32_t crc, stored
    cdef bint wide = False
    memcpy(scratch, raw, geometry.inode_size)
    memset(scratch + CHECKSUM_LO, 0, 2)
    if geometry.inode_size > GOOD_OLD_SIZE and ext4_le16(inode.i_extra_isize) >= 4:
        wide = True
        memset(scratch + CHECKSUM_HI, 0, 2)
    if geometry.metadata_csum:
        crc = inode_seed(geometry, number, ext4_le32(inode.i_generation))
        crc = ~crc32c_update(crc, scratch, geometry.inode_size)
        stored = ext4_le16(inode.i_checksum_lo)
        if wide:
            stored |= <uint32_t>ext4_le16(inode.i_checksum_hi) << 16
        else:
            crc &= 0xFFFF
        if crc_differs(crc, stored):
            return b"the inode's checksum does not match"
    if not known_type(ext4_le16(inode.i_mode)):
        return b"the inode's type is none that exists"
    if geometry.inode_size > GOOD_OLD_SIZE and extra_size(geometry, inode) != ext4_le16(inode.i_extra_isize):
        return b"the inode's i_extra_isize is out of range"
    return NULL


cdef uint64_t decode_time(uint32_t seconds, uint32_t extra) noexcept nogil:
    """The low two bits of extra add 2^32 seconds each; the rest are nanoseconds."""
    cdef int64_t wide = <int64_t>(<int32_t>ext4_le32(seconds))
    cdef uint32_t bits = ext4_le32(extra)
    return pack_time(wide + (<int64_t>(bits & 3) << 32), bits >> 2)


cdef uint32_t decode_device(const uint8_t* block) noexcept nogil:
    """Old 8:8 encoding in the first word, or new 12:20 in the second; as major << 20 | minor."""
    cdef uint32_t word = ext4_load32(block)
    if word != 0:
        return (word >> 8 & 0xFF) << 20 | (word & 0xFF)
    word = ext4_load32(block + 4)
    return (word >> 8 & 0xFFF) << 20 | (word & 0xFF) | (word >> 12 & 0xFFF00)


cdef uint64_t inode_size(const ext4_geometry_t* geometry, const ext4_inode_t* inode) noexcept nogil:
    """The high word is a size for regular files; for others it is (or was) something else without large_dir."""
    cdef uint64_t size = ext4_le32(inode.i_size_lo)
    if ext4_le16(inode.i_mode) & S_IFMT == S_IFREG or geometry.incompat & INCOMPAT_LARGEDIR:
        size |= <uint64_t>ext4_le32(inode.i_size_high) << 32
    return size


cdef void decode_inode(const ext4_geometry_t* geometry, uint32_t number, const uint8_t* raw, uint8_t* scratch,
                       file_t* out) noexcept nogil:
    cdef const ext4_inode_t* inode = <const ext4_inode_t*>raw
    cdef uint32_t extra = extra_size(geometry, inode)
    cdef uint16_t kind
    memset(out, 0, sizeof(file_t))
    out.inode = number
    out.size = inode_size(geometry, inode)
    out.mode = ext4_le16(inode.i_mode)
    out.link_count = ext4_le16(inode.i_links_count)
    out.uid = ext4_le16(inode.i_uid) | <uint32_t>ext4_le16(inode.i_uid_high) << 16
    out.gid = ext4_le16(inode.i_gid) | <uint32_t>ext4_le16(inode.i_gid_high) << 16
    out.generation = ext4_le32(inode.i_generation)
    out.ctime = decode_time(inode.i_ctime, inode.i_ctime_extra if extra >= 8 else 0)
    out.mtime = decode_time(inode.i_mtime, inode.i_mtime_extra if extra >= 12 else 0)
    kind = out.mode & S_IFMT
    if kind == S_IFCHR or kind == S_IFBLK:
        out.rdev = decode_device(inode.i_block)
    memset(scratch + ATIME, 0, 4)                  # reading a file on the primary must not look like a change
    if extra >= 16:
        memset(scratch + ATIME_EXTRA, 0, 4)
    out.fingerprint = ext4_digest(number, scratch, geometry.inode_size)


cdef bint is_fast_symlink(const ext4_geometry_t* geometry, const ext4_inode_t* raw, uint64_t size) noexcept nogil:
    """Short, and without a block but that of its extended attributes. Old kernels gave short targets blocks too.

    Where attributes may stand in inodes of their own, the blocks of these are counted as the symlink's.
    """
    cdef uint32_t flags = ext4_le32(raw.i_flags)
    cdef uint64_t blocks = ext4_le32(raw.i_blocks_lo)
    cdef uint32_t unit = SECTOR
    if size >= FAST_SYMLINK_SIZE:
        return False
    if flags & EXT4_EXTENTS_FL:
        return ext4_load32(raw.i_block) & 0xFFFF != EXTENT_MAGIC
    if geometry.incompat & INCOMPAT_EA_INODE:
        return True
    if geometry.ro_compat & RO_COMPAT_HUGE_FILE:
        blocks |= <uint64_t>ext4_le16(raw.i_blocks_high) << 32
        if flags & EXT4_HUGE_FILE_FL:
            unit = geometry.block_size
    return blocks * unit == (geometry.cluster_size if inode_xattr_block(geometry, raw) != 0 else 0)


cdef int inode_layout(const ext4_geometry_t* geometry, const ext4_inode_t* raw, uint64_t size,
                      const char** text) noexcept nogil:
    """How the inode's i_block is to be understood; encrypted and compressed files are refused.

    Compressed is what bears e2compr's mark of a compressed cluster: the wish to be compressed (chattr +c) alone changes
    nothing in any other kernel.
    """
    cdef uint32_t flags = ext4_le32(raw.i_flags)
    cdef uint16_t kind = ext4_le16(raw.i_mode) & S_IFMT
    cdef int layout = LAYOUT_EXTENTS if flags & EXT4_EXTENTS_FL else LAYOUT_INDIRECT
    text[0] = NULL
    if flags & EXT4_INLINE_DATA_FL and flags & EXT4_EXTENTS_FL:
        text[0] = b"both inline data and extents"
    elif kind != S_IFREG and kind != S_IFDIR and kind != S_IFLNK:
        return LAYOUT_NONE
    elif kind == S_IFLNK and size == 0:
        text[0] = b"a symlink without a target"
    elif flags & EXT4_ENCRYPT_FL:
        text[0] = b"encrypted: without the key neither names nor contents can be read"
    elif flags & EXT4_COMPRBLK_FL:
        text[0] = b"compressed by e2compr, which is not supported"
    elif flags & EXT4_INLINE_DATA_FL:
        return LAYOUT_FAST_SYMLINK if kind == S_IFLNK and size < FAST_SYMLINK_SIZE else LAYOUT_INLINE
    elif kind == S_IFLNK and is_fast_symlink(geometry, raw, size):
        return LAYOUT_FAST_SYMLINK
    return -1 if text[0] != NULL else layout


cdef uint64_t layout_reach(const ext4_geometry_t* geometry, int layout) noexcept nogil:
    """Bytes that a file of this layout can have; 0: the layout sets no bound."""
    cdef uint64_t blocks = 0
    if layout == LAYOUT_EXTENTS:
        blocks = <uint64_t>1 << 32
    elif layout == LAYOUT_INDIRECT:
        blocks = indirect_reach(geometry)
    return blocks * geometry.block_size


cdef inode_area_t inode_xattrs(const ext4_geometry_t* geometry, const uint8_t* raw) noexcept nogil:
    cdef inode_area_t area
    cdef uint32_t extra = extra_size(geometry, <const ext4_inode_t*>raw)
    cdef uint32_t begin = GOOD_OLD_SIZE + extra
    area.bytes = NULL
    area.size = 0
    if extra == 0 or begin + 8 > geometry.inode_size or ext4_load32(raw + begin) != XATTR_MAGIC:
        return area
    area.bytes = raw + begin + 4
    area.size = geometry.inode_size - begin - 4
    return area


cdef uint64_t inode_xattr_block(const ext4_geometry_t* geometry, const ext4_inode_t* raw) noexcept nogil:
    """The high word is another system's (Hurd: the mode's) in a file system without 64bit."""
    cdef uint64_t block = ext4_le32(raw.i_file_acl_lo)
    if geometry.incompat & INCOMPAT_64BIT:
        block |= <uint64_t>ext4_le16(raw.i_file_acl_high) << 32
    return block
