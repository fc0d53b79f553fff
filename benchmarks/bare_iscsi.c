/* bare_iscsi writes tape blocks over libiscsi and does nothing else: the yardstick for splitreel's iSCSI transport.
 *
 *     bare_iscsi URL BLOCK_SIZE COUNT DEPTH
 *
 * Logs in, takes the unit attention, rewinds, writes COUNT blocks with DEPTH of them outstanding (above 1 a real tape
 * would not be safe), and prints "BYTES SECONDS CPU_SECONDS". Login, rewind and logout are not timed. No retry: any
 * failure ends it with status 1. Build: gcc -O2 bare_iscsi.c -o bare_iscsi $(pkg-config --cflags --libs libiscsi) */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

static int outstanding;

static void fail(struct iscsi_context *context, const char *what)
{
	fprintf(stderr, "bare_iscsi: %s: %s\n", what, iscsi_get_error(context));
	exit(1);
}

static void written(struct iscsi_context *context, int status, void *task, void *unused)
{
	(void)unused;
	if (status != SCSI_STATUS_GOOD)
		fail(context, "WRITE");
	scsi_free_scsi_task(task);
	outstanding--;
}

static void write_block(struct iscsi_context *context, int lun, unsigned char *block, int size)
{
	unsigned char cdb[6] = {0x0a, 0, size >> 16, size >> 8, size, 0};
	struct iscsi_data data = {.size = size, .data = block};
	struct scsi_task *task = scsi_create_task(6, cdb, SCSI_XFER_WRITE, size);

	if (task == NULL || iscsi_scsi_command_async(context, lun, task, written, &data, NULL) != 0)
		fail(context, "WRITE");
	outstanding++;
}

static void service(struct iscsi_context *context)
{
	struct pollfd ready = {.fd = iscsi_get_fd(context), .events = (short)iscsi_which_events(context)};

	if (poll(&ready, 1, 30000) <= 0 || iscsi_service(context, ready.revents) < 0)
		fail(context, "connection");
}

static void write_all(struct iscsi_context *context, int lun, unsigned char *block, int size, long count, int depth)
{
	long submitted = 0;

	while (submitted < count || outstanding > 0) {
		while (outstanding < depth && submitted < count) {
			write_block(context, lun, block, size);
			submitted++;
		}
		service(context);
	}
}

/* One command without data; attempts above 1 pass over unit attentions. */
static void control(struct iscsi_context *context, int lun, unsigned char opcode, int attempts)
{
	unsigned char cdb[6] = {opcode, 0, 0, 0, 0, 0};
	int status = -1;

	while (status != SCSI_STATUS_GOOD && attempts-- > 0) {
		struct scsi_task *task = scsi_create_task(6, cdb, SCSI_XFER_NONE, 0);

		if (task == NULL || iscsi_scsi_command_sync(context, lun, task, NULL) == NULL)
			fail(context, "command");
		status = task->status;
		scsi_free_scsi_task(task);
	}
	if (status != SCSI_STATUS_GOOD)
		fail(context, "command");
}

static struct iscsi_context *log_in(const char *text, int *lun)
{
	struct iscsi_context *context = iscsi_create_context("iqn.2026-11.splitreel:bare");
	struct iscsi_url *url = iscsi_parse_full_url(context, text);

	if (url == NULL)
		fail(context, "URL");
	*lun = url->lun;
	iscsi_set_noautoreconnect(context, 1);
	iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(context, ISCSI_HEADER_DIGEST_NONE);
	if (iscsi_connect_sync(context, url->portal) != 0 || iscsi_login_sync(context) != 0)
		fail(context, "login");
	iscsi_destroy_url(url);
	return context;
}

static double clock_seconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct iscsi_context *context;
	unsigned char *block;
	double wall, cpu;
	int lun, size, depth;
	long count;

	if (argc != 5) {
		fprintf(stderr, "usage: bare_iscsi URL BLOCK_SIZE COUNT DEPTH\n");
		return 2;
	}
	size = atoi(argv[2]);
	count = atol(argv[3]);
	depth = atoi(argv[4]);
	block = malloc((size_t)size);
	if (block == NULL || size <= 0 || size > 0xffffff || count <= 0 || depth <= 0)
		return 2;
	memset(block, 0xa5, (size_t)size);
	context = log_in(argv[1], &lun);
	control(context, lun, 0x00, 3);
	control(context, lun, 0x01, 1);
	wall = clock_seconds(CLOCK_MONOTONIC);
	cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
	write_all(context, lun, block, size, count, depth);
	wall = clock_seconds(CLOCK_MONOTONIC) - wall;
	cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	printf("%lld %.6f %.6f\n", (long long)count * size, wall, cpu);
	iscsi_logout_sync(context);
	iscsi_destroy_context(context);
	free(block);
	return 0;
}
