"""spans makes one device of stretches of others: volumes, and journals replayed in memory. It parses neither.

All is resolved once, to one flat table over the devices at the bottom (see spantable); whoever reads sees a
BlockDevice. Sources are held by descriptors of its own: they may be closed afterwards.
"""

from collections import namedtuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy, memset, strdup, strlen

from splitreel.core.device cimport BlockDevice, new_bounce, read_range
from splitreel.core.fault cimport (
    FAULT_LIMIT, FAULT_MISUSE, FAULT_NO_MEMORY, FAULT_SHORT_DEVICE, fault_t, raise_fault, set_fault,
)
from splitreel.core.spanjoin cimport import_t, join_legs, join_table, take_spans
from splitreel.core.spantable cimport (
    SPAN_LINEAR, SPAN_MEMORY, SPAN_STRIPED, SPAN_ZERO, SpanTable, append_bytes, append_leg, append_source, append_span,
    append_stripe, hidden_start, next_piece, open_buffered, reserve_leg, span_piece_t, span_source_t, span_table_t,
)

cdef extern from "Python.h":
    object PyOS_FSPath(object path)
    object PyUnicode_EncodeFSDefault(object text)

cdef enum:
    PATCH_BYTES = 0xFFFFFFFF
    PATCH_ZERO = 0xFFFFFFFE
    MOST_PATCHES = 1 << 26                         # blocks of the largest journals there are
    SMALLEST_BLOCK = 512
    NAME_SHOWN = 60                                # bytes of a source's name, the last ones

cdef uint64_t MOST_BYTES = <uint64_t>1 << 32       # twice the largest XFS log
cdef uint64_t MOST_SIZE = <uint64_t>1 << 62
cdef const char* BUILDING = "laying out a device"
cdef const char* REPLACING = "replacing a part of a device"
cdef const char* READING = "reading a device"


Linear = namedtuple("Linear", "size source physical")
Linear.__doc__ = "``size`` bytes of ``sources[source]`` from byte ``physical`` on."
Striped = namedtuple("Striped", "size stripe_size legs")
Striped.__doc__ = "``stripe_size`` bytes of each leg in turn; ``legs`` are pairs (source, physical)."
Zero = namedtuple("Zero", "size")
Zero.__doc__ = "``size`` bytes that read as zeros."
Span = Linear | Striped | Zero


cdef int refuse(int code, uint64_t offset, str why) except -1:
    cdef fault_t fault
    encoded = why.encode()
    set_fault(&fault, code, BUILDING, 0, offset, encoded)
    raise_fault(&fault)


cdef uint64_t leg_size(uint64_t size, uint64_t stripe_size, uint64_t legs, uint64_t number) noexcept nogil:
    """What a striped stretch of a size takes of one of its legs."""
    cdef uint64_t rows = size // stripe_size // legs
    cdef uint64_t rest = size - rows * legs * stripe_size
    cdef uint64_t whole = rest // stripe_size
    if number == whole:
        return rows * stripe_size + rest % stripe_size
    return (rows + 1 if number < whole else rows) * stripe_size


cdef SpanTable table_of(BlockDevice device):
    """A device's own table, or one of a plain device: all of it, in one stretch. It borrows the descriptor."""
    cdef SpanTable made
    cdef span_source_t source
    cdef fault_t fault
    cdef int rc = 0
    if device.spans is not None:
        return device.spans
    encoded = device.path if isinstance(device.path, bytes) else PyUnicode_EncodeFSDefault(device.path)
    memset(&source, 0, sizeof(source))
    source.size = device.size
    source.fd = source.buffered_fd = -1
    source.block_size = device.logical_block_size
    source.alignment = device.logical_block_size if device.direct else 1
    source.name = strdup(encoded)
    made = SpanTable.__new__(SpanTable)
    made.table.size = device.size
    made.table.end = hidden_start(&made.table)
    rc = append_source(&made.table, &source, &fault)
    if rc == 0 and device.size != 0:
        rc = append_span(&made.table, 0, 0, SPAN_LINEAR, 0, &fault)
    if rc < 0 or source.name == NULL:
        raise MemoryError
    return made


# The latest of the patches that cover a byte: a heap of their indices.

cdef void push_patch(const patch_t* patches, uint32_t* heap, size_t count, uint32_t index) noexcept nogil:
    cdef size_t at = count, above
    while at > 0:
        above = (at - 1) // 2
        if patches[heap[above]].sequence >= patches[index].sequence:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = index


