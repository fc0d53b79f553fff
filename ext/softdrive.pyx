"""softdrive executes the commands of a tape drive (SSC-4) over a file. It does not know what the blocks mean.

It is the conformance reference of this project: it stops at filemarks, counts residues, warns early and refuses late,
as the standard says. Faults can be injected, to see what those who use a drive do about them.
"""

import os
import zlib

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from splitreel.core.fault cimport DONE, FAULT_MISUSE, FAULT_TRANSPORT, fault_t, set_fault
from splitreel.core.sense cimport reply_t
from splitreel.core.softdrive_base cimport (
    ALERT_DIRECTORY,
    ALERT_WRITE_FAILURE,
    EOM,
    ILI,
    STRUCK,
    STRUCK_AFTER,
    STRUCK_DEFERRED,
    DriveBase,
)
from splitreel.core.softdrive_medium cimport (
    MEDIUM_BLOCK,
    MEDIUM_END,
    MEDIUM_FILEMARK,
    MEDIUM_FULL,
    Medium,
    point_t,
)
from splitreel.core.softdrive_pages cimport (
    INVALID_FIELD,
    cdb_length,
    inquiry,
    log_sense,
    mode_select,
    mode_sense,
    read_attribute,
    report_density,
    report_opcodes,
    write_attribute,
)

from splitreel import errors

cdef extern from "bigendian.h" nogil:
    uint64_t be_get(const uint8_t* at, int size)
    int64_t be_get_signed24(const uint8_t* at)
    void be_put(uint8_t* at, uint64_t value, int size)

cdef enum:
    MAX_BLOCK = 0xFFFFFF
    DEFAULT_DENSITY = 0x60

cdef bint always_answered(uint8_t opcode) noexcept nogil:
    """Commands that neither unit attentions nor an absent medium stop (SAM-5 5.14, SPC-4 6.4)."""
    return opcode == 0x12 or opcode == 0xA0 or opcode == 0x03


cdef bint needs_medium(uint8_t opcode) noexcept nogil:
    return (opcode in (0x00, 0x01, 0x08, 0x0A, 0x10, 0x11, 0x19, 0x2B, 0x34)
            or opcode in (0x80, 0x8C, 0x8D, 0x91, 0x92))


