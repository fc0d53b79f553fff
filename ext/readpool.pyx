"""readpool reads with plain threads what engine queues, where io_uring is not allowed. It knows no Python object.

One mutex guards two rings of slots: queued and done. Workers hold it only to take a slot and to give it back.
"""

from libc.errno cimport EINTR, EIO, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from splitreel.core.device cimport pread_full
from splitreel.core.spantable cimport (
    SPAN_LINEAR, SPAN_MEMORY, iovec, next_piece, piece_descriptor, read_leg, span_piece_t, stripe_group,
)


cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef void* (*thread_body_t)(void*) noexcept nogil
    int pthread_create(pthread_t* thread, const void* attributes, thread_body_t body, void* argument)
    int pthread_join(pthread_t thread, void** result)
    int pthread_mutex_init(pthread_mutex_t* mutex, const void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_cond_init(pthread_cond_t* condition, const void* attributes)
    int pthread_cond_destroy(pthread_cond_t* condition)
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex)
    int pthread_cond_signal(pthread_cond_t* condition)
    int pthread_cond_broadcast(pthread_cond_t* condition)

cdef extern from "<sys/uio.h>" nogil:
    ssize_t preadv(int fd, const iovec* vectors, int count, int64_t offset)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t* signals)
    int pthread_sigmask(int how, const sigset_t* signals, sigset_t* old)
    const int SIG_SETMASK


cdef enum:
    MOST_WORKERS = 64                                # more threads than that cost more than they bring


cdef struct pool_t:
    pthread_mutex_t lock
    pthread_cond_t work                              # something was queued, or stop
    pthread_cond_t finished                          # done_count reached awaited
    request_t* requests
    uint32_t depth
    uint32_t queued[MOST_DEPTH]                      # rings of slots
    uint32_t queued_head
    uint32_t queued_count
    uint32_t done[MOST_DEPTH]
    uint32_t done_head
    uint32_t done_count
    uint32_t awaited                                 # how many the owner waits for; 0: it does not wait
    bint stop
    int fd
    uint32_t alignment
    const span_table_t* table
    pthread_t workers[MOST_WORKERS]
    uint32_t worker_count


cdef bint next_leg(const span_table_t* table, request_t* request, uint64_t size, read_step_t* step) noexcept nogil:
    # One read for all that a leg holds of a request, not one for each stripe: by stripes of 64 KiB a stream took twice
    # as long. Whatever is unusual is left to the reads piece by piece.
    cdef uint64_t offset = request.offset + request.done
    cdef uint8_t* destination = request.destination + request.done
    cdef span_piece_t piece
    if request.group == 0:
        request.group = <uint32_t>stripe_group(table, offset, size, &request.legs_left)
    if request.group == 0:
        return False
    request.piece = <uint32_t>read_leg(table, offset, request.group, request.legs_left - 1, destination,
                                       request.vectors, &step.vector_count, &piece)
    if request.piece == 0:
        request.single = request.done + request.group
        request.group = 0
        return False
    step.fd = table.sources[piece.source].fd
    step.physical = piece.physical
    step.size = request.piece
    return True


cdef void next_read(const span_table_t* table, request_t* request, read_step_t* step) noexcept nogil:
    cdef span_piece_t piece
    cdef uint8_t* destination
    cdef uint64_t offset, size
    step.size = 0
    while request.done < request.wanted:
        offset = request.offset + request.done
        if offset >= table.size:
            request.os_errno = EIO
            return
        size = min(<uint64_t>(request.wanted - request.done), table.size - offset)
        if request.vectors != NULL and request.done >= request.single and next_leg(table, request, size, step):
            return
        step.vector_count = 0
        destination = request.destination + request.done
        next_piece(table, offset, size, &piece)
        if piece.kind == SPAN_LINEAR:
            step.fd = piece_descriptor(table, &piece, destination, &request.alignment)
            step.physical = piece.physical
            step.size = <uint32_t>(piece.size + request.alignment - 1) & ~(request.alignment - 1)
            request.piece = <uint32_t>piece.size
            return
        if piece.kind == SPAN_MEMORY:
            memcpy(destination, piece.bytes, piece.size)
        else:
            memset(destination, 0, piece.size)
        request.done += <uint32_t>piece.size


cdef void advance_leg(request_t* request, uint32_t got) noexcept nogil:
    # A leg that was read in part is read again piece by piece, and the others with it.
    if got < request.piece:
        request.single = request.done + request.group
        request.group = 0
    else:
        request.legs_left -= 1
        if request.legs_left == 0:
            request.done += request.group
            request.group = 0
    request.piece = 0


cdef void advance_read(request_t* request, uint32_t got) noexcept nogil:
    # A read may bring more than the piece, whose end need not be aligned: what follows it is read after.
    cdef uint32_t part = min(got, request.piece)
    if request.group != 0:
        advance_leg(request, got)
        return
    request.done += part
    request.piece -= part
    if request.piece != 0 and (got == 0 or got % request.alignment != 0):
        request.os_errno = EIO                       # its source ends here


