"""xfs_log finds both ends of an XFS log and reads its records. It replays nothing and writes nothing.

Source: "XFS Algorithms & Data Structures", "Journaling Log"; the searches follow fs/xfs/xfs_log_recover.c, since only
what the kernel takes for the head is the head. A freeze leaves the log dirty on purpose: between tail and head stand
transactions of the superblock alone, so that a crash while frozen still visits the unlinked inodes.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport (
    FAULT_CORRUPT,
    FAULT_NEEDS_RECOVERY,
    FAULT_NO_MEMORY,
    FAULT_UNSUPPORTED,
    fault_t,
    raise_fault,
    set_fault,
)
from splitreel.core.xfs_disk cimport xfs_be32, xfs_be64, xfs_load32, xfs_load_crc
from splitreel.core.xfs_superblock cimport (
    XFS_MAX_SECTOR,
    decode_superblock,
    xfs_block_offset,
    xfs_geometry_t,
    xfs_valid_blocks,
)

cdef extern from "<endian.h>" nogil:
    uint16_t le16toh(uint16_t value)
    uint32_t le32toh(uint32_t value)
    uint64_t le64toh(uint64_t value)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef enum:
    RECORD_MAGIC = 0xFEEDBABE
    FORMAT_LITTLE_ENDIAN = 1
    VERSIONS = 3                                   # bits of h_version that are known
    CYCLES = 64                                    # words of cycle data in one header
    CYCLE_SPAN = CYCLES * XLOG_BLOCK               # bytes of data that one header stands for
    EXTENDED_HEADER = 260
    CRC_OFFSET = 32
    HEADER_SIZE = 328                              # what the checksum covers: with its padding on 64-bit machines,
    HEADER_SIZE_32 = 324                           # and without it where x86 of 32 bits wrote the log
    WINDOW = 4096 + 528                            # blocks: eight records of 256 KiB side by side, and one before them
    RECORDS_IN_FLIGHT = 8
    LSN_BLOCK = 0xFFFFFFFF                         # the half of a log sequence number that says where
    OPERATION = 12
    TRANSACTION_CLIENT = 0x69
    TRANSACTION_MAGIC = 0x5452414E
    ITEM_BUFFER = 0x123C
    BUFFER_ITEM = 20
    TRANSACTION_HEADER = 16

cdef const char* SITE = b"reading the XFS log"


cdef int corrupt(fault_t* fault, uint64_t offset, const char* detail) noexcept nogil:
    return set_fault(fault, FAULT_CORRUPT, SITE, 0, offset, detail)


cdef uint32_t block_cycle(const uint8_t* block) noexcept nogil:
    """The cycle in which a block was written; headers begin with their magic number instead."""
    cdef uint32_t word = xfs_load32(block)
    return xfs_load32(block + 4) if word == RECORD_MAGIC else word


cdef uint32_t header_blocks(const xlog_rec_header_t* header) noexcept nogil:
    """Blocks of a record before its data: one header for each 32 KiB that records of this log may hold."""
    cdef uint32_t size = xfs_be32(header.h_size)
    if xfs_be32(header.h_version) & 2 == 0 or size <= CYCLE_SPAN:
        return 1
    return (size + CYCLE_SPAN - 1) // CYCLE_SPAN


cdef bint is_header(const xfs_geometry_t* geometry, const uint8_t* block) noexcept nogil:
    """A record header of this file system, with lengths that can be."""
    cdef const xlog_rec_header_t* header = <const xlog_rec_header_t*>block
    cdef uint32_t version = xfs_be32(header.h_version)
    if xfs_be32(header.h_magicno) != RECORD_MAGIC or version == 0 or version & ~<uint32_t>VERSIONS:
        return False
    if memcmp(header.h_fs_uuid, geometry.uuid, 16) != 0 or header.h_cycle == 0:
        return False
    if xfs_be32(header.h_len) == 0 or xfs_be32(header.h_len) > XLOG_MAX_RECORD:
        return False
    return version & 2 == 0 or xfs_be32(header.h_size) <= XLOG_MAX_RECORD


cdef uint32_t record_crc(const uint8_t* record, uint32_t headers, uint32_t header_size) noexcept nogil:
    """Of the header without its checksum, the extended headers that its data need, the data as they lie in the log."""
    cdef uint32_t size = xfs_be32((<const xlog_rec_header_t*>record).h_len)
    cdef uint32_t needed = min(headers, (size + CYCLE_SPAN - 1) // CYCLE_SPAN)
    cdef uint32_t zero = 0, i
    cdef uint32_t crc = crc32c_update(crc32c_update(0, record, CRC_OFFSET), &zero, 4)
    crc = crc32c_update(crc, record + CRC_OFFSET + 4, header_size - CRC_OFFSET - 4)
    for i in range(1, needed):
        crc = crc32c_update(crc, record + i * XLOG_BLOCK, EXTENDED_HEADER)
    return crc32c_update(crc, record + headers * XLOG_BLOCK, size)


cdef bint record_whole(const uint8_t* record, uint32_t headers, uint32_t blocks, uint64_t before_end,
                       bint need_crc) noexcept nogil:
    """All blocks bear the record's cycle, one more behind the end of the log, and the checksum matches."""
    cdef const xlog_rec_header_t* header = <const xlog_rec_header_t*>record
    cdef uint32_t cycle = xfs_be32(header.h_cycle), wanted, stored, i
    for i in range(1, headers + blocks):
        wanted = cycle
        if i >= before_end:
            wanted += 2 if cycle + 1 == RECORD_MAGIC else 1
        if xfs_load32(record + i * XLOG_BLOCK) != wanted:
            return False
    stored = xfs_load_crc(record + CRC_OFFSET)
    # mkfs.xfs and xfs_repair write their one unmount record without a checksum; the kernel takes it so, too.
    if stored == 0 and (not need_crc or xfs_be32(header.h_num_logops) == 1):
        return True
    return (not crc_differs(record_crc(record, headers, HEADER_SIZE), stored)
            or not crc_differs(record_crc(record, headers, HEADER_SIZE_32), stored))


