# BlockFiller: tape blocks filled in order, from memory, from a device with many reads in flight, and from checksums.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice, BufferRing
from splitreel.core.engine cimport ReadEngine
from splitreel.core.fault cimport fault_t
from splitreel.core.manifest cimport ManifestWriter
from splitreel.core.pages cimport PageChecker
from splitreel.core.pax cimport PaxWriter
from splitreel.core.plan cimport Plan
from splitreel.core.stream_pieces cimport piece_t, read_t
from splitreel.core.stream_reader cimport gate_t

cdef class BlockFiller:
    # One thread: the one that lays blocks out. The other side sees the ring through the gate.
    cdef Plan plan
    cdef PaxWriter pax
    cdef ManifestWriter manifest
    cdef BlockDevice device
    cdef PageChecker pages                         # None: no pages are checked
    cdef ReadEngine engine
    cdef BufferRing ring
    cdef gate_t gate
    cdef uint32_t block_size, mask                 # mask: alignment of the device - 1
    # Pieces laid and not yet passed on: a ring of piece_capacity, by running number.
    cdef piece_t* pieces
    cdef uint64_t piece_capacity, head, tail
    # Reads; free slots are a stack. The last opened one may still grow (pending).
    cdef read_t* reads
    cdef uint32_t* free_reads
    cdef uint32_t free_count, unflushed
    cdef uint8_t* bounce
    cdef uint32_t* free_bounces                    # a stack
    cdef uint32_t bounce_count, free_bounce_count
    cdef bint is_pending
    cdef uint32_t pending
    # Where the next byte is laid.
    cdef uint64_t lay_block
    cdef uint32_t lay_offset
    # What has been passed on, in tape order.
    cdef uint64_t ready                            # whole blocks
    cdef uint64_t segment, segment_block           # index of the segment, block in it
    cdef uint32_t block_fill, block_crc
    cdef uint32_t* block_crcs                      # of the segment at hand
    cdef uint32_t* cksums                          # registers of its members
    cdef uint32_t run_crc                          # CRC32C of all block checksums so far
    cdef uint64_t bytes_read                       # of content, from the device or from inodes
    cdef uint64_t retried                          # reads that failed and were repeated
    # The text at hand.
    cdef uint64_t text_segment
    cdef int text_kind
    # Signals and stopping.
    cdef object interrupt                          # what a signal handler raised
    cdef double next_look

    cdef int start(self, uint64_t segment, fault_t* fault) noexcept nogil
    cdef int place_bytes(self, const uint8_t* data, uint64_t size, fault_t* fault) noexcept nogil
    cdef int place_zeros(self, uint64_t size, fault_t* fault) noexcept nogil
    cdef int place_text(self, int kind, uint32_t segment, uint64_t size, fault_t* fault) noexcept nogil
    cdef int place_plain(self, int kind, uint32_t owner, const uint8_t* data, uint64_t size,
                         fault_t* fault) noexcept nogil
    cdef int place_memory(self, uint32_t member, const uint8_t* data, uint64_t size, fault_t* fault) noexcept nogil
    cdef int place_run(self, uint32_t member, uint64_t offset, uint64_t size, uint64_t gap, bint last,
                       fault_t* fault) noexcept nogil
    cdef int place_gap(self, uint32_t member, uint64_t gap, fault_t* fault) noexcept nogil
    cdef int finish(self, fault_t* fault) noexcept nogil
    cdef void abandon(self) noexcept nogil

    cdef int reserve(self, uint64_t wanted, uint8_t** place, uint64_t* got, fault_t* fault) noexcept nogil
    cdef void advance(self, uint64_t size) noexcept nogil
    cdef int wait_room(self, fault_t* fault) noexcept nogil
    cdef int look(self, fault_t* fault) noexcept nogil
    cdef int check_signals(self) noexcept nogil
    cdef int new_piece(self, piece_t** piece, fault_t* fault) noexcept nogil
    cdef int open_read(self, uint64_t start, uint64_t end, bint shared, fault_t* fault) noexcept nogil
    cdef int submit_straight(self, piece_t* piece, fault_t* fault) noexcept nogil
    cdef int gather(self, piece_t* piece, fault_t* fault) noexcept nogil
    cdef int flush_pending(self, fault_t* fault) noexcept nogil
    cdef int submit(self, uint32_t slot, uint8_t* destination, fault_t* fault) noexcept nogil
    cdef int progress(self, fault_t* fault) noexcept nogil     # one read more, if any is in flight
    cdef int service(self, uint32_t minimum, fault_t* fault) noexcept nogil
    cdef int complete_read(self, uint32_t slot, int os_errno, fault_t* fault) noexcept nogil
    cdef int retire(self, fault_t* fault) noexcept nogil
    cdef void retire_data(self, piece_t* piece) noexcept nogil
    cdef int retire_text(self, piece_t* piece, fault_t* fault) noexcept nogil
    cdef void begin_text(self, piece_t* piece) noexcept nogil
    cdef void finish_block(self) noexcept nogil
    cdef uint32_t digest_blocks(self, uint64_t count) noexcept nogil
