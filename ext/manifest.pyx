"""manifest makes the text that ends a segment: what is in it, with every checksum, and a list for cksum(1).

It computes no checksum of data. Every length is known before the data are read, so that the plan can place what
follows: CRC32C are eight digits; cksum's numbers are as long as they are, and newlines at the end make up for it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memset

from splitreel.core.checksum cimport cksum_finish, crc32c_update
from splitreel.core.columns cimport FILE_TARGET, file_t, record_target
from splitreel.core.fault cimport FAULT_COUNT_MISMATCH, fault_t, set_fault
from splitreel.core.pax cimport PaxWriter, part_suffix
from splitreel.core.runs cimport (
    MEMBER_BLK,
    MEMBER_CHR,
    MEMBER_DIRECTORY,
    MEMBER_FIFO,
    MEMBER_FILE,
    MEMBER_LINK,
    MEMBER_SYMLINK,
    decimal_digits,
    member_t,
    next_run,
    open_runs,
    run_t,
    runs_t,
    sink_bytes,
    sink_decimal,
    sink_fill,
    sink_hex8,
    sink_json,
    sink_t,
    sink_text,
)

cdef enum state_t:
    SEGMENT_LINE
    MEMBER_LINES
    BLOCKS_LINES
    END_LINE
    CKSUM_LINES
    FILLER
    FINISHED


cdef const char* type_name(uint8_t kind) noexcept nogil:
    if kind == MEMBER_FILE:
        return "file"
    if kind == MEMBER_LINK:
        return "link"
    if kind == MEMBER_SYMLINK:
        return "symlink"
    if kind == MEMBER_CHR:
        return "chr"
    if kind == MEMBER_BLK:
        return "blk"
    if kind == MEMBER_DIRECTORY:
        return "dir"
    if kind == MEMBER_FIFO:
        return "fifo"
    return "sock"


cdef void field(sink_t* sink, const char* name, uint64_t value) noexcept nogil:
    sink_text(sink, name)
    sink_decimal(sink, value)


cdef uint64_t count_extents(PaxWriter pax, const member_t* member) noexcept nogil:
    cdef runs_t runs
    cdef run_t run
    cdef uint64_t count = 0
    open_runs(&runs, &pax.columns, &pax.columns.files[pax.columns.names[member.name].file], member.start, member.size)
    while next_run(&runs, &run):
        count += 1
    return count


cdef uint64_t blocks_lines_size(uint64_t block_count) noexcept nogil:
    cdef uint64_t size = 0, first = 0
    while first < block_count:
        size += 39 + decimal_digits(first) + 8 * min(block_count - first, <uint64_t>BLOCKS_A_LINE)
        first += BLOCKS_A_LINE
    return size


cdef class ManifestWriter:
    """Emits the manifest and the cksums of one segment after another. One thread at a time."""

    def __cinit__(self, PaxWriter pax not None, bytes backup not None, uint32_t block_size):
        if len(backup) != 36:
            raise ValueError("the text of a UUID has 36 characters")
        self.pax = pax
        memcpy(self.backup, <const char*>backup, 36)
        self.block_size = block_size
        self.state = FINISHED
        self.line = <uint8_t*>malloc(LINE_CAPACITY)
        if self.line == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.line)

    cdef void segment_line(self, sink_t* sink, uint64_t number, uint64_t member_count) noexcept nogil:
        sink_text(sink, b'{"kind":"segment","backup":"')
        sink_bytes(sink, self.backup, 36)
        field(sink, b'","segment":', number)
        field(sink, b',"block_size":', self.block_size)
        field(sink, b',"members":', member_count)
        sink_text(sink, b"}\n")

    cdef void member_line(self, sink_t* sink, const member_t* member, uint32_t crc) noexcept nogil:
        cdef const file_t* file = &self.pax.columns.files[self.pax.columns.names[member.name].file]
        cdef int64_t size = self.pax.plain_path(member.name, self.pax.path)
        cdef uint32_t target_size
        cdef const uint8_t* target
        sink_text(sink, b'{"kind":"member","path":"')
        sink_json(sink, self.pax.path, <uint64_t>max(size, 0))
        if member.part > 0:
            part_suffix(sink, member)
        sink_text(sink, b'","type":"')
        sink_text(sink, type_name(member.kind))
        field(sink, b'","size":', member.size)
        field(sink, b',"mode":', file.mode & 0o7777)
        field(sink, b',"block":', member.block)
        field(sink, b',"offset":', member.offset)
        field(sink, b',"stored":', member.stored)
        if member.kind == MEMBER_FILE:
            field(sink, b',"extents":', count_extents(self.pax, member))
            sink_text(sink, b',"crc32c":"')
            sink_hex8(sink, crc)
            sink_text(sink, b'"')
        if member.kind == MEMBER_LINK or (member.kind == MEMBER_SYMLINK and file.flags & FILE_TARGET):
            if member.kind == MEMBER_LINK:
                size = self.pax.plain_path(member.link, self.pax.link)
                target = self.pax.link
                target_size = <uint32_t>max(size, 0)
            else:
                target = record_target(self.pax.columns.heap + file.heap_offset, &target_size)
            sink_text(sink, b',"target":"')
            sink_json(sink, target, target_size)
            sink_text(sink, b'"')
        if member.part > 0:
            field(sink, b',"part":[', member.part)
            field(sink, b",", member.parts)
            sink_text(sink, b'],"of":"')
            sink_json(sink, self.pax.path, <uint64_t>max(size, 0))
            field(sink, b'","at":', member.start)
        sink_text(sink, b"}\n")

    cdef void blocks_line(self, sink_t* sink) noexcept nogil:
        cdef uint64_t i
        cdef uint64_t end = min(self.next + BLOCKS_A_LINE, self.text.block_count)
        field(sink, b'{"kind":"blocks","first":', self.next)
        sink_text(sink, b',"crc32c":"')
        for i in range(self.next, end):
            sink_hex8(sink, self.text.block_crcs[i])
        sink_text(sink, b'"}\n')
        self.next = end

    cdef void end_line(self, sink_t* sink) noexcept nogil:
        sink_text(sink, b'{"kind":"end","crc32c":"')
        sink_hex8(sink, self.crc)
        sink_text(sink, b'"}\n')

    cdef void cksum_line(self, sink_t* sink, const member_t* member, uint32_t value) noexcept nogil:
        """What cksum(1) prints; nothing for what is no file, or whose name would break the line."""
        cdef int64_t size
        if member.kind != MEMBER_FILE:
            return
        size = self.pax.member_path(member)
        if size < 0 or memchr(self.pax.path, c'\n', <size_t>size) != NULL:
            return
        sink_decimal(sink, value)
        field(sink, b" ", member.size)
        sink_bytes(sink, b" ", 1)
        sink_bytes(sink, self.pax.path, <uint64_t>size)
        sink_bytes(sink, b"\n", 1)

    cdef uint64_t segment_line_size(self, uint64_t number, uint64_t member_count) noexcept nogil:
        cdef sink_t count
        memset(&count, 0, sizeof(sink_t))
        self.segment_line(&count, number, member_count)
        return count.size

    cdef uint64_t end_line_size(self) noexcept nogil:
        cdef sink_t count
        memset(&count, 0, sizeof(sink_t))
        self.end_line(&count)
        return count.size

    cdef void measure_member(self, const member_t* member, uint64_t* manifest, uint64_t* cksums) noexcept nogil:
        cdef sink_t count
        memset(&count, 0, sizeof(sink_t))
        self.member_line(&count, member, 0)
        manifest[0] = count.size
        count.size = 0
        self.cksum_line(&count, member, LONGEST_CKSUM)
        cksums[0] = count.size

    cdef void begin_manifest(self, const segment_text_t* text) noexcept nogil:
        self.text = text[0]
        self.state = SEGMENT_LINE
        self.next = 0
        self.emitted = self.line_size = self.line_used = 0
        self.crc = 0

    cdef void begin_cksums(self, const segment_text_t* text) noexcept nogil:
        self.text = text[0]
        self.state = CKSUM_LINES
        self.next = 0
        self.emitted = self.line_size = self.line_used = 0

    cdef void manifest_line(self, sink_t* sink) noexcept nogil:
        if self.state == SEGMENT_LINE:
            self.segment_line(sink, self.text.number, self.text.member_count)
            self.state = MEMBER_LINES
        elif self.state == MEMBER_LINES and self.next < self.text.member_count:
            self.member_line(sink, &self.text.members[self.next], self.text.crc32c[self.next])
            self.next += 1
        else:
            if self.state == MEMBER_LINES:
                self.state = BLOCKS_LINES
                self.next = 0
            if self.next < self.text.block_count:
                self.blocks_line(sink)
            else:
                self.end_line(sink)
                self.state = FINISHED

    cdef void cksums_line(self, sink_t* sink) noexcept nogil:
        cdef const member_t* member
        while self.state == CKSUM_LINES and sink.size == 0:
            if self.next == self.text.member_count:
                self.state = FILLER
                return
            member = &self.text.members[self.next]
            self.cksum_line(sink, member, cksum_finish(self.text.cksums[self.next], member.size))
            self.next += 1

    cdef int next_line(self, sink_t* sink, fault_t* fault) noexcept nogil:
        cdef uint64_t planned = self.text.manifest_size
        if self.state == FINISHED:
            return 0
        if self.state >= CKSUM_LINES:
            planned = self.text.cksums_size
            self.cksums_line(sink)
            if self.state == FILLER and self.emitted + sink.size <= planned:
                sink_fill(sink, c'\n', min(planned - self.emitted - sink.size, sink.capacity - sink.size))
                self.state = FILLER if self.emitted + sink.size < planned else FINISHED
        else:
            self.manifest_line(sink)
            self.crc = crc32c_update(self.crc, sink.data, min(sink.size, sink.capacity))
        self.emitted += sink.size
        if sink.size > sink.capacity or self.emitted > planned or (self.state == FINISHED and self.emitted != planned):
            return set_fault(fault, FAULT_COUNT_MISMATCH, b"writing a manifest", self.text.number, self.emitted,
                             b"the text is not as long as planned")
        return 0

    cdef int fill(self, uint8_t* destination, uint64_t size, fault_t* fault) noexcept nogil:
        cdef sink_t sink
        cdef uint64_t part
        while size > 0:
            if self.line_used == self.line_size:
                sink.data = self.line
                sink.capacity = LINE_CAPACITY
                sink.size = 0
                if self.next_line(&sink, fault) < 0:
                    return fault.code
                if sink.size == 0:
                    return set_fault(fault, FAULT_COUNT_MISMATCH, b"writing a manifest", self.text.number, self.emitted,
                                     b"the text is shorter than planned")
                self.line_size = sink.size
                self.line_used = 0
            part = min(size, self.line_size - self.line_used)
            memcpy(destination, self.line + self.line_used, part)
            destination += part
            size -= part
            self.line_used += part
        return 0
