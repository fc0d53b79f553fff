/* xfs_disk.h holds XFS's on-disk records ("XFS Algorithms & Data Structures", fs/xfs/libxfs/xfs_format.h for the newest
 * fields), packed, big-endian but for checksums, under their own names. It does not verify them: whoever decodes a record
 * checks it first. Arrays of bytes are padding nobody reads. */
#ifndef SPLITREEL_XFS_DISK_H
#define SPLITREEL_XFS_DISK_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "digest.h"

#define XFS_PACKED __attribute__((packed))

/* Superblock and headers of allocation groups: sectors 0 to 3 of each. */

typedef struct XFS_PACKED {
    uint32_t sb_magicnum;
    uint32_t sb_blocksize;
    uint64_t sb_dblocks;
    uint64_t sb_rblocks;
    uint64_t sb_rextents;
    uint8_t sb_uuid[16];
    uint64_t sb_logstart;
    uint64_t sb_rootino;
    uint64_t sb_rbmino;
    uint64_t sb_rsumino;
    uint32_t sb_rextsize;
    uint32_t sb_agblocks;
    uint32_t sb_agcount;
    uint32_t sb_rbmblocks;
    uint32_t sb_logblocks;
    uint16_t sb_versionnum;
    uint16_t sb_sectsize;
    uint16_t sb_inodesize;
    uint16_t sb_inopblock;
    uint8_t sb_fname[12];
    uint8_t sb_blocklog;
    uint8_t sb_sectlog;
    uint8_t sb_inodelog;
    uint8_t sb_inopblog;
    uint8_t sb_agblklog;
    uint8_t sb_rextslog;
    uint8_t sb_inprogress;
    uint8_t sb_imax_pct;
    uint64_t sb_icount;
    uint64_t sb_ifree;
    uint64_t sb_fdblocks;
    uint64_t sb_frextents;
    uint64_t sb_uquotino;
    uint64_t sb_gquotino;
    uint16_t sb_qflags;
    uint8_t sb_flags;
    uint8_t sb_shared_vn;
    uint32_t sb_inoalignmt;
    uint32_t sb_unit;
    uint32_t sb_width;
    uint8_t sb_dirblklog;
    uint8_t sb_logsectlog;
    uint16_t sb_logsectsize;
    uint32_t sb_logsunit;
    uint32_t sb_features2;
    uint32_t sb_bad_features2;
    uint32_t sb_features_compat;    /* from here on only in version 5 */
    uint32_t sb_features_ro_compat;
    uint32_t sb_features_incompat;
    uint32_t sb_features_log_incompat;
    uint32_t sb_crc;                /* little-endian, as every checksum */
    uint32_t sb_spino_align;
    uint64_t sb_pquotino;
    uint64_t sb_lsn;
    uint8_t sb_meta_uuid[16];
    uint64_t sb_metadirino;         /* from here on only with the feature metadir */
    uint32_t sb_rgcount;
    uint32_t sb_rgextents;
    uint8_t sb_rgblklog;
    uint8_t sb_pad[7];
    uint64_t sb_rtstart;
    uint64_t sb_rtreserved;
} xfs_dsb_t;

typedef struct XFS_PACKED {
    uint32_t agf_magicnum;
    uint32_t agf_versionnum;
    uint32_t agf_seqno;
    uint32_t agf_length;
    uint32_t agf_bno_root;
    uint32_t agf_cnt_root;
    uint32_t agf_rmap_root;
    uint32_t agf_bno_level;
    uint32_t agf_cnt_level;
    uint32_t agf_rmap_level;
    uint8_t unread_28[24];
    uint8_t agf_uuid[16];
    uint32_t agf_rmap_blocks;
    uint32_t agf_refcount_blocks;
    uint32_t agf_refcount_root;
    uint32_t agf_refcount_level;
    uint8_t unread_60[112];
    uint64_t agf_lsn;
    uint32_t agf_crc;
    uint32_t agf_spare2;
} xfs_agf_t;

typedef struct XFS_PACKED {
    uint32_t agi_magicnum;
    uint32_t agi_versionnum;
    uint32_t agi_seqno;
    uint32_t agi_length;
    uint32_t agi_count;
    uint32_t agi_root;
    uint32_t agi_level;
    uint32_t agi_freecount;
    uint32_t agi_newino;
    uint32_t agi_dirino;
    uint32_t agi_unlinked[64];
    uint8_t agi_uuid[16];           /* from here on only in version 5 */
    uint32_t agi_crc;
    uint32_t agi_pad32;
    uint64_t agi_lsn;
    uint32_t agi_free_root;
    uint32_t agi_free_level;
    uint32_t agi_iblocks;
    uint32_t agi_fblocks;
} xfs_agi_t;

