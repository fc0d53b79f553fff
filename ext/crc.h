/* crc.h holds the CRC kernels behind checksum.pyx: tables, CPU instructions, GF(2) arithmetic. It keeps no running state.
 *
 * Two polynomials of degree 32. CRC32C is bit-reflected: bit 31 of a word is the coefficient of x^0, bit 0 of x^31.
 * cksum is not: bit 31 is x^31. Everything here works on bare registers, without initial or final inversion.
 */
#ifndef SPLITREEL_CRC_H
#define SPLITREEL_CRC_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define CRC32C_POLYNOMIAL 0x82F63B78u /* 1EDC6F41h reflected, RFC 3720 B.4 */
#define CKSUM_POLYNOMIAL 0x04C11DB7u  /* IEEE 1003.1 cksum, as in Ethernet */

/* Lanes of the three-way loop. One crc32 instruction takes three cycles but one can start each cycle, so three
 * independent lanes keep it busy; a lane's merge costs eight table look-ups, hence long lanes where there is room. */
#define CRC_LONG_LANE 4096u
#define CRC_SHORT_LANE 256u

static uint32_t crc32c_slices[8][256];
static uint32_t cksum_slices[8][256];
static uint32_t crc32c_powers[8][256]; /* [k][d] = x^(8 d 256^k): a shift by any 64-bit size is at most 8 products */
static uint32_t cksum_powers[8][256];
static uint32_t crc32c_long_shift[4][256]; /* register byte -> its part after CRC_LONG_LANE zero bytes */
static uint32_t crc32c_short_shift[4][256];

/* ---- GF(2) arithmetic ---- */

/* a b mod P. No branches: 32 steps of about four cycles. */
static inline uint32_t crc32c_multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (int i = 0; i < 32; i++) {
        product ^= b & (0u - (a >> 31));
        a <<= 1;
        b = (b >> 1) ^ (CRC32C_POLYNOMIAL & (0u - (b & 1u)));
    }
    return product;
}

static inline uint32_t cksum_multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (int i = 0; i < 32; i++) {
        product = (product << 1) ^ (CKSUM_POLYNOMIAL & (0u - (product >> 31)));
        product ^= b & (0u - (a >> 31));
        a <<= 1;
    }
    return product;
}

/* The register after size zero bytes: register x^(8 size) mod P, one product for each byte of size that is not zero. */
static inline uint32_t crc32c_shift(uint32_t crc, uint64_t size) {
    for (int k = 0; size != 0; k++, size >>= 8)
        if (size & 255u)
            crc = crc32c_multiply(crc, crc32c_powers[k][size & 255u]);
    return crc;
}

static inline uint32_t cksum_shift(uint32_t crc, uint64_t size) {
    for (int k = 0; size != 0; k++, size >>= 8)
        if (size & 255u)
            crc = cksum_multiply(crc, cksum_powers[k][size & 255u]);
    return crc;
}

/* ---- Portable kernels: slice-by-8 ---- */

static inline uint64_t crc_load64(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

static uint32_t crc32c_slice8(uint32_t crc, const uint8_t *p, size_t size) {
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word = le64toh(crc_load64(p)) ^ crc;
        crc = crc32c_slices[7][word & 255] ^ crc32c_slices[6][word >> 8 & 255] ^ crc32c_slices[5][word >> 16 & 255] ^
              crc32c_slices[4][word >> 24 & 255] ^ crc32c_slices[3][word >> 32 & 255] ^
              crc32c_slices[2][word >> 40 & 255] ^ crc32c_slices[1][word >> 48 & 255] ^ crc32c_slices[0][word >> 56];
    }
    for (; size != 0; p++, size--)
        crc = (crc >> 8) ^ crc32c_slices[0][(crc ^ *p) & 255];
    return crc;
}

static uint32_t cksum_slice8(uint32_t crc, const uint8_t *p, size_t size) {
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word = be64toh(crc_load64(p)) ^ (uint64_t)crc << 32;
        crc = cksum_slices[0][word & 255] ^ cksum_slices[1][word >> 8 & 255] ^ cksum_slices[2][word >> 16 & 255] ^
              cksum_slices[3][word >> 24 & 255] ^ cksum_slices[4][word >> 32 & 255] ^
              cksum_slices[5][word >> 40 & 255] ^ cksum_slices[6][word >> 48 & 255] ^ cksum_slices[7][word >> 56];
    }
    for (; size != 0; p++, size--)
        crc = (crc << 8) ^ cksum_slices[0][crc >> 24 ^ *p];
    return crc;
}

/* ---- CPU instructions ---- */

