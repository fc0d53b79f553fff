"""sg carries commands through the Linux SCSI generic driver (SG_IO, version 3 headers). It does not retry."""

import errno
import os
import stat
from pathlib import Path

from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from splitreel.core.fault cimport (
    DONE,
    FAULT_LIMIT,
    FAULT_TRANSPORT,
    fault_t,
    raise_fault,
    set_fault,
    set_os_fault,
)
from splitreel.core.sense cimport reply_t
from splitreel.core.tape cimport NO_DATA, TO_DEVICE, Transport

from splitreel import errors

cdef extern from "sg_shim.h" nogil:
    enum:
        SG_DXFER_NONE
        SG_DXFER_TO_DEV
        SG_DXFER_FROM_DEV
        SG_FLAG_Q_AT_TAIL
        SG_GET_VERSION_NUM
        SG_GET_SG_TABLESIZE
        SG_SET_RESERVED_SIZE
        SG_GET_RESERVED_SIZE
        ENOMEM
    int ioctl(int fd, unsigned long request, void* argument)
    int sg_io(int fd, sg_io_hdr_t* header)
    const char* host_status_name(unsigned int status)
    const char* driver_status_name(unsigned int status)

cdef enum:
    MAX_TRANSFER = 0xFFFFFF            # the transfer length of WRITE(6) and READ(6)
    RESERVED = 1 << 20                 # kept by the driver for us, so that no command fails for lack of memory
    SCSI_GENERIC_MAJOR = 21
    OLDEST_VERSION = 30000             # first driver with version 3 headers
    # The target answered, and the host tells as well what it makes of the answer.
    DID_TARGET_FAILURE = 0x10
    DID_NEXUS_FAILURE = 0x11
    DID_MEDIUM_ERROR = 0x13
    DRIVER_SENSE = 0x08
    CHECK_CONDITION = 0x02

SG_CLASS = Path("/sys/class/scsi_generic")
ELEMENT_SIZE = Path("/sys/module/sg/parameters/scatter_elem_sz")

cdef const char* SITE = b"sending a command through SCSI generic"


# --- headers --------------------------------------------------------------------------------------------------------

cdef void fill_header(sg_io_hdr_t* header, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data,
                      uint32_t size, uint32_t timeout_ms, reply_t* reply) noexcept nogil:
    memset(header, 0, sizeof(sg_io_hdr_t))
    header.interface_id = c"S"
    header.dxfer_direction = SG_DXFER_NONE
    if size and direction != NO_DATA:
        header.dxfer_direction = SG_DXFER_TO_DEV if direction == TO_DEVICE else SG_DXFER_FROM_DEV
        header.dxfer_len = size
        header.dxferp = data
    header.cmd_len = <unsigned char>cdb_size
    header.cmdp = <unsigned char*>cdb
    header.mx_sb_len = sizeof(reply.sense)
    header.sbp = reply.sense
    header.timeout = timeout_ms
    # Without this flag the driver queues at the head: last in, first out.
    header.flags = SG_FLAG_Q_AT_TAIL


cdef int decode_header(const sg_io_hdr_t* header, reply_t* reply, fault_t* fault) noexcept nogil:
    cdef unsigned int host = header.host_status
    cdef unsigned int driver = header.driver_status & 0x0F      # the upper half is a suggestion: SUGGEST_RETRY, ...
    cdef bint answered = header.status != 0 and (
        host == DID_TARGET_FAILURE or host == DID_NEXUS_FAILURE or host == DID_MEDIUM_ERROR)
    reply.status = header.status & 0xFE                         # bit 0 is vendor-specific in old targets
    reply.sense_size = min(header.sb_len_wr, <uint32_t>sizeof(reply.sense))
    reply.transferred = header.dxfer_len
    if 0 < header.resid:
        reply.transferred -= min(<uint32_t>header.resid, reply.transferred)
    if host != 0 and not answered:
        set_fault(fault, FAULT_TRANSPORT, SITE, 0, 0, NULL)
        snprintf(fault.detail, sizeof(fault.detail), b"the host adapter reports %s (%Xh)", host_status_name(host), host)
        return FAULT_TRANSPORT
    if driver != 0 and driver != DRIVER_SENSE:
        set_fault(fault, FAULT_TRANSPORT, SITE, 0, 0, NULL)
        snprintf(fault.detail, sizeof(fault.detail), b"the driver reports %s (%Xh)", driver_status_name(driver), driver)
        return FAULT_TRANSPORT
    if reply.status == 0 and driver == DRIVER_SENSE and reply.sense_size:
        reply.status = CHECK_CONDITION                          # some adapters fetch the sense and clear the status
    return DONE


