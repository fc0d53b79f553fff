# Journal: the log of a jbd2 journal, and which blocks recovery would write home out of it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from splitreel.core.device cimport BlockDevice
from splitreel.core.fault cimport fault_t
from splitreel.core.jbd2_disk cimport jbd2_commit_header_t, jbd2_superblock_t

cdef struct journal_run_t:                         # adjacent blocks of a journal
    uint64_t block                                 # on its device
    uint32_t first                                 # in the journal
    uint32_t count

cdef struct journal_copy_t:                        # a block that recovery would write home
    uint64_t block                                 # of the file system
    uint32_t place                                 # the block of the journal that it is copied from
    uint32_t order                                 # later ones win
    bint escaped                                   # the log holds zeros in place of its first four bytes, the magic

cdef struct revoke_t:
    uint64_t block
    uint32_t sequence                              # copies up to this transaction are not to be written
    uint32_t order

cdef struct journal_scan_t:                        # what the first pass carries from block to block
    uint64_t last_time                             # of the last good commit block
    uint32_t crc                                   # version 1: of the transaction so far
    bint doubtful                                  # a checksum failed: the next commit block's time decides

cdef class Journal:
    # add_run for all of it, load, then recover unless is_empty; then copies. One thread at a time.
    cdef BlockDevice device
    cdef uint32_t block_size
    cdef uint64_t block_limit                      # blocks of the file system
    cdef journal_run_t* runs
    cdef size_t run_count, run_capacity, run_hint
    cdef uint64_t length                           # blocks of the runs
    cdef uint64_t superblock_place                 # 0 in an inode; behind the ext4 superblock on a device of its own
    cdef jbd2_superblock_t superblock
    cdef uint32_t first, last, end                 # the log is a ring of first..last - 1; end: blocks of the journal
    cdef uint32_t compat, incompat, csum_seed
    cdef uint32_t tag_size, tail_size
    cdef bint checksums                            # version 2 or 3
    cdef bint is_empty
    cdef uint64_t place, walked                    # the block of the log to be read next, how many were read
    cdef uint32_t sequence                         # the transaction that it must belong to
    cdef uint32_t end_sequence                     # the first transaction that is not recovered
    cdef bint has_end
    cdef uint64_t end_place                        # the block behind the last transaction that is recovered
    cdef uint32_t behind                           # what behind_end said when it was recovered
    cdef journal_copy_t* copies
    cdef size_t copy_count, copy_capacity
    cdef revoke_t* revokes
    cdef size_t revoke_count, revoke_capacity
    cdef uint8_t* window                           # blocks of the journal, read ahead
    cdef uint32_t window_first, window_count
    cdef uint8_t* descriptor                       # the block at hand while what it describes is read

    cdef int prepare(self, uint32_t block_size, uint64_t block_limit, fault_t* fault) noexcept nogil
    cdef int add_run(self, uint64_t block, uint64_t count, fault_t* fault) noexcept nogil
    cdef int load(self, fault_t* fault) noexcept nogil
    cdef int recover(self, fault_t* fault) noexcept nogil
    cdef uint32_t transaction_count(self) noexcept nogil
    # A sum over what stands behind what is recovered: another one than in ``behind`` says that the log went on.
    cdef uint32_t behind_end(self) noexcept nogil
    # Bytes on the journal's device of a block of it.
    cdef uint64_t offset_of(self, uint64_t place) noexcept nogil
    # A block of the journal, valid until the next call.
    cdef int read_block(self, uint64_t place, const uint8_t** data, fault_t* fault) noexcept nogil

    cdef int corrupt(self, const char* text, fault_t* fault) noexcept nogil
    cdef int refuse(self, int code, const char* text, fault_t* fault) noexcept nogil
    cdef int check_features(self, fault_t* fault) noexcept nogil
    cdef int check_lengths(self, fault_t* fault) noexcept nogil
    cdef const journal_run_t* run_of(self, uint64_t place) noexcept nogil
    cdef void advance(self, uint64_t count) noexcept nogil
    cdef void restart(self) noexcept nogil
    cdef int next_block(self, const uint8_t** data, fault_t* fault) noexcept nogil
    cdef bint tail_matches(self, const uint8_t* data) noexcept nogil
    cdef uint32_t count_tags(self, const uint8_t* data) noexcept nogil
    cdef int scan(self, fault_t* fault) noexcept nogil
    cdef int scan_descriptor(self, journal_scan_t* scan, const uint8_t* data, fault_t* fault) noexcept nogil
    cdef int scan_commit(self, journal_scan_t* scan, const uint8_t* data, fault_t* fault) noexcept nogil
    cdef bint commit_matches(self, journal_scan_t* scan, const uint8_t* data) noexcept nogil
    cdef int check_revoke(self, const uint8_t* data, fault_t* fault) noexcept nogil
    cdef int collect_revokes(self, fault_t* fault) noexcept nogil
    cdef int add_revokes(self, const uint8_t* data, fault_t* fault) noexcept nogil
    cdef void settle_revokes(self) noexcept nogil
    cdef bint is_revoked(self, uint64_t block) noexcept nogil
    cdef int replay(self, fault_t* fault) noexcept nogil
    cdef int replay_descriptor(self, fault_t* fault) noexcept nogil
    cdef int replay_block(self, const uint8_t* tag, uint64_t place, uint32_t flags, fault_t* fault) noexcept nogil
    cdef bint copy_matches(self, const uint8_t* tag, const uint8_t* data) noexcept nogil
    cdef void keep_last(self) noexcept nogil
