"""device reads block devices and image files past the page cache, and owns bulk memory. It knows no file system.

A mirror's pages may be in the cache from before it was split, and the kernel does not notice the split: what they hold
must never be believed. Hence O_DIRECT, and where a file system refuses it, cached pages are dropped at open.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EINTR, EINVAL, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from splitreel.core.fault cimport (
    FAULT_ALIGNMENT, FAULT_IO, FAULT_LIMIT, FAULT_MISUSE, FAULT_NO_MEMORY, FAULT_SHORT_DEVICE, fault_t, raise_fault,
    set_fault, set_os_fault,
)


cdef extern from "Python.h":
    object PyOS_FSPath(object path)
    object PyUnicode_EncodeFSDefault(object text)

cdef extern from "odirect.h" nogil:
    int64_t odirect_alignment(int fd)

cdef extern from "<fcntl.h>" nogil:
    int open(const char* path, int flags, ...)
    int posix_fadvise(int fd, int64_t offset, int64_t size, int advice)
    int fcntl(int fd, int command, ...)
    const int O_RDONLY, O_CLOEXEC, O_DIRECT, F_SETFL
    const int POSIX_FADV_DONTNEED

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)
    ssize_t c_pread "pread"(int fd, void* destination, size_t size, int64_t offset)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<linux/fs.h>" nogil:
    const unsigned long BLKGETSIZE64, BLKSSZGET

cdef extern from "<sys/stat.h>" nogil:
    cdef struct stat_t "stat":
        unsigned int st_mode
        int64_t st_size
    int c_stat "stat"(const char* path, stat_t* about)
    int c_fstat "fstat"(int fd, stat_t* about)
    bint S_ISBLK(unsigned int mode)
    bint S_ISREG(unsigned int mode)
    bint S_ISDIR(unsigned int mode)
    bint S_ISCHR(unsigned int mode)

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t size, int protection, int flags, int fd, int64_t offset)
    int munmap(void* address, size_t size)
    int madvise(void* address, size_t size, int advice)
    const int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MADV_HUGEPAGE
    void* MAP_FAILED


cdef const char* SHRUNK = "it has shrunk since it was opened"
cdef size_t PAGE = 4096
cdef size_t HUGE_PAGE = 2 << 20
cdef size_t BOUNCE_SIZE = 256 << 10
cdef uint32_t SMALLEST_BLOCK = 512
cdef uint32_t LARGEST_BLOCK = 64 << 10               # block sizes above the page size came with Linux 6.15
cdef uint64_t LARGEST_READ = 1 << 30                 # one read(2) moves at most 2 GiB less a page
cdef size_t RING_LIMIT = <size_t>1 << 34             # a ring above 16 GiB is a mistyped number


OPEN_ADVICE = "Name a block device or an image file that this user may read; block devices need root or the group disk."


cdef int raise_named(const fault_t* fault, str what, str advice) except -1:
    try:
        raise_fault(fault)
    except Exception as error:
        named = type(error)(what, error.why, advice)
        named.__dict__ = {**error.__dict__, **named.__dict__}
        raise named from None


cdef int64_t pread_full(int fd, uint8_t* destination, uint64_t size, uint64_t offset,
                        uint32_t alignment) noexcept nogil:
    cdef uint64_t done = 0
    cdef ssize_t got
    while done < size:
        got = c_pread(fd, destination + done, min(size - done, LARGEST_READ), <int64_t>(offset + done))
        if got < 0 and errno == EINTR:
            continue
        if got < 0:
            return -errno
        done += <uint64_t>got
        if got == 0 or done % alignment != 0:
            break
    return <int64_t>done


cdef int read_straight(int fd, uint32_t alignment, uint64_t offset, uint8_t* destination, size_t size,
                       fault_t* fault) noexcept nogil:
    cdef int64_t got = pread_full(fd, destination, size, offset, alignment)
    if got < 0:
        return set_os_fault(fault, FAULT_IO, <int>-got, "reading a device", offset)
    if <uint64_t>got < size:
        return set_fault(fault, FAULT_SHORT_DEVICE, "reading a device", 0, offset + <uint64_t>got, SHRUNK)
    return 0


cdef int read_bounced(int fd, uint32_t block_size, uint8_t* bounce, uint64_t offset, uint8_t* destination, size_t size,
                      size_t* part, fault_t* fault) noexcept nogil:
    # Reads the head up to a block boundary where the rest can then go straight, else as much as the bounce holds.
    cdef uint64_t mask = block_size - 1
    cdef uint64_t head = offset & mask
    cdef uint64_t wanted = min(size, BOUNCE_SIZE - head)
    cdef int64_t got
    if head != 0 and ((<uint64_t>destination - offset) & mask) == 0:
        wanted = min(wanted, mask + 1 - head)
    got = pread_full(fd, bounce, (head + wanted + mask) & ~mask, offset - head, block_size)
    if got < 0:
        return set_os_fault(fault, FAULT_IO, <int>-got, "reading a device", offset)
    if <uint64_t>got < head + wanted:
        return set_fault(fault, FAULT_SHORT_DEVICE, "reading a device", 0, max(offset, offset - head + <uint64_t>got),
                         SHRUNK)
    memcpy(destination, bounce + head, wanted)
    part[0] = wanted
    return 0


cdef int read_range(int fd, uint32_t block_size, bint direct, uint8_t* bounce, uint64_t offset, uint8_t* destination,
                    size_t size, fault_t* fault) noexcept nogil:
    cdef uint64_t mask = block_size - 1 if direct else 0
    cdef size_t part = 0
    cdef int rc
    while size != 0:
        if (offset & mask) == 0 and (<size_t>destination & mask) == 0 and size > mask:
            part = size & ~mask
            rc = read_straight(fd, block_size if direct else 1, offset, destination, part, fault)
        else:
            rc = read_bounced(fd, block_size, bounce, offset, destination, size, &part, fault)
        if rc < 0:
            return rc
        offset += part
        destination += part
        size -= part
    return 0


cdef uint8_t* new_bounce() noexcept nogil:
    cdef void* memory = NULL
    if posix_memalign(&memory, LARGEST_BLOCK, BOUNCE_SIZE) != 0:
        return NULL
    return <uint8_t*>memory


cdef int refuse_kind(unsigned int mode, fault_t* fault) noexcept nogil:
    cdef const char* detail = "it is neither a block device nor a regular file"
    if S_ISBLK(mode) or S_ISREG(mode):
        return 0
    if S_ISDIR(mode):
        detail = "it is a directory"
    elif S_ISCHR(mode):
        detail = "it is a character device"
    return set_fault(fault, FAULT_IO, "opening a device", 0, 0, detail)


cdef class BlockDevice:
    """A block device or an image file, opened for reading. One thread at a time.

    Attributes: ``path``; ``size`` in bytes; ``logical_block_size``, the alignment in bytes that direct reads need;
    ``direct``, false where the file system refuses O_DIRECT and pages cached before were dropped instead.

    Raises:
        DeviceError: the path is missing, may not be read, or is something else than a block device or regular file.
    """

    def __cinit__(self):
        self.fd = -1
        self.bounce = NULL

    def __init__(self, path):
        cdef fault_t fault
        cdef const char* name
        cdef int rc
        self.close()
        self.path = PyOS_FSPath(path)
        encoded = self.path if isinstance(self.path, bytes) else PyUnicode_EncodeFSDefault(self.path)
        if b"\0" in encoded:
            set_fault(&fault, FAULT_IO, "opening a device", 0, 0, "the path holds a null byte")
            raise_named(&fault, "opening a device", OPEN_ADVICE)
        name = encoded
        with nogil:
            rc = self.open_path(name, &fault)
        if rc < 0:
            self.close()
            raise_named(&fault, f"opening {encoded.decode('utf-8', 'replace')}", OPEN_ADVICE)

    def __dealloc__(self):
        self.close_device()

    cdef int open_path(self, const char* path, fault_t* fault) noexcept nogil:
        # The kind is looked at before the open: opening a tape or a FIFO has effects of its own.
        cdef stat_t about
        cdef int flags = O_RDONLY | O_CLOEXEC
        if c_stat(path, &about) != 0:
            return set_os_fault(fault, FAULT_IO, errno, "opening a device", 0)
        if refuse_kind(about.st_mode, fault) < 0:
            return fault.code
        self.direct = True
        self.fd = open(path, flags | O_DIRECT)
        if self.fd < 0 and errno == EINVAL:
            self.direct = False
            self.fd = open(path, flags)
        if self.fd < 0 or c_fstat(self.fd, &about) != 0:
            return set_os_fault(fault, FAULT_IO, errno, "opening a device", 0)
        if refuse_kind(about.st_mode, fault) < 0:
            return fault.code
        if self.measure(S_ISBLK(about.st_mode), <uint64_t>about.st_size, fault) < 0:
            return fault.code
        return self.choose_alignment(S_ISBLK(about.st_mode), fault)

    cdef int measure(self, bint is_block, uint64_t file_size, fault_t* fault) noexcept nogil:
        cdef int block_size = 0
        self.size = file_size
        self.logical_block_size = SMALLEST_BLOCK
        if not is_block:
            return 0
        if ioctl(self.fd, BLKGETSIZE64, &self.size) != 0 or ioctl(self.fd, BLKSSZGET, &block_size) != 0:
            return set_os_fault(fault, FAULT_IO, errno, "asking a device for its size", 0)
        if self.size == 0:
            return set_fault(fault, FAULT_IO, "opening a device", 0, 0, "the device has no medium: its size is 0")
        if block_size < <int>SMALLEST_BLOCK or block_size > <int>LARGEST_BLOCK or block_size & (block_size - 1):
            return set_fault(fault, FAULT_IO, "opening a device", 0, 0, "its logical block size is not a usable one")
        self.logical_block_size = <uint32_t>block_size
        return 0

    cdef int choose_alignment(self, bint is_block, fault_t* fault) noexcept nogil:
        cdef int64_t alignment = self.logical_block_size
        self.bounce = new_bounce()
        if self.bounce == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, "opening a device", 0, 0, NULL)
        if self.direct and not is_block:
            alignment = odirect_alignment(self.fd)
            if alignment < 0:
                alignment = self.probe_alignment()
            if alignment <= 0 or alignment > LARGEST_BLOCK or alignment & (alignment - 1):
                self.direct = False
            else:
                self.logical_block_size = max(<uint32_t>alignment, SMALLEST_BLOCK)
        if not self.direct:
            return self.become_buffered(fault)
        return 0

    cdef uint32_t probe_alignment(self) noexcept nogil:
        # The smallest alignment that the file system accepts for offset, length and memory alike; 0: none up to a page.
        cdef uint32_t alignment = SMALLEST_BLOCK
        cdef int64_t offset
        while alignment <= PAGE:
            offset = alignment if self.size > alignment else 0
            if c_pread(self.fd, self.bounce + alignment, alignment, offset) >= 0:
                return alignment
            alignment *= 2
        return 0

    cdef int become_buffered(self, fault_t* fault) noexcept nogil:
        # Clean pages are dropped; dirty ones are this host's own writes and newer than what lies on the device.
        cdef int failed
        self.direct = False
        if fcntl(self.fd, F_SETFL, 0) != 0:
            return set_os_fault(fault, FAULT_IO, errno, "turning O_DIRECT off", 0)
        failed = posix_fadvise(self.fd, 0, 0, POSIX_FADV_DONTNEED)
        if failed != 0:
            return set_os_fault(fault, FAULT_IO, failed, "dropping cached pages", 0)
        return 0

    cdef int read(self, uint64_t offset, void* destination, size_t size, fault_t* fault) noexcept nogil:
        if self.fd < 0:
            return set_fault(fault, FAULT_MISUSE, "reading a device", 0, offset, "the device is closed")
        if offset > self.size or size > self.size - offset:
            return set_fault(fault, FAULT_SHORT_DEVICE, "reading a device", 0, offset, NULL)
        return read_range(self.fd, self.logical_block_size, self.direct, self.bounce, offset,
                          <uint8_t*>destination, size, fault)

    cdef bint is_open(self) noexcept nogil:
        return self.fd >= 0

    cdef void close_device(self) noexcept nogil:
        if self.fd >= 0:
            c_close(self.fd)
        self.fd = -1
        free(self.bounce)
        self.bounce = NULL

    def pread(self, uint64_t offset, size_t size):
        """Exactly ``size`` bytes at byte ``offset``; neither need be aligned. The GIL is released.

        Raises:
            DeviceError: an I/O error (``os_errno``, ``offset``), or the range lies beyond the end of the device.
            Misuse: the device is closed.
        """
        cdef fault_t fault
        cdef int rc
        cdef char* into
        if self.is_open() and size > self.size:
            set_fault(&fault, FAULT_SHORT_DEVICE, "reading a device", 0, offset, NULL)
            raise_fault(&fault)
        data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size if self.is_open() else 0)
        into = PyBytes_AS_STRING(data)
        with nogil:
            rc = self.read(offset, into, size, &fault)
        if rc < 0:
            raise_fault(&fault)
        return data

    def close(self):
        """Close it; a second time does nothing."""
        with nogil:
            self.close_device()

    def fileno(self):
        """The file descriptor, opened with O_DIRECT where ``direct`` is true; -1 where it has none, or is closed."""
        return self.fd

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


cdef class AlignedBuffer:
    """Page-aligned memory; ``memoryview(buffer)`` shows what was filled in, read-only. One thread at a time.

    While views are exported it refuses to be filled again: their owners count on what they saw.

    Raises:
        LimitReached: no memory, or ``capacity`` bytes are more than 16 GiB.
    """

    def __cinit__(self, size_t capacity):
        cdef fault_t fault
        if capacity > RING_LIMIT:
            set_fault(&fault, FAULT_LIMIT, "allocating a buffer", 0, 0, "a buffer holds at most 16 GiB")
            raise_fault(&fault)
        if posix_memalign(<void**>&self.data, LARGEST_BLOCK, max(capacity, <size_t>1)) != 0:
            self.data = NULL
            set_fault(&fault, FAULT_NO_MEMORY, "allocating a buffer", 0, 0, NULL)
            raise_fault(&fault)
        self.capacity = capacity
        self.used = 0
        self.views = 0

    def __dealloc__(self):
        free(self.data)

    def __len__(self):
        return self.used

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, <Py_ssize_t>self.used, 1, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.views -= 1

    cdef int fill(self, BlockDevice device, uint64_t offset, size_t size, fault_t* fault) noexcept nogil:
        if self.views > 0:
            return set_fault(fault, FAULT_MISUSE, "filling a buffer", 0, offset, "views of its bytes are still in use")
        if size > self.capacity:
            return set_fault(fault, FAULT_MISUSE, "filling a buffer", 0, offset, "it is smaller than what shall go in")
        self.used = 0
        if device.read(offset, self.data, size, fault) < 0:
            return fault.code
        self.used = size
        return 0

    def load(self, BlockDevice device not None, uint64_t offset, size_t size):
        """Fill it with ``size`` bytes of ``device`` at byte ``offset``. The GIL is released.

        Raises:
            DeviceError: as BlockDevice.pread.
            Misuse: views are exported, ``size`` exceeds the capacity, or the device is closed.
        """
        cdef fault_t fault
        cdef int rc
        with nogil:
            rc = self.fill(device, offset, size, &fault)
        if rc < 0:
            raise_fault(&fault)


cdef class BufferRing:
    """``depth`` slots of ``slot_size`` bytes in one page-aligned allocation; ``memoryview(ring)`` shows all, read-only.

    Slots are as well aligned as their size: a multiple of 4096 keeps each on a page. Huge pages are asked for.

    Raises:
        LimitReached: no memory, or more than 16 GiB altogether.
        Misuse: no slots, or a slot size that is 0 or no multiple of 512 bytes.
    """

    def __cinit__(self, uint32_t depth, size_t slot_size):
        cdef fault_t fault
        cdef void* memory
        self.mapped = NULL
        if depth == 0 or slot_size == 0 or slot_size % SMALLEST_BLOCK != 0:
            set_fault(&fault, FAULT_ALIGNMENT, "allocating a ring", 0, 0, "it needs slots of a multiple of 512 bytes")
            raise_fault(&fault)
        if slot_size > RING_LIMIT // depth:
            set_fault(&fault, FAULT_LIMIT, "allocating a ring", 0, 0, "a ring holds at most 16 GiB")
            raise_fault(&fault)
        # Address space for a huge page more, so that the ring can start on one; what is not touched takes no memory.
        self.mapped_size = depth * slot_size + HUGE_PAGE
        memory = mmap(NULL, self.mapped_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            set_os_fault(&fault, FAULT_NO_MEMORY, errno, "allocating a ring", 0)
            raise_fault(&fault)
        self.mapped = memory
        self.data = <uint8_t*>((<size_t>memory + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1))
        madvise(self.data, depth * slot_size, MADV_HUGEPAGE)   # a hint: kernels without huge pages refuse it
        self.depth = depth
        self.slot_size = slot_size

    def __dealloc__(self):
        if self.mapped != NULL:
            munmap(self.mapped, self.mapped_size)

    def __len__(self):
        return self.depth

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, <Py_ssize_t>(self.depth * self.slot_size), 1, flags)

    cdef uint8_t* slot(self, uint64_t index) noexcept nogil:
        return self.data + (index % self.depth) * self.slot_size