def marshal(bytes cdb not None, int direction, uint32_t size, uint32_t timeout_ms):
    """The sg_io_hdr that such a command is issued with, as bytes; its pointers are NULL. For tests of the layout."""
    cdef sg_io_hdr_t header
    cdef reply_t reply
    fill_header(&header, cdb, <uint32_t>len(cdb), direction, NULL, size, timeout_ms, &reply)
    header.cmdp = NULL
    header.sbp = NULL
    return (<unsigned char*>&header)[:sizeof(header)]


def decode(bytes header not None, bytes sense not None=b""):
    """What a finished sg_io_hdr says: (SAM status, sense data, bytes transferred). For tests of the decoding.

    Raises:
        TransportError: the host adapter or the driver reports that the target did not answer.
    """
    cdef sg_io_hdr_t done
    cdef reply_t reply
    cdef fault_t fault
    if len(header) != <Py_ssize_t>sizeof(done) or len(sense) > <Py_ssize_t>sizeof(reply.sense):
        raise errors.Misuse("decoding an sg_io_hdr", f"{len(header)} bytes")
    memcpy(&done, <const char*>header, sizeof(done))
    memset(&reply, 0, sizeof(reply))
    memcpy(reply.sense, <const char*>sense, len(sense))
    if decode_header(&done, &reply, &fault) < 0:
        raise_fault(&fault)
    return reply.status, reply.sense[:reply.sense_size], reply.transferred


# --- devices --------------------------------------------------------------------------------------------------------

cdef class SgTransport(Transport):
    """Executes commands on a SCSI device of this machine. One thread at a time.

    A command cannot be interrupted: signals wait until the kernel gives it up, which is its time-out and then the
    kernel's error recovery (130 s for a time-out of 2 s on an iSCSI path gone silent). After a TransportError the
    position on tape is unknown; the device stays open, since the kernel has reset it and it may be asked where it is.
    """

    def __cinit__(self, *args, **kwargs):
        self.fd = -1
        self.duration_ms = 0
        self.limit_reason = ""

    def __init__(self, path, *, bint exclusive=False):
        """Open ``/dev/sgN``. Nothing is ever created.

        ``exclusive``: refuse, and keep out, every other user of the sg node.

        Raises:
            UsageError: no such device, or not a SCSI device that takes commands.
            TapeError: it is there but cannot be opened: in use, no permission.
        """
        if self.fd >= 0 or self.closed:
            raise errors.Misuse(f"opening {path}", "this transport has been opened before")
        self.name = os.fspath(path)
        self.fd = open_character_device(self.name, exclusive)
        try:
            self.check_version()
            self.set_limits(os.path.basename(os.path.realpath(self.name)))
        except BaseException:
            self.close()
            raise

    def __dealloc__(self):
        self.close_transport()

    cdef void close_transport(self) noexcept:
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    def check_version(self):
        cdef int version = 0
        if ioctl(self.fd, SG_GET_VERSION_NUM, &version) < 0:
            raise not_generic(self.name)
        if version < OLDEST_VERSION:
            raise errors.UsageError(f"opening {self.name}", f"its driver speaks version {version}, 30000 is needed")

    def set_limits(self, str node):
        """max_transfer: the least of what WRITE(6) can say and what queue and scatter list of the adapter carry."""
        cdef int tablesize = 0, reserved = MAX_TRANSFER, kept = RESERVED
        # The driver cuts the size asked for to the queue's max_sectors: tapes have no queue directory to read it from.
        if (ioctl(self.fd, SG_SET_RESERVED_SIZE, &reserved) == 0
                and ioctl(self.fd, SG_GET_RESERVED_SIZE, &reserved) == 0):
            kept = min(kept, reserved)
            ioctl(self.fd, SG_SET_RESERVED_SIZE, &kept)
        ioctl(self.fd, SG_GET_SG_TABLESIZE, &tablesize)
        limits = transfer_limits(node, reserved, tablesize)
        self.max_transfer, self.limit_reason = min(limits)

    cdef int command(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                     uint32_t timeout_ms, reply_t* reply, fault_t* fault) noexcept nogil:
        cdef sg_io_hdr_t header
        cdef int error
        if size > self.max_transfer:
            set_fault(fault, FAULT_LIMIT, SITE, 0, 0, NULL)
            snprintf(fault.detail, sizeof(fault.detail), b"%u bytes in one command, this path carries %u",
                     <unsigned int>size, <unsigned int>self.max_transfer)
            return FAULT_LIMIT
        fill_header(&header, cdb, cdb_size, direction, data, size, timeout_ms, reply)
        error = sg_io(self.fd, &header)
        if error == ENOMEM:            # nothing was sent: the driver found no memory for the transfer
            set_os_fault(fault, FAULT_LIMIT, error, SITE, 0)
            snprintf(fault.detail, sizeof(fault.detail), b"%u bytes in one command", <unsigned int>size)
            return FAULT_LIMIT
        if error != 0:
            return set_os_fault(fault, FAULT_TRANSPORT, error, SITE, 0)
        self.duration_ms = header.duration
        return decode_header(&header, reply, fault)


