"""pages_innodb verifies pages of InnoDB tablespaces: checksum, page number, tablespace. It reads no file.

Formats: full_crc32 of MariaDB 10.5 and later, crc32 and the older innodb and none of MariaDB and MySQL, and those of
ROW_FORMAT=COMPRESSED (buf0buf.cc, page0zip.cc, fsp0types.h). Nothing is decrypted: an encrypted page is verified where
its checksum was taken after encryption, which is so in MariaDB.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from splitreel.core.checksum cimport crc32c_update
from splitreel.core.fault cimport FAULT_MISUSE, fault_t, raise_fault, set_fault
from splitreel.core.pages_postgresql cimport all_zeros
from splitreel.core.pages_verdict cimport (
    PAGE_CHECKSUM,
    PAGE_GOOD,
    PAGE_NEW,
    PAGE_NUMBER,
    PAGE_SPACE,
    PAGE_TORN,
    PAGE_UNCHECKED,
)

cdef extern from "pages_innodb_disk.h" nogil:
    ctypedef struct fil_page_header_t:
        uint32_t FIL_PAGE_SPACE_OR_CHKSUM
        uint32_t FIL_PAGE_OFFSET
        uint32_t FIL_PAGE_LSN_HIGH
        uint32_t FIL_PAGE_LSN_LOW
        uint16_t FIL_PAGE_TYPE
        uint32_t FIL_PAGE_KEY_VERSION
        uint32_t FIL_PAGE_CRYPT_CHECKSUM
        uint32_t FIL_PAGE_SPACE_ID
    ctypedef struct fsp_page_t:
        fil_page_header_t header
        uint32_t FSP_SPACE_ID
        uint32_t FSP_SIZE
        uint32_t FSP_SPACE_FLAGS
    enum:
        FIL_PAGE_DATA
        FIL_PAGE_END_LSN_OLD_CHKSUM
        FIL_PAGE_FCRC32_END_LSN
        FIL_PAGE_FCRC32_CHECKSUM
        FIL_PAGE_COMPRESSED_MYSQL
        FIL_PAGE_ENCRYPTED_RTREE_MYSQL
        FIL_PAGE_PAGE_COMPRESSED
        FIL_PAGE_PAGE_COMPRESSED_ENCRYPTED
        FIL_PAGE_COMPRESS_FCRC32_MARKER
        TRX_SYS_DOUBLEWRITE
        TRX_SYS_DOUBLEWRITE_MAGIC
        TRX_SYS_DOUBLEWRITE_BLOCK1
        TRX_SYS_DOUBLEWRITE_BLOCK2
    const uint32_t BUF_NO_CHECKSUM_MAGIC, FSP_FLAGS_FCRC32_MARKER, FSP_FLAGS_FCRC32_PAGE_SSIZE
    const uint32_t TRX_SYS_DOUBLEWRITE_MAGIC_N
    uint32_t FSP_FLAGS_ZIP_SSIZE(uint32_t flags)
    uint32_t FSP_FLAGS_PAGE_SSIZE(uint32_t flags)
    uint32_t ib_get4(const uint8_t* at)
    uint32_t ib_fold(const uint8_t* data, size_t size)
    uint32_t ib_adler(uint32_t value, const uint8_t* data, size_t size)

cdef extern from "<endian.h>" nogil:
    uint32_t be32toh(uint32_t value)
    uint16_t be16toh(uint16_t value)

cdef enum:
    SMALLEST_PAGE = 4096                           # of innodb_page_size
    DEFAULT_PAGE = 16384
    LARGEST_ZIP = 16384

FORMATS = {INNODB_ANY: "unknown", INNODB_PLAIN: "plain", INNODB_FULL_CRC32: "full_crc32", INNODB_ZIP: "compressed rows"}


cdef void open_innodb_space(innodb_space_t* space, uint32_t page_size, bint strict) noexcept nogil:
    space.page_size = page_size
    space.space_id = NO_SPACE
    space.format = INNODB_ANY
    space.strict = strict


cdef void learn_innodb_space(innodb_space_t* space, const uint8_t* first) noexcept nogil:
    cdef uint32_t flags, page_size, zip_size
    cdef fsp_page_t page
    memcpy(&page, first, sizeof(page))
    flags = be32toh(page.FSP_SPACE_FLAGS)
    if page.header.FIL_PAGE_OFFSET != 0 or page.FSP_SIZE == 0:
        return                                     # not page 0, or one that is still to be written
    if flags & FSP_FLAGS_FCRC32_MARKER:
        page_size = <uint32_t>512 << (flags & FSP_FLAGS_FCRC32_PAGE_SSIZE)
        if SMALLEST_PAGE <= page_size <= INNODB_LARGEST:
            space.page_size = page_size
            space.format = INNODB_FULL_CRC32
        return
    page_size = <uint32_t>512 << FSP_FLAGS_PAGE_SSIZE(flags) if FSP_FLAGS_PAGE_SSIZE(flags) > 0 else DEFAULT_PAGE
    zip_size = <uint32_t>512 << FSP_FLAGS_ZIP_SSIZE(flags) if FSP_FLAGS_ZIP_SSIZE(flags) > 0 else 0
    if not SMALLEST_PAGE <= page_size <= INNODB_LARGEST or zip_size > min(page_size, <uint32_t>LARGEST_ZIP):
        return
    space.page_size = zip_size if zip_size > 0 else page_size
    space.format = INNODB_ZIP if zip_size > 0 else INNODB_PLAIN


# Checksums. Each takes a whole page.

cdef uint32_t plain_crc32(const uint8_t* page, uint32_t size) noexcept nogil:
    # buf_calc_page_crc32: without the checksum itself, what encryption keeps in the header, and the trailer
    return (crc32c_update(0, page + 4, 22)
            ^ crc32c_update(0, page + FIL_PAGE_DATA, size - FIL_PAGE_DATA - FIL_PAGE_END_LSN_OLD_CHKSUM))


cdef uint32_t zip_crc32(const uint8_t* page, uint32_t size) noexcept nogil:
    return crc32c_update(0, page + 4, 12) ^ crc32c_update(0, page + 24, 2) ^ crc32c_update(0, page + 34, size - 34)


cdef uint32_t zip_adler(const uint8_t* page, uint32_t size) noexcept nogil:
    return ib_adler(ib_adler(ib_adler(0, page + 4, 12), page + 24, 2), page + 34, size - 34)


cdef bint legacy_fits(const uint8_t* page, uint32_t size, uint32_t stated, uint32_t old) noexcept nogil:
    """innodb_checksum_algorithm=innodb: the new sum at the beginning, at the end the old one, or the oldest's LSN."""
    if old != ib_get4(page + 16) and old != ib_fold(page, 26):
        return False
    return stated == 0 or stated == <uint32_t>(
        ib_fold(page + 4, 22) + ib_fold(page + FIL_PAGE_DATA, size - FIL_PAGE_DATA - FIL_PAGE_END_LSN_OLD_CHKSUM))


