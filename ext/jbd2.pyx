"""jbd2 follows the log of a journal and says which blocks recovery would write home. It writes none and knows no ext4.

Source: Linux Documentation/filesystems/ext4, "Journal (jbd2)"; fs/jbd2/recovery.c for where a log ends and where it is
corrupt, fs/jbd2/journal.c for what a journal superblock must hold. What the kernel would refuse to mount is refused.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

from splitreel.core.checksum cimport cksum_update, crc32c_update, crc_differs
from splitreel.core.fault cimport (
    FAULT_CORRUPT,
    FAULT_NO_MEMORY,
    FAULT_UNSUPPORTED,
    fault_t,
    set_fault,
)
from splitreel.core.jbd2_disk cimport (
    JBD2_COMMIT_BLOCK,
    JBD2_COMPAT_CHECKSUM,
    JBD2_CRC32C_CHKSUM,
    JBD2_CRC32_CHKSUM,
    JBD2_CRC32_CHKSUM_SIZE,
    JBD2_DEFAULT_FAST_COMMIT_BLOCKS,
    JBD2_DESCRIPTOR_BLOCK,
    JBD2_FLAG_ESCAPE,
    JBD2_FLAG_LAST_TAG,
    JBD2_FLAG_SAME_UUID,
    JBD2_INCOMPAT_64BIT,
    JBD2_INCOMPAT_ASYNC_COMMIT,
    JBD2_INCOMPAT_CSUM_V2,
    JBD2_INCOMPAT_CSUM_V3,
    JBD2_INCOMPAT_FAST_COMMIT,
    JBD2_INCOMPAT_KNOWN,
    JBD2_MAGIC,
    JBD2_MIN_BLOCKS,
    JBD2_REVOKE_BLOCK,
    JBD2_SUPERBLOCK_V1,
    JBD2_SUPERBLOCK_V2,
    jbd2_be16,
    jbd2_be32,
    jbd2_be64,
    jbd2_header_t,
    jbd2_revoke_header_t,
    jbd2_tag3_t,
    jbd2_tag_t,
    jbd2_tid_after,
)
from splitreel.core.sweep cimport grow_array

cdef enum:
    WINDOW = 1 << 20                               # bytes read at once
    HEADER = 12
    REVOKE_HEADER = 16
    COMMIT_HEADER = 64                             # with the padding that the kernel's struct has
    COMMIT_CHECKSUM = 16                           # offsets of checksums in their blocks
    SUPERBLOCK_CHECKSUM = 252
    TAIL = 4
    UUID = 16
    MAX_BLOCKS = 0xFFFFFFFF

cdef const char* SITE = b"replaying the journal"


cdef uint32_t crc_without(uint32_t seed, const uint8_t* data, size_t size, size_t at) noexcept nogil:
    """The bare CRC32C of a record whose four bytes at ``at`` count as zeros."""
    cdef uint32_t zero = 0
    cdef uint32_t crc = crc32c_update(seed, data, at)
    crc = crc32c_update(crc, &zero, 4)
    return ~crc32c_update(crc, data + at + 4, size - at - 4)


cdef uint32_t load_be32(const uint8_t* at) noexcept nogil:
    cdef uint32_t word
    memcpy(&word, at, 4)
    return jbd2_be32(word)


cdef uint64_t load_be64(const uint8_t* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return jbd2_be64(word)


cdef int compare_revokes(const void* a, const void* b) noexcept nogil:
    cdef const revoke_t* left = <const revoke_t*>a
    cdef const revoke_t* right = <const revoke_t*>b
    if left.block != right.block:
        return -1 if left.block < right.block else 1
    return -1 if left.order < right.order else 1


cdef int compare_copies(const void* a, const void* b) noexcept nogil:
    cdef const journal_copy_t* left = <const journal_copy_t*>a
    cdef const journal_copy_t* right = <const journal_copy_t*>b
    if left.block != right.block:
        return -1 if left.block < right.block else 1
    return -1 if left.order < right.order else 1


cdef class Journal:
    """A journal, read only. One thread at a time."""

    def __cinit__(self, BlockDevice device not None):
        self.device = device

    def __dealloc__(self):
        free(self.runs)
        free(self.copies)
        free(self.revokes)
        free(self.window)
        free(self.descriptor)

    cdef int refuse(self, int code, const char* text, fault_t* fault) noexcept nogil:
        return set_fault(fault, code, SITE, 0, self.runs[0].block * self.block_size if self.run_count else 0, text)

    cdef int corrupt(self, const char* text, fault_t* fault) noexcept nogil:
        """The kernel would not mount this: the log is damaged where it should be whole."""
        cdef char detail[128]
        snprintf(detail, sizeof(detail), b"transaction %u: %s", self.sequence, text)
        return self.refuse(FAULT_CORRUPT, detail, fault)

    # The journal's blocks.

    cdef int prepare(self, uint32_t block_size, uint64_t block_limit, fault_t* fault) noexcept nogil:
        """Blocks of block_size bytes, written home below block_limit."""
        self.block_size = block_size
        self.block_limit = block_limit
        self.window = <uint8_t*>malloc(max(block_size, <uint32_t>WINDOW))
        self.descriptor = <uint8_t*>malloc(block_size)
        if self.window == NULL or self.descriptor == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, SITE, 0, 0, NULL)
        return 0

    cdef int add_run(self, uint64_t block, uint64_t count, fault_t* fault) noexcept nogil:
        """The next blocks of the journal, which the caller knows to lie inside its device."""
        cdef journal_run_t* run
        if count > MAX_BLOCKS - self.length:
            return self.refuse(FAULT_CORRUPT, b"a journal of more than 2^32 blocks", fault)
        if grow_array(<void**>&self.runs, &self.run_capacity, self.run_count, sizeof(journal_run_t), fault) < 0:
            return fault.code
        run = &self.runs[self.run_count]
        run.block = block
        run.first = <uint32_t>self.length
        run.count = <uint32_t>count
        self.run_count += 1
        self.length += count
        return 0

    cdef const journal_run_t* run_of(self, uint64_t place) noexcept nogil:
        """The run that holds a block; the log is read forwards, so that it is mostly the one before."""
        cdef size_t low = 0, high = self.run_count, middle
        cdef const journal_run_t* run = &self.runs[self.run_hint]
        if run.first <= place < <uint64_t>run.first + run.count:
            return run
        while high - low > 1:
            middle = (low + high) // 2
            if self.runs[middle].first <= place:
                low = middle
            else:
                high = middle
        self.run_hint = low
        return &self.runs[low]

    cdef uint64_t offset_of(self, uint64_t place) noexcept nogil:
        cdef const journal_run_t* run = self.run_of(place)
        return (run.block + place - run.first) * self.block_size

    cdef int read_block(self, uint64_t place, const uint8_t** data, fault_t* fault) noexcept nogil:
        cdef const journal_run_t* run
        cdef uint64_t count
        if place >= self.length or (self.end != 0 and place >= self.end):
            return self.corrupt(b"the log leaves its journal", fault)
        if not self.window_first <= place < <uint64_t>self.window_first + self.window_count:
            run = self.run_of(place)
            count = min(run.first + run.count - place, max(WINDOW // self.block_size, <uint32_t>1))
            self.window_count = 0
            if self.device.read(self.offset_of(place), self.window, count * self.block_size, fault) < 0:
                return fault.code
            self.window_first = <uint32_t>place
            self.window_count = <uint32_t>count
        data[0] = self.window + (place - self.window_first) * self.block_size
        return 0

    # Superblock.

    cdef int load(self, fault_t* fault) noexcept nogil:
        """Reads and verifies the journal superblock; is_empty says whether there is anything to recover."""
        cdef const uint8_t* data
        cdef uint32_t version
        if self.run_count == 0:
            return self.refuse(FAULT_CORRUPT, b"a journal without blocks", fault)
        if self.read_block(self.superblock_place, &data, fault) < 0:
            return fault.code
        memcpy(&self.superblock, data, sizeof(self.superblock))
        version = jbd2_be32(self.superblock.s_header.h_blocktype)
        if (jbd2_be32(self.superblock.s_header.h_magic) != JBD2_MAGIC
                or (version != JBD2_SUPERBLOCK_V1 and version != JBD2_SUPERBLOCK_V2)):
            return self.refuse(FAULT_CORRUPT, b"no journal superblock stands where the journal begins", fault)
        if jbd2_be32(self.superblock.s_blocksize) != self.block_size:
            return self.refuse(FAULT_CORRUPT, b"the journal's block size is not the file system's", fault)
        if version == JBD2_SUPERBLOCK_V2 and self.check_features(fault) < 0:
            return fault.code
        if self.check_lengths(fault) < 0:
            return fault.code
        self.is_empty = self.superblock.s_start == 0
        return 0

    cdef int check_features(self, fault_t* fault) noexcept nogil:
        cdef char text[128]
        cdef uint32_t unknown
        self.compat = jbd2_be32(self.superblock.s_feature_compat)
        self.incompat = jbd2_be32(self.superblock.s_feature_incompat)
        unknown = self.incompat & ~<uint32_t>JBD2_INCOMPAT_KNOWN
        if unknown != 0 or self.superblock.s_feature_ro_compat != 0:
            snprintf(text, sizeof(text), b"journal features incompat 0x%x, ro_compat 0x%x are not supported", unknown,
                     jbd2_be32(self.superblock.s_feature_ro_compat))
            return self.refuse(FAULT_UNSUPPORTED, text, fault)
        self.checksums = self.incompat & (JBD2_INCOMPAT_CSUM_V2 | JBD2_INCOMPAT_CSUM_V3) != 0
        if not self.checksums:
            return 0
        if self.incompat & JBD2_INCOMPAT_CSUM_V2 and self.incompat & JBD2_INCOMPAT_CSUM_V3:
            return self.refuse(FAULT_CORRUPT, b"the journal has checksums of versions 2 and 3 at once", fault)
        if self.compat & JBD2_COMPAT_CHECKSUM:
            return self.refuse(FAULT_CORRUPT, b"the journal has checksums of version 1 and a later one at once", fault)
        if self.superblock.s_checksum_type != JBD2_CRC32C_CHKSUM:
            return self.refuse(FAULT_UNSUPPORTED, b"the journal's checksum type is not crc32c", fault)
        if crc_differs(jbd2_be32(self.superblock.s_checksum),
                       crc_without(0, <const uint8_t*>&self.superblock, sizeof(self.superblock), SUPERBLOCK_CHECKSUM)):
            return self.refuse(FAULT_CORRUPT, b"the journal superblock's checksum does not match", fault)
        self.csum_seed = crc32c_update(0, self.superblock.s_uuid, 16)
        return 0

    cdef int check_lengths(self, fault_t* fault) noexcept nogil:
        """The ring, without the fast commit area behind it, and the lengths that follow from the features."""
        cdef uint32_t fast = 0
        self.end = self.last = jbd2_be32(self.superblock.s_maxlen)
        self.first = jbd2_be32(self.superblock.s_first)
        if self.incompat & JBD2_INCOMPAT_FAST_COMMIT:
            fast = jbd2_be32(self.superblock.s_num_fc_blks)
            fast = fast if fast != 0 else <uint32_t>JBD2_DEFAULT_FAST_COMMIT_BLOCKS
        if self.end > self.length:
            return self.refuse(FAULT_CORRUPT, b"the journal is shorter than its superblock says", fault)
        if self.end < JBD2_MIN_BLOCKS or self.end - JBD2_MIN_BLOCKS < fast:
            return self.refuse(FAULT_CORRUPT, b"the journal is shorter than 1024 blocks", fault)
        if self.first == 0 or self.first >= self.end - fast:
            return self.refuse(FAULT_CORRUPT, b"the journal's first block is out of range", fault)
        self.last = self.end - fast
        self.tail_size = TAIL if self.checksums else 0
        if self.incompat & JBD2_INCOMPAT_CSUM_V3:
            self.tag_size = 16
        else:
            self.tag_size = (8 + (4 if self.incompat & JBD2_INCOMPAT_64BIT else 0)
                             + (2 if self.incompat & JBD2_INCOMPAT_CSUM_V2 else 0))
        return 0

    # The log, block by block.

    cdef void restart(self) noexcept nogil:
        self.place = jbd2_be32(self.superblock.s_start)
        self.sequence = jbd2_be32(self.superblock.s_sequence)
        self.walked = 0

    cdef void advance(self, uint64_t count) noexcept nogil:
        self.place += count
        self.walked += count
        if self.place >= self.last:
            self.place -= self.last - self.first

    cdef int next_block(self, const uint8_t** data, fault_t* fault) noexcept nogil:
        """The block type of the next block of this transaction, or 0 where the log ends."""
        cdef const jbd2_header_t* header
        if self.walked > self.end:
            return self.corrupt(b"it goes round the log without an end", fault)
        if self.read_block(self.place, data, fault) < 0:
            return fault.code
        self.advance(1)
        header = <const jbd2_header_t*>data[0]
        if jbd2_be32(header.h_magic) != JBD2_MAGIC or jbd2_be32(header.h_sequence) != self.sequence:
            return 0
        # a type beyond int's range is as unknown as 0 is
        return <int>min(jbd2_be32(header.h_blocktype), <uint32_t>0xFFFF)

    cdef bint tail_matches(self, const uint8_t* data) noexcept nogil:
        """The checksum at the end of descriptor and revoke blocks."""
        if not self.checksums:
            return True
        return not crc_differs(load_be32(data + self.block_size - TAIL),
                               crc_without(self.csum_seed, data, self.block_size, self.block_size - TAIL))

    cdef uint32_t count_tags(self, const uint8_t* data) noexcept nogil:
        cdef uint32_t at = HEADER, count = 0, flags
        while at + self.tag_size <= self.block_size - self.tail_size:
            flags = jbd2_be16((<const jbd2_tag_t*>(data + at)).t_flags)
            count += 1
            at += self.tag_size + (0 if flags & JBD2_FLAG_SAME_UUID else UUID)
            if flags & JBD2_FLAG_LAST_TAG:
                break
        return count

    cdef int recover(self, fault_t* fault) noexcept nogil:
        """All three passes. copies then holds each block once, by block number, as its last copy stands in the log."""
        if self.scan(fault) < 0 or self.collect_revokes(fault) < 0 or self.replay(fault) < 0:
            return fault.code
        self.end_place = self.place
        self.behind = self.behind_end()
        self.keep_last()
        return 0

    cdef uint32_t behind_end(self) noexcept nogil:
        """Counts what looks like whole transactions there, rests of older logs too, and sums the fast commits."""
        cdef const uint8_t* data
        cdef fault_t ignored
        cdef uint64_t place = <uint64_t>self.last + 1
        cdef uint32_t crc = 0
        cdef int rc = JBD2_REVOKE_BLOCK
        self.window_count = 0
        self.place = self.end_place
        self.sequence = self.end_sequence
        self.walked = 0
        while rc == JBD2_DESCRIPTOR_BLOCK or rc == JBD2_COMMIT_BLOCK or rc == JBD2_REVOKE_BLOCK:
            rc = self.next_block(&data, &ignored)
            if rc == JBD2_DESCRIPTOR_BLOCK:
                self.advance(self.count_tags(data))
            self.sequence += 1 if rc == JBD2_COMMIT_BLOCK else 0
        while place < self.end and self.read_block(place, &data, &ignored) >= 0:
            crc = crc32c_update(crc, data, self.block_size)
            place += 1
        return crc32c_update(crc, &self.sequence, 4)

    cdef uint32_t transaction_count(self) noexcept nogil:
        return self.end_sequence - jbd2_be32(self.superblock.s_sequence)

    # First pass: where the log ends.

    cdef int scan(self, fault_t* fault) noexcept nogil:
        cdef journal_scan_t scan
        cdef const uint8_t* data
        cdef int rc
        memset(&scan, 0, sizeof(scan))
        scan.crc = 0xFFFFFFFF
        self.restart()
        while True:
            rc = self.next_block(&data, fault)
            if rc == JBD2_DESCRIPTOR_BLOCK:
                rc = self.scan_descriptor(&scan, data, fault)
            elif rc == JBD2_COMMIT_BLOCK:
                rc = self.scan_commit(&scan, data, fault)
            elif rc == JBD2_REVOKE_BLOCK:
                scan.doubtful = scan.doubtful or not self.tail_matches(data)
                rc = self.check_revoke(data, fault)
            elif rc > 0:
                rc = 0
            if rc < 0:
                return rc
            if rc == 0:
                break
        if not self.has_end:
            self.end_sequence = self.sequence
            self.has_end = True
        return 0

    cdef int scan_descriptor(self, journal_scan_t* scan, const uint8_t* data, fault_t* fault) noexcept nogil:
        """Steps over what it describes. Blocks of an older log may follow: a bad checksum decides nothing yet."""
        cdef uint32_t count = self.count_tags(data), _i
        if not self.tail_matches(data):
            scan.doubtful = True
        if not self.compat & JBD2_COMPAT_CHECKSUM or self.has_end:
            self.advance(count)
            return 1
        scan.crc = cksum_update(scan.crc, data, self.block_size)
        for _i in range(count):
            if self.read_block(self.place, &data, fault) < 0:
                return fault.code
            scan.crc = cksum_update(scan.crc, data, self.block_size)
            self.advance(1)
        return 1

    cdef bint commit_matches(self, journal_scan_t* scan, const uint8_t* data) noexcept nogil:
        """Version 1 sums the whole transaction; 2 and 3 the commit block, of which only the head may be there."""
        cdef const jbd2_commit_header_t* commit = <const jbd2_commit_header_t*>data
        cdef uint32_t stored = jbd2_be32(commit.h_chksum[0]), crc
        if self.compat & JBD2_COMPAT_CHECKSUM:
            if commit.h_chksum_type == 0 and commit.h_chksum_size == 0 and stored == 0:
                return True
            return (commit.h_chksum_type == JBD2_CRC32_CHKSUM and commit.h_chksum_size == JBD2_CRC32_CHKSUM_SIZE
                    and stored == scan.crc)
        if not self.checksums or crc_without(self.csum_seed, data, self.block_size, COMMIT_CHECKSUM) == stored:
            return True
        memset(self.descriptor, 0, self.block_size)
        memcpy(self.descriptor, data, COMMIT_HEADER)
        crc = crc_without(self.csum_seed, self.descriptor, self.block_size, COMMIT_CHECKSUM)
        return not crc_differs(stored, crc)

    cdef int scan_commit(self, journal_scan_t* scan, const uint8_t* data, fault_t* fault) noexcept nogil:
        """Decides by the times of commits whether a bad checksum is damage or a rest of an older log."""
        cdef uint64_t time = jbd2_be64((<const jbd2_commit_header_t*>data).h_commit_sec)
        if scan.doubtful:
            if time >= scan.last_time:
                return self.corrupt(b"a checksum inside the log does not match", fault)
            return 0
        if self.has_end and self.compat & JBD2_COMPAT_CHECKSUM:
            return self.corrupt(b"a whole transaction follows one whose checksum does not match", fault)
        if not self.commit_matches(scan, data):
            if time < scan.last_time:
                return 0
            self.end_sequence = self.sequence
            self.has_end = True
            if not self.incompat & JBD2_INCOMPAT_ASYNC_COMMIT:
                return self.corrupt(b"the checksum of its commit block does not match", fault)
        scan.crc = 0xFFFFFFFF
        scan.last_time = time
        self.sequence += 1
        return 1

    # Second pass: what is not to be written.

    cdef int check_revoke(self, const uint8_t* data, fault_t* fault) noexcept nogil:
        if jbd2_be32((<const jbd2_revoke_header_t*>data).r_count) > self.block_size - self.tail_size:
            return self.corrupt(b"a revoke block with more than fits", fault)
        return 1

    cdef int collect_revokes(self, fault_t* fault) noexcept nogil:
        cdef const uint8_t* data
        cdef int rc
        self.restart()
        while jbd2_tid_after(self.end_sequence, self.sequence):
            rc = self.next_block(&data, fault)
            if rc < 0:
                return rc
            if rc == JBD2_DESCRIPTOR_BLOCK:
                if not self.tail_matches(data):
                    return self.corrupt(b"the checksum of a descriptor block does not match", fault)
                self.advance(self.count_tags(data))
            elif rc == JBD2_COMMIT_BLOCK:
                self.sequence += 1
            elif rc == JBD2_REVOKE_BLOCK:
                if self.add_revokes(data, fault) < 0:
                    return fault.code
            else:
                return self.corrupt(b"the log ends where it did not end before", fault)
        self.settle_revokes()
        return 0

    cdef int add_revokes(self, const uint8_t* data, fault_t* fault) noexcept nogil:
        cdef uint32_t count = jbd2_be32((<const jbd2_revoke_header_t*>data).r_count)
        cdef uint32_t size = 8 if self.incompat & JBD2_INCOMPAT_64BIT else 4
        cdef uint32_t at = REVOKE_HEADER
        cdef revoke_t* record
        if self.check_revoke(data, fault) < 0:
            return fault.code
        while at + size <= count:
            if grow_array(<void**>&self.revokes, &self.revoke_capacity, self.revoke_count, sizeof(revoke_t),
                          fault) < 0:
                return fault.code
            record = &self.revokes[self.revoke_count]
            record.block = load_be64(data + at) if size == 8 else load_be32(data + at)
            record.sequence = self.sequence
            record.order = <uint32_t>self.revoke_count
            self.revoke_count += 1
            at += size
        return 0

    cdef void settle_revokes(self) noexcept nogil:
        """One record for each block, of the last transaction that revoked it."""
        cdef size_t i, kept = 0
        if self.revoke_count == 0:
            return
        qsort(self.revokes, self.revoke_count, sizeof(revoke_t), compare_revokes)
        for i in range(1, self.revoke_count):
            if self.revokes[i].block != self.revokes[kept].block:
                kept += 1
            self.revokes[kept] = self.revokes[i]
        self.revoke_count = kept + 1

    cdef bint is_revoked(self, uint64_t block) noexcept nogil:
        """Whether a copy in this transaction is void: the same transaction or a later one revoked it."""
        cdef size_t low = 0, high = self.revoke_count, middle
        while low < high:
            middle = (low + high) // 2
            if self.revokes[middle].block < block:
                low = middle + 1
            else:
                high = middle
        if low == self.revoke_count or self.revokes[low].block != block:
            return False
        return not jbd2_tid_after(self.sequence, self.revokes[low].sequence)

    # Third pass: what is to be written.

    cdef int replay(self, fault_t* fault) noexcept nogil:
        cdef const uint8_t* data
        cdef int rc
        self.restart()
        while jbd2_tid_after(self.end_sequence, self.sequence):
            rc = self.next_block(&data, fault)
            if rc < 0:
                return rc
            if rc == JBD2_DESCRIPTOR_BLOCK:
                memcpy(self.descriptor, data, self.block_size)
                if self.replay_descriptor(fault) < 0:
                    return fault.code
            elif rc == JBD2_COMMIT_BLOCK:
                self.sequence += 1
        return 0

    cdef int replay_descriptor(self, fault_t* fault) noexcept nogil:
        cdef uint32_t at = HEADER, flags
        while at + self.tag_size <= self.block_size - self.tail_size:
            flags = jbd2_be16((<const jbd2_tag_t*>(self.descriptor + at)).t_flags)
            if self.replay_block(self.descriptor + at, self.place, flags, fault) < 0:
                return fault.code
            self.advance(1)
            at += self.tag_size + (0 if flags & JBD2_FLAG_SAME_UUID else UUID)
            if flags & JBD2_FLAG_LAST_TAG:
                break
        return 0

    cdef int replay_block(self, const uint8_t* tag, uint64_t place, uint32_t flags, fault_t* fault) noexcept nogil:
        cdef uint64_t block = load_be32(tag)
        cdef journal_copy_t* copy
        cdef const uint8_t* data
        if self.incompat & JBD2_INCOMPAT_64BIT:
            block |= <uint64_t>load_be32(tag + 8) << 32
        if self.is_revoked(block):
            return 0
        if self.read_block(place, &data, fault) < 0:
            return fault.code
        if not self.copy_matches(tag, data):
            return self.corrupt(b"the checksum of a block in the log does not match", fault)
        if block >= self.block_limit:
            return self.corrupt(b"a block outside the file system is to be written", fault)
        if grow_array(<void**>&self.copies, &self.copy_capacity, self.copy_count, sizeof(journal_copy_t), fault) < 0:
            return fault.code
        copy = &self.copies[self.copy_count]
        copy.block = block
        copy.place = <uint32_t>place
        copy.order = <uint32_t>self.copy_count
        copy.escaped = flags & JBD2_FLAG_ESCAPE != 0
        self.copy_count += 1
        return 0

    cdef bint copy_matches(self, const uint8_t* tag, const uint8_t* data) noexcept nogil:
        """The sum of a tag is over the transaction's number and the block as it lies in the log, escaped or not."""
        cdef uint32_t sequence = jbd2_be32(self.sequence), crc
        if not self.checksums:
            return True
        crc = crc32c_update(self.csum_seed, &sequence, 4)
        crc = ~crc32c_update(crc, data, self.block_size)
        if self.incompat & JBD2_INCOMPAT_CSUM_V3:
            return not crc_differs(jbd2_be32((<const jbd2_tag3_t*>tag).t_checksum), crc)
        return not crc_differs(jbd2_be16((<const jbd2_tag_t*>tag).t_checksum), crc & 0xFFFF)

    cdef void keep_last(self) noexcept nogil:
        cdef size_t i, kept = 0
        if self.copy_count == 0:
            return
        qsort(self.copies, self.copy_count, sizeof(journal_copy_t), compare_copies)
        for i in range(1, self.copy_count):
            if self.copies[i].block != self.copies[kept].block:
                kept += 1
            self.copies[kept] = self.copies[i]
        self.copy_count = kept + 1
