/* ext4_disk.h holds ext4's on-disk records (Linux Documentation/filesystems/ext4), packed, little-endian, under their own
 * names. It does not verify them: whoever decodes a record checks it first. Arrays of bytes are padding nobody reads. */
#ifndef SPLITREEL_EXT4_DISK_H
#define SPLITREEL_EXT4_DISK_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "digest.h"

#define EXT4_PACKED __attribute__((packed))

typedef struct EXT4_PACKED {
    uint32_t s_inodes_count;
    uint32_t s_blocks_count_lo;
    uint32_t s_r_blocks_count_lo;
    uint32_t s_free_blocks_count_lo;
    uint32_t s_free_inodes_count;
    uint32_t s_first_data_block;
    uint32_t s_log_block_size;
    uint32_t s_log_cluster_size;
    uint32_t s_blocks_per_group;
    uint32_t s_clusters_per_group;
    uint32_t s_inodes_per_group;
    uint32_t s_mtime;
    uint32_t s_wtime;
    uint16_t s_mnt_count;
    uint16_t s_max_mnt_count;
    uint16_t s_magic;
    uint16_t s_state;
    uint16_t s_errors;
    uint16_t s_minor_rev_level;
    uint32_t s_lastcheck;
    uint32_t s_checkinterval;
    uint32_t s_creator_os;
    uint32_t s_rev_level;
    uint16_t s_def_resuid;
    uint16_t s_def_resgid;
    uint32_t s_first_ino;
    uint16_t s_inode_size;
    uint16_t s_block_group_nr;
    uint32_t s_feature_compat;
    uint32_t s_feature_incompat;
    uint32_t s_feature_ro_compat;
    uint8_t s_uuid[16];
    uint8_t s_volume_name[16];
    uint8_t s_last_mounted[64];
    uint32_t s_algorithm_usage_bitmap;
    uint8_t s_prealloc_blocks;
    uint8_t s_prealloc_dir_blocks;
    uint16_t s_reserved_gdt_blocks;
    uint8_t s_journal_uuid[16];
    uint32_t s_journal_inum;
    uint32_t s_journal_dev;
    uint32_t s_last_orphan;
    uint32_t s_hash_seed[4];
    uint8_t s_def_hash_version;
    uint8_t s_jnl_backup_type;
    uint16_t s_desc_size;
    uint32_t s_default_mount_opts;
    uint32_t s_first_meta_bg;
    uint32_t s_mkfs_time;
    uint32_t s_jnl_blocks[17];
    uint32_t s_blocks_count_hi;
    uint8_t unread_154[12];
    uint32_t s_flags;
    uint16_t s_raid_stride;
    uint16_t s_mmp_update_interval;
    uint64_t s_mmp_block;
    uint32_t s_raid_stripe_width;
    uint8_t s_log_groups_per_flex;
    uint8_t s_checksum_type;
    uint8_t unread_176[30];
    uint32_t s_error_count;
    uint8_t unread_198[168];
    uint32_t s_usr_quota_inum;
    uint32_t s_grp_quota_inum;
    uint32_t s_overhead_clusters;
    uint32_t s_backup_bgs[2];
    uint8_t s_encrypt_algos[4];
    uint8_t s_encrypt_pw_salt[16];
    uint32_t s_lpf_ino;
    uint32_t s_prj_quota_inum;
    uint32_t s_checksum_seed;
    uint8_t unread_274[8];
    uint16_t s_encoding;
    uint16_t s_encoding_flags;
    uint32_t s_orphan_file_inum;
    uint8_t unread_284[376];
    uint32_t s_checksum;
} ext4_superblock_t;

typedef struct EXT4_PACKED {
    uint32_t bg_block_bitmap_lo;
    uint32_t bg_inode_bitmap_lo;
    uint32_t bg_inode_table_lo;
    uint16_t bg_free_blocks_count_lo;
    uint16_t bg_free_inodes_count_lo;
    uint16_t bg_used_dirs_count_lo;
    uint16_t bg_flags;
    uint8_t unread_14[8];
    uint16_t bg_itable_unused_lo;
    uint16_t bg_checksum;
    uint32_t bg_block_bitmap_hi;    /* from here on only with desc_size 64 */
    uint32_t bg_inode_bitmap_hi;
    uint32_t bg_inode_table_hi;
    uint8_t unread_2c[6];
    uint16_t bg_itable_unused_hi;
    uint8_t unread_34[12];
} ext4_group_desc_t;

