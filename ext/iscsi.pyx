"""iscsi carries commands over one iSCSI session (RFC 7143) by libiscsi. It does not retry, reconnect or reorder."""

import os
import socket
from urllib.parse import unquote

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memset, strcmp

from splitreel.core.fault cimport (
    DONE,
    FAULT_MISUSE,
    FAULT_NO_MEMORY,
    FAULT_TRANSPORT,
    fault_t,
    raise_fault,
    set_fault,
)
from splitreel.core.iscsi_lib cimport *
from splitreel.core.sense cimport reply_t
from splitreel.core.tape cimport FROM_DEVICE, NO_DATA, TO_DEVICE, Transport

from splitreel import errors

DEFAULT_LOGIN_TIMEOUT_MS = 15_000
SECRET_VARIABLE = "SPLITREEL_CHAP_SECRET"

cdef enum:
    MAX_TRANSFER = 0xFFFFFF            # the transfer length of WRITE(6) and READ(6); iSCSI itself allows 4 GiB
    MAX_NAME = 223                     # bytes of an iSCSI name, RFC 7143 4.2.7.1
    MAX_REDIRECTS = 3
    LOGOUT_TIMEOUT_MS = 2000
    MAX_LUN = 0x3FFF                   # flat space addressing, SAM-5 4.7.7.3
    # What step() and lose() say beside libiscsi's own text.
    BROKEN = -1
    EXPIRED = -2


# --- addresses ------------------------------------------------------------------------------------------------------

def parse_url(str url not None):
    """Take ``iscsi://[user[%secret]@]host[:port]/target/lun`` apart: (portal, target, lun, user or None, secret).

    The secret may instead stand in $SPLITREEL_CHAP_SECRET. ``%`` escapes are decoded in the target's name only.

    Raises:
        UsageError: the address is not of this form; the message shows neither user nor secret.
    """
    rest = url.removeprefix("iscsi://")
    authority, _, path = rest.partition("/")
    account, at, portal = authority.rpartition("@")
    target, slash, lun = path.rpartition("/")
    target = unquote(target)
    shown = f"iscsi://{portal}/{path}"
    if rest == url or not portal or not slash or not target:
        raise _bad_url(shown, "it is not of the form iscsi://[user[%secret]@]host[:port]/target/lun")
    if not lun.isascii() or not lun.isdigit() or int(lun) > MAX_LUN:
        raise _bad_url(shown, f"the LUN is not a number from 0 to {MAX_LUN}")
    _check_name(target, "the target's name", shown)
    _check_portal(portal, shown)
    user, percent, secret = account.partition("%")
    secret = secret if percent else os.environ.get(SECRET_VARIABLE, "")
    if at and not (user and secret):
        why = "it names a CHAP user without a secret"
        raise errors.UsageError(f"the drive's address {shown}", why, f"Put the secret into ${SECRET_VARIABLE}.")
    return portal, target, int(lun), user or None, secret


def _check_name(str name, str what, str shown):
    # RFC 7143 4.2.7, and nothing that could end a key of the login text
    if len(name.encode()) > MAX_NAME or not name.isprintable() or " " in name:
        raise _bad_url(shown, f"{what} is not an iSCSI name")


def _check_portal(str portal, str shown):
    host, colon, port = portal.rpartition(":")
    if not colon or portal.endswith("]"):
        host, port = portal, "3260"
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or len(portal.encode()) > 255 or (":" in bare) != (bare != host):
        raise _bad_url(shown, "the portal is not host[:port] or [IPv6 address][:port]")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise _bad_url(shown, "the port is not a number from 1 to 65535")


def _bad_url(str shown, str why):
    example = "For example iscsi://host/iqn.2001-04.com.example:tape/1"
    return errors.UsageError(f"the drive's address {shown}", why, example)


