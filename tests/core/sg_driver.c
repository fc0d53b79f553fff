/* sg_driver is preloaded in place of the kernel's SCSI generic driver: it answers its ioctls on any descriptor and passes
 * all others on. What SG_IO does is told by the operation code, and by FAKE_* in the environment:
 *     00h  CHECK CONDITION with a unit attention        12h  24 bytes of data in, the rest is residue
 *     0Ah  keeps the data; 08h gives them back          C0h  fails with errno = byte 1
 *     C1h  data in: what it was issued with             C2h  host status = byte 1, driver status = byte 2 */
#include <errno.h>
#include <scsi/sg.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned char kept[1 << 20];
static int reserved, calls;

static int setting(const char *name, int otherwise)
{
	const char *value = getenv(name);

	return value != NULL ? atoi(value) : otherwise;
}

static void check_condition(sg_io_hdr_t *header)
{
	static const unsigned char sense[18] = {0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0};

	header->status = 2;
	header->driver_status = 8;
	header->sb_len_wr = sizeof(sense);
	memcpy(header->sbp, sense, sizeof(sense));
}

static void tell(const sg_io_hdr_t *header)
{
	sigset_t mask;
	unsigned char *out = header->dxferp;
	uint32_t numbers[4] = {header->flags, header->timeout, header->mx_sb_len, (uint32_t)calls};

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	memcpy(out, numbers, sizeof(numbers));
	out[16] = (unsigned char)sigismember(&mask, SIGALRM);
	out[17] = (unsigned char)sigismember(&mask, SIGINT);
}

static int sg_io(sg_io_hdr_t *header)
{
	calls++;
	header->duration = 7;
	switch (header->cmdp[0]) {
	case 0x00:
		check_condition(header);
		return 0;
	case 0x08:
		memcpy(header->dxferp, kept, header->dxfer_len);
		return 0;
	case 0x0a:
		memcpy(kept, header->dxferp, header->dxfer_len);
		return 0;
	case 0x12:
		memset(header->dxferp, 'x', 24);
		header->resid = (int)header->dxfer_len - 24;
		return 0;
	case 0xc0:
		errno = header->cmdp[1];
		return -1;
	case 0xc1:
		tell(header);
		return 0;
	case 0xc2:
		header->host_status = header->cmdp[1];
		header->driver_status = header->cmdp[2];
		return 0;
	}
	errno = EINVAL;
	return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *argument;
	int most = setting("FAKE_MAX_SECTORS_BYTES", 1 << 19);

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	switch (request) {
	case SG_GET_VERSION_NUM:
		*(int *)argument = setting("FAKE_VERSION", 30536);
		return 0;
	case SG_GET_SG_TABLESIZE:
		*(int *)argument = setting("FAKE_TABLESIZE", 128);
		return 0;
	case SG_SET_RESERVED_SIZE:
		reserved = *(int *)argument < most ? *(int *)argument : most;
		return 0;
	case SG_GET_RESERVED_SIZE:
		*(int *)argument = reserved;
		return 0;
	case SG_IO:
		return sg_io(argument);
	}
	return (int)syscall(SYS_ioctl, fd, request, argument);
}
