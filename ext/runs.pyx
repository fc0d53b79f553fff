"""runs walks the data of an archive member: where it stands on the device, where holes are. It reads nothing."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from splitreel.core.columns cimport EXTENT_INLINE, EXTENT_UNWRITTEN, FILE_INLINE, columns_t, extent_t, file_t

cdef enum:
    UNIT = 512                                     # of an archive, bytes


# --- data runs ------------------------------------------------------------------------------------------------------

cdef uint32_t first_extent_after(const columns_t* columns, const file_t* file, uint64_t start) noexcept nogil:
    """Index of the first extent that ends after byte start: a part of a huge file must not walk all before it."""
    cdef const extent_t* extents = columns.extents + file.first_extent
    cdef uint32_t low = 0, high = file.extent_count, middle
    while low < high:
        middle = low + (high - low) // 2
        if (extents[middle].logical + extents[middle].count) * columns.block_size <= start:
            low = middle + 1
        else:
            high = middle
    return low


cdef void open_runs(runs_t* runs, const columns_t* columns, const file_t* file, uint64_t start,
                    uint64_t size) noexcept nogil:
    cdef uint32_t first
    memset(runs, 0, sizeof(runs_t))
    runs.block_size = columns.block_size
    runs.start = start
    runs.end = start + size
    if file.flags & FILE_INLINE:
        runs.inline_size = size
        return
    first = first_extent_after(columns, file, start)
    runs.extents = columns.extents + file.first_extent + first
    runs.left = file.extent_count - first


cdef bint next_run(runs_t* runs, run_t* out) noexcept nogil:
    cdef uint64_t start, end, skipped
    cdef const extent_t* extent
    if runs.inline_size > 0:
        out.logical = runs.start
        out.physical = runs.start
        out.size = runs.inline_size
        out.inline_data = True
        runs.inline_size = 0
        return True
    while runs.left > 0:
        extent = runs.extents
        runs.extents += 1
        runs.left -= 1
        start = extent.logical * runs.block_size
        end = min(start + <uint64_t>extent.count * runs.block_size, runs.end)
        skipped = runs.start - start if runs.start > start else 0
        if start + skipped >= runs.end:
            runs.left = 0
            return False
        if extent.flags & (EXTENT_UNWRITTEN | EXTENT_INLINE) or start + skipped >= end:
            continue
        out.logical = start + skipped
        out.physical = extent.physical * runs.block_size + skipped
        out.size = end - out.logical
        out.inline_data = False
        return True
    return False


cdef bint next_piece(runs_t* runs, run_t* out) noexcept nogil:
    if runs.pending:
        out[0] = runs.held
        runs.pending = False
    elif not next_run(runs, out):
        return False
    while next_run(runs, &runs.held):
        if runs.held.logical != out.logical + out.size:
            runs.pending = True
            return True
        out.size += runs.held.size
    return True


# --- GNU sparse 1.0 -------------------------------------------------------------------------------------------------

cdef uint64_t count_pieces(const columns_t* columns, const file_t* file, uint64_t start, uint64_t size,
                           uint64_t* data_bytes) noexcept nogil:
    cdef runs_t runs
    cdef run_t piece
    cdef uint64_t pieces = 0, end = start
    data_bytes[0] = 0
    open_runs(&runs, columns, file, start, size)
    while next_piece(&runs, &piece):
        pieces += 1
        data_bytes[0] += piece.size
        end = piece.logical + piece.size
    return pieces + (end < start + size)


cdef void open_sparse_map(sparse_map_t* sparse, const columns_t* columns, const file_t* file,
                          const member_t* member) noexcept nogil:
    cdef uint64_t data_bytes
    memset(sparse, 0, sizeof(sparse_map_t))
    sparse.pieces = count_pieces(columns, file, member.start, member.size, &data_bytes)
    open_runs(&sparse.runs, columns, file, member.start, member.size)


cdef bint next_map_line(sparse_map_t* sparse, sink_t* sink) noexcept nogil:
    """Count, then offset and length of each piece; of a trailing hole its end and 0 (GNU tar, sparse.c)."""
    cdef run_t piece
    cdef uint64_t number
    if sparse.state == 0:
        number = sparse.pieces
        sparse.state = 1
    elif sparse.state == 2:
        number = sparse.second
        sparse.state = 1
    elif sparse.pieces == 0:
        return False
    else:
        if next_piece(&sparse.runs, &piece):
            number = piece.logical - sparse.runs.start
            sparse.second = piece.size
        else:
            number = sparse.runs.end - sparse.runs.start
            sparse.second = 0
        sparse.pieces -= 1
        sparse.state = 2
    sink_decimal(sink, number)
    sink_bytes(sink, b"\n", 1)
    return True


cdef uint64_t sparse_map_size(const columns_t* columns, const file_t* file, const member_t* member) noexcept nogil:
    cdef sparse_map_t sparse
    cdef sink_t sink
    memset(&sink, 0, sizeof(sink_t))
    open_sparse_map(&sparse, columns, file, member)
    while next_map_line(&sparse, &sink):
        pass
    return (sink.size + UNIT - 1) // UNIT * UNIT
