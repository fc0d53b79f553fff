# Plan: the tape layout of one run, known before the first byte: members and segments as columns.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.columns cimport columns_t, file_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport fault_t
from splitreel.core.manifest cimport ManifestWriter
from splitreel.core.pax cimport PaxWriter
from splitreel.core.runs cimport member_t

# 64 bytes. One for each tape file of members.
cdef packed struct segment_t:
    uint64_t first_object                          # object number of its first tape block
    uint64_t manifest_start                        # byte in the segment where the manifest's headers begin
    uint64_t manifest_size                         # bytes of text
    uint64_t cksums_size
    uint64_t data_bytes                            # file content read from the device
    uint32_t first_member                          # index into members
    uint32_t members
    uint32_t blocks                                # tape blocks; then a filemark
    uint32_t number                                # from 1
    uint32_t digest                                # CRC32C of the checksums of its blocks, 4 bytes each, little-endian
    uint32_t synchronise                           # 1: the filemark behind it is a synchronise

cdef enum skip_reason_t:
    SKIP_DAMAGED = 1
    SKIP_PATH = 2                                  # a path of more than PATH_CAPACITY bytes
    SKIP_HEADER = 3                                # headers of more than HEADER_LIMIT bytes
    SKIP_SPARSE = 4                                # a sparse map of 4 GiB or more

cdef struct skipped_t:
    uint32_t name
    uint32_t reason

cdef class Plan:
    # Owns its arrays. Built once, then read-only but for what a stream fills: crc32c and digest. Keeps the map alive.
    cdef readonly ExtentMap map
    cdef columns_t columns
    cdef PaxWriter pax
    cdef ManifestWriter manifest
    cdef member_t* members
    cdef segment_t* segments
    cdef uint32_t* crc32c                          # one for each member, of its content; filled in by a stream
    cdef skipped_t* skipped_names
    cdef readonly uint64_t member_count, segment_count, skipped_count
    cdef uint64_t member_capacity, segment_capacity, skipped_capacity
    cdef readonly uint32_t block_size              # bytes
    cdef readonly uint64_t segment_size            # bytes
    cdef readonly uint32_t sync_segments
    cdef readonly str order
    cdef readonly bytes backup                     # text of the UUID
    cdef readonly int64_t created                  # seconds since 1970: mtime of the control files
    cdef readonly uint64_t first_object
    cdef uint32_t first_number
    cdef readonly uint64_t largest_header, largest_segment_members, largest_segment_blocks  # sizes of scratch memory
    cdef uint64_t control_header                   # bytes of headers of a control file
    cdef uint32_t* link_targets                    # while it is built: file -> name that holds its data
    # The open segment.
    cdef bint is_open
    cdef uint64_t position, member_lines, cksums_lines
    cdef uint64_t next_object

    cdef int add_name(self, uint32_t name, fault_t* fault) noexcept nogil
    cdef int add_regular(self, uint32_t name, const file_t* file, fault_t* fault) noexcept nogil
    cdef int add_parts(self, member_t* member, const file_t* file, fault_t* fault) noexcept nogil
    cdef int place(self, member_t* member, fault_t* fault) noexcept nogil
    cdef bint fit(self, member_t* member, uint64_t natural, uint64_t* manifest, uint64_t* cksums) noexcept nogil
    cdef uint64_t close_size(self, uint64_t position, uint64_t member_lines, uint64_t cksums_lines, uint64_t members,
                             uint64_t* manifest_size) noexcept nogil
    cdef int open_segment(self, fault_t* fault) noexcept nogil
    cdef void close_segment(self) noexcept nogil
    cdef int finish(self, fault_t* fault) noexcept nogil
    cdef int skip(self, uint32_t name, uint32_t reason, fault_t* fault) noexcept nogil
    cdef int append(self, const member_t* member, fault_t* fault) noexcept nogil
    cdef int build_names(self, const uint32_t* order, const uint8_t* wanted, fault_t* fault) noexcept nogil
    cdef int place_range(self, const member_t* members, uint64_t count, fault_t* fault) noexcept nogil
    cdef Plan empty_copy(self)
    cdef int need_member(self, uint64_t index) except -1