static inline uint32_t crc32c_merge(uint32_t shift[4][256], uint32_t first, uint32_t second) {
    return shift[0][first & 255] ^ shift[1][first >> 8 & 255] ^ shift[2][first >> 16 & 255] ^ shift[3][first >> 24] ^
           second;
}

/* A kernel of this shape for each instruction set; STEP64 and STEP8 take a register and data. */
#define CRC32C_LANES(TARGET, NAME, STEP64, STEP8)                                                        \
    TARGET static uint32_t NAME##_lanes(uint32_t crc, const uint8_t *p, size_t lane, uint32_t shift[4][256]) { \
        uint32_t a = crc, b = 0, c = 0;                                                                  \
        for (size_t i = 0; i < lane; i += 8) {                                                           \
            a = (uint32_t)STEP64(a, le64toh(crc_load64(p + i)));                                         \
            b = (uint32_t)STEP64(b, le64toh(crc_load64(p + lane + i)));                                  \
            c = (uint32_t)STEP64(c, le64toh(crc_load64(p + 2 * lane + i)));                              \
        }                                                                                                \
        return crc32c_merge(shift, crc32c_merge(shift, a, b), c);                                        \
    }                                                                                                    \
    TARGET static uint32_t NAME(uint32_t crc, const uint8_t *p, size_t size) {                           \
        for (; size >= 3 * CRC_LONG_LANE; p += 3 * CRC_LONG_LANE, size -= 3 * CRC_LONG_LANE)             \
            crc = NAME##_lanes(crc, p, CRC_LONG_LANE, crc32c_long_shift);                                \
        for (; size >= 3 * CRC_SHORT_LANE; p += 3 * CRC_SHORT_LANE, size -= 3 * CRC_SHORT_LANE)          \
            crc = NAME##_lanes(crc, p, CRC_SHORT_LANE, crc32c_short_shift);                              \
        for (; size >= 8; p += 8, size -= 8)                                                             \
            crc = (uint32_t)STEP64(crc, le64toh(crc_load64(p)));                                         \
        for (; size != 0; p++, size--)                                                                   \
            crc = STEP8(crc, *p);                                                                        \
        return crc;                                                                                      \
    }

#if defined(__x86_64__)

CRC32C_LANES(__attribute__((target("sse4.2"))), crc32c_native, _mm_crc32_u64, _mm_crc32_u8)
static inline int crc32c_native_works(void) { return __builtin_cpu_supports("sse4.2") != 0; }
#define CRC32C_NATIVE_NAME "sse4.2"

static uint64_t cksum_fold_high, cksum_fold_low;     /* x^(512+64), x^512 mod P: over the 64 bytes of four lanes */
static uint64_t cksum_single_high, cksum_single_low; /* x^(128+64), x^128 mod P: over one lane */

#define CKSUM_TARGET __attribute__((target("pclmul,ssse3")))

/* 16 bytes as a polynomial, first byte highest. */
CKSUM_TARGET static inline __m128i cksum_load(const uint8_t *p) {
    const __m128i reversed = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), reversed);
}

/* lane x^n + next, where factors holds x^(n+64) mod P in its high and x^n mod P in its low half. */
CKSUM_TARGET static inline __m128i cksum_fold(__m128i lane, __m128i factors, __m128i next) {
    __m128i high = _mm_clmulepi64_si128(lane, factors, 0x11);
    __m128i low = _mm_clmulepi64_si128(lane, factors, 0x00);
    return _mm_xor_si128(_mm_xor_si128(high, low), next);
}

/* Folds all whole 16-byte blocks into one that has the same remainder; its 16 bytes then go through the tables. */
CKSUM_TARGET static uint32_t cksum_native(uint32_t crc, const uint8_t *p, size_t size) {
    if (size < 128)
        return cksum_slice8(crc, p, size);
    const __m128i four = _mm_set_epi64x((long long)cksum_fold_high, (long long)cksum_fold_low);
    const __m128i one = _mm_set_epi64x((long long)cksum_single_high, (long long)cksum_single_low);
    __m128i a = _mm_xor_si128(cksum_load(p), _mm_set_epi32((int)crc, 0, 0, 0));
    __m128i b = cksum_load(p + 16), c = cksum_load(p + 32), d = cksum_load(p + 48);
    for (p += 64, size -= 64; size >= 64; p += 64, size -= 64) {
        a = cksum_fold(a, four, cksum_load(p));
        b = cksum_fold(b, four, cksum_load(p + 16));
        c = cksum_fold(c, four, cksum_load(p + 32));
        d = cksum_fold(d, four, cksum_load(p + 48));
    }
    a = cksum_fold(cksum_fold(cksum_fold(a, one, b), one, c), one, d);
    for (; size >= 16; p += 16, size -= 16)
        a = cksum_fold(a, one, cksum_load(p));
    uint8_t rest[16];
    _mm_storeu_si128((__m128i *)(void *)rest, a);
    a = cksum_load(rest);
    _mm_storeu_si128((__m128i *)(void *)rest, a);
    return cksum_slice8(cksum_slice8(0, rest, sizeof rest), p, size);
}

