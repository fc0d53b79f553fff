/* pages_postgresql_disk.h holds PostgreSQL's page header (storage/bufpage.h) under its own names, in the byte order of the
 * machine that wrote it, and the page checksum of versions 9.3 and later: 32 FNV-1a sums side by side, which
 * storage/checksum_impl.h describes. It judges no page. */
#ifndef SPLITREEL_PAGES_POSTGRESQL_DISK_H
#define SPLITREEL_PAGES_POSTGRESQL_DISK_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct __attribute__((packed)) {
    uint32_t pd_lsn_xlogid;                     /* high half of the LSN */
    uint32_t pd_lsn_xrecoff;
    uint16_t pd_checksum;
    uint16_t pd_flags;
    uint16_t pd_lower;
    uint16_t pd_upper;
    uint16_t pd_special;
    uint16_t pd_pagesize_version;
    uint32_t pd_prune_xid;
} pg_page_header_t;

#define PD_VALID_FLAG_BITS 0x0007
#define PG_SUMS 32
#define PG_ROW (PG_SUMS * 4)                    /* bytes that go into each sum once */
#define PG_PRIME 16777619u

static_assert(sizeof(pg_page_header_t) == 24, "a page header has 24 bytes before its line pointers");
static_assert(offsetof(pg_page_header_t, pd_checksum) == 8, "pd_checksum");
static_assert(offsetof(pg_page_header_t, pd_upper) == 14, "pd_upper");
static_assert(offsetof(pg_page_header_t, pd_prune_xid) == 20, "pd_prune_xid");

static const uint32_t pg_sum_offsets[PG_SUMS] = {
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
};

/* The lanes of a row are vectors: a compiler makes of them what its target has. Eight sums each, four multiplications under
 * way at a time, which is what it takes to hide how long one is. A macro, since vectors are lowered for the function they
 * stand in before it could be inlined into one of another target. */
typedef uint32_t pg_lane_t __attribute__((vector_size(32)));

#define PG_SUM_STEP(sum, value)                                                                          \
    do {                                                                                                 \
        pg_lane_t mixed = (sum) ^ (value);                                                               \
        (sum) = (mixed * PG_PRIME) ^ (mixed >> 17);                                                      \
    } while (0)

#define PG_SUM_ROW(row)                                                                                  \
    do {                                                                                                 \
        pg_lane_t value[4];                                                                              \
        memcpy(value, (row), PG_ROW);                                                                    \
        PG_SUM_STEP(a, value[0]);                                                                        \
        PG_SUM_STEP(b, value[1]);                                                                        \
        PG_SUM_STEP(c, value[2]);                                                                        \
        PG_SUM_STEP(d, value[3]);                                                                        \
    } while (0)

/* The sum of a page of rows * PG_ROW bytes, its checksum field taken as zero. The page is not written to. */
#define PG_SUM_PAGE(TARGET, NAME)                                                                        \
    TARGET static uint32_t NAME(const uint8_t *page, size_t rows) {                                      \
        static const uint8_t nothing[PG_ROW];                                                            \
        uint8_t first[PG_ROW];                                                                           \
        uint32_t sums[PG_SUMS], sum = 0;                                                                 \
        pg_lane_t a, b, c, d;                                                                            \
        memcpy(&a, pg_sum_offsets, 32);                                                                  \
        memcpy(&b, pg_sum_offsets + 8, 32);                                                              \
        memcpy(&c, pg_sum_offsets + 16, 32);                                                             \
        memcpy(&d, pg_sum_offsets + 24, 32);                                                             \
        memcpy(first, page, PG_ROW);                                                                     \
        memset(first + offsetof(pg_page_header_t, pd_checksum), 0, sizeof(uint16_t));                    \
        PG_SUM_ROW(first);                                                                               \
        for (size_t i = 1; i < rows; i++)                                                                \
            PG_SUM_ROW(page + i * PG_ROW);                                                               \
        PG_SUM_ROW(nothing);                                                                             \
        PG_SUM_ROW(nothing);                                                                             \
        memcpy(sums, &a, 32);                                                                            \
        memcpy(sums + 8, &b, 32);                                                                        \
        memcpy(sums + 16, &c, 32);                                                                       \
        memcpy(sums + 24, &d, 32);                                                                       \
        for (int i = 0; i < PG_SUMS; i++)                                                                \
            sum ^= sums[i];                                                                              \
        return sum;                                                                                      \
    }

PG_SUM_PAGE(, pg_sum_portable)

#if defined(__x86_64__)
PG_SUM_PAGE(__attribute__((target("avx2"))), pg_sum_avx2)
static inline int pg_sum_avx2_works(void) { return __builtin_cpu_supports("avx2") != 0; }
#else
#define pg_sum_avx2 pg_sum_portable
static inline int pg_sum_avx2_works(void) { return 0; }
#endif

typedef uint32_t (*pg_sum_t)(const uint8_t *page, size_t rows);
static pg_sum_t pg_sum = pg_sum_portable;

/* Uses the CPU's wider vectors where it has them and native is set; returns whether it does. */
static int pg_choose_sum(int native) {
    int wide = native && pg_sum_avx2_works();
    pg_sum = wide ? pg_sum_avx2 : pg_sum_portable;
    return wide;
}

/* What pd_checksum of a page must be, given its block number in the relation: never 0. */
static inline uint16_t pg_page_checksum(const uint8_t *page, uint32_t size, uint32_t block) {
    return (uint16_t)((pg_sum(page, size / PG_ROW) ^ block) % 65535 + 1);
}

#endif
