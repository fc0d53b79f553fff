"""pax_acl writes a POSIX access control list as text, from its extended attribute. It knows no archive."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.runs cimport sink_bytes, sink_decimal, sink_t, sink_text

cdef enum:
    ACL_ENTRY = 8                                  # bytes


cdef uint32_t load16(const uint8_t* at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8


cdef uint32_t load32(const uint8_t* at) noexcept nogil:
    return load16(at) | load16(at + 2) << 16


cdef const char* acl_tag(uint32_t tag) noexcept nogil:
    """linux/posix_acl.h. Users and groups with an id end in a colon that the id follows."""
    if tag == 0x01:
        return "user::"
    if tag == 0x02:
        return "user:"
    if tag == 0x04:
        return "group::"
    if tag == 0x08:
        return "group:"
    if tag == 0x10:
        return "mask::"
    if tag == 0x20:
        return "other::"
    return NULL


cdef bint emit_acl(sink_t* sink, const uint8_t* value, uint64_t size) noexcept nogil:
    """Text form, numeric ids, of system.posix_acl_* version 2 (linux/posix_acl_xattr.h). False: not of that form."""
    cdef uint64_t at = 4
    cdef uint32_t tag, permissions
    if size < 4 or (size - 4) % ACL_ENTRY != 0 or load32(value) != 2:
        return False
    while at < size:
        tag = load16(value + at)
        permissions = load16(value + at + 2)
        if acl_tag(tag) == NULL or permissions > 7:
            return False
        if at > 4:
            sink_bytes(sink, b",", 1)
        sink_text(sink, acl_tag(tag))
        if tag == 0x02 or tag == 0x08:
            sink_decimal(sink, load32(value + at + 4))
            sink_bytes(sink, b":", 1)
        sink_bytes(sink, b"r" if permissions & 4 else b"-", 1)
        sink_bytes(sink, b"w" if permissions & 2 else b"-", 1)
        sink_bytes(sink, b"x" if permissions & 1 else b"-", 1)
        at += ACL_ENTRY
    return True
