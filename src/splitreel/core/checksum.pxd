# CRC32C (Castagnoli, RFC 3720 B.4) and the POSIX cksum CRC (IEEE 1003.1 cksum): update, combine, extend by zeros.
# All take and return finished values of the bytes so far (what a caller would print), start value 0 for no bytes:
#   crc32c(b"") == 0, crc32c(b"123456789") == 0xE3069283. cksum: without the length, which finish_cksum adds.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

# What a disk states against what was computed, for metadata: true when they differ. A sanitized build can be told to
# take every checksum for right, so that injured metadata are read on.
cdef bint crc_differs(uint32_t stated, uint32_t computed) noexcept nogil

cdef uint32_t crc32c_update(uint32_t crc, const void* data, size_t size) noexcept nogil
cdef uint32_t crc32c_combine(uint32_t first, uint32_t second, uint64_t second_size) noexcept nogil
cdef uint32_t crc32c_zeros(uint32_t crc, uint64_t size) noexcept nogil            # as if size zero bytes followed
cdef uint32_t cksum_update(uint32_t register, const void* data, size_t size) noexcept nogil
cdef uint32_t cksum_combine(uint32_t first, uint32_t second, uint64_t second_size) noexcept nogil
cdef uint32_t cksum_zeros(uint32_t register, uint64_t size) noexcept nogil
cdef uint32_t cksum_finish(uint32_t register, uint64_t size) noexcept nogil       # what cksum(1) prints
