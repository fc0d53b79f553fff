/* xfs_names_disk.h holds XFS's on-disk records of directories, extended attributes and remote symlinks ("XFS Algorithms
 * & Data Structures"; fs/xfs/libxfs/xfs_da_format.h), packed, big-endian but for checksums, under their own names. It
 * does not verify them: whoever decodes a record checks it first. */
#ifndef SPLITREEL_XFS_NAMES_DISK_H
#define SPLITREEL_XFS_NAMES_DISK_H

#include "xfs_disk.h"

/* Directories. */

typedef struct XFS_PACKED {
    uint16_t offset;
    uint16_t length;
} xfs_dir2_data_free_t;

typedef struct XFS_PACKED {         /* version 4 */
    uint32_t magic;
    xfs_dir2_data_free_t bestfree[3];
} xfs_dir2_data_hdr_t;

typedef struct XFS_PACKED {         /* version 5 */
    uint32_t magic;
    uint32_t crc;
    uint64_t blkno;                 /* in units of 512 bytes, here and below */
    uint64_t lsn;
    uint8_t uuid[16];
    uint64_t owner;
    xfs_dir2_data_free_t best_free[3];
    uint32_t pad;
} xfs_dir3_data_hdr_t;

typedef struct XFS_PACKED {         /* then the file type where there is one, and in the last two bytes the tag */
    uint64_t inumber;
    uint8_t namelen;
    uint8_t name[];
} xfs_dir2_data_entry_t;

typedef struct XFS_PACKED {
    uint16_t freetag;
    uint16_t length;
} xfs_dir2_data_unused_t;

typedef struct XFS_PACKED {
    uint32_t hashval;
    uint32_t address;
} xfs_dir2_leaf_entry_t;

typedef struct XFS_PACKED {
    uint32_t count;
    uint32_t stale;
} xfs_dir2_block_tail_t;

typedef struct XFS_PACKED {         /* then the parent, as every inode number in four or eight bytes */
    uint8_t count;
    uint8_t i8count;
    uint8_t parent[];
} xfs_dir2_sf_hdr_t;

typedef struct XFS_PACKED {         /* then the file type where there is one, and the inode number */
    uint8_t namelen;
    uint16_t offset;
    uint8_t name[];
} xfs_dir2_sf_entry_t;

/* Blocks of the attribute fork. */

typedef struct XFS_PACKED {         /* the first 12 bytes are all of version 4 */
    uint32_t forw;
    uint32_t back;
    uint16_t magic;
    uint16_t pad;
    uint32_t crc;
    uint64_t blkno;
    uint64_t lsn;
    uint8_t uuid[16];
    uint64_t owner;
} xfs_da3_blkinfo_t;

typedef struct XFS_PACKED {         /* behind the xfs_da3_blkinfo_t of either version */
    uint16_t count;
    uint16_t level;
} xfs_da_node_count_t;

typedef struct XFS_PACKED {
    uint32_t hashval;
    uint32_t before;
} xfs_da_node_entry_t;

typedef struct XFS_PACKED {         /* likewise; version 5 has four bytes more */
    uint16_t count;
    uint16_t usedbytes;
    uint16_t firstused;
    uint8_t holes;
    uint8_t pad1;
    uint8_t freemap[12];
} xfs_attr_leaf_count_t;

typedef struct XFS_PACKED {
    uint32_t hashval;
    uint16_t nameidx;
    uint8_t flags;
    uint8_t pad2;
} xfs_attr_leaf_entry_t;

typedef struct XFS_PACKED {         /* then name and value */
    uint16_t valuelen;
    uint8_t namelen;
    uint8_t nameval[];
} xfs_attr_leaf_name_local_t;

typedef struct XFS_PACKED {
    uint32_t valueblk;
    uint32_t valuelen;
    uint8_t namelen;
    uint8_t name[];
} xfs_attr_leaf_name_remote_t;

typedef struct XFS_PACKED {
    uint16_t totsize;
    uint8_t count;
    uint8_t padding;
} xfs_attr_sf_hdr_t;