def default_initiator_name():
    """``iqn.2026-11.splitreel:HOST``, by which a target's access list knows this machine."""
    host = "".join(c for c in socket.gethostname().lower() if c.isascii() and (c.isalnum() or c in "-."))
    return f"iqn.2026-11.splitreel:{host or 'host'}"


# --- session --------------------------------------------------------------------------------------------------------

cdef void on_done(iscsi_context* context, int status, void* command_data, void* private_data) noexcept nogil:
    cdef slot_t* slot = <slot_t*>private_data
    slot.status = status
    slot.finished = 1
    if status > 0xFF:                  # libiscsi overwrites its reason on the way out: "can not reconnect right now"
        copy_line(slot.reason, sizeof(slot.reason), iscsi_get_error(context))


cdef class IscsiTransport(Transport):
    """Executes commands on one LUN of an iSCSI target, over one session with one connection.

    One thread at a time; different transports in different threads. Data move between the socket and the caller's
    memory without a copy. After a path error or a time-out the session is gone, the position on tape is unknown, and
    every later command raises TransportError: make a new transport and read the position back. Unit attentions all
    reach the caller. A pinging target is answered while no command runs, by a thread that sends nothing else.
    """

    def __cinit__(self, *args, **kwargs):
        self.context = NULL
        self.keeper = NULL
        self.outstanding = 0
        self.submitted = 0
        self.owner = getpid()
        self.lost[0] = 0
        memset(self.slots, 0, sizeof(self.slots))
        memset(&self.session, 0, sizeof(slot_t))

    def __init__(self, str url not None, *, initiator_name=None, uint32_t timeout_ms=DEFAULT_LOGIN_TIMEOUT_MS,
                 int depth=1, bint header_digest=False):
        """Connect and log in within ``timeout_ms``, resolving the host's name not counted.

        ``depth`` is how many commands submit() lets be outstanding: above 1 a target may execute a short WRITE before
        a long one that waits for its data. ``header_digest`` asks for CRC32C over PDU headers (RFC 7143 13.1).

        Raises:
            UsageError: the address, the initiator's name or the depth is not usable.
            TransportError: no connection, login refused, or no such LUN; the target's reason is in it.
        """
        cdef fault_t fault
        cdef int rc
        portal, target, lun, user, secret = parse_url(url)
        initiator = initiator_name or default_initiator_name()
        self.name = f"iscsi://{portal}/{target}/{lun}"
        _check_name(initiator, "the initiator's name", self.name)
        if not 1 <= depth <= MAX_DEPTH:
            raise errors.UsageError(f"opening {self.name}", f"a depth of {depth}", f"Use 1 to {MAX_DEPTH}.")
        self.target_name, self.lun, self.depth = target, lun, depth
        self.wire_lun = lun if lun < 256 else 0x4000 | lun
        self.max_transfer = MAX_TRANSFER
        self.prepare(initiator.encode(), target.encode(), user, secret, header_digest)
        cdef bytes portal_bytes = portal.encode()
        cdef const char* portal_text = portal_bytes
        with nogil:
            rc = self.establish(portal_text, timeout_ms, &fault)
        if rc < 0:
            self.raise_refusal(&fault, initiator)
        self.check_lun(timeout_ms)

    def prepare(self, bytes initiator, bytes target, user, secret, bint header_digest):
        if self.context != NULL or self.lost[0] or self.closed:
            raise errors.Misuse(f"opening {self.name}", "this transport has been opened before")
        self.context = iscsi_create_context(initiator)
        if self.context == NULL:
            raise MemoryError("an iSCSI context")
        # libiscsi would reconnect for ever and send outstanding WRITEs again: blocks doubled on tape, measured.
        iscsi_set_noautoreconnect(self.context, 1)
        iscsi_set_session_type(self.context, ISCSI_SESSION_NORMAL)
        iscsi_set_immediate_data(self.context, ISCSI_IMMEDIATE_DATA_YES)
        iscsi_set_header_digest(self.context, ISCSI_HEADER_DIGEST_CRC32C if header_digest else ISCSI_HEADER_DIGEST_NONE)
        iscsi_set_targetname(self.context, target)
        if user is not None:
            iscsi_set_initiator_username_pwd(self.context, user.encode(), secret.encode())

    cdef int raise_refusal(self, const fault_t* fault, str initiator) except -1:
        try:
            raise_fault(fault)
        except errors.TransportError as error:
            advice = f"Check that the target runs and admits the initiator {initiator}."
            raise errors.TransportError(f"opening {self.name}", str(error), advice) from None

    def check_lun(self, timeout_ms):
        """INQUIRY: a target answers it for every LUN, and it does not take a unit attention away (SPC-4 6.6)."""
        data = bytearray(36)
        status, _, _ = self.run_command(bytes([0x12, 0, 0, 0, len(data), 0]), FROM_DEVICE, data, timeout_ms)
        if status != 0 or data[0] >> 5:
            self.close()
            why = f"the target has no logical unit {self.lun}"
            raise errors.TransportError(f"opening {self.name}", why, "Check the number behind the address's last /.")

    def __dealloc__(self):
        self.destroy()

    cdef int establish(self, const char* portal, uint32_t timeout_ms, fault_t* fault) noexcept nogil:
        cdef sigpipe_guard_t guard
        cdef int64_t deadline = monotonic_ms() + timeout_ms
        cdef int rc, redirects = 0
        sigpipe_block(&guard)
        rc = self.connect(portal, deadline, fault)
        while rc == DONE:
            rc = self.login(deadline, fault)
            if rc != SCSI_STATUS_REDIRECT or redirects == MAX_REDIRECTS:
                break
            redirects += 1
            iscsi_disconnect(self.context)
            rc = self.connect(iscsi_get_target_address(self.context), deadline, fault)
        if rc == SCSI_STATUS_REDIRECT:
            rc = self.lose(&self.session, SCSI_STATUS_ERROR, b"logging in to the iSCSI target", fault)
        if rc == DONE:
            self.keeper = keeper_create(self.context)
            if self.keeper == NULL:
                rc = set_fault(fault, FAULT_NO_MEMORY, b"logging in to the iSCSI target", 0, 0, b"no thread to be had")
        sigpipe_restore(&guard, rc < 0)
        return rc

    cdef int connect(self, const char* portal, int64_t deadline, fault_t* fault) noexcept nogil:
        cdef const char* site = b"connecting to the iSCSI portal"
        cdef int rc = 0
        self.session.finished = 0
        if iscsi_connect_async(self.context, portal, on_done, &self.session) != 0:
            return self.lose(&self.session, SCSI_STATUS_ERROR, site, fault)
        # libiscsi opens the socket without SOCK_CLOEXEC: a child would hold the session open.
        fcntl(iscsi_get_fd(self.context), F_SETFD, FD_CLOEXEC)
        while rc == 0 and not self.session.finished:
            rc = self.step(deadline)
        if rc < 0 or self.session.status != SCSI_STATUS_GOOD:
            return self.lose(&self.session, EXPIRED if rc == EXPIRED else SCSI_STATUS_ERROR, site, fault)
        return DONE

    cdef int login(self, int64_t deadline, fault_t* fault) noexcept nogil:
        """DONE, a fault, or SCSI_STATUS_REDIRECT: the target gave another portal."""
        cdef const char* site = b"logging in to the iSCSI target"
        cdef int rc = 0
        self.session.finished = 0
        if iscsi_login_async(self.context, on_done, &self.session) != 0:
            return self.lose(&self.session, SCSI_STATUS_ERROR, site, fault)
        while rc == 0 and not self.session.finished:
            rc = self.step(deadline)
        if rc == 0 and self.session.status == SCSI_STATUS_REDIRECT and iscsi_get_target_address(self.context)[0]:
            return SCSI_STATUS_REDIRECT
        if rc < 0 or self.session.status != SCSI_STATUS_GOOD:
            return self.lose(&self.session, EXPIRED if rc == EXPIRED else SCSI_STATUS_ERROR, site, fault)
        return DONE

    cdef int step(self, int64_t deadline) noexcept nogil:
        """Wait for the socket, at most until the deadline, and let libiscsi work: 0, BROKEN or EXPIRED."""
        cdef pollfd ready
        cdef int64_t left = deadline - monotonic_ms()
        cdef int rc
        if left <= 0:
            return EXPIRED
        ready.fd = iscsi_get_fd(self.context)
        ready.events = <short>iscsi_which_events(self.context)
        ready.revents = 0
        if ready.fd < 0:
            return BROKEN
        rc = poll(&ready, 1, <int>left if left < 1_000_000 else 1_000_000)
        if rc < 0:
            return 0 if errno == EINTR else BROKEN
        return BROKEN if iscsi_service(self.context, ready.revents) < 0 else 0

    # --- commands ---

    cdef int start(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                   uint32_t timeout_ms, slot_t** started, fault_t* fault) noexcept nogil:
        cdef const char* site = b"sending a command to the iSCSI target"
        cdef slot_t* slot = self.slots
        cdef int way = SCSI_XFER_WRITE if direction == TO_DEVICE else SCSI_XFER_READ if size else SCSI_XFER_NONE
        if direction == NO_DATA or size == 0:
            way, size = SCSI_XFER_NONE, 0
        if size > MAX_TRANSFER or cdb_size > 16:
            return set_fault(fault, FAULT_MISUSE, site, 0, size, b"longer than a command may be")
        if self.keeper.failed:
            return self.lose(&self.session, SCSI_STATUS_ERROR, site, fault)
        while slot.task != NULL:
            slot += 1
        slot.task = scsi_create_task(<int>cdb_size, <unsigned char*>cdb, way, <int>size)
        if slot.task == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, site, 0, 0, NULL)
        slot.vector.iov_base, slot.vector.iov_len = data, size
        slot.finished, slot.status, slot.size, slot.order = 0, 0, size, self.submitted
        slot.reason[0] = 0
        slot.deadline = monotonic_ms() + timeout_ms
        if way == SCSI_XFER_WRITE:
            scsi_task_set_iov_out(slot.task, &slot.vector, 1)
        elif way == SCSI_XFER_READ:
            scsi_task_set_iov_in(slot.task, &slot.vector, 1)
        copy_line(self.stale_text, sizeof(self.stale_text), iscsi_get_error(self.context))
        self.submitted += 1
        self.outstanding += 1
        # Sent at once as far as the socket takes it: the first poll is saved.
        if (iscsi_scsi_command_async(self.context, self.wire_lun, slot.task, on_done, NULL, slot) != 0
                or iscsi_service(self.context, POLLOUT) < 0):
            return self.lose(slot, SCSI_STATUS_ERROR, site, fault)
        started[0] = slot
        return DONE

    cdef int finish(self, slot_t* slot, reply_t* reply, fault_t* fault) noexcept nogil:
        cdef int rc = 0
        while rc == 0 and not slot.finished:
            rc = self.step(slot.deadline)
        if rc == 0 and slot.status <= 0xFF:
            rc = self.drain(slot.deadline)
        if rc < 0 or slot.status > 0xFF:
            return self.lose(slot, rc if rc < 0 else slot.status, b"waiting for the iSCSI target", fault)
        reply.status = <uint8_t>slot.status
        reply.transferred = slot.size - sr_residual(slot.task, slot.size)
        reply.sense_size = sr_sense(slot.task, reply.sense, sizeof(reply.sense))
        self.release(slot)
        return DONE

    cdef int drain(self, int64_t deadline) noexcept nogil:
        """Send what is still queued. A target may answer (write protected) before it took all data: libiscsi's queue
        then points to the task and to the caller's memory, and the target waits for the rest."""
        cdef int rc = 0
        while rc == 0 and (iscsi_out_queue_length(self.context) or iscsi_which_events(self.context) & POLLOUT):
            rc = self.step(deadline)
        return rc

    cdef void release(self, slot_t* slot) noexcept nogil:
        scsi_free_scsi_task(slot.task)
        slot.task = NULL
        self.outstanding -= 1

    cdef int lose(self, const slot_t* slot, int reason, const char* site, fault_t* fault) noexcept nogil:
        """The path is lost, for every command outstanding: tear the session down, say why. Nothing is sent again."""
        cdef const char* text = <const char*>slot.reason
        if reason == EXPIRED:
            text = b"time-out: the target did not answer; the session was torn down"
        elif not says_why(text):
            text = iscsi_get_error(self.context)
        if not says_why(text) or strcmp(text, self.stale_text) == 0:
            text = b"the target closed the connection"
        copy_line(self.lost, sizeof(self.lost), text)
        self.drop_session()
        return set_fault(fault, FAULT_TRANSPORT, site, 0, 0, self.lost)

    cdef void drop_session(self) noexcept nogil:
        """End the session without a word to the target; the callers' memory is free after it."""
        cdef int i
        if self.keeper != NULL:
            self.keeper.context = NULL
        if self.context != NULL:
            iscsi_destroy_context(self.context)
            self.context = NULL
        for i in range(MAX_DEPTH):
            if self.slots[i].task != NULL:
                self.release(&self.slots[i])

    cdef void logout(self) noexcept nogil:
        cdef sigpipe_guard_t guard
        cdef int64_t deadline = monotonic_ms() + LOGOUT_TIMEOUT_MS
        cdef int rc = 0
        pthread_mutex_lock(&self.keeper.lock)
        sigpipe_block(&guard)
        self.session.finished = 0
        if iscsi_is_logged_in(self.context) and iscsi_logout_async(self.context, on_done, &self.session) == 0:
            while rc == 0 and not self.session.finished:
                rc = self.step(deadline)
        sigpipe_restore(&guard, 1)
        pthread_mutex_unlock(&self.keeper.lock)

    cdef void close_transport(self) noexcept:
        with nogil:
            if self.context != NULL and self.keeper != NULL and not self.outstanding and self.owner == getpid():
                self.logout()
            self.destroy()

    cdef void destroy(self) noexcept nogil:
        """Free all. In a forked child only the memory is left behind: session and keeper are the parent's."""
        if self.owner != getpid():
            return
        keeper_destroy(self.keeper)
        self.keeper = NULL
        self.drop_session()

    cdef int refuse(self, fault_t* fault) noexcept nogil:
        cdef const char* why = self.lost
        if why[0] == 0:
            why = b"never opened"
        set_fault(fault, FAULT_TRANSPORT, b"sending a command to the iSCSI target", 0, 0, NULL)
        snprintf(fault.detail, sizeof(fault.detail), b"path lost: %s", why)
        return FAULT_TRANSPORT

    cdef int command(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                     uint32_t timeout_ms, reply_t* reply, fault_t* fault) noexcept nogil:
        cdef sigpipe_guard_t guard
        cdef slot_t* slot = NULL
        cdef int rc
        if self.context == NULL:
            return self.refuse(fault)
        if self.outstanding:
            return set_fault(fault, FAULT_MISUSE, b"executing a command", 0, 0, b"reap the submitted commands first")
        self.enter(&guard)
        rc = self.start(cdb, cdb_size, direction, data, size, timeout_ms, &slot, fault)
        if rc == DONE:
            rc = self.finish(slot, reply, fault)
        self.leave(&guard, rc)
        return rc

    cdef int submit(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                    uint32_t timeout_ms, uint64_t tag, fault_t* fault) noexcept nogil:
        """Queue a command; data belong to the transport until it is reaped. A time-out starts here."""
        cdef sigpipe_guard_t guard
        cdef slot_t* slot = NULL
        cdef int rc
        if self.context == NULL:
            return self.refuse(fault)
        if self.outstanding >= self.depth:
            return set_fault(fault, FAULT_MISUSE, b"submitting a command", 0, 0, b"reap the one before it first")
        self.enter(&guard)
        rc = self.start(cdb, cdb_size, direction, data, size, timeout_ms, &slot, fault)
        if rc == DONE:
            slot.tag = tag
        self.leave(&guard, rc)
        return rc

    cdef int reap(self, reply_t* reply, uint64_t* tag, fault_t* fault) noexcept nogil:
        """Wait for the oldest submitted command. When the path is lost, it is lost for all that are outstanding."""
        cdef sigpipe_guard_t guard
        cdef slot_t* slot = NULL
        cdef int rc, i
        if self.context == NULL:
            return self.refuse(fault)
        for i in range(MAX_DEPTH):
            if self.slots[i].task != NULL and (slot == NULL or self.slots[i].order < slot.order):
                slot = &self.slots[i]
        if slot == NULL:
            return set_fault(fault, FAULT_MISUSE, b"reaping a command", 0, 0, b"none is outstanding")
        tag[0] = slot.tag
        self.enter(&guard)
        rc = self.finish(slot, reply, fault)
        self.leave(&guard, rc)
        return rc

    def run_queued(self, commands, uint32_t timeout_ms=60_000, *, int ahead=0):
        """Execute ``commands``, each (cdb, direction, data or None), with several outstanding.

        ``ahead``: how many, ``depth`` when 0. Returns (SAM status, sense data, bytes transferred) of each, in order;
        a target may execute them in another order: long WRITEs wait for their data.

        Raises:
            TransportError: the path was lost, and with it every command that had not been answered.
            Misuse: more ahead than ``depth``.
        """
        cdef fault_t fault, later
        cdef int rc = DONE
        cdef list replies = []
        # All buffers are taken first: a command that cannot be made is refused before any is sent.
        ready = [(bytes(cdb), way, BufferView(data, way == FROM_DEVICE)) for cdb, way, data in commands]
        for cdb, direction, view in ready:
            if self.outstanding >= (ahead or self.depth):
                rc = self.reap_into(replies, &fault)
            if rc == DONE:
                rc = self.submit_view(cdb, direction, view, timeout_ms, &fault)
            if rc < 0:
                break
        while rc == DONE and self.outstanding:
            rc = self.reap_into(replies, &fault)
        while self.outstanding:
            self.reap_into(replies, &later)
        if rc < 0:
            raise_fault(&fault)
        return replies

    cdef int submit_view(self, bytes cdb, int direction, BufferView view, uint32_t timeout_ms,
                         fault_t* fault) noexcept:
        cdef const uint8_t* encoded = cdb
        cdef uint32_t cdb_size = <uint32_t>len(cdb)
        cdef int rc
        with nogil:
            rc = self.submit(encoded, cdb_size, direction, <uint8_t*>view.view.buf, <uint32_t>view.view.len, timeout_ms,
                             0, fault)
        return rc

    cdef int reap_into(self, list replies, fault_t* fault) noexcept:
        cdef reply_t reply
        cdef uint64_t tag
        cdef int rc
        with nogil:
            rc = self.reap(&reply, &tag, fault)
        if rc == DONE:
            replies.append((reply.status, reply.sense[:reply.sense_size], reply.transferred))
        return rc

    cdef void enter(self, sigpipe_guard_t* guard) noexcept nogil:
        pthread_mutex_lock(&self.keeper.lock)
        sigpipe_block(guard)

    cdef void leave(self, sigpipe_guard_t* guard, int rc) noexcept nogil:
        sigpipe_restore(guard, rc < 0)
        pthread_mutex_unlock(&self.keeper.lock)


cdef class BufferView:
    def __cinit__(self, data, bint writable):
        PyObject_GetBuffer(b"" if data is None else data, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)
