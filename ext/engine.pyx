"""engine keeps many reads of one device in flight, through io_uring or threads. It decides neither order nor size.

One request in flight leaves a fast device idle: 32 gave 790 MB/s where 2 gave 419, on one virtual disk in one run.
"""

import itertools

cimport cython
from libc.errno cimport EAGAIN, EBUSY, EINTR, EIO, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from splitreel.core.device cimport AlignedBuffer, BlockDevice, BufferRing, raise_named
from splitreel.core.fault cimport (
    FAULT_ALIGNMENT, FAULT_IO, FAULT_MISUSE, FAULT_NO_MEMORY, fault_t, raise_fault, set_fault, set_os_fault,
)
from splitreel.core.readpool cimport (
    MOST_DEPTH, advance_read, next_read, pool_close, pool_open, pool_pop, pool_push, read_step_t, request_t,
)
from splitreel.core.spantable cimport MOST_VECTORS, iovec


cdef extern from "uring.h" nogil:
    ctypedef struct uring_t:
        pass
    int uring_open(uring_t* uring, unsigned int depth)
    void uring_close(uring_t* uring)
    int uring_queue(uring_t* uring, int fd, void* destination, uint32_t size, uint64_t offset, uint64_t id)
    int uring_queue_vectors(uring_t* uring, int fd, const iovec* vectors, uint32_t count, uint64_t offset, uint64_t id)
    int uring_queue_nothing(uring_t* uring, uint64_t id)
    int uring_submit(uring_t* uring, unsigned int wait)
    int uring_next(uring_t* uring, uint64_t* id, int* result)

cdef extern from "<fcntl.h>" nogil:
    int fcntl(int fd, int command, ...)
    const int F_DUPFD_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)
    int getpid()


cdef enum:
    MOST_RETRIES = 100                               # of EAGAIN and EINTR without progress, then it is an error
    LARGEST_REQUEST = 1 << 30


cdef void advance_request(request_t* request, uint32_t got, uint32_t alignment) noexcept nogil:
    request.done += got
    if request.done < request.wanted and (got == 0 or request.done % alignment != 0):
        request.os_errno = EIO                       # the device ends here


