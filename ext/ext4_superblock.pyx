"""ext4_superblock verifies the superblock of ext2, ext3 or ext4 and decodes it. It reads no device.

Source: Linux Documentation/filesystems/ext4, "Super Block"; fs/ext4/super.c for the bounds.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    COMPAT_HAS_JOURNAL,
    COMPAT_ORPHAN_FILE,
    EXT4_COMPAT,
    EXT4_INCOMPAT,
    EXT4_REFUSED,
    EXT4_RO_COMPAT,
    EXT4_WARNED,
    INCOMPAT_64BIT,
    INCOMPAT_CSUM_SEED,
    INCOMPAT_FILETYPE,
    INCOMPAT_JOURNAL_DEV,
    INCOMPAT_META_BG,
    INCOMPAT_MMP,
    INCOMPAT_RECOVER,
    RO_COMPAT_BIGALLOC,
    RO_COMPAT_GDT_CSUM,
    RO_COMPAT_METADATA_CSUM,
    ext4_feature_t,
    ext4_le16,
    ext4_le32,
    ext4_le64,
    ext4_mmp_t,
    ext4_superblock_t,
)
from splitreel.core.fault cimport (
    FAULT_CORRUPT,
    FAULT_NEEDS_RECOVERY,
    FAULT_SHORT_DEVICE,
    FAULT_UNSUPPORTED,
    fault_t,
    set_fault,
)

cdef enum:
    SUPERBLOCK_OFFSET = 1024
    SUPERBLOCK_MAGIC = 0xEF53
    MMP_MAGIC = 0x004D4D50
    MMP_SEQ_CLEAN = 0xFF4D4D50
    MMP_SEQ_FSCK = 0xE24D4D50
    EXT3_RO_COMPAT = 0x7                           # sparse_super, large_file, btree_dir
    CHECKSUM_CRC32C = 1
    STATE_VALID = 1
    STATE_ERROR = 2
    GOOD_OLD_FIRST_INO = 11
    GOOD_OLD_INODE_SIZE = 128
    GOOD_OLD_DESC_SIZE = 32
    MAX_LOG_CLUSTER_SIZE = 20                      # 1 GiB
    MIN_BLOCKS_PER_GROUP = 256                     # mke2fs -g takes no less; bounds the number of groups


cdef int refuse(fault_t* fault, const char* detail) noexcept nogil:
    return set_fault(fault, FAULT_CORRUPT, b"verifying the ext4 superblock", 0, SUPERBLOCK_OFFSET, detail)


cdef int refuse_feature(fault_t* fault, const char* kind, const char* name, uint32_t bit) noexcept nogil:
    cdef char text[128]
    snprintf(text, sizeof(text), b"%s feature %s (0x%x) is not supported", kind, name, bit)
    return set_fault(fault, FAULT_UNSUPPORTED, b"opening an ext4 file system", 0, SUPERBLOCK_OFFSET, text)


# Features.

cdef int refuse_journal_device(fault_t* fault) noexcept nogil:
    return set_fault(fault, FAULT_UNSUPPORTED, b"opening an ext4 file system", 0, SUPERBLOCK_OFFSET,
                     b"incompat feature journal_dev (0x8): this is an external journal, not the file system it is for")


cdef int check_incompat(uint32_t features, fault_t* fault) noexcept nogil:
    """Refuses the first bit that is not read, unknown ones too, as both kernels do."""
    cdef const ext4_feature_t* known = EXT4_INCOMPAT
    cdef uint32_t rest = features
    if features & INCOMPAT_JOURNAL_DEV:
        return refuse_journal_device(fault)
    while known.name != NULL:
        if features & known.bit and known.use == EXT4_REFUSED:
            return refuse_feature(fault, b"incompat", known.name, known.bit)
        rest &= ~known.bit
        known += 1
    if rest != 0:
        return refuse_feature(fault, b"incompat", b"unknown", rest & (~rest + 1))
    return 0


cdef int check_ro_compat(uint32_t features, fault_t* fault) noexcept nogil:
    cdef const ext4_feature_t* known = EXT4_RO_COMPAT
    while known.name != NULL:
        if features & known.bit and known.use == EXT4_REFUSED:
            return refuse_feature(fault, b"ro_compat", known.name, known.bit)
        known += 1
    return 0


cdef uint32_t unknown_bits(const ext4_feature_t* known, uint32_t features) noexcept nogil:
    while known.name != NULL:
        features &= ~known.bit
        known += 1
    return features


# Superblock.

cdef int check_checksum(const ext4_superblock_t* raw, fault_t* fault) noexcept nogil:
    """crc32c(~0, everything before s_checksum), without the final inversion."""
    cdef uint32_t crc = ~crc32c_update(0, raw, sizeof(ext4_superblock_t) - 4)
    if raw.s_checksum_type != CHECKSUM_CRC32C:
        return refuse(fault, b"s_checksum_type is not crc32c")
    if crc_differs(ext4_le32(raw.s_checksum), crc):
        return refuse(fault, b"its checksum does not match; one of its copies may (mke2fs -n, e2fsck -b)")
    return 0


cdef int decode_features(const ext4_superblock_t* raw, ext4_geometry_t* geometry, fault_t* fault) noexcept nogil:
    """The feature words count in revision 0 too, where they should be zero: the kernel and e2fsck go by them."""
    cdef uint32_t revision = ext4_le32(raw.s_rev_level)
    cdef int rc
    if ext4_le16(raw.s_magic) != SUPERBLOCK_MAGIC:
        return refuse(fault, b"no magic number 0xEF53: this is no ext2, ext3 or ext4 file system")
    if revision > 1:
        return set_fault(fault, FAULT_UNSUPPORTED, b"opening an ext4 file system", 0, SUPERBLOCK_OFFSET,
                         b"s_rev_level is above 1")
    geometry.revision = revision
    geometry.compat = ext4_le32(raw.s_feature_compat)
    geometry.incompat = ext4_le32(raw.s_feature_incompat)
    geometry.ro_compat = ext4_le32(raw.s_feature_ro_compat)
    geometry.metadata_csum = geometry.ro_compat & RO_COMPAT_METADATA_CSUM != 0
    geometry.gdt_csum = geometry.ro_compat & RO_COMPAT_GDT_CSUM != 0 and not geometry.metadata_csum
    geometry.filetype = geometry.incompat & INCOMPAT_FILETYPE != 0
    if geometry.metadata_csum and check_checksum(raw, fault) < 0:
        return fault.code
    rc = check_incompat(geometry.incompat, fault)
    return rc if rc < 0 else check_ro_compat(geometry.ro_compat, fault)


cdef int decode_sizes(const ext4_superblock_t* raw, ext4_geometry_t* geometry, fault_t* fault) noexcept nogil:
    """Sizes of block, inode and group descriptor, each a power of two within its range."""
    cdef uint32_t shift = ext4_le32(raw.s_log_block_size)
    cdef bint wide = geometry.incompat & INCOMPAT_64BIT != 0
    if shift > 6:
        return refuse(fault, b"s_log_block_size is above 6")
    geometry.block_size = <uint32_t>1024 << shift
    geometry.superblock_block = SUPERBLOCK_OFFSET // geometry.block_size
    geometry.inode_size = GOOD_OLD_INODE_SIZE
    geometry.first_ino = GOOD_OLD_FIRST_INO
    if ext4_le32(raw.s_rev_level) >= 1:
        geometry.inode_size = ext4_le16(raw.s_inode_size)
        geometry.first_ino = ext4_le32(raw.s_first_ino)
    if (geometry.inode_size < GOOD_OLD_INODE_SIZE or geometry.inode_size > geometry.block_size
            or geometry.inode_size & (geometry.inode_size - 1)):
        return refuse(fault, b"s_inode_size is no power of two from 128 to the block size")
    geometry.desc_size = ext4_le16(raw.s_desc_size) if wide else <uint32_t>GOOD_OLD_DESC_SIZE
    if wide and (geometry.desc_size < 64 or geometry.desc_size > 1024 or geometry.desc_size & (geometry.desc_size - 1)):
        return refuse(fault, b"s_desc_size is no power of two from 64 to 1024")
    if geometry.first_ino < GOOD_OLD_FIRST_INO:
        return refuse(fault, b"s_first_ino is below 11")
    return 0


cdef int decode_clusters(const ext4_superblock_t* raw, ext4_geometry_t* geometry, fault_t* fault) noexcept nogil:
    """With bigalloc bitmaps count in clusters; extents and all else stay in blocks. Else a cluster is a block."""
    cdef uint32_t block = ext4_le32(raw.s_log_block_size)
    cdef uint32_t cluster = ext4_le32(raw.s_log_cluster_size)
    geometry.cluster_size = geometry.block_size
    if not geometry.ro_compat & RO_COMPAT_BIGALLOC:
        return 0
    if cluster < block or cluster > MAX_LOG_CLUSTER_SIZE:
        return refuse(fault, b"s_log_cluster_size is below s_log_block_size or above 20")
    geometry.cluster_size = <uint32_t>1024 << cluster
    return 0


cdef int decode_groups(const ext4_superblock_t* raw, ext4_geometry_t* geometry, fault_t* fault) noexcept nogil:
    cdef uint32_t per_block = geometry.block_size // geometry.inode_size
    cdef uint32_t ratio
    geometry.block_count = ext4_le32(raw.s_blocks_count_lo)
    if geometry.incompat & INCOMPAT_64BIT:
        geometry.block_count |= <uint64_t>ext4_le32(raw.s_blocks_count_hi) << 32
    if decode_clusters(raw, geometry, fault) < 0:
        return fault.code
    geometry.first_data_block = ext4_le32(raw.s_first_data_block)
    ratio = geometry.cluster_size // geometry.block_size
    geometry.blocks_per_group = ext4_le32(raw.s_blocks_per_group)
    geometry.inodes_per_group = ext4_le32(raw.s_inodes_per_group)
    geometry.inode_count = ext4_le32(raw.s_inodes_count)
    if geometry.block_count >> 48:
        return refuse(fault, b"s_blocks_count is above 2^48")
    if geometry.first_data_block != (1 if geometry.block_size == 1024 else 0):
        if geometry.first_data_block != 0 or not geometry.ro_compat & RO_COMPAT_BIGALLOC:
            return refuse(fault, b"s_first_data_block does not go with the block size")
    if (geometry.blocks_per_group < MIN_BLOCKS_PER_GROUP
            or geometry.blocks_per_group > <uint64_t>8 * geometry.block_size * ratio):
        return refuse(fault, b"s_blocks_per_group is out of range")
    if ratio > 1 and geometry.blocks_per_group != ext4_le32(raw.s_clusters_per_group) * <uint64_t>ratio:
        return refuse(fault, b"s_blocks_per_group is not s_clusters_per_group in blocks")
    if (geometry.inodes_per_group < per_block or geometry.inodes_per_group > 8 * geometry.block_size
            or geometry.inodes_per_group % per_block != 0
            or geometry.inodes_per_group // per_block >= geometry.blocks_per_group):
        return refuse(fault, b"s_inodes_per_group is out of range")
    if geometry.block_count <= geometry.first_data_block:
        return refuse(fault, b"s_blocks_count is too small")
    geometry.group_count = (geometry.block_count - geometry.first_data_block + geometry.blocks_per_group - 1)
    geometry.group_count //= geometry.blocks_per_group
    if geometry.group_count * geometry.inodes_per_group != geometry.inode_count:
        return refuse(fault, b"s_inodes_count is not groups times inodes a group")
    if geometry.first_ino > geometry.inode_count:  # of one group it may well be: mke2fs -N
        return refuse(fault, b"s_first_ino is above s_inodes_count")
    return decode_layout(raw, geometry, fault)


cdef int decode_layout(const ext4_superblock_t* raw, ext4_geometry_t* geometry, fault_t* fault) noexcept nogil:
    """What says where the descriptors and the copies of the superblock stand."""
    cdef uint64_t per_block = geometry.block_size // geometry.desc_size
    geometry.first_meta_bg = ext4_le32(raw.s_first_meta_bg)
    geometry.reserved_gdt_blocks = ext4_le16(raw.s_reserved_gdt_blocks)
    geometry.backup_groups[0] = ext4_le32(raw.s_backup_bgs[0])
    geometry.backup_groups[1] = ext4_le32(raw.s_backup_bgs[1])
    if geometry.incompat & INCOMPAT_MMP:
        geometry.mmp_block = ext4_le64(raw.s_mmp_block)
        if geometry.mmp_block <= geometry.first_data_block or geometry.mmp_block >= geometry.block_count:
            return refuse(fault, b"s_mmp_block lies outside the file system")
    if (geometry.incompat & INCOMPAT_META_BG
            and geometry.first_meta_bg > (geometry.group_count + per_block - 1) // per_block):
        return refuse(fault, b"s_first_meta_bg is above the number of descriptor blocks")
    return 0


cdef int check_extent(const ext4_geometry_t* geometry, uint64_t device_size, fault_t* fault) noexcept nogil:
    """The file system and its descriptors lie inside the device."""
    cdef uint64_t descriptors = geometry.group_count * geometry.desc_size
    cdef bint together = not geometry.incompat & INCOMPAT_META_BG
    cdef char text[128]
    if geometry.block_count > device_size // geometry.block_size:
        snprintf(text, sizeof(text), b"the device is shorter than the file system: %llu bytes, %llu blocks of %u",
                 <unsigned long long>device_size, <unsigned long long>geometry.block_count, geometry.block_size)
        return set_fault(fault, FAULT_SHORT_DEVICE, b"opening an ext4 file system", 0, SUPERBLOCK_OFFSET, text)
    if together and descriptors // geometry.block_size + geometry.superblock_block + 2 > geometry.block_count:
        return refuse(fault, b"the group descriptors do not fit the file system")
    return 0


cdef int check_state(const ext4_geometry_t* geometry, int trust, fault_t* fault) noexcept nogil:
    """A frozen journal leaves RECOVER clear. Without a journal, frozen and crashed alike say "not clean"."""
    if trust == TRUST_LIVE:
        return 0
    if geometry.incompat & INCOMPAT_RECOVER:
        return set_fault(fault, FAULT_NEEDS_RECOVERY, b"opening an ext4 file system", 0, SUPERBLOCK_OFFSET,
                         b"needs_recovery is set, the journal was not emptied: freeze it before the mirror is split")
    if not geometry.compat & COMPAT_HAS_JOURNAL and not geometry.state & STATE_VALID and trust != TRUST_FROZEN:
        return set_fault(fault, FAULT_NEEDS_RECOVERY, b"opening an ext4 file system", 0, SUPERBLOCK_OFFSET,
                         b"without a journal and not clean: say that it was frozen, or unmount it before the split")
    return 0


cdef int decode_superblock(const ext4_superblock_t* raw, uint64_t device_size, int trust, ext4_geometry_t* geometry,
                           fault_t* fault) noexcept nogil:
    """Everything that later code relies on; nothing of raw is used before it was verified."""
    cdef uint32_t seed
    memset(geometry, 0, sizeof(ext4_geometry_t))
    geometry.state = ext4_le16(raw.s_state)
    geometry.creator_os = ext4_le32(raw.s_creator_os)
    memcpy(geometry.uuid, raw.s_uuid, 16)
    if (decode_features(raw, geometry, fault) < 0
            or check_state(geometry, trust, fault) < 0 or decode_sizes(raw, geometry, fault) < 0
            or decode_groups(raw, geometry, fault) < 0 or check_extent(geometry, device_size, fault) < 0):
        return fault.code
    seed = ext4_le32(raw.s_checksum_seed)
    geometry.csum_seed = ~seed if geometry.incompat & INCOMPAT_CSUM_SEED else crc32c_update(0, raw.s_uuid, 16)
    geometry.journal_inode = ext4_le32(raw.s_journal_inum) if geometry.compat & COMPAT_HAS_JOURNAL else 0
    if ext4_le32(raw.s_rev_level) >= 1:
        geometry.error_count = ext4_le32(raw.s_error_count)
        geometry.hidden[0] = ext4_le32(raw.s_usr_quota_inum)
        geometry.hidden[1] = ext4_le32(raw.s_grp_quota_inum)
        geometry.hidden[2] = ext4_le32(raw.s_prj_quota_inum)
        geometry.hidden[3] = ext4_le32(raw.s_orphan_file_inum) if geometry.compat & COMPAT_ORPHAN_FILE else 0
    return 0


# What Python sees.

cdef list names_of(const ext4_feature_t* known, uint32_t features):
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


cdef object feature_names(const ext4_geometry_t* geometry):
    """{"compat": [names], "incompat": [...], "ro_compat": [...]}; a bit without a name is "unknown 0x…"."""
    return {
        "compat": names_of(EXT4_COMPAT, geometry.compat),
        "incompat": names_of(EXT4_INCOMPAT, geometry.incompat),
        "ro_compat": names_of(EXT4_RO_COMPAT, geometry.ro_compat),
    }


cdef str family_name(const ext4_geometry_t* geometry):
    """"ext2", "ext3" or "ext4" by its features, as blkid tells them apart."""
    cdef uint32_t plain = INCOMPAT_FILETYPE | INCOMPAT_RECOVER | INCOMPAT_META_BG
    if geometry.incompat & ~plain or geometry.ro_compat & ~<uint32_t>EXT3_RO_COMPAT:
        return "ext4"
    return "ext3" if geometry.compat & COMPAT_HAS_JOURNAL else "ext2"


cdef list warned_of(const ext4_feature_t* known, uint32_t features):
    found = []
    while known.name != NULL:
        if features & known.bit and known.use == EXT4_WARNED:
            found.append(f"feature {known.name.decode()}: read as if it were not there")
        known += 1
    return found


cdef object mmp_warnings(const ext4_mmp_t* block):
    """What multiple mount protection says of who has the file system mounted."""
    if ext4_le32(block.mmp_magic) != MMP_MAGIC:
        return ["multiple mount protection: its block holds something else: run e2fsck"]
    if ext4_le32(block.mmp_seq) == MMP_SEQ_CLEAN:
        return []
    if ext4_le32(block.mmp_seq) == MMP_SEQ_FSCK:
        return ["multiple mount protection: e2fsck was at work on it"]
    node = (<bytes>block.mmp_nodename[:64]).split(b"\0")[0].decode("utf-8", "backslashreplace")
    return [f"multiple mount protection: in use by {node!r} when the mirror was split"]


cdef object geometry_warnings(const ext4_geometry_t* geometry):
    """What does not hinder reading but should be said once."""
    warnings = warned_of(EXT4_COMPAT, geometry.compat) + warned_of(EXT4_RO_COMPAT, geometry.ro_compat)
    unknown = unknown_bits(EXT4_RO_COMPAT, geometry.ro_compat)
    if unknown:
        warnings.append(f"unknown ro_compat features 0x{unknown:x}: read as if they were not there")
    if geometry.state & STATE_ERROR or geometry.error_count:
        warnings.append(f"the kernel has recorded errors in this file system ({geometry.error_count}): run e2fsck")
    if geometry.creator_os == 1:
        warnings.append("made by the Hurd: translators and the high mode word are not read")
    if geometry.revision == 0 and geometry.compat | geometry.incompat | geometry.ro_compat:
        warnings.append("revision 0 with features, which it should not have: read with them, as the kernel does")
    return warnings
