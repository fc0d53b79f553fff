"""tape executes commands and moves tape blocks over a Transport. It does not know how a CDB travels."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from splitreel.core.fault cimport (
    BEGINNING_OF_PARTITION,
    DONE,
    EARLY_WARNING,
    END_OF_DATA,
    FAULT_CHECK_CONDITION,
    FAULT_COUNT_MISMATCH,
    FAULT_END_OF_MEDIUM,
    FAULT_LIMIT,
    FAULT_MISUSE,
    FILEMARK,
    PROGRAMMABLE_EARLY_WARNING,
    fault_t,
    raise_fault,
    set_fault,
)
from splitreel.core.sense cimport decode_reply, reply_t, sense_fault, sense_t

from splitreel import errors

cdef extern from *:
    """
    /* One flag a transport: set while a command is outstanding. */
    static inline int splitreel_enter(int *flag) { return __sync_bool_compare_and_swap(flag, 0, 1); }
    static inline void splitreel_leave(int *flag) { __sync_lock_release(flag); }
    """
    bint splitreel_enter(int* flag) noexcept nogil
    void splitreel_leave(int* flag) noexcept nogil

DEFAULT_TIMEOUT_MS = 60_000

cdef enum:
    MAX_LENGTH_24 = 0xFFFFFF           # the transfer length of WRITE(6) and READ(6)


# --- Transport ------------------------------------------------------------------------------------------------------

cdef class Transport:
    """Executes CDBs; also a pyscsi device, so that pyscsi's SCSI facade and command objects work over every transport.

    One thread at a time, one command outstanding; a second one meanwhile is refused as Misuse. Never retries and never
    reconnects by itself. ``name`` is what messages show: a transport whose address holds a secret leaves it out.
    """

    def __cinit__(self, *args, **kwargs):
        self.name = ""
        self.max_transfer = MAX_LENGTH_24
        self.pending = 0
        self.busy = 0
        self.closed = False
        self.pyscsi_opcodes = None
        self.pyscsi_devicetype = None

    cdef int command(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                     uint32_t timeout_ms, reply_t* reply, fault_t* fault) noexcept nogil:
        return set_fault(fault, FAULT_MISUSE, b"executing a command", 0, 0, b"this transport does not execute commands")

    cdef int issue(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                   uint32_t timeout_ms, reply_t* reply, fault_t* fault) noexcept nogil:
        """command() under the guard that keeps a second thread, and a closed transport, out."""
        cdef int rc
        memset(reply, 0, sizeof(reply_t))
        if self.closed:
            return set_fault(fault, FAULT_MISUSE, b"executing a command", 0, 0, b"the transport is closed")
        if not splitreel_enter(&self.busy):
            return set_fault(fault, FAULT_MISUSE, b"executing a command", 0, 0, b"another command is outstanding")
        rc = self.command(cdb, cdb_size, direction, data, size, timeout_ms, reply, fault)
        splitreel_leave(&self.busy)
        return rc

    cdef int submit(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                    uint32_t timeout_ms, uint64_t tag, fault_t* fault) noexcept nogil:
        cdef int rc
        if self.pending:
            return set_fault(fault, FAULT_MISUSE, b"submitting a command", 0, 0, b"reap the one before it first")
        rc = self.issue(cdb, cdb_size, direction, data, size, timeout_ms, &self.pending_reply, fault)
        if rc < 0:
            return rc
        self.pending_tag = tag
        self.pending = 1
        return DONE

    cdef int reap(self, reply_t* reply, uint64_t* tag, fault_t* fault) noexcept nogil:
        if not self.pending:
            return set_fault(fault, FAULT_MISUSE, b"reaping a command", 0, 0, b"none is outstanding")
        reply[0] = self.pending_reply
        tag[0] = self.pending_tag
        self.pending = 0
        return DONE

    cdef void close_transport(self) noexcept:
        pass

    def close(self):
        """Close the path to the drive; idempotent. Later commands raise Misuse.

        Raises:
            Misuse: another thread's command is outstanding; nothing was closed.
        """
        if self.closed:
            return
        if not splitreel_enter(&self.busy):
            raise errors.Misuse(f"closing {self.name}", "a command is outstanding")
        self.closed = True
        self.close_transport()
        splitreel_leave(&self.busy)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def run_command(self, cdb, int direction=NO_DATA, data=None, uint32_t timeout_ms=60_000):
        """Execute one CDB; ``data`` is read (direction 1, to the device) or filled in place (2, from the device).

        Returns (SAM status, sense data, bytes transferred) whatever the target answered.

        Raises:
            TransportError: the path failed; whether the command ran is unknown.
            Misuse: closed, or another command is outstanding.
        """
        cdef reply_t reply
        self.run(cdb, direction, data, timeout_ms, &reply)
        return reply.status, reply.sense[:reply.sense_size], reply.transferred

    cdef int run(self, cdb, int direction, data, uint32_t timeout_ms, reply_t* reply) except -1:
        cdef Py_buffer view
        cdef fault_t fault
        cdef bytes encoded = bytes(cdb)
        cdef const uint8_t* bytes_of_cdb = encoded
        cdef uint32_t cdb_size = <uint32_t>len(encoded)
        cdef uint8_t* buffer = NULL
        cdef uint32_t size = 0
        cdef int rc
        if not 6 <= len(encoded) <= 16:
            raise errors.Misuse("executing a command", f"a CDB of {len(encoded)} bytes")
        if direction != NO_DATA:
            PyObject_GetBuffer(data, &view, PyBUF_WRITABLE if direction == FROM_DEVICE else PyBUF_SIMPLE)
            buffer = <uint8_t*>view.buf
            size = <uint32_t>view.len
        try:
            with nogil:
                rc = self.issue(bytes_of_cdb, cdb_size, direction, buffer, size, timeout_ms, reply, &fault)
        finally:
            if direction != NO_DATA:
                PyBuffer_Release(&view)
        if rc < 0:
            raise_fault(&fault)
        return 0

    def execute(self, cmd, en_raw_sense=False):
        """Execute a pyscsi SCSICommand: its cdb and dataout go out, its datain is filled in place, its sense is set.

        Returns 0, or the condition (CONDITIONS) that the drive reported with its success. ``cmd.timeout_ms`` bounds it,
        60 s when the command has none; ``cmd.transferred`` says how many bytes moved.

        Raises:
            TapeError: what the sense data or status mean, see splitreel.errors; never with en_raw_sense, which
                returns the fault's code instead and leaves the sense data in cmd.sense and cmd.raw_sense_data.
            TransportError: the path failed; whether the command ran is unknown.
        """
        cdef reply_t reply
        cdef sense_t sense
        cdef fault_t fault
        cdef int rc
        cdef bytes site = f"{getattr(cmd, 'title', type(cmd).__name__)} on {self.name}".encode()
        cdef int direction = FROM_DEVICE if cmd.datain else TO_DEVICE if cmd.dataout else NO_DATA
        data = cmd.datain or cmd.dataout or None
        self.run(cmd.cdb, direction, data, getattr(cmd, "timeout_ms", DEFAULT_TIMEOUT_MS), &reply)
        rc = decode_reply(&reply, &sense, site, &fault)
        cmd.sense = cmd.raw_sense_data = reply.sense[:reply.sense_size]
        cmd.transferred = reply.transferred
        if rc < 0 and not en_raw_sense:
            raise_fault(&fault)
        return rc

    @property
    def opcodes(self):
        """pyscsi's opcode table for this type of device; pyscsi's SCSI facade sets it."""
        return self.pyscsi_opcodes

    @opcodes.setter
    def opcodes(self, value):
        self.pyscsi_opcodes = value

    @property
    def devicetype(self):
        """The peripheral device type, 1 for a tape drive; pyscsi's SCSI facade sets it."""
        return self.pyscsi_devicetype

    @devicetype.setter
    def devicetype(self, value):
        self.pyscsi_devicetype = value