@cython.no_gc_clear  # what is read into must outlive the wait in __dealloc__
cdef class ReadEngine:
    """Many reads of one device in flight; made by ``ReadEngine.open``. One thread at a time.

    Attributes: ``name`` of the engine in use, ``io_uring`` or ``threads``; ``depth``, reads it keeps in flight at most;
    ``in_flight``, reads submitted and not yet reaped.
    Being closed or freed it first waits for all reads in flight: the kernel writes into their memory until then.
    """

    def __cinit__(self):
        self.fd = -1
        self.name = ""
        self.held = []

    def __dealloc__(self):
        with nogil:
            self.close_engine()

    @staticmethod
    def open(BlockDevice device not None, uint32_t depth=32, str kind="auto"):
        """An engine for ``device`` with up to ``depth`` (1..1024) reads in flight.

        ``kind``: ``io_uring``, ``threads``, or ``auto``: io_uring where the kernel allows it, threads elsewhere.

        Raises:
            DeviceError: that kind is not available here. LimitReached: no memory.
            Misuse: unknown kind, depth out of range, or the device is closed.
        """
        cdef fault_t fault
        cdef ReadEngine engine = ReadEngine.__new__(ReadEngine)
        cdef int rc = 0
        cdef int try_uring = kind in ("auto", "io_uring")
        cdef int try_threads = kind in ("auto", "threads")
        if depth == 0 or depth > MOST_DEPTH:
            rc = set_fault(&fault, FAULT_MISUSE, "opening a read engine", 0, 0, "its depth is 1 to 1024")
        elif not (try_uring or try_threads):
            rc = set_fault(&fault, FAULT_MISUSE, "opening a read engine", 0, 0, "kinds are auto, io_uring and threads")
        if rc < 0:
            raise_fault(&fault)
        engine.depth = depth
        engine.spans = device.spans
        with nogil:
            rc = engine.start(device, try_uring, try_threads, &fault)
        if rc < 0 and fault.code == FAULT_IO:
            raise_named(&fault, f"opening the {kind} read engine",
                        "Choose another engine, or allow this one: see sysctl kernel.io_uring_disabled and the limits "
                        "that a container sets.")
        if rc < 0:
            raise_fault(&fault)
        engine.name = "io_uring" if engine.uring != NULL else "threads"
        return engine

    cdef int start(self, BlockDevice device, int try_uring, int try_threads, fault_t* fault) noexcept nogil:
        cdef uint32_t i
        cdef int rc = -1
        if not device.is_open():
            return set_fault(fault, FAULT_MISUSE, "opening a read engine", 0, 0, "the device is closed")
        self.owner = getpid()
        self.device_size = device.size
        self.block_size = device.logical_block_size
        self.alignment = self.block_size if device.direct else 1
        self.requests = <request_t*>calloc(self.depth, sizeof(request_t))
        self.free_slots = <uint32_t*>calloc(self.depth, sizeof(uint32_t))
        if self.requests == NULL or self.free_slots == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, "opening a read engine", 0, 0, NULL)
        for i in range(self.depth):
            self.free_slots[i] = i
        self.free_count = self.depth
        if self.spans is not None:
            self.table = &self.spans.table
            if self.table.stripe_count != 0:
                self.vectors = <iovec*>calloc(<size_t>self.depth * MOST_VECTORS, sizeof(iovec))
        else:
            self.fd = fcntl(device.fd, F_DUPFD_CLOEXEC, 0)
            if self.fd < 0:
                return set_os_fault(fault, FAULT_IO, errno, "opening a read engine", 0)
        if try_uring:
            rc = self.start_uring()
        if rc < 0 and try_threads:
            rc = pool_open(&self.pool, self.requests, self.depth, self.fd, self.alignment, self.table)
        self.is_open = rc == 0
        return 0 if rc == 0 else set_os_fault(fault, FAULT_IO, -rc, "opening a read engine", 0)

    cdef int start_uring(self) noexcept nogil:
        cdef uring_t* uring = <uring_t*>calloc(1, sizeof(uring_t))
        cdef int rc
        if uring == NULL:
            return -ENOMEM
        rc = uring_open(uring, self.depth)
        if rc < 0:
            free(uring)
            return rc
        self.uring = uring
        return 0

    cdef int check(self, uint64_t offset, uint8_t* destination, uint32_t size, fault_t* fault) noexcept nogil:
        cdef const char* site = "submitting a read"
        if not self.is_open:
            return set_fault(fault, FAULT_MISUSE, site, 0, offset, "the engine is closed")
        if self.in_flight >= self.depth:
            return set_fault(fault, FAULT_MISUSE, site, 0, offset, "as many reads as the queue is deep are in flight")
        if size == 0 or size > LARGEST_REQUEST:
            return set_fault(fault, FAULT_MISUSE, site, 0, offset, "a read is of 1 byte to 1 GiB")
        if (offset | <uint64_t>destination | size) & (self.block_size - 1):
            return set_fault(fault, FAULT_ALIGNMENT, site, 0, offset, NULL)
        return 0

    cdef int submit(self, uint64_t offset, uint8_t* destination, uint32_t size, uint64_t tag,
                    fault_t* fault) noexcept nogil:
        cdef uint32_t slot
        cdef request_t* request
        cdef int rc
        if self.check(offset, destination, size, fault) < 0:
            return fault.code
        slot = self.free_slots[self.free_count - 1]
        request = &self.requests[slot]
        memset(request, 0, sizeof(request_t))
        request.offset = offset
        request.destination = destination
        request.size = request.wanted = size
        request.tag = tag
        if self.vectors != NULL:
            request.vectors = self.vectors + <size_t>slot * MOST_VECTORS
        # An image whose size is no multiple of the block size ends inside its last block.
        if offset < self.device_size and self.device_size - offset < size < self.device_size - offset + self.block_size:
            request.wanted = <uint32_t>(self.device_size - offset)
        rc = self.queue(slot)
        if rc < 0:
            return set_os_fault(fault, FAULT_IO, -rc, "submitting a read", offset)
        self.free_count -= 1
        self.in_flight += 1
        return 0

    cdef int queue(self, uint32_t slot) noexcept nogil:
        # Queues what is left of a request.
        cdef request_t* request = &self.requests[slot]
        if self.pool != NULL:
            pool_push(self.pool, slot)
            return 0
        if self.table != NULL:
            return self.queue_piece(slot)
        return uring_queue(<uring_t*>self.uring, self.fd, request.destination + request.done,
                           request.size - request.done, request.offset + request.done, slot)

    cdef int queue_piece(self, uint32_t slot) noexcept nogil:
        # The next piece of a request to a spanned device; finish() comes back for the others.
        cdef request_t* request = &self.requests[slot]
        cdef uring_t* uring = <uring_t*>self.uring
        cdef read_step_t step
        next_read(self.table, request, &step)
        if step.size == 0:
            return uring_queue_nothing(uring, slot)
        if step.vector_count != 0:
            return uring_queue_vectors(uring, step.fd, request.vectors, step.vector_count, step.physical, slot)
        return uring_queue(uring, step.fd, request.destination + request.done, step.size, step.physical, slot)

    cdef int flush(self, fault_t* fault) noexcept nogil:
        cdef int rc = 0
        if self.uring != NULL:
            rc = uring_submit(<uring_t*>self.uring, 0)
        if rc >= 0 or rc == -EINTR or rc == -EAGAIN or rc == -EBUSY:
            return 0                                 # what the kernel did not take now, reap() hands over again
        return set_os_fault(fault, FAULT_IO, -rc, "submitting reads", 0)

    cdef int reap(self, read_completion_t* out, uint32_t capacity, uint32_t minimum, fault_t* fault) noexcept nogil:
        cdef uint32_t slots[MOST_DEPTH]
        cdef uint32_t count, i
        cdef int rc
        if not self.is_open or minimum > capacity:
            return set_fault(fault, FAULT_MISUSE, "reaping reads", 0, 0,
                             "the engine is closed" if not self.is_open else "more are awaited than there is room for")
        capacity = min(capacity, self.in_flight)
        minimum = min(minimum, self.in_flight)
        if self.uring != NULL:
            rc = self.reap_uring(out, capacity, minimum)
            return rc if rc >= 0 else set_os_fault(fault, FAULT_IO, -rc, "waiting for reads", 0)
        count = pool_pop(self.pool, slots, capacity, minimum)
        for i in range(count):
            self.complete(slots[i], &out[i])
        return <int>count

    cdef int reap_uring(self, read_completion_t* out, uint32_t capacity, uint32_t minimum) noexcept nogil:
        # A failure to submit or wait comes back at the next call too: completions that are there are handed out first.
        cdef uring_t* uring = <uring_t*>self.uring
        cdef uint64_t slot
        cdef uint32_t count = 0
        cdef int result, rc
        rc = uring_submit(uring, 0)
        while True:
            while count < capacity and uring_next(uring, &slot, &result):
                if self.finish(<uint32_t>slot, result):
                    self.complete(<uint32_t>slot, &out[count])
                    count += 1
            if count >= minimum:
                uring_submit(uring, 0)               # short reads that were queued again
                return <int>count
            if rc < 0 and rc != -EINTR and rc != -EAGAIN and rc != -EBUSY:
                return <int>count if count != 0 else rc
            rc = uring_submit(uring, 1)

    cdef bint finish(self, uint32_t slot, int result) noexcept nogil:
        # True when the request is complete; otherwise what is left of it has been queued again.
        cdef request_t* request = &self.requests[slot]
        cdef int rc
        if result == -EINTR or result == -EAGAIN:
            request.retries += 1
            if request.retries > MOST_RETRIES:
                request.os_errno = -result
        elif result < 0:
            request.os_errno = -result
        else:
            request.retries = 0
            if self.table != NULL:
                advance_read(request, <uint32_t>result)
            else:
                advance_request(request, <uint32_t>result, self.alignment)
        if request.os_errno != 0 or request.done >= request.wanted:
            return True
        rc = self.queue(slot)
        if rc < 0:
            request.os_errno = -rc
        return rc < 0

    cdef void complete(self, uint32_t slot, read_completion_t* out) noexcept nogil:
        cdef request_t* request = &self.requests[slot]
        memset(request.destination + request.wanted, 0, request.size - request.wanted)
        out.tag = request.tag
        out.os_errno = request.os_errno
        self.free_slots[self.free_count] = slot
        self.free_count += 1
        self.in_flight -= 1

    cdef void drain(self) noexcept nogil:
        cdef read_completion_t forgotten[64]
        cdef fault_t fault
        cdef int failures = 0
        while self.is_open and self.in_flight != 0 and failures < MOST_RETRIES:
            if self.reap(forgotten, 64, 1, &fault) < 0:
                failures += 1

    cdef void close_engine(self) noexcept nogil:
        if self.owner == getpid():
            self.drain()
            if self.uring != NULL:
                uring_close(<uring_t*>self.uring)
            if self.pool != NULL:
                pool_close(self.pool)
            free(self.uring)
            free(self.requests)
            free(self.free_slots)
            free(self.vectors)
        if self.fd >= 0:
            c_close(self.fd)
        self.is_open = False
        self.fd = -1
        self.table = NULL
        self.in_flight = 0
        self.uring = NULL
        self.pool = NULL
        self.requests = NULL
        self.free_slots = NULL
        self.vectors = NULL
        self.free_count = 0

    def read_into(self, BufferRing ring not None, uint64_t index, uint64_t offset, uint32_t size, uint64_t tag):
        """Start a read of ``size`` bytes at byte ``offset`` into slot ``index`` (modulo depth) of ``ring``.

        Raises:
            Misuse: not aligned, larger than a slot, the queue is full, or the engine is closed.
            DeviceError: the kernel refused the request.
        """
        cdef fault_t fault
        cdef int rc
        if size > ring.slot_size:
            rc = set_fault(&fault, FAULT_MISUSE, "submitting a read", 0, offset, "it is larger than a slot of the ring")
        else:
            self.hold(ring)
            rc = self.submit(offset, ring.slot(index), size, tag, &fault)
        if rc == 0:
            with nogil:
                rc = self.flush(&fault)
        if rc < 0:
            raise_fault(&fault)

    def wait(self, uint32_t minimum=1):
        """Completed reads as a list of (tag, errno), errno 0 for success, once there are ``minimum`` or none is left.

        Raises:
            Misuse: ``minimum`` exceeds the depth, or the engine is closed.
            DeviceError: the kernel refused to wait.
        """
        cdef read_completion_t done[MOST_DEPTH]
        cdef fault_t fault
        cdef int count
        with nogil:
            count = self.reap(done, self.depth, minimum, &fault)
        if count < 0:
            raise_fault(&fault)
        return [(done[i].tag, done[i].os_errno) for i in range(count)]

    def read_batch(self, requests):
        """Read all of ``requests``, pairs of (offset, size) in bytes, aligned: a list of (errno, bytes) in their order.

        For tools and tests: it holds everything in memory at once, 16 GiB at most.

        Raises:
            Misuse: a request is not aligned, reads are in flight already, or the engine is closed.
            LimitReached: no memory. DeviceError: the kernel refused a request.
        """
        cdef fault_t fault
        if self.in_flight != 0:
            set_fault(&fault, FAULT_MISUSE, "reading a batch", 0, 0, "reads are in flight already")
            raise_fault(&fault)
        starts = [0, *itertools.accumulate(size for _, size in requests)]
        memory = AlignedBuffer(max(starts))
        errors = [0] * len(requests)
        try:
            self.run_batch(memory, requests, starts, errors)
        finally:
            with nogil:
                self.drain()
        memory.used = memory.capacity
        return [(errors[i], bytes(memoryview(memory)[starts[i]:starts[i + 1]])) for i in range(len(requests))]

    def close(self):
        """Wait for all reads in flight, then give everything back. A second time does nothing."""
        with nogil:
            self.close_engine()
        self.held.clear()
        self.spans = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    cdef int hold(self, object memory) except -1:
        # Of reads that were all reaped nothing need be held any more.
        if self.in_flight == 0:
            self.held.clear()
        if not any(memory is one for one in self.held):
            self.held.append(memory)
        return 0

    cdef int run_batch(self, AlignedBuffer memory, list requests, list starts, list errors) except -1:
        cdef fault_t fault
        cdef uint64_t offset, start
        cdef uint32_t size
        for tag, request in enumerate(requests):
            offset, size = request
            start = starts[tag]
            if self.in_flight == self.depth:
                self.note(errors)
            if self.submit(offset, memory.data + start, size, tag, &fault) < 0:
                raise_fault(&fault)
        while self.in_flight != 0:
            self.note(errors)
        return 0

    cdef int note(self, list errors) except -1:
        for tag, os_errno in self.wait():
            errors[tag] = os_errno
        return 0
