# InnoDB's page formats: what a tablespace's first page says of it, and whether a page of it is right.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    INNODB_SMALLEST = 1024                         # of ROW_FORMAT=COMPRESSED
    INNODB_LARGEST = 65536
    INNODB_FIRST = 58                              # bytes of page 0 that say how the others are stored
    NO_SPACE = 0xFFFFFFFF

cdef enum innodb_format_t:
    INNODB_ANY = 0                                 # page 0 did not say: whichever of the next two fits a page
    INNODB_PLAIN = 1                               # crc32, innodb, none
    INNODB_FULL_CRC32 = 2                          # MariaDB 10.5
    INNODB_ZIP = 3                                 # ROW_FORMAT=COMPRESSED

cdef struct innodb_space_t:
    uint32_t page_size                             # bytes in the file; of ROW_FORMAT=COMPRESSED the compressed ones
    uint32_t space_id                              # NO_SPACE: not known
    int format                                     # innodb_format_t
    bint strict                                    # CRC32C alone is taken for a checksum

# What is known before page 0 was seen.
cdef void open_innodb_space(innodb_space_t* space, uint32_t page_size, bint strict) noexcept nogil
# Page size and format from the first INNODB_FIRST bytes of a tablespace; unchanged where they cannot be right.
cdef void learn_innodb_space(innodb_space_t* space, const uint8_t* first) noexcept nogil
# A page_verdict_t, and the page's LSN. A right page 0 tells space.space_id.
cdef int check_innodb_page(innodb_space_t* space, const uint8_t* page, uint32_t number, uint64_t* lsn) noexcept nogil
# Where page TRX_SYS_PAGE_NO of the system tablespace says that the two halves of the doublewrite buffer begin.
cdef bint find_doublewrite(const innodb_space_t* space, const uint8_t* page, uint32_t* first,
                           uint32_t* second) noexcept nogil
# Pages in each half.
cdef uint32_t doublewrite_pages(uint32_t page_size) noexcept nogil
