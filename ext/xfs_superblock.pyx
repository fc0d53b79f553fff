"""xfs_superblock verifies the superblock of XFS and decodes it. It reads no device and judges no log.

Source: "XFS Algorithms & Data Structures", "Superblocks"; fs/xfs/libxfs/xfs_sb.c for the bounds.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.fault cimport FAULT_CORRUPT, FAULT_SHORT_DEVICE, FAULT_UNSUPPORTED, fault_t, set_fault
from splitreel.core.xfs_disk cimport (
    XFS_INCOMPAT,
    XFS_INCOMPAT_FTYPE,
    XFS_INCOMPAT_META_UUID,
    XFS_INCOMPAT_NEEDSREPAIR,
    XFS_INCOMPAT_SPINODES,
    XFS_LOG_INCOMPAT,
    XFS_RO_COMPAT,
    XFS_RO_COMPAT_REFLINK,
    XFS_SB_MAGIC,
    XFS_VERSION,
    XFS_VERSION2_FTYPE,
    XFS_VERSION_DIRV2BIT,
    XFS_VERSION_EXTFLGBIT,
    XFS_VERSION_MOREBITSBIT,
    XFS_VERSION_NUMBITS,
    xfs_be16,
    xfs_be32,
    xfs_be64,
    xfs_btree_lblock_t,
    xfs_btree_sblock_t,
    xfs_dsb_t,
    xfs_feature_t,
    xfs_load_crc,
)

cdef enum:
    CRC_OFFSET = 224                               # of sb_crc
    SHORT_HEADER_V4 = 16
    LONG_HEADER_V4 = 24
    MIN_AG_BYTES = 1 << 24
    MIN_AG_BLOCKS = 64                             # of the last group
    MAX_BLOCK_LOG = 16
    AG_HEADERS = 4                                 # sectors

cdef uint64_t MAX_AG_BYTES = <uint64_t>1 << 40


cdef bint xfs_crc_ok(const uint8_t* data, size_t length, size_t crc_offset) noexcept nogil:
    cdef uint32_t zero = 0
    cdef uint32_t crc = crc32c_update(crc32c_update(0, data, crc_offset), &zero, 4)
    crc = crc32c_update(crc, data + crc_offset + 4, length - crc_offset - 4)
    return not crc_differs(crc, xfs_load_crc(data + crc_offset))


cdef int refuse(fault_t* fault, const char* detail) noexcept nogil:
    return set_fault(fault, FAULT_CORRUPT, b"verifying the XFS superblock", 0, 0, detail)


cdef int unsupported(fault_t* fault, const char* detail) noexcept nogil:
    return set_fault(fault, FAULT_UNSUPPORTED, b"opening an XFS file system", 0, 0, detail)


# Features.

cdef int check_features(const xfs_feature_t* known, const char* kind, uint32_t features, fault_t* fault) noexcept nogil:
    """Refuses the first bit that is not read, unknown ones too, as the kernel does."""
    cdef const char* name = b"unknown"
    cdef uint32_t refused = 0
    cdef char text[128]
    while known.name != NULL:
        if features & known.bit and not known.supported and refused == 0:
            name, refused = known.name, known.bit
        features &= ~known.bit
        known += 1
    if refused == 0:
        refused = features & (~features + 1)
    if refused == 0:
        return 0
    snprintf(text, sizeof(text), b"%s feature %s (0x%x) is not supported", kind, name, refused)
    return unsupported(fault, text)


cdef int decode_version5(const xfs_dsb_t* raw, xfs_geometry_t* geometry, fault_t* fault) noexcept nogil:
    geometry.ro_compat = xfs_be32(raw.sb_features_ro_compat)
    geometry.incompat = xfs_be32(raw.sb_features_incompat)
    geometry.log_incompat = xfs_be32(raw.sb_features_log_incompat)
    if check_features(XFS_INCOMPAT, b"incompat", geometry.incompat, fault) < 0:
        return fault.code
    if geometry.incompat & XFS_INCOMPAT_NEEDSREPAIR:
        return unsupported(fault, b"needsrepair (0x10) is set, its metadata are known to be wrong: run xfs_repair")
    geometry.crc = geometry.extflg = True
    geometry.ftype = geometry.incompat & XFS_INCOMPAT_FTYPE != 0
    geometry.sparse_inodes = geometry.incompat & XFS_INCOMPAT_SPINODES != 0
    geometry.reflink = geometry.ro_compat & XFS_RO_COMPAT_REFLINK != 0
    memcpy(geometry.meta_uuid, raw.sb_uuid, 16)
    if geometry.incompat & XFS_INCOMPAT_META_UUID:
        memcpy(geometry.meta_uuid, raw.sb_meta_uuid, 16)
    return 0


cdef int decode_version4(const xfs_dsb_t* raw, xfs_geometry_t* geometry, fault_t* fault) noexcept nogil:
    """sb_bad_features2 is where kernels up to 2.6.25 kept sb_features2 on some machines."""
    cdef uint32_t bits = geometry.version_bits & ~<uint32_t>XFS_VERSION_NUMBITS
    if geometry.version_bits & XFS_VERSION_MOREBITSBIT:
        geometry.features2 = xfs_be32(raw.sb_features2) | xfs_be32(raw.sb_bad_features2)
    if geometry.features2 >> 16:
        return unsupported(fault, b"unknown bits in sb_features2")
    if check_features(XFS_VERSION, b"version 4", bits | geometry.features2 << 16, fault) < 0:
        return fault.code
    if not geometry.version_bits & XFS_VERSION_DIRV2BIT:
        return unsupported(fault, b"directories of version 1 are not supported")
    geometry.ftype = geometry.features2 & XFS_VERSION2_FTYPE != 0
    geometry.extflg = geometry.version_bits & XFS_VERSION_EXTFLGBIT != 0
    memcpy(geometry.meta_uuid, raw.sb_uuid, 16)
    return 0


cdef int decode_features(const uint8_t* sector, xfs_geometry_t* geometry, fault_t* fault) noexcept nogil:
    """The checksum of version 5 comes first: it covers the feature words."""
    cdef const xfs_dsb_t* raw = <const xfs_dsb_t*>sector
    if xfs_be32(raw.sb_magicnum) != XFS_SB_MAGIC:
        return refuse(fault, b"no magic number XFSB: this is no XFS file system")
    geometry.version_bits = xfs_be16(raw.sb_versionnum)
    geometry.version = geometry.version_bits & XFS_VERSION_NUMBITS
    if geometry.version < 4:
        return unsupported(fault, b"version 1 to 3 of XFS (IRIX) is not supported")
    if geometry.version > 5:
        return unsupported(fault, b"sb_versionnum is above 5")
    geometry.sector_size = xfs_be16(raw.sb_sectsize)
    if (geometry.sector_size < 512 or geometry.sector_size > XFS_MAX_SECTOR or raw.sb_sectlog > 15
            or geometry.sector_size != <uint32_t>1 << raw.sb_sectlog):
        return refuse(fault, b"sb_sectsize is no power of two from 512 to 32768")
    if geometry.version == 4:
        return decode_version4(raw, geometry, fault)
    if not xfs_crc_ok(sector, geometry.sector_size, CRC_OFFSET):
        return refuse(fault, b"its checksum does not match; a secondary superblock may be good (xfs_repair)")
    return decode_version5(raw, geometry, fault)


# Sizes.

cdef int decode_sizes(const xfs_dsb_t* raw, xfs_geometry_t* geometry, fault_t* fault) noexcept nogil:
    """Sizes of block, inode and directory block, each a power of two within its range."""
    cdef uint32_t least = 512 if geometry.crc else 256
    geometry.block_size = xfs_be32(raw.sb_blocksize)
    geometry.block_log = raw.sb_blocklog
    if (geometry.block_log < 9 or geometry.block_log > MAX_BLOCK_LOG
            or geometry.block_size != <uint32_t>1 << geometry.block_log):
        return refuse(fault, b"sb_blocksize is no power of two from 512 to 65536")
    if geometry.sector_size > geometry.block_size:
        return refuse(fault, b"sb_sectsize is above sb_blocksize")
    geometry.inode_size = xfs_be16(raw.sb_inodesize)
    if (geometry.inode_size < least or geometry.inode_size > 2048 or geometry.inode_size > geometry.block_size
            or raw.sb_inodelog > 11 or geometry.inode_size != <uint32_t>1 << raw.sb_inodelog):
        return refuse(fault, b"sb_inodesize is no power of two from 256 (version 5: 512) to 2048, or above the block")
    geometry.inopblog = raw.sb_inopblog
    if (geometry.inopblog != geometry.block_log - raw.sb_inodelog
            or xfs_be16(raw.sb_inopblock) != geometry.block_size // geometry.inode_size):
        return refuse(fault, b"sb_inopblock is not inodes a block")
    geometry.dirblklog = raw.sb_dirblklog
    if <int>geometry.dirblklog + geometry.block_log > MAX_BLOCK_LOG:
        return refuse(fault, b"directory blocks (sb_dirblklog) are larger than 65536 bytes")
    geometry.dir_block_size = geometry.block_size << geometry.dirblklog
    geometry.btree_header = sizeof(xfs_btree_sblock_t) if geometry.crc else <uint32_t>SHORT_HEADER_V4
    geometry.btree_long_header = sizeof(xfs_btree_lblock_t) if geometry.crc else <uint32_t>LONG_HEADER_V4
    return 0


cdef uint32_t log_up(uint32_t value) noexcept nogil:
    """The least power of two that is not below value, as its exponent."""
    cdef uint32_t exponent = 0
    while exponent < 32 and <uint64_t>1 << exponent < value:
        exponent += 1
    return exponent


cdef int decode_groups(const xfs_dsb_t* raw, xfs_geometry_t* geometry, fault_t* fault) noexcept nogil:
    cdef uint64_t ag_bytes
    geometry.block_count = xfs_be64(raw.sb_dblocks)
    geometry.ag_blocks = xfs_be32(raw.sb_agblocks)
    geometry.ag_count = xfs_be32(raw.sb_agcount)
    geometry.agblklog = raw.sb_agblklog
    ag_bytes = <uint64_t>geometry.ag_blocks << geometry.block_log
    if ag_bytes < MIN_AG_BYTES or ag_bytes > MAX_AG_BYTES or geometry.ag_blocks < MIN_AG_BLOCKS:
        return refuse(fault, b"sb_agblocks is out of range: a group has 16 MiB to 1 TiB")
    if geometry.agblklog != log_up(geometry.ag_blocks):
        return refuse(fault, b"sb_agblklog does not go with sb_agblocks")
    if (geometry.ag_count == 0 or geometry.block_count > <uint64_t>geometry.ag_blocks * geometry.ag_count
            or geometry.block_count < <uint64_t>geometry.ag_blocks * (geometry.ag_count - 1) + MIN_AG_BLOCKS):
        return refuse(fault, b"sb_dblocks is not what sb_agcount groups hold")
    geometry.last_ag_blocks = <uint32_t>(geometry.block_count - <uint64_t>geometry.ag_blocks * (geometry.ag_count - 1))
    geometry.agino_log = geometry.agblklog + geometry.inopblog
    if geometry.agino_log > 32:
        return refuse(fault, b"inode numbers of a group do not fit 32 bits")
    geometry.first_ag_block = (AG_HEADERS - 1) * geometry.sector_size // geometry.block_size + 1
    return 0


cdef int check_device(const xfs_geometry_t* geometry, uint64_t device_size, fault_t* fault) noexcept nogil:
    cdef char text[128]
    if geometry.block_count <= device_size >> geometry.block_log:
        return 0
    snprintf(text, sizeof(text), b"the device is shorter than the file system: %llu bytes, %llu blocks of %u",
             <unsigned long long>device_size, <unsigned long long>geometry.block_count, geometry.block_size)
    return set_fault(fault, FAULT_SHORT_DEVICE, b"opening an XFS file system", 0, 0, text)


cdef int decode_inodes(const xfs_dsb_t* raw, xfs_geometry_t* geometry, fault_t* fault) noexcept nogil:
    """Inode 0 does not exist and no inode is ~0: what is not set hides nothing."""
    geometry.root_inode = xfs_be64(raw.sb_rootino)
    geometry.hidden[0] = xfs_be64(raw.sb_rbmino)
    geometry.hidden[1] = xfs_be64(raw.sb_rsumino)
    geometry.hidden[2] = xfs_be64(raw.sb_uquotino)
    geometry.hidden[3] = xfs_be64(raw.sb_gquotino)
    geometry.hidden[4] = xfs_be64(raw.sb_pquotino) if geometry.crc else 0
    if not xfs_valid_inode(geometry, geometry.root_inode):
        return refuse(fault, b"sb_rootino lies outside the file system")
    return 0


cdef int decode_log(const xfs_dsb_t* raw, xfs_geometry_t* geometry, fault_t* fault) noexcept nogil:
    geometry.log_start = xfs_be64(raw.sb_logstart)
    geometry.log_blocks = xfs_be32(raw.sb_logblocks)
    if geometry.log_start != 0 and not xfs_valid_blocks(geometry, geometry.log_start, geometry.log_blocks):
        return refuse(fault, b"the log (sb_logstart, sb_logblocks) lies outside its group")
    return 0


cdef int decode_superblock(const uint8_t* sector, uint64_t device_size, xfs_geometry_t* geometry,
                           fault_t* fault) noexcept nogil:
    """Everything that later code relies on; nothing of it is used before it was verified."""
    cdef const xfs_dsb_t* raw = <const xfs_dsb_t*>sector
    memset(geometry, 0, sizeof(xfs_geometry_t))
    memcpy(geometry.uuid, raw.sb_uuid, 16)
    if decode_features(sector, geometry, fault) < 0:
        return fault.code
    if raw.sb_inprogress != 0:
        return refuse(fault, b"sb_inprogress is set: mkfs or xfs_copy did not come to its end")
    if (decode_sizes(raw, geometry, fault) < 0 or decode_groups(raw, geometry, fault) < 0
            or check_device(geometry, device_size, fault) < 0 or decode_inodes(raw, geometry, fault) < 0
            or decode_log(raw, geometry, fault) < 0):
        return fault.code
    geometry.rt_blocks = xfs_be64(raw.sb_rblocks)
    return 0


# What Python sees.

cdef list names_of(const xfs_feature_t* known, uint32_t features):
    names = []
    while known.name != NULL:
        if features & known.bit:
            names.append(known.name.decode())
            features &= ~known.bit
        known += 1
    while features:
        names.append(f"unknown 0x{features & -features:x}")
        features &= features - 1
    return names


cdef object feature_names(const xfs_geometry_t* geometry):
    """{"version": [names of version 4's bits], "incompat": [...], "ro_compat": [...], "log_incompat": [...]}."""
    bits = (geometry.version_bits & ~<uint32_t>XFS_VERSION_NUMBITS) | geometry.features2 << 16
    return {
        "version": names_of(XFS_VERSION, 0 if geometry.crc else bits),
        "incompat": names_of(XFS_INCOMPAT, geometry.incompat),
        "ro_compat": names_of(XFS_RO_COMPAT, geometry.ro_compat),
        "log_incompat": names_of(XFS_LOG_INCOMPAT, geometry.log_incompat),
    }


cdef object geometry_warnings(const xfs_geometry_t* geometry):
    """What does not hinder reading but should be said once."""
    cdef const xfs_feature_t* known = XFS_RO_COMPAT
    cdef uint32_t unknown = geometry.ro_compat
    warnings = []
    while known.name != NULL:
        unknown &= ~known.bit
        known += 1
    if unknown:
        warnings.append(f"unknown ro_compat features 0x{unknown:x}: read as if they were not there")
    if geometry.rt_blocks:
        warnings.append("it has a realtime section: files in it are not read")
    return warnings
