/* bigendian.h: the integers of CDBs, mode pages and sense data. */
#ifndef SPLITREEL_BIGENDIAN_H
#define SPLITREEL_BIGENDIAN_H

#include <stdint.h>

static inline uint64_t be_get(const uint8_t *at, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value = value << 8 | at[i];
    return value;
}

/* Sign-extended from 24 bits: the count of SPACE(6). */
static inline int64_t be_get_signed24(const uint8_t *at)
{
    int64_t value = (int64_t)be_get(at, 3);
    return value & 0x800000 ? value - 0x1000000 : value;
}

static inline void be_put(uint8_t *at, uint64_t value, int size)
{
    for (int i = size - 1; i >= 0; i--, value >>= 8)
        at[i] = (uint8_t)value;
}

#endif
