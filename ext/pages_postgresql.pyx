"""pages_postgresql verifies pages of PostgreSQL relations: checksum and header, as the server does. It reads no file.

A page is what storage/bufpage.h and storage/checksum_impl.h of PostgreSQL 9.3 to 18 describe, in the byte order of this
machine. The kernels stand in pages_postgresql_disk.h.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from splitreel.core.fault cimport FAULT_MISUSE, fault_t, raise_fault, set_fault
from splitreel.core.pages_verdict cimport PAGE_CHECKSUM, PAGE_GOOD, PAGE_HEADER, PAGE_NEW

cdef extern from "pages_postgresql_disk.h" nogil:
    enum:
        PD_VALID_FLAG_BITS
    unsigned short pg_page_checksum(const uint8_t* page, uint32_t size, uint32_t block)
    int pg_choose_sum(int native)

cdef enum:
    MAXALIGN = 8

cdef int chosen = pg_choose_sum(True)


cdef bint all_zeros(const uint8_t* data, uint64_t size) noexcept nogil:
    # equal to itself one byte on: memcmp is as fast as memory
    return size == 0 or (data[0] == 0 and memcmp(data, data + 1, size - 1) == 0)


cdef bint header_sane(const pg_page_header_t* header, uint32_t size) noexcept nogil:
    return (header.pd_flags & ~PD_VALID_FLAG_BITS == 0 and header.pd_lower <= header.pd_upper
            and header.pd_upper <= header.pd_special and header.pd_special <= size
            and header.pd_special % MAXALIGN == 0)


cdef int check_postgresql_page(const uint8_t* page, uint32_t size, uint32_t block, bint checksums,
                               uint64_t* lsn) noexcept nogil:
    cdef pg_page_header_t header
    memcpy(&header, page, sizeof(header))
    lsn[0] = <uint64_t>header.pd_lsn_xlogid << 32 | header.pd_lsn_xrecoff
    if header.pd_upper == 0:                       # the server's sign of a new page, which then must be all zeros
        return PAGE_NEW if all_zeros(page, size) else PAGE_HEADER
    if checksums and pg_page_checksum(page, size, block) != header.pd_checksum:
        return PAGE_CHECKSUM
    return PAGE_GOOD if header_sane(&header, size) else PAGE_HEADER


cdef bint size_possible(uint64_t size) noexcept nogil:
    return POSTGRESQL_SMALLEST <= size <= POSTGRESQL_LARGEST and size & (size - 1) == 0


cdef int need_pages(const Py_buffer* view, uint64_t page_size) except -1:
    cdef fault_t fault
    if not size_possible(page_size) or <uint64_t>view.len % page_size != 0:
        set_fault(&fault, FAULT_MISUSE, b"checking PostgreSQL pages", 0, 0, b"whole pages of 1 to 32 KiB are checked")
        raise_fault(&fault)
    return 0


def page_checksum(page, uint32_t block):
    """What ``pd_checksum`` of this page (a contiguous buffer of 1 to 32 KiB) is, as block ``block`` of its relation.

    Raises:
        Misuse: the buffer has no possible size. BufferError, TypeError: it is no contiguous buffer.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(page, &view, PyBUF_SIMPLE)
    try:
        need_pages(&view, <uint64_t>view.len)
        return pg_page_checksum(<const uint8_t*>view.buf, <uint32_t>view.len, block)
    finally:
        PyBuffer_Release(&view)


def check_pages(data, uint32_t first_block=0, *, uint32_t page_size=8192, bint checksums=True):
    """One byte for each page of ``data``, a page_verdict_t of pages_verdict.pxd. The GIL is released.

    ``first_block``: the number of the first page in its relation.

    Raises:
        Misuse: ``data`` is not whole pages. BufferError, TypeError: it is no contiguous buffer.
    """
    cdef Py_buffer view
    cdef uint64_t count, i, lsn
    cdef const uint8_t* pages
    cdef uint8_t* verdicts
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        need_pages(&view, page_size)
        count = <uint64_t>view.len // page_size
        found = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>count)
        verdicts = <uint8_t*><char*>found
        pages = <const uint8_t*>view.buf
        with nogil:
            for i in range(count):
                verdicts[i] = <uint8_t>check_postgresql_page(pages + i * page_size, page_size,
                                                             first_block + <uint32_t>i, checksums, &lsn)
    finally:
        PyBuffer_Release(&view)
    return found


def implementation():
    """The kernel in use: ``avx2``, or ``portable``, which is what the compiler makes for the oldest CPU."""
    return "avx2" if chosen else "portable"


def force(str name):
    """Choose a kernel: ``auto`` or ``portable``; for tests and measurements.

    Raises:
        Misuse: another name.
    """
    global chosen
    cdef fault_t fault
    if name not in ("auto", "portable"):
        set_fault(&fault, FAULT_MISUSE, b"choosing a page checksum kernel", 0, 0, b"the kernels are auto and portable")
        raise_fault(&fault)
    chosen = pg_choose_sum(name == "auto")
