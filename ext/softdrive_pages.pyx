"""softdrive_pages builds what the software drive says of itself and its cartridge. It moves no tape.

Layouts: SPC-4 (INQUIRY 6.4, MODE 6.10, LOG 6.6, attributes 7.4, REPORT SUPPORTED OPERATION CODES 6.27), SSC-4
(density 7.9, mode pages 8.3, log pages 8.2).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strlen

from splitreel.core.softdrive_medium cimport MEDIUM_ATTRIBUTE_SIZE, Medium, attribute_t

cdef const uint64_t MIB = 1 << 20
cdef const uint64_t MEGABYTE = 1000000
cdef const char* VENDOR = "SPLTREEL"
cdef const char* PRODUCT = "SOFTDRIVE       "
cdef const char* REVISION = "0001"


cdef void put16(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>value


cdef void put24(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 16)
    put16(at + 1, value)


cdef void put32(uint8_t* at, uint32_t value) noexcept nogil:
    put16(at, value >> 16)
    put16(at + 2, value)


cdef void put64(uint8_t* at, uint64_t value) noexcept nogil:
    put32(at, <uint32_t>(value >> 32))
    put32(at + 4, <uint32_t>value)


cdef uint32_t get16(const uint8_t* at) noexcept nogil:
    return <uint32_t>at[0] << 8 | at[1]


cdef void pad(uint8_t* at, const char* text, uint32_t size) noexcept nogil:
    """Left-aligned ASCII, filled up with blanks."""
    memset(at, 0x20, size)
    memcpy(at, text, min(<uint32_t>strlen(text), size))


# --- INQUIRY --------------------------------------------------------------------------------------------------------

cdef int inquiry(uint8_t* out, const uint8_t* cdb, const drive_state_t* drive) noexcept nogil:
    if cdb[1] & 1:
        return vital_product_data(out, cdb[2], drive)
    if cdb[2]:
        return INVALID_FIELD
    memset(out, 0, 96)
    out[0] = 0x01                                  # sequential-access device
    out[1] = 0x80                                  # removable medium
    out[2] = 0x06                                  # SPC-4
    out[3] = 0x02
    out[4] = 91
    pad(out + 8, VENDOR, 8)
    pad(out + 16, PRODUCT, 16)
    pad(out + 32, REVISION, 4)
    return 96


cdef int vital_product_data(uint8_t* out, uint8_t page, const drive_state_t* drive) noexcept nogil:
    cdef uint32_t serial_size = <uint32_t>strlen(drive.serial)
    memset(out, 0, 64)
    out[0] = 0x01
    out[1] = page
    if page == 0x00:
        memcpy(out + 4, b"\x00\x80\x83\xb0", 4)
        put16(out + 2, 4)
    elif page == 0x80:
        memcpy(out + 4, drive.serial, serial_size)
        put16(out + 2, serial_size)
    elif page == 0x83:                             # one designator: T10 vendor identification, ASCII, of the unit
        out[4] = 0x02
        out[5] = 0x01
        out[7] = <uint8_t>(24 + serial_size)
        pad(out + 8, VENDOR, 8)
        pad(out + 16, PRODUCT, 16)
        memcpy(out + 32, drive.serial, serial_size)
        put16(out + 2, 28 + serial_size)
    elif page == 0xB0:                             # sequential-access device capabilities: no WORM
        put16(out + 2, 2)
    else:
        return INVALID_FIELD
    return 4 + <int>get16(out + 2)


# --- MODE SENSE and MODE SELECT -------------------------------------------------------------------------------------

cdef uint32_t mode_page(uint8_t* out, uint8_t page, uint8_t subpage, uint8_t control, const drive_state_t* drive,
                        Medium medium) noexcept nogil:
    """One page, its current values, or (control 1) a mask of what MODE SELECT may change. 0: there is no such page."""
    cdef bint mask = control == 1
    cdef uint64_t size
    memset(out, 0, 32)
    out[0] = page
    if subpage == 0x01 and page == 0x10:           # device configuration extension: PEWS
        out[0] = 0x40 | page
        out[1] = subpage
        put16(out + 2, 28)
        size = (medium.cartridge.programmable_early_warning + MEGABYTE - 1) // MEGABYTE
        put16(out + 6, 0xFFFF if mask else <uint32_t>min(size, <uint64_t>0xFFFF))
        return 32
    if subpage:
        return 0
    if page == 0x0A:                               # control: D_SENSE
        out[1] = 10
        out[2] = 0x04 if mask or drive.settings.descriptor_sense else 0
    elif page == 0x0F:                             # data compression: DCC, DCE
        out[1] = 14
        out[2] = 0x80 if mask else 0x40 | (0x80 if drive.settings.compression else 0)
    elif page == 0x10:                             # device configuration: LOIS, RSMK clear, EOD defined 0
        out[1] = 14
        out[8] = 0 if mask else 0x40
        out[14] = 0xFF if mask else (1 if drive.settings.compression else 0)
    elif page == 0x1C:                             # informational exceptions: TapeAlert through LOG SENSE only
        out[1] = 10
        out[2] = 0 if mask else 0x08
    else:
        return 0
    return 2 + <uint32_t>out[1]


cdef uint32_t mode_pages(uint8_t* out, const uint8_t* cdb, const drive_state_t* drive, Medium medium) noexcept nogil:
    cdef uint8_t control = cdb[2] >> 6, page = cdb[2] & 0x3F, subpage = cdb[3]
    cdef uint8_t[4] known
    cdef uint32_t used = 0
    cdef int i
    known[0], known[1], known[2], known[3] = 0x0A, 0x0F, 0x10, 0x1C
    if page != 0x3F and subpage != 0xFF:
        return mode_page(out, page, subpage, control, drive, medium)
    for i in range(4):
        if page == known[i] or page == 0x3F:
            used += mode_page(out + used, known[i], 0, control, drive, medium)
            if subpage == 0xFF:
                used += mode_page(out + used, known[i], 1, control, drive, medium)
    return used


cdef int mode_sense(uint8_t* out, const uint8_t* cdb, const drive_state_t* drive, Medium medium) noexcept nogil:
    cdef bint ten = cdb[0] == 0x5A
    cdef uint32_t header = 8 if ten else 4
    cdef uint32_t descriptor = 0 if cdb[1] & 0x08 else 8
    cdef uint32_t pages
    cdef uint8_t* block = out + header
    if cdb[2] >> 6 == 3:
        return NO_SAVED_PAGES
    memset(out, 0, header + descriptor)
    pages = mode_pages(block + descriptor, cdb, drive, medium)
    if pages == 0 and cdb[2] & 0x3F:               # page 00h without content: header and block descriptor alone
        return INVALID_FIELD
    if descriptor and cdb[2] >> 6 != 1:
        block[0] = <uint8_t>medium.cartridge.density
        put24(block + 5, drive.settings.block_length)
    out[3 if ten else 2] = <uint8_t>((0x80 if medium.cartridge.write_protected or not medium.writable else 0)
                                     | drive.settings.buffered_mode << 4)
    if ten:
        put16(out, header + descriptor + pages - 2)
        out[7] = <uint8_t>descriptor
    else:
        out[0] = <uint8_t>(header + descriptor + pages - 1)
        out[3] = <uint8_t>descriptor
    return <int>(header + descriptor + pages)


cdef int apply_page(const uint8_t* page, settings_t* settings, Medium medium, uint64_t* warning) noexcept nogil:
    """Take over one page of a MODE SELECT list; what this drive does not change is read and forgotten."""
    cdef uint8_t code = page[0] & 0x3F
    if page[0] & 0x40:
        if code != 0x10 or page[1] != 0x01 or get16(page + 2) != 28:
            return INVALID_PARAMETER
        warning[0] = <uint64_t>get16(page + 6) * MEGABYTE
        return 0
    if code == 0x0A and page[1] == 10:
        settings.descriptor_sense = (page[2] & 0x04) != 0
    elif code == 0x0F and page[1] == 14:
        settings.compression = (page[2] & 0x80) != 0
    elif code == 0x10 and page[1] == 14:
        settings.compression = page[14] != 0
    elif code != 0x1C or page[1] != 10:
        return INVALID_PARAMETER
    return 0


cdef int mode_select(const uint8_t* data, uint32_t size, const uint8_t* cdb, drive_state_t* drive,
                     Medium medium) noexcept nogil:
    """All of the list or none of it takes effect."""
    cdef bint ten = cdb[0] == 0x55
    cdef uint32_t at = 8 if ten else 4
    cdef uint32_t descriptor, length
    cdef settings_t settings = drive.settings
    cdef uint64_t warning = medium.cartridge.programmable_early_warning
    cdef uint8_t density
    if cdb[1] & 0x01:
        return INVALID_FIELD                       # saving pages
    if size == 0:
        return 0
    if size < at:
        return PARAMETER_LENGTH
    settings.buffered_mode = (data[3 if ten else 2] >> 4) & 7
    descriptor = get16(data + 6) if ten else data[3]
    if settings.buffered_mode > 2 or (descriptor != 0 and descriptor != 8):
        return INVALID_PARAMETER
    if at + descriptor > size:
        return PARAMETER_LENGTH
    if descriptor:
        density = data[at]
        if density != 0 and density != 0x7F and density != medium.cartridge.density:
            return INVALID_PARAMETER
        settings.block_length = <uint32_t>data[at + 5] << 16 | get16(data + at + 6)
        at += 8
    while at < size:
        if at + 4 > size:
            return PARAMETER_LENGTH
        length = 4 + get16(data + at + 2) if data[at] & 0x40 else 2 + <uint32_t>data[at + 1]
        if at + length > size:
            return PARAMETER_LENGTH
        if apply_page(data + at, &settings, medium, &warning) < 0:
            return INVALID_PARAMETER
        at += length
    drive.settings = settings
    # PEWS is whole megabytes; sent back as it was read, it must not round what was set in bytes.
    if warning // MEGABYTE != (medium.cartridge.programmable_early_warning + MEGABYTE - 1) // MEGABYTE:
        medium.cartridge.programmable_early_warning = warning
    return 0


# --- LOG SENSE ------------------------------------------------------------------------------------------------------

cdef uint32_t log_parameter(uint8_t* out, uint32_t code, uint64_t value, uint32_t size) noexcept nogil:
    cdef uint32_t i
    put16(out, code)
    out[2] = 0x03                                  # binary list parameter
    out[3] = <uint8_t>size
    for i in range(size):
        out[4 + i] = <uint8_t>(value >> (8 * (size - 1 - i)))
    return 4 + size


cdef uint64_t remaining(Medium medium) noexcept nogil:
    """Bytes; what a drive without an end says is the most that 32 bits of MiB hold."""
    if medium.cartridge.capacity == 0:
        return <uint64_t>0xFFFFFFFF * MIB
    return medium.cartridge.capacity - min(medium.end.offset, medium.cartridge.capacity)


cdef uint64_t maximum(Medium medium) noexcept nogil:
    return medium.cartridge.capacity if medium.cartridge.capacity else <uint64_t>0xFFFFFFFF * MIB


cdef uint32_t error_counters(uint8_t* out, uint64_t processed, uint64_t uncorrected) noexcept nogil:
    cdef uint32_t used = log_parameter(out, 0x0003, 0, 4)
    used += log_parameter(out + used, 0x0005, processed, 8)
    return used + log_parameter(out + used, 0x0006, uncorrected, 4)


cdef uint32_t tape_alert_page(uint8_t* out, drive_state_t* drive) noexcept nogil:
    """SSC-4 8.2.3: reading clears the flags."""
    cdef uint32_t used = 0, flag
    for flag in range(1, 65):
        used += log_parameter(out + used, flag, drive.tape_alerts >> (flag - 1) & 1, 1)
    drive.tape_alerts = 0
    return used


cdef uint32_t volume_statistics(uint8_t* out, Medium medium) noexcept nogil:
    cdef uint32_t used = log_parameter(out, 0x0000, 1, 1)
    used += log_parameter(out + used, 0x0001, medium.cartridge.loads, 4)
    used += log_parameter(out + used, 0x0010, medium.cartridge.bytes_written // MEGABYTE, 8)
    return used + log_parameter(out + used, 0x0011, medium.cartridge.bytes_read // MEGABYTE, 8)


cdef int log_sense(uint8_t* out, const uint8_t* cdb, drive_state_t* drive, Medium medium) noexcept nogil:
    cdef uint8_t page = cdb[2] & 0x3F
    cdef uint32_t used
    cdef uint8_t* body = out + 4
    if cdb[3] or cdb[1] & 0x01:
        return INVALID_FIELD
    if page == 0x00:
        memcpy(body, b"\x00\x02\x03\x17\x2e\x31", 6)
        used = 6
    elif page == 0x02:
        used = error_counters(body, medium.cartridge.bytes_written, drive.write_errors)
    elif page == 0x03:
        used = error_counters(body, medium.cartridge.bytes_read, drive.read_errors)
    elif page == 0x17:
        used = volume_statistics(body, medium)
    elif page == 0x2E:
        used = tape_alert_page(body, drive)
    elif page == 0x31:
        used = log_parameter(body, 0x0001, remaining(medium) // MIB, 4)
        used += log_parameter(body + used, 0x0003, maximum(medium) // MIB, 4)
    else:
        return INVALID_FIELD
    out[0] = page
    out[1] = 0
    put16(out + 2, used)
    return <int>(4 + used)


# --- medium auxiliary memory ----------------------------------------------------------------------------------------

cdef uint32_t attribute_limit(uint16_t id) noexcept nogil:
    """Most bytes of a host attribute (SPC-4 table 401 and facts of LTO); 0: not one of those that a host may write."""
    if id == 0x0800 or id == 0x0802:
        return 8
    if id == 0x0801 or id == 0x0806:
        return 32
    if id == 0x0803 or id == 0x0808:
        return 160
    if id == 0x0804:
        return 12
    if id == 0x0805:
        return 1
    if id == 0x0807:
        return 80
    if id == 0x080B:
        return 16
    if id == 0x080C:
        return MEDIUM_ATTRIBUTE_SIZE
    if id == 0x0820 or id == 0x0821:
        return 36
    return 0


cdef uint32_t put_attribute(uint8_t* out, uint16_t id, uint32_t format, const void* value,
                            uint32_t size) noexcept nogil:
    put16(out, id)
    out[2] = <uint8_t>format
    put16(out + 3, size)
    memcpy(out + 5, value, size)
    return 5 + size


cdef uint32_t device_attribute(uint8_t* out, uint16_t id, const drive_state_t* drive, Medium medium) noexcept nogil:
    """An attribute that the drive keeps; 0 bytes when it has none of this id."""
    cdef uint8_t value[32]
    cdef uint32_t size = 8, format = 0x80          # read-only, binary
    if id == 0x0000:
        put64(value, remaining(medium) // MIB)
    elif id == 0x0001:
        put64(value, maximum(medium) // MIB)
    elif id == 0x0002:
        put64(value, drive.tape_alerts)
    elif id == 0x0003:
        put64(value, medium.cartridge.loads)
    elif id == 0x0009:
        put32(value, <uint32_t>medium.cartridge.change_reference)
        size = 4
    elif id == 0x0400:
        pad(value, VENDOR, 8)
        format = 0x81
    elif id == 0x0401:
        pad(value, drive.serial, 32)
        size = 32
        format = 0x81
    elif id == 0x0408:
        value[0] = 0
        size = 1
    else:
        return 0
    return put_attribute(out, id, format, value, size)


cdef uint32_t one_attribute(uint8_t* out, uint16_t id, const drive_state_t* drive, Medium medium) noexcept nogil:
    cdef attribute_t* host
    if attribute_limit(id) == 0:
        return device_attribute(out, id, drive, medium)
    host = medium.attribute(id, False)
    return 0 if host == NULL else put_attribute(out, id, host.format, host.value, host.size)


cdef int read_attribute(uint8_t* out, const uint8_t* cdb, const drive_state_t* drive, Medium medium) noexcept nogil:
    cdef uint32_t used = 4, size
    cdef uint32_t id, first = get16(cdb + 8)
    cdef uint8_t action = cdb[1] & 0x1F
    if action > 1 or cdb[7]:
        return INVALID_FIELD
    for id in range(first, 0x0C00):                # no attribute of ours lies above
        size = one_attribute(out + used, <uint16_t>id, drive, medium)
        if size and action == 1:
            put16(out + used, id)
            size = 2
        used += size
    if used == 4 and first:
        return INVALID_FIELD
    put32(out, used - 4)
    return <int>used


cdef int check_attributes(const uint8_t* data, uint32_t end) noexcept nogil:
    cdef uint32_t at = 4, size
    while at < end:
        if at + 5 > end:
            return PARAMETER_LENGTH
        size = get16(data + at + 3)
        if at + 5 + size > end:
            return PARAMETER_LENGTH
        if size > attribute_limit(<uint16_t>get16(data + at)) or (data[at + 2] & 0x7F) > 2:
            return INVALID_PARAMETER
        if attribute_limit(<uint16_t>get16(data + at)) == 0:
            return INVALID_PARAMETER
        at += 5 + size
    return 0


cdef int write_attribute(const uint8_t* data, uint32_t size, Medium medium) noexcept nogil:
    """All of the list or none of it takes effect; a length of 0 deletes an attribute."""
    cdef uint32_t end, at = 4
    cdef attribute_t* host
    cdef int rc
    if size == 0:
        return 0
    if size < 4:
        return PARAMETER_LENGTH
    end = 4 + (get16(data) << 16 | get16(data + 2))
    if end > size:
        return PARAMETER_LENGTH
    rc = check_attributes(data, end)
    while rc == 0 and at < end:
        host = medium.attribute(<uint16_t>get16(data + at), True)
        if host == NULL:
            return INVALID_PARAMETER
        host.format = data[at + 2] & 0x03
        host.size = <uint16_t>get16(data + at + 3)
        memcpy(host.value, data + at + 5, host.size)
        if host.size == 0:
            host.id = 0
        at += 5 + get16(data + at + 3)
    return rc


# --- density and opcodes --------------------------------------------------------------------------------------------

cdef int report_density(uint8_t* out, const drive_state_t* drive, Medium medium) noexcept nogil:
    cdef uint8_t* item = out + 4
    memset(out, 0, 56)
    put16(out, 54)
    item[0] = item[1] = <uint8_t>medium.cartridge.density
    item[2] = 0xA0                                 # WRTOK, DEFLT
    put16(item + 3, 0)
    put16(item + 8, 127)                           # tenths of a millimetre
    put16(item + 10, 1)
    put32(item + 12, <uint32_t>min(maximum(medium) // MEGABYTE, <uint64_t>0xFFFFFFFF))
    pad(item + 16, VENDOR, 8)
    pad(item + 24, b"TAP", 8)
    pad(item + 32, b"SIMH .tap file", 20)
    return 56


cdef uint32_t cdb_length(uint8_t opcode) noexcept nogil:
    cdef const char* known = (b"\x00\x01\x03\x05\x08\x0a\x10\x11\x12\x15\x16\x17\x19\x1a\x1b\x1e\x2b\x34\x44\x4d"
                              b"\x55\x5a\x80\x8c\x8d\x91\x92\xa0\xa3")
    cdef int i
    for i in range(29):
        if <uint8_t>known[i] == opcode:
            return 6 if opcode < 0x20 else 10 if opcode < 0x60 else 16 if opcode < 0xA0 else 12
    return 0


cdef uint32_t put_timeouts(uint8_t* out) noexcept nogil:
    memset(out, 0, 12)
    put16(out, 10)
    put32(out + 4, 1)                              # seconds: nominal, recommended
    put32(out + 8, 60)
    return 12


cdef int report_opcodes(uint8_t* out, const uint8_t* cdb) noexcept nogil:
    cdef bint timeouts = (cdb[2] & 0x80) != 0
    cdef uint32_t used = 4, opcode, length
    if cdb[1] & 0x1F != 0x0C or cdb[2] & 0x07 > 1:
        return INVALID_FIELD
    if cdb[2] & 0x07 == 1:
        length = cdb_length(cdb[3])
        memset(out, 0, 32)
        out[1] = <uint8_t>((0x80 if timeouts else 0) | (3 if length else 1))
        put16(out + 2, length)
        memset(out + 4, 0xFF, length)
        out[4] = cdb[3]
        return <int>(4 + length + (put_timeouts(out + 4 + length) if timeouts else 0))
    for opcode in range(256):
        length = cdb_length(<uint8_t>opcode)
        if length == 0:
            continue
        memset(out + used, 0, 8)
        out[used] = <uint8_t>opcode
        out[used + 5] = 0x02 if timeouts else 0
        put16(out + used + 6, length)
        used += 8
        if timeouts:
            used += put_timeouts(out + used)
    put32(out, used - 4)
    return <int>used
