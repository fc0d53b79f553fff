"""stream carries a plan from a block device to a tape. It quiesces nothing, positions no drive, and decides no layout.

Two threads: the caller of run() lays tape blocks out and reads into them; another writes blocks to the drive, in order.
Between them stands a ring of blocks. Neither holds the GIL, and neither calls Python for a file or a block.
"""

import threading

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from splitreel.core.columns cimport FILE_INLINE, file_t, record_target
from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport (
    EARLY_WARNING,
    FAULT_CANCELLED,
    FAULT_COUNT_MISMATCH,
    FAULT_MISUSE,
    FAULT_NO_MEMORY,
    FAULT_POSITION,
    PROGRAMMABLE_EARLY_WARNING,
    fault_t,
    raise_fault,
    set_fault,
)
from splitreel.core.pages cimport PageChecker
from splitreel.core.pax cimport header_t
from splitreel.core.runs cimport (
    MEMBER_FILE,
    MEMBER_SOCKET,
    member_t,
    next_map_line,
    next_run,
    open_runs,
    open_sparse_map,
    run_t,
    runs_t,
    sink_t,
    sparse_map_t,
)
from splitreel.core.plan cimport Plan, segment_t
from splitreel.core.stream_fill cimport BlockFiller
from splitreel.core.stream_pieces cimport PIECE_CKSUMS, PIECE_MANIFEST
from splitreel.core.stream_reader cimport gate_await, gate_now, gate_release, gate_stop, gate_stopped
from splitreel.core.tape cimport Tape

cdef enum:
    UNIT = 512                                     # of an archive, bytes
    MAP_CHUNK = 4096                               # text of a sparse map laid at a time
    MAP_LINE = 32                                  # at most, of a sparse map

FINISHED = 0
STOPPED_EARLY_WARNING = 1


cdef uint64_t padding(uint64_t size) noexcept nogil:
    return (UNIT - size % UNIT) % UNIT


