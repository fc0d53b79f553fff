"""softdrive_medium keeps one tape in a SIMH .tap file. It knows blocks and filemarks, not commands.

Format (SIMH magnetic tape representation): a block is u32le length, data padded to even, u32le length; a filemark is
one u32le 0; FFFFFFFEh is a gap of 4 bytes, FFFFFFFFh ends the medium, and so does the end of the file. Bit 31 of a
length marks a bad record. The side file NAME.idx is optional and in this machine's byte order: cartridge settings, and
an index that is believed only when the .tap file has not changed since.
"""

import errno
import os

from libc.errno cimport EIO, ENOSPC
from libc.errno cimport errno as c_errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from splitreel.core.checksum cimport crc32c_update

from splitreel import errors

cdef extern from "tapfile.h" nogil:
    uint32_t tap_word(const uint8_t* data)
    int64_t tap_read(int fd, void* destination, uint64_t size, uint64_t offset)
    int tap_write_record(int fd, const void* data, uint32_t size, uint64_t offset)
    int tap_write_bytes(int fd, const void* data, uint64_t size, uint64_t offset)
    cdef struct stat_t "stat":
        int64_t st_size
    uint64_t tap_mtime_ns(const stat_t* status)
    int c_fstat "fstat"(int fd, stat_t* status)
    int flock(int fd, int operation)
    int ftruncate(int fd, int64_t size)
    int fdatasync(int fd)
    int c_open "open"(const char* path, int flags, int mode)
    int c_close "close"(int fd)
    int c_rename "rename"(const char* old, const char* new)
    int LOCK_EX, LOCK_NB, O_RDWR, O_CREAT, O_TRUNC, O_WRONLY, O_CLOEXEC

cdef enum:
    WORD = 4
    LENGTH_MASK = 0xFFFFFF
    GAP = 0xFFFFFFFE
    END_OF_MEDIUM = 0xFFFFFFFF
    BAD = 0x80000000
    RESERVED = 0x7F000000
    POINT_EVERY = 64                               # objects between index points: 24 bytes for 64 blocks
    MARKS_BEYOND = 65536                           # bytes past the capacity that only filemarks may use
    ZEROS = 4096
    MOST_POINTS = 1 << 20                          # 24 MB; behind 64 million objects LOCATE is slower

cdef const uint64_t INDEX_MAGIC = 0x3130_5844_4950_5253        # "SRPIDX01" read on a little-endian machine

cdef struct index_header_t:
    uint64_t magic
    uint64_t file_size                             # of the .tap file when this was written
    uint64_t mtime_ns
    uint64_t point_count
    point_t end
    cartridge_t cartridge
    uint32_t crc                                   # CRC32C of all before it, then of the points
    uint32_t points_crc


cdef uint64_t record_size(uint32_t length) noexcept nogil:
    return <uint64_t>length + (length & 1) + 2 * WORD


cdef uint32_t header_crc(const index_header_t* header) noexcept nogil:
    return crc32c_update(0, header, <size_t>(<const uint8_t*>&header.crc - <const uint8_t*>header))


cdef bint attributes_fit(const cartridge_t* cartridge) noexcept nogil:
    """A right checksum does not make a length harmless."""
    cdef int i
    for i in range(MEDIUM_ATTRIBUTES):
        if cartridge.attributes[i].size > MEDIUM_ATTRIBUTE_SIZE:
            return False
    return True


