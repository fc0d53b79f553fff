/* iscsi_shim.h is what the iSCSI transport needs of C: clock, SIGPIPE guard, and the keeper thread of an idle session.
 * It does not send commands. */
#ifndef SPLITREEL_ISCSI_SHIM_H
#define SPLITREEL_ISCSI_SHIM_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

static inline int64_t monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether libiscsi's text says why a path failed. What it writes on its way out of a connection that it may not
 * reconnect says nothing, and takes the place of nothing: at the end of a stream there is no text. */
static inline int says_why(const char *text)
{
	return text[0] != 0 && strstr(text, "reconnect_if_loggedin") == NULL;
}

/* The first line of text, cut to what fits. */
static inline void copy_line(char *destination, size_t capacity, const char *text)
{
	size_t size = strcspn(text, "\r\n");

	if (size >= capacity)
		size = capacity - 1;
	memcpy(destination, text, size);
	destination[size] = 0;
}

static inline int sr_task_status(const struct scsi_task *task) { return task->status; }
static inline uint32_t sr_residual(const struct scsi_task *task, uint32_t size)
{
	return task->residual_status != SCSI_RESIDUAL_UNDERFLOW ? 0 : task->residual > size ? size : task->residual;
}
/* Sense data follow a length of two bytes in the SCSI Response's data segment (RFC 7143 11.4.7). */
static inline uint32_t sr_sense(const struct scsi_task *task, uint8_t *sense, uint32_t capacity)
{
	const unsigned char *data = task->datain.data;
	uint32_t size;

	if (task->status != SCSI_STATUS_CHECK_CONDITION || data == NULL || task->datain.size < 2)
		return 0;
	size = (uint32_t)data[0] << 8 | data[1];
	if (size > (uint32_t)task->datain.size - 2)
		size = (uint32_t)task->datain.size - 2;
	if (size > capacity)
		size = capacity;
	memcpy(sense, data + 2, size);
	return size;
}

/* libiscsi sends data with writev(), to which MSG_NOSIGNAL does not apply: a dropped connection raises SIGPIPE, which
 * ends a program that has its default action. Blocked while libiscsi runs; one that we caused is taken off again. */
typedef struct {
	sigset_t before;
	int was_pending;
} sigpipe_guard_t;

static inline void sigpipe_block(sigpipe_guard_t *guard)
{
	sigset_t only, pending;

	sigemptyset(&only);
	sigaddset(&only, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &only, &guard->before);
	guard->was_pending = 0;
	if (sigismember(&guard->before, SIGPIPE)) {
		sigpending(&pending);
		guard->was_pending = sigismember(&pending, SIGPIPE);
	}
}

/* failed: libiscsi reported an error. Only then can there be a signal to take off: two system calls fewer a block. */
static inline void sigpipe_restore(sigpipe_guard_t *guard, int failed)
{
	struct timespec none = {0, 0};
	sigset_t only;

	if (failed && !guard->was_pending) {
		sigemptyset(&only);
		sigaddset(&only, SIGPIPE);
		while (sigtimedwait(&only, NULL, &none) < 0 && errno == EINTR)
			;
	}
	pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
}

/* A target pings an idle session (NOP-In; LIO every 15 s, SCST every 30 s) and drops it when nobody answers, but libiscsi
 * answers only while it is called. The keeper calls it once a second, when no command holds the lock. It sends nothing of
 * its own accord. A session that fails meanwhile is found failed by the next command. */
typedef struct {
	pthread_t thread;
	pthread_mutex_t lock;                   /* held by whoever is inside libiscsi with this context */
	pthread_mutex_t wake_lock;
	pthread_cond_t wake;
	struct iscsi_context *context;          /* NULL: nothing to keep; under lock */
	int failed;                             /* libiscsi reported a failure to the keeper; under lock */
	int stop;                               /* under wake_lock */
} keeper_t;

/* What is to be read and then what is to be sent: an answer goes out at once, not at the next turn. */
static inline void keeper_answer(keeper_t *keeper)
{
	struct pollfd ready;
	int turns;

	for (turns = 0; turns < 8; turns++) {
		ready.fd = iscsi_get_fd(keeper->context);
		ready.events = (short)iscsi_which_events(keeper->context);
		ready.revents = 0;
		if (poll(&ready, 1, 0) <= 0)
			return;
		if (iscsi_service(keeper->context, ready.revents) < 0) {
			keeper->failed = 1;
			return;
		}
	}
}

static inline void keeper_service(keeper_t *keeper)
{
	sigpipe_guard_t guard;

	if (pthread_mutex_trylock(&keeper->lock) != 0)
		return;
	if (keeper->context != NULL && !keeper->failed) {
		sigpipe_block(&guard);
		keeper_answer(keeper);
		sigpipe_restore(&guard, 1);
	}
	pthread_mutex_unlock(&keeper->lock);
}

static inline void *keeper_run(void *argument)
{
	keeper_t *keeper = argument;
	struct timespec until;

	pthread_mutex_lock(&keeper->wake_lock);
	while (!keeper->stop) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += 1;
		if (pthread_cond_timedwait(&keeper->wake, &keeper->wake_lock, &until) != ETIMEDOUT)
			continue;
		pthread_mutex_unlock(&keeper->wake_lock);
		keeper_service(keeper);
		pthread_mutex_lock(&keeper->wake_lock);
	}
	pthread_mutex_unlock(&keeper->wake_lock);
	return NULL;
}

/* Signals go to the program's own threads, so the keeper blocks them all. Returns NULL when it could not be started. */
static inline keeper_t *keeper_create(struct iscsi_context *context)
{
	keeper_t *keeper = calloc(1, sizeof(*keeper));
	pthread_condattr_t clock;
	sigset_t all, before;
	int rc;

	if (keeper == NULL)
		return NULL;
	keeper->context = context;
	pthread_mutex_init(&keeper->lock, NULL);
	pthread_mutex_init(&keeper->wake_lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&keeper->wake, &clock);
	pthread_condattr_destroy(&clock);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&keeper->thread, NULL, keeper_run, keeper);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0) {
		free(keeper);
		return NULL;
	}
	return keeper;
}

static inline void keeper_destroy(keeper_t *keeper)
{
	if (keeper == NULL)
		return;
	pthread_mutex_lock(&keeper->wake_lock);
	keeper->stop = 1;
	pthread_cond_signal(&keeper->wake);
	pthread_mutex_unlock(&keeper->wake_lock);
	pthread_join(keeper->thread, NULL);
	pthread_cond_destroy(&keeper->wake);
	pthread_mutex_destroy(&keeper->wake_lock);
	pthread_mutex_destroy(&keeper->lock);
	free(keeper);
}

#endif
