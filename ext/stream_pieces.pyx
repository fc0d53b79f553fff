"""stream_pieces sums a piece of a tape block, checks its pages, and repeats a read that failed. It queues nothing."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from splitreel.core.checksum cimport cksum_update, crc32c_update
from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport fault_t
from splitreel.core.pages cimport PageChecker
from splitreel.core.plan cimport Plan
from splitreel.core.runs cimport member_t


cdef void sum_piece(piece_t* piece) noexcept nogil:
    if piece.pad > 0:
        memset(piece.place + piece.size, 0, piece.pad)
    piece.crc = crc32c_update(0, piece.place, piece.size)
    piece.whole = crc32c_update(piece.crc, piece.place + piece.size, piece.pad) if piece.pad > 0 else piece.crc
    piece.cksum = cksum_update(0, piece.place, piece.size)


cdef int repeat_read(Plan plan, BlockDevice device, piece_t* piece, int os_errno, fault_t* fault) noexcept nogil:
    cdef uint64_t at = 0, part
    cdef uint32_t name = plan.members[piece.owner].name
    while at < piece.size:
        part = min(<uint64_t>plan.map.block_size, piece.size - at)
        if device.read(piece.device_offset + at, piece.place + at, part, fault) < 0:
            if fault.os_errno == 0:
                fault.os_errno = os_errno
            fault.site = "reading a file from the mirror, inode"
            fault.object = plan.columns.files[plan.columns.names[name].file].inode
            fault.offset = piece.device_offset + at
            return fault.code
        at += part
    return 0


cdef void check_piece(PageChecker pages, Plan plan, const piece_t* piece) noexcept nogil:
    cdef const member_t* member = &plan.members[piece.owner]
    cdef uint32_t file
    if piece.owner != pages.member:
        file = plan.columns.names[member.name].file
        pages.begin(file, member.start, plan.columns.files[file].size)
        pages.member = piece.owner
    pages.take_zeros(piece.gap)
    pages.take_bytes(piece.place, piece.size)