# One page in each format, nothing yet known of where it belongs.

cdef int check_full_crc32(const innodb_space_t* space, const uint8_t* page, const fil_page_header_t* header,
                          bint* readable) noexcept nogil:
    cdef uint32_t size = space.page_size, kind = be16toh(header.FIL_PAGE_TYPE)
    cdef uint32_t low = be32toh(header.FIL_PAGE_LSN_LOW)
    cdef bint compressed = kind & FIL_PAGE_COMPRESS_FCRC32_MARKER != 0
    cdef bint same
    if compressed:
        size = min(size, (kind & ~<uint32_t>FIL_PAGE_COMPRESS_FCRC32_MARKER) << 8)
        if size < FIL_PAGE_DATA + FIL_PAGE_FCRC32_END_LSN:
            return PAGE_CHECKSUM
    readable[0] = not compressed and header.FIL_PAGE_SPACE_OR_CHKSUM == 0      # key version 0: not encrypted
    same = not readable[0] or low == ib_get4(page + size - FIL_PAGE_FCRC32_END_LSN)
    if ib_get4(page + size - FIL_PAGE_FCRC32_CHECKSUM) == crc32c_update(0, page, size - FIL_PAGE_FCRC32_CHECKSUM):
        return PAGE_GOOD if same else PAGE_TORN
    return PAGE_CHECKSUM if same else PAGE_TORN


