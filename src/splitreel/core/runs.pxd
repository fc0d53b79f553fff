# runs: a member of an archive, the stretches of the device that hold its data, its sparse map; and sinks of text.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.columns cimport columns_t, extent_t, file_t

cdef extern from "sink.h" nogil:
    ctypedef struct sink_t:                        # data NULL: only counts; size counts on past capacity
        uint8_t* data
        uint64_t capacity
        uint64_t size
    void sink_bytes(sink_t* sink, const void* bytes, uint64_t size)
    void sink_text(sink_t* sink, const char* text)
    void sink_fill(sink_t* sink, int byte, uint64_t size)
    uint64_t decimal_digits(uint64_t value)
    void sink_decimal(sink_t* sink, uint64_t value)
    void sink_decimal_wide(sink_t* sink, uint64_t value, int width)
    void sink_hex8(sink_t* sink, uint32_t value)
    void sink_json(sink_t* sink, const uint8_t* data, uint64_t size)
    bint utf8_valid(const uint8_t* data, uint64_t size)
    bint ascii_only(const uint8_t* data, uint64_t size)
    void pax_record(sink_t* sink, const char* key, const void* value, uint64_t value_size)
    void pax_record_head(sink_t* sink, const void* key, uint64_t key_size, uint64_t value_size)
    void pax_record_decimal(sink_t* sink, const char* key, uint64_t value)
    bint ustar_fits(uint64_t value, int field)
    void ustar_octal(uint8_t* at, int field, uint64_t value)
    void ustar_seal(uint8_t* header)

cdef enum:
    NO_LINK = 0xFFFFFFFF

cdef enum member_kind_t:                           # ustar typeflags; a socket has none
    MEMBER_FILE = 48                               # "0"
    MEMBER_LINK = 49
    MEMBER_SYMLINK = 50
    MEMBER_CHR = 51
    MEMBER_BLK = 52
    MEMBER_DIRECTORY = 53
    MEMBER_FIFO = 54
    MEMBER_SOCKET = 115                            # "s": in the manifest alone

# 64 bytes. One for each archive entry, in archive order. Bytes unless said otherwise.
cdef packed struct member_t:
    uint64_t stored                                # archive data: sparse map and pieces
    uint64_t start                                 # of a part in its file; else 0
    uint64_t size                                  # of the file, or of the part, holes counted
    uint32_t name                                  # index of the name
    uint32_t link                                  # hard link: index of the name it points to; else NO_LINK
    uint32_t segment                               # index into segments
    uint32_t block                                 # of the first header byte: block in the segment, byte in the block
    uint32_t offset
    uint32_t header                                # all headers; 0 for a socket
    uint32_t map_size                              # sparse map with its zeros; 0: not sparse
    uint32_t part                                  # from 1; 0: the file is whole
    uint32_t parts
    uint8_t kind                                   # member_kind_t
    uint8_t reserved[3]

# A run of a member's data: physically contiguous, written, clipped to the member. Bytes.
cdef struct run_t:
    uint64_t logical                               # in the file
    uint64_t physical                              # on the device; of an inline run: in the heap record's target
    uint64_t size
    bint inline_data

cdef struct runs_t:
    const extent_t* extents
    uint32_t left                                  # extents not yet looked at
    uint32_t block_size
    uint64_t start, end                            # bytes of the file
    uint64_t inline_size                           # of an inline file whose run is still to come
    bint pending                                   # held is a run that was read ahead
    run_t held

cdef void open_runs(runs_t* runs, const columns_t* columns, const file_t* file, uint64_t start,
                    uint64_t size) noexcept nogil
cdef bint next_run(runs_t* runs, run_t* out) noexcept nogil
cdef bint next_piece(runs_t* runs, run_t* out) noexcept nogil   # runs that follow one another in the file, as one

# The GNU sparse 1.0 map of a member, a line at a time.
cdef struct sparse_map_t:
    runs_t runs
    uint64_t pieces                                # lines still to come, two for each
    uint64_t end                                   # of the last piece, bytes of the file
    uint64_t second                                # the second line of a piece
    int state

# pieces and their bytes in [start, start + size); a trailing hole counts as a piece of no bytes, as GNU tar has it.
cdef uint64_t count_pieces(const columns_t* columns, const file_t* file, uint64_t start, uint64_t size,
                           uint64_t* data_bytes) noexcept nogil
cdef void open_sparse_map(sparse_map_t* sparse, const columns_t* columns, const file_t* file,
                          const member_t* member) noexcept nogil
cdef bint next_map_line(sparse_map_t* sparse, sink_t* sink) noexcept nogil
cdef uint64_t sparse_map_size(const columns_t* columns, const file_t* file, const member_t* member) noexcept nogil
