# StreamReader: one tape file after another, read ahead by a thread of its own. gate: where a stream's two threads meet.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BufferRing
from splitreel.core.fault cimport fault_t
from splitreel.core.tape cimport Tape

cdef extern from "gate.h" nogil:
    ctypedef struct gate_t:
        uint64_t depth
        uint64_t ready
        uint64_t through
        bint finished
        bint stop
        double producer_wait
        double consumer_wait
    double gate_now()
    void gate_lock(gate_t* gate)
    void gate_unlock(gate_t* gate)
    int gate_open(gate_t* gate, uint64_t depth)
    void gate_close(gate_t* gate)
    void gate_reset(gate_t* gate)
    void gate_stop(gate_t* gate)
    bint gate_stopped(gate_t* gate)
    void gate_publish(gate_t* gate, uint64_t ready, bint finished)
    void gate_release(gate_t* gate, uint64_t through)
    bint gate_room(gate_t* gate, uint64_t used, double seconds)
    uint64_t gate_await(gate_t* gate, uint64_t index, uint64_t wanted)

cdef class StreamReader:
    # One consumer thread; the reading thread is its own.
    cdef readonly Tape tape
    cdef readonly uint32_t block_size              # bytes; the longest block that is accepted
    cdef BufferRing ring
    cdef gate_t gate
    cdef uint32_t* sizes                           # of the blocks in the ring
    cdef uint32_t* crcs                            # of all blocks of this tape file
    cdef uint64_t crc_capacity
    cdef int end                                   # FILEMARK, END_OF_DATA, a fault, or 0: not yet known
    cdef fault_t fault
    cdef object thread                             # None: nobody fills
    cdef object filling                            # a lock that the thread gives back at its end
    cdef bint closed
    # The consumer's place.
    cdef uint64_t block
    cdef uint32_t offset
    cdef readonly uint64_t position                # bytes from the start of the tape file

    cdef void fill(self) noexcept nogil
    cdef int keep_crc(self, uint64_t index, uint32_t crc) noexcept nogil
    # Bytes at *data that follow without a copy: at least 1; 0 at the end of the tape file, below 0 a fault.
    cdef int64_t peek(self, uint8_t** data, fault_t* fault) noexcept nogil
    cdef void advance(self, uint32_t size) noexcept nogil
    cdef int64_t take(self, uint8_t* destination, uint64_t size, fault_t* fault) noexcept nogil
    cdef int pass_over(self, uint64_t size, uint32_t* crc, fault_t* fault) noexcept nogil
    cdef int write_out(self, int fd, uint64_t offset, uint64_t size, uint32_t* crc, fault_t* fault) noexcept nogil
    cdef int settle(self, fault_t* fault) noexcept nogil
    cdef int need_open(self) except -1
    cdef int ended_by(self, int condition) except -1
