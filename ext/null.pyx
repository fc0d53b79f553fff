"""null is a drive that discards what is written to it and counts it. It keeps nothing: every READ meets end of data."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from splitreel.core.fault cimport DONE, fault_t
from splitreel.core.sense cimport reply_t
from splitreel.core.softdrive_pages cimport drive_state_t, inquiry
from splitreel.core.tape cimport Transport

cdef extern from "bigendian.h" nogil:
    uint64_t be_get(const uint8_t* at, int size)
    void be_put(uint8_t* at, uint64_t value, int size)

cdef enum:
    MAX_BLOCK = 0xFFFFFF


cdef class NullDrive(Transport):
    """Answers what a writer of tapes asks; no unit attention, no end of medium, variable mode. One thread at a time."""

    def __init__(self):
        self.name = "null:"
        self.max_transfer = MAX_BLOCK

    cdef int command(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                     uint32_t timeout_ms, reply_t* reply, fault_t* fault) noexcept nogil:
        cdef uint8_t opcode = cdb[0]
        if opcode in (0x0A, 0x10) or (opcode == 0x80 and cdb_size == 16):
            return self.write(cdb, size, reply)
        if opcode == 0x08:
            return self.check(reply, 0x8, 0x0005) if be_get(cdb + 2, 3) else DONE
        if opcode in (0x01, 0x11) or (opcode in (0x92, 0x91) and cdb_size == 16):
            return self.move(cdb, reply)
        if opcode in (0x00, 0x15, 0x1B, 0x1E):     # TEST UNIT READY, MODE SELECT, LOAD UNLOAD, PREVENT ALLOW
            reply.transferred = size if opcode == 0x15 else 0
            return DONE
        return self.describe(cdb, data, size, reply)

    cdef int write(self, const uint8_t* cdb, uint32_t size, reply_t* reply) noexcept nogil:
        """WRITE(6) in variable mode, WRITE FILEMARKS(6) and (16): count and forget."""
        cdef uint32_t count = <uint32_t>be_get(cdb + (12 if cdb[0] == 0x80 else 2), 3)
        if cdb[0] == 0x0A and (cdb[1] & 0x01 or count > size):
            return self.check(reply, 0x5, 0x2400)
        if cdb[0] == 0x0A:
            self.object_id += 1 if count else 0
            self.bytes_written += count
            reply.transferred = count
        else:
            self.object_id += count
            self.file_id += count
        self.end = self.object_id
        return DONE

    cdef int move(self, const uint8_t* cdb, reply_t* reply) noexcept nogil:
        """REWIND, LOCATE(16) by object, SPACE to end of data; the file count is known only at the ends."""
        cdef uint64_t target = be_get(cdb + 4, 8) if cdb[0] == 0x92 else 0
        if cdb[0] == 0x01:
            self.object_id = self.file_id = 0
            return DONE
        if cdb[0] != 0x92:
            if cdb[1] & 0x07 != 3:
                return self.check(reply, 0x5, 0x2400)
            target = self.end
        if target > self.end:
            self.object_id = self.end
            return self.check(reply, 0x8, 0x0005)
        self.object_id = target
        return DONE

    cdef int describe(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        cdef drive_state_t state
        cdef uint8_t opcode = cdb[0]
        cdef int built
        memset(self.out, 0, sizeof(self.out))
        if opcode == 0x12:
            memset(&state, 0, sizeof(state))
            memcpy(state.serial, b"NULL", 4)
            built = inquiry(self.out, cdb, &state)
            if built < 0:
                return self.check(reply, 0x5, 0x2400)
            return self.send(<uint32_t>built, <uint32_t>be_get(cdb + 3, 2), data, size, reply)
        if opcode == 0x05:                         # READ BLOCK LIMITS
            be_put(self.out + 1, MAX_BLOCK, 3)
            be_put(self.out + 4, 1, 2)
            return self.send(6, 6, data, size, reply)
        if opcode == 0x03:                         # REQUEST SENSE: nothing to tell
            self.out[0] = 0x70
            self.out[7] = 10
            return self.send(18, cdb[4], data, size, reply)
        if opcode == 0x1A:                         # MODE SENSE(6): header and block descriptor, variable, buffered
            self.out[0] = 11
            self.out[2] = 0x10
            self.out[3] = 8
            return self.send(12, cdb[4], data, size, reply)
        if opcode == 0x34 and cdb[1] & 0x1F in (0, 6):
            self.out[0] = 0x80 if self.object_id == 0 else 0
            if cdb[1]:
                be_put(&self.out[8], self.object_id, 8)
                be_put(&self.out[16], self.file_id, 8)
                return self.send(32, 32, data, size, reply)
            be_put(&self.out[4], self.object_id, 4)
            be_put(&self.out[8], self.object_id, 4)
            return self.send(20, 20, data, size, reply)
        return self.check(reply, 0x5, 0x2000)

    cdef int send(self, uint32_t built, uint32_t room, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        reply.transferred = min(min(built, room), size)
        if reply.transferred:
            memcpy(data, self.out, reply.transferred)
        return DONE

    cdef int check(self, reply_t* reply, uint32_t key, uint32_t code) noexcept nogil:
        memset(reply.sense, 0, 18)
        reply.status = 0x02
        reply.sense[0] = 0x70
        reply.sense[2] = <uint8_t>key
        reply.sense[7] = 10
        be_put(reply.sense + 12, code, 2)
        reply.sense_size = 18
        return DONE
