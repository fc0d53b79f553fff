/* sg_shim.h is what the SG_IO transport needs of C: the names of host and driver states, and an ioctl that no signal
 * interrupts. It decides nothing. */
#ifndef SPLITREEL_SG_SHIM_H
#define SPLITREEL_SG_SHIM_H

#include <errno.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#ifndef SG_FLAG_Q_AT_TAIL
#define SG_FLAG_Q_AT_TAIL 0x10          /* the kernel's scsi/sg.h has it, the C library's copy does not */
#endif

/* include/scsi/scsi_status.h of the kernel: not among its user headers. */
static inline const char *host_status_name(unsigned int status)
{
	static const char *const names[] = {
		"DID_OK", "DID_NO_CONNECT", "DID_BUS_BUSY", "DID_TIME_OUT", "DID_BAD_TARGET", "DID_ABORT", "DID_PARITY",
		"DID_ERROR", "DID_RESET", "DID_BAD_INTR", "DID_PASSTHROUGH", "DID_SOFT_ERROR", "DID_IMM_RETRY",
		"DID_REQUEUE", "DID_TRANSPORT_DISRUPTED", "DID_TRANSPORT_FAILFAST", "DID_TARGET_FAILURE",
		"DID_NEXUS_FAILURE", "DID_ALLOC_FAILURE", "DID_MEDIUM_ERROR", "DID_TRANSPORT_MARGINAL",
	};

	return status < sizeof(names) / sizeof(names[0]) ? names[status] : "unknown host status";
}

/* Kernels before 5.14 report these; later ones only DRIVER_SENSE. */
static inline const char *driver_status_name(unsigned int status)
{
	static const char *const names[] = {
		"DRIVER_OK", "DRIVER_BUSY", "DRIVER_SOFT", "DRIVER_MEDIA", "DRIVER_ERROR", "DRIVER_INVALID",
		"DRIVER_TIMEOUT", "DRIVER_HARD", "DRIVER_SENSE",
	};

	return status < sizeof(names) / sizeof(names[0]) ? names[status] : "unknown driver status";
}

/* A signal that arrives in SG_IO returns at once and leaves the command running as an orphan; with SA_RESTART the kernel
 * issues it a second time: a WRITE twice. So signals wait. Returns 0 or an errno. */
static inline int sg_io(int fd, sg_io_hdr_t *header)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = ioctl(fd, SG_IO, header) < 0 ? errno : 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

#endif