cdef void pool_read_spans(const span_table_t* table, request_t* request) noexcept nogil:
    cdef read_step_t step
    cdef int64_t got
    next_read(table, request, &step)
    while step.size != 0 and request.os_errno == 0:
        if step.vector_count != 0:
            got = preadv(step.fd, request.vectors, <int>step.vector_count, <int64_t>step.physical)
            if got < 0 and errno != EINTR:
                request.os_errno = errno
        else:
            got = pread_full(step.fd, request.destination + request.done, step.size, step.physical,
                             request.alignment)
            if got < 0:
                request.os_errno = <int>-got
        if got >= 0:
            advance_read(request, <uint32_t>got)
        if request.os_errno == 0:
            next_read(table, request, &step)


cdef void pool_read(pool_t* pool, request_t* request) noexcept nogil:
    # All of size, since with O_DIRECT a length must be whole blocks, also at the odd end of an image.
    cdef int64_t got
    if pool.table != NULL:
        pool_read_spans(pool.table, request)
        return
    got = pread_full(pool.fd, request.destination, request.size, request.offset, pool.alignment)
    if got < 0:
        request.os_errno = <int>-got
    elif <uint64_t>got < request.wanted:
        request.os_errno = EIO                       # the device ends here


cdef void* pool_worker(void* argument) noexcept nogil:
    cdef pool_t* pool = <pool_t*>argument
    cdef uint32_t slot
    pthread_mutex_lock(&pool.lock)
    while True:
        while pool.queued_count == 0 and not pool.stop:
            pthread_cond_wait(&pool.work, &pool.lock)
        if pool.queued_count == 0:
            break
        slot = pool.queued[pool.queued_head]
        pool.queued_head = (pool.queued_head + 1) % pool.depth
        pool.queued_count -= 1
        pthread_mutex_unlock(&pool.lock)
        pool_read(pool, &pool.requests[slot])
        pthread_mutex_lock(&pool.lock)
        pool.done[(pool.done_head + pool.done_count) % pool.depth] = slot
        pool.done_count += 1
        if pool.awaited != 0 and pool.done_count >= pool.awaited:
            pthread_cond_signal(&pool.finished)
    pthread_mutex_unlock(&pool.lock)
    return NULL


cdef void pool_push(pool_t* pool, uint32_t slot) noexcept nogil:
    pthread_mutex_lock(&pool.lock)
    pool.queued[(pool.queued_head + pool.queued_count) % pool.depth] = slot
    pool.queued_count += 1
    pthread_cond_signal(&pool.work)
    pthread_mutex_unlock(&pool.lock)


cdef uint32_t pool_pop(pool_t* pool, uint32_t* slots, uint32_t capacity, uint32_t minimum) noexcept nogil:
    cdef uint32_t count = 0
    pthread_mutex_lock(&pool.lock)
    pool.awaited = minimum
    while pool.done_count < minimum:
        pthread_cond_wait(&pool.finished, &pool.lock)
    pool.awaited = 0
    while count < capacity and pool.done_count != 0:
        slots[count] = pool.done[pool.done_head]
        pool.done_head = (pool.done_head + 1) % pool.depth
        pool.done_count -= 1
        count += 1
    pthread_mutex_unlock(&pool.lock)
    return count


cdef int start_workers(pool_t* pool) noexcept nogil:
    # Workers take no signals: these are for Python's main thread. As many workers as the system gives; one is enough.
    cdef sigset_t all_signals, before
    cdef uint32_t most = min(pool.depth, <uint32_t>MOST_WORKERS)
    cdef int rc = 0
    pthread_mutex_init(&pool.lock, NULL)
    pthread_cond_init(&pool.work, NULL)
    pthread_cond_init(&pool.finished, NULL)
    sigfillset(&all_signals)
    pthread_sigmask(SIG_SETMASK, &all_signals, &before)
    while pool.worker_count < most and rc == 0:
        rc = pthread_create(&pool.workers[pool.worker_count], NULL, pool_worker, pool)
        if rc == 0:
            pool.worker_count += 1
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    return 0 if pool.worker_count != 0 else -rc


cdef int pool_open(pool_t** opened, request_t* requests, uint32_t depth, int fd, uint32_t alignment,
                   const span_table_t* table) noexcept nogil:
    cdef pool_t* pool = <pool_t*>calloc(1, sizeof(pool_t))
    cdef int rc
    if pool == NULL:
        return -ENOMEM
    pool.requests = requests
    pool.depth = depth
    pool.fd = fd
    pool.alignment = alignment
    pool.table = table
    rc = start_workers(pool)
    if rc < 0:
        free(pool)
        return rc
    opened[0] = pool
    return 0


cdef void pool_close(pool_t* pool) noexcept nogil:
    cdef uint32_t i
    pthread_mutex_lock(&pool.lock)
    pool.stop = True
    pthread_cond_broadcast(&pool.work)
    pthread_mutex_unlock(&pool.lock)
    for i in range(pool.worker_count):
        pthread_join(pool.workers[i], NULL)
    pthread_cond_destroy(&pool.finished)
    pthread_cond_destroy(&pool.work)
    pthread_mutex_destroy(&pool.lock)
    free(pool)