cdef int check_plain(const innodb_space_t* space, const uint8_t* page, const fil_page_header_t* header,
                     bint* readable) noexcept nogil:
    cdef uint32_t size = space.page_size, kind = be16toh(header.FIL_PAGE_TYPE)
    cdef uint32_t stated = be32toh(header.FIL_PAGE_SPACE_OR_CHKSUM)
    cdef uint32_t old = ib_get4(page + size - FIL_PAGE_END_LSN_OLD_CHKSUM), crc
    cdef bint same = be32toh(header.FIL_PAGE_LSN_LOW) == ib_get4(page + size - 4)
    readable[0] = True
    if (kind == FIL_PAGE_PAGE_COMPRESSED or kind == FIL_PAGE_PAGE_COMPRESSED_ENCRYPTED
            or FIL_PAGE_COMPRESSED_MYSQL <= kind <= FIL_PAGE_ENCRYPTED_RTREE_MYSQL):
        return PAGE_UNCHECKED
    crc = plain_crc32(page, size)
    if header.FIL_PAGE_KEY_VERSION != 0 and crc == be32toh(header.FIL_PAGE_CRYPT_CHECKSUM):
        return PAGE_GOOD                           # taken after encryption, and so over its trailer's first half too
    if stated == crc and old == crc:
        return PAGE_GOOD if same else PAGE_TORN
    if not same:
        return PAGE_TORN
    if space.strict:
        return PAGE_CHECKSUM
    if stated == BUF_NO_CHECKSUM_MAGIC and old == BUF_NO_CHECKSUM_MAGIC:
        return PAGE_UNCHECKED
    return PAGE_GOOD if legacy_fits(page, size, stated, old) else PAGE_CHECKSUM


cdef int check_zip(const innodb_space_t* space, const uint8_t* page, const fil_page_header_t* header,
                   bint* readable) noexcept nogil:
    cdef uint32_t stated = be32toh(header.FIL_PAGE_SPACE_OR_CHKSUM), crc = zip_crc32(page, space.page_size)
    readable[0] = True
    if stated == crc or (header.FIL_PAGE_KEY_VERSION != 0 and crc == be32toh(header.FIL_PAGE_CRYPT_CHECKSUM)):
        return PAGE_GOOD
    if space.strict:
        return PAGE_CHECKSUM
    if stated == BUF_NO_CHECKSUM_MAGIC:
        return PAGE_UNCHECKED
    return PAGE_GOOD if stated == zip_adler(page, space.page_size) else PAGE_CHECKSUM


cdef int check_format(const innodb_space_t* space, const uint8_t* page, const fil_page_header_t* header,
                      bint* readable) noexcept nogil:
    cdef int verdict
    if space.format == INNODB_ZIP:
        return check_zip(space, page, header, readable)
    if space.format == INNODB_PLAIN:
        return check_plain(space, page, header, readable)
    verdict = check_full_crc32(space, page, header, readable)
    # of a plain page the first four bytes are a checksum, so never readable in this sense
    if space.format == INNODB_FULL_CRC32 or verdict == PAGE_GOOD or (verdict == PAGE_CHECKSUM and readable[0]):
        return verdict
    return check_plain(space, page, header, readable)


cdef int check_innodb_page(innodb_space_t* space, const uint8_t* page, uint32_t number, uint64_t* lsn) noexcept nogil:
    cdef fil_page_header_t header
    cdef bint readable = False
    cdef int verdict
    memcpy(&header, page, sizeof(header))
    lsn[0] = <uint64_t>be32toh(header.FIL_PAGE_LSN_HIGH) << 32 | be32toh(header.FIL_PAGE_LSN_LOW)
    if header.FIL_PAGE_LSN_LOW == 0 and header.FIL_PAGE_OFFSET == 0 and all_zeros(page, space.page_size):
        return PAGE_NEW
    verdict = check_format(space, page, &header, &readable)
    if verdict != PAGE_GOOD and verdict != PAGE_UNCHECKED:
        return verdict
    if be32toh(header.FIL_PAGE_OFFSET) != number:
        return PAGE_NUMBER
    if not readable:
        return verdict
    if number == 0 and verdict == PAGE_GOOD:
        space.space_id = be32toh(header.FIL_PAGE_SPACE_ID)
    if space.space_id != NO_SPACE and be32toh(header.FIL_PAGE_SPACE_ID) != space.space_id:
        return PAGE_SPACE
    return verdict


