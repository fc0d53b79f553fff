# ext4_disk declares the on-disk records of ext/ext4_disk.h. Fields are little-endian: read them through ext4_le16/le32.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    EXT4_ROOT_INO = 2
    EXT4_MAX_DEPTH = 5                             # levels of index nodes above the leaves

cdef enum ext4_feature_bit_t:
    INCOMPAT_FILETYPE = 0x2
    INCOMPAT_RECOVER = 0x4
    INCOMPAT_JOURNAL_DEV = 0x8
    INCOMPAT_META_BG = 0x10
    INCOMPAT_EXTENTS = 0x40
    INCOMPAT_64BIT = 0x80
    INCOMPAT_MMP = 0x100
    INCOMPAT_EA_INODE = 0x400
    INCOMPAT_CSUM_SEED = 0x2000
    INCOMPAT_LARGEDIR = 0x4000
    RO_COMPAT_SPARSE_SUPER = 0x1
    RO_COMPAT_HUGE_FILE = 0x8
    RO_COMPAT_GDT_CSUM = 0x10
    RO_COMPAT_BIGALLOC = 0x200
    RO_COMPAT_METADATA_CSUM = 0x400
    COMPAT_HAS_JOURNAL = 0x4
    COMPAT_RESIZE_INODE = 0x10
    COMPAT_SPARSE_SUPER2 = 0x200
    COMPAT_ORPHAN_FILE = 0x1000

cdef enum ext4_inode_flag_t:
    EXT4_EXTENTS_FL = 0x80000
    EXT4_EA_INODE_FL = 0x200000
    EXT4_INLINE_DATA_FL = 0x10000000
    EXT4_ENCRYPT_FL = 0x800
    EXT4_COMPRBLK_FL = 0x200
    EXT4_HUGE_FILE_FL = 0x40000

cdef enum ext4_group_flag_t:
    BG_INODE_UNINIT = 1

cdef extern from "ext4_disk.h" nogil:
    ctypedef struct ext4_superblock_t:
        uint32_t s_inodes_count, s_blocks_count_lo, s_first_data_block, s_log_block_size, s_log_cluster_size
        uint32_t s_blocks_per_group, s_clusters_per_group, s_inodes_per_group, s_mtime, s_wtime, s_creator_os
        uint32_t s_rev_level, s_first_ino, s_feature_compat, s_feature_incompat, s_feature_ro_compat, s_journal_inum
        uint32_t s_journal_dev, s_last_orphan, s_first_meta_bg, s_blocks_count_hi, s_error_count, s_usr_quota_inum
        uint32_t s_grp_quota_inum, s_prj_quota_inum, s_checksum_seed, s_orphan_file_inum, s_checksum
        uint32_t s_backup_bgs[2]
        uint32_t s_jnl_blocks[17]
        uint64_t s_mmp_block
        uint16_t s_mnt_count, s_magic, s_state, s_inode_size, s_desc_size, s_reserved_gdt_blocks, s_encoding
        uint16_t s_encoding_flags
        uint8_t s_jnl_backup_type, s_checksum_type
        uint8_t s_uuid[16]
        uint8_t s_journal_uuid[16]

    ctypedef struct ext4_group_desc_t:
        uint32_t bg_block_bitmap_lo, bg_block_bitmap_hi, bg_inode_bitmap_lo, bg_inode_bitmap_hi
        uint32_t bg_inode_table_lo, bg_inode_table_hi
        uint16_t bg_flags, bg_itable_unused_lo, bg_itable_unused_hi, bg_checksum

    ctypedef struct ext4_inode_t:
        uint16_t i_mode, i_uid, i_gid, i_links_count, i_file_acl_high, i_uid_high, i_gid_high
        uint16_t i_blocks_high
        uint16_t i_checksum_lo, i_checksum_hi, i_extra_isize
        uint32_t i_size_lo, i_size_high, i_atime, i_ctime, i_mtime, i_dtime, i_blocks_lo, i_flags, i_generation
        uint32_t i_file_acl_lo
        uint32_t i_ctime_extra, i_mtime_extra, i_atime_extra
        uint8_t i_block[60]

    ctypedef struct ext4_extent_header_t:
        uint16_t eh_magic, eh_entries, eh_max, eh_depth

    ctypedef struct ext4_extent_idx_t:
        uint32_t ei_block, ei_leaf_lo
        uint16_t ei_leaf_hi

    ctypedef struct ext4_extent_t:
        uint32_t ee_block, ee_start_lo
        uint16_t ee_len, ee_start_hi

    ctypedef struct ext4_dir_entry_t:
        uint32_t inode
        uint16_t rec_len
        uint8_t name_len, file_type
        uint8_t* name

    ctypedef struct ext4_dx_countlimit_t:
        uint16_t limit, count

    ctypedef struct ext4_xattr_header_t:
        uint32_t h_magic, h_blocks, h_checksum

    ctypedef struct ext4_xattr_entry_t:
        uint8_t e_name_len, e_name_index
        uint16_t e_value_offs
        uint32_t e_value_inum, e_value_size, e_hash
        uint8_t* e_name

    enum:
        EXT4_REFUSED
        EXT4_WARNED

    ctypedef struct ext4_mmp_t:
        uint32_t mmp_magic, mmp_seq
        uint8_t mmp_nodename[64]

    ctypedef struct ext4_feature_t:
        uint32_t bit
        int use
        const char* name

    const ext4_feature_t* EXT4_INCOMPAT
    const ext4_feature_t* EXT4_RO_COMPAT
    const ext4_feature_t* EXT4_COMPAT

    uint16_t ext4_le16(uint16_t value)
    uint32_t ext4_le32(uint32_t value)
    uint64_t ext4_le64(uint64_t value)
    uint32_t ext4_load32(const uint8_t* bytes)
    uint64_t ext4_digest(uint64_t seed, const uint8_t* data, size_t size)
