"""plan lays a backup out on tape before its first byte: for every member its segment, tape block and offset.

It reads no device: sizes of headers, sparse maps and manifests follow from the extent map alone.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from splitreel.core.columns cimport FILE_DAMAGED, FILE_TARGET, file_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport FAULT_LIMIT, FAULT_MISUSE, FAULT_NO_MEMORY, fault_t, raise_fault, set_fault
from splitreel.core.manifest cimport ManifestWriter, blocks_lines_size
from splitreel.core.paths cimport order_paths
from splitreel.core.pax cimport HEADER_LIMIT, PATH_CAPACITY, PaxWriter, aligned_header, header_t
from splitreel.core.runs cimport (
    MEMBER_BLK,
    MEMBER_CHR,
    MEMBER_DIRECTORY,
    MEMBER_FIFO,
    MEMBER_FILE,
    MEMBER_LINK,
    MEMBER_SOCKET,
    MEMBER_SYMLINK,
    NO_LINK,
    count_pieces,
    member_t,
    sink_t,
    sparse_map_size,
)
from splitreel.core.plan_order cimport count_parts, cut_part, mark_selection, sort_names
from splitreel.core.view cimport make_column

cdef enum:
    UNIT = 512                                     # of an archive, bytes
    ALIGNED_BLOCKS = 8                             # a member of so many tape blocks starts its data on one
    SECOND_BOUNDARY = 4096                         # where that would take more padding than readers accept
    TYPE_MASK = 0o170000

MEMBER_FORMAT = (
    b"T{=Q:stored:=Q:start:=Q:size:=I:name:=I:link:=I:segment:=I:block:=I:offset:=I:header:=I:map_size:=I:part:"
    b"=I:parts:=B:kind:3x}"
)
SEGMENT_FORMAT = (
    b"T{=Q:first_object:=Q:manifest_start:=Q:manifest_size:=Q:cksums_size:=Q:data_bytes:=I:first_member:=I:members:"
    b"=I:blocks:=I:number:=I:digest:=I:synchronise:}"
)
ORDERS = ("path", "inode", "physical")
REASONS = {
    SKIP_DAMAGED: "it is damaged in the file system",
    SKIP_PATH: "its path has more than 65536 bytes",
    SKIP_HEADER: "its extended attributes take more than 4 MiB",
    SKIP_SPARSE: "it has too many holes",
}


cdef uint64_t padded(uint64_t size) noexcept nogil:
    return (size + UNIT - 1) // UNIT * UNIT


cdef int grow(void** array, uint64_t* capacity, uint64_t wanted, size_t item, fault_t* fault) noexcept nogil:
    cdef uint64_t enough = max(capacity[0] * 2, max(wanted, <uint64_t>64))
    cdef void* moved
    if wanted <= capacity[0]:
        return 0
    if wanted >= NO_LINK:
        return set_fault(fault, FAULT_LIMIT, b"planning", 0, 0, b"more than 4294967294 members")
    moved = realloc(array[0], enough * item)
    if moved == NULL:
        return set_fault(fault, FAULT_NO_MEMORY, b"planning", 0, 0, NULL)
    array[0] = moved
    capacity[0] = enough
    return 0


cdef uint8_t member_kind(uint32_t mode) noexcept nogil:
    mode &= TYPE_MASK
    if mode == 0o040000:
        return MEMBER_DIRECTORY
    if mode == 0o120000:
        return MEMBER_SYMLINK
    if mode == 0o020000:
        return MEMBER_CHR
    if mode == 0o060000:
        return MEMBER_BLK
    if mode == 0o010000:
        return MEMBER_FIFO
    if mode == 0o140000:
        return MEMBER_SOCKET
    return MEMBER_FILE


cdef class Plan:
    """The layout of one backup: ``members``, ``segments`` and, once streamed, ``crc32c`` are columns for numpy.

    Make one with ``Plan.build``. Fields and units stand in pax.pxd and plan.pxd; ``kind`` is the ustar typeflag, ``s``
    for a socket. One thread at a time; a plan that is being streamed must not be used by a second stream.
    """

    def __init__(self):
        raise TypeError("a plan is made by Plan.build")

    def __dealloc__(self):
        free(self.members)
        free(self.segments)
        free(self.crc32c)
        free(self.skipped_names)
        free(self.link_targets)

    # Building.

    cdef int append(self, const member_t* member, fault_t* fault) noexcept nogil:
        cdef int rc = grow(<void**>&self.members, &self.member_capacity, self.member_count + 1, sizeof(member_t), fault)
        if rc < 0:
            return rc
        self.members[self.member_count] = member[0]
        self.member_count += 1
        return 0

    cdef int skip(self, uint32_t name, uint32_t reason, fault_t* fault) noexcept nogil:
        cdef int rc = grow(<void**>&self.skipped_names, &self.skipped_capacity, self.skipped_count + 1,
                           sizeof(skipped_t), fault)
        if rc < 0:
            return rc
        self.skipped_names[self.skipped_count].name = name
        self.skipped_names[self.skipped_count].reason = reason
        self.skipped_count += 1
        return 0

    cdef int open_segment(self, fault_t* fault) noexcept nogil:
        cdef segment_t* segment
        cdef int rc = grow(<void**>&self.segments, &self.segment_capacity, self.segment_count + 1, sizeof(segment_t),
                           fault)
        if rc < 0:
            return rc
        segment = &self.segments[self.segment_count]
        memset(segment, 0, sizeof(segment_t))
        segment.first_object = self.next_object
        segment.first_member = <uint32_t>self.member_count
        segment.number = self.first_number + <uint32_t>self.segment_count
        self.segment_count += 1
        self.position = self.member_lines = self.cksums_lines = 0
        self.is_open = True
        return 0

    cdef uint64_t close_size(self, uint64_t position, uint64_t member_lines, uint64_t cksums_lines, uint64_t members,
                             uint64_t* manifest_size) noexcept nogil:
        """Bytes of the open segment if its manifest began at position."""
        cdef uint64_t number = self.segments[self.segment_count - 1].number
        manifest_size[0] = (self.manifest.segment_line_size(number, members) + member_lines
                            + blocks_lines_size(position // self.block_size) + self.manifest.end_line_size())
        position += 2 * self.control_header + padded(manifest_size[0]) + padded(cksums_lines) + 2 * UNIT
        return (position + self.block_size - 1) // self.block_size * self.block_size

    cdef void close_segment(self) noexcept nogil:
        cdef uint64_t manifest_size
        cdef segment_t* segment = &self.segments[self.segment_count - 1]
        cdef uint64_t size = self.close_size(self.position, self.member_lines, self.cksums_lines, segment.members,
                                             &manifest_size)
        segment.manifest_size = manifest_size
        segment.manifest_start = self.position
        segment.cksums_size = self.cksums_lines
        segment.blocks = <uint32_t>(size // self.block_size)
        segment.synchronise = self.segment_count % self.sync_segments == 0
        self.next_object += segment.blocks + 1
        self.largest_segment_members = max(self.largest_segment_members, <uint64_t>segment.members)
        self.largest_segment_blocks = max(self.largest_segment_blocks, <uint64_t>segment.blocks)
        self.is_open = False

    cdef bint fit(self, member_t* member, uint64_t natural, uint64_t* manifest, uint64_t* cksums) noexcept nogil:
        """Places member at the end of the open segment; says whether the segment then still keeps its size."""
        cdef segment_t* segment = &self.segments[self.segment_count - 1]
        cdef uint64_t aligned = 0, manifest_size, size
        member.segment = <uint32_t>(self.segment_count - 1)
        member.block = <uint32_t>(self.position // self.block_size)
        member.offset = <uint32_t>(self.position % self.block_size)
        member.header = <uint32_t>natural
        if member.stored >= <uint64_t>ALIGNED_BLOCKS * self.block_size:
            aligned = aligned_header(natural, self.position, self.block_size)
            if aligned == 0:
                aligned = aligned_header(natural, self.position, SECOND_BOUNDARY)
            if aligned != 0:
                member.header = <uint32_t>aligned
        self.manifest.measure_member(member, manifest, cksums)
        size = self.close_size(self.position + member.header + padded(member.stored), self.member_lines + manifest[0],
                               self.cksums_lines + cksums[0], segment.members + 1, &manifest_size)
        return size <= self.segment_size or segment.members == 0

    cdef int place(self, member_t* member, fault_t* fault) noexcept nogil:
        cdef header_t header
        cdef uint64_t natural = 0, manifest, cksums
        cdef segment_t* segment
        if member.kind != MEMBER_SOCKET:
            if self.pax.describe(member, &header, fault) < 0:
                return fault.code
            natural = self.pax.measure(&header)
            if natural > HEADER_LIMIT:
                return self.skip(member.name, SKIP_HEADER, fault)
        if not self.is_open and self.open_segment(fault) < 0:
            return fault.code
        if not self.fit(member, natural, &manifest, &cksums):
            self.close_segment()
            if self.open_segment(fault) < 0:
                return fault.code
            self.fit(member, natural, &manifest, &cksums)
        if self.append(member, fault) < 0:
            return fault.code
        segment = &self.segments[self.segment_count - 1]
        segment.members += 1
        segment.data_bytes += member.stored - member.map_size
        self.position += member.header + padded(member.stored)
        self.member_lines += manifest
        self.cksums_lines += cksums
        self.largest_header = max(self.largest_header, <uint64_t>member.header)
        return 0

    cdef int add_name(self, uint32_t name, fault_t* fault) noexcept nogil:
        cdef uint32_t index = self.columns.names[name].file
        cdef const file_t* file = &self.columns.files[index]
        cdef member_t member
        memset(&member, 0, sizeof(member_t))
        if file.flags & FILE_DAMAGED:
            return self.skip(name, SKIP_DAMAGED, fault)
        if self.map.path_size(name) > PATH_CAPACITY:
            return self.skip(name, SKIP_PATH, fault)
        member.name = name
        member.link = NO_LINK
        member.kind = member_kind(file.mode)
        if member.kind == MEMBER_SYMLINK and not file.flags & FILE_TARGET:
            return self.skip(name, SKIP_DAMAGED, fault)
        if file.link_count > 1 and member.kind != MEMBER_DIRECTORY and member.kind != MEMBER_SOCKET:
            if self.link_targets[index] != NO_LINK:
                member.kind = MEMBER_LINK
                member.link = self.link_targets[index]
            else:
                self.link_targets[index] = name
        if member.kind == MEMBER_FILE:
            return self.add_regular(name, file, fault)
        return self.place(&member, fault)

    cdef int add_regular(self, uint32_t name, const file_t* file, fault_t* fault) noexcept nogil:
        cdef member_t member
        cdef uint64_t data_bytes, pieces
        memset(&member, 0, sizeof(member_t))
        member.name = name
        member.link = NO_LINK
        member.kind = MEMBER_FILE
        member.size = file.size
        pieces = count_pieces(&self.columns, file, 0, file.size, &data_bytes)
        if pieces >= <uint64_t>1 << 26:            # at most 2 * 21 bytes of map each: the map's size must fit 32 bits
            return self.skip(name, SKIP_SPARSE, fault)
        if data_bytes != file.size:
            member.map_size = <uint32_t>sparse_map_size(&self.columns, file, &member)
        member.stored = member.map_size + data_bytes
        if member.stored > self.segment_size:
            return self.add_parts(&member, file, fault)
        return self.place(&member, fault)

    cdef int add_parts(self, member_t* member, const file_t* file, fault_t* fault) noexcept nogil:
        cdef uint64_t limit = max(self.segment_size // self.block_size, <uint64_t>1) * self.block_size
        cdef uint64_t at = 0, data_bytes
        member.parts = count_parts(&self.columns, file, limit)
        while at < file.size:
            member.part += 1
            member.start = at
            at = cut_part(&self.columns, file, at, limit)
            member.size = at - member.start
            member.map_size = 0
            count_pieces(&self.columns, file, member.start, member.size, &data_bytes)
            if data_bytes != member.size:
                member.map_size = <uint32_t>sparse_map_size(&self.columns, file, member)
            member.stored = member.map_size + data_bytes
            if self.place(member, fault) < 0:
                return fault.code
        return 0

    cdef int finish(self, fault_t* fault) noexcept nogil:
        if self.is_open:
            self.close_segment()
        if self.segment_count > 0:
            self.segments[self.segment_count - 1].synchronise = 1
        self.largest_header = max(self.largest_header, self.control_header)
        self.crc32c = <uint32_t*>calloc(self.member_count + 1, sizeof(uint32_t))
        if self.crc32c == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"planning", 0, 0, NULL)
        return 0

    cdef int build_names(self, const uint32_t* order, const uint8_t* wanted, fault_t* fault) noexcept nogil:
        """order: names to lay out; wanted: a flag for each name, or NULL for all."""
        cdef uint64_t i
        self.link_targets = <uint32_t*>malloc(self.columns.file_count * sizeof(uint32_t) + 1)
        if self.link_targets == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"planning", 0, 0, NULL)
        memset(self.link_targets, 0xFF, self.columns.file_count * sizeof(uint32_t))
        for i in range(self.columns.name_count):
            if (wanted == NULL or wanted[order[i]]) and self.add_name(order[i], fault) < 0:
                return fault.code
        free(self.link_targets)
        self.link_targets = NULL
        return self.finish(fault)

    cdef int place_range(self, const member_t* members, uint64_t count, fault_t* fault) noexcept nogil:
        cdef uint64_t i
        cdef member_t member
        for i in range(count):
            member = members[i]
            if self.place(&member, fault) < 0:
                return fault.code
        return self.finish(fault)

    cdef Plan empty_copy(self):
        return make_plan(self.map, self.order, self.block_size, self.segment_size, self.sync_segments, self.backup,
                         self.first_object, self.created, self.first_number)

    @staticmethod
    def build(ExtentMap map not None, *, str order="path", selection=None, uint32_t block_size=1 << 20,
              uint64_t segment_size=1 << 34, uint32_t sync_segments=4,
              str backup="00000000-0000-0000-0000-000000000000", uint64_t first_object=3, int64_t created=0,
              uint32_t first_number=1):
        """Lay the names of a sealed map out. The GIL is released while it works.

        ``order``: ``path`` (bytes of the paths), ``inode`` or ``physical`` (first block); the last two put directories
        first. ``selection``: name indexes, a contiguous buffer of uint32 (default: all). ``segment_size``: bytes that a
        segment may take. ``sync_segments``: after so many segments a filemark is a synchronise. ``backup``: UUID text.
        ``first_object``: object number of the first block; ``created``: seconds since 1970.

        Raises:
            Misuse: the map is not sealed, or a size or order is not possible.
            LimitReached: no memory, or more than 4294967294 members.
        """
        cdef Plan plan = make_plan(map, order, block_size, segment_size, sync_segments, backup.encode("ascii"),
                                   first_object, created, first_number)
        cdef uint64_t names = map.name_count
        cdef uint8_t* wanted = NULL
        cdef uint32_t* name_order = <uint32_t*>malloc(names * sizeof(uint32_t) + 1)
        cdef bint sort = order != "path", physical = order == "physical"
        cdef fault_t fault
        cdef int rc
        try:
            if name_order == NULL:
                raise MemoryError
            if selection is not None:
                wanted = <uint8_t*>calloc(names + 1, 1)
                if wanted == NULL:
                    raise MemoryError
                mark_selection(selection, wanted, names)
            with nogil:
                rc = order_paths(&plan.columns, name_order, &fault)
                if rc == 0 and sort:
                    rc = sort_names(&plan.columns, name_order, physical, &fault)
                if rc == 0:
                    rc = plan.build_names(name_order, wanted, &fault)
            if rc < 0:
                raise_fault(&fault)
        finally:
            free(wanted)
            free(name_order)
        return plan

    def truncated(self, uint64_t segment, uint64_t members):
        """This plan up to ``members`` members of the segment with index ``segment``; 0 members: without that segment.

        What is kept lies where it lay; checksums that are known are kept. The last segment has a manifest of its own.
        """
        cdef uint64_t count, kept
        cdef Plan plan = self.empty_copy()
        cdef fault_t fault
        cdef int rc
        if segment >= self.segment_count or members > self.segments[segment].members:
            raise IndexError(f"segment {segment} has no member {members}")
        count = self.segments[segment].first_member + members
        with nogil:
            rc = plan.place_range(self.members, count, &fault)
        if rc < 0:
            raise_fault(&fault)
        kept = segment + (members > 0)
        if plan.segment_count != kept:
            set_fault(&fault, FAULT_MISUSE, b"truncating a plan", 0, 0, b"the layout came out differently")
            raise_fault(&fault)
        memcpy(plan.crc32c, self.crc32c, count * sizeof(uint32_t))
        for i in range(segment):
            plan.segments[i].digest = self.segments[i].digest
        return plan

    def remainder(self, uint64_t segment, uint64_t members, *, uint64_t first_object=3, uint32_t first_number=1):
        """What ``truncated`` leaves out, laid out anew for another tape. Links may point to the tape before."""
        cdef uint64_t first
        cdef Plan plan = self.empty_copy()
        cdef fault_t fault
        cdef int rc
        if segment >= self.segment_count or members > self.segments[segment].members:
            raise IndexError(f"segment {segment} has no member {members}")
        plan.first_object = plan.next_object = first_object
        plan.first_number = first_number
        first = self.segments[segment].first_member + members
        with nogil:
            rc = plan.place_range(self.members + first, self.member_count - first, &fault)
        if rc < 0:
            raise_fault(&fault)
        return plan

    # Looking.

    def __getattr__(self, str name):
        if name == "members":
            return make_column(self, self.members, self.member_count, sizeof(member_t), MEMBER_FORMAT)
        if name == "segments":
            return make_column(self, self.segments, self.segment_count, sizeof(segment_t), SEGMENT_FORMAT)
        if name == "crc32c":
            return make_column(self, self.crc32c, self.member_count, sizeof(uint32_t), b"=I")
        raise AttributeError(f"'Plan' object has no attribute {name!r}")

    @property
    def skipped(self):
        """What is left out: (path, reason) of each."""
        return [(self.map.path_of(self.skipped_names[i].name), REASONS[self.skipped_names[i].reason])
                for i in range(self.skipped_count)]

    @property
    def totals(self):
        """files (regular ones, parts counted as one), members, bytes (of content read), blocks, segments, skipped."""
        cdef uint64_t i, files = 0, data = 0, blocks = 0
        with nogil:
            for i in range(self.member_count):
                files += self.members[i].kind == MEMBER_FILE and self.members[i].part <= 1
            for i in range(self.segment_count):
                data += self.segments[i].data_bytes
                blocks += self.segments[i].blocks
        return {"files": files, "members": self.member_count, "bytes": data, "blocks": blocks,
                "segments": self.segment_count, "skipped": self.skipped_count}

    cdef int need_member(self, uint64_t index) except -1:
        if index >= self.member_count:
            raise IndexError(f"the plan has {self.member_count} members")
        return 0

    def member_path(self, uint64_t index):
        """Path of a member as the manifest has it: no slash at the end, the root empty, a part with its suffix."""
        cdef member_t member
        self.need_member(index)
        member = self.members[index]
        if member.kind == MEMBER_DIRECTORY:
            member.kind = MEMBER_LINK
        size = self.pax.member_path(&member)
        return PyBytes_FromStringAndSize(<char*>self.pax.path, size)

    def link_path(self, uint64_t index):
        """Path that a hard link points to; None for any other member."""
        self.need_member(index)
        if self.members[index].link == NO_LINK:
            return None
        return self.map.path_of(self.members[index].link)

    def header(self, uint64_t index):
        """The archive headers of a member, as they go to tape."""
        cdef header_t header
        cdef sink_t sink
        cdef fault_t fault
        self.need_member(index)
        data = PyBytes_FromStringAndSize(NULL, self.members[index].header)
        sink.data = <uint8_t*><char*>data
        sink.capacity = len(data)
        sink.size = 0
        if sink.capacity == 0:
            return data
        if (self.pax.describe(&self.members[index], &header, &fault) < 0
                or self.pax.emit(&header, sink.capacity, &sink, &fault) < 0):
            raise_fault(&fault)
        return data


cdef int refuse(str why) except -1:
    cdef fault_t fault
    text = why.encode()
    set_fault(&fault, FAULT_MISUSE, b"planning", 0, 0, text)
    raise_fault(&fault)
    return -1


cdef Plan make_plan(ExtentMap map, str order, uint32_t block_size, uint64_t segment_size, uint32_t sync_segments,
                    bytes backup, uint64_t first_object, int64_t created, uint32_t first_number):
    cdef Plan plan = Plan.__new__(Plan)
    cdef header_t header
    if order not in ORDERS:
        refuse("the orders are path, inode, physical")
    if block_size == 0 or block_size % SECOND_BOUNDARY != 0:
        refuse("a tape block is a multiple of 4096 bytes")
    if segment_size == 0 or segment_size > <uint64_t>1 << 44 or sync_segments == 0 or first_number == 0:
        refuse("a segment has 1 byte to 16 TiB, and counts start at 1")
    if segment_size // block_size >> 31:           # the last member and the manifest come on top, in 32 bits
        refuse("a segment has less than 2147483648 tape blocks")
    plan.map, plan.order, plan.block_size, plan.segment_size = map, order, block_size, segment_size
    plan.sync_segments, plan.backup, plan.first_object, plan.created = sync_segments, backup, first_object, created
    plan.next_object, plan.first_number = first_object, first_number
    plan.pax = PaxWriter(map)
    plan.columns = plan.pax.columns
    plan.manifest = ManifestWriter(plan.pax, backup, block_size)
    plan.pax.describe_control(b"manifest", 1, 1, created, &header)
    plan.control_header = plan.pax.measure(&header)
    return plan
