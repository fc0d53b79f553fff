/* tapfile.h: reads, writes and little-endian words of a SIMH .tap file. Every transfer runs to its end or to an error. */
#ifndef SPLITREEL_TAPFILE_H
#define SPLITREEL_TAPFILE_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static inline uint32_t tap_word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static inline void tap_put_word(uint8_t *bytes, uint32_t word)
{
    bytes[0] = (uint8_t)word;
    bytes[1] = (uint8_t)(word >> 8);
    bytes[2] = (uint8_t)(word >> 16);
    bytes[3] = (uint8_t)(word >> 24);
}

/* Bytes read, fewer only at the end of the file; -1 with errno. */
static inline int64_t tap_read(int fd, void *destination, uint64_t size, uint64_t offset)
{
    uint64_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, (char *)destination + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (uint64_t)got;
    }
    return (int64_t)done;
}

/* 0, or -1 with errno. */
static inline int tap_write(int fd, struct iovec *parts, int count, uint64_t offset)
{
    while (count > 0) {
        ssize_t put = pwritev(fd, parts, count, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        offset += (uint64_t)put;
        while (count > 0 && (size_t)put >= parts->iov_len) {
            put -= (ssize_t)parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + put;
            parts->iov_len -= (size_t)put;
        }
    }
    return 0;
}

/* One record in one write: length, data padded to even, length. */
static inline int tap_write_record(int fd, const void *data, uint32_t size, uint64_t offset)
{
    uint8_t head[4], tail[5] = {0};
    struct iovec parts[3] = {{head, 4}, {(void *)(uintptr_t)data, size}, {tail + 1, 4}};
    tap_put_word(head, size);
    tap_put_word(tail + 1, size);
    if (size & 1) {
        parts[2].iov_base = tail;
        parts[2].iov_len = 5;
    }
    return tap_write(fd, parts, 3, offset);
}

static inline int tap_write_bytes(int fd, const void *data, uint64_t size, uint64_t offset)
{
    struct iovec part = {(void *)(uintptr_t)data, size};
    return tap_write(fd, &part, 1, offset);
}

static inline uint64_t tap_mtime_ns(const struct stat *status)
{
    return (uint64_t)status->st_mtim.tv_sec * 1000000000u + (uint64_t)status->st_mtim.tv_nsec;
}

#endif