static inline int cksum_native_works(void) {
    return __builtin_cpu_supports("pclmul") != 0 && __builtin_cpu_supports("ssse3") != 0;
}

static void cksum_native_setup(void) {
    cksum_fold_high = cksum_shift(1, (512 + 64) / 8);
    cksum_fold_low = cksum_shift(1, 512 / 8);
    cksum_single_high = cksum_shift(1, (128 + 64) / 8);
    cksum_single_low = cksum_shift(1, 128 / 8);
}
#define CKSUM_NATIVE_NAME "pclmulqdq"

#else /* not x86-64 */

#if defined(__aarch64__)
CRC32C_LANES(__attribute__((target("+crc"))), crc32c_native, __crc32cd, __crc32cb)
static inline int crc32c_native_works(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#define CRC32C_NATIVE_NAME "armv8"
#else
#define crc32c_native crc32c_slice8
static inline int crc32c_native_works(void) { return 0; }
#define CRC32C_NATIVE_NAME "none"
#endif

#define cksum_native cksum_slice8
static inline int cksum_native_works(void) { return 0; }
static void cksum_native_setup(void) {}
#define CKSUM_NATIVE_NAME "none"

#endif

/* ---- Tables and the choice of a kernel ---- */

typedef uint32_t (*crc_kernel_t)(uint32_t crc, const uint8_t *p, size_t size);
static crc_kernel_t crc32c_kernel = crc32c_slice8;
static crc_kernel_t cksum_kernel = cksum_slice8;

/* One value after one byte: eight shifts by x. */
static inline uint32_t crc32c_byte(uint32_t crc) {
    for (int bit = 0; bit < 8; bit++)
        crc = (crc >> 1) ^ (CRC32C_POLYNOMIAL & (0u - (crc & 1u)));
    return crc;
}

static inline uint32_t cksum_byte(uint32_t crc) {
    for (int bit = 0; bit < 8; bit++)
        crc = (crc << 1) ^ (CKSUM_POLYNOMIAL & (0u - (crc >> 31)));
    return crc;
}

static void crc_fill_slices(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        crc32c_slices[0][byte] = crc32c_byte(byte);
        cksum_slices[0][byte] = cksum_byte(byte << 24);
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t r = crc32c_slices[k - 1][byte], m = cksum_slices[k - 1][byte];
            crc32c_slices[k][byte] = (r >> 8) ^ crc32c_slices[0][r & 255];
            cksum_slices[k][byte] = (m << 8) ^ cksum_slices[0][m >> 24];
        }
}

static void crc_fill_powers(void) {
    uint32_t reflected = 1u << 23, plain = 1u << 8; /* x^8 in each notation */
    for (int k = 0; k < 8; k++) {
        crc32c_powers[k][0] = 1u << 31;
        cksum_powers[k][0] = 1u;
        for (int d = 1; d < 256; d++) {
            crc32c_powers[k][d] = crc32c_multiply(crc32c_powers[k][d - 1], reflected);
            cksum_powers[k][d] = cksum_multiply(cksum_powers[k][d - 1], plain);
        }
        reflected = crc32c_multiply(crc32c_powers[k][255], reflected);
        plain = cksum_multiply(cksum_powers[k][255], plain);
    }
}

static void crc_fill_lane_shifts(void) {
    for (int k = 0; k < 4; k++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            crc32c_long_shift[k][byte] = crc32c_shift(byte << 8 * k, CRC_LONG_LANE);
            crc32c_short_shift[k][byte] = crc32c_shift(byte << 8 * k, CRC_SHORT_LANE);
        }
}

/* Use the CPU's instructions where it has them and native is set; returns a bit for each CRC that does: 1 CRC32C, 2 cksum. */
static int crc_choose(int native) {
    int reflected = native && crc32c_native_works(), plain = native && cksum_native_works();
    crc32c_kernel = reflected ? crc32c_native : crc32c_slice8;
    cksum_kernel = plain ? cksum_native : cksum_slice8;
    return reflected | plain << 1;
}

static int crc_setup(void) {
    crc_fill_slices();
    crc_fill_powers();
    crc_fill_lane_shifts();
    cksum_native_setup();
    return crc_choose(1);
}

#endif
