/* xfs_log_disk.h holds the records of XFS's log ("XFS Algorithms & Data Structures", "Journaling Log"), packed. Headers of
 * records and operations are big-endian; what a transaction logs is in the byte order of the machine that wrote it, and
 * only little-endian is read. It does not verify them. */
#ifndef SPLITREEL_XFS_LOG_DISK_H
#define SPLITREEL_XFS_LOG_DISK_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define XLOG_PACKED __attribute__((packed))
#define XLOG_CYCLES 64

typedef struct XLOG_PACKED {
    uint32_t h_magicno;
    uint32_t h_cycle;
    uint32_t h_version;
    uint32_t h_len;
    uint64_t h_lsn;
    uint64_t h_tail_lsn;
    uint32_t h_crc;                 /* little-endian */
    uint32_t h_prev_block;
    uint32_t h_num_logops;
    uint32_t h_cycle_data[XLOG_CYCLES];
    uint32_t h_fmt;
    uint8_t h_fs_uuid[16];
    uint32_t h_size;
} xlog_rec_header_t;

typedef struct XLOG_PACKED {
    uint32_t xh_cycle;
    uint32_t xh_cycle_data[XLOG_CYCLES];
} xlog_rec_ext_header_t;

typedef struct XLOG_PACKED {
    uint32_t oh_tid;
    uint32_t oh_len;
    uint8_t oh_clientid;
    uint8_t oh_flags;
    uint16_t oh_res2;
} xlog_op_header_t;

typedef struct XLOG_PACKED {        /* from here on little-endian */
    uint32_t th_magic;
    uint32_t th_type;
    uint32_t th_tid;
    uint32_t th_num_items;
} xfs_trans_header_t;

typedef struct XLOG_PACKED {
    uint16_t blf_type;
    uint16_t blf_size;              /* regions of the item, this one among them */
    uint16_t blf_flags;
    uint16_t blf_len;               /* basic blocks */
    uint64_t blf_blkno;             /* basic block of the device */
    uint32_t blf_map_size;          /* words of the map behind */
} xfs_buf_log_format_t;

typedef struct XLOG_PACKED {
    uint16_t ilf_type;
    uint16_t ilf_size;
    uint32_t ilf_fields;
    uint16_t ilf_asize;
    uint16_t ilf_dsize;
    uint32_t ilf_pad;
    uint64_t ilf_ino;
    uint8_t unread_18[16];
    uint64_t ilf_blkno;             /* basic block of the buffer that holds the inode */
    uint32_t ilf_len;
    uint32_t ilf_boffset;
} xfs_inode_log_format_t;

static_assert(sizeof(xlog_rec_header_t) == 324, "record header");
static_assert(offsetof(xlog_rec_header_t, h_cycle_data) == 44, "h_cycle_data");
static_assert(offsetof(xlog_rec_header_t, h_fs_uuid) == 304, "h_fs_uuid");
static_assert(sizeof(xlog_rec_ext_header_t) == 260, "extended header");
static_assert(sizeof(xlog_op_header_t) == 12, "operation header");
static_assert(sizeof(xfs_trans_header_t) == 16, "transaction header");
static_assert(sizeof(xfs_buf_log_format_t) == 20, "buffer item");
static_assert(sizeof(xfs_inode_log_format_t) == 56 && offsetof(xfs_inode_log_format_t, ilf_ino) == 16, "inode item");

#endif
