"""xfs_fork finds and verifies blocks of a fork that was read, and joins what lies in several. It reads no device.

Source: "XFS Algorithms & Data Structures", Self Describing Metadata; fs/xfs/libxfs/xfs_attr_remote.c and
xfs_symlink_remote.c: a value has a header in each of its blocks, a symlink target one in each of its extents.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy

from splitreel.core.fault cimport FAULT_MISUSE, FAULT_NO_MEMORY, fault_t, raise_fault, set_fault
from splitreel.core.xfs_disk cimport xfs_be32, xfs_load64
from splitreel.core.xfs_names_disk cimport (
    XFS_ATTR3_RMT_MAGIC,
    XFS_REMOTE_SELF,
    XFS_SYMLINK_MAGIC,
    XFS_SYMLINK_MAXLEN,
    xfs_attr3_rmt_hdr_t,
    xfs_self_t,
)
from splitreel.core.xfs_superblock cimport XFS_MAX_SECTOR, decode_superblock, xfs_crc_ok

cdef enum:
    DADDR_LOG = 9                                  # blocks name their place in units of 512 bytes, whatever a sector is
    HEADER = 56                                    # bytes of xfs_attr3_rmt_hdr_t


# Blocks.

cdef int open_fork(xfs_fork_t* fork, const xfs_geometry_t* geometry, uint64_t owner, const extent_t* extents,
                   uint32_t count, const uint8_t* bytes, fault_t* fault) noexcept nogil:
    cdef uint32_t i
    fork.geometry = geometry
    fork.owner = owner
    fork.extents = extents
    fork.extent_count = count
    fork.bytes = bytes
    fork.block_count = 0
    fork.starts = <uint64_t*>malloc((<size_t>count + 1) * sizeof(uint64_t))
    if fork.starts == NULL:
        return set_fault(fault, FAULT_NO_MEMORY, b"reading extended attributes", owner, 0, NULL)
    for i in range(count):
        fork.starts[i] = fork.block_count
        fork.block_count += extents[i].count
    return 0


cdef void close_fork(xfs_fork_t* fork) noexcept nogil:
    free(fork.starts)
    fork.starts = NULL


cdef const uint8_t* fork_block(const xfs_fork_t* fork, uint64_t logical, uint64_t* physical) noexcept nogil:
    cdef uint32_t low = 0, high = fork.extent_count, middle
    cdef const extent_t* extent
    while low < high:
        middle = low + (high - low) // 2
        extent = &fork.extents[middle]
        if logical < extent.logical:
            high = middle
        elif logical - extent.logical >= extent.count:
            low = middle + 1
        else:
            logical -= extent.logical
            physical[0] = extent.physical + logical
            return fork.bytes + (fork.starts[middle] + logical) * fork.geometry.block_size
    return NULL


cdef const char* verify_self(const xfs_geometry_t* geometry, const xfs_self_t* at, const uint8_t* data, uint32_t size,
                             uint64_t block, uint64_t owner) noexcept nogil:
    if not xfs_crc_ok(data, size, at.crc):
        return b"a metadata block's checksum does not match"
    if memcmp(data + at.uuid, geometry.meta_uuid, 16) != 0:
        return b"a metadata block of another file system"
    if xfs_load64(data + at.blkno) != block << (geometry.block_log - DADDR_LOG):
        return b"a metadata block that belongs elsewhere"
    if xfs_load64(data + at.owner) != owner:
        return b"a metadata block of another inode"
    return NULL


# What lies in several blocks.

cdef const char* verify_piece(const xfs_geometry_t* geometry, const uint8_t* data, uint32_t room, uint64_t block,
                              uint64_t owner, uint32_t magic, uint32_t offset, uint32_t size) noexcept nogil:
    """Version 5: the header of room bytes that hold size bytes of a value, from offset on."""
    cdef const xfs_attr3_rmt_hdr_t* header = <const xfs_attr3_rmt_hdr_t*>data
    if xfs_be32(header.rm_magic) != magic:
        return b"a block of a remote value without its magic number"
    if xfs_be32(header.rm_offset) != offset or xfs_be32(header.rm_bytes) != size:
        return b"a block of a remote value that holds another part of it"
    return verify_self(geometry, &XFS_REMOTE_SELF, data, room, block, owner)


cdef const char* remote_value(const xfs_fork_t* fork, uint64_t logical, uint32_t size, uint8_t* out) noexcept nogil:
    cdef const xfs_geometry_t* geometry = fork.geometry
    cdef uint32_t header = HEADER if geometry.crc else 0
    cdef uint32_t done = 0, piece
    cdef const uint8_t* data
    cdef const char* text
    cdef uint64_t block
    while done < size:
        piece = min(size - done, geometry.block_size - header)
        data = fork_block(fork, logical, &block)
        if data == NULL:
            return b"a block of an extended attribute's value is not mapped"
        if geometry.crc:
            text = verify_piece(geometry, data, geometry.block_size, block, fork.owner, XFS_ATTR3_RMT_MAGIC, done,
                                piece)
            if text != NULL:
                return text
        memcpy(out + done, data + header, piece)
        done += piece
        logical += 1
    return NULL


cdef const char* symlink_target(const xfs_geometry_t* geometry, uint64_t owner, const extent_t* extents,
                                uint32_t count, const uint8_t* bytes, uint32_t size, uint8_t* out) noexcept nogil:
    cdef uint32_t header = HEADER if geometry.crc else 0
    cdef uint32_t done = 0, room, piece, i
    # As many blocks as there would be if each had a header: an extent's checksum ends there.
    cdef uint32_t left = (size + geometry.block_size - header - 1) // (geometry.block_size - header)
    cdef uint64_t logical = 0
    cdef const char* text
    if size == 0 or size > XFS_SYMLINK_MAXLEN:
        return b"a symlink without a target, or with one of more than 1024 bytes"
    for i in range(count):
        if done == size or left == 0 or extents[i].logical != logical or extents[i].count == 0:
            break
        room = min(left, extents[i].count)
        logical += room
        left -= room
        room *= geometry.block_size
        piece = min(size - done, room - header)
        if geometry.crc:
            text = verify_piece(geometry, bytes, room, extents[i].physical, owner, XFS_SYMLINK_MAGIC, done, piece)
            if text != NULL:
                return text
        memcpy(out + done, bytes + header, piece)
        done += piece
        bytes += <size_t>extents[i].count * geometry.block_size
    if done < size:
        return b"a symlink's blocks are not all mapped"
    if memchr(out, 0, size) != NULL:
        return b"a symlink whose target holds a null byte"
    return NULL


# For tests.

cdef int geometry_of(bytes sector, xfs_geometry_t* geometry) except -1:
    """The geometry of a superblock; the device is taken to be long enough."""
    cdef fault_t fault
    if len(sector) < XFS_MAX_SECTOR:
        set_fault(&fault, FAULT_MISUSE, b"decoding a superblock", 0, 0, b"32768 bytes from the start of the device")
        return raise_fault(&fault)
    if decode_superblock(<const uint8_t*><const char*>sector, <uint64_t>1 << 62, geometry, &fault) < 0:
        return raise_fault(&fault)
    return 0


cdef extent_t* extents_of(list rows, uint64_t block_count) except NULL:
    """(logical, physical, count) of each; together they are block_count blocks. The caller frees them."""
    cdef fault_t fault
    cdef extent_t* extents
    if sum(row[2] for row in rows) != block_count:
        set_fault(&fault, FAULT_MISUSE, b"reading a fork", 0, 0, b"the extents are not as long as the bytes")
        raise_fault(&fault)
    extents = <extent_t*>calloc(len(rows) + 1, sizeof(extent_t))
    if extents == NULL:
        raise MemoryError
    for i, (logical, physical, count) in enumerate(rows):
        extents[i].logical, extents[i].physical, extents[i].count = logical, physical, count
    return extents


def join_target(bytes sector not None, uint64_t owner, list extents not None, bytes blocks not None, uint32_t size):
    """(target or None, text of what is wrong or None) of a symlink in blocks; for tests. extents: (logical, physical,
    count) in blocks of the file system whose first 32768 bytes are sector.

    Raises:
        Corrupt, Unsupported: the superblock is not one that is read.
        Misuse: the extents are not as long as the blocks.
    """
    cdef xfs_geometry_t geometry
    cdef uint8_t out[XFS_SYMLINK_MAXLEN]
    cdef extent_t* rows
    cdef const char* text
    geometry_of(sector, &geometry)
    rows = extents_of(extents, len(blocks) // geometry.block_size)
    text = symlink_target(&geometry, owner, rows, len(extents), <const uint8_t*><const char*>blocks, size, out)
    free(rows)
    return (<bytes>out[:size], None) if text == NULL else (None, text.decode())
