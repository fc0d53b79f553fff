# PostgreSQL's page format: header and checksum of one page.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "pages_postgresql_disk.h" nogil:
    ctypedef struct pg_page_header_t:
        uint32_t pd_lsn_xlogid
        uint32_t pd_lsn_xrecoff
        unsigned short pd_checksum
        unsigned short pd_flags
        unsigned short pd_lower
        unsigned short pd_upper
        unsigned short pd_special

cdef enum:
    POSTGRESQL_SMALLEST = 1024                     # bytes of a page, by its configure script
    POSTGRESQL_LARGEST = 32768

# A page_verdict_t, and the page's LSN. size is a power of two within the limits above; block is the number in the
# relation, not in the file. Without checksums the header alone is looked at. The page may have any alignment.
cdef int check_postgresql_page(const uint8_t* page, uint32_t size, uint32_t block, bint checksums,
                               uint64_t* lsn) noexcept nogil
cdef bint all_zeros(const uint8_t* data, uint64_t size) noexcept nogil
