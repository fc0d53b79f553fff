"""stream_fill fills tape blocks in order: reads complete as they like, blocks are handed over in tape order.

It knows neither drives nor the order of members. Every byte of every block belongs to a piece; pieces stand in tape
order. Sums are taken once, when a piece is complete and in cache, and joined when all before it is complete.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from splitreel.core.checksum cimport cksum_combine, cksum_zeros, crc32c_combine, crc32c_update, crc32c_zeros
from splitreel.core.device cimport BlockDevice, BufferRing
from splitreel.core.engine cimport ReadEngine, read_completion_t
from splitreel.core.fault cimport FAULT_CANCELLED, FAULT_MISUSE, FAULT_NO_MEMORY, fault_t, raise_fault, set_fault
from splitreel.core.manifest cimport ManifestWriter, segment_text_t
from splitreel.core.pages cimport PageChecker
from splitreel.core.pax cimport PaxWriter
from splitreel.core.plan cimport Plan, segment_t
from splitreel.core.stream_pieces cimport PIECE_DATA, PIECE_MANIFEST, PIECE_PLAIN, piece_t, read_t
from splitreel.core.stream_pieces cimport check_piece, repeat_read, sum_piece
from splitreel.core.stream_reader cimport gate_close, gate_now, gate_open, gate_publish, gate_reset, gate_room
from splitreel.core.stream_reader cimport gate_stopped

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef extern from "<endian.h>" nogil:
    uint32_t htole32(uint32_t value)

cdef enum:
    UNIT = 512                                     # of an archive
    PIECES = 8192                                  # laid and not passed on: half a megabyte
    BOUNCE = 262144                                # bytes of one read that several pieces share
    BOUNCE_ALIGNMENT = 65536                       # no device has larger logical blocks
    BOUNCES = 48                                   # of these reads in flight: 12 MiB
    GATHER_PIECE = 65536                           # up to this size pieces share a read with their neighbours
    GATHER_GAP = 16384                             # bytes read for nothing, rather than one request more
    FLUSH_EVERY = 8                                # requests handed to the kernel at a time
    REAPED = 64
    NO_READ = 0xFFFFFFFF
    NO_BOUNCE = 0xFFFFFFFF
    NO_MEMBER = 0xFFFFFFFF

cdef double LOOK_EVERY = 0.5                       # seconds between looks for signals


cdef class BlockFiller:
    """The reading side of a stream: a ring of tape blocks, and what is on its way into them. Used by StreamWriter."""

    def __cinit__(self, Plan plan not None, BlockDevice device not None, uint32_t ring_blocks, uint32_t depth,
                  str engine, PageChecker pages):
        cdef fault_t fault
        self.plan = plan
        self.device = device
        self.pages = pages
        self.block_size = plan.block_size
        self.pax = PaxWriter(plan.map)
        self.manifest = ManifestWriter(self.pax, plan.backup, plan.block_size)
        self.ring = BufferRing(ring_blocks, plan.block_size)
        self.engine = ReadEngine.open(device, depth, engine)
        self.mask = max(device.logical_block_size, <uint32_t>1) - 1
        self.piece_capacity = PIECES
        self.pieces = <piece_t*>calloc(PIECES, sizeof(piece_t))
        self.reads = <read_t*>calloc(depth, sizeof(read_t))
        self.free_reads = <uint32_t*>calloc(depth, sizeof(uint32_t))
        self.block_crcs = <uint32_t*>calloc(plan.largest_segment_blocks + 1, sizeof(uint32_t))
        self.cksums = <uint32_t*>calloc(plan.largest_segment_members + 1, sizeof(uint32_t))
        self.bounce_count = min(depth, <uint32_t>BOUNCES)
        self.free_bounces = <uint32_t*>calloc(self.bounce_count, sizeof(uint32_t))
        if posix_memalign(<void**>&self.bounce, BOUNCE_ALIGNMENT, <size_t>self.bounce_count * BOUNCE) != 0:
            self.bounce = NULL
        if (self.pieces == NULL or self.reads == NULL or self.free_reads == NULL or self.free_bounces == NULL
                or self.block_crcs == NULL or self.cksums == NULL or self.bounce == NULL
                or gate_open(&self.gate, ring_blocks) < 0):
            set_fault(&fault, FAULT_NO_MEMORY, b"preparing a stream", 0, 0, NULL)
            raise_fault(&fault)

    def __dealloc__(self):
        if self.engine is not None:
            with nogil:
                self.engine.close_engine()         # until the last read is back the kernel writes into what follows
        gate_close(&self.gate)
        free(self.pieces)
        free(self.reads)
        free(self.free_reads)
        free(self.bounce)
        free(self.free_bounces)
        free(self.block_crcs)
        free(self.cksums)

    cdef int start(self, uint64_t segment, fault_t* fault) noexcept nogil:
        """An empty ring, at the first block of a segment."""
        cdef uint32_t i
        if self.engine.in_flight > 0:
            return set_fault(fault, FAULT_MISUSE, b"starting a stream", 0, 0, b"reads are in flight")
        gate_reset(&self.gate)
        if self.pages is not None:
            self.pages.member = NO_MEMBER
        self.head = self.tail = self.lay_block = self.ready = self.segment_block = self.bytes_read = 0
        self.lay_offset = self.block_fill = self.block_crc = self.run_crc = self.unflushed = 0
        self.is_pending = False
        self.segment = segment
        self.text_kind = PIECE_PLAIN
        self.free_count = self.engine.depth
        for i in range(self.engine.depth):
            self.free_reads[i] = i
        self.free_bounce_count = self.bounce_count
        for i in range(self.bounce_count):
            self.free_bounces[i] = i
        memset(self.cksums, 0, (self.plan.largest_segment_members + 1) * sizeof(uint32_t))
        self.next_look = gate_now() + LOOK_EVERY
        return 0

    # Room.

    cdef int check_signals(self) noexcept nogil:
        with gil:
            try:
                PyErr_CheckSignals()
            except BaseException as error:
                self.interrupt = error
                return -1
        return 0

    cdef int look(self, fault_t* fault) noexcept nogil:
        """Below 0 when the other side or the user wants an end. Signals are looked for twice a second."""
        cdef double now
        if gate_stopped(&self.gate):
            return set_fault(fault, FAULT_CANCELLED, b"streaming", 0, 0, NULL)
        now = gate_now()
        if now >= self.next_look:
            self.next_look = now + LOOK_EVERY
            if self.check_signals() < 0:
                return set_fault(fault, FAULT_CANCELLED, b"streaming", 0, 0, NULL)
        return 0

    cdef int wait_room(self, fault_t* fault) noexcept nogil:
        """Waits until the block to be laid next may be; meanwhile reads complete."""
        if self.look(fault) < 0 or self.service(0, fault) < 0:
            return fault.code
        while not gate_room(&self.gate, self.lay_block, 0):
            if self.look(fault) < 0:
                return fault.code
            if self.head < self.tail:
                if self.progress(fault) < 0:
                    return fault.code
            else:
                gate_room(&self.gate, self.lay_block, LOOK_EVERY)
        return 0

    cdef int reserve(self, uint64_t wanted, uint8_t** place, uint64_t* got, fault_t* fault) noexcept nogil:
        if self.lay_offset == 0 and self.wait_room(fault) < 0:
            return fault.code
        place[0] = self.ring.slot(self.lay_block) + self.lay_offset
        got[0] = min(wanted, <uint64_t>(self.block_size - self.lay_offset))
        return 0

    cdef void advance(self, uint64_t size) noexcept nogil:
        self.lay_offset += <uint32_t>size
        if self.lay_offset == self.block_size:
            self.lay_block += 1
            self.lay_offset = 0

    cdef int new_piece(self, piece_t** piece, fault_t* fault) noexcept nogil:
        """A zeroed piece, in the queue; it must be filled in before anything is serviced."""
        while self.tail - self.head == self.piece_capacity:
            if self.look(fault) < 0 or self.progress(fault) < 0:
                return fault.code
        piece[0] = &self.pieces[self.tail % self.piece_capacity]
        memset(piece[0], 0, sizeof(piece_t))
        self.tail += 1
        return 0

    # Laying.

    cdef int place_bytes(self, const uint8_t* data, uint64_t size, fault_t* fault) noexcept nogil:
        return self.place_plain(PIECE_PLAIN, 0, data, size, fault)

    cdef int place_zeros(self, uint64_t size, fault_t* fault) noexcept nogil:
        return self.place_plain(PIECE_PLAIN, 0, NULL, size, fault)

    cdef int place_text(self, int kind, uint32_t segment, uint64_t size, fault_t* fault) noexcept nogil:
        """Keeps the room of a text that is made when its turn comes: what follows it can be read meanwhile."""
        return self.place_plain(kind, segment, NULL, size, fault)

    cdef int place_plain(self, int kind, uint32_t owner, const uint8_t* data, uint64_t size,
                         fault_t* fault) noexcept nogil:
        cdef uint8_t* place
        cdef uint64_t part
        cdef piece_t* piece
        while size > 0:
            if self.reserve(size, &place, &part, fault) < 0 or self.new_piece(&piece, fault) < 0:
                return fault.code
            if data != NULL:
                memcpy(place, data, part)
                data += part
            elif kind == PIECE_PLAIN:
                memset(place, 0, part)
            piece.place = place
            piece.size = <uint32_t>part
            piece.kind = <uint8_t>kind
            piece.owner = owner
            self.advance(part)
            size -= part
        return 0

    cdef int place_memory(self, uint32_t member, const uint8_t* data, uint64_t size, fault_t* fault) noexcept nogil:
        """Content that is in memory already: of a file whose data stand in its inode. Padded to the archive's unit."""
        cdef uint8_t* place
        cdef uint64_t part
        cdef piece_t* piece
        while size > 0:
            if self.reserve(size, &place, &part, fault) < 0 or self.new_piece(&piece, fault) < 0:
                return fault.code
            memcpy(place, data, part)
            piece.place = place
            piece.size = <uint32_t>part
            piece.pad = <uint32_t>(-part % UNIT) if part == size else 0
            piece.kind = PIECE_DATA
            piece.owner = member
            sum_piece(piece)
            self.advance(part + piece.pad)
            data += part
            size -= part
        return 0

    cdef int place_gap(self, uint32_t member, uint64_t gap, fault_t* fault) noexcept nogil:
        """The hole at the end of a member: no bytes on tape, but zeros in its checksums."""
        cdef piece_t* piece
        if self.new_piece(&piece, fault) < 0:
            return fault.code
        piece.kind = PIECE_DATA
        piece.owner = member
        piece.gap = gap
        return 0

    cdef int place_run(self, uint32_t member, uint64_t offset, uint64_t size, uint64_t gap, bint last,
                       fault_t* fault) noexcept nogil:
        """Starts reading size bytes of the device to where they belong; the last run of a member is padded."""
        cdef uint8_t* place
        cdef uint64_t part
        cdef piece_t* piece
        cdef bint straight, aligned
        cdef uint32_t pad
        while size > 0:
            if self.reserve(size, &place, &part, fault) < 0 or self.new_piece(&piece, fault) < 0:
                return fault.code
            pad = <uint32_t>(-part % UNIT) if last and part == size else 0
            aligned = ((<uint64_t>place | offset) & self.mask) == 0
            straight = aligned and ((part + self.mask) & ~<uint64_t>self.mask) <= part + pad
            if not straight and aligned and part > GATHER_PIECE:
                part &= ~<uint64_t>self.mask
                pad = 0
                straight = True
            elif not straight and part > BOUNCE // 2:
                part = BOUNCE // 2
                pad = 0
            piece.place = place
            piece.device_offset = offset
            piece.gap = gap
            piece.size = <uint32_t>part
            piece.pad = pad
            piece.kind = PIECE_DATA
            piece.owner = member
            piece.waiting = True
            piece.read = NO_READ
            self.advance(part + pad)
            if straight and part > GATHER_PIECE:
                if self.submit_straight(piece, fault) < 0:
                    return fault.code
            elif self.gather(piece, fault) < 0:
                return fault.code
            offset += part
            size -= part
            gap = 0
        return 0

    # Reading.

    cdef int open_read(self, uint64_t start, uint64_t end, bint shared, fault_t* fault) noexcept nogil:
        """A free slot for a read that fills the piece just laid; waits for one. Returns it, or a fault."""
        cdef uint32_t slot
        while self.free_count == 0 or (shared and self.free_bounce_count == 0):
            if self.look(fault) < 0 or self.service(1, fault) < 0:
                return fault.code
        self.free_count -= 1
        slot = self.free_reads[self.free_count]
        self.reads[slot].first = self.reads[slot].last = self.tail - 1
        self.reads[slot].start = start & ~<uint64_t>self.mask
        self.reads[slot].end = (end + self.mask) & ~<uint64_t>self.mask
        self.reads[slot].straight = not shared
        self.reads[slot].bounce = NO_BOUNCE
        if shared:
            self.free_bounce_count -= 1
            self.reads[slot].bounce = self.free_bounces[self.free_bounce_count]
        self.pieces[(self.tail - 1) % self.piece_capacity].read = slot
        return <int>slot

    cdef int submit_straight(self, piece_t* piece, fault_t* fault) noexcept nogil:
        cdef int slot = self.open_read(piece.device_offset, piece.device_offset + piece.size, False, fault)
        if slot < 0:
            return slot
        return self.submit(<uint32_t>slot, piece.place, fault)

    cdef int gather(self, piece_t* piece, fault_t* fault) noexcept nogil:
        """Adds a small piece to the pending read when it lies close behind it on the device, else opens another."""
        cdef uint64_t start = piece.device_offset & ~<uint64_t>self.mask
        cdef uint64_t end = (piece.device_offset + piece.size + self.mask) & ~<uint64_t>self.mask
        cdef read_t* read = &self.reads[self.pending]
        cdef int slot
        if (self.is_pending and start >= read.start and start <= read.end + GATHER_GAP
                and max(end, read.end) - read.start <= BOUNCE):
            read.end = max(end, read.end)          # shared extents may lie inside what is read already
            read.last = self.tail - 1
            piece.read = self.pending
            return 0
        if self.flush_pending(fault) < 0:
            return fault.code
        slot = self.open_read(start, end, True, fault)
        if slot < 0:
            return slot
        self.pending = <uint32_t>slot
        self.is_pending = True
        return 0

    cdef int flush_pending(self, fault_t* fault) noexcept nogil:
        """Submits the pending read: straight to its place when it has one piece and that is aligned."""
        cdef read_t* read = &self.reads[self.pending]
        cdef piece_t* piece = &self.pieces[read.first % self.piece_capacity]
        if not self.is_pending:
            return 0
        self.is_pending = False
        if (read.first == read.last and (<uint64_t>piece.place & self.mask) == 0 and read.start == piece.device_offset
                and read.end - read.start <= <uint64_t>piece.size + piece.pad):
            read.straight = True
            return self.submit(self.pending, piece.place, fault)
        return self.submit(self.pending, self.bounce + <uint64_t>read.bounce * BOUNCE, fault)

    cdef int submit(self, uint32_t slot, uint8_t* destination, fault_t* fault) noexcept nogil:
        cdef read_t* read = &self.reads[slot]
        cdef int rc = self.engine.submit(read.start, destination, <uint32_t>(read.end - read.start), slot, fault)
        if rc < 0:
            return rc
        self.unflushed += 1
        if self.unflushed < FLUSH_EVERY:
            return 0
        self.unflushed = 0
        return self.engine.flush(fault)

    cdef int progress(self, fault_t* fault) noexcept nogil:
        return self.service(1 if self.engine.in_flight > 0 or self.is_pending else 0, fault)

    cdef int service(self, uint32_t minimum, fault_t* fault) noexcept nogil:
        """Takes what has been read, at least `minimum` requests of it, and passes on what is complete."""
        cdef read_completion_t done[REAPED]
        cdef int count, i
        if minimum > 0:
            if self.flush_pending(fault) < 0:
                return fault.code
            if self.engine.in_flight == 0:
                return set_fault(fault, FAULT_MISUSE, b"streaming", 0, 0, b"nothing is in flight to wait for")
        self.unflushed = 0
        count = self.engine.reap(done, REAPED, minimum, fault)
        if count < 0:
            return count
        for i in range(count):
            if self.complete_read(<uint32_t>done[i].tag, done[i].os_errno, fault) < 0:
                return fault.code
        return self.retire(fault)

    cdef int complete_read(self, uint32_t slot, int os_errno, fault_t* fault) noexcept nogil:
        cdef read_t* read = &self.reads[slot]
        cdef const uint8_t* bounce = self.bounce
        cdef piece_t* piece
        cdef uint64_t i
        if read.bounce != NO_BOUNCE:
            bounce += <uint64_t>read.bounce * BOUNCE
            self.free_bounces[self.free_bounce_count] = read.bounce
            self.free_bounce_count += 1
        for i in range(read.first, read.last + 1):
            piece = &self.pieces[i % self.piece_capacity]
            if not piece.waiting or piece.read != slot:
                continue
            if os_errno != 0:
                if repeat_read(self.plan, self.device, piece, os_errno, fault) < 0:
                    return fault.code
                self.retried += 1
            elif not read.straight:
                memcpy(piece.place, bounce + (piece.device_offset - read.start), piece.size)
            sum_piece(piece)
            piece.waiting = False
            self.bytes_read += piece.size
        self.free_reads[self.free_count] = slot
        self.free_count += 1
        return 0

    # Passing on.

    cdef int retire(self, fault_t* fault) noexcept nogil:
        cdef piece_t* piece
        cdef uint64_t ready = self.ready
        while self.head < self.tail:
            piece = &self.pieces[self.head % self.piece_capacity]
            if piece.waiting:
                break
            if piece.kind == PIECE_DATA:
                if self.pages is not None:
                    check_piece(self.pages, self.plan, piece)
                self.retire_data(piece)
            else:
                if piece.kind != PIECE_PLAIN and self.retire_text(piece, fault) < 0:
                    return fault.code
                self.block_crc = crc32c_update(self.block_crc, piece.place, piece.size)
            self.head += 1
            self.block_fill += piece.size + piece.pad
            if self.block_fill == self.block_size:
                self.finish_block()
        if self.ready != ready:
            gate_publish(&self.gate, self.ready, False)
        return 0

    cdef void retire_data(self, piece_t* piece) noexcept nogil:
        cdef uint32_t* crc = &self.plan.crc32c[piece.owner]
        cdef uint32_t* cksum = &self.cksums[piece.owner - self.plan.segments[self.segment].first_member]
        if piece.gap > 0:
            crc[0] = crc32c_zeros(crc[0], piece.gap)
            cksum[0] = cksum_zeros(cksum[0], piece.gap)
        if piece.size > 0:
            crc[0] = crc32c_combine(crc[0], piece.crc, piece.size)
            cksum[0] = cksum_combine(cksum[0], piece.cksum, piece.size)
            self.block_crc = crc32c_combine(self.block_crc, piece.whole, <uint64_t>piece.size + piece.pad)

    cdef void begin_text(self, piece_t* piece) noexcept nogil:
        cdef const segment_t* segment = &self.plan.segments[piece.owner]
        cdef segment_text_t text
        text.members = self.plan.members + segment.first_member
        text.crc32c = self.plan.crc32c + segment.first_member
        text.cksums = self.cksums
        text.block_crcs = self.block_crcs
        text.member_count = segment.members
        text.block_count = segment.manifest_start // self.block_size
        text.number = segment.number
        text.manifest_size = segment.manifest_size
        text.cksums_size = segment.cksums_size
        if piece.kind == PIECE_MANIFEST:
            self.manifest.begin_manifest(&text)
        else:
            self.manifest.begin_cksums(&text)
        self.text_kind = piece.kind
        self.text_segment = piece.owner

    cdef int retire_text(self, piece_t* piece, fault_t* fault) noexcept nogil:
        """Fills a piece with the next bytes of its text; the first piece of a text begins it."""
        if self.text_kind != piece.kind or self.text_segment != piece.owner:
            self.begin_text(piece)
        return self.manifest.fill(piece.place, piece.size, fault)

    cdef void finish_block(self) noexcept nogil:
        cdef segment_t* segment = &self.plan.segments[self.segment]
        self.block_crcs[self.segment_block] = htole32(self.block_crc)
        self.run_crc = crc32c_update(self.run_crc, &self.block_crcs[self.segment_block], sizeof(uint32_t))
        self.block_crcs[self.segment_block] = self.block_crc
        self.segment_block += 1
        self.ready += 1
        self.block_fill = self.block_crc = 0
        if self.segment_block == segment.blocks:
            segment.digest = self.digest_blocks(segment.blocks)
            memset(self.cksums, 0, segment.members * sizeof(uint32_t))
            self.segment_block = 0
            self.segment += 1

    cdef uint32_t digest_blocks(self, uint64_t count) noexcept nogil:
        """CRC32C over the checksums of a segment's blocks, little-endian."""
        cdef uint64_t i
        for i in range(count):
            self.block_crcs[i] = htole32(self.block_crcs[i])
        return crc32c_update(0, self.block_crcs, count * sizeof(uint32_t))

    cdef int finish(self, fault_t* fault) noexcept nogil:
        """Waits until all that was laid is passed on; then no block follows."""
        while self.head < self.tail:
            if self.look(fault) < 0 or self.progress(fault) < 0:
                return fault.code
        if self.pages is not None:
            self.pages.leave()
        gate_publish(&self.gate, self.ready, True)
        return 0

    cdef void abandon(self) noexcept nogil:
        """Waits for the reads in flight and forgets what was laid."""
        self.engine.drain()
        if self.pages is not None:
            self.pages.leave()
        self.head = self.tail
        self.is_pending = False
