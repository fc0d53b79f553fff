"""xfs_inode verifies one inode of XFS and decodes its attributes. It reads no device and follows no extent.

Source: "XFS Algorithms & Data Structures", "On-disk Inode"; fs/xfs/libxfs/xfs_inode_buf.c for the checks.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from splitreel.core.extent cimport file_t, pack_time
from splitreel.core.xfs_disk cimport (
    XFS_DIFLAG2_BIGTIME,
    XFS_DIFLAG2_METADATA,
    XFS_DIFLAG2_NREXT64,
    XFS_DIFLAG2_REFLINK,
    XFS_DIFLAG_REALTIME,
    XFS_DINODE_FMT_BTREE,
    XFS_DINODE_FMT_DEV,
    XFS_DINODE_FMT_EXTENTS,
    XFS_DINODE_FMT_LOCAL,
    XFS_DINODE_MAGIC,
    digest_records,
    xfs_be16,
    xfs_be32,
    xfs_be64,
    xfs_dinode_t,
    xfs_load32,
)
from splitreel.core.xfs_superblock cimport xfs_crc_ok

cdef enum:
    OLD_CORE = 100                                 # bytes of an inode of version 1 and 2
    CRC_OFFSET = 100
    RECORD = 16                                    # bytes of an extent
    NANOSECONDS = 1000000000
    FLUSHITER = 30                                 # offsets of what changes when an inode is only written again
    ATIME = 32
    CHANGECOUNT = 104                              # and behind it the log sequence number
    S_IFMT = 0o170000
    S_IFREG = 0o100000
    S_IFDIR = 0o040000
    S_IFLNK = 0o120000
    S_IFCHR = 0o020000
    S_IFBLK = 0o060000
    S_IFIFO = 0o010000
    S_IFSOCK = 0o140000


cdef bint known_type(uint32_t mode) noexcept nogil:
    cdef uint32_t kind = mode & S_IFMT
    return (kind == S_IFREG or kind == S_IFDIR or kind == S_IFLNK or kind == S_IFCHR or kind == S_IFBLK
            or kind == S_IFIFO or kind == S_IFSOCK)


cdef uint64_t flags2(const xfs_dinode_t* inode) noexcept nogil:
    return xfs_be64(inode.di_flags2) if inode.di_version >= 3 else 0


cdef uint32_t core_size(const xfs_dinode_t* inode) noexcept nogil:
    return sizeof(xfs_dinode_t) if inode.di_version >= 3 else <uint32_t>OLD_CORE


cdef uint32_t link_count(const xfs_dinode_t* inode) noexcept nogil:
    """Version 1 counts links in 16 bits."""
    return xfs_be16(inode.di_onlink) if inode.di_version == 1 else xfs_be32(inode.di_nlink)


cdef bint is_reflink(const uint8_t* raw) noexcept nogil:
    return flags2(<const xfs_dinode_t*>raw) & XFS_DIFLAG2_REFLINK != 0


cdef int inode_state(const xfs_geometry_t* geometry, uint64_t number, const xfs_dinode_t* raw) noexcept nogil:
    cdef int i
    if xfs_be16(raw.di_magic) != XFS_DINODE_MAGIC:
        return INODE_BAD
    for i in range(5):
        if number == geometry.hidden[i]:
            return INODE_FREE
    if raw.di_mode == 0 or link_count(raw) == 0 or flags2(raw) & XFS_DIFLAG2_METADATA:
        return INODE_FREE
    return INODE_FILE


cdef const char* verify_inode(const xfs_geometry_t* geometry, uint64_t number, const uint8_t* raw) noexcept nogil:
    cdef const xfs_dinode_t* inode = <const xfs_dinode_t*>raw
    if geometry.crc:
        if inode.di_version != 3:
            return b"the inode's version is not 3"
        if not xfs_crc_ok(raw, geometry.inode_size, CRC_OFFSET):
            return b"the inode's checksum does not match"
        if xfs_be64(inode.di_ino) != number:
            return b"the inode is another one than its place says"
        if memcmp(inode.di_uuid, geometry.meta_uuid, 16) != 0:
            return b"the inode is of another file system"
    elif inode.di_version != 1 and inode.di_version != 2:
        return b"the inode's version is not 1 or 2"
    if not known_type(xfs_be16(inode.di_mode)):
        return b"the inode's type is none that exists"
    if xfs_be64(inode.di_size) >> 63 != 0:
        return b"the inode's size is negative"
    return NULL


# Attributes.

cdef uint64_t decode_time(uint64_t raw, bint big) noexcept nogil:
    """Nanoseconds since 1901-12-13 20:45:52 (bigtime), or signed seconds since 1970 and nanoseconds."""
    cdef uint64_t value = xfs_be64(raw)
    if big:
        return pack_time(<int64_t>(value // NANOSECONDS) - (<int64_t>1 << 31), value % NANOSECONDS)
    return pack_time(<int32_t>(value >> 32), min(<uint32_t>value, <uint32_t>(NANOSECONDS - 1)))


cdef uint32_t decode_device(const uint8_t* fork) noexcept nogil:
    """System V: 14 bits of major, of which Linux uses 9, and 18 of minor; as major << 20 | minor."""
    cdef uint32_t word = xfs_load32(fork)
    return (word >> 18 & 0x1FF) << 20 | (word & 0x3FFFF)


cdef uint64_t take_fingerprint(const xfs_geometry_t* geometry, uint64_t number, const uint8_t* raw,
                               uint8_t* scratch) noexcept nogil:
    """Without what a read on the primary changes, or writing the inode again as it is."""
    memcpy(scratch, raw, geometry.inode_size)
    memset(scratch + ATIME, 0, 8)
    if (<const xfs_dinode_t*>raw).di_version >= 3:
        memset(scratch + CRC_OFFSET, 0, 4)
        memset(scratch + CHANGECOUNT, 0, 16)
    else:
        memset(scratch + FLUSHITER, 0, 2)
    return digest_records(number, scratch, geometry.inode_size)


cdef void decode_inode(const xfs_geometry_t* geometry, uint64_t number, const uint8_t* raw, uint8_t* scratch,
                       file_t* out) noexcept nogil:
    cdef const xfs_dinode_t* inode = <const xfs_dinode_t*>raw
    cdef bint big = flags2(inode) & XFS_DIFLAG2_BIGTIME != 0
    cdef uint16_t kind
    memset(out, 0, sizeof(file_t))
    out.inode = number
    out.size = xfs_be64(inode.di_size)
    out.mode = xfs_be16(inode.di_mode)
    out.link_count = link_count(inode)
    out.uid = xfs_be32(inode.di_uid)
    out.gid = xfs_be32(inode.di_gid)
    out.generation = xfs_be32(inode.di_gen)
    out.ctime = decode_time(inode.di_ctime, big)
    out.mtime = decode_time(inode.di_mtime, big)
    kind = out.mode & S_IFMT
    if kind == S_IFCHR or kind == S_IFBLK:
        out.rdev = decode_device(raw + core_size(inode))
    out.fingerprint = take_fingerprint(geometry, number, raw, scratch)


# Forks.

cdef uint64_t data_extents(const xfs_dinode_t* inode) noexcept nogil:
    if flags2(inode) & XFS_DIFLAG2_NREXT64:
        return xfs_be64(inode.di_big_nextents)
    return xfs_be32(inode.di_nextents)


cdef uint32_t attr_extents(const xfs_dinode_t* inode) noexcept nogil:
    if flags2(inode) & XFS_DIFLAG2_NREXT64:
        return xfs_be32(inode.di_nextents)
    return xfs_be16(inode.di_anextents)


cdef const char* fork_extents(uint64_t count, xfs_fork_area_t* area) noexcept nogil:
    if count > area.size // RECORD:
        return b"more extents than its inode has room for"
    area.count = <uint32_t>count
    area.layout = FORK_EXTENTS
    return NULL


cdef const char* local_fork(uint16_t kind, uint64_t size, xfs_fork_area_t* area) noexcept nogil:
    if kind == S_IFREG:
        return b"a regular file in local format"
    if size > area.size:
        return b"its size is more than its inode has room for"
    area.layout = FORK_LOCAL
    return NULL


cdef const char* data_fork(const xfs_geometry_t* geometry, const uint8_t* raw, xfs_fork_area_t* area) noexcept nogil:
    cdef const xfs_dinode_t* inode = <const xfs_dinode_t*>raw
    cdef uint16_t kind = xfs_be16(inode.di_mode) & S_IFMT
    cdef uint32_t room = geometry.inode_size - core_size(inode)
    cdef uint32_t attr_offset = <uint32_t>inode.di_forkoff << 3
    area.layout = FORK_NONE
    area.bytes = raw + core_size(inode)
    area.size = attr_offset if attr_offset > 0 else room
    area.count = 0
    if attr_offset >= room:
        return b"its attribute fork begins outside the inode"
    if kind != S_IFREG and kind != S_IFDIR and kind != S_IFLNK:
        if inode.di_format != XFS_DINODE_FMT_DEV:
            return b"its fork has a format that its type has not"
        return NULL
    if kind == S_IFREG and xfs_be16(inode.di_flags) & XFS_DIFLAG_REALTIME and data_extents(inode) > 0:
        return b"a file of the realtime section, which is not supported"
    if inode.di_format == XFS_DINODE_FMT_LOCAL:
        return local_fork(kind, xfs_be64(inode.di_size), area)
    if inode.di_format == XFS_DINODE_FMT_EXTENTS:
        return fork_extents(data_extents(inode), area)
    if inode.di_format == XFS_DINODE_FMT_BTREE:
        area.layout = FORK_BTREE
        return NULL
    return b"its data fork has an unknown format"


cdef const char* attr_fork_area(const xfs_geometry_t* geometry, const uint8_t* raw,
                                xfs_fork_area_t* area) noexcept nogil:
    """An attribute fork begins at di_forkoff; it may be there and hold nothing."""
    cdef const xfs_dinode_t* inode = <const xfs_dinode_t*>raw
    cdef uint32_t offset = <uint32_t>inode.di_forkoff << 3
    cdef uint32_t room = geometry.inode_size - core_size(inode)
    area.layout = FORK_NONE
    area.count = 0
    if offset == 0:
        return NULL
    if offset >= room:
        return b"its attribute fork begins outside the inode"
    area.bytes = raw + core_size(inode) + offset
    area.size = room - offset
    if inode.di_aformat == XFS_DINODE_FMT_LOCAL:
        area.layout = FORK_LOCAL
        return NULL
    if inode.di_aformat == XFS_DINODE_FMT_EXTENTS:
        return fork_extents(attr_extents(inode), area)
    if inode.di_aformat == XFS_DINODE_FMT_BTREE:
        area.layout = FORK_BTREE
        return NULL
    return b"its attribute fork has an unknown format"
