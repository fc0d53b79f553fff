/* gate.h is where the two threads of a stream meet: how many blocks are ready, how many are through. It holds no data. */
#ifndef SPLITREEL_GATE_H
#define SPLITREEL_GATE_H

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t depth;   /* blocks in the ring */
    uint64_t ready;   /* blocks that the producer has filled, from 0 on */
    uint64_t through; /* blocks that the consumer needs no more */
    int finished;     /* the producer fills no more */
    int stop;         /* both sides shall leave */
    int open;
    double producer_wait, consumer_wait; /* seconds */
} gate_t;

static inline double gate_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline void gate_lock(gate_t *gate) { pthread_mutex_lock(&gate->lock); }
static inline void gate_unlock(gate_t *gate) { pthread_mutex_unlock(&gate->lock); }

static inline int gate_open(gate_t *gate, uint64_t depth) {
    pthread_condattr_t attributes;
    memset(gate, 0, sizeof *gate);
    gate->depth = depth;
    if (pthread_mutex_init(&gate->lock, NULL) != 0)
        return -1;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (pthread_cond_init(&gate->changed, &attributes) != 0) {
        pthread_condattr_destroy(&attributes);
        pthread_mutex_destroy(&gate->lock);
        return -1;
    }
    pthread_condattr_destroy(&attributes);
    gate->open = 1;
    return 0;
}

static inline void gate_close(gate_t *gate) {
    if (!gate->open)
        return;
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
    gate->open = 0;
}

/* Back to an empty ring; no thread may be inside. */
static inline void gate_reset(gate_t *gate) {
    gate->ready = gate->through = 0;
    gate->finished = gate->stop = 0;
}

static inline void gate_stop(gate_t *gate) {
    pthread_mutex_lock(&gate->lock);
    gate->stop = 1;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static inline int gate_stopped(gate_t *gate) { return __atomic_load_n(&gate->stop, __ATOMIC_RELAXED); }

/* The producer: all blocks below ready are filled; finished when none follows. */
static inline void gate_publish(gate_t *gate, uint64_t ready, int finished) {
    pthread_mutex_lock(&gate->lock);
    gate->ready = ready;
    gate->finished |= finished;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

/* The consumer: all blocks below through may be filled anew. */
static inline void gate_release(gate_t *gate, uint64_t through) {
    pthread_mutex_lock(&gate->lock);
    gate->through = through;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

/* 1 when there is room for one block more after `used` of them; without room waits up to `seconds` for some. */
static inline int gate_room(gate_t *gate, uint64_t used, double seconds) {
    int room;
    pthread_mutex_lock(&gate->lock);
    if (used - gate->through >= gate->depth && !gate->stop && seconds > 0) {
        struct timespec until;
        double began = gate_now();
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(seconds * 1e9);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        while (used - gate->through >= gate->depth && !gate->stop)
            if (pthread_cond_timedwait(&gate->changed, &gate->lock, &until) == ETIMEDOUT)
                break;
        gate->producer_wait += gate_now() - began;
    }
    room = used - gate->through < gate->depth;
    pthread_mutex_unlock(&gate->lock);
    return room;
}

/* Waits until more than `index` blocks, or `wanted` beyond it, are ready, or no more will come. Returns how many are ready. */
static inline uint64_t gate_await(gate_t *gate, uint64_t index, uint64_t wanted) {
    uint64_t ready;
    pthread_mutex_lock(&gate->lock);
    if (gate->ready < index + wanted && !gate->finished && !gate->stop) {
        double began = gate_now();
        while (gate->ready < index + wanted && !gate->finished && !gate->stop)
            pthread_cond_wait(&gate->changed, &gate->lock);
        gate->consumer_wait += gate_now() - began;
    }
    ready = gate->ready;
    pthread_mutex_unlock(&gate->lock);
    return ready;
}

#endif