typedef struct XFS_PACKED {         /* then name and value */
    uint8_t namelen;
    uint8_t valuelen;
    uint8_t flags;
    uint8_t nameval[];
} xfs_attr_sf_entry_t;

typedef struct XFS_PACKED {         /* of the value of SGI_ACL_FILE and SGI_ACL_DEFAULT, behind a count of 32 bits */
    uint32_t ae_tag;
    uint32_t ae_id;
    uint16_t ae_perm;
    uint16_t ae_pad;
} xfs_acl_entry_t;

/* Version 5: before the bytes of every block of a remote attribute, and of every extent of a remote symlink. Those of
 * symlinks are named sl_… and lie alike. */
typedef struct XFS_PACKED {
    uint32_t rm_magic;
    uint32_t rm_offset;
    uint32_t rm_bytes;
    uint32_t rm_crc;
    uint8_t rm_uuid[16];
    uint64_t rm_owner;
    uint64_t rm_blkno;
    uint64_t rm_lsn;
} xfs_attr3_rmt_hdr_t;

static_assert(sizeof(xfs_dir2_data_hdr_t) == 16, "directory block, version 4");
static_assert(sizeof(xfs_dir3_data_hdr_t) == 64, "directory block, version 5");
static_assert(offsetof(xfs_dir3_data_hdr_t, crc) == 4 && offsetof(xfs_dir3_data_hdr_t, uuid) == 24, "crc, uuid");
static_assert(offsetof(xfs_dir3_data_hdr_t, owner) == 40, "owner");
static_assert(sizeof(xfs_dir2_data_entry_t) == 9 && sizeof(xfs_dir2_data_unused_t) == 4, "directory entry");
static_assert(sizeof(xfs_dir2_leaf_entry_t) == 8 && sizeof(xfs_dir2_block_tail_t) == 8, "leaf in a block");
static_assert(sizeof(xfs_dir2_sf_hdr_t) == 2 && sizeof(xfs_dir2_sf_entry_t) == 3, "directory in an inode");
static_assert(sizeof(xfs_da3_blkinfo_t) == 56 && offsetof(xfs_da3_blkinfo_t, crc) == 12, "block of a fork");
static_assert(offsetof(xfs_da3_blkinfo_t, uuid) == 32 && offsetof(xfs_da3_blkinfo_t, owner) == 48, "uuid, owner");
static_assert(sizeof(xfs_da_node_count_t) == 4 && sizeof(xfs_da_node_entry_t) == 8, "node");
static_assert(sizeof(xfs_attr_leaf_count_t) == 20 && sizeof(xfs_attr_leaf_entry_t) == 8, "leaf");
static_assert(sizeof(xfs_attr_leaf_name_local_t) == 3 && sizeof(xfs_attr_leaf_name_remote_t) == 9, "names");
static_assert(sizeof(xfs_attr_sf_hdr_t) == 4 && sizeof(xfs_attr_sf_entry_t) == 3, "attributes in an inode");
static_assert(sizeof(xfs_acl_entry_t) == 12, "ACL entry");
static_assert(sizeof(xfs_attr3_rmt_hdr_t) == 56 && offsetof(xfs_attr3_rmt_hdr_t, rm_crc) == 12, "remote header");
static_assert(offsetof(xfs_attr3_rmt_hdr_t, rm_owner) == 32, "rm_owner");

/* Where a block of version 5 says what it is. */
typedef struct {
    uint32_t crc;
    uint32_t blkno;
    uint32_t uuid;
    uint32_t owner;
} xfs_self_t;

#define XFS_SELF(type, prefix) {offsetof(type, prefix##crc), offsetof(type, prefix##blkno), \
                                offsetof(type, prefix##uuid), offsetof(type, prefix##owner)}

static const xfs_self_t XFS_DIR_SELF = XFS_SELF(xfs_dir3_data_hdr_t, );
static const xfs_self_t XFS_DA_SELF = XFS_SELF(xfs_da3_blkinfo_t, );
static const xfs_self_t XFS_REMOTE_SELF = XFS_SELF(xfs_attr3_rmt_hdr_t, rm_);

#endif
