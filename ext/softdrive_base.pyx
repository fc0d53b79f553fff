"""softdrive_base holds what every command of the software drive shares: sense data, replies and injected faults.

It executes no command itself.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from splitreel.core.fault cimport DONE, FAULT_TRANSPORT
from splitreel.core.sense cimport reply_t
from splitreel.core.softdrive_medium cimport MEDIUM_BEGIN, MEDIUM_BLOCK, MEDIUM_END, MEDIUM_FILEMARK, point_t
from splitreel.core.softdrive_pages cimport INVALID_PARAMETER, NO_SAVED_PAGES, PAGE_BYTES, PARAMETER_LENGTH
from splitreel.core.tape cimport Transport

from splitreel import errors

cdef extern from "bigendian.h" nogil:
    void be_put(uint8_t* at, uint64_t value, int size)

cdef enum injection_kind_t:
    WRITE_ERROR = 1
    READ_ERROR
    DEFERRED_ERROR
    TRANSPORT_BEFORE
    TRANSPORT_AFTER
    ATTENTION
    RESET
    POWER_LOSS
    IS_BUSY
    IS_NOT_READY
    RESERVED

INJECTIONS = {
    "write-error": WRITE_ERROR,
    "read-error": READ_ERROR,
    "deferred-error": DEFERRED_ERROR,
    "transport-before": TRANSPORT_BEFORE,
    "transport-after": TRANSPORT_AFTER,
    "unit-attention": ATTENTION,
    "reset": RESET,
    "power-loss": POWER_LOSS,
    "busy": IS_BUSY,
    "not-ready": IS_NOT_READY,
    "reservation-conflict": RESERVED,
}


cdef bint is_write(uint8_t opcode) noexcept nogil:
    return opcode == 0x0A


cdef class DriveBase(Transport):
    """The state of a software drive. Not for use by itself."""

    def __cinit__(self, path, bint create=True):
        self.out = <uint8_t*>calloc(1, PAGE_BYTES)
        if self.out == NULL:
            raise MemoryError
        self.canned_opcode = -1

    def __dealloc__(self):
        free(self.out)

    cdef void close_transport(self) noexcept:
        self.medium.close()

    def inject(self, kind, int64_t after_blocks=0, int64_t count=1):
        """Let a fault strike ``count`` times, once ``after_blocks`` more blocks have been written or read.

        Kinds (INJECTIONS): write-error and read-error strike that command; deferred-error lets one WRITE seem good,
        then the next command reports it and every block since the last synchronise is gone; transport-before and
        transport-after lose the path before or after the command ran; unit-attention; reset also rewinds; power-loss
        also loses what was buffered; busy, not-ready, reservation-conflict.

        Raises:
            KeyError: there is no such kind.
            Misuse: too many injections at once.
        """
        number = INJECTIONS[kind]
        for i in range(MAX_INJECTIONS):
            if self.injections[i].count == 0:
                self.injections[i] = injection_t(number, after_blocks, count)
                return
        raise errors.Misuse("injecting a fault", "too many at once")

    def inject_reply(self, int opcode, int status, const uint8_t[::1] sense not None, uint32_t transferred=0):
        """Answer the next command of this opcode with a SAM status and sense data, as they are, and do not execute it.

        Raises:
            Misuse: the sense data are longer than sense data can be.
        """
        if sense.shape[0] > <Py_ssize_t>sizeof(self.canned.sense):
            raise errors.Misuse("injecting a reply", f"{sense.shape[0]} bytes of sense data")
        memset(&self.canned, 0, sizeof(reply_t))
        self.canned.status = <uint8_t>status
        self.canned.transferred = transferred
        self.canned.sense_size = <uint32_t>sense.shape[0]
        if sense.shape[0]:
            memcpy(self.canned.sense, &sense[0], <size_t>sense.shape[0])
        self.canned_opcode = opcode

    # --- what waits to be told ---

    cdef int report_pending(self, reply_t* reply) noexcept nogil:
        """Report what waits to be told before any command runs: a deferred error, then a unit attention."""
        cdef int attention = self.attention
        if self.deferred:
            self.lose_buffer()
            self.check(reply, 0x3, 0x0C00, 0)
            reply.sense[0] |= 0x01                 # 70h to 71h, 72h to 73h
            self.deferred = False
            return 1
        if attention:
            self.attention = 0
            self.check(reply, 0x6, attention, 0)
            return 1
        return 0

    cdef int request_sense(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        """What is pending, as data; no sense when nothing is. DESC asks for descriptor format."""
        cdef bint kept = self.state.settings.descriptor_sense
        self.state.settings.descriptor_sense = (cdb[1] & 0x01) != 0
        if not self.report_pending(reply):
            self.check(reply, 0x0, 0x0000, 0)
        self.state.settings.descriptor_sense = kept
        memcpy(self.out, reply.sense, reply.sense_size)
        reply.status = 0
        self.send(<int>reply.sense_size, cdb[4], data, size, reply)
        reply.sense_size = 0
        return DONE

    # --- injected faults ---

    cdef int strike(self, uint8_t opcode, reply_t* reply) noexcept nogil:
        cdef injection_t* item
        cdef int i
        if self.canned_opcode == opcode:
            self.canned_opcode = -1
            self.strikes += 1
            reply[0] = self.canned
            return STRUCK
        for i in range(MAX_INJECTIONS):
            item = &self.injections[i]
            if item.count == 0 or item.after_blocks > 0:
                continue
            if (item.kind == WRITE_ERROR or item.kind == DEFERRED_ERROR) and not is_write(opcode):
                continue
            if item.kind == READ_ERROR and opcode != 0x08:
                continue
            item.count -= 1
            self.strikes += 1
            return self.strike_with(item.kind, reply)
        return 0

    cdef int strike_with(self, int kind, reply_t* reply) noexcept nogil:
        if kind == TRANSPORT_BEFORE:
            return FAULT_TRANSPORT
        if kind == TRANSPORT_AFTER:
            return STRUCK_AFTER
        if kind == DEFERRED_ERROR:
            return STRUCK_DEFERRED
        if kind == WRITE_ERROR:
            self.state.tape_alerts |= 1 << (ALERT_WRITE_FAILURE - 1)
            self.state.write_errors += 1
            self.check(reply, 0x3, 0x0C00, 0)
        elif kind == READ_ERROR:
            self.medium.forward()
            self.state.tape_alerts |= 1 << (ALERT_READ_FAILURE - 1)
            self.state.read_errors += 1
            self.check(reply, 0x3, 0x1100, 0)
        elif kind == IS_BUSY:
            reply.status = 0x08
        elif kind == RESERVED:
            reply.status = 0x18
        elif kind == IS_NOT_READY:
            self.check(reply, 0x2, 0x0401, 0)
        else:
            if kind == POWER_LOSS:
                self.lose_buffer()
            if kind != ATTENTION:
                memset(&self.medium.here, 0, sizeof(point_t))
            self.check(reply, 0x6, 0x2900, 0)
        return STRUCK

    cdef void count_blocks(self, uint32_t count) noexcept nogil:
        cdef int i
        for i in range(MAX_INJECTIONS):
            if self.injections[i].after_blocks > 0:
                self.injections[i].after_blocks = max(0, self.injections[i].after_blocks - <int64_t>count)

    cdef void lose_buffer(self) noexcept nogil:
        """What was written since the last synchronise never reached the medium."""
        if self.medium.end.offset > self.medium.synced.offset:
            self.medium.here = self.medium.synced
            self.medium.truncate()

    # --- replies ---

    cdef int put_sense(self, reply_t* reply, uint32_t key, uint32_t code, uint32_t bits, bint valid,
                       int64_t information) noexcept nogil:
        """Sense data of SPC-4 4.5 in the format that the control mode page asks for; code is ASC << 8 | ASCQ."""
        cdef uint8_t* sense = reply.sense
        memset(sense, 0, 32)
        reply.status = 0x02
        if not self.state.settings.descriptor_sense:
            sense[0] = 0xF0 if valid else 0x70
            sense[2] = <uint8_t>(key | bits)
            be_put(sense + 3, <uint64_t>information, 4)
            sense[7] = 10
            be_put(sense + 12, code, 2)
            reply.sense_size = 18
            return DONE
        sense[0] = 0x72
        sense[1] = <uint8_t>key
        be_put(sense + 2, code, 2)
        sense[7] = 16
        sense[9] = 10                              # information descriptor
        sense[10] = 0x80 if valid else 0
        be_put(sense + 12, <uint64_t>information, 8)
        sense[20] = 0x04                           # stream commands descriptor
        sense[21] = 2
        sense[23] = <uint8_t>bits
        reply.sense_size = 24
        return DONE

    cdef int check(self, reply_t* reply, uint32_t key, uint32_t code, uint32_t bits) noexcept nogil:
        return self.put_sense(reply, key, code, bits, False, 0)

    cdef int check_residue(self, reply_t* reply, uint32_t key, uint32_t code, uint32_t bits,
                           int64_t information) noexcept nogil:
        return self.put_sense(reply, key, code, bits, True, information)

    cdef int met(self, int what, int64_t residue, reply_t* reply) noexcept nogil:
        """What stopped a READ, SPACE or LOCATE before it was through, as sense data."""
        if what == MEDIUM_FILEMARK:
            return self.check_residue(reply, 0x0, 0x0001, FM, residue)
        if what == MEDIUM_END:
            return self.check_residue(reply, 0x8, 0x0005, 0, residue)
        if what == MEDIUM_BEGIN:
            return self.check_residue(reply, 0x0, 0x0004, EOM, residue)
        self.state.tape_alerts |= 1 << (ALERT_READ_FAILURE - 1)
        self.state.read_errors += 1
        return self.check_residue(reply, 0x3, 0x1100, 0, residue)

    cdef int refuse(self, int why, reply_t* reply) noexcept nogil:
        if why == INVALID_PARAMETER:
            return self.check(reply, 0x5, 0x2600, 0)
        if why == PARAMETER_LENGTH:
            return self.check(reply, 0x5, 0x1A00, 0)
        if why == NO_SAVED_PAGES:
            return self.check(reply, 0x5, 0x3900, 0)
        return self.check(reply, 0x5, 0x2400, 0)

    cdef int send(self, int built, uint32_t allocation, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        """Return what was built in `out`, cut to the allocation length; or refuse."""
        if built < 0:
            return self.refuse(built, reply)
        reply.transferred = min(min(<uint32_t>built, allocation), size)
        if reply.transferred:
            memcpy(data, self.out, reply.transferred)
        return DONE

    cdef bint protected(self, reply_t* reply) noexcept nogil:
        if self.medium.writable and not self.medium.cartridge.write_protected:
            return False
        self.state.tape_alerts |= 1 << (ALERT_WRITE_PROTECT - 1)
        self.check(reply, 0x7, 0x2700, 0)
        return True

    cdef int flush(self, reply_t* reply) noexcept nogil:
        """Buffered blocks to the medium. 1, with a deferred error in the reply, when the kernel could not.

        The kernel tells of a failed writeback once, and may have dropped the pages: what was buffered is given up.
        """
        if (self.medium.synced.offset == self.medium.end.offset or self.medium.synchronize() == MEDIUM_BLOCK):
            return 0
        self.state.write_errors += 1
        self.lose_buffer()
        self.check(reply, 0x3, 0x0C00, 0)
        reply.sense[0] |= 0x01
        return 1