/* B+trees. Short form: pointers are blocks of the group. Long form: blocks of the file system. */

typedef struct XFS_PACKED {
    uint32_t bb_magic;
    uint16_t bb_level;
    uint16_t bb_numrecs;
    uint32_t bb_leftsib;
    uint32_t bb_rightsib;
    uint64_t bb_blkno;              /* from here on only in version 5; in units of 512 bytes */
    uint64_t bb_lsn;
    uint8_t bb_uuid[16];
    uint32_t bb_owner;
    uint32_t bb_crc;
} xfs_btree_sblock_t;

typedef struct XFS_PACKED {
    uint32_t bb_magic;
    uint16_t bb_level;
    uint16_t bb_numrecs;
    uint64_t bb_leftsib;
    uint64_t bb_rightsib;
    uint64_t bb_blkno;              /* from here on only in version 5; in units of 512 bytes */
    uint64_t bb_lsn;
    uint8_t bb_uuid[16];
    uint64_t bb_owner;
    uint32_t bb_crc;
    uint32_t bb_pad;
} xfs_btree_lblock_t;

typedef struct XFS_PACKED {
    uint32_t ir_startino;
    uint16_t ir_holemask;           /* without sparse inodes these four bytes are one count of free inodes */
    uint8_t ir_count;
    uint8_t ir_freecount;
    uint64_t ir_free;
} xfs_inobt_rec_t;

typedef struct XFS_PACKED {
    uint32_t rc_startblock;         /* the highest bit marks what is set aside for copy on write */
    uint32_t rc_blockcount;
    uint32_t rc_refcount;
} xfs_refcount_rec_t;

typedef struct XFS_PACKED {
    uint64_t l0;                    /* unwritten 1, startoff 54, startblock 9 high bits */
    uint64_t l1;                    /* startblock 43 low bits, blockcount 21 */
} xfs_bmbt_rec_t;

typedef struct XFS_PACKED {         /* root of a B+tree in an inode's fork; then keys, then pointers */
    uint16_t bb_level;
    uint16_t bb_numrecs;
} xfs_bmdr_block_t;

/* Inodes. */

typedef struct XFS_PACKED {
    uint16_t di_magic;
    uint16_t di_mode;
    uint8_t di_version;
    uint8_t di_format;
    uint16_t di_onlink;
    uint32_t di_uid;
    uint32_t di_gid;
    uint32_t di_nlink;
    uint16_t di_projid_lo;
    uint16_t di_projid_hi;
    uint64_t di_big_nextents;       /* only with XFS_DIFLAG2_NREXT64 */
    uint64_t di_atime;
    uint64_t di_mtime;
    uint64_t di_ctime;
    uint64_t di_size;
    uint64_t di_nblocks;
    uint32_t di_extsize;
    uint32_t di_nextents;           /* di_big_anextents with XFS_DIFLAG2_NREXT64 */
    uint16_t di_anextents;
    uint8_t di_forkoff;
    uint8_t di_aformat;
    uint32_t di_dmevmask;
    uint16_t di_dmstate;
    uint16_t di_flags;
    uint32_t di_gen;
    uint32_t di_next_unlinked;
    uint32_t di_crc;                /* from here on only in version 3 */
    uint64_t di_changecount;
    uint64_t di_lsn;
    uint64_t di_flags2;
    uint32_t di_cowextsize;
    uint8_t di_pad2[12];
    uint64_t di_crtime;
    uint64_t di_ino;
    uint8_t di_uuid[16];
} xfs_dinode_t;

