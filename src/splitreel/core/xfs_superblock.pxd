# xfs_superblock: the superblock, verified, as one xfs_geometry_t that the others read; where blocks and inodes are.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.fault cimport fault_t

cdef enum:
    XFS_MAX_SECTOR = 32768                         # bytes; what decode_superblock takes

cdef struct xfs_geometry_t:
    uint64_t block_count                           # of the data section
    uint64_t root_inode
    uint64_t hidden[5]                             # realtime bitmap and summary, quota: never files
    uint64_t log_start                             # block number as XFS counts; 0: an external log
    uint64_t rt_blocks                             # of the realtime section
    uint32_t block_size                            # bytes, as all sizes here
    uint32_t sector_size
    uint32_t inode_size
    uint32_t dir_block_size
    uint32_t ag_blocks                             # of every group but the last
    uint32_t last_ag_blocks
    uint32_t ag_count
    uint32_t first_ag_block                        # of a group, that is no header
    uint32_t log_blocks
    uint32_t btree_header                          # bytes of a short form block's header
    uint32_t btree_long_header
    uint8_t block_log
    uint8_t inopblog                               # inodes a block
    uint8_t agblklog
    uint8_t dirblklog                              # blocks a directory block
    uint8_t agino_log                              # bits of an inode number below its group
    uint8_t version                                # 4 or 5
    uint16_t version_bits                          # sb_versionnum
    uint32_t features2                             # sb_features2, of version 4
    uint32_t ro_compat, incompat, log_incompat     # of version 5
    bint crc                                       # version 5: checksums, owners, UUIDs
    bint ftype                                     # directory entries state types
    bint sparse_inodes
    bint reflink
    bint extflg                                    # extents may be unwritten
    uint8_t uuid[16]
    uint8_t meta_uuid[16]                          # what metadata blocks bear

# What is known of how the image came to be; a live one need not be clean.
cdef enum xfs_trust_t:
    TRUST_CLEAN = 0
    TRUST_FROZEN = 1
    TRUST_LIVE = 2

# sector: XFS_MAX_SECTOR bytes from the start of the device.
cdef int decode_superblock(const uint8_t* sector, uint64_t device_size, xfs_geometry_t* geometry,
                           fault_t* fault) noexcept nogil
# CRC-32C of length bytes, the four at crc_offset as zeros; stored little-endian.
cdef bint xfs_crc_ok(const uint8_t* data, size_t length, size_t crc_offset) noexcept nogil
cdef object feature_names(const xfs_geometry_t* geometry)
cdef object geometry_warnings(const xfs_geometry_t* geometry)

# Block numbers are group << agblklog | block of the group: not linear. Everything below takes a block_count, inode or
# block of any value, and valid ones only after xfs_valid_….

cdef inline uint32_t xfs_ag_size(const xfs_geometry_t* geometry, uint64_t group) noexcept nogil:
    """Blocks of a group that exists."""
    return geometry.last_ag_blocks if group + 1 == geometry.ag_count else geometry.ag_blocks

cdef inline bint xfs_valid_blocks(const xfs_geometry_t* geometry, uint64_t block, uint64_t count) noexcept nogil:
    """count blocks, at least one, lie in one group and behind its headers."""
    cdef uint64_t group = block >> geometry.agblklog
    cdef uint64_t first = block & ((<uint64_t>1 << geometry.agblklog) - 1)
    if group >= geometry.ag_count or first < geometry.first_ag_block or first >= xfs_ag_size(geometry, group):
        return False
    return count > 0 and count <= xfs_ag_size(geometry, group) - first

cdef inline uint64_t xfs_linear_block(const xfs_geometry_t* geometry, uint64_t block) noexcept nogil:
    """Number of a valid block from the start of the device: what extents of a map count."""
    cdef uint64_t first = block & ((<uint64_t>1 << geometry.agblklog) - 1)
    return (block >> geometry.agblklog) * geometry.ag_blocks + first

cdef inline uint64_t xfs_block_offset(const xfs_geometry_t* geometry, uint64_t block) noexcept nogil:
    """Bytes on the device."""
    return xfs_linear_block(geometry, block) << geometry.block_log

cdef inline bint xfs_valid_inode(const xfs_geometry_t* geometry, uint64_t inode) noexcept nogil:
    return xfs_valid_blocks(geometry, inode >> geometry.inopblog, 1)

cdef inline uint64_t xfs_inode_offset(const xfs_geometry_t* geometry, uint64_t inode) noexcept nogil:
    """Bytes on the device of a valid inode."""
    cdef uint64_t index = inode & ((<uint64_t>1 << geometry.inopblog) - 1)
    return xfs_block_offset(geometry, inode >> geometry.inopblog) + index * geometry.inode_size
