"""pax makes the headers of POSIX pax archives from an extent map. It lays nothing out.

IEEE 1003.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Sparse Formats" (1.0)
and its keywords SCHILY.xattr, SCHILY.acl. Generators write to a sink; one that only counts measures what they emit.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from splitreel.core.columns cimport (
    FILE_TARGET,
    FILE_XATTRS,
    columns_t,
    file_t,
    next_xattr,
    record_target,
    xattr_t,
)
from splitreel.core.extent cimport ExtentMap, time_nanoseconds, time_seconds
from splitreel.core.fault cimport (
    FAULT_COUNT_MISMATCH,
    FAULT_LIMIT,
    FAULT_NO_MEMORY,
    fault_t,
    raise_fault,
    set_fault,
)
from splitreel.core.pax_acl cimport emit_acl
from splitreel.core.runs cimport (
    MEMBER_BLK,
    MEMBER_CHR,
    MEMBER_DIRECTORY,
    MEMBER_FILE,
    MEMBER_LINK,
    MEMBER_SYMLINK,
    ascii_only,
    decimal_digits,
    member_t,
    pax_record,
    pax_record_decimal,
    pax_record_head,
    sink_bytes,
    sink_decimal,
    sink_decimal_wide,
    sink_fill,
    sink_t,
    sink_text,
    ustar_fits,
    ustar_octal,
    ustar_seal,
    utf8_valid,
)

cdef enum:
    HEADER = 512                                   # bytes of one ustar header, and the archive's unit
    SPARSE_NAME = 18                               # GNUSparseFile.0/ and the slash before it
    PART_SUFFIX = 64                               # room for .splitreel-part-N-of-N
    NANOSECONDS = 1000000000


# --- extended header records ----------------------------------------------------------------------------------------

cdef bint is_name(const xattr_t* xattr, const char* name, uint32_t size) noexcept nogil:
    return xattr.name_size == size and memcmp(xattr.name, name, size) == 0


cdef const char* acl_key(const xattr_t* xattr) noexcept nogil:
    """The pax keyword of an attribute that is an ACL in the form we know; NULL for any other attribute."""
    cdef sink_t count
    cdef const char* key = NULL
    memset(&count, 0, sizeof(sink_t))
    if is_name(xattr, b"system.posix_acl_access", 23):
        key = "SCHILY.acl.access"
    elif is_name(xattr, b"system.posix_acl_default", 24):
        key = "SCHILY.acl.default"
    if key != NULL and not emit_acl(&count, xattr.value, xattr.value_size):
        key = NULL
    return key


cdef void xattr_keyword(sink_t* sink, const xattr_t* xattr) noexcept nogil:
    """SCHILY.xattr.NAME; % and = in the name as %25 and %3D, since = ends a keyword (GNU tar, xheader.c)."""
    cdef uint32_t i
    sink_bytes(sink, b"SCHILY.xattr.", 13)
    for i in range(xattr.name_size):
        if xattr.name[i] == c'%':
            sink_bytes(sink, b"%25", 3)
        elif xattr.name[i] == c'=':
            sink_bytes(sink, b"%3D", 3)
        else:
            sink_bytes(sink, xattr.name + i, 1)


cdef void emit_xattr(sink_t* sink, const xattr_t* xattr) noexcept nogil:
    cdef uint8_t keyword[13 + 3 * 256]
    cdef sink_t key
    key.data = keyword
    key.capacity = sizeof(keyword)
    key.size = 0
    xattr_keyword(&key, xattr)
    if key.size > key.capacity:                    # a name over 255 bytes: no kernel takes it back
        return
    pax_record_head(sink, keyword, key.size, xattr.value_size)
    sink_bytes(sink, xattr.value, xattr.value_size)
    sink_bytes(sink, b"\n", 1)


cdef void emit_acl_record(sink_t* sink, const char* key, const xattr_t* xattr) noexcept nogil:
    cdef sink_t count
    memset(&count, 0, sizeof(sink_t))
    emit_acl(&count, xattr.value, xattr.value_size)
    pax_record_head(sink, key, 17 if key[11] == c'a' else 18, count.size)
    emit_acl(sink, xattr.value, xattr.value_size)
    sink_bytes(sink, b"\n", 1)


cdef void emit_attributes(sink_t* sink, const columns_t* columns, const file_t* file, bint acls) noexcept nogil:
    """All extended attributes but ACLs, or the ACLs alone: they come in this order."""
    cdef const uint8_t* record = columns.heap + file.heap_offset
    cdef uint32_t cursor
    cdef xattr_t xattr
    cdef const char* key
    record_target(record, &cursor)
    cursor += 4
    while next_xattr(record, file.heap_size, &cursor, &xattr) > 0:
        key = acl_key(&xattr)
        if acls and key != NULL:
            emit_acl_record(sink, key, &xattr)
        elif not acls and key == NULL:
            emit_xattr(sink, &xattr)


cdef void emit_time(sink_t* sink, int64_t seconds, uint32_t nanoseconds) noexcept nogil:
    """Decimal seconds without trailing zeros. Before 1970 the fraction counts towards zero: -1 s + 0.25 s is -0.75."""
    cdef uint64_t whole = <uint64_t>seconds
    cdef uint32_t fraction = nanoseconds
    cdef int width = 9
    if seconds < 0:
        sink_bytes(sink, b"-", 1)
        whole = <uint64_t>(-seconds) - (fraction > 0)
        fraction = NANOSECONDS - fraction if fraction > 0 else 0
    sink_decimal(sink, whole)
    if fraction == 0:
        return
    while fraction % 10 == 0:
        fraction //= 10
        width -= 1
    sink_bytes(sink, b".", 1)
    sink_decimal_wide(sink, fraction, width)


cdef void emit_time_record(sink_t* sink, int64_t seconds, uint32_t nanoseconds) noexcept nogil:
    cdef sink_t count
    memset(&count, 0, sizeof(sink_t))
    emit_time(&count, seconds, nanoseconds)
    pax_record_head(sink, b"mtime", 5, count.size)
    emit_time(sink, seconds, nanoseconds)
    sink_bytes(sink, b"\n", 1)


cdef bint time_fits(const header_t* header) noexcept nogil:
    return header.nanoseconds == 0 and header.seconds >= 0 and ustar_fits(<uint64_t>header.seconds, 12)


cdef bint split_path(const header_t* header, uint64_t* prefix) noexcept nogil:
    """Where ustar cuts the path: *prefix bytes, a slash, at most 100 bytes. 0: no prefix needed. False: no cut fits."""
    cdef uint64_t at = min(header.path_size, <uint64_t>156)
    prefix[0] = 0
    if header.path_size <= 100:
        return True
    while at > 1:
        at -= 1
        if header.path_size - at - 1 > 100:
            return False
        if header.path[at] == c'/' and at + 1 < header.path_size:
            prefix[0] = at
            return True
    return False


cdef bint needs_path(const header_t* header) noexcept nogil:
    cdef uint64_t prefix
    return not split_path(header, &prefix) or not ascii_only(header.path, header.path_size)


cdef void emit_numbers(sink_t* sink, const header_t* header) noexcept nogil:
    if not ustar_fits(header.size, 12):
        pax_record_decimal(sink, b"size", header.size)
    if not ustar_fits(header.uid, 8):
        pax_record_decimal(sink, b"uid", header.uid)
    if not ustar_fits(header.gid, 8):
        pax_record_decimal(sink, b"gid", header.gid)
    if not time_fits(header):
        emit_time_record(sink, header.seconds, header.nanoseconds)


cdef void emit_sparse(sink_t* sink, const header_t* header) noexcept nogil:
    pax_record(sink, b"GNU.sparse.major", b"1", 1)
    pax_record(sink, b"GNU.sparse.minor", b"0", 1)
    pax_record(sink, b"GNU.sparse.name", header.sparse_name, header.sparse_name_size)
    pax_record_decimal(sink, b"GNU.sparse.realsize", header.real_size)


cdef void emit_records(sink_t* sink, const header_t* header, const columns_t* columns) noexcept nogil:
    cdef bint path = needs_path(header)
    cdef bint link = header.link_size > 100 or not ascii_only(header.link, header.link_size)
    if ((path and not utf8_valid(header.path, header.path_size))
            or (link and not utf8_valid(header.link, header.link_size))
            or not utf8_valid(header.sparse_name, header.sparse_name_size)):
        pax_record(sink, b"hdrcharset", b"BINARY", 6)
    if path:
        pax_record(sink, b"path", header.path, header.path_size)
    if link:
        pax_record(sink, b"linkpath", header.link, header.link_size)
    emit_numbers(sink, header)
    if header.file != NULL and header.file.flags & FILE_XATTRS:
        emit_attributes(sink, columns, header.file, False)
        emit_attributes(sink, columns, header.file, True)
    if header.sparse_name != NULL:
        emit_sparse(sink, header)
    if header.control != NULL:
        pax_record_head(sink, b"SPLITREEL.kind", 14, control_size(header.control))
        sink_text(sink, header.control)
        sink_bytes(sink, b"\n", 1)


cdef uint64_t control_size(const char* text) noexcept nogil:
    cdef sink_t count
    memset(&count, 0, sizeof(sink_t))
    sink_text(&count, text)
    return count.size


cdef void emit_comment(sink_t* sink, uint64_t size) noexcept nogil:
    """A comment record of exactly size bytes, of dots."""
    sink_decimal(sink, size)
    sink_bytes(sink, b" comment=", 9)
    sink_fill(sink, c'.', size - decimal_digits(size) - 10)
    sink_bytes(sink, b"\n", 1)


# --- ustar ----------------------------------------------------------------------------------------------------------

cdef void begin_ustar(uint8_t* block, uint8_t kind, uint64_t size) noexcept nogil:
    memset(block, 0, HEADER)
    block[156] = kind
    ustar_octal(block + 124, 12, size)
    memcpy(block + 257, b"ustar\00000", 8)


cdef void emit_extended_header(sink_t* sink, uint64_t body_size) noexcept nogil:
    cdef uint8_t block[HEADER]
    begin_ustar(block, c'x', body_size)
    memcpy(block, b"././@PaxHeader", 14)
    ustar_octal(block + 100, 8, 0o644)
    ustar_octal(block + 108, 8, 0)
    ustar_octal(block + 116, 8, 0)
    ustar_octal(block + 136, 12, 0)
    ustar_seal(block)
    sink_bytes(sink, block, HEADER)


cdef void place_path(uint8_t* block, const header_t* header) noexcept nogil:
    cdef uint64_t prefix, cut
    if split_path(header, &prefix):
        cut = prefix + 1 if prefix > 0 else 0
        memcpy(block + 345, header.path, prefix)
    else:
        cut = header.path_size - 100
    memcpy(block, header.path + cut, header.path_size - cut)


cdef void emit_ustar(sink_t* sink, const header_t* header) noexcept nogil:
    cdef uint8_t block[HEADER]
    begin_ustar(block, header.kind, header.size)
    place_path(block, header)
    ustar_octal(block + 100, 8, header.mode & 0o7777)
    ustar_octal(block + 108, 8, header.uid)
    ustar_octal(block + 116, 8, header.gid)
    ustar_octal(block + 136, 12, <uint64_t>header.seconds if header.seconds >= 0 else 0)
    if header.link_size > 0:
        memcpy(block + 157, header.link, min(header.link_size, <uint64_t>100))
    if header.kind == MEMBER_CHR or header.kind == MEMBER_BLK:
        ustar_octal(block + 329, 8, header.rdev >> 20)
        ustar_octal(block + 337, 8, header.rdev & 0xFFFFF)
    ustar_seal(block)
    sink_bytes(sink, block, HEADER)


cdef uint64_t aligned_header(uint64_t natural, uint64_t position, uint64_t boundary) noexcept nogil:
    cdef uint64_t missing = (boundary - (position + natural) % boundary) % boundary
    if missing == 0:
        return natural
    if natural == HEADER and missing < 2 * HEADER:
        missing += boundary                        # an extended header alone takes 1024 bytes
    if natural + missing > PAX_BODY_LIMIT + 2 * HEADER:
        return 0
    return natural + missing


cdef void part_suffix(sink_t* sink, const member_t* member) noexcept nogil:
    sink_text(sink, b".splitreel-part-")
    sink_decimal_wide(sink, member.part, 4)
    sink_text(sink, b"-of-")
    sink_decimal_wide(sink, member.parts, 4)


# --- from a map -----------------------------------------------------------------------------------------------------

cdef class PaxWriter:
    """Makes headers for the members of one sealed extent map; holds the scratch memory for it. One thread at a time.

    Raises:
        Misuse: the map is not sealed.
        LimitReached: no memory.
    """

    def __cinit__(self, ExtentMap map not None):
        cdef fault_t fault
        map.need_sealed()
        self.map = map
        self.columns = map.columns()
        self.path = <uint8_t*>malloc(PATH_CAPACITY + PART_SUFFIX)
        self.link = <uint8_t*>malloc(PATH_CAPACITY + PART_SUFFIX)
        self.sparse_path = <uint8_t*>malloc(PATH_CAPACITY + PART_SUFFIX + SPARSE_NAME)
        if self.path == NULL or self.link == NULL or self.sparse_path == NULL:
            set_fault(&fault, FAULT_NO_MEMORY, b"preparing archive headers", 0, 0, NULL)
            raise_fault(&fault)

    def __dealloc__(self):
        free(self.path)
        free(self.link)
        free(self.sparse_path)

    cdef int64_t plain_path(self, uint32_t name, uint8_t* destination) noexcept nogil:
        return self.map.path(name, destination, PATH_CAPACITY)

    cdef int64_t member_path(self, const member_t* member) noexcept nogil:
        cdef int64_t size = self.plain_path(member.name, self.path)
        cdef sink_t sink
        if size < 0:
            return size
        sink.data = self.path
        sink.capacity = PATH_CAPACITY + PART_SUFFIX
        sink.size = <uint64_t>size
        if member.kind == MEMBER_DIRECTORY:
            sink_text(&sink, b"./" if size == 0 else b"/")
        elif member.part > 0:
            part_suffix(&sink, member)
        return <int64_t>sink.size

    cdef int describe(self, const member_t* member, header_t* header, fault_t* fault) noexcept nogil:
        cdef const file_t* file = &self.columns.files[self.columns.names[member.name].file]
        cdef int64_t size = self.member_path(member)
        memset(header, 0, sizeof(header_t))
        if size < 0:
            return set_fault(fault, FAULT_LIMIT, b"making an archive header", file.inode, 0, b"a path over 64 KiB")
        header.path = self.path
        header.path_size = <uint64_t>size
        header.kind = member.kind
        header.size = member.stored
        header.real_size = member.size
        header.mode = file.mode
        header.uid = file.uid
        header.gid = file.gid
        header.rdev = file.rdev
        header.seconds = time_seconds(file.mtime)
        header.nanoseconds = min(time_nanoseconds(file.mtime), <uint32_t>NANOSECONDS - 1)   # 30 bits hold more
        if member.kind == MEMBER_LINK:
            size = self.plain_path(member.link, self.link)
            if size < 0:
                return set_fault(fault, FAULT_LIMIT, b"making an archive header", file.inode, 0, b"a path over 64 KiB")
            header.link = self.link
            header.link_size = <uint64_t>size
        else:
            header.file = file
        if member.kind == MEMBER_SYMLINK and file.flags & FILE_TARGET:
            self.describe_target(file, header)
        if member.map_size > 0:
            self.describe_sparse(header)
        return 0

    cdef void describe_target(self, const file_t* file, header_t* header) noexcept nogil:
        cdef uint32_t size
        header.link = record_target(self.columns.heap + file.heap_offset, &size)
        header.link_size = size

    cdef void describe_sparse(self, header_t* header) noexcept nogil:
        """Moves the path to sparse_name and puts DIR/GNUSparseFile.0/NAME in its place."""
        cdef uint64_t base = header.path_size
        cdef sink_t sink
        while base > 0 and header.path[base - 1] != c'/':
            base -= 1
        sink.data = self.sparse_path
        sink.capacity = PATH_CAPACITY + PART_SUFFIX + SPARSE_NAME
        sink.size = 0
        sink_bytes(&sink, header.path, base)
        sink_text(&sink, b"GNUSparseFile.0/")
        sink_bytes(&sink, header.path + base, header.path_size - base)
        header.sparse_name = header.path
        header.sparse_name_size = header.path_size
        header.path = self.sparse_path
        header.path_size = sink.size

    cdef int describe_control(self, const char* kind, uint64_t number, uint64_t size, int64_t seconds,
                              header_t* header) noexcept nogil:
        """The manifest or checksum file of segment `number`; kind is its name's last part."""
        cdef sink_t sink
        sink.data = self.path
        sink.capacity = PATH_CAPACITY
        sink.size = 0
        sink_text(&sink, b".splitreel/segment-")
        sink_decimal_wide(&sink, number, 4)
        sink_bytes(&sink, b".", 1)
        sink_text(&sink, kind)
        memset(header, 0, sizeof(header_t))
        header.path = self.path
        header.path_size = sink.size
        header.control = kind
        header.kind = MEMBER_FILE
        header.size = size
        header.mode = 0o444
        header.seconds = seconds
        return 0

    cdef uint64_t measure(self, const header_t* header) noexcept nogil:
        cdef sink_t count
        memset(&count, 0, sizeof(sink_t))
        emit_records(&count, header, &self.columns)
        return natural_size(count.size)

    cdef int emit(self, const header_t* header, uint64_t target, sink_t* sink, fault_t* fault) noexcept nogil:
        cdef uint64_t start = sink.size, natural, body
        cdef sink_t count
        memset(&count, 0, sizeof(sink_t))
        emit_records(&count, header, &self.columns)
        natural = natural_size(count.size)
        if target > HEADER:
            body = count.size if target == natural else target - 2 * HEADER
            emit_extended_header(sink, body)
            emit_records(sink, header, &self.columns)
            if target != natural:
                emit_comment(sink, body - count.size)
            sink_fill(sink, 0, target - HEADER - (sink.size - start))
        emit_ustar(sink, header)
        if target < natural or sink.size - start != target or sink.size > sink.capacity:
            return set_fault(fault, FAULT_COUNT_MISMATCH, b"making an archive header", 0, 0,
                             b"the header is not as large as planned")
        return 0


cdef uint64_t natural_size(uint64_t records) noexcept nogil:
    """Bytes of all headers, given those of the extended header's records."""
    return HEADER if records == 0 else 2 * HEADER + (records + HEADER - 1) // HEADER * HEADER
