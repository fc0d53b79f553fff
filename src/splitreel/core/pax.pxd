# pax: archive headers of POSIX pax (IEEE 1003.1) from an extent map, and the data runs of a member.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.columns cimport columns_t, extent_t, file_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t

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
    PATH_CAPACITY = 65536                          # bytes of a path that is stored; a longer one is left out and listed
    HEADER_LIMIT = 4194304                         # bytes of headers of one member
    PAX_BODY_LIMIT = 1048576                       # what libarchive before 3.8 reads of one extended header
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

# What one archive header says. Pointers are borrowed until the next call that fills path or link of the PaxWriter.
cdef struct header_t:
    const uint8_t* path                            # of a sparse member: DIR/GNUSparseFile.0/NAME
    uint64_t path_size
    const uint8_t* sparse_name                     # NULL: not sparse
    uint64_t sparse_name_size
    const uint8_t* link
    uint64_t link_size
    const file_t* file                             # for extended attributes; NULL: none
    const char* control                            # SPLITREEL.kind; NULL: not a control file
    uint64_t size                                  # archive data
    uint64_t real_size
    int64_t seconds
    uint32_t nanoseconds
    uint32_t mode, uid, gid, rdev
    uint8_t kind

# The end of a part's name: .splitreel-part-0001-of-0003
cdef void part_suffix(sink_t* sink, const member_t* member) noexcept nogil
# The size to give a header at position so that its data start on a multiple of boundary; 0 when none is allowed.
cdef uint64_t aligned_header(uint64_t natural, uint64_t position, uint64_t boundary) noexcept nogil

cdef class PaxWriter:
    # Scratch memory for one thread. Every method below is one thread at a time.
    cdef readonly ExtentMap map
    cdef columns_t columns
    cdef uint8_t* path
    cdef uint8_t* link
    cdef uint8_t* sparse_path
    # Path as the archive has it: root "./", a directory with a slash, a part with its suffix. -1: too long.
    cdef int64_t member_path(self, const member_t* member) noexcept nogil
    cdef int64_t plain_path(self, uint32_t name, uint8_t* destination) noexcept nogil
    cdef int describe(self, const member_t* member, header_t* header, fault_t* fault) noexcept nogil
    cdef void describe_target(self, const file_t* file, header_t* header) noexcept nogil
    cdef void describe_sparse(self, header_t* header) noexcept nogil
    cdef int describe_control(self, const char* kind, uint64_t number, uint64_t size, int64_t seconds,
                              header_t* header) noexcept nogil
    cdef uint64_t measure(self, const header_t* header) noexcept nogil         # all headers, no padding
    # Exactly `target` bytes: what measure() said, or more as aligned_header() said. FAULT_COUNT_MISMATCH otherwise.
    cdef int emit(self, const header_t* header, uint64_t target, sink_t* sink, fault_t* fault) noexcept nogil