typedef struct EXT4_PACKED {
    uint16_t i_mode;
    uint16_t i_uid;
    uint32_t i_size_lo;
    uint32_t i_atime;
    uint32_t i_ctime;
    uint32_t i_mtime;
    uint32_t i_dtime;
    uint16_t i_gid;
    uint16_t i_links_count;
    uint32_t i_blocks_lo;
    uint32_t i_flags;
    uint32_t i_version;
    uint8_t i_block[60];
    uint32_t i_generation;
    uint32_t i_file_acl_lo;
    uint32_t i_size_high;
    uint32_t i_obso_faddr;
    uint16_t i_blocks_high;
    uint16_t i_file_acl_high;
    uint16_t i_uid_high;
    uint16_t i_gid_high;
    uint16_t i_checksum_lo;
    uint16_t i_reserved;
    uint16_t i_extra_isize;         /* from here on only as far as i_extra_isize reaches */
    uint16_t i_checksum_hi;
    uint32_t i_ctime_extra;
    uint32_t i_mtime_extra;
    uint32_t i_atime_extra;
    uint32_t i_crtime;
    uint32_t i_crtime_extra;
    uint32_t i_version_hi;
    uint32_t i_projid;
} ext4_inode_t;

typedef struct EXT4_PACKED {
    uint16_t eh_magic;
    uint16_t eh_entries;
    uint16_t eh_max;
    uint16_t eh_depth;
    uint32_t eh_generation;
} ext4_extent_header_t;

typedef struct EXT4_PACKED {
    uint32_t ei_block;
    uint32_t ei_leaf_lo;
    uint16_t ei_leaf_hi;
    uint16_t ei_unused;
} ext4_extent_idx_t;

typedef struct EXT4_PACKED {
    uint32_t ee_block;
    uint16_t ee_len;
    uint16_t ee_start_hi;
    uint32_t ee_start_lo;
} ext4_extent_t;

typedef struct EXT4_PACKED {
    uint32_t inode;
    uint16_t rec_len;
    uint8_t name_len;
    uint8_t file_type;              /* high byte of the name length without the filetype feature */
    uint8_t name[];
} ext4_dir_entry_t;

typedef struct EXT4_PACKED {
    uint16_t limit;
    uint16_t count;
} ext4_dx_countlimit_t;

typedef struct EXT4_PACKED {
    uint32_t h_magic;
    uint32_t h_refcount;
    uint32_t h_blocks;
    uint32_t h_hash;
    uint32_t h_checksum;
    uint32_t h_reserved[3];
} ext4_xattr_header_t;

typedef struct EXT4_PACKED {
    uint8_t e_name_len;
    uint8_t e_name_index;
    uint16_t e_value_offs;
    uint32_t e_value_inum;
    uint32_t e_value_size;
    uint32_t e_hash;
    uint8_t e_name[];
} ext4_xattr_entry_t;

typedef struct EXT4_PACKED {
    uint32_t mmp_magic;
    uint32_t mmp_seq;
    uint64_t mmp_time;
    uint8_t mmp_nodename[64];
    uint8_t mmp_bdevname[32];
    uint16_t mmp_check_interval;
    uint8_t unread_72[906];
    uint32_t mmp_checksum;
} ext4_mmp_t;

static_assert(sizeof(ext4_superblock_t) == 1024, "superblock");
static_assert(offsetof(ext4_superblock_t, s_reserved_gdt_blocks) == 0xCE, "s_reserved_gdt_blocks");
static_assert(offsetof(ext4_superblock_t, s_journal_inum) == 0xE0, "s_journal_inum");
static_assert(offsetof(ext4_superblock_t, s_first_meta_bg) == 0x104, "s_first_meta_bg");
static_assert(offsetof(ext4_superblock_t, s_jnl_blocks) == 0x10C, "s_jnl_blocks");
static_assert(offsetof(ext4_superblock_t, s_mmp_block) == 0x168, "s_mmp_block");
static_assert(offsetof(ext4_superblock_t, s_backup_bgs) == 0x24C, "s_backup_bgs");
static_assert(offsetof(ext4_superblock_t, s_encoding) == 0x27C, "s_encoding");
static_assert(offsetof(ext4_superblock_t, s_desc_size) == 0xFE, "s_desc_size");
static_assert(offsetof(ext4_superblock_t, s_blocks_count_hi) == 0x150, "s_blocks_count_hi");
static_assert(offsetof(ext4_superblock_t, s_checksum_type) == 0x175, "s_checksum_type");
static_assert(offsetof(ext4_superblock_t, s_error_count) == 0x194, "s_error_count");
static_assert(offsetof(ext4_superblock_t, s_usr_quota_inum) == 0x240, "s_usr_quota_inum");
static_assert(offsetof(ext4_superblock_t, s_prj_quota_inum) == 0x26C, "s_prj_quota_inum");
static_assert(offsetof(ext4_superblock_t, s_orphan_file_inum) == 0x280, "s_orphan_file_inum");
static_assert(offsetof(ext4_superblock_t, s_checksum) == 0x3FC, "s_checksum");
static_assert(sizeof(ext4_group_desc_t) == 64, "group descriptor");
static_assert(offsetof(ext4_group_desc_t, bg_checksum) == 0x1E, "bg_checksum");
static_assert(offsetof(ext4_group_desc_t, bg_itable_unused_hi) == 0x32, "bg_itable_unused_hi");
static_assert(sizeof(ext4_inode_t) == 160, "inode");
static_assert(offsetof(ext4_inode_t, i_block) == 0x28, "i_block");
static_assert(offsetof(ext4_inode_t, i_checksum_lo) == 0x7C, "i_checksum_lo");
static_assert(offsetof(ext4_inode_t, i_projid) == 0x9C, "i_projid");
static_assert(sizeof(ext4_extent_header_t) == 12 && sizeof(ext4_extent_idx_t) == 12 && sizeof(ext4_extent_t) == 12, "node");
static_assert(sizeof(ext4_dir_entry_t) == 8, "directory entry");
static_assert(sizeof(ext4_mmp_t) == 1024 && offsetof(ext4_mmp_t, mmp_checksum) == 1020, "mmp");
static_assert(sizeof(ext4_xattr_header_t) == 32 && sizeof(ext4_xattr_entry_t) == 16, "xattr");

