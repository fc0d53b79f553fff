# stream_pieces: what tape blocks are made of while they are being filled.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport fault_t
from splitreel.core.pages cimport PageChecker
from splitreel.core.plan cimport Plan

cdef enum piece_kind_t:
    PIECE_PLAIN                                    # headers, zeros: there when it is laid
    PIECE_DATA                                     # content of a member
    PIECE_MANIFEST                                 # text that is made when all before it is final
    PIECE_CKSUMS

# A stretch of one tape block. Pieces stand in tape order; together they are every byte of every block.
cdef struct piece_t:
    uint8_t* place                                 # in the ring
    uint64_t device_offset                         # bytes
    uint64_t gap                                   # zeros of the member's content before this piece
    uint32_t size                                  # bytes of content
    uint32_t pad                                   # zeros behind them
    uint32_t crc                                   # CRC32C of size bytes
    uint32_t whole                                 # CRC32C of size + pad bytes
    uint32_t cksum                                 # register over size bytes
    uint32_t owner                                 # member, or segment of a text
    uint32_t read                                  # slot of the read that fills it
    uint8_t kind
    bint waiting                                   # for that read

# A read in flight. Several small pieces that lie near one another on the device share one.
cdef struct read_t:
    uint64_t first, last                           # pieces, by running number; those between may belong to others
    uint64_t start, end                            # bytes of the device, aligned
    bint straight                                  # into the place of its only piece; else into bounce memory
    uint32_t bounce                                # which of it; NO_BOUNCE

# Zeros the padding of a complete piece and takes its sums.
cdef void sum_piece(piece_t* piece) noexcept nogil
# A read that failed is repeated by file system blocks: the fault names inode and offset of the one that does not read.
cdef int repeat_read(Plan plan, BlockDevice device, piece_t* piece, int os_errno, fault_t* fault) noexcept nogil
# Content, in tape order: database pages in it are verified where the last ones ended.
cdef void check_piece(PageChecker pages, Plan plan, const piece_t* piece) noexcept nogil
