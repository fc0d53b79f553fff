# StreamWriter: a plan's segments, from a device to a tape: one thread lays out and reads, another writes.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.columns cimport file_t
from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport fault_t
from splitreel.core.pax cimport header_t
from splitreel.core.runs cimport member_t
from splitreel.core.plan cimport Plan
from splitreel.core.stream_fill cimport BlockFiller
from splitreel.core.tape cimport Tape

cdef class StreamWriter:
    # run() is called by one thread, and makes another; cancel() and progress() may be called by any.
    cdef readonly Plan plan
    cdef readonly BlockDevice device
    cdef readonly Tape tape
    cdef BlockFiller filler
    cdef uint8_t* header                           # scratch for the headers of one member
    cdef readonly uint32_t high_water
    cdef uint64_t first_segment, first_block
    cdef bint past_warning                         # go on after early warning
    cdef bint running, closed, cancelled
    cdef int layout_rc, writer_rc
    cdef fault_t layout_fault, writer_fault
    # Counts; each is written by one thread only and read by progress().
    cdef uint64_t segment                          # index of the segment being written
    cdef uint64_t segment_blocks                   # of it, accepted by the drive
    cdef uint64_t blocks_written, bytes_written, objects_written, objects_confirmed, segments_confirmed, underruns
    cdef uint64_t members_laid
    cdef bint early_warning, programmable_early_warning
    cdef double began, seconds

    cdef int lay_out(self) noexcept nogil
    cdef int lay_segment(self, uint64_t segment, fault_t* fault) noexcept nogil
    cdef int lay_member(self, uint32_t index, fault_t* fault) noexcept nogil
    cdef int lay_map(self, const member_t* member, const file_t* file, fault_t* fault) noexcept nogil
    cdef int lay_content(self, uint32_t index, const file_t* file, fault_t* fault) noexcept nogil
    cdef int lay_inline(self, uint32_t index, const file_t* file, fault_t* fault) noexcept nogil
    cdef int lay_control(self, uint64_t segment, bint manifest, fault_t* fault) noexcept nogil
    cdef int lay_headers(self, const header_t* header, uint64_t size, fault_t* fault) noexcept nogil
    cdef int write_out(self) noexcept nogil
    cdef int write_segment(self, uint64_t segment, uint64_t* index, uint64_t* known, fault_t* fault) noexcept nogil
    cdef uint64_t await_blocks(self, uint64_t index) noexcept nogil
    cdef int write_one(self, uint64_t segment, uint64_t block, uint64_t index, fault_t* fault) noexcept nogil
    cdef int close_segment(self, uint64_t segment, fault_t* fault) noexcept nogil
    cdef int check_counts(self, fault_t* fault) noexcept nogil
    cdef int raise_outcome(self) except -1
    cdef int prepare(self, uint64_t first_segment, uint64_t first_block, bint past_early_warning) except -1
    cdef uint64_t member_end(self, uint32_t index) noexcept nogil
