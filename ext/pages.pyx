"""pages verifies database pages while the bytes of their files pass by, cut anywhere. It reads and changes nothing.

Files come one after another, each in its logical order. A page that is cut waits in memory of its own until the rest of
it has come; any other is looked at where it lies. Nothing is allocated once the rules are set.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from splitreel.core.fault cimport FAULT_MISUSE, FAULT_NO_MEMORY, fault_t, raise_fault, set_fault
from splitreel.core.pages_innodb cimport (
    INNODB_FIRST,
    check_innodb_page,
    doublewrite_pages,
    find_doublewrite,
    learn_innodb_space,
    open_innodb_space,
)
from splitreel.core.pages_postgresql cimport check_postgresql_page
from splitreel.core.pages_verdict cimport (
    PAGE_CHECKSUM,
    PAGE_GOOD,
    PAGE_HEADER,
    PAGE_NEW,
    PAGE_NUMBER,
    PAGE_SHORT,
    PAGE_SPACE,
    PAGE_TORN,
    PAGE_UNCHECKED,
)

cdef extern from "pages_innodb_disk.h" nogil:
    enum:
        TRX_SYS_PAGE_NO

cdef extern from *:
    """
    /* What was written before is seen by whoever reads this count. */
    static inline void publish_count(uint32_t *count, uint32_t value) {
        __atomic_store_n(count, value, __ATOMIC_RELEASE);
    }
    static inline uint32_t seen_count(const uint32_t *count) { return __atomic_load_n(count, __ATOMIC_ACQUIRE); }
    """
    void publish_count(uint32_t* count, uint32_t value) nogil
    uint32_t seen_count(const uint32_t* count) nogil

cdef enum:
    NO_FILE = 0xFFFFFFFF
    SMALLEST = 1024
    SMALLEST_INNODB = 4096

RULE_FORMAT = b"T{=I:first_page:=B:profile:=B:flags:=H:reserved:}"
SYSTEM = RULE_SYSTEM
REASONS = {
    PAGE_CHECKSUM: "its checksum does not match",
    PAGE_HEADER: "its header is out of range",
    PAGE_TORN: "it is torn: its LSN is another at its end than at its beginning",
    PAGE_NUMBER: "it is another page's",
    PAGE_SPACE: "it is another tablespace's",
    PAGE_SHORT: "the file ends inside it",
}


cdef class PageChecker:
    """See pages.pyi: what each method promises stands there."""

    def __cinit__(self, uint32_t limit=1000):
        cdef fault_t fault
        self.finding_limit = limit
        self.findings_at = <finding_t*>calloc(<size_t>limit + 1, sizeof(finding_t))
        self.carry = <uint8_t*>malloc(LARGEST_PAGE)
        self.file = self.member = NO_FILE
        if self.findings_at == NULL or self.carry == NULL:
            set_fault(&fault, FAULT_NO_MEMORY, b"preparing to check pages", 0, 0, NULL)
            raise_fault(&fault)

    def __dealloc__(self):
        free(self.rules)
        free(self.findings_at)
        free(self.carry)

    # The file at hand.

    cdef void begin(self, uint32_t file, uint64_t position, uint64_t file_size) noexcept nogil:
        if self.profile != NULL and file == self.file and position == self.position:
            return                                 # another part of it
        self.leave()
        self.file = file
        self.position = position
        self.file_size = file_size
        if file < self.rule_count and self.rules[file].profile != 0:
            self.rule = &self.rules[file]
            self.profile = &self.profiles[self.rule.profile]
            self.files_checked += 1
            self.open_file()

    cdef void open_file(self) noexcept nogil:
        self.page_size = self.profile.page_size
        self.learning = self.profile.format == FORMAT_INNODB and self.rule.first_page == 0 and self.position == 0
        if self.profile.format == FORMAT_INNODB:
            open_innodb_space(&self.space, self.page_size, self.profile.strict)
            if self.rule.flags & RULE_SYSTEM:
                self.space.space_id = 0
            self.settle()
        self.skipped = (self.page_size - self.position % self.page_size) % self.page_size

    cdef void settle(self) noexcept nogil:
        """The page size is known."""
        self.page_size = self.space.page_size
        self.doublewrite[0] = doublewrite_pages(self.page_size)        # where a new server puts it
        self.doublewrite[1] = 2 * self.doublewrite[0]

    cdef void leave(self) noexcept nogil:
        if self.profile != NULL and self.filled > 0:
            self.verdicts[PAGE_UNCHECKED] += 1
        self.profile = NULL
        self.filled = 0
        self.file = NO_FILE

    cdef void end_file(self) noexcept nogil:
        """The last byte of the file has passed by."""
        cdef uint64_t page
        if self.filled > 0:
            page = (self.position - self.filled) // self.page_size
            self.filled = 0
            self.position = page * self.page_size
            self.count(PAGE_SHORT, self.rule.first_page + <uint32_t>page, self.profile.start_lsn)
        self.leave()

    # Bytes.

    cdef uint64_t skip(self, uint64_t size) noexcept nogil:
        """How many of size bytes belong to a page whose beginning did not come by."""
        cdef uint64_t part = min(size, self.skipped)
        if part > 0:
            self.skipped -= part
            self.position += part
            if self.skipped == 0:
                self.verdicts[PAGE_UNCHECKED] += 1
        return part

    cdef void carry_on(self, const uint8_t* data, uint32_t size) noexcept nogil:
        """The next bytes of a page that is cut; NULL: zeros."""
        if data == NULL:
            memset(self.carry + self.filled, 0, size)
        else:
            memcpy(self.carry + self.filled, data, size)
        self.filled += size
        self.position += size
        if self.learning and self.filled == INNODB_FIRST:
            self.learning = False
            learn_innodb_space(&self.space, self.carry)
            self.settle()
        elif self.filled == self.page_size:
            self.filled = 0
            self.position -= self.page_size
            self.check(self.carry)
            self.position += self.page_size

    cdef uint32_t missing(self, uint64_t size) noexcept nogil:
        """How many of the next size bytes the page that waits still takes."""
        return <uint32_t>min(size, <uint64_t>((INNODB_FIRST if self.learning else self.page_size) - self.filled))

    cdef void take_bytes(self, const uint8_t* data, uint64_t size) noexcept nogil:
        cdef uint64_t at
        cdef uint32_t part
        if self.profile == NULL or size == 0:
            return
        at = self.skip(size)
        while at < size:
            part = self.missing(size - at)
            if self.filled == 0 and part == self.page_size:
                self.check(data + at)
                self.position += part
            else:
                self.carry_on(data + at, part)
            at += part
        if self.position == self.file_size:
            self.end_file()

    cdef void take_zeros(self, uint64_t size) noexcept nogil:
        cdef uint64_t pages
        cdef uint32_t part
        if self.profile == NULL or size == 0:
            return
        size -= self.skip(size)
        while size > 0:
            if self.filled == 0 and not self.learning and size >= self.page_size:
                pages = size // self.page_size
                self.verdicts[PAGE_NEW] += pages
                self.position += pages * self.page_size
                size -= pages * self.page_size
            else:
                part = self.missing(size)
                self.carry_on(NULL, part)
                size -= part
        if self.position == self.file_size:
            self.end_file()

    # Pages.

    cdef void check(self, const uint8_t* page) noexcept nogil:
        """The page that begins at position."""
        cdef uint32_t number = self.rule.first_page + <uint32_t>(self.position // self.page_size)
        cdef uint64_t lsn = 0
        cdef int verdict
        if self.profile.format == FORMAT_INNODB:
            verdict = self.check_innodb(page, number, &lsn)
        else:
            verdict = check_postgresql_page(page, self.page_size, number, self.profile.checksums, &lsn)
        self.count(verdict, number, lsn)

    cdef int check_innodb(self, const uint8_t* page, uint32_t number, uint64_t* lsn) noexcept nogil:
        cdef uint32_t half = doublewrite_pages(self.page_size)
        cdef int verdict = check_innodb_page(&self.space, page, number, lsn)
        if self.rule.flags & RULE_SYSTEM == 0:
            return verdict
        if number == TRX_SYS_PAGE_NO and verdict == PAGE_GOOD:
            find_doublewrite(&self.space, page, &self.doublewrite[0], &self.doublewrite[1])
        # copies of other pages, and none that recovery needs once these are whole
        if (number - self.doublewrite[0] < half or number - self.doublewrite[1] < half) and verdict != PAGE_NEW:
            return PAGE_UNCHECKED
        return verdict

    cdef void count(self, int verdict, uint32_t number, uint64_t lsn) noexcept nogil:
        cdef finding_t* finding
        if verdict > PAGE_UNCHECKED and self.profile.start_lsn != 0 and (
                self.profile.start_lsn <= lsn <= self.profile.end_lsn):
            self.repaired += 1
            return
        self.verdicts[verdict] += 1
        if verdict <= PAGE_UNCHECKED or self.finding_count >= self.finding_limit:
            return
        finding = &self.findings_at[self.finding_count]
        finding.offset = self.position
        finding.lsn = lsn
        finding.file = self.file
        finding.number = number
        finding.verdict = <uint32_t>verdict
        finding.size = <uint32_t>min(<uint64_t>self.page_size, self.file_size - self.position)
        publish_count(&self.finding_count, self.finding_count + 1)

    # The Python face.

    cdef int add_profile(self, int format, uint32_t page_size, tuple repaired, bint checksums,
                         bint strict) except -1:
        cdef uint32_t least = SMALLEST_INNODB if format == FORMAT_INNODB else SMALLEST
        cdef uint32_t most = LARGEST_PAGE if format == FORMAT_INNODB else LARGEST_PAGE // 2
        cdef profile_t* profile
        if not least <= page_size <= most or page_size & (page_size - 1) != 0:
            refuse(b"there are no pages of this size")
        if self.profile_count + 1 >= PROFILES or self.rules != NULL:
            refuse(b"up to 255 databases are checked, and all are named before the files")
        self.profile_count += 1
        profile = &self.profiles[self.profile_count]
        profile.format = format
        profile.page_size = page_size
        profile.start_lsn, profile.end_lsn = repaired
        profile.checksums = checksums
        profile.strict = strict
        return <int>self.profile_count

    def add_postgresql(self, uint32_t page_size=8192, *, bint checksums=True, repaired=(0, 0)):
        return self.add_profile(FORMAT_POSTGRESQL, page_size, repaired, checksums, False)

    def add_innodb(self, uint32_t page_size=16384, *, bint strict=False):
        return self.add_profile(FORMAT_INNODB, page_size, (0, 0), True, strict)

    def set_rules(self, rules):
        cdef Py_buffer view
        cdef uint64_t i
        PyObject_GetBuffer(rules, &view, PyBUF_SIMPLE)
        try:
            if self.rules != NULL or <uint64_t>view.len % sizeof(page_rule_t) != 0:
                refuse(b"rules are records of 8 bytes, set once")
            self.rules = <page_rule_t*>malloc(<size_t>view.len + 1)
            if self.rules == NULL:
                raise MemoryError
            memcpy(self.rules, view.buf, <size_t>view.len)
            self.rule_count = <uint64_t>view.len // sizeof(page_rule_t)
        finally:
            PyBuffer_Release(&view)
        for i in range(self.rule_count):
            if self.rules[i].profile > self.profile_count:
                self.rule_count = 0
                refuse(b"a rule names a profile that was not added")

    def go_on(self, uint32_t file, uint64_t position, uint64_t file_size, const uint8_t[::1] first,
              const uint8_t[::1] head):
        cdef uint64_t held = <uint64_t>head.shape[0], lsn
        cdef uint32_t part
        self.leave()
        self.begin(file, 0, file_size)
        if self.profile == NULL:
            return
        if self.learning and first.shape[0] >= INNODB_FIRST:
            learn_innodb_space(&self.space, &first[0])
            self.settle()
            if <uint64_t>first.shape[0] >= self.page_size:
                check_innodb_page(&self.space, &first[0], 0, &lsn)     # whose tablespace it is
        self.learning = False
        part = <uint32_t>(held % self.page_size)
        self.position = position - part
        if part > 0:
            self.carry_on(&head[held - part], part)

    def feed(self, uint32_t file, uint64_t position, uint64_t file_size, data=None, uint64_t zeros=0):
        cdef Py_buffer view
        self.begin(file, position, file_size)
        if data is not None:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            with nogil:
                self.take_bytes(<const uint8_t*>view.buf, <uint64_t>view.len)
            PyBuffer_Release(&view)
        self.take_zeros(zeros)

    def forget(self):
        self.leave()

    @property
    def counts(self):
        cdef uint64_t damaged = 0
        cdef int i
        for i in range(PAGE_UNCHECKED + 1, PAGE_VERDICTS):
            damaged += self.verdicts[i]
        return {
            "files": self.files_checked,
            "pages": (self.verdicts[PAGE_GOOD] + self.verdicts[PAGE_NEW] + self.verdicts[PAGE_UNCHECKED]
                      + self.repaired + damaged),
            "new": self.verdicts[PAGE_NEW],
            "unchecked": self.verdicts[PAGE_UNCHECKED],
            "repaired": self.repaired,
            "damaged": damaged,
        }

    @property
    def findings(self):
        cdef uint32_t count = seen_count(&self.finding_count), i
        return [(self.findings_at[i].file, self.findings_at[i].number, self.findings_at[i].offset,
                 self.findings_at[i].verdict, self.findings_at[i].lsn, self.findings_at[i].size) for i in range(count)]


cdef int refuse(const char* why) except -1:
    cdef fault_t fault
    set_fault(&fault, FAULT_MISUSE, b"preparing to check pages", 0, 0, why)
    raise_fault(&fault)
    return -1
