/* digest.h: what a fingerprint is made with. A 64-bit digest of raw records, by folded 64x64 multiplication. It finds
 * accidental change; it is no signature. Not two CRCs: CRCs of one polynomial with two seeds differ by a constant, so the
 * second would add nothing. */
#ifndef SPLITREEL_DIGEST_H
#define SPLITREEL_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t digest_fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t digest_records(uint64_t seed, const uint8_t *data, size_t size)
{
    uint64_t state = digest_fold(seed ^ 0x9E3779B97F4A7C15u, size ^ 0xD6E8FEB86659FD93u);
    uint64_t pair[2];
    size_t at = 0;

    for (; at + 16 <= size; at += 16) {
        memcpy(pair, data + at, 16);
        state = digest_fold(pair[0] ^ 0xA0761D6478BD642Fu, pair[1] ^ state) ^ (state >> 29);
    }
    if (at < size) {
        pair[0] = pair[1] = 0;
        memcpy(pair, data + at, size - at);
        state = digest_fold(pair[0] ^ 0xA0761D6478BD642Fu, pair[1] ^ state) ^ (state >> 29);
    }
    return digest_fold(state ^ 0xE7037ED1A0B428DBu, 0x8EBC6AF09C88C6E3u);
}

#endif
