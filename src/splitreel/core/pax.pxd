# pax: archive headers of POSIX pax (IEEE 1003.1) from an extent map.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.columns cimport columns_t, file_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.runs cimport member_t, sink_t

cdef enum:
    PATH_CAPACITY = 65536                          # bytes of a path that is stored; a longer one is left out and listed
    HEADER_LIMIT = 4194304                         # bytes of headers of one member
    PAX_BODY_LIMIT = 1048576                       # what libarchive before 3.8 reads of one extended header

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