cdef void pop_patch(const patch_t* patches, uint32_t* heap, size_t count) noexcept nogil:
    """Takes the first of count away."""
    cdef uint32_t last = heap[count - 1]
    cdef size_t at = 0, below = 1
    while below < count - 1:
        if below + 1 < count - 1 and patches[heap[below + 1]].sequence > patches[heap[below]].sequence:
            below += 1
        if patches[heap[below]].sequence <= patches[last].sequence:
            break
        heap[at] = heap[below]
        at = below
        below = 2 * at + 1
    heap[at] = last


cdef int compare_patches(const void* left, const void* right) noexcept nogil:
    cdef const patch_t* a = <const patch_t*>left
    cdef const patch_t* b = <const patch_t*>right
    if a.start != b.start:
        return -1 if a.start < b.start else 1
    return (a.sequence > b.sequence) - (a.sequence < b.sequence)


cdef class SpannedDevice(BlockDevice):
    """A device made of stretches of ``sources``, ``Linear``, ``Striped`` or ``Zero``, one after the other from byte 0.

    Sources may be such devices themselves. ``logical_block_size`` is the largest of theirs, ``direct`` true when all
    are read with O_DIRECT; what is not aligned as its source needs it is read through the page cache, whose pages of
    that source are dropped first. ``piece_count``: entries of its table. One thread at a time, as BlockDevice.

    ``SpannedDevice.over(base, others)`` reads as ``base`` does; until ``seal()`` parts of it may be replaced.

    Raises:
        DeviceError: a stretch lies beyond the end of its source, or a source cannot be opened again.
        Misuse: sizes or stripe sizes of 0, no such source, no legs, a closed source. LimitReached: too many stretches.
    """

    def __init__(self, sources, spans, *, path):
        cdef fault_t fault
        cdef int rc
        stretches, legs = list(spans), []
        if any(stretch.size <= 0 for stretch in stretches):
            refuse(FAULT_MISUSE, 0, "a stretch of it is of 1 byte or more")
        if sum(stretch.size for stretch in stretches) > MOST_SIZE:
            refuse(FAULT_LIMIT, 0, "a device has at most 2^62 bytes")
        self.begin(list(sources), sum(stretch.size for stretch in stretches), path)
        self.lay_stretches(stretches, legs)
        with nogil:
            rc = join_legs(&self.spans.table, self.imports, self.import_count, &fault)
        for start, source, physical, size in legs if rc == 0 else []:
            rc = take_spans(&self.spans.table, &self.imports[<size_t>source], start, physical, size, &fault)
            if rc < 0:
                break
        if rc == 0:
            with nogil:
                rc = open_buffered(&self.spans.table, &fault)
        if rc < 0:
            self.close()
            raise_fault(&fault)
        self.sealed = True
        self.forget_building()
        self.kept = []

    def __dealloc__(self):
        self.forget_building()

    @staticmethod
    def over(BlockDevice base not None, others=()):
        """A device that reads as ``base``, for replacing parts of it; it can be read after ``seal()``.

        Raises:
            DeviceError: a device cannot be opened again. Misuse: a device is closed.
        """
        cdef SpannedDevice made = SpannedDevice.__new__(SpannedDevice)
        made.begin([base, *others], base.size, base.path)
        return made

    # Building.

    cdef int begin(self, list devices, uint64_t size, object path) except -1:
        self.close()
        self.forget_building()
        self.kept = []
        self.sealed = False
        self.path = PyOS_FSPath(path)
        self.size = size
        self.direct = True
        self.logical_block_size = SMALLEST_BLOCK
        self.bounce = new_bounce()
        self.imports = <import_t*>malloc((len(devices) + 1) * sizeof(import_t))
        if self.bounce == NULL or self.imports == NULL:
            raise MemoryError
        self.spans = SpanTable.__new__(SpanTable)
        self.spans.table.size = size
        self.spans.table.end = hidden_start(&self.spans.table)
        for device in devices:
            self.take_in(device)
        return 0

    cdef int take_in(self, BlockDevice device) except -1:
        cdef SpanTable table
        cdef fault_t fault
        cdef int rc
        if device is None or not device.is_open():
            refuse(FAULT_MISUSE, 0, "a device that it lies on is closed")
        table = table_of(device)
        self.kept.append(table)
        if device.spans is None:
            table.table.sources[0].fd = device.fd
        rc = join_table(&self.spans.table, &table.table, &self.imports[self.import_count], &fault)
        if device.spans is None:
            table.table.sources[0].fd = -1
        if rc < 0:
            raise_fault(&fault)
        self.import_count += 1
        self.direct = self.direct and device.direct
        self.logical_block_size = max(self.logical_block_size, device.logical_block_size)
        return 0

    cdef int check_range(self, object source, object physical, object size) except -1:
        if not 0 <= source < self.import_count:
            refuse(FAULT_MISUSE, 0, f"it has no source {source}")
        if physical < 0 or physical + size > self.imports[<size_t>source].table.size:
            refuse(FAULT_SHORT_DEVICE, max(physical, 0), f"a stretch of it ends behind source {source}")
        return 0

    cdef int lay_stretches(self, list stretches, list legs) except -1:
        """Appends them all; notes in legs what must stand behind them: (address, source, physical, size)."""
        cdef span_table_t* out = &self.spans.table
        cdef fault_t fault
        cdef uint64_t at = 0
        cdef int rc
        for stretch in stretches:
            if isinstance(stretch, Linear):
                self.check_range(stretch.source, stretch.physical, stretch.size)
                rc = take_spans(out, &self.imports[<size_t>stretch.source], at, stretch.physical, stretch.size, &fault)
            elif isinstance(stretch, Striped):
                self.add_stripe(stretch, legs)
                rc = append_span(out, at, 0, SPAN_STRIPED, out.stripe_count - 1, &fault)
            elif isinstance(stretch, Zero):
                rc = append_span(out, at, 0, SPAN_ZERO, 0, &fault)
            else:
                rc = refuse(FAULT_MISUSE, at, f"no kind of stretch: {stretch!r}"[:120])
            if rc < 0:
                raise_fault(&fault)
            at += <uint64_t>stretch.size
        return 0

    cdef int add_stripe(self, object stretch, list legs) except -1:
        cdef span_table_t* out = &self.spans.table
        cdef fault_t fault
        cdef uint64_t start, size
        if not (0 < stretch.stripe_size <= MOST_SIZE and stretch.legs):
            refuse(FAULT_MISUSE, 0, "a striped stretch of it has no legs, or stripes of no size")
        if append_stripe(out, stretch.stripe_size, &fault) < 0:
            raise_fault(&fault)
        for number, (source, physical) in enumerate(stretch.legs):
            size = leg_size(stretch.size, stretch.stripe_size, len(stretch.legs), number)
            self.check_range(source, physical, size)
            if reserve_leg(out, size, &start, &fault) < 0 or append_leg(out, start, &fault) < 0:
                raise_fault(&fault)
            legs.append((start, source, physical, size))
        return 0

    # Replacing.

    cdef int add_patch(self, uint64_t start, uint64_t size, uint64_t moved_to, uint32_t source,
                       fault_t* fault) noexcept nogil:
        cdef size_t wanted = max(self.patch_capacity * 2, <size_t>64)
        cdef patch_t* patch
        if self.sealed or self.spans is None:
            return set_fault(fault, FAULT_MISUSE, REPLACING, 0, start, "it is sealed or closed")
        if start > self.size or size > self.size - start:
            return set_fault(fault, FAULT_SHORT_DEVICE, REPLACING, 0, start, NULL)
        if self.patch_count == MOST_PATCHES:
            return set_fault(fault, FAULT_LIMIT, REPLACING, 0, start, "more than 2^26 parts of it are replaced")
        if self.patch_count == self.patch_capacity:
            patch = <patch_t*>realloc(self.patches, wanted * sizeof(patch_t))
            if patch == NULL:
                return set_fault(fault, FAULT_NO_MEMORY, REPLACING, 0, start, NULL)
            self.patches = patch
            self.patch_capacity = wanted
        patch = &self.patches[self.patch_count]
        patch.start = start
        patch.end = start + size
        patch.moved_to = moved_to
        patch.sequence = <uint32_t>self.patch_count
        patch.source = source
        self.patch_count += 1 if size > 0 else 0
        return 0

    cdef int replace(self, uint64_t start, uint64_t size, uint64_t moved_to, fault_t* fault) noexcept nogil:
        return self.replace_import(start, size, 0, moved_to, fault)

    cdef int replace_source(self, uint64_t start, uint64_t size, uint32_t other, uint64_t moved_to,
                            fault_t* fault) noexcept nogil:
        return self.replace_import(start, size, <uint64_t>other + 1, moved_to, fault)

    cdef int replace_import(self, uint64_t start, uint64_t size, uint64_t number, uint64_t moved_to,
                            fault_t* fault) noexcept nogil:
        if number >= self.import_count:
            return set_fault(fault, FAULT_MISUSE, REPLACING, 0, start, "there is no such other device")
        if moved_to > self.imports[number].table.size or size > self.imports[number].table.size - moved_to:
            return set_fault(fault, FAULT_SHORT_DEVICE, REPLACING, 0, moved_to, NULL)
        return self.add_patch(start, size, moved_to, <uint32_t>number, fault)

    cdef int replace_bytes(self, uint64_t start, uint64_t size, const uint8_t* bytes, fault_t* fault) noexcept nogil:
        cdef span_table_t* out
        if self.spans is None or size > MOST_BYTES - min(MOST_BYTES, self.spans.table.bytes_size):
            return set_fault(fault, FAULT_LIMIT, REPLACING, 0, start, "it is closed, or 4 GiB of it are in memory")
        out = &self.spans.table
        if self.add_patch(start, size, out.bytes_size, PATCH_BYTES, fault) < 0:
            return fault.code
        if append_bytes(out, bytes, size, fault) < 0:
            self.patch_count -= 1 if size > 0 else 0
            return fault.code
        return 0

    cdef int replace_zeros(self, uint64_t start, uint64_t size, fault_t* fault) noexcept nogil:
        return self.add_patch(start, size, 0, PATCH_ZERO, fault)

    cdef int lay(self, uint64_t start, uint64_t end, const patch_t* patch, fault_t* fault) noexcept nogil:
        """Appends what stands there: of the patch, or of the base without one."""
        cdef span_table_t* out = &self.spans.table
        if patch == NULL:
            return take_spans(out, &self.imports[0], start, start, end - start, fault)
        if patch.source == PATCH_ZERO:
            return append_span(out, start, 0, SPAN_ZERO, 0, fault)
        if patch.source == PATCH_BYTES:
            return append_span(out, start, patch.moved_to + (start - patch.start), SPAN_MEMORY, 0, fault)
        return take_spans(out, &self.imports[patch.source], start, patch.moved_to + (start - patch.start), end - start,
                          fault)

    cdef int lay_patches(self, uint32_t* heap, fault_t* fault) noexcept nogil:
        """From where a patch begins, or the one in force ends, to the next such place; heap holds all that began."""
        cdef patch_t* patches = self.patches
        cdef patch_t* patch
        cdef size_t next = 0, count = 0
        cdef uint64_t at = 0, stop
        while at < self.size:
            while next < self.patch_count and patches[next].start <= at:
                push_patch(patches, heap, count, <uint32_t>next)
                count += 1
                next += 1
            while count > 0 and patches[heap[0]].end <= at:
                pop_patch(patches, heap, count)
                count -= 1
            stop = patches[next].start if next < self.patch_count else self.size
            patch = &patches[heap[0]] if count > 0 else NULL
            if patch != NULL:
                stop = min(stop, patch.end)
            if self.lay(at, stop, patch, fault) < 0:
                return fault.code
            at = stop
        return 0

    cdef int seal(self, fault_t* fault) noexcept nogil:
        cdef uint32_t* heap
        cdef int rc
        if self.sealed or self.spans is None:
            return set_fault(fault, FAULT_MISUSE, BUILDING, 0, 0, "it is sealed or closed")
        heap = <uint32_t*>malloc(max(self.patch_count, <size_t>1) * sizeof(uint32_t))
        if heap == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, BUILDING, 0, 0, NULL)
        if self.patch_count > 1:
            qsort(self.patches, self.patch_count, sizeof(patch_t), compare_patches)
        rc = self.lay_patches(heap, fault)
        free(heap)
        if (rc < 0 or join_legs(&self.spans.table, self.imports, self.import_count, fault) < 0
                or open_buffered(&self.spans.table, fault) < 0):
            return fault.code
        self.sealed = True
        self.forget_building()
        return 0

    cdef void forget_building(self) noexcept nogil:
        free(self.imports)
        free(self.patches)
        self.imports = NULL
        self.patches = NULL
        self.import_count = 0
        self.patch_count = self.patch_capacity = 0

    # Reading.

    cdef bint is_open(self) noexcept nogil:
        return self.sealed and self.spans is not None

    cdef int read(self, uint64_t offset, void* destination, size_t size, fault_t* fault) noexcept nogil:
        cdef uint8_t* out = <uint8_t*>destination
        cdef span_piece_t piece
        if not self.is_open():
            return set_fault(fault, FAULT_MISUSE, READING, 0, offset,
                             "it was not sealed" if self.spans is not None else "the device is closed")
        if offset > self.size or size > self.size - offset:
            return set_fault(fault, FAULT_SHORT_DEVICE, READING, 0, offset, NULL)
        while size > 0:
            next_piece(&self.spans.table, offset, size, &piece)
            if piece.kind == SPAN_ZERO:
                memset(out, 0, piece.size)
            elif piece.kind == SPAN_MEMORY:
                memcpy(out, piece.bytes, piece.size)
            elif self.read_source(&piece, offset, out, fault) < 0:
                return fault.code
            offset += piece.size
            out += piece.size
            size -= piece.size
        return 0

    cdef int read_source(self, const span_piece_t* piece, uint64_t offset, uint8_t* destination,
                         fault_t* fault) noexcept nogil:
        # A failure is told with its place on both: the map knows this device, the administrator the one that broke.
        cdef const span_source_t* source = &self.spans.table.sources[piece.source]
        cdef const char* name = source.name
        cdef uint64_t failed
        cdef int rc = read_range(source.fd, source.block_size, source.alignment > 1, self.bounce, piece.physical,
                                 destination, piece.size, fault)
        if rc >= 0:
            return 0
        failed = max(fault.offset, piece.physical)
        fault.offset = offset + (failed - piece.physical)
        if strlen(name) > NAME_SHOWN:
            name += strlen(name) - NAME_SHOWN
        snprintf(fault.detail, sizeof(fault.detail), "%s at byte %llu%s", name, <unsigned long long>failed,
                 ": it has shrunk" if rc == FAULT_SHORT_DEVICE else "")
        return rc

    # For Python.

    @property
    def piece_count(self):
        return self.spans.table.count if self.spans is not None else 0

    def redirect(self, uint64_t start, uint64_t size, uint64_t moved_to, other=None):
        """``size`` bytes at ``start`` shall read as those at ``moved_to`` of the base, or of ``others[other]``, do.

        The base is meant without replacements. Of two replacements of one byte the later one holds.

        Raises:
            DeviceError: a range does not lie inside its device. Misuse: sealed or closed, or no such other device.
            LimitReached: no memory, or more than 2^26 replacements.
        """
        cdef fault_t fault
        cdef uint32_t number = 0 if other is None else other
        cdef int rc
        if other is None:
            rc = self.replace(start, size, moved_to, &fault)
        else:
            rc = self.replace_source(start, size, number, moved_to, &fault)
        if rc < 0:
            raise_fault(&fault)

    def overlay(self, uint64_t start, data):
        """The bytes from ``start`` on shall read as ``data``, copied; 4 GiB altogether. Raises as ``redirect``."""
        cdef fault_t fault
        cdef Py_buffer view
        cdef int rc
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        rc = self.replace_bytes(start, <uint64_t>view.len, <const uint8_t*>view.buf, &fault)
        PyBuffer_Release(&view)
        if rc < 0:
            raise_fault(&fault)

    def blank(self, uint64_t start, uint64_t size):
        """``size`` bytes at ``start`` shall read as zeros. Raises as ``redirect``."""
        cdef fault_t fault
        if self.replace_zeros(start, size, &fault) < 0:
            raise_fault(&fault)

    def ready(self):
        """Seal it: from now on it is read, and nothing more is replaced.

        Raises:
            Misuse: sealed already, or closed. LimitReached: no memory. DeviceError: a source cannot be opened again.
        """
        cdef fault_t fault
        cdef int rc
        with nogil:
            rc = self.seal(&fault)
        if rc < 0:
            raise_fault(&fault)
        self.kept = []

    def close(self):
        """Close it; engines that read it go on. A second time does nothing."""
        with nogil:
            self.close_device()
        self.spans = None