def transfer_limits(str node, int reserved, int tablesize, sg_class=SG_CLASS, element_size=ELEMENT_SIZE):
    """What bounds one command on ``node``: [(bytes, reason)…], as the driver, its parameters and sysfs tell."""
    limits = [(MAX_TRANSFER, "the transfer length of WRITE(6) and READ(6)")]
    if 0 < reserved < MAX_TRANSFER:
        limits.append((reserved, "the adapter's queue limit (max_sectors), as its driver sets it"))
    if tablesize > 0:
        element = read_number(element_size) or 32768
        limits.append((tablesize * element, f"the adapter's scatter list of {tablesize} elements of {element} bytes"))
    for queue in (Path(sg_class) / node / "device" / "block").glob("*/queue/max_sectors_kb"):
        sectors_kb = read_number(queue)
        if sectors_kb:
            limits.append((sectors_kb * 1024, f"{queue}, which can be raised to max_hw_sectors_kb beside it"))
    return limits


def read_number(path):
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return 0


def open_character_device(str name, bint exclusive):
    """Open an existing SCSI generic node; without O_CREAT, and without waiting for another user to let go of it."""
    try:
        status = os.stat(name)
    except OSError as error:
        raise errors.UsageError(f"opening {name}", os.strerror(error.errno), "lsscsi -g lists the drives.") from error
    if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != SCSI_GENERIC_MAJOR:
        raise not_generic(name)
    try:
        # Without O_NONBLOCK an exclusive open waits for ever; nothing but the open heeds it.
        return os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_EXCL if exclusive else 0))
    except OSError as error:
        raise errors.TapeError(f"opening {name}", os.strerror(error.errno), opening_advice(error.errno)) from error


def opening_advice(int number):
    if number in (errno.EBUSY, errno.EAGAIN):
        return "Another program has the drive: find it with fuser, and wait for it."
    if number in (errno.EACCES, errno.EPERM):
        return "Run as root, or give this user the device node and CAP_SYS_RAWIO."
    return "Check the kernel log for this device."


def not_generic(name):
    return errors.UsageError(f"opening {name}", "it is not a SCSI generic device",
                             "Name the drive's sg node; lsscsi -g lists them.")
