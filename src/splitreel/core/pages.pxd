# PageChecker: database pages verified as the bytes of files pass by in their order, however they are cut.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from splitreel.core.pages_innodb cimport innodb_space_t
from splitreel.core.pages_verdict cimport PAGE_VERDICTS

cdef enum:
    LARGEST_PAGE = 65536
    PROFILES = 256                                 # 0 is none

cdef enum page_format_t:
    FORMAT_POSTGRESQL = 1
    FORMAT_INNODB = 2

cdef enum rule_flag_t:
    RULE_SYSTEM = 1                                # InnoDB's system tablespace, which holds the doublewrite buffer

# 8 bytes. One for each file of a map.
cdef packed struct page_rule_t:
    uint32_t first_page                            # number of the file's first page in its relation or tablespace
    uint8_t profile                                # 0: the file is not checked
    uint8_t flags                                  # rule_flag_t
    uint16_t reserved

# What all files of one database have in common.
cdef struct profile_t:
    uint64_t start_lsn, end_lsn                    # recovery writes pages with these or one between anew; 0: none
    uint32_t page_size                             # bytes
    int format                                     # page_format_t
    bint checksums                                 # PostgreSQL: without them headers alone are looked at
    bint strict                                    # InnoDB: CRC32C alone

cdef struct finding_t:
    uint64_t offset                                # of the page, bytes of the file
    uint64_t lsn                                   # as the page states it
    uint32_t file                                  # index into the map's files
    uint32_t number                                # of the page in its relation or tablespace
    uint32_t verdict                               # page_verdict_t
    uint32_t size                                  # bytes: less than a page where the file ends inside it

cdef class PageChecker:
    # One thread feeds; counts and findings may be read by any.
    cdef page_rule_t* rules
    cdef uint64_t rule_count
    cdef profile_t profiles[PROFILES]
    cdef uint32_t profile_count
    cdef finding_t* findings_at
    cdef uint32_t finding_count, finding_limit
    cdef uint64_t verdicts[PAGE_VERDICTS]
    cdef uint64_t repaired                         # wrong, but recovery writes them anew
    cdef uint64_t files_checked
    # The file at hand; profile NULL: it is not checked.
    cdef const page_rule_t* rule
    cdef const profile_t* profile
    cdef uint32_t member                           # of a plan, set by whoever feeds members; NO_MEMBER before the first
    cdef uint32_t file, page_size
    cdef uint64_t file_size, position              # position: of the next byte
    cdef uint64_t skipped                          # bytes up to the first page whose beginning comes by
    cdef innodb_space_t space
    cdef uint32_t doublewrite[2]                   # first pages of its halves
    cdef uint8_t* carry                            # of the page at hand, LARGEST_PAGE bytes of room
    cdef uint32_t filled
    cdef bint learning                             # page size and format are still to come, with its first bytes

    # Bytes of this file come next, from this one on; those of the last one may go on in another member.
    cdef void begin(self, uint32_t file, uint64_t position, uint64_t file_size) noexcept nogil
    cdef void take_bytes(self, const uint8_t* data, uint64_t size) noexcept nogil
    cdef void take_zeros(self, uint64_t size) noexcept nogil
    # No more bytes come: a page that was not whole is counted as unchecked.
    cdef void leave(self) noexcept nogil

    cdef void open_file(self) noexcept nogil
    cdef void settle(self) noexcept nogil
    cdef uint64_t skip(self, uint64_t size) noexcept nogil
    cdef uint32_t missing(self, uint64_t size) noexcept nogil
    cdef void carry_on(self, const uint8_t* data, uint32_t size) noexcept nogil
    cdef void end_file(self) noexcept nogil
    cdef void check(self, const uint8_t* page) noexcept nogil
    cdef int check_innodb(self, const uint8_t* page, uint32_t number, uint64_t* lsn) noexcept nogil
    cdef void count(self, int verdict, uint32_t number, uint64_t lsn) noexcept nogil
    cdef int add_profile(self, int format, uint32_t page_size, tuple repaired, bint checksums,
                         bint strict) except -1
