/* uring.h is what engine.pyx needs of liburing, or, built without it, the same calls saying ENOSYS. It keeps no requests. */
#ifndef SPLITREEL_URING_H
#define SPLITREEL_URING_H

#include <errno.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef SPLITREEL_HAVE_LIBURING

#include <liburing.h>

typedef struct {
    struct io_uring ring;
} uring_t;

/* 0 or -errno: ENOSYS and EPERM where the kernel or a container forbids io_uring, or lacks its plain read. */
static inline int uring_open(uring_t *u, unsigned depth) {
    int rc = -EINVAL;
#if defined(IORING_SETUP_COOP_TASKRUN) && defined(IORING_SETUP_TASKRUN_FLAG)
    /* Completions wait for our next call instead of interrupting whoever sums the data; Linux 5.19. */
    rc = io_uring_queue_init(depth, &u->ring, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
#endif
    if (rc == -EINVAL)
        rc = io_uring_queue_init(depth, &u->ring, 0);
    if (rc < 0)
        return rc;
    struct io_uring_probe *probe = io_uring_get_probe_ring(&u->ring);
    int readable = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_READ);
    io_uring_free_probe(probe);
    if (!readable)
        io_uring_queue_exit(&u->ring);
    return readable ? 0 : -ENOSYS;
}

static inline void uring_close(uring_t *u) { io_uring_queue_exit(&u->ring); }

/* 0, or -EBUSY when the submission queue is full. */
static inline int uring_queue(uring_t *u, int fd, void *destination, uint32_t size, uint64_t offset, uint64_t id) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (sqe == NULL)
        return -EBUSY;
    io_uring_prep_read(sqe, fd, destination, size, offset);
    sqe->user_data = id;
    return 0;
}

/* The same into several places. The vectors must stay until it is complete. */
static inline int uring_queue_vectors(uring_t *u, int fd, const struct iovec *vectors, uint32_t count, uint64_t offset,
                                      uint64_t id) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (sqe == NULL)
        return -EBUSY;
    io_uring_prep_readv(sqe, fd, vectors, count, offset);
    sqe->user_data = id;
    return 0;
}

/* The same for what needs no read any more: it completes like one, with 0. */
static inline int uring_queue_nothing(uring_t *u, uint64_t id) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (sqe == NULL)
        return -EBUSY;
    io_uring_prep_nop(sqe);
    sqe->user_data = id;
    return 0;
}

/* Hands over what is queued and waits for so many completions; 0 or more, or -errno. */
static inline int uring_submit(uring_t *u, unsigned wait) {
    if (wait == 0 && io_uring_sq_ready(&u->ring) == 0)
        return 0;
    return io_uring_submit_and_wait(&u->ring, wait);
}

/* 1 with the next completion, 0 when there is none. */
static inline int uring_next(uring_t *u, uint64_t *id, int *result) {
    struct io_uring_cqe *cqe = NULL;
    if (io_uring_peek_cqe(&u->ring, &cqe) != 0 || cqe == NULL)
        return 0;
    *id = cqe->user_data;
    *result = cqe->res;
    io_uring_cqe_seen(&u->ring, cqe);
    return 1;
}

#else

typedef struct {
    int absent;
} uring_t;

static inline int uring_open(uring_t *u, unsigned depth) { return -ENOSYS; }
static inline void uring_close(uring_t *u) {}
static inline int uring_queue(uring_t *u, int fd, void *destination, uint32_t size, uint64_t offset, uint64_t id) {
    return -ENOSYS;
}
static inline int uring_queue_vectors(uring_t *u, int fd, const struct iovec *vectors, uint32_t count, uint64_t offset,
                                      uint64_t id) {
    return -ENOSYS;
}
static inline int uring_queue_nothing(uring_t *u, uint64_t id) { return -ENOSYS; }
static inline int uring_submit(uring_t *u, unsigned wait) { return -ENOSYS; }
static inline int uring_next(uring_t *u, uint64_t *id, int *result) { return 0; }

#endif
#endif
