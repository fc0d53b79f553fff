/* ext4_fast_disk.h holds the records of fast commits (Linux fs/ext4/fast_commit.h), packed, little-endian, under their own
 * names. Each follows a tag and its length, both of 16 bits. */
#ifndef SPLITREEL_EXT4_FAST_DISK_H
#define SPLITREEL_EXT4_FAST_DISK_H

#include <assert.h>
#include <stdint.h>

#include "ext4_disk.h"

typedef struct EXT4_PACKED {
    uint16_t fc_tag;
    uint16_t fc_len;
} ext4_fc_tl_t;

typedef struct EXT4_PACKED {
    uint32_t fc_features;
    uint32_t fc_tid;
} ext4_fc_head_t;

typedef struct EXT4_PACKED {
    uint32_t fc_ino;
    ext4_extent_t fc_ex;
} ext4_fc_add_range_t;

typedef struct EXT4_PACKED {
    uint32_t fc_ino;
    uint32_t fc_lblk;
    uint32_t fc_len;
} ext4_fc_del_range_t;

typedef struct EXT4_PACKED {
    uint32_t fc_parent_ino;
    uint32_t fc_ino;
    uint8_t fc_dname[];
} ext4_fc_dentry_info_t;

typedef struct EXT4_PACKED {
    uint32_t fc_ino;
    uint8_t fc_raw_inode[];
} ext4_fc_inode_t;

typedef struct EXT4_PACKED {
    uint32_t fc_tid;
    uint32_t fc_crc;
} ext4_fc_tail_t;

static_assert(sizeof(ext4_fc_tl_t) == 4 && sizeof(ext4_fc_head_t) == 8 && sizeof(ext4_fc_tail_t) == 8, "fast commit");
static_assert(sizeof(ext4_fc_add_range_t) == 16 && sizeof(ext4_fc_del_range_t) == 12, "fast commit range");
static_assert(sizeof(ext4_fc_dentry_info_t) == 8 && sizeof(ext4_fc_inode_t) == 4, "fast commit name and inode");

#endif
