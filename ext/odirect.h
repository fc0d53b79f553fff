/* odirect.h asks the kernel what O_DIRECT needs on an open file. It reads no data. */
#ifndef SPLITREEL_ODIRECT_H
#define SPLITREEL_ODIRECT_H

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

/* Alignment of offset and memory that O_DIRECT needs (statx, since Linux 6.1); 0: it is not possible on this file;
 * -1: the kernel or the file system does not say. */
static inline int64_t odirect_alignment(int fd) {
#ifdef STATX_DIOALIGN
    struct statx about;
    memset(&about, 0, sizeof about);
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &about) != 0 || !(about.stx_mask & STATX_DIOALIGN))
        return -1;
    if (about.stx_dio_offset_align == 0)
        return 0;
    return about.stx_dio_mem_align > about.stx_dio_offset_align ? about.stx_dio_mem_align : about.stx_dio_offset_align;
#else
    return -1;
#endif
}

#endif
