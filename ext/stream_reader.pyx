"""stream_reader reads tape files ahead and hands them on as bytes. It knows no archive and moves no drive."""

import os
import threading

from cpython.buffer cimport PyBUF_CONTIG, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from splitreel.core.checksum cimport crc32c_update
from splitreel.core.device cimport BufferRing
from splitreel.core.fault cimport (
    END_OF_DATA,
    FAULT_CANCELLED,
    FAULT_COUNT_MISMATCH,
    FAULT_IO,
    FAULT_MISUSE,
    FAULT_NO_MEMORY,
    FILEMARK,
    fault_t,
    raise_fault,
    set_fault,
    set_os_fault,
)
from splitreel.core.tape cimport Tape

cdef extern from "<unistd.h>" nogil:
    ssize_t c_pwrite "pwrite"(int fd, const void* data, size_t size, int64_t offset)

cdef enum:
    UNIT = 512                                     # ring slots are a multiple of it
    WAIT = 1                                       # seconds; then the reading thread looks whether it shall stop

cdef const char* WRITING = "writing a file"       # tells the target's errors from the drive's


cdef class StreamReader:
    """See stream_reader.pyi: what each method promises stands there."""

    def __cinit__(self, Tape tape not None, uint32_t block_size, uint32_t ring_blocks=16):
        cdef fault_t fault
        if block_size == 0 or ring_blocks == 0:
            set_fault(&fault, FAULT_MISUSE, b"reading a tape file", 0, 0, b"a ring needs blocks")
            raise_fault(&fault)
        self.tape = tape
        self.block_size = block_size
        self.ring = BufferRing(ring_blocks, (block_size + UNIT - 1) // UNIT * UNIT)
        self.sizes = <uint32_t*>malloc(ring_blocks * sizeof(uint32_t))
        self.end = FAULT_MISUSE
        set_fault(&self.fault, FAULT_MISUSE, b"reading a tape file", 0, 0, b"next_file() was not called")
        if self.sizes == NULL or gate_open(&self.gate, ring_blocks) < 0:
            set_fault(&fault, FAULT_NO_MEMORY, b"reading a tape file", 0, 0, NULL)
            raise_fault(&fault)
        gate_publish(&self.gate, 0, True)

    def __dealloc__(self):
        gate_close(&self.gate)
        free(self.sizes)
        free(self.crcs)

    # The reading thread.

    cdef int keep_crc(self, uint64_t index, uint32_t crc) noexcept nogil:
        cdef uint32_t* moved
        cdef uint64_t wanted
        if index >= self.crc_capacity:
            wanted = max(self.crc_capacity * 2, <uint64_t>1024)
            moved = <uint32_t*>realloc(self.crcs, wanted * sizeof(uint32_t))
            if moved == NULL:
                return set_fault(&self.fault, FAULT_NO_MEMORY, b"reading a tape file", 0, 0, NULL)
            self.crcs = moved
            self.crc_capacity = wanted
        self.crcs[index] = crc
        return 0

    cdef void fill(self) noexcept nogil:
        cdef uint64_t index = 0
        cdef uint32_t got
        cdef int rc = 0
        cdef uint8_t* slot
        while rc == 0:
            while not gate_room(&self.gate, index, WAIT):
                if gate_stopped(&self.gate):
                    return
            if gate_stopped(&self.gate):
                return
            slot = self.ring.slot(index)
            rc = self.tape.read_block(slot, self.block_size, &got, &self.fault)
            if rc == 0:
                self.sizes[index % self.gate.depth] = got
                # The array may move: only while the consumer cannot be inside (block_crcs takes the lock).
                gate_lock(&self.gate)
                rc = self.keep_crc(index, crc32c_update(0, slot, got))
                gate_unlock(&self.gate)
            if rc == 0:
                index += 1
                gate_publish(&self.gate, index, False)
        self.end = rc
        gate_publish(&self.gate, index, True)

    def _fill(self, filling):
        with nogil:
            self.fill()
        filling.release()

    # The consumer.

    cdef int settle(self, fault_t* fault) noexcept nogil:
        """1: a byte follows; 0: the tape file has ended; below 0: why it cannot be read on."""
        while True:
            if gate_await(&self.gate, self.block, 1) <= self.block:
                if gate_stopped(&self.gate):
                    return set_fault(fault, FAULT_CANCELLED, b"reading a tape file", 0, 0, b"it was stopped")
                if self.end < 0:
                    fault[0] = self.fault
                    return self.end
                return 0
            if self.offset < self.sizes[self.block % self.gate.depth]:
                return 1
            self.block += 1
            self.offset = 0
            gate_release(&self.gate, self.block)

    cdef int64_t peek(self, uint8_t** data, fault_t* fault) noexcept nogil:
        cdef int rc = self.settle(fault)
        if rc <= 0:
            return rc
        data[0] = self.ring.slot(self.block) + self.offset
        return self.sizes[self.block % self.gate.depth] - self.offset

    cdef void advance(self, uint32_t size) noexcept nogil:
        self.offset += size
        self.position += size
        if self.offset == self.sizes[self.block % self.gate.depth]:
            self.block += 1
            self.offset = 0
            gate_release(&self.gate, self.block)

    cdef int64_t take(self, uint8_t* destination, uint64_t size, fault_t* fault) noexcept nogil:
        cdef uint64_t done = 0
        cdef int64_t part
        cdef uint8_t* data
        while done < size:
            part = self.peek(&data, fault)
            if part < 0:
                return part
            if part == 0:
                break
            if <uint64_t>part > size - done:
                part = <int64_t>(size - done)
            memcpy(destination + done, data, part)
            self.advance(<uint32_t>part)
            done += part
        return <int64_t>done

    cdef int pass_over(self, uint64_t size, uint32_t* crc, fault_t* fault) noexcept nogil:
        cdef int64_t part
        cdef uint8_t* data
        while size > 0:
            part = self.peek(&data, fault)
            if part <= 0:
                return ended(part, self, fault)
            if <uint64_t>part > size:              # compared unsigned: what a header says may be above 2^63
                part = <int64_t>size
            crc[0] = crc32c_update(crc[0], data, part)
            self.advance(<uint32_t>part)
            size -= part
        return 0

    cdef int write_out(self, int fd, uint64_t offset, uint64_t size, uint32_t* crc, fault_t* fault) noexcept nogil:
        cdef int64_t part
        cdef ssize_t written
        cdef uint8_t* data
        while size > 0:
            part = self.peek(&data, fault)
            if part <= 0:
                return ended(part, self, fault)
            written = c_pwrite(fd, data, min(<uint64_t>part, size), <int64_t>offset)
            if written < 0 and errno == EINTR:
                continue
            if written <= 0:
                return set_os_fault(fault, FAULT_IO, errno, WRITING, offset)
            crc[0] = crc32c_update(crc[0], data, written)
            self.advance(<uint32_t>written)
            offset += written
            size -= written
        return 0

    cdef int need_open(self) except -1:
        cdef fault_t fault
        if self.closed:
            set_fault(&fault, FAULT_MISUSE, b"reading a tape file", 0, 0, b"the reader is closed")
            raise_fault(&fault)
        return 0

    def next_file(self):
        self.need_open()
        self.stop()
        gate_reset(&self.gate)
        self.block = self.offset = self.position = 0
        self.end = 0
        self.filling = threading.Lock()
        self.filling.acquire()
        self.thread = threading.Thread(target=self._fill, args=(self.filling,), name="splitreel-reader", daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            self.thread = None
            self.end = FAULT_MISUSE                # nobody fills: a read must not wait for it
            gate_publish(&self.gate, 0, True)
            raise

    def stop(self):
        """The thread is known until it has ended: the drive and the ring are its own until then.

        Not by Thread.join alone: up to Python 3.12 one that a signal interrupts takes the running thread for ended.
        """
        if self.thread is not None:
            gate_stop(&self.gate)
            self.filling.acquire()
            self.thread, thread = None, self.thread
            thread.join()

    def readinto(self, buffer):
        cdef Py_buffer view
        cdef fault_t fault
        cdef int64_t got
        self.need_open()
        PyObject_GetBuffer(buffer, &view, PyBUF_CONTIG)
        try:
            with nogil:
                got = self.take(<uint8_t*>view.buf, <uint64_t>view.len, &fault)
        finally:
            PyBuffer_Release(&view)
        if got < 0:
            raise_fault(&fault)
        return got

    def read(self, Py_ssize_t size):
        cdef fault_t fault
        cdef int64_t got
        cdef uint8_t* destination
        self.need_open()
        data = PyBytes_FromStringAndSize(NULL, max(size, 0))
        destination = <uint8_t*>PyBytes_AS_STRING(data)
        with nogil:
            got = self.take(destination, <uint64_t>max(size, 0), &fault)
        if got < 0:
            raise_fault(&fault)
        return data if got == size else data[:got]

    def skip(self, uint64_t size, uint32_t crc=0):
        cdef fault_t fault
        cdef int rc
        self.need_open()
        with nogil:
            rc = self.pass_over(size, &crc, &fault)
        if rc < 0:
            raise_fault(&fault)
        return crc

    def copy_to(self, int fd, uint64_t offset, uint64_t size, uint32_t crc=0):
        cdef fault_t fault
        cdef int rc
        self.need_open()
        with nogil:
            rc = self.write_out(fd, offset, size, &crc, &fault)
        if rc == FAULT_IO and fault.site == WRITING:
            raise OSError(fault.os_errno, os.strerror(fault.os_errno))
        if rc < 0:
            raise_fault(&fault)
        return crc

    @property
    def block_crcs(self):
        cdef uint64_t count
        gate_lock(&self.gate)
        count = self.gate.ready
        data = PyBytes_FromStringAndSize(<const char*>self.crcs, <Py_ssize_t>(count * sizeof(uint32_t)))
        gate_unlock(&self.gate)
        return memoryview(data).cast("I")

    @property
    def blocks(self):
        return self.block

    @property
    def at_filemark(self):
        return self.ended_by(FILEMARK) == 1

    @property
    def at_end_of_data(self):
        return self.ended_by(END_OF_DATA) == 1

    cdef int ended_by(self, int condition) except -1:
        """True when all was read and ``condition`` ended it; what cannot be read on is raised by the next read."""
        cdef fault_t fault
        cdef int rc
        self.need_open()
        with nogil:
            rc = self.settle(&fault)
        return rc == 0 and self.end == condition

    def close(self):
        self.stop()
        self.closed = True
        self.ring = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


cdef int ended(int64_t rc, StreamReader reader, fault_t* fault) noexcept nogil:
    if rc < 0:
        return <int>rc
    return set_fault(fault, FAULT_COUNT_MISMATCH, b"reading a tape file", reader.tape.object_id, reader.position,
                     b"it ends before the data do")