cdef uint32_t doublewrite_pages(uint32_t page_size) noexcept nogil:
    # one extent: 1 MiB, or 64 pages where these are larger than 16 KiB
    return max(<uint32_t>64, <uint32_t>(1 << 20) // page_size)


cdef bint find_doublewrite(const innodb_space_t* space, const uint8_t* page, uint32_t* first,
                           uint32_t* second) noexcept nogil:
    cdef const uint8_t* at = page + space.page_size - TRX_SYS_DOUBLEWRITE
    if space.page_size < SMALLEST_PAGE or ib_get4(at + TRX_SYS_DOUBLEWRITE_MAGIC) != TRX_SYS_DOUBLEWRITE_MAGIC_N:
        return False
    first[0] = ib_get4(at + TRX_SYS_DOUBLEWRITE_BLOCK1)
    second[0] = ib_get4(at + TRX_SYS_DOUBLEWRITE_BLOCK2)
    return True


# The Python face.

cdef int need_pages(const Py_buffer* view, uint64_t page_size, bint whole) except -1:
    cdef fault_t fault
    cdef uint64_t size = <uint64_t>view.len
    if (not SMALLEST_PAGE <= page_size <= INNODB_LARGEST or page_size & (page_size - 1) != 0
            or (whole and size % INNODB_SMALLEST != 0) or (size != 0 and size < INNODB_FIRST)):
        set_fault(&fault, FAULT_MISUSE, b"checking InnoDB pages", 0, 0, b"whole pages are checked; these are none")
        raise_fault(&fault)
    return 0


def check_pages(data, uint32_t first_page=0, *, uint32_t page_size=16384, bint strict=False):
    """One byte for each page of ``data``, a page_verdict_t of pages_verdict.pxd. The GIL is released.

    ``first_page``: the number of the first one. With page 0 among them its size counts, not ``page_size``, which is
    innodb_page_size. ``strict``: no other checksum than CRC32C. The doublewrite buffer is not looked for.

    Raises:
        Misuse: ``data`` is not whole pages. BufferError, TypeError: it is no contiguous buffer.
    """
    cdef Py_buffer view
    cdef innodb_space_t space
    cdef uint64_t count, i, lsn
    cdef const uint8_t* pages
    cdef uint8_t* verdicts
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        need_pages(&view, page_size, True)
        open_innodb_space(&space, page_size, strict)
        pages = <const uint8_t*>view.buf
        if first_page == 0 and view.len > 0:
            learn_innodb_space(&space, pages)
        count = <uint64_t>view.len // space.page_size
        found = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>count)
        verdicts = <uint8_t*><char*>found
        with nogil:
            for i in range(count):
                verdicts[i] = <uint8_t>check_innodb_page(&space, pages + i * space.page_size,
                                                         first_page + <uint32_t>i, &lsn)
    finally:
        PyBuffer_Release(&view)
    return found


def describe(first_page, uint32_t page_size=16384):
    """What the first bytes of a tablespace say of it: ``page_size`` (in the file) and ``format``.

    Raises:
        Misuse: too few bytes. BufferError, TypeError: it is no contiguous buffer.
    """
    cdef Py_buffer view
    cdef innodb_space_t space
    PyObject_GetBuffer(first_page, &view, PyBUF_SIMPLE)
    try:
        need_pages(&view, page_size, False)
        open_innodb_space(&space, page_size, False)
        if view.len > 0:
            learn_innodb_space(&space, <const uint8_t*>view.buf)
    finally:
        PyBuffer_Release(&view)
    return {"page_size": space.page_size, "format": FORMATS[space.format]}