cdef void restore_words(uint8_t* record, uint32_t headers, uint32_t blocks) noexcept nogil:
    """The first word of each data block gave way to the cycle number and is kept in the headers."""
    cdef uint32_t i
    cdef const uint8_t* words
    for i in range(min(blocks, headers * CYCLES)):
        words = <const uint8_t*>(<const xlog_rec_header_t*>record).h_cycle_data
        if i >= CYCLES:
            words = record + (i // CYCLES) * XLOG_BLOCK + 4
        memcpy(record + (headers + i) * XLOG_BLOCK, words + 4 * (i % CYCLES), 4)


cdef const char* next_operation(const xlog_record_t* record, uint32_t* at, xlog_op_header_t* op,
                                const uint8_t** region) noexcept nogil:
    if record.size - at[0] < OPERATION:
        return b"an operation's header does not fit its record"
    memcpy(op, record.data + at[0], OPERATION)
    at[0] += OPERATION
    if xfs_be32(op.oh_len) > record.size - at[0]:
        return b"an operation does not fit its record"
    region[0] = record.data + at[0]
    at[0] += xfs_be32(op.oh_len)
    return NULL


cdef bint logs_superblock(const uint8_t* region, uint32_t size, uint32_t* regions) noexcept nogil:
    """The first region of an item: a buffer at the start of the device. How many regions follow in *regions."""
    cdef const xfs_buf_log_format_t* item = <const xfs_buf_log_format_t*>region
    if size < BUFFER_ITEM or le16toh(item.blf_type) != ITEM_BUFFER or le64toh(item.blf_blkno) != 0:
        return False
    regions[0] = le16toh(item.blf_size) - <uint32_t>1
    return le16toh(item.blf_size) > 0


cdef bint only_superblock(const xlog_record_t* record) noexcept nogil:
    """Every item of every transaction in the record is the superblock; what cannot be followed is not."""
    cdef uint32_t at = 0, left = 0, size
    cdef xlog_op_header_t op
    cdef const uint8_t* region
    for _ in range(record.op_count):
        if next_operation(record, &at, &op, &region) != NULL:
            return False
        size = xfs_be32(op.oh_len)
        if op.oh_flags & (XLOG_CONTINUE_TRANS | XLOG_WAS_CONT_TRANS) or op.oh_clientid != TRANSACTION_CLIENT:
            return False
        if op.oh_flags & XLOG_COMMIT_TRANS or size == 0:
            continue
        if left > 0:
            left -= 1
        elif size == TRANSACTION_HEADER and le32toh((<const xfs_trans_header_t*>region).th_magic) == TRANSACTION_MAGIC:
            continue
        elif not logs_superblock(region, size, &left):
            return False
    return True


cdef class XfsLog:
    """A log on its device, inside the file system or outside. One thread at a time; no Python face."""

    def __dealloc__(self):
        free(self.buffer)
        free(self.window)

    def __cinit__(self, BlockDevice device not None):
        self.device = device

    cdef int open(self, uint64_t start, uint64_t size, const xfs_geometry_t* geometry, fault_t* fault) noexcept nogil:
        cdef size_t most = 2 * XLOG_MAX_RECORD     # headers are a 64th of the data
        if start > self.device.size or size > self.device.size - start or size < 2 * XLOG_BLOCK:
            return corrupt(fault, start, b"the log does not fit its device")
        if self.buffer == NULL and posix_memalign(<void**>&self.buffer, 4096, most) != 0:
            self.buffer = NULL
            return set_fault(fault, FAULT_NO_MEMORY, SITE, 0, 0, NULL)
        if self.window == NULL and posix_memalign(<void**>&self.window, 4096, WINDOW * XLOG_BLOCK) != 0:
            self.window = NULL
            return set_fault(fault, FAULT_NO_MEMORY, SITE, 0, 0, NULL)
        self.base = start
        self.count = size // XLOG_BLOCK
        self.geometry = geometry
        self.head = self.tail = 0
        self.unmounted = False
        return 0

    cdef int open_of(self, const xfs_geometry_t* geometry, bint external, fault_t* fault) noexcept nogil:
        """The log that a superblock names; external: the device is the log's own."""
        cdef uint64_t size = <uint64_t>geometry.log_blocks * geometry.block_size
        if external:
            return self.open(0, size, geometry, fault)
        if geometry.log_start == 0:
            return set_fault(fault, FAULT_NEEDS_RECOVERY, SITE, 0, 0, b"the log is on another device")
        if not xfs_valid_blocks(geometry, geometry.log_start, geometry.log_blocks):
            return corrupt(fault, 0, b"the log does not lie in one allocation group")
        return self.open(xfs_block_offset(geometry, geometry.log_start), size, geometry, fault)

    # Blocks and records.

    cdef int read_blocks(self, uint64_t block, uint64_t count, uint8_t* destination, fault_t* fault) noexcept nogil:
        """count blocks from block on; behind the last comes the first again."""
        cdef uint64_t part = min(count, self.count - block)
        if self.device.read(self.base + block * XLOG_BLOCK, destination, part * XLOG_BLOCK, fault) < 0:
            return fault.code
        if part < count:
            return self.device.read(self.base, destination + part * XLOG_BLOCK, (count - part) * XLOG_BLOCK, fault)
        return 0

    cdef int read_record(self, uint64_t block, xlog_record_t* record, fault_t* fault) noexcept nogil:
        cdef const xlog_rec_header_t* header = <const xlog_rec_header_t*>self.buffer
        cdef uint32_t headers, blocks
        if self.read_blocks(block, 1, self.buffer, fault) < 0:
            return fault.code
        if not is_header(self.geometry, self.buffer) or xfs_be64(header.h_lsn) & LSN_BLOCK != block:
            return 0
        if xfs_be32(header.h_fmt) != FORMAT_LITTLE_ENDIAN:
            return set_fault(fault, FAULT_UNSUPPORTED, SITE, 0, self.base + block * XLOG_BLOCK,
                             b"the log was written by a big-endian machine")
        headers = header_blocks(header)
        blocks = (xfs_be32(header.h_len) + XLOG_BLOCK - 1) // XLOG_BLOCK
        if headers + blocks > self.count:
            return 0
        if self.read_blocks(block, headers + blocks, self.buffer, fault) < 0:
            return fault.code
        if not record_whole(self.buffer, headers, blocks, self.count - block, self.geometry.crc):
            return 0
        restore_words(self.buffer, headers, blocks)
        record.block = block
        record.end = (block + headers + blocks) % self.count
        record.lsn = xfs_be64(header.h_lsn)
        record.tail_lsn = xfs_be64(header.h_tail_lsn)
        record.data = self.buffer + headers * XLOG_BLOCK
        record.size = xfs_be32(header.h_len)
        record.op_count = xfs_be32(header.h_num_logops)
        record.cycle = xfs_be32(header.h_cycle)
        return 1

    # Both ends.

    cdef int cycle_of(self, uint64_t block, uint32_t* cycle, fault_t* fault) noexcept nogil:
        if self.read_blocks(block, 1, self.window, fault) < 0:
            return fault.code
        cycle[0] = block_cycle(self.window)
        return 0

    cdef int first_with(self, uint32_t cycle, uint64_t low, uint64_t high, uint64_t* found,
                        fault_t* fault) noexcept nogil:
        """The first block with this cycle; the one at low has another, the one at high has it."""
        cdef uint64_t middle
        cdef uint32_t seen
        while high - low > 1:
            middle = low + (high - low) // 2
            if self.cycle_of(middle, &seen, fault) < 0:
                return fault.code
            if seen == cycle:
                high = middle
            else:
                low = middle
        found[0] = high
        return 0

    cdef int guess_head(self, uint32_t* cycle, fault_t* fault) noexcept nogil:
        """Where cycle numbers fall, in self.head, and the higher one; 0 in *cycle: nothing was ever written."""
        cdef uint32_t last
        cdef uint64_t back, i
        if self.cycle_of(0, cycle, fault) < 0 or self.cycle_of(self.count - 1, &last, fault) < 0:
            return fault.code
        if cycle[0] == 0:
            return 0
        self.head = self.count
        if last != cycle[0]:
            if last > cycle[0] or (last != 0 and last != cycle[0] - 1 and cycle[0] - 1 != RECORD_MAGIC):
                return corrupt(fault, self.base, b"cycle numbers of the log do not follow one another")
            if self.first_with(last, 0, self.count - 1, &self.head, fault) < 0:
                return fault.code
        back = min(self.head, <uint64_t>WINDOW)
        if self.read_blocks(self.head - back, back, self.window, fault) < 0:
            return fault.code
        # Records are written side by side: one before the newest may be missing.
        for i in range(back):
            if block_cycle(self.window + i * XLOG_BLOCK) < cycle[0]:
                self.head = self.head - back + i
                break
        return 0

    cdef uint64_t eighth_header(self, uint64_t first, uint64_t count) noexcept nogil:
        """Of the window, which begins at block first: the eighth header from its end, or the last that there is.

        Not more, since in a small log what lies farther back may be what is overwritten next.
        """
        cdef uint64_t i, found = self.count
        cdef int headers = 0
        for i in range(count):
            if is_header(self.geometry, self.window + (count - 1 - i) * XLOG_BLOCK):
                found = (first + count - 1 - i) % self.count
                headers += 1
                if headers == RECORDS_IN_FLIGHT:
                    break
        return found

    cdef int settle_head(self, xlog_record_t* last, fault_t* fault) noexcept nogil:
        """Follows the records before the guess from one to the next: behind the last that is whole is the head."""
        cdef uint64_t back = min(<uint64_t>WINDOW, self.count)
        cdef uint64_t guess = self.head % self.count
        cdef uint64_t first = (guess + self.count - back) % self.count
        cdef uint64_t at, passed = 0
        cdef int rc
        if self.read_blocks(first, back, self.window, fault) < 0:
            return fault.code
        at = self.eighth_header(first, back)
        self.head = self.count
        while at < self.count and passed < back:
            rc = self.read_record(at, last, fault)
            if rc < 0:
                return rc
            if rc == 0:
                break
            passed += (last.end + self.count - at) % self.count
            self.head = at = last.end
            if at == guess:
                break
        if self.head == self.count:
            return corrupt(fault, self.base + guess * XLOG_BLOCK, b"no whole record stands before the log's head")
        return 0

    cdef int take_tail(self, const xlog_record_t* last, fault_t* fault) noexcept nogil:
        """The last record says where the tail is, and whether it was an unmount that wrote it."""
        cdef uint32_t at = 0
        cdef xlog_op_header_t op
        cdef const uint8_t* region
        if last.op_count == 1:
            if next_operation(last, &at, &op, &region) == NULL and op.oh_flags & XLOG_UNMOUNT_TRANS:
                self.unmounted = True
                self.tail = self.head
                return 0
        self.tail = last.tail_lsn & LSN_BLOCK
        if self.tail >= self.count or last.tail_lsn > last.lsn or (last.tail_lsn >> 32) + 1 < last.cycle:
            return corrupt(fault, self.base + last.block * XLOG_BLOCK, b"its last record states an impossible tail")
        return 0

    cdef int find_ends(self, fault_t* fault) noexcept nogil:
        cdef xlog_record_t last
        cdef uint32_t cycle
        if self.guess_head(&cycle, fault) < 0:
            return fault.code
        if cycle == 0 and self.geometry.log_start == 0:
            # mkfs.xfs writes to every log: zeros are those of another device, such as an LVM member's first sector.
            return corrupt(fault, self.base, b"the log's device was never written: it is another one")
        if cycle == 0:
            self.unmounted = True
            return 0
        if self.settle_head(&last, fault) < 0:
            return fault.code
        return self.take_tail(&last, fault)

    cdef int judge(self, fault_t* fault) noexcept nogil:
        cdef xlog_record_t record
        cdef uint64_t at, passed = 0
        cdef bint frozen = True
        cdef int rc
        if self.find_ends(fault) < 0:
            return fault.code
        if self.unmounted:
            return LOG_CLEAN
        at = self.tail
        while at != self.head and passed < self.count and frozen:
            rc = self.read_record(at, &record, fault)
            if rc < 0:
                return rc
            if rc == 0:
                return corrupt(fault, self.base + at * XLOG_BLOCK, b"a record between tail and head is damaged")
            frozen = only_superblock(&record)
            passed += (record.end + self.count - at) % self.count
            at = record.end
        return LOG_FROZEN if frozen else LOG_DIRTY


def examine(BlockDevice device not None, BlockDevice log_device=None):
    """(state, tail, head) of the log of the XFS file system on a device, or of the external log it is given.

    The state is "clean", "frozen" or "dirty"; tail and head are basic blocks of 512 bytes in the log, as xfs_logprint
    counts them.

    Raises:
        Corrupt: no XFS, or a log that cannot be followed. NeedsRecovery: the log is external and was not given.
    """
    cdef uint8_t* sector = NULL
    cdef uint64_t sector_size = XFS_MAX_SECTOR
    cdef xfs_geometry_t geometry
    cdef fault_t fault
    cdef int rc
    cdef XfsLog log = XfsLog(log_device or device)
    data = device.pread(0, min(device.size, sector_size)).ljust(XFS_MAX_SECTOR, b"\0")
    sector = <uint8_t*>PyBytes_AS_STRING(data)
    rc = decode_superblock(sector, device.size, &geometry, &fault)
    if rc >= 0:
        rc = log.open_of(&geometry, log_device is not None, &fault)
    if rc >= 0:
        rc = log.judge(&fault)
    if rc < 0:
        raise_fault(&fault)
    return ("clean", "frozen", "dirty")[rc], log.tail, log.head