cdef class SoftDrive(DriveBase):
    """A software drive with one cartridge: the file ``path`` in SIMH .tap format, beside it ``path.idx``.

    One thread at a time. Holds an exclusive lock on the file until closed.

    Raises:
        TapeError: the file is in use, or cannot be opened.
    """

    def __init__(self, path, bint create=True):
        self.medium = Medium(path, create)
        self.name = f"file:{self.medium.path}"
        self.max_transfer = MAX_BLOCK
        serial = b"SD%08X" % zlib.crc32(os.fsencode(os.path.abspath(self.medium.path)))
        memcpy(self.state.serial, <const char*>serial, len(serial))
        self.state.settings.buffered_mode = 1
        self.state.settings.compression = True
        if self.medium.cartridge.density == 0:
            self.medium.cartridge.density = DEFAULT_DENSITY
        if self.medium.repaired_bytes or self.medium.damaged:
            self.state.tape_alerts |= 1 << (ALERT_DIRECTORY - 1)
        self.loaded = True
        self.medium.cartridge.loads += 1
        self.attention = 0x2900

    @staticmethod
    def create(path, uint64_t capacity=0, early_warning=None, uint64_t programmable_early_warning=0,
               str barcode="", bint write_protected=False, uint32_t density=DEFAULT_DENSITY):
        """Make an empty tape of ``capacity`` bytes (0: without end) and put it into a drive.

        A block takes its own size and 8 or 9 bytes. Early warning is given ``early_warning`` bytes before the end (a
        twentieth of the capacity when None), programmable early warning that many bytes before early warning.

        Raises:
            TapeError: the file exists and holds something, or cannot be made.
        """
        if os.path.exists(path) and os.path.getsize(path):
            raise errors.TapeError(f"creating tape file {path}", "it holds data already", "Choose another name.")
        cdef SoftDrive drive = SoftDrive(path)
        drive.medium.cartridge.capacity = capacity
        drive.medium.cartridge.early_warning = capacity // 20 if early_warning is None else early_warning
        drive.medium.cartridge.programmable_early_warning = programmable_early_warning
        drive.medium.cartridge.write_protected = write_protected
        drive.medium.cartridge.density = density
        tag = barcode.encode("ascii")[:32]
        if tag:
            slot = drive.medium.attribute(0x0806, True)
            slot.format = 1
            slot.size = len(tag)
            memcpy(slot.value, <const char*>tag, len(tag))
        drive.medium.save_index()
        return drive

    # --- what tests and tools see of it ---

    @property
    def position(self):
        """(object identifier, file identifier, byte offset in the file) of the position."""
        return self.medium.here.object_id, self.medium.here.file_id, self.medium.here.offset

    @property
    def end(self):
        """(object identifier, file identifier, byte offset in the file) of the end of data."""
        return self.medium.end.object_id, self.medium.end.file_id, self.medium.end.offset

    @property
    def repaired_bytes(self):
        """Bytes of a torn last record that were left out when the file was opened; the next write cuts them off."""
        return self.medium.repaired_bytes

    @property
    def capacity(self):
        """Bytes; 0 when the tape has no end."""
        return self.medium.cartridge.capacity

    @property
    def write_protected(self):
        """The cartridge's write-protect tab."""
        return bool(self.medium.cartridge.write_protected) or not self.medium.writable

    @write_protected.setter
    def write_protected(self, bint value):
        self.medium.cartridge.write_protected = value

    # --- a command's way ---

    cdef int command(self, const uint8_t* cdb, uint32_t cdb_size, int direction, uint8_t* data, uint32_t size,
                     uint32_t timeout_ms, reply_t* reply, fault_t* fault) noexcept nogil:
        cdef uint8_t opcode = cdb[0]
        cdef int struck = 0
        if cdb_length(opcode) == 0:
            return self.check(reply, 0x5, 0x2000, 0)
        if cdb_size < cdb_length(opcode):
            return set_fault(fault, FAULT_MISUSE, b"executing a command", opcode, 0, b"the CDB is too short")
        if not always_answered(opcode):
            if self.report_pending(reply):
                return DONE
            struck = self.strike(opcode, reply)
            if struck == FAULT_TRANSPORT:
                return set_fault(fault, FAULT_TRANSPORT, b"executing a command", opcode, 0, b"injected: path lost")
            if struck == STRUCK:
                return DONE
            if not self.loaded and needs_medium(opcode):
                return self.check(reply, 0x2, 0x3A00, 0)
        self.dispatch(cdb, data, size, reply)
        if struck == STRUCK_DEFERRED:
            self.deferred = True
        if struck == STRUCK_AFTER:
            return set_fault(fault, FAULT_TRANSPORT, b"executing a command", opcode, 0, b"injected: reply lost")
        return DONE

    cdef int dispatch(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        cdef uint8_t opcode = cdb[0]
        if opcode == 0x00 or opcode == 0x16 or opcode == 0x17:
            return DONE                            # TEST UNIT READY; RESERVE(6), RELEASE(6): there is one initiator
        if opcode == 0x08:
            return self.read(cdb, data, size, reply)
        if opcode == 0x0A:
            return self.write(cdb, data, size, reply)
        if opcode == 0x10 or opcode == 0x80:
            return self.filemarks(cdb, reply)
        if opcode in (0x15, 0x55, 0x8D):
            return self.select(cdb, data, size, reply)
        if opcode in (0x01, 0x11, 0x91, 0x2B, 0x92, 0x1B, 0x19, 0x1E):
            return self.dispatch_motion(cdb, data, size, reply)
        return self.dispatch_data(cdb, data, size, reply)

    cdef int dispatch_motion(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        cdef uint8_t opcode = cdb[0]
        if opcode == 0x1E:                         # PREVENT ALLOW MEDIUM REMOVAL
            self.prevented = (cdb[4] & 0x01) != 0
            return DONE
        if opcode == 0x19:
            return self.erase(reply)
        if opcode == 0x1B:
            return self.load_unload(cdb, reply)
        if self.flush(reply):                      # buffered blocks reach the medium before it moves
            return DONE
        if opcode == 0x01:
            memset(&self.medium.here, 0, sizeof(point_t))
            return DONE
        if opcode == 0x11 or opcode == 0x91:
            return self.space(cdb, reply)
        return self.locate(cdb, reply)

    cdef int dispatch_data(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        """Commands that return data; the allocation length stands where each of them has it."""
        cdef uint8_t opcode = cdb[0]
        cdef uint8_t* out = self.out
        if opcode == 0x03:
            return self.request_sense(cdb, data, size, reply)
        if opcode == 0x34:
            return self.read_position(cdb, data, size, reply)
        if opcode == 0x05:                         # READ BLOCK LIMITS
            memset(out, 0, 6)
            be_put(out + 1, MAX_BLOCK, 3)
            be_put(out + 4, 1, 2)
            return self.send(6, 6, data, size, reply)
        if opcode == 0x12:
            return self.send(inquiry(out, cdb, &self.state), <uint32_t>be_get(cdb + 3, 2), data, size, reply)
        if opcode == 0x1A or opcode == 0x5A:
            return self.send(mode_sense(out, cdb, &self.state, self.medium),
                             cdb[4] if opcode == 0x1A else <uint32_t>be_get(cdb + 7, 2), data, size, reply)
        if opcode == 0x44:
            return self.send(report_density(out, &self.state, self.medium), <uint32_t>be_get(cdb + 7, 2),
                             data, size, reply)
        if opcode == 0x4D:
            return self.send(log_sense(out, cdb, &self.state, self.medium), <uint32_t>be_get(cdb + 7, 2),
                             data, size, reply)
        if opcode == 0x8C:
            return self.send(read_attribute(out, cdb, &self.state, self.medium), <uint32_t>be_get(cdb + 10, 4),
                             data, size, reply)
        if opcode == 0xA0:                         # REPORT LUNS: this one
            memset(out, 0, 16)
            out[3] = 8
            return self.send(16, <uint32_t>be_get(cdb + 6, 4), data, size, reply)
        return self.send(report_opcodes(out, cdb), <uint32_t>be_get(cdb + 6, 4), data, size, reply)

    # --- READ, WRITE, WRITE FILEMARKS ---

    cdef int read(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        """SSC-4 5.12. SILI lets a shorter block pass, and in variable mode (block length 0) a longer one as well."""
        cdef uint32_t length = <uint32_t>be_get(cdb + 2, 3), actual = 0
        cdef bint fixed = (cdb[1] & 0x01) != 0, suppress = (cdb[1] & 0x02) != 0
        cdef int what
        if fixed and (suppress or self.state.settings.block_length == 0):
            return self.refuse(INVALID_FIELD, reply)
        if length == 0:
            return DONE
        if fixed:
            return self.read_blocks(length, data, size, reply)
        if length > size:
            return self.refuse(INVALID_FIELD, reply)
        what = self.medium.read_block(data, length, &actual)
        if what == MEDIUM_FILEMARK:
            self.medium.forward()
        if what != MEDIUM_BLOCK:
            return self.met(what, length, reply)
        self.count_blocks(1)
        reply.transferred = min(length, actual)
        if actual == length or (suppress and (actual < length or self.state.settings.block_length == 0)):
            return DONE
        return self.check_residue(reply, 0x0, 0x0000, ILI, <int64_t>length - actual)

    cdef int read_blocks(self, uint32_t count, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        """Fixed mode: the residue counts blocks, and a block of another length is not among those that were read."""
        cdef uint32_t length = self.state.settings.block_length, actual = 0, done
        cdef int what
        if <uint64_t>count * length > size:
            return self.refuse(INVALID_FIELD, reply)
        for done in range(count):
            what = self.medium.read_block(data + <uint64_t>done * length, length, &actual)
            if what == MEDIUM_FILEMARK:
                self.medium.forward()
            if what != MEDIUM_BLOCK:
                return self.met(what, <int64_t>count - done, reply)
            self.count_blocks(1)
            if actual != length:
                return self.check_residue(reply, 0x0, 0x0000, ILI, <int64_t>count - done)
            reply.transferred += length
        return DONE

    cdef int write(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        """SSC-4 5.26. The residue of a refused WRITE is in bytes, or in fixed mode in blocks."""
        cdef uint32_t count = <uint32_t>be_get(cdb + 2, 3), length = 0, blocks = 1, done
        cdef uint64_t before = self.medium.here.offset
        cdef int what = MEDIUM_BLOCK
        length = count
        if cdb[1] & 0x01:
            length = self.state.settings.block_length
            blocks = count
        if (cdb[1] & 0x01 and length == 0) or <uint64_t>blocks * length > size:
            return self.refuse(INVALID_FIELD, reply)
        if self.protected(reply) or count == 0:
            return DONE
        for done in range(blocks):
            what = self.medium.write_block(data + <uint64_t>done * length, length)
            if what != MEDIUM_BLOCK:
                break
            self.count_blocks(1)
            reply.transferred += length
        if what == MEDIUM_BLOCK and self.state.settings.buffered_mode == 0:
            what = self.medium.synchronize()
        if what == MEDIUM_BLOCK:
            return self.warn(before, reply)
        done = reply.transferred // length
        if what == MEDIUM_FULL:
            return self.check_residue(reply, 0xD, 0x0002, EOM, <int64_t>(blocks - done if cdb[1] & 0x01 else count))
        self.state.tape_alerts |= 1 << (ALERT_WRITE_FAILURE - 1)
        self.state.write_errors += 1
        return self.check_residue(reply, 0x3, 0x0C00, 0, <int64_t>(blocks - done if cdb[1] & 0x01 else count))

    cdef int warn(self, uint64_t before, reply_t* reply) noexcept nogil:
        """Early warning on every write past its point; programmable early warning on the one that crosses its own."""
        cdef uint64_t capacity = self.medium.cartridge.capacity
        cdef uint64_t near = capacity - min(self.medium.cartridge.early_warning, capacity)
        cdef uint64_t far = near - min(self.medium.cartridge.programmable_early_warning, near)
        if capacity == 0:
            return DONE
        if self.medium.here.offset > near:
            return self.check_residue(reply, 0x0, 0x0002, EOM, 0)
        if far < near and before <= far < self.medium.here.offset:
            return self.check_residue(reply, 0x0, 0x0007, EOM, 0)
        return DONE

    cdef int filemarks(self, const uint8_t* cdb, reply_t* reply) noexcept nogil:
        """SSC-4 5.27 and 6.10: without IMMED all that was written is on disk when it returns."""
        cdef uint32_t count = <uint32_t>be_get(cdb + (12 if cdb[0] == 0x80 else 2), 3)
        cdef uint64_t before = self.medium.here.offset, object_id = self.medium.here.object_id
        cdef int what
        if cdb[1] & ~0x01 & 0x1F or (cdb[0] == 0x80 and cdb[3]):
            return self.refuse(INVALID_FIELD, reply)
        if count and self.protected(reply):
            return DONE
        what = self.medium.write_filemarks(count)
        if what == MEDIUM_BLOCK and cdb[1] & 0x01:
            return self.warn(before, reply) if count else DONE
        if self.flush(reply):
            return DONE
        if what == MEDIUM_BLOCK:
            return self.warn(before, reply) if count else DONE
        count -= <uint32_t>(self.medium.here.object_id - object_id)
        if what == MEDIUM_FULL:
            return self.check_residue(reply, 0xD, 0x0002, EOM, count)
        return self.check_residue(reply, 0x3, 0x0C00, 0, count)

    cdef int erase(self, reply_t* reply) noexcept nogil:
        """SSC-4 5.2, long or short: nothing is left behind the position."""
        if self.protected(reply):
            return DONE
        if self.medium.truncate() != MEDIUM_BLOCK:
            return self.check(reply, 0x3, 0x5100, 0)
        self.flush(reply)
        return DONE

    # --- positions ---

    cdef int space(self, const uint8_t* cdb, reply_t* reply) noexcept nogil:
        """SSC-4 5.24, 6.8: code 0 blocks, 1 filemarks, 3 end of data."""
        cdef bint sixteen = cdb[0] == 0x91
        cdef uint8_t code = cdb[1] & (0x0F if sixteen else 0x07)
        cdef int64_t count = <int64_t>be_get(cdb + 4, 8) if sixteen else be_get_signed24(cdb + 2)
        if code == 3:
            self.medium.here = self.medium.end
            return DONE
        if code > 1:
            return self.refuse(INVALID_FIELD, reply)
        return self.space_over(code == 1, count, reply)

    cdef int space_over(self, bint filemarks, int64_t count, reply_t* reply) noexcept nogil:
        """A filemark stops spacing over blocks: behind it going forward, before it going backward."""
        cdef uint64_t left = <uint64_t>count if count >= 0 else 0 - <uint64_t>count
        cdef int what
        while left > 0:
            what = self.medium.forward() if count > 0 else self.medium.backward()
            if what > MEDIUM_FILEMARK or (what == MEDIUM_FILEMARK and not filemarks):
                return self.met(what, <int64_t>left, reply)
            if what == MEDIUM_FILEMARK or not filemarks:
                left -= 1
        return DONE

    cdef int locate(self, const uint8_t* cdb, reply_t* reply) noexcept nogil:
        """SSC-4 5.4, 6.3: to an object, a file (16 only) or end of data (16 only); there is one partition."""
        cdef uint8_t destination = 0
        cdef uint64_t target
        cdef int what = MEDIUM_BLOCK
        if cdb[0] == 0x92:
            destination = cdb[1] >> 3 & 0x07
            target = be_get(cdb + 4, 8)
        else:
            target = be_get(cdb + 3, 4)
        if cdb[1] & 0x02 and cdb[3 if cdb[0] == 0x92 else 8]:
            return self.refuse(INVALID_FIELD, reply)
        if destination == 0:
            what = self.medium.locate_object(target)
        elif destination == 1:
            what = self.medium.locate_file(target)
        elif destination == 3:
            self.medium.here = self.medium.end
        else:
            return self.refuse(INVALID_FIELD, reply)
        if what == MEDIUM_END:
            return self.check(reply, 0x8, 0x0005, 0)
        return DONE if what == MEDIUM_BLOCK else self.met(what, 0, reply)

    cdef uint8_t position_flags(self) noexcept nogil:
        """BOP, EOP (past early warning), BPEW (past programmable early warning)."""
        cdef uint64_t capacity = self.medium.cartridge.capacity
        cdef uint64_t near = capacity - min(self.medium.cartridge.early_warning, capacity)
        cdef uint64_t far = near - min(self.medium.cartridge.programmable_early_warning, near)
        cdef uint8_t flags = 0x80 if self.medium.here.object_id == 0 else 0
        if capacity and self.medium.here.offset > near:
            flags |= 0x40
        if capacity and far < near and self.medium.here.offset > far:
            flags |= 0x01
        return flags

    cdef int read_position(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        """SSC-4 7.7: short (0, 1), long (6) and extended form (8). Buffered is what no synchronise has confirmed."""
        cdef uint8_t* out = self.out
        cdef uint8_t form = cdb[1] & 0x1F
        cdef uint64_t here = self.medium.here.object_id
        cdef uint64_t first = min(here, self.medium.synced.object_id)
        cdef uint64_t buffered = self.medium.end.object_id - self.medium.synced.object_id
        cdef uint64_t held = self.medium.end.offset - self.medium.synced.offset
        memset(out, 0, 32)
        out[0] = self.position_flags()
        if form == 0x06:
            be_put(out + 8, here, 8)
            be_put(out + 16, self.medium.here.file_id, 8)
            return self.send(32, 32, data, size, reply)
        if buffered == 0:
            first = here
        if form == 0x08:
            be_put(out + 2, 28, 2)
            be_put(out + 5, buffered, 3)
            be_put(out + 8, here, 8)
            be_put(out + 16, first, 8)
            be_put(out + 24, held, 8)
            return self.send(32, <uint32_t>be_get(cdb + 7, 2), data, size, reply)
        if form > 0x01:
            return self.refuse(INVALID_FIELD, reply)
        if here > 0xFFFFFFFFU or buffered > 0xFFFFFF or held > 0xFFFFFFFFU:
            out[0] |= 0x02                         # PERR: the short form has no room
        be_put(out + 4, here, 4)
        be_put(out + 8, first, 4)
        be_put(out + 13, buffered, 3)
        be_put(out + 16, held, 4)
        return self.send(20, 20, data, size, reply)

    cdef int load_unload(self, const uint8_t* cdb, reply_t* reply) noexcept nogil:
        if not cdb[4] & 0x01 and self.prevented:
            return self.check(reply, 0x5, 0x5302, 0)
        if self.flush(reply):
            return DONE
        memset(&self.medium.here, 0, sizeof(point_t))
        if cdb[4] & 0x01 and not self.loaded:
            self.attention = 0x2800
            self.medium.cartridge.loads += 1
        self.loaded = (cdb[4] & 0x01) != 0
        return DONE

    # --- the rest ---

    cdef int select(self, const uint8_t* cdb, uint8_t* data, uint32_t size, reply_t* reply) noexcept nogil:
        """MODE SELECT(6), (10) and WRITE ATTRIBUTE: parameter lists."""
        cdef uint64_t length
        cdef int rc
        if cdb[0] == 0x8D:
            length = be_get(cdb + 10, 4)
        else:
            length = cdb[4] if cdb[0] == 0x15 else be_get(cdb + 7, 2)
        length = min(length, <uint64_t>size)
        if cdb[0] != 0x8D:
            rc = mode_select(data, <uint32_t>length, cdb, &self.state, self.medium)
        elif self.protected(reply):
            return DONE
        else:
            rc = write_attribute(data, <uint32_t>length, self.medium)
        if rc < 0:
            return self.refuse(rc, reply)
        reply.transferred = <uint32_t>length
        if self.medium.writable:
            self.medium.save_index()
        return DONE
