"""sense turns a SCSI reply into one status: done, a condition, or a fault. It does not know how replies travel."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from splitreel.core.fault cimport (
    BEGINNING_OF_PARTITION,
    DONE,
    EARLY_WARNING,
    END_OF_DATA,
    FAULT_BUSY,
    FAULT_CHECK_CONDITION,
    FAULT_DEFERRED,
    FAULT_END_OF_MEDIUM,
    FAULT_NOT_READY,
    FAULT_RESERVATION_CONFLICT,
    FAULT_TRANSPORT,
    FAULT_UNIT_ATTENTION,
    FAULT_WRITE_PROTECTED,
    FILEMARK,
    INCORRECT_LENGTH,
    PROGRAMMABLE_EARLY_WARNING,
    fault_t,
    set_fault,
)

# What a drive says that is no failure; the Python name of each value of status_t above 0 that a drive can cause.
CONDITIONS = {
    EARLY_WARNING: "EARLY_WARNING",
    PROGRAMMABLE_EARLY_WARNING: "PROGRAMMABLE_EARLY_WARNING",
    FILEMARK: "FILEMARK",
    END_OF_DATA: "END_OF_DATA",
    BEGINNING_OF_PARTITION: "BEGINNING_OF_PARTITION",
    INCORRECT_LENGTH: "INCORRECT_LENGTH",
}

cdef enum:
    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    TASK_ABORTED = 0x40


cdef void decode_fixed(const uint8_t* sense, uint32_t size, sense_t* out) noexcept nogil:
    """SPC-4 4.5.3. INFORMATION is read as signed: READ with ILI reports a longer block as a negative residue."""
    cdef uint32_t end = size
    if size < 3:
        return
    out.valid = True
    out.key = sense[2] & 0x0F
    out.filemark = (sense[2] & 0x80) != 0
    out.eom = (sense[2] & 0x40) != 0
    out.ili = (sense[2] & 0x20) != 0
    if size >= 7 and sense[0] & 0x80:
        out.information_valid = True
        out.information = <int32_t>(<uint32_t>sense[3] << 24 | <uint32_t>sense[4] << 16
                                    | <uint32_t>sense[5] << 8 | sense[6])
    if size >= 8 and 8 + <uint32_t>sense[7] < size:
        end = 8 + <uint32_t>sense[7]
    if end >= 13:
        out.asc = sense[12]
    if end >= 14:
        out.ascq = sense[13]


cdef void decode_sense_descriptor(const uint8_t* item, uint32_t size, sense_t* out) noexcept nogil:
    """One descriptor of SPC-4 4.5.2; size counts its whole extent. Types other than 00h and 04h say nothing to us."""
    cdef uint64_t value = 0
    cdef int i
    if item[0] == 0x00 and size >= 12 and item[2] & 0x80:
        for i in range(4, 12):
            value = value << 8 | item[i]
        out.information_valid = True
        out.information = <int64_t>value
    elif item[0] == 0x04 and size >= 4:            # stream commands, SSC-4 4.2.22
        out.filemark = (item[3] & 0x80) != 0
        out.eom = (item[3] & 0x40) != 0
        out.ili = (item[3] & 0x20) != 0


cdef void decode_descriptors(const uint8_t* sense, uint32_t size, sense_t* out) noexcept nogil:
    cdef uint32_t end = size, at = 8, length
    if size < 4:
        return
    out.valid = True
    out.key = sense[1] & 0x0F
    out.asc = sense[2]
    out.ascq = sense[3]
    if size < 8:
        return
    if 8 + <uint32_t>sense[7] < size:
        end = 8 + <uint32_t>sense[7]
    while at + 2 <= end:
        length = 2 + <uint32_t>sense[at + 1]
        if at + length > end:
            return                                 # cut short on the way: what is left says nothing
        decode_sense_descriptor(sense + at, length, out)
        at += length


cdef void decode_sense(const uint8_t* sense, uint32_t size, sense_t* out) noexcept nogil:
    cdef uint8_t code
    memset(out, 0, sizeof(sense_t))
    if size < 1:
        return
    code = sense[0] & 0x7F
    out.deferred = code == 0x71 or code == 0x73
    if code == 0x70 or code == 0x71:
        decode_fixed(sense, size, out)
    elif code == 0x72 or code == 0x73:
        decode_descriptors(sense, size, out)


cdef const char* sense_key_name(uint8_t key) noexcept nogil:
    """SPC-4 table 48."""
    if key == 0x0:
        return "no sense"
    if key == 0x1:
        return "recovered error"
    if key == 0x2:
        return "not ready"
    if key == 0x3:
        return "medium error"
    if key == 0x4:
        return "hardware error"
    if key == 0x5:
        return "illegal request"
    if key == 0x6:
        return "unit attention"
    if key == 0x7:
        return "data protect"
    if key == 0x8:
        return "blank check"
    if key == 0xB:
        return "aborted command"
    if key == 0xD:
        return "volume overflow"
    return "sense key without a name"


cdef const char* sense_text(uint8_t asc, uint8_t ascq) noexcept nogil:
    """What an operator of a tape drive meets most, SPC-4 annex F; NULL for the rest."""
    cdef int code = <int>asc << 8 | ascq
    if code == 0x0401:
        return "the drive is becoming ready"
    if code == 0x0C00:
        return "write error"
    if code == 0x1100:
        return "unrecovered read error"
    if code == 0x1403:
        return "end of data not found"
    if code == 0x2000:
        return "the drive does not know this command"
    if code == 0x2400 or code == 0x2600:
        return "the drive does not accept a field of this command"
    if code == 0x2700:
        return "write protected"
    if code == 0x2800:
        return "the medium may have changed"
    if code == 0x2900:
        return "power on or reset"
    if code == 0x3000:
        return "incompatible medium"
    if code == 0x3100:
        return "medium format corrupted"
    if code == 0x3A00:
        return "no medium in the drive"
    if code == 0x5302:
        return "medium removal is prevented"
    return NULL


cdef int sense_fault(int code, const sense_t* sense, const char* site, fault_t* fault) noexcept nogil:
    """Fill fault from sense data: their numbers, and in words what is known of them."""
    cdef const char* text = sense_text(sense.asc, sense.ascq)
    cdef const char* name = sense_key_name(sense.key)
    cdef const char* prefix = ""
    cdef const char* colon = ": "
    set_fault(fault, code, site, 0, 0, NULL)
    fault.sense_key = sense.key
    fault.asc = sense.asc
    fault.ascq = sense.ascq
    if sense.deferred:
        prefix = "deferred error: "
    if text == NULL:
        text = colon = ""
    snprintf(fault.detail, sizeof(fault.detail), b"%s%s%s%s", prefix, name, colon, text)
    return code


cdef int decode_no_sense(const sense_t* sense) noexcept nogil:
    """Sense keys 0 and 1: the command was done; what did it meet?"""
    if sense.filemark:
        return FILEMARK
    if sense.ili:
        return INCORRECT_LENGTH
    if sense.asc == 0 and sense.ascq == 0x04:
        return BEGINNING_OF_PARTITION
    if sense.asc == 0 and sense.ascq == 0x05:      # tgtd: SPACE that ends exactly at end of data
        return END_OF_DATA
    if sense.asc == 0 and sense.ascq == 0x07:
        return PROGRAMMABLE_EARLY_WARNING
    if sense.eom:                                  # 00h/02h; tgtd leaves ASC and ASCQ 0
        return EARLY_WARNING
    return DONE


cdef int decode_key(const sense_t* sense) noexcept nogil:
    """A status from sense data that are valid and current."""
    cdef uint8_t key = sense.key
    if key <= 1:
        return decode_no_sense(sense)
    if key == 0x8 and sense.asc == 0:              # 00h/05h; tgtd leaves the ASCQ 0. 14h/03h is damage, not an end.
        return END_OF_DATA
    if key == 0xD:
        return FAULT_END_OF_MEDIUM
    if key == 0x2:
        return FAULT_NOT_READY
    if key == 0x6:
        return FAULT_UNIT_ATTENTION
    if key == 0x7 and (sense.asc == 0x27 or (sense.asc == 0x30 and sense.ascq == 0x0C)):
        return FAULT_WRITE_PROTECTED               # 30h/0Ch: WORM medium, overwrite attempted
    return FAULT_CHECK_CONDITION


cdef int status_fault(uint8_t status, const char* site, fault_t* fault) noexcept nogil:
    """Statuses of SAM-5 5.3.1 that carry no sense data."""
    if status == RESERVATION_CONFLICT:
        return set_fault(fault, FAULT_RESERVATION_CONFLICT, site, 0, 0, NULL)
    if status == BUSY or status == TASK_SET_FULL:
        return set_fault(fault, FAULT_BUSY, site, 0, 0, NULL)
    if status == TASK_ABORTED:
        return set_fault(fault, FAULT_TRANSPORT, site, 0, 0, b"the target aborted the command")
    set_fault(fault, FAULT_CHECK_CONDITION, site, 0, 0, NULL)
    snprintf(fault.detail, sizeof(fault.detail), b"SCSI status %02Xh", <unsigned int>status)
    return FAULT_CHECK_CONDITION


cdef int decode_reply(const reply_t* reply, sense_t* sense, const char* site, fault_t* fault) noexcept nogil:
    cdef int code
    memset(sense, 0, sizeof(sense_t))
    if reply.status == GOOD or reply.status == CONDITION_MET:
        return DONE
    if reply.status != CHECK_CONDITION:
        return status_fault(reply.status, site, fault)
    decode_sense(reply.sense, reply.sense_size, sense)
    if not sense.valid:
        return set_fault(fault, FAULT_CHECK_CONDITION, site, 0, 0, b"check condition without readable sense data")
    # A deferred error stands for an earlier command, and the one that carries it was not processed (SPC-4 4.5.7).
    code = FAULT_DEFERRED if sense.deferred else decode_key(sense)
    return sense_fault(code, sense, site, fault) if code < 0 else code


def parse_sense(const uint8_t[::1] sense not None):
    """Sense data as a dict with the fields of sense_t; valid is False when their format is unknown or they are cut."""
    cdef sense_t out
    cdef uint8_t nothing = 0
    decode_sense(&sense[0] if sense.shape[0] else &nothing, <uint32_t>sense.shape[0], &out)
    return dict(out)


def classify(int status, const uint8_t[::1] sense not None):
    """The status (DONE, a condition, or a fault's code) that a SAM status and sense data decode to."""
    cdef reply_t reply
    cdef sense_t out
    cdef fault_t fault
    memset(&reply, 0, sizeof(reply))
    reply.status = <uint8_t>status
    reply.sense_size = min(<uint32_t>sense.shape[0], <uint32_t>sizeof(reply.sense))
    if reply.sense_size:
        memcpy(reply.sense, &sense[0], reply.sense_size)
    return decode_reply(&reply, &out, b"classify", &fault)