cdef class Medium:
    """One tape. Holds an exclusive lock on its file; a second opener is refused. One thread at a time.

    Raises:
        TapeError: the file is in use, or cannot be opened or read.
    """

    def __cinit__(self, path, bint create=True):
        self.fd = -1
        self.points = NULL

    def __init__(self, path, bint create=True):
        self.path = os.fspath(path)
        self.index_path = os.fsencode(self.path) + b".idx"
        self.temporary_path = self.index_path + b".tmp"
        self.index_name = <const char*>(<bytes>self.index_path)
        self.temporary_name = <const char*>(<bytes>self.temporary_path)
        self.fd = self.open_file(create)
        if flock(self.fd, LOCK_EX | LOCK_NB) < 0:
            raise errors.TapeError(f"opening tape file {self.path}", "in use by another process or drive",
                                   "Close the other user of this tape, then start again.")
        self.points = <point_t*>calloc(POINT_EVERY, sizeof(point_t))
        if self.points == NULL:
            raise MemoryError
        self.point_count = 1
        self.point_capacity = POINT_EVERY
        self.read_in()

    def open_file(self, create):
        """The descriptor: read-write, or read-only where the file may not be written."""
        try:
            mode = os.stat(self.path).st_mode if os.path.exists(self.path) else 0o600
            self.writable = (mode & 0o222) != 0    # the superuser could write it: the mode is the write-protect tab
            if self.writable:
                try:
                    return os.open(self.path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o666)
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
                        raise
                    self.writable = False
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise errors.TapeError(f"opening tape file {self.path}", error.strerror,
                                   "Check the path and its permissions.") from None

    def read_in(self):
        """Load the side file, then find the end of data: from the index when it is current, else by scanning."""
        cdef stat_t status
        cdef uint64_t size
        cdef int rc
        if c_fstat(self.fd, &status) < 0:
            raise errors.TapeError(f"opening tape file {self.path}", os.strerror(c_errno))
        size = <uint64_t>status.st_size
        with nogil:
            rc = MEDIUM_BLOCK if self.load_index(size) else self.scan(size)
        if rc == MEDIUM_FAILED:
            raise errors.TapeError(f"scanning tape file {self.path}", os.strerror(self.os_errno))
        self.synced = self.end
        memset(&self.here, 0, sizeof(point_t))

    def close(self):
        """Synchronise, write the side file and let go of the lock; idempotent."""
        if self.fd >= 0:
            if self.writable and self.points != NULL:
                with nogil:
                    if self.synchronize() == MEDIUM_BLOCK:
                        self.dirty = False
                    self.save_index()
            os.close(self.fd)
            self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)
        free(self.points)

    # --- finding one's way ---

    cdef int note_point(self) noexcept nogil:
        """Add `here` to the index when it lies far enough behind the last point. A full index only slows LOCATE."""
        cdef point_t* grown
        if self.here.object_id < self.points[self.point_count - 1].object_id + POINT_EVERY:
            return 0
        if self.point_count == MOST_POINTS:
            return 0
        if self.point_count == self.point_capacity:
            grown = <point_t*>realloc(self.points, 2 * self.point_capacity * sizeof(point_t))
            if grown == NULL:
                return -1
            self.points = grown
            self.point_capacity *= 2
        self.points[self.point_count] = self.here
        self.point_count += 1
        return 0

    cdef int scan_record(self, uint32_t header, uint64_t file_size) noexcept nogil:
        """Step over the record at `here`: MEDIUM_BLOCK, MEDIUM_END when it is torn, MEDIUM_DAMAGED when it is wrong."""
        cdef uint8_t trailer[WORD]
        cdef uint64_t total = record_size(header & LENGTH_MASK)
        cdef int64_t got
        if header & RESERVED:
            return MEDIUM_DAMAGED
        if self.here.offset + total > file_size:
            return MEDIUM_END
        got = tap_read(self.fd, trailer, WORD, self.here.offset + total - WORD)
        if got < 0:
            self.os_errno = c_errno
            return MEDIUM_FAILED
        if got < WORD or tap_word(trailer) != header:
            return MEDIUM_DAMAGED
        self.here.offset += total
        self.here.object_id += 1
        return MEDIUM_BLOCK

    cdef int scan(self, uint64_t file_size) noexcept nogil:
        """Walk from the beginning to the end of data. A torn tail is left out and counted; so is all behind damage."""
        cdef uint8_t word[WORD]
        cdef uint32_t header
        cdef int64_t got
        cdef int rc = MEDIUM_BLOCK
        memset(&self.here, 0, sizeof(point_t))
        while rc == MEDIUM_BLOCK:
            got = tap_read(self.fd, word, WORD, self.here.offset)
            header = tap_word(word)
            if got < 0:
                self.os_errno = c_errno
                rc = MEDIUM_FAILED
            elif got < WORD or header == END_OF_MEDIUM:
                rc = MEDIUM_END
            elif header == GAP:
                self.here.offset += WORD
            elif header == 0:
                self.here.offset += WORD
                self.here.object_id += 1
                self.here.file_id += 1
            else:
                rc = self.scan_record(header, file_size)
            self.note_point()
        self.end = self.here
        self.damaged = rc == MEDIUM_DAMAGED
        if rc == MEDIUM_END and not (got == WORD and header == END_OF_MEDIUM):
            self.repaired_bytes = file_size - self.here.offset
        return rc

    cdef int peek(self, uint32_t* length) noexcept nogil:
        cdef uint8_t word[WORD]
        cdef uint32_t header = GAP
        length[0] = 0
        while header == GAP:
            if self.here.offset >= self.end.offset:
                return MEDIUM_DAMAGED if self.damaged else MEDIUM_END
            if tap_read(self.fd, word, WORD, self.here.offset) != WORD:
                self.os_errno = c_errno
                return MEDIUM_FAILED
            header = tap_word(word)
            if header == GAP:
                self.here.offset += WORD
        length[0] = header & LENGTH_MASK
        if header == 0:
            return MEDIUM_FILEMARK
        if header & RESERVED or self.here.offset + record_size(length[0]) > self.end.offset:
            self.os_errno = EIO                    # the file was changed under our lock
            return MEDIUM_FAILED
        return MEDIUM_DAMAGED if header & BAD else MEDIUM_BLOCK

    cdef int forward(self) noexcept nogil:
        cdef uint32_t length
        cdef int rc = self.peek(&length)
        if rc == MEDIUM_FILEMARK:
            self.here.offset += WORD
            self.here.file_id += 1
        elif rc == MEDIUM_BLOCK or (rc == MEDIUM_DAMAGED and self.here.offset < self.end.offset):
            self.here.offset += record_size(length)
            rc = MEDIUM_BLOCK
        else:
            return rc
        self.here.object_id += 1
        return rc

    cdef int backward(self) noexcept nogil:
        cdef uint8_t word[WORD]
        cdef uint32_t trailer = GAP
        cdef uint64_t total = WORD
        while trailer == GAP:
            if self.here.object_id == 0 or self.here.offset < WORD:
                memset(&self.here, 0, sizeof(point_t))
                return MEDIUM_BEGIN
            if tap_read(self.fd, word, WORD, self.here.offset - WORD) != WORD:
                self.os_errno = c_errno
                return MEDIUM_FAILED
            trailer = tap_word(word)
            if trailer == GAP:
                self.here.offset -= WORD
        if trailer != 0:
            total = record_size(trailer & LENGTH_MASK)
        if trailer & RESERVED or total > self.here.offset:
            return MEDIUM_DAMAGED
        self.here.offset -= total
        self.here.object_id -= 1
        if trailer == 0:
            self.here.file_id -= 1
            return MEDIUM_FILEMARK
        return MEDIUM_BLOCK

    cdef point_t* point_before(self, uint64_t target, bint files) noexcept nogil:
        """The last index point before the start of a file, or not behind an object; else the first one."""
        cdef size_t low = 0, high = self.point_count, middle
        while high - low > 1:
            middle = (low + high) // 2
            if (self.points[middle].file_id < target) if files else (self.points[middle].object_id <= target):
                low = middle
            else:
                high = middle
        return &self.points[low]

    cdef int locate_object(self, uint64_t object_id) noexcept nogil:
        """To the near side of an object; MEDIUM_END, and the position there, when there are fewer."""
        cdef point_t* point = self.point_before(object_id, False)
        cdef int rc
        if object_id >= self.end.object_id:
            self.here = self.end
            return MEDIUM_BLOCK if object_id == self.end.object_id else MEDIUM_END
        if self.here.object_id > object_id or self.here.object_id < point.object_id:
            self.here = point[0]
        while self.here.object_id < object_id:
            rc = self.forward()
            if rc > MEDIUM_FILEMARK:
                return rc
        return MEDIUM_BLOCK

    cdef int locate_file(self, uint64_t file_id) noexcept nogil:
        """To the first object of a file, behind a filemark; MEDIUM_END, and the position there, if there are fewer."""
        cdef int rc
        if file_id > self.end.file_id:
            self.here = self.end
            return MEDIUM_END
        self.here = self.point_before(file_id, True)[0]
        if file_id == 0:
            memset(&self.here, 0, sizeof(point_t))
        while self.here.file_id < file_id:
            rc = self.forward()
            if rc > MEDIUM_FILEMARK:
                return rc
        return MEDIUM_BLOCK

    # --- moving data ---

    cdef int read_block(self, uint8_t* destination, uint32_t capacity, uint32_t* length) noexcept nogil:
        cdef uint8_t trailer[WORD]
        cdef uint64_t start, total
        cdef uint32_t wanted
        cdef int rc = self.peek(length)
        if rc == MEDIUM_DAMAGED:
            self.forward()
        if rc != MEDIUM_BLOCK:
            return rc
        start = self.here.offset
        total = record_size(length[0])
        wanted = min(length[0], capacity)
        self.here.offset += total
        self.here.object_id += 1
        if (tap_read(self.fd, destination, wanted, start + WORD) != wanted
                or tap_read(self.fd, trailer, WORD, start + total - WORD) != WORD):
            self.os_errno = c_errno
            return MEDIUM_FAILED
        self.cartridge.bytes_read += length[0]
        return MEDIUM_BLOCK if tap_word(trailer) == length[0] else MEDIUM_DAMAGED

    cdef int begin_change(self) noexcept nogil:
        """Before the first change: make the side file's index disagree with the file for good."""
        if not self.dirty:
            self.dirty = True
            self.cartridge.change_reference += 1
            return self.save_index()
        return MEDIUM_BLOCK

    cdef int truncate(self) noexcept nogil:
        """End of data is here. The rest is cut off before anything is written, so that no old block reappears."""
        cdef stat_t status
        self.begin_change()
        if c_fstat(self.fd, &status) < 0:
            self.os_errno = c_errno
            return MEDIUM_FAILED
        if <uint64_t>status.st_size > self.here.offset and ftruncate(self.fd, <int64_t>self.here.offset) < 0:
            self.os_errno = c_errno
            return MEDIUM_FAILED
        while self.point_count > 1 and self.points[self.point_count - 1].offset > self.here.offset:
            self.point_count -= 1
        if self.synced.offset > self.here.offset:
            self.synced = self.here
        self.end = self.here
        self.damaged = False
        return MEDIUM_BLOCK

    cdef int append(self, const uint8_t* data, uint32_t size, bint framed) noexcept nogil:
        """Write one record, or bare bytes that are filemarks; what a failed write left is cut off again."""
        cdef int rc
        if (self.here.offset != self.end.offset or not self.dirty or self.damaged) and self.truncate() != MEDIUM_BLOCK:
            return MEDIUM_FAILED
        if framed:
            rc = tap_write_record(self.fd, data, size, self.here.offset)
        else:
            rc = tap_write_bytes(self.fd, data, size, self.here.offset)
        if rc < 0:
            self.os_errno = c_errno
            rc = ftruncate(self.fd, <int64_t>self.here.offset)
            return MEDIUM_FULL if self.os_errno == ENOSPC and rc == 0 else MEDIUM_FAILED
        return MEDIUM_BLOCK

    cdef int write_block(self, const uint8_t* data, uint32_t size) noexcept nogil:
        cdef uint64_t total = record_size(size)
        cdef int rc
        if self.cartridge.capacity and self.here.offset + total > self.cartridge.capacity:
            return MEDIUM_FULL
        rc = self.append(data, size, True)
        if rc == MEDIUM_BLOCK:
            self.here.offset += total
            self.here.object_id += 1
            self.end = self.here
            self.cartridge.bytes_written += size
            self.note_point()
        return rc

    cdef int write_filemarks(self, uint32_t count) noexcept nogil:
        cdef uint8_t zeros[ZEROS]
        cdef uint32_t batch
        cdef int rc
        memset(zeros, 0, ZEROS)
        while count:
            batch = min(count, <uint32_t>(ZEROS // WORD))
            if (self.cartridge.capacity
                    and self.here.offset + batch * WORD > self.cartridge.capacity + MARKS_BEYOND):
                return MEDIUM_FULL
            rc = self.append(zeros, batch * WORD, False)
            if rc != MEDIUM_BLOCK:
                return rc
            self.here.offset += batch * WORD
            self.here.object_id += batch
            self.here.file_id += batch
            self.end = self.here
            self.note_point()
            count -= batch
        return MEDIUM_BLOCK

    cdef int synchronize(self) noexcept nogil:
        if self.writable and self.dirty and fdatasync(self.fd) < 0:
            self.os_errno = c_errno
            return MEDIUM_FAILED
        self.synced = self.end
        return MEDIUM_BLOCK

    # --- the side file ---

    cdef attribute_t* attribute(self, uint16_t id, bint create) noexcept nogil:
        cdef attribute_t* free_slot = NULL
        cdef attribute_t* slot
        cdef int i
        for i in range(MEDIUM_ATTRIBUTES):
            slot = &self.cartridge.attributes[i]
            if slot.id == id:
                return slot
            if slot.id == 0 and free_slot == NULL:
                free_slot = slot
        if not create or free_slot == NULL:
            return NULL
        memset(free_slot, 0, sizeof(attribute_t))
        free_slot.id = id
        return free_slot

    cdef int load_index(self, uint64_t file_size) noexcept nogil:
        """Load the side file. 1 when its index describes the .tap file as it is, so that no scan is needed."""
        cdef index_header_t header
        cdef stat_t status
        cdef point_t* points
        cdef size_t bytes_of_points
        cdef int current = 0
        cdef int fd = c_open(self.index_name, O_CLOEXEC, 0)
        if fd < 0:
            return 0
        if (tap_read(fd, &header, sizeof(header), 0) == <int64_t>sizeof(header) and header.magic == INDEX_MAGIC
                and header.crc == header_crc(&header) and attributes_fit(&header.cartridge)):
            self.cartridge = header.cartridge
            current = (header.file_size == file_size and header.end.offset == file_size
                       and c_fstat(self.fd, &status) == 0 and header.mtime_ns == tap_mtime_ns(&status)
                       and 0 < header.point_count <= min(file_size // WORD + 1, <uint64_t>MOST_POINTS))
        if current:
            bytes_of_points = <size_t>header.point_count * sizeof(point_t)
            points = <point_t*>realloc(self.points, max(bytes_of_points, <size_t>POINT_EVERY * sizeof(point_t)))
            current = points != NULL
            if points != NULL:
                self.points = points
                self.point_capacity = max(<size_t>header.point_count, <size_t>POINT_EVERY)
                current = (tap_read(fd, points, bytes_of_points, sizeof(header)) == <int64_t>bytes_of_points
                           and crc32c_update(0, points, bytes_of_points) == header.points_crc)
        if current:
            self.point_count = <size_t>header.point_count
            self.end = header.end
        elif self.points != NULL:
            memset(self.points, 0, sizeof(point_t))
            self.point_count = 1
        c_close(fd)
        return current

    cdef int save_index(self) noexcept nogil:
        """Replace the side file. While `dirty`, it carries no index; without it the tape is only slower to open."""
        cdef index_header_t header
        cdef stat_t status
        cdef size_t bytes_of_points = 0
        cdef int fd, rc
        memset(&header, 0, sizeof(header))
        header.magic = INDEX_MAGIC
        header.cartridge = self.cartridge
        header.end = self.end
        if not self.dirty and not self.damaged and c_fstat(self.fd, &status) == 0:
            header.file_size = <uint64_t>status.st_size
            header.mtime_ns = tap_mtime_ns(&status)
            header.point_count = self.point_count
            bytes_of_points = self.point_count * sizeof(point_t)
        header.crc = header_crc(&header)
        header.points_crc = crc32c_update(0, self.points, bytes_of_points)
        fd = c_open(self.temporary_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
        if fd < 0:
            self.os_errno = c_errno
            return MEDIUM_FAILED
        rc = tap_write_bytes(fd, &header, sizeof(header), 0)
        if rc == 0:
            rc = tap_write_bytes(fd, self.points, bytes_of_points, sizeof(header))
        if c_close(fd) < 0 or rc < 0 or c_rename(self.temporary_name, self.index_name) < 0:
            self.os_errno = c_errno
            return MEDIUM_FAILED
        return MEDIUM_BLOCK