static inline uint16_t ext4_le16(uint16_t value) { return le16toh(value); }
static inline uint32_t ext4_le32(uint32_t value) { return le32toh(value); }
static inline uint64_t ext4_le64(uint64_t value) { return le64toh(value); }
static inline uint32_t ext4_load32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return le32toh(value);
}

enum {
    EXT4_REFUSED = 0,
    EXT4_READ = 1,                  /* or of no consequence for reading */
    EXT4_WARNED = 2,                /* read as if it were not there, and said so */
};

typedef struct {
    uint32_t bit;
    int use;                        /* EXT4_REFUSED... */
    const char *name;
} ext4_feature_t;

/* Names as mke2fs and the kernel give them. RECOVER is dealt with on its own: it is a state more than a feature. */
static const ext4_feature_t EXT4_INCOMPAT[] = {
    {0x1, 0, "compression"},   {0x2, 1, "filetype"},     {0x4, 1, "recover"},      {0x8, 0, "journal_dev"},
    {0x10, 1, "meta_bg"},      {0x40, 1, "extents"},     {0x80, 1, "64bit"},       {0x100, 1, "mmp"},
    {0x200, 1, "flex_bg"},     {0x400, 1, "ea_inode"},   {0x1000, 0, "dirdata"},   {0x2000, 1, "metadata_csum_seed"},
    {0x4000, 1, "large_dir"},  {0x8000, 1, "inline_data"}, {0x10000, 1, "encrypt"}, {0x20000, 1, "casefold"},
    {0, 0, NULL},
};

static const ext4_feature_t EXT4_RO_COMPAT[] = {
    {0x1, 1, "sparse_super"},  {0x2, 1, "large_file"},   {0x4, 1, "btree_dir"},    {0x8, 1, "huge_file"},
    {0x10, 1, "uninit_bg"},    {0x20, 1, "dir_nlink"},   {0x40, 1, "extra_isize"}, {0x80, 2, "snapshot"},
    {0x100, 1, "quota"},       {0x200, 1, "bigalloc"},   {0x400, 1, "metadata_csum"}, {0x800, 2, "replica"},
    {0x1000, 1, "read-only"},
    {0x2000, 1, "project"},    {0x4000, 1, "shared_blocks"}, {0x8000, 1, "verity"}, {0x10000, 1, "orphan_present"},
    {0, 0, NULL},
};

static const ext4_feature_t EXT4_COMPAT[] = {
    {0x1, 1, "dir_prealloc"},  {0x2, 2, "imagic_inodes"}, {0x4, 1, "has_journal"}, {0x8, 1, "ext_attr"},
    {0x10, 1, "resize_inode"}, {0x20, 1, "dir_index"},   {0x40, 1, "lazy_bg"},     {0x80, 2, "exclude_inode"},
    {0x100, 2, "snapshot_bitmap"}, {0x200, 1, "sparse_super2"}, {0x400, 1, "fast_commit"},
    {0x800, 1, "stable_inodes"}, {0x1000, 1, "orphan_file"},
    {0, 0, NULL},
};

static inline uint64_t ext4_digest(uint64_t seed, const uint8_t *data, size_t size)
{
    return digest_records(seed, data, size);
}

#endif
