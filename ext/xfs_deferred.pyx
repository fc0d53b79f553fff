"""xfs_deferred reads the symlink targets and attribute forks that have blocks of their own. It decodes none itself.

Files in batches: the blocks of a batch are one list, read in disk order with a deep queue; then its records are made.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from splitreel.core.columns cimport reserve
from splitreel.core.extent cimport EXTENT_UNWRITTEN, FILE_DAMAGED, ExtentMap, file_t
from splitreel.core.fault cimport FAULT_IO
from splitreel.core.sweep cimport SWEEP_SPAN, append_block, block_ref_t, free_blocks, grow_array, sort_blocks
from splitreel.core.xfs_attr cimport attr_fork, attr_shortform
from splitreel.core.xfs_disk cimport digest_records
from splitreel.core.xfs_fork cimport symlink_target
from splitreel.core.xfs_names_disk cimport XFS_SYMLINK_MAXLEN

cdef enum:
    BATCH_SIZE = 16 << 20                          # bytes: a batch is closed when it holds as many
    MAX_FORK = 64 << 20                            # bytes of an attribute fork: room for 1000 of the largest values
    MAX_TARGET = 1 << 20                           # bytes of the blocks of a target
    PART_TARGET = 0
    PART_FORK = 1

cdef uint64_t MAX_ARENA = <uint64_t>1 << 40        # no bound of its own: it holds no more than the inodes do


cdef class XfsDeferred:
    """Files whose heap records come later. One thread at a time; not for Python."""

    def __dealloc__(self):
        self.reset()

    cdef void reset(self) noexcept nogil:
        free(self.items)
        free(self.arena)
        free(self.batch)
        self.items = NULL
        self.arena = self.batch = NULL
        self.count = self.capacity = 0
        self.arena_size = self.arena_capacity = self.batch_size = self.batch_capacity = 0
        free_blocks(&self.blocks)

    cdef int keep(self, const uint8_t* data, uint32_t size, uint64_t* offset, fault_t* fault) noexcept nogil:
        if reserve(<void**>&self.arena, &self.arena_capacity, self.arena_size + size, MAX_ARENA, 1, fault) < 0:
            return fault.code
        if size > 0:
            memcpy(self.arena + self.arena_size, data, size)
        offset[0] = self.arena_size
        self.arena_size += size
        return 0

    cdef int add(self, const deferred_t* item, const uint8_t* target, const uint8_t* attrs,
                 fault_t* fault) noexcept nogil:
        cdef deferred_t* kept
        if grow_array(<void**>&self.items, &self.capacity, self.count, sizeof(deferred_t), fault) < 0:
            return fault.code
        kept = &self.items[self.count]
        kept[0] = item[0]
        if item.target_size > 0 and self.keep(target, item.target_size, &kept.target, fault) < 0:
            return fault.code
        if item.attrs_size > 0 and self.keep(attrs, item.attrs_size, &kept.attrs, fault) < 0:
            return fault.code
        self.count += 1
        return 0

    # Batches.

    cdef int read(self, ExtentMap target, const extent_t* forks, fault_t* fault) noexcept nogil:
        cdef size_t i, first = 0, index
        self.forks = forks
        self.blocks_left = self.geometry.block_count
        for i in range(self.count):
            if self.list_item(target, i, fault) < 0:
                return fault.code
            if self.batch_size < BATCH_SIZE and i + 1 < self.count:
                continue
            if self.read_batch(target, fault) < 0:
                return fault.code
            for index in range(first, i + 1):
                if self.finish(target, &self.items[index], fault) < 0:
                    return fault.code
            first = i + 1
            self.blocks.count = self.batch_size = 0
        return 0

    cdef int list_item(self, ExtentMap target, size_t index, fault_t* fault) noexcept nogil:
        cdef deferred_t* item = &self.items[index]
        cdef uint64_t blocks = 0
        cdef uint32_t i
        if item.remote_target and self.list_target(target, index, fault) < 0:
            return fault.code
        for i in range(item.fork_count):
            blocks += self.forks[item.fork + i].count
        if blocks > min(self.blocks_left, <uint64_t>(MAX_FORK // self.geometry.block_size)):
            item.fork_count = 0
            target.append_problem(target.files[item.file].inode, 0,
                                  b"its attribute fork is larger than 64 MiB, or than the file system with all others")
        else:
            self.blocks_left -= blocks
        return self.list_extents(index, self.forks + item.fork, item.fork_count, PART_FORK, &item.fork_at, fault)

    cdef int list_target(self, ExtentMap target, size_t index, fault_t* fault) noexcept nogil:
        """Not to be read: a target of more blocks than there can be, or unwritten ones."""
        cdef deferred_t* item = &self.items[index]
        cdef file_t* file = &target.files[item.file]
        cdef const extent_t* extents = target.extents + file.first_extent
        cdef uint64_t blocks = 0
        cdef uint32_t i
        for i in range(file.extent_count):
            blocks += extents[i].count
            if extents[i].flags & EXTENT_UNWRITTEN:
                blocks += MAX_TARGET
        if blocks == 0 or blocks > min(self.blocks_left, <uint64_t>(MAX_TARGET // self.geometry.block_size)):
            item.remote_target = False
            file.flags |= FILE_DAMAGED
            target.append_problem(file.inode, 0, b"a symlink whose target is in no block, or in too many")
            return 0
        self.blocks_left -= blocks
        return self.list_extents(index, extents, file.extent_count, PART_TARGET, &item.target_at, fault)

    cdef int list_extents(self, size_t index, const extent_t* extents, uint32_t count, uint32_t part, uint64_t* at,
                          fault_t* fault) noexcept nogil:
        """The blocks in pieces that a sweep takes, each with its place: owner the item, limit blocks of the batch."""
        cdef uint32_t most = SWEEP_SPAN // self.geometry.block_size
        cdef uint32_t i, done, piece
        at[0] = self.batch_size
        for i in range(count):
            done = 0
            while done < extents[i].count:
                piece = min(most, extents[i].count - done)
                if append_block(&self.blocks, extents[i].physical + done, piece, <uint32_t>index, part,
                                <uint32_t>(self.batch_size // self.geometry.block_size), fault) < 0:
                    return fault.code
                self.batch_size += <uint64_t>piece * self.geometry.block_size
                done += piece
        return 0

    cdef int read_batch(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef uint8_t* place
        cdef size_t size
        cdef int rc
        if reserve(<void**>&self.batch, &self.batch_capacity, self.batch_size, MAX_ARENA, 1, fault) < 0:
            return fault.code
        sort_blocks(&self.blocks)
        self.sweep.start(&self.blocks)
        while True:
            rc = self.sweep.next(&ref, &data, fault)
            if rc == 0:
                return 0
            if rc < 0 and rc != FAULT_IO:
                return rc
            size = <size_t>ref.count * self.geometry.block_size
            place = self.batch + <uint64_t>ref.limit * self.geometry.block_size
            if rc == FAULT_IO:
                memset(place, 0, size)
                self.items[ref.owner].unreadable = True
                target.append_problem(target.files[self.items[ref.owner].file].inode,
                                      ref.block * self.geometry.block_size,
                                      b"a block of its extended attributes or its target does not read")
            else:
                memcpy(place, data, size)
                target.files[self.items[ref.owner].file].fingerprint += digest_records(ref.first, data, size)

    # Records.

    cdef int finish(self, ExtentMap target, deferred_t* item, fault_t* fault) noexcept nogil:
        """Bad extended attributes are dropped and reported; a bad target is damage."""
        cdef uint8_t buffer[XFS_SYMLINK_MAXLEN]
        self.heap.begin()
        if item.target_size > 0:
            self.heap.set_target(self.arena + item.target, item.target_size)
        elif item.remote_target:
            self.finish_target(target, item, buffer)
        if self.finish_attrs(target, item, fault) < 0:
            return fault.code
        return self.heap.finish(target, &target.files[item.file], fault)

    cdef int finish_target(self, ExtentMap target, const deferred_t* item, uint8_t* buffer) noexcept nogil:
        cdef file_t* file = &target.files[item.file]
        cdef const extent_t* extents = target.extents + file.first_extent
        cdef const char* text
        if file.size > XFS_SYMLINK_MAXLEN:
            text = b"a symlink's size is above 1024"
        elif item.unreadable:
            text = b"its target does not read"
        else:
            text = symlink_target(self.geometry, file.inode, extents, file.extent_count, self.batch + item.target_at,
                                  <uint32_t>file.size, buffer)
        if text == NULL:
            self.heap.set_target(buffer, <uint32_t>file.size)
            return 0
        file.flags |= FILE_DAMAGED
        target.append_problem(file.inode, extents[0].physical * self.geometry.block_size, text)
        return 0

    cdef int finish_attrs(self, ExtentMap target, const deferred_t* item, fault_t* fault) noexcept nogil:
        cdef const extent_t* extents = self.forks + item.fork
        cdef const char* text = NULL
        cdef uint64_t offset = 0
        fault.code = 0
        if item.attrs_size > 0:
            text = attr_shortform(self.heap, self.arena + item.attrs, item.attrs_size, fault)
        elif item.fork_count > 0:
            offset = extents[0].physical * self.geometry.block_size
            text = attr_fork(self.heap, self.geometry, target.files[item.file].inode, extents, item.fork_count,
                             self.batch + item.fork_at, fault)
        if fault.code < 0:
            return fault.code
        if text != NULL:
            target.append_problem(target.files[item.file].inode, offset, text)
        return 0
