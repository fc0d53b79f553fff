/* pages_innodb_disk.h holds the header of InnoDB's pages and of its tablespaces (MariaDB storage/innobase/include fil0fil.h,
 * fil0types.h, fsp0types.h, trx0sys.h), big-endian, under their own names, and its checksums that are no CRC. It judges no
 * page. */
#ifndef SPLITREEL_PAGES_INNODB_DISK_H
#define SPLITREEL_PAGES_INNODB_DISK_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct __attribute__((packed)) {
    uint32_t FIL_PAGE_SPACE_OR_CHKSUM;          /* full_crc32: FIL_PAGE_FCRC32_KEY_VERSION */
    uint32_t FIL_PAGE_OFFSET;                   /* page number */
    uint32_t FIL_PAGE_PREV;
    uint32_t FIL_PAGE_NEXT;
    uint32_t FIL_PAGE_LSN_HIGH;
    uint32_t FIL_PAGE_LSN_LOW;
    uint16_t FIL_PAGE_TYPE;
    uint32_t FIL_PAGE_KEY_VERSION;              /* FIL_PAGE_FILE_FLUSH_LSN in page 0 of the system tablespace */
    uint32_t FIL_PAGE_CRYPT_CHECKSUM;           /* taken after encryption */
    uint32_t FIL_PAGE_SPACE_ID;
} fil_page_header_t;

typedef struct __attribute__((packed)) {
    fil_page_header_t header;
    uint32_t FSP_SPACE_ID;
    uint32_t FSP_NOT_USED;
    uint32_t FSP_SIZE;
    uint32_t FSP_FREE_LIMIT;
    uint32_t FSP_SPACE_FLAGS;
} fsp_page_t;

#define FIL_PAGE_DATA 38
#define FIL_PAGE_END_LSN_OLD_CHKSUM 8           /* bytes at the end: an old checksum, then the low half of the LSN */
#define FIL_PAGE_FCRC32_END_LSN 8               /* with full_crc32: the low half of the LSN, then the checksum */
#define FIL_PAGE_FCRC32_CHECKSUM 4
#define BUF_NO_CHECKSUM_MAGIC 0xDEADBEEFu

#define FIL_PAGE_COMPRESSED_MYSQL 14            /* MySQL: compressed, encrypted, both, encrypted R-tree */
#define FIL_PAGE_ENCRYPTED_RTREE_MYSQL 17
#define FIL_PAGE_PAGE_COMPRESSED 34354          /* MariaDB before full_crc32 */
#define FIL_PAGE_PAGE_COMPRESSED_ENCRYPTED 37401
#define FIL_PAGE_COMPRESS_FCRC32_MARKER 0x8000  /* the rest is the length in units of 256 bytes */

#define FSP_FLAGS_FCRC32_MARKER 0x10u
#define FSP_FLAGS_FCRC32_PAGE_SSIZE 0xFu        /* 512 << this */
#define FSP_FLAGS_ZIP_SSIZE(flags) ((flags) >> 1 & 0xFu)
#define FSP_FLAGS_PAGE_SSIZE(flags) ((flags) >> 6 & 0xFu)

#define TRX_SYS_PAGE_NO 5
#define TRX_SYS_DOUBLEWRITE 200                 /* bytes before the end of the page */
#define TRX_SYS_DOUBLEWRITE_MAGIC 10
#define TRX_SYS_DOUBLEWRITE_BLOCK1 14
#define TRX_SYS_DOUBLEWRITE_BLOCK2 18
#define TRX_SYS_DOUBLEWRITE_MAGIC_N 536853855u

static_assert(sizeof(fil_page_header_t) == FIL_PAGE_DATA, "the header ends where a page's data begin");
static_assert(offsetof(fil_page_header_t, FIL_PAGE_LSN_HIGH) == 16, "FIL_PAGE_LSN");
static_assert(offsetof(fil_page_header_t, FIL_PAGE_TYPE) == 24, "FIL_PAGE_TYPE");
static_assert(offsetof(fil_page_header_t, FIL_PAGE_KEY_VERSION) == 26, "FIL_PAGE_FILE_FLUSH_LSN_OR_KEY_VERSION");
static_assert(offsetof(fil_page_header_t, FIL_PAGE_SPACE_ID) == 34, "FIL_PAGE_ARCH_LOG_NO_OR_SPACE_ID");
static_assert(offsetof(fsp_page_t, FSP_SPACE_FLAGS) == 54, "FSP_SPACE_FLAGS");

static inline uint32_t ib_get4(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

/* ut_fold_binary (ut0rnd.h): the checksum of innodb_checksum_algorithm=innodb. A byte a step, each waits for the last. */
static inline uint32_t ib_fold(const uint8_t *data, size_t size) {
    uint32_t fold = 0;
    for (size_t i = 0; i < size; i++)
        fold = ((((fold ^ data[i] ^ 1653893711u) << 8) + fold) ^ 1463735687u) + data[i];
    return fold;
}

/* RFC 1950's Adler-32 as zlib continues it from value: the older checksum of ROW_FORMAT=COMPRESSED starts at 0. */
static inline uint32_t ib_adler(uint32_t value, const uint8_t *data, size_t size) {
    uint32_t low = value & 0xFFFF, high = value >> 16;
    while (size != 0) {
        size_t some = size < 5552 ? size : 5552; /* the most before 32 bits overflow */
        size -= some;
        for (; some != 0; some--) {
            low += *data++;
            high += low;
        }
        low %= 65521;
        high %= 65521;
    }
    return high << 16 | low;
}

#endif
