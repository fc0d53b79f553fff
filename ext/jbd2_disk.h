/* jbd2_disk.h holds the journal's on-disk records (Linux Documentation/filesystems/ext4, "Journal"), packed, big-endian,
 * under their own names. It does not verify them: whoever decodes a record checks it first. */
#ifndef SPLITREEL_JBD2_DISK_H
#define SPLITREEL_JBD2_DISK_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define JBD2_PACKED __attribute__((packed))

typedef struct JBD2_PACKED {
    uint32_t h_magic;
    uint32_t h_blocktype;
    uint32_t h_sequence;
} jbd2_header_t;

typedef struct JBD2_PACKED {
    jbd2_header_t s_header;
    uint32_t s_blocksize;
    uint32_t s_maxlen;
    uint32_t s_first;
    uint32_t s_sequence;
    uint32_t s_start;
    uint32_t s_errno;
    uint32_t s_feature_compat;      /* from here on only in version 2 */
    uint32_t s_feature_incompat;
    uint32_t s_feature_ro_compat;
    uint8_t s_uuid[16];
    uint8_t unread_40[16];
    uint8_t s_checksum_type;
    uint8_t unread_51[3];
    uint32_t s_num_fc_blks;
    uint8_t unread_58[164];
    uint32_t s_checksum;
    uint8_t s_users[768];
} jbd2_superblock_t;

/* A tag of a descriptor block. Its length depends on the features: 8 to 16 bytes of these are there. */
typedef struct JBD2_PACKED {
    uint32_t t_blocknr;
    uint16_t t_checksum;
    uint16_t t_flags;
    uint32_t t_blocknr_high;
} jbd2_tag_t;

typedef struct JBD2_PACKED {
    uint32_t t_blocknr;
    uint32_t t_flags;
    uint32_t t_blocknr_high;
    uint32_t t_checksum;
} jbd2_tag3_t;

typedef struct JBD2_PACKED {
    jbd2_header_t r_header;
    uint32_t r_count;               /* bytes used, this header among them */
} jbd2_revoke_header_t;

typedef struct JBD2_PACKED {
    jbd2_header_t h_header;
    uint8_t h_chksum_type;
    uint8_t h_chksum_size;
    uint8_t h_padding[2];
    uint32_t h_chksum[8];
    uint64_t h_commit_sec;
    uint32_t h_commit_nsec;
} jbd2_commit_header_t;

static_assert(sizeof(jbd2_header_t) == 12, "header");
static_assert(sizeof(jbd2_superblock_t) == 1024, "journal superblock");
static_assert(offsetof(jbd2_superblock_t, s_uuid) == 0x30, "s_uuid");
static_assert(offsetof(jbd2_superblock_t, s_checksum_type) == 0x50, "s_checksum_type");
static_assert(offsetof(jbd2_superblock_t, s_num_fc_blks) == 0x54, "s_num_fc_blks");
static_assert(offsetof(jbd2_superblock_t, s_checksum) == 0xFC, "s_checksum");
static_assert(sizeof(jbd2_tag_t) == 12 && sizeof(jbd2_tag3_t) == 16, "tag");
static_assert(sizeof(jbd2_revoke_header_t) == 16, "revoke header");
static_assert(offsetof(jbd2_commit_header_t, h_chksum) == 0x10, "h_chksum");
static_assert(offsetof(jbd2_commit_header_t, h_commit_sec) == 0x30, "h_commit_sec");
static_assert(sizeof(jbd2_commit_header_t) == 0x3C, "commit header");

static inline uint16_t jbd2_be16(uint16_t value) { return be16toh(value); }
static inline uint32_t jbd2_be32(uint32_t value) { return be32toh(value); }
static inline uint64_t jbd2_be64(uint64_t value) { return be64toh(value); }

/* Transaction numbers wrap: a is after b when the difference, as a signed number, is above 0. */
static inline int jbd2_tid_after(uint32_t a, uint32_t b) { return (int32_t)(a - b) > 0; }

#endif