# --- Tape -----------------------------------------------------------------------------------------------------------

cdef void put_length(uint8_t* cdb, uint32_t length) noexcept nogil:
    """Patch the transfer length: bytes 2-4 of a CDB of 6 bytes, 12-14 of one of 16 (WRITE, READ, WRITE FILEMARKS)."""
    cdef uint8_t* field = cdb + (12 if cdb[0] >= 0x80 else 2)
    field[0] = <uint8_t>(length >> 16)
    field[1] = <uint8_t>(length >> 8)
    field[2] = <uint8_t>length


cdef uint32_t store_template(cdb, uint8_t* destination, six, sixteen) except 0:
    encoded = bytes(cdb)
    if (len(encoded), encoded[:1]) not in ((6, six), (16, sixteen)):
        raise errors.Misuse("opening a tape", f"{encoded.hex()} is not the expected CDB")
    memcpy(destination, <const char*>encoded, len(encoded))
    return <uint32_t>len(encoded)


cdef class Tape:
    """The stream's view of a drive in variable block mode: blocks and filemarks, and the count of both.

    One thread at a time. The Python methods are for labels, tests and tools; the stream calls the C-level ones.
    """

    def __init__(self, Transport transport not None, write_cdb, read_cdb, filemarks_cdb,
                 uint32_t write_timeout_ms=1_500_000, uint32_t read_timeout_ms=2_340_000,
                 uint32_t filemarks_timeout_ms=1_620_000, uint32_t max_block=1 << 20):
        """The CDBs are templates of WRITE, READ, WRITE FILEMARKS, (6) or (16), in variable mode; lengths are patched.

        Raises:
            Misuse: a template is another command, or max_block is 0 or more than the transport or 24 bits carry.
        """
        if not 0 < max_block <= min(<uint32_t>MAX_LENGTH_24, transport.max_transfer):
            raise errors.Misuse("opening a tape", f"a block limit of {max_block} bytes")
        self.transport = transport
        self.write_cdb_size = store_template(write_cdb, self.write_cdb, b"\x0a", b"\x8a")
        self.read_cdb_size = store_template(read_cdb, self.read_cdb, b"\x08", b"\x88")
        self.filemarks_cdb_size = store_template(filemarks_cdb, self.filemarks_cdb, b"\x10", b"\x80")
        self.write_timeout_ms = write_timeout_ms
        self.read_timeout_ms = read_timeout_ms
        self.filemarks_timeout_ms = filemarks_timeout_ms
        self.max_block = max_block
        self.object_id = 0

    cdef int write_block(self, uint8_t* block, uint32_t size, fault_t* fault) noexcept nogil:
        cdef uint8_t cdb[16]
        cdef reply_t reply
        cdef sense_t sense
        cdef int rc
        if size == 0 or size > self.max_block:
            return set_fault(fault, FAULT_MISUSE, b"writing a tape block", self.object_id, size, b"length out of range")
        memcpy(cdb, self.write_cdb, 16)
        put_length(cdb, size)
        rc = self.transport.issue(cdb, self.write_cdb_size, TO_DEVICE, block, size, self.write_timeout_ms,
                                  &reply, fault)
        if rc < 0:
            fault.object = self.object_id
            return rc
        rc = self.check_write(&reply, &sense, b"writing a tape block", fault)
        if rc < 0:
            return rc
        if reply.transferred != size:
            return self.at(set_fault(fault, FAULT_COUNT_MISMATCH, b"writing a tape block", 0, reply.transferred,
                                     b"the drive took another number of bytes than the block has"), fault)
        self.object_id += 1
        return rc

    cdef int at(self, int code, fault_t* fault) noexcept nogil:
        fault.object = self.object_id
        return code

    cdef int check_write(self, const reply_t* reply, sense_t* sense, const char* site, fault_t* fault) noexcept nogil:
        """DONE or a warning when all was accepted. A residue beside the EOM bit means that it was not (SSC-4 8.5)."""
        cdef int rc = decode_reply(reply, sense, site, fault)
        if rc < 0:
            return self.at(rc, fault)
        if rc != DONE and rc != EARLY_WARNING and rc != PROGRAMMABLE_EARLY_WARNING:
            return self.at(sense_fault(FAULT_CHECK_CONDITION, sense, site, fault), fault)
        if rc != DONE and sense.information_valid and sense.information > 0:
            return self.at(sense_fault(FAULT_END_OF_MEDIUM, sense, site, fault), fault)
        return rc

    cdef int read_block(self, uint8_t* destination, uint32_t capacity, uint32_t* got, fault_t* fault) noexcept nogil:
        cdef uint8_t cdb[16]
        cdef reply_t reply
        cdef sense_t sense
        cdef int rc
        got[0] = 0
        if capacity == 0 or capacity > MAX_LENGTH_24 or capacity > self.transport.max_transfer:
            return set_fault(fault, FAULT_MISUSE, b"reading a tape block", self.object_id, capacity,
                             b"length out of range")
        memcpy(cdb, self.read_cdb, 16)
        put_length(cdb, capacity)
        rc = self.transport.issue(cdb, self.read_cdb_size, FROM_DEVICE, destination, capacity, self.read_timeout_ms,
                                  &reply, fault)
        if rc == DONE:
            rc = decode_reply(&reply, &sense, b"reading a tape block", fault)
        if rc < 0 or rc == END_OF_DATA:
            return self.at(rc, fault) if rc < 0 else rc
        if rc == BEGINNING_OF_PARTITION:
            return self.at(sense_fault(FAULT_CHECK_CONDITION, &sense, b"reading a tape block", fault), fault)
        self.object_id += 1
        if rc == FILEMARK:
            return FILEMARK
        return self.block_length(&reply, &sense, capacity, got, fault)

    cdef int block_length(self, const reply_t* reply, const sense_t* sense, uint32_t capacity, uint32_t* got,
                          fault_t* fault) noexcept nogil:
        """Length of the block just read: from INFORMATION where ILI is set, since a target's byte count may be wrong.

        tgtd before 1.0.94 moves only capacity - length bytes of a shorter block: read exactly, or twice as much.
        """
        cdef int64_t longest = <int64_t>1 << 32    # 64 bits of INFORMATION may say anything
        cdef int64_t length = capacity if not sense.ili else <int64_t>capacity - max(sense.information, -longest)
        cdef bint suppressed = (self.read_cdb[1] & 0x02) != 0      # SILI: a shorter block is GOOD
        if suppressed and not sense.ili:
            length = reply.transferred
        if sense.ili and not sense.information_valid:
            return self.at(sense_fault(FAULT_CHECK_CONDITION, sense, b"reading a tape block", fault), fault)
        if length > <int64_t>capacity:
            set_fault(fault, FAULT_LIMIT, b"reading a tape block", self.object_id - 1, 0, NULL)
            snprintf(fault.detail, sizeof(fault.detail), b"the block has %lld bytes, room was for %u",
                     <long long>length, <unsigned int>capacity)
            return FAULT_LIMIT
        if length < 0 or reply.transferred < length:
            set_fault(fault, FAULT_COUNT_MISMATCH, b"reading a tape block", self.object_id - 1, 0, NULL)
            snprintf(fault.detail, sizeof(fault.detail), b"the block has %lld bytes, the target sent %u",
                     <long long>length, <unsigned int>reply.transferred)
            return FAULT_COUNT_MISMATCH
        got[0] = <uint32_t>length
        return DONE

    cdef int write_filemarks(self, uint32_t count, bint immediate, fault_t* fault) noexcept nogil:
        cdef uint8_t cdb[16]
        cdef reply_t reply
        cdef sense_t sense
        cdef int rc
        if count > MAX_LENGTH_24:
            return set_fault(fault, FAULT_MISUSE, b"writing filemarks", self.object_id, count, b"count out of range")
        memcpy(cdb, self.filemarks_cdb, 16)
        put_length(cdb, count)
        cdb[1] = (cdb[1] & 0xFE) | (1 if immediate else 0)
        rc = self.transport.issue(cdb, self.filemarks_cdb_size, NO_DATA, NULL, 0, self.filemarks_timeout_ms,
                                  &reply, fault)
        if rc < 0:
            return self.at(rc, fault)
        rc = self.check_write(&reply, &sense, b"writing filemarks" if count else b"synchronizing", fault)
        if rc >= 0:
            self.object_id += count
        return rc

    def write(self, block):
        """Write a buffer as one tape block, 1 to max_block bytes. Returns 0 or a condition: either way it was accepted.

        Raises:
            TapeError: the block was not accepted, or (DeferredError) an earlier one was lost.
        """
        cdef Py_buffer view
        cdef fault_t fault
        cdef int rc
        PyObject_GetBuffer(block, &view, PyBUF_SIMPLE)
        try:
            if view.len > MAX_LENGTH_24:
                raise errors.Misuse("writing a tape block", f"{view.len} bytes")
            with nogil:
                rc = self.write_block(<uint8_t*>view.buf, <uint32_t>view.len, &fault)
        finally:
            PyBuffer_Release(&view)
        if rc < 0:
            raise_fault(&fault)
        return rc

    def read(self, uint32_t capacity):
        """Read one tape block of at most ``capacity`` bytes. Returns its bytes, or FILEMARK or END_OF_DATA as an int.

        Raises:
            LimitReached: the block is longer; the position is behind it.
            TapeError: it could not be read.
        """
        cdef fault_t fault
        cdef uint32_t got = 0
        cdef int rc
        destination = bytearray(capacity)
        cdef uint8_t* pointer = destination
        with nogil:
            rc = self.read_block(pointer, capacity, &got, &fault)
        if rc < 0:
            raise_fault(&fault)
        return rc if rc != DONE else bytes(memoryview(destination)[:got])

    def filemarks(self, uint32_t count, bint immediate=False):
        """Write ``count`` filemarks; 0 and not immediate is a synchronise. Returns 0 or a condition.

        Raises:
            TapeError: not all were accepted, or (DeferredError) an earlier block was lost.
        """
        cdef fault_t fault
        cdef int rc
        with nogil:
            rc = self.write_filemarks(count, immediate, &fault)
        if rc < 0:
            raise_fault(&fault)
        return rc
