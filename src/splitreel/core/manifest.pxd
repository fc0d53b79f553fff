# manifest: the text that ends a segment, a line at a time: manifest (JSON lines) and cksums, measured, then emitted.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.pax cimport PaxWriter
from splitreel.core.runs cimport member_t, sink_t
from splitreel.core.fault cimport fault_t

cdef enum:
    BLOCKS_A_LINE = 64                             # checksums in one line of the manifest
    LINE_CAPACITY = 1048576                        # bytes: three paths, each byte escaped to six
    LONGEST_CKSUM = 0xFFFFFFFF                     # ten digits

# What the lines of one segment are made of.
cdef struct segment_text_t:
    const member_t* members                        # of this segment
    const uint32_t* crc32c                         # of these members
    const uint32_t* cksums                         # registers, see checksum.pxd
    const uint32_t* block_crcs                     # of whole blocks before the manifest
    uint64_t member_count
    uint64_t block_count
    uint64_t number                                # of the segment, from 1
    uint64_t manifest_size, cksums_size            # as planned

cdef uint64_t blocks_lines_size(uint64_t block_count) noexcept nogil

cdef class ManifestWriter:
    # One thread at a time.
    cdef PaxWriter pax
    cdef uint8_t backup[36]                        # UUID text
    cdef uint32_t block_size
    cdef segment_text_t text
    cdef int state
    cdef uint64_t next                             # member or block of the coming line
    cdef uint64_t emitted                          # bytes of the file at hand
    cdef uint32_t crc                              # CRC32C of the manifest so far
    cdef uint8_t* line                             # LINE_CAPACITY bytes
    cdef uint64_t line_size, line_used
    cdef uint64_t segment_line_size(self, uint64_t number, uint64_t member_count) noexcept nogil
    cdef uint64_t end_line_size(self) noexcept nogil
    # Bytes of a member's manifest line and of its cksums line (0: it has none).
    cdef void measure_member(self, const member_t* member, uint64_t* manifest, uint64_t* cksums) noexcept nogil
    cdef void begin_manifest(self, const segment_text_t* text) noexcept nogil
    cdef void begin_cksums(self, const segment_text_t* text) noexcept nogil
    # The next line of what was begun; 0 bytes at the end. FAULT_COUNT_MISMATCH: it is not as long as planned.
    cdef int next_line(self, sink_t* sink, fault_t* fault) noexcept nogil
    # The next size bytes of the text; lines run on from one call to the next.
    cdef int fill(self, uint8_t* destination, uint64_t size, fault_t* fault) noexcept nogil
    cdef void segment_line(self, sink_t* sink, uint64_t number, uint64_t member_count) noexcept nogil
    cdef void member_line(self, sink_t* sink, const member_t* member, uint32_t crc) noexcept nogil
    cdef void blocks_line(self, sink_t* sink) noexcept nogil
    cdef void end_line(self, sink_t* sink) noexcept nogil
    cdef void cksum_line(self, sink_t* sink, const member_t* member, uint32_t value) noexcept nogil
    cdef void manifest_line(self, sink_t* sink) noexcept nogil
    cdef void cksums_line(self, sink_t* sink) noexcept nogil
