# SpannedDevice: a device made of stretches of others, with replacements over it. A BlockDevice to everybody.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport fault_t
from splitreel.core.spanjoin cimport import_t
from splitreel.core.spantable cimport SpanTable, span_piece_t

cdef struct patch_t:
    uint64_t start
    uint64_t end
    uint64_t moved_to
    uint32_t sequence                              # of two that cover a byte the later one holds
    uint32_t source                                # index of an import, or PATCH_BYTES, PATCH_ZERO

cdef class SpannedDevice(BlockDevice):
    # Made by SpannedDevice(sources, spans, path=...), ready to be read, or by SpannedDevice.over(base, others), which
    # reads as base does once it is sealed. Between over() and seal() replacements may be given, each in O(1), in any
    # order, overlapping or not; seal() is O(n log n). Ranges that do not lie inside their devices are refused.
    #
    # Bytes [start, start + size) shall read as [moved_to, moved_to + size) of the base does, without replacements.
    cdef int replace(self, uint64_t start, uint64_t size, uint64_t moved_to, fault_t* fault) noexcept nogil
    # The same of others[other].
    cdef int replace_source(self, uint64_t start, uint64_t size, uint32_t other, uint64_t moved_to,
                            fault_t* fault) noexcept nogil
    cdef int replace_bytes(self, uint64_t start, uint64_t size, const uint8_t* bytes,
                           fault_t* fault) noexcept nogil      # copied; 4 GiB altogether
    cdef int replace_zeros(self, uint64_t start, uint64_t size, fault_t* fault) noexcept nogil
    cdef int seal(self, fault_t* fault) noexcept nogil         # once; nothing can be replaced any more

    # The rest is its own.
    cdef bint sealed
    cdef list kept                                 # tables that imports point to
    cdef import_t* imports
    cdef uint32_t import_count
    cdef patch_t* patches
    cdef size_t patch_count
    cdef size_t patch_capacity
    cdef int begin(self, list devices, uint64_t size, object path) except -1
    cdef int take_in(self, BlockDevice device) except -1
    cdef int check_range(self, object source, object physical, object size) except -1
    cdef int lay_stretches(self, list stretches, list legs) except -1
    cdef int add_stripe(self, object stretch, list legs) except -1
    cdef int add_patch(self, uint64_t start, uint64_t size, uint64_t moved_to, uint32_t source,
                       fault_t* fault) noexcept nogil
    cdef int replace_import(self, uint64_t start, uint64_t size, uint64_t number, uint64_t moved_to,
                            fault_t* fault) noexcept nogil
    cdef int lay_patches(self, uint32_t* heap, fault_t* fault) noexcept nogil
    cdef int lay(self, uint64_t start, uint64_t end, const patch_t* patch, fault_t* fault) noexcept nogil
    cdef int read_source(self, const span_piece_t* piece, uint64_t offset, uint8_t* destination,
                         fault_t* fault) noexcept nogil
    cdef void forget_building(self) noexcept nogil