cdef class StreamWriter:
    """See stream.pyi: what each method promises stands there."""

    def __cinit__(self, map not None, BlockDevice device not None, Plan plan not None, Tape tape not None, *,
                  uint32_t ring_blocks=64, uint32_t depth=128, str engine="auto", high_water=None,
                  PageChecker pages=None):
        cdef fault_t fault
        if map is not plan.map:
            refuse(b"the plan was made from another map")
        if plan.block_size > tape.max_block:
            refuse(b"the plan's tape blocks are larger than the drive's path carries")
        if ring_blocks < 2:
            refuse(b"a ring has at least two blocks")
        self.plan = plan
        self.device = device
        self.tape = tape
        self.high_water = min(max(ring_blocks // 2 if high_water is None else high_water, 1), ring_blocks)
        self.filler = BlockFiller(plan, device, ring_blocks, depth, engine, pages)
        self.header = <uint8_t*>malloc(plan.largest_header + UNIT)
        if self.header == NULL:
            set_fault(&fault, FAULT_NO_MEMORY, b"preparing a stream", 0, 0, NULL)
            raise_fault(&fault)

    def __dealloc__(self):
        free(self.header)

    # Laying out: the thread that called run().

    cdef int lay_out(self) noexcept nogil:
        cdef uint64_t i
        cdef int rc = 0
        for i in range(self.first_segment, self.plan.segment_count):
            rc = self.lay_segment(i, &self.layout_fault)
            if rc < 0:
                break
        if rc == 0:
            rc = self.filler.finish(&self.layout_fault)
        if rc < 0:
            self.filler.abandon()
            gate_stop(&self.filler.gate)
        return rc

    cdef int lay_segment(self, uint64_t segment, fault_t* fault) noexcept nogil:
        cdef const segment_t* planned = &self.plan.segments[segment]
        cdef uint64_t start = self.filler.lay_block, laid
        cdef uint32_t i
        memset(self.plan.crc32c + planned.first_member, 0, planned.members * sizeof(uint32_t))
        for i in range(planned.first_member, planned.first_member + planned.members):
            if self.lay_member(i, fault) < 0:
                return fault.code
            self.members_laid += 1
        laid = (self.filler.lay_block - start) * self.plan.block_size + self.filler.lay_offset
        if laid != planned.manifest_start:
            return set_fault(fault, FAULT_COUNT_MISMATCH, b"laying out a segment", planned.number, laid,
                             b"its members take another number of bytes than planned")
        if self.lay_control(segment, True, fault) < 0 or self.lay_control(segment, False, fault) < 0:
            return fault.code
        if self.filler.place_zeros(2 * UNIT, fault) < 0:
            return fault.code
        if self.filler.lay_offset > 0:
            if self.filler.place_zeros(self.plan.block_size - self.filler.lay_offset, fault) < 0:
                return fault.code
        if self.filler.lay_block - start != planned.blocks:
            return set_fault(fault, FAULT_COUNT_MISMATCH, b"laying out a segment", planned.number, 0,
                             b"it takes another number of blocks than planned")
        return 0

    cdef int lay_headers(self, const header_t* header, uint64_t size, fault_t* fault) noexcept nogil:
        cdef sink_t sink
        sink.data = self.header
        sink.capacity = self.plan.largest_header
        sink.size = 0
        if self.filler.pax.emit(header, size, &sink, fault) < 0:
            return fault.code
        return self.filler.place_bytes(self.header, sink.size, fault)

    cdef int lay_member(self, uint32_t index, fault_t* fault) noexcept nogil:
        cdef const member_t* member = &self.plan.members[index]
        cdef const file_t* file = &self.plan.columns.files[self.plan.columns.names[member.name].file]
        cdef header_t header
        if member.kind == MEMBER_SOCKET:
            return 0
        if self.filler.lay_offset != member.offset:
            return set_fault(fault, FAULT_COUNT_MISMATCH, b"laying out a member, inode", file.inode, 0,
                             b"it does not lie where it was planned")
        if self.filler.pax.describe(member, &header, fault) < 0 or self.lay_headers(&header, member.header, fault) < 0:
            return fault.code
        if member.kind != MEMBER_FILE or member.size == 0:
            return 0
        if file.flags & FILE_INLINE:
            return self.lay_inline(index, file, fault)
        if member.map_size > 0 and self.lay_map(member, file, fault) < 0:
            return fault.code
        return self.lay_content(index, file, fault)

    cdef int lay_map(self, const member_t* member, const file_t* file, fault_t* fault) noexcept nogil:
        cdef uint8_t text[MAP_CHUNK + MAP_LINE]
        cdef sparse_map_t sparse
        cdef sink_t sink
        cdef uint64_t laid = 0
        cdef bint more = True
        open_sparse_map(&sparse, &self.plan.columns, file, member)
        while more:
            sink.data = text
            sink.capacity = sizeof(text)
            sink.size = 0
            while more and sink.size < MAP_CHUNK:
                more = next_map_line(&sparse, &sink)
            if self.filler.place_bytes(text, sink.size, fault) < 0:
                return fault.code
            laid += sink.size
        return self.filler.place_zeros(member.map_size - laid, fault)

    cdef int lay_content(self, uint32_t index, const file_t* file, fault_t* fault) noexcept nogil:
        """Every run of the member; the last one is padded, and a hole behind it counted."""
        cdef const member_t* member = &self.plan.members[index]
        cdef runs_t runs
        cdef run_t run, following
        cdef uint64_t end = member.start
        cdef bint more
        open_runs(&runs, &self.plan.columns, file, member.start, member.size)
        more = next_run(&runs, &following)
        while more:
            run = following
            more = next_run(&runs, &following)
            if self.filler.place_run(index, run.physical, run.size, run.logical - end, not more, fault) < 0:
                return fault.code
            end = run.logical + run.size
        if end < member.start + member.size:
            return self.filler.place_gap(index, member.start + member.size - end, fault)
        return 0

    cdef int lay_inline(self, uint32_t index, const file_t* file, fault_t* fault) noexcept nogil:
        cdef const member_t* member = &self.plan.members[index]
        cdef uint32_t held
        cdef const uint8_t* data = record_target(self.plan.columns.heap + file.heap_offset, &held)
        if member.start > held or member.size > held - member.start:
            return set_fault(fault, FAULT_COUNT_MISMATCH, b"laying out a member, inode", file.inode, 0,
                             b"its inode holds fewer bytes than its size says")
        self.filler.bytes_read += member.size
        return self.filler.place_memory(index, data + member.start, member.size, fault)

    cdef int lay_control(self, uint64_t segment, bint manifest, fault_t* fault) noexcept nogil:
        cdef const segment_t* planned = &self.plan.segments[segment]
        cdef uint64_t size = planned.manifest_size if manifest else planned.cksums_size
        cdef header_t header
        self.filler.pax.describe_control(b"manifest" if manifest else b"cksums", planned.number, size,
                                         self.plan.created, &header)
        if self.lay_headers(&header, self.plan.control_header, fault) < 0:
            return fault.code
        if self.filler.place_text(PIECE_MANIFEST if manifest else PIECE_CKSUMS, <uint32_t>segment, size, fault) < 0:
            return fault.code
        return self.filler.place_zeros(padding(size), fault)

    # Writing: the other thread.

    def _write(self, writing):
        with nogil:
            self.writer_rc = self.write_out()
            if self.writer_rc != 0:
                gate_stop(&self.filler.gate)
        writing.release()

    cdef int write_out(self) noexcept nogil:
        """0 when all is written and synchronised, EARLY_WARNING when it stopped for that, below 0 a fault."""
        cdef uint64_t index = 0, known = 0, i
        cdef int rc
        for i in range(self.first_segment, self.plan.segment_count):
            self.segment = i
            self.segment_blocks = 0
            rc = self.write_segment(i, &index, &known, &self.writer_fault)
            if rc != 0:
                return rc
            rc = self.close_segment(i, &self.writer_fault)
            if rc < 0:
                return rc
            if self.early_warning and not self.past_warning and i + 1 < self.plan.segment_count:
                return EARLY_WARNING
        return 0

    cdef uint64_t await_blocks(self, uint64_t index) noexcept nogil:
        """How many blocks are ready: more than index unless no more come. An empty ring fills to its mark first."""
        cdef uint64_t ready = gate_await(&self.filler.gate, index, 0)
        if ready > index:
            return ready
        if index > 0 and not self.filler.gate.finished and not gate_stopped(&self.filler.gate):
            self.underruns += 1
        return gate_await(&self.filler.gate, index, self.high_water)

    cdef int write_segment(self, uint64_t segment, uint64_t* index, uint64_t* known, fault_t* fault) noexcept nogil:
        cdef uint64_t block
        cdef int rc
        for block in range(self.plan.segments[segment].blocks):
            if index[0] >= known[0]:
                known[0] = self.await_blocks(index[0])
            if index[0] >= known[0] or gate_stopped(&self.filler.gate):
                return set_fault(fault, FAULT_CANCELLED, b"writing to tape", 0, 0, NULL)
            if segment > self.first_segment or block >= self.first_block:
                rc = self.write_one(segment, block, index[0], fault)
                if rc < 0:
                    return rc
            self.segment_blocks += 1
            index[0] += 1
            gate_release(&self.filler.gate, index[0])
            if self.early_warning and not self.past_warning and block + 1 < self.plan.segments[segment].blocks:
                return EARLY_WARNING
        return 0

    cdef int write_one(self, uint64_t segment, uint64_t block, uint64_t index, fault_t* fault) noexcept nogil:
        cdef uint64_t planned = self.plan.segments[segment].first_object + block
        cdef int rc
        if self.tape.object_id != planned:
            return set_fault(fault, FAULT_POSITION, b"writing a tape block", self.tape.object_id, planned,
                             b"the plan says another object number than the drive")
        rc = self.tape.write_block(self.filler.ring.slot(index), self.plan.block_size, fault)
        if rc < 0:
            return rc
        if rc == EARLY_WARNING:
            self.early_warning = True
        elif rc == PROGRAMMABLE_EARLY_WARNING:
            self.programmable_early_warning = True
        self.blocks_written += 1
        self.bytes_written += self.plan.block_size
        self.objects_written = self.tape.object_id
        return 0

    cdef int close_segment(self, uint64_t segment, fault_t* fault) noexcept nogil:
        """The filemark. It is a synchronise where the plan says so, and where the run may end with it."""
        cdef bint synchronise = self.plan.segments[segment].synchronise or self.early_warning
        cdef int rc = self.tape.write_filemarks(1, not synchronise, fault)
        if rc < 0:
            return rc
        if rc == EARLY_WARNING:
            self.early_warning = True
        self.objects_written = self.tape.object_id
        if synchronise:
            self.objects_confirmed = self.tape.object_id
            self.segments_confirmed = segment + 1
        return 0

    # The Python face.

    cdef int check_counts(self, fault_t* fault) noexcept nogil:
        """Bytes in equal bytes out, or the run has failed."""
        cdef uint64_t i, data = 0, blocks = 0
        for i in range(self.first_segment, self.plan.segment_count):
            data += self.plan.segments[i].data_bytes
            blocks += self.plan.segments[i].blocks
        if self.filler.bytes_read != data:
            return set_fault(fault, FAULT_COUNT_MISMATCH, b"streaming", 0, self.filler.bytes_read,
                             b"another number of bytes was read than planned")
        if self.blocks_written != blocks - self.first_block or self.filler.ready != blocks:
            return set_fault(fault, FAULT_COUNT_MISMATCH, b"streaming", 0, self.blocks_written,
                             b"another number of blocks was written than planned")
        return 0

    cdef int raise_outcome(self) except -1:
        cdef fault_t fault
        interrupt, self.filler.interrupt = self.filler.interrupt, None
        if interrupt is not None:
            raise interrupt
        # The side that was stopped by the other says "cancelled": the other one knows why.
        if self.writer_rc < 0 and self.writer_rc != FAULT_CANCELLED:
            raise_fault(&self.writer_fault)
        if self.layout_rc < 0 and self.layout_rc != FAULT_CANCELLED:
            raise_fault(&self.layout_fault)
        if self.writer_rc == EARLY_WARNING:
            return STOPPED_EARLY_WARNING
        if self.layout_rc < 0 or self.writer_rc < 0 or self.cancelled:
            set_fault(&fault, FAULT_CANCELLED, b"streaming", 0, 0, NULL)
            raise_fault(&fault)
        if self.check_counts(&fault) < 0:
            raise_fault(&fault)
        return STOPPED_EARLY_WARNING if self.early_warning and not self.past_warning else FINISHED

    cdef int prepare(self, uint64_t first_segment, uint64_t first_block, bint past_early_warning) except -1:
        cdef fault_t fault
        if self.closed or self.running:
            refuse(b"the stream is closed" if self.closed else b"the stream is running")
        if self.plan.segment_count == 0 or first_segment >= self.plan.segment_count:
            refuse(b"the plan has no such segment")
        if first_block > self.plan.segments[first_segment].blocks:
            refuse(b"the segment has no such block")
        self.first_segment = self.segment = first_segment
        self.first_block = first_block
        self.past_warning = past_early_warning
        self.layout_rc = self.writer_rc = 0
        self.segment_blocks = self.blocks_written = self.bytes_written = self.underruns = self.members_laid = 0
        self.early_warning = self.programmable_early_warning = False
        self.objects_written = self.objects_confirmed = self.tape.object_id
        self.segments_confirmed = first_segment
        self.seconds = 0
        if self.filler.start(first_segment, &fault) < 0:
            raise_fault(&fault)
        if self.cancelled:
            gate_stop(&self.filler.gate)
        self.began = gate_now()
        return 0

    def run(self, uint64_t first_segment=0, uint64_t first_block=0, *, bint past_early_warning=False):
        self.prepare(first_segment, first_block, past_early_warning)
        writing = threading.Lock()
        writing.acquire()
        writer = threading.Thread(target=self._write, args=(writing,), name="splitreel-writer", daemon=True)
        self.running = True
        try:
            writer.start()
            with nogil:
                self.layout_rc = self.lay_out()
        finally:
            interrupt = self._join(writer, writing)
            self.seconds = gate_now() - self.began
            self.running = False
        if interrupt is not None and self.filler.interrupt is None:
            self.filler.interrupt = interrupt
        return self.raise_outcome()

    def _join(self, thread, writing):
        """Wait for the writing thread, whatever the user presses: memory is in use until it ends.

        Not by Thread.join: up to Python 3.12 one that a signal interrupts takes the running thread for ended.
        """
        interrupt = None
        while True:
            try:
                # A signal that came while the GIL was released strikes at the first Python call: in here, not outside.
                if thread.ident is not None:
                    writing.acquire()
                return interrupt
            except BaseException as error:
                interrupt = error
                gate_stop(&self.filler.gate)

    def cancel(self):
        self.cancelled = True
        gate_stop(&self.filler.gate)

    def progress(self):
        cdef BlockFiller filler = self.filler
        return {
            "bytes_read": filler.bytes_read,
            "bytes_written": self.bytes_written,
            "blocks": self.blocks_written,
            "objects_written": self.objects_written,
            "objects_confirmed": self.objects_confirmed,
            "segments_confirmed": self.segments_confirmed,
            "segment": self.segment,
            "segment_blocks": self.segment_blocks,
            "members": self.members_laid,
            "underruns": self.underruns,
            "ring_fill": filler.gate.ready - filler.gate.through,
            "ring_blocks": filler.gate.depth,
            "reader_wait": filler.gate.producer_wait,
            "writer_wait": filler.gate.consumer_wait,
            "reads_retried": filler.retried,
            "early_warning": self.early_warning,
            "programmable_early_warning": self.programmable_early_warning,
            "seconds": gate_now() - self.began if self.running else self.seconds,
        }

    @property
    def crc32c(self):
        return self.filler.run_crc

    @property
    def engine(self):
        return self.filler.engine.name

    @property
    def stopped_at(self):
        cdef const segment_t* segment
        cdef uint64_t written, members = 0, kept
        cdef uint32_t i
        if not self.early_warning or self.running:
            return None
        segment = &self.plan.segments[self.segment]
        written = self.segment_blocks * self.plan.block_size
        for i in range(segment.first_member, segment.first_member + segment.members):
            if self.member_end(i) > written:
                break
            members += 1
        kept = 0
        if members > 0:
            kept = self.member_end(segment.first_member + <uint32_t>members - 1)
        return {
            "segment": self.segment,
            "blocks": self.segment_blocks,
            "complete": self.segments_confirmed > self.segment,
            "members": members,
            "rewrite_block": kept // self.plan.block_size,
            "object": segment.first_object + kept // self.plan.block_size,
        }

    cdef uint64_t member_end(self, uint32_t index) noexcept nogil:
        """Byte of its segment at which a member ends, its padding counted."""
        cdef const member_t* member = &self.plan.members[index]
        return (<uint64_t>member.block * self.plan.block_size + member.offset + member.header + member.stored
                + padding(member.stored))

    def close(self):
        if self.running:
            refuse(b"the stream is running")
        self.closed = True
        with nogil:
            self.filler.engine.close_engine()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


cdef int refuse(const char* why) except -1:
    cdef fault_t fault
    set_fault(&fault, FAULT_MISUSE, b"streaming", 0, 0, why)
    raise_fault(&fault)
    return -1