static_assert(sizeof(xfs_dsb_t) == 304, "superblock");
static_assert(offsetof(xfs_dsb_t, sb_logstart) == 48, "sb_logstart");
static_assert(offsetof(xfs_dsb_t, sb_versionnum) == 100, "sb_versionnum");
static_assert(offsetof(xfs_dsb_t, sb_blocklog) == 120, "sb_blocklog");
static_assert(offsetof(xfs_dsb_t, sb_uquotino) == 160, "sb_uquotino");
static_assert(offsetof(xfs_dsb_t, sb_dirblklog) == 192, "sb_dirblklog");
static_assert(offsetof(xfs_dsb_t, sb_crc) == 224, "sb_crc");
static_assert(offsetof(xfs_dsb_t, sb_meta_uuid) == 248, "sb_meta_uuid");
static_assert(offsetof(xfs_dsb_t, sb_rtstart) == 288, "sb_rtstart");
static_assert(sizeof(xfs_agf_t) == 224, "AGF");
static_assert(offsetof(xfs_agf_t, agf_uuid) == 64, "agf_uuid");
static_assert(offsetof(xfs_agf_t, agf_refcount_root) == 88, "agf_refcount_root");
static_assert(offsetof(xfs_agf_t, agf_crc) == 216, "agf_crc");
static_assert(sizeof(xfs_agi_t) == 344, "AGI");
static_assert(offsetof(xfs_agi_t, agi_uuid) == 296, "agi_uuid");
static_assert(offsetof(xfs_agi_t, agi_crc) == 312, "agi_crc");
static_assert(sizeof(xfs_btree_sblock_t) == 56 && offsetof(xfs_btree_sblock_t, bb_crc) == 52, "short block");
static_assert(sizeof(xfs_btree_lblock_t) == 72 && offsetof(xfs_btree_lblock_t, bb_crc) == 64, "long block");
static_assert(sizeof(xfs_inobt_rec_t) == 16 && sizeof(xfs_refcount_rec_t) == 12 && sizeof(xfs_bmbt_rec_t) == 16, "records");
static_assert(sizeof(xfs_dinode_t) == 176, "inode");
static_assert(offsetof(xfs_dinode_t, di_size) == 56, "di_size");
static_assert(offsetof(xfs_dinode_t, di_forkoff) == 82, "di_forkoff");
static_assert(offsetof(xfs_dinode_t, di_crc) == 100, "di_crc");
static_assert(offsetof(xfs_dinode_t, di_flags2) == 120, "di_flags2");
static_assert(offsetof(xfs_dinode_t, di_uuid) == 160, "di_uuid");

static inline uint16_t xfs_be16(uint16_t value) { return be16toh(value); }
static inline uint32_t xfs_be32(uint32_t value) { return be32toh(value); }
static inline uint64_t xfs_be64(uint64_t value) { return be64toh(value); }
static inline uint16_t xfs_load16(const uint8_t *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return be16toh(value);
}
static inline uint32_t xfs_load32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return be32toh(value);
}
static inline uint64_t xfs_load64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return be64toh(value);
}
static inline uint32_t xfs_load_crc(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return le32toh(value);
}

typedef struct {
    uint32_t bit;
    int supported;                  /* read, or of no consequence for reading */
    const char *name;
} xfs_feature_t;

/* Names as mkfs.xfs gives them. needsrepair is dealt with on its own: it is a state more than a feature. */
static const xfs_feature_t XFS_INCOMPAT[] = {
    {0x1, 1, "ftype"},    {0x2, 1, "sparse"},   {0x4, 1, "meta_uuid"},  {0x8, 1, "bigtime"},
    {0x10, 1, "needsrepair"}, {0x20, 1, "nrext64"}, {0x40, 1, "exchange"}, {0x80, 1, "parent"},
    {0x100, 0, "metadir"}, {0x200, 0, "zoned"},  {0x400, 0, "zone_gaps"},
    {0, 0, NULL},
};

static const xfs_feature_t XFS_RO_COMPAT[] = {
    {0x1, 1, "finobt"},   {0x2, 1, "rmapbt"},   {0x4, 1, "reflink"},    {0x8, 1, "inobtcount"},
    {0, 0, NULL},
};

static const xfs_feature_t XFS_LOG_INCOMPAT[] = {
    {0x1, 1, "xattrs"},
    {0, 0, NULL},
};

/* Of version 4: bits of sb_versionnum in the low half, of sb_features2 in the high half. */
static const xfs_feature_t XFS_VERSION[] = {
    {0x10, 1, "attr"},     {0x20, 1, "nlink"},   {0x40, 1, "quota"},      {0x80, 1, "align"},
    {0x100, 1, "dalign"},  {0x200, 0, "shared"}, {0x400, 1, "logv2"},     {0x800, 1, "sector"},
    {0x1000, 1, "extflg"}, {0x2000, 1, "dirv2"}, {0x4000, 1, "ascii-ci"}, {0x8000, 1, "morebits"},
    {0x20000, 1, "lazysbcount"}, {0x80000, 1, "attr2"}, {0x100000, 0, "parent"}, {0x800000, 1, "projid32"},
    {0x1000000, 1, "crc"}, {0x2000000, 1, "ftype"},
    {0, 0, NULL},
};

#endif
