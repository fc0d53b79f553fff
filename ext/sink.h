/* sink.h writes text into memory, or only counts it: one generator both measures and emits. It knows no format. */
#ifndef SPLITREEL_SINK_H
#define SPLITREEL_SINK_H

#include <stdint.h>
#include <string.h>

/* data NULL: nothing is stored. size counts on past capacity, so that the caller sees what would have been needed. */
typedef struct {
    uint8_t *data;
    uint64_t capacity;
    uint64_t size;
} sink_t;

static inline void sink_bytes(sink_t *sink, const void *bytes, uint64_t size) {
    if (sink->data != NULL && size != 0 && sink->size <= sink->capacity && size <= sink->capacity - sink->size)
        memcpy(sink->data + sink->size, bytes, size);
    sink->size += size;
}

static inline void sink_text(sink_t *sink, const char *text) { sink_bytes(sink, text, strlen(text)); }

static inline void sink_fill(sink_t *sink, int byte, uint64_t size) {
    if (sink->data != NULL && size != 0 && sink->size <= sink->capacity && size <= sink->capacity - sink->size)
        memset(sink->data + sink->size, byte, size);
    sink->size += size;
}

static inline uint64_t decimal_digits(uint64_t value) {
    uint64_t digits = 1;
    for (; value >= 10; value /= 10)
        digits++;
    return digits;
}

/* At least width digits, zeros in front. */
static inline void sink_decimal_wide(sink_t *sink, uint64_t value, int width) {
    char text[24];
    int at = sizeof text;
    do {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
        width--;
    } while (value != 0 || width > 0);
    sink_bytes(sink, text + at, sizeof text - (size_t)at);
}

static inline void sink_decimal(sink_t *sink, uint64_t value) { sink_decimal_wide(sink, value, 1); }

static inline void sink_hex8(sink_t *sink, uint32_t value) {
    char text[8];
    for (int i = 7; i >= 0; i--, value >>= 4)
        text[i] = "0123456789abcdef"[value & 15];
    sink_bytes(sink, text, sizeof text);
}

/* Length of the UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF), or 0. */
static inline int utf8_sequence(const uint8_t *p, uint64_t size) {
    uint8_t low = 0x80, high = 0xBF;
    int length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    if (length < 2)
        return length;
    if ((uint64_t)length > size)
        return 0;
    if (p[0] == 0xE0)
        low = 0xA0;
    else if (p[0] == 0xED)
        high = 0x9F;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xF4)
        high = 0x8F;
    if (p[1] < low || p[1] > high)
        return 0;
    for (int i = 2; i < length; i++)
        if (p[i] < 0x80 || p[i] > 0xBF)
            return 0;
    return length;
}

static inline int utf8_valid(const uint8_t *p, uint64_t size) {
    while (size != 0) {
        int length = utf8_sequence(p, size);
        if (length == 0)
            return 0;
        p += length;
        size -= (uint64_t)length;
    }
    return 1;
}

static inline int ascii_only(const uint8_t *p, uint64_t size) {
    uint8_t seen = 0;
    for (uint64_t i = 0; i < size; i++)
        seen |= p[i];
    return seen < 0x80;
}

/* The inside of a JSON string (RFC 8259 7): UTF-8 stays; a byte that is none becomes the lone surrogate U+DC00 + byte. */
static inline void sink_json(sink_t *sink, const uint8_t *p, uint64_t size) {
    char escape[6] = {'\\', 'u', '0', '0', '0', '0'};
    while (size != 0) {
        int length = utf8_sequence(p, size);
        if (length == 0 || *p < 0x20) {
            memcpy(escape + 2, length == 0 ? "dc" : "00", 2);
            escape[4] = "0123456789abcdef"[*p >> 4];
            escape[5] = "0123456789abcdef"[*p & 15];
            sink_bytes(sink, escape, sizeof escape);
            length = 1;
        } else {
            if (*p == '"' || *p == '\\')
                sink_bytes(sink, "\\", 1);
            sink_bytes(sink, p, (uint64_t)length);
        }
        p += length;
        size -= (uint64_t)length;
    }
}

/* A pax record "LENGTH KEY=VALUE\n" (IEEE 1003.1 pax, extended header): its LENGTH counts its own digits. */
static inline uint64_t pax_record_size(uint64_t key_size, uint64_t value_size) {
    uint64_t rest = key_size + value_size + 3, size = rest + 1;
    while (rest + decimal_digits(size) != size)
        size = rest + decimal_digits(size);
    return size;
}

static inline void pax_record_head(sink_t *sink, const void *key, uint64_t key_size, uint64_t value_size) {
    sink_decimal(sink, pax_record_size(key_size, value_size));
    sink_bytes(sink, " ", 1);
    sink_bytes(sink, key, key_size);
    sink_bytes(sink, "=", 1);
}

static inline void pax_record(sink_t *sink, const char *key, const void *value, uint64_t value_size) {
    pax_record_head(sink, key, strlen(key), value_size);
    sink_bytes(sink, value, value_size);
    sink_bytes(sink, "\n", 1);
}

static inline void pax_record_decimal(sink_t *sink, const char *key, uint64_t value) {
    pax_record_head(sink, key, strlen(key), decimal_digits(value));
    sink_decimal(sink, value);
    sink_bytes(sink, "\n", 1);
}

/* A ustar number field: digits - 1 octal digits and a NUL, or zeros when value does not fit (the pax record then holds). */
static inline int ustar_fits(uint64_t value, int field) { return value >> (3 * (field - 1)) == 0; }

static inline void ustar_octal(uint8_t *at, int field, uint64_t value) {
    if (!ustar_fits(value, field))
        value = 0;
    for (int i = field - 2; i >= 0; i--, value >>= 3)
        at[i] = (uint8_t)('0' + (value & 7));
    at[field - 1] = 0;
}

/* The header's checksum: the sum of its bytes, its own field read as blanks; six digits, NUL, blank. */
static inline void ustar_seal(uint8_t *header) {
    uint32_t sum = 0;
    memset(header + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += header[i];
    ustar_octal(header + 148, 7, sum);
}

#endif
