"""xfs maps an XFS file system read raw: attributes, extents, extended attributes and names. It reads no file data.

Passes: headers and B+trees of all allocation groups; inode chunks in order, with the extent trees below them; symlink
targets and attribute forks; directories from the root downward. Each has many large requests in flight.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset

from splitreel.core.device cimport BlockDevice
from splitreel.core.extent cimport FILE_DAMAGED, ExtentMap, file_t
from splitreel.core.fault cimport (
    FAULT_IO,
    FAULT_NEEDS_RECOVERY,
    FAULT_NO_MEMORY,
    FAULT_STALE_MAP,
    fault_t,
    raise_fault,
    set_fault,
)
from splitreel.core.filesystem cimport Filesystem, now
from splitreel.core.heap cimport HeapWriter
from splitreel.core.sweep cimport Sweep, append_block, block_ref_t, free_blocks
from splitreel.core.trees cimport tree_t
from splitreel.core.xfs_applied cimport XfsApplied
from splitreel.core.xfs_attr cimport attr_shortform
from splitreel.core.xfs_btree cimport (
    TREE_SHARING,
    XfsTrees,
    fork_list_t,
    root_depth,
    verify_records,
    verify_root,
)
from splitreel.core.xfs_deferred cimport XfsDeferred, deferred_t
from splitreel.core.xfs_directory cimport XfsWalk
from splitreel.core.xfs_disk cimport xfs_bmbt_rec_t, xfs_dinode_t
from splitreel.core.xfs_group cimport XFS_INODES_PER_CHUNK, XfsGroups, chunk_t
from splitreel.core.xfs_inode cimport (
    FORK_BTREE,
    FORK_EXTENTS,
    FORK_LOCAL,
    INODE_BAD,
    INODE_FILE,
    attr_fork_area,
    data_fork,
    decode_inode,
    inode_state,
    is_reflink,
    known_type,
    verify_inode,
    xfs_fork_area_t,
)
from splitreel.core.xfs_log cimport LOG_DIRTY, XfsLog
from splitreel.core.xfs_superblock cimport (
    TRUST_CLEAN,
    TRUST_FROZEN,
    TRUST_LIVE,
    XFS_MAX_SECTOR,
    decode_superblock,
    feature_names,
    geometry_warnings,
    xfs_geometry_t,
    xfs_inode_offset,
    xfs_linear_block,
)

cdef enum:
    RING = 8 << 20                                 # bytes in flight, for each of the two sweeps
    WINDOW = 4 << 20                               # bytes of inodes whose extent trees are read together
    S_IFMT = 0o170000
    S_IFDIR = 0o040000
    S_IFLNK = 0o120000


cdef class Xfs(Filesystem):
    """An XFS file system on a device, for mapping. One thread at a time.

    ``frozen``: the caller knows that it was frozen (or unmounted) when the mirror was split; only a file system whose
    log is on another device needs it. ``others``: further devices, one of which may hold that log. ``live``: the device
    is in use; the map is a hint that must be checked against the split mirror, and neither a log to be replayed nor a
    change while reading is refused.

    Raises:
        Corrupt: no XFS, or a superblock that fails its own checks.
        Unsupported: a feature, by name and bit.
        NeedsRecovery: the log was not emptied before the mirror was split.
        DeviceError: the device does not read, or is shorter than the file system.
    """

    def __init__(self, BlockDevice device not None, *, bint frozen=False, bint live=False, others=()):
        cdef fault_t fault
        cdef int rc
        self.device = device
        self.trust = TRUST_LIVE if live else TRUST_FROZEN if frozen else TRUST_CLEAN
        with nogil:
            rc = self.allocate(&fault)
            if rc >= 0:
                rc = self.open_superblock(&fault)
        if rc < 0:
            raise_fault(&fault)
        self.check_log(others)
        self.fs_type = "xfs"
        self.block_size = self.geometry.block_size
        self.uuid = <bytes>self.geometry.uuid[:16]
        self.warnings = geometry_warnings(&self.geometry)
        self.chunk_sweep = Sweep(device, self.block_size, RING)
        self.block_sweep = Sweep(device, self.block_size, RING)
        self.make_parts()

    def __cinit__(self):
        self.heap = HeapWriter()
        self.groups = XfsGroups()
        self.data_trees = XfsTrees()
        self.attr_trees = XfsTrees()
        self.deferred = XfsDeferred()
        self.directories = XfsWalk()

    def __dealloc__(self):
        self.forget()
        free(self.superblock)
        free(self.scratch)

    cdef int make_parts(self) except -1:
        """What the parts know of the file system and of each other."""
        cdef fault_t fault
        self.groups.geometry = &self.geometry
        self.groups.sweep = self.block_sweep
        self.data_trees.geometry = self.attr_trees.geometry = &self.geometry
        self.data_trees.sweep = self.attr_trees.sweep = self.block_sweep
        self.data_trees.shared = &self.groups.shared
        self.attr_trees.fork = &self.forks
        self.deferred.geometry = &self.geometry
        self.deferred.sweep = self.block_sweep
        self.deferred.heap = self.heap
        self.directories.sweep = self.block_sweep
        if self.directories.set_geometry(&self.geometry, &fault) < 0:
            raise_fault(&fault)
        return 0

    @property
    def features(self):
        """{"version": [names of version 4's bits], "incompat": [names], "ro_compat": [...], "log_incompat": [...]}."""
        return feature_names(&self.geometry)

    # Opening.

    cdef int allocate(self, fault_t* fault) noexcept nogil:
        free(self.superblock)
        free(self.scratch)
        self.superblock = <uint8_t*>malloc(XFS_MAX_SECTOR)
        self.scratch = <uint8_t*>malloc(XFS_MAX_SECTOR)
        if self.superblock == NULL or self.scratch == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"opening an XFS file system", 0, 0, NULL)
        return 0

    cdef int read_superblock(self, uint8_t* sector, fault_t* fault) noexcept nogil:
        return self.device.read(0, sector, XFS_MAX_SECTOR, fault)

    cdef int open_superblock(self, fault_t* fault) noexcept nogil:
        if self.read_superblock(self.superblock, fault) < 0:
            return fault.code
        return decode_superblock(self.superblock, self.device.size, &self.geometry, fault)

    cdef int log_state(self, XfsLog log, XfsApplied applied, bint external, fault_t* fault) noexcept nogil:
        """A freeze leaves the log dirty by design: only reading it, and what it changed, can tell it from a crash."""
        cdef const char* text = b"its log holds changes that are not in place yet: freeze it before the mirror is split"
        cdef int rc
        if log.open_of(&self.geometry, external, fault) < 0:
            return fault.code
        rc = log.judge(fault)
        if rc == LOG_DIRTY:
            rc = applied.all_in_place(log, fault) if self.geometry.crc else applied.only_tail(log, fault)
            if rc == 1 and not self.geometry.crc and self.trust != TRUST_FROZEN:
                text = b"its log may hold a change that is not in place yet: say that it was frozen, if it was"
                rc = 0
            if rc == 0:
                return set_fault(fault, FAULT_NEEDS_RECOVERY, b"opening an XFS file system", 0, log.base, text)
        return min(rc, 0)

    cdef int check_log(self, others) except -1:
        """The log is on this device or on one of the others. Without it, only who froze the file system can vouch."""
        cdef fault_t fault
        cdef bint external = self.geometry.log_start == 0 and len(others) > 0
        cdef int rc = 0
        if self.trust == TRUST_LIVE or (self.geometry.log_start == 0 and self.trust == TRUST_FROZEN and not external):
            return 0
        for device in others if external else (self.device,):
            self.log = XfsLog(device)
            rc = self.log_state(self.log, XfsApplied(self.device), external, &fault)
            if rc >= 0 or fault.code == FAULT_NEEDS_RECOVERY:
                break
        if rc < 0:
            raise_fault(&fault)
        return 0

    cdef void forget(self) noexcept nogil:
        """Gives back what one map needed."""
        free_blocks(&self.blocks)
        free(self.forks.items)
        free(self.window)
        free(self.slots)
        free(self.data_roots)
        free(self.attr_roots)
        memset(&self.forks, 0, sizeof(fork_list_t))
        self.window = NULL
        self.slots = NULL
        self.data_roots = self.attr_roots = NULL
        self.window_count = self.window_capacity = 0

    # Mapping.

    cdef int map_all(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef xfs_geometry_t opened = self.geometry
        cdef int rc
        memset(&self.counts, 0, sizeof(self.counts))
        self.chunk_sweep.bytes_read = self.chunk_sweep.read_count = 0
        self.block_sweep.bytes_read = self.block_sweep.read_count = 0
        if self.open_superblock(fault) < 0:
            return fault.code
        if (memcmp(opened.uuid, self.geometry.uuid, 16) != 0 or opened.block_size != self.geometry.block_size
                or opened.inode_size != self.geometry.inode_size
                or opened.dir_block_size != self.geometry.dir_block_size):
            return set_fault(fault, FAULT_STALE_MAP, b"mapping an XFS file system", 0, 0,
                             b"another file system stands on the device than when it was opened")
        rc = self.run_passes(target, fault)
        self.chunk_sweep.stop()
        self.block_sweep.stop()
        self.counts.bytes_read = self.chunk_sweep.bytes_read + self.block_sweep.bytes_read
        self.counts.reads = self.chunk_sweep.read_count + self.block_sweep.read_count
        self.counts.directory_blocks = self.directories.block_count
        self.directories.reset()
        self.data_trees.reset()
        self.attr_trees.reset()
        self.deferred.reset()
        self.groups.reset()
        self.forget()
        return rc

    cdef int run_passes(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef double begun = now(), ended
        if self.groups.read(target, fault) < 0:
            return fault.code
        ended = now()
        self.counts.seconds[0] = ended - begun
        if self.list_chunks(fault) < 0 or self.scan_inodes(target, fault) < 0:
            return fault.code
        begun = now()
        self.counts.seconds[1] = begun - ended
        if self.deferred.read(target, self.forks.items, fault) < 0:
            return fault.code
        ended = now()
        self.counts.seconds[2] = ended - begun
        self.directories.blocks_left = self.geometry.block_count
        if (self.directories.walk(target, self.geometry.root_inode, fault) < 0
                or self.directories.drop_unnamed(target, &self.counts.unnamed, fault) < 0):
            return fault.code
        self.counts.seconds[3] = now() - ended
        return self.check_unchanged(fault)

    cdef int check_unchanged(self, fault_t* fault) noexcept nogil:
        """Nothing writes to a split mirror. A superblock or a log that changed means that the device is the live one.

        The superblock alone hardly ever changes while it is mounted: counts are written when the log is idle.
        """
        cdef uint64_t head, tail
        cdef bint changed
        if self.trust == TRUST_LIVE:
            return 0
        if self.read_superblock(self.scratch, fault) < 0:
            return fault.code
        changed = memcmp(self.scratch, self.superblock, self.geometry.sector_size) != 0
        if not changed and self.log is not None:
            head, tail = self.log.head, self.log.tail
            if self.log.find_ends(fault) < 0:
                return fault.code
            changed = self.log.head != head or self.log.tail != tail
        if changed:
            return set_fault(fault, FAULT_STALE_MAP, b"mapping an XFS file system", 0, 0,
                             b"the mirror was written to while it was read")
        return 0

    # Inode chunks.

    cdef int list_chunks(self, fault_t* fault) noexcept nogil:
        cdef size_t i
        self.blocks.count = 0
        for i in range(self.groups.chunks.count):
            if self.list_chunk(<uint32_t>i, fault) < 0:
                return fault.code
        return 0

    cdef int list_chunk(self, uint32_t index, fault_t* fault) noexcept nogil:
        """Runs of blocks with inodes in use: owner is the chunk, first the inode of it, limit their number."""
        cdef const chunk_t* chunk = &self.groups.chunks.items[index]
        cdef uint32_t step = min(<uint32_t>1 << self.geometry.inopblog, <uint32_t>XFS_INODES_PER_CHUNK)
        cdef uint64_t mask = ~<uint64_t>0 >> (XFS_INODES_PER_CHUNK - step)
        cdef uint32_t first = 0, end
        while first < XFS_INODES_PER_CHUNK:
            end = first
            while end < XFS_INODES_PER_CHUNK and chunk.used >> end & mask:
                end += step
            if end > first and append_block(
                    &self.blocks, xfs_linear_block(&self.geometry, (chunk.first + first) >> self.geometry.inopblog),
                    (end - first) // step, index, first, end - first, fault) < 0:
                return fault.code
            first = end + step
        return 0

    cdef int scan_inodes(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef int rc
        self.window_capacity = WINDOW // self.geometry.inode_size
        self.window = <uint8_t*>malloc(WINDOW)
        self.slots = <xfs_slot_t*>calloc(self.window_capacity, sizeof(xfs_slot_t))
        self.data_roots = <tree_t*>calloc(self.window_capacity, sizeof(tree_t))
        self.attr_roots = <tree_t*>calloc(self.window_capacity, sizeof(tree_t))
        if self.window == NULL or self.slots == NULL or self.data_roots == NULL or self.attr_roots == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"reading inodes", 0, 0, NULL)
        self.chunk_sweep.start(&self.blocks)
        while True:
            rc = self.chunk_sweep.next(&ref, &data, fault)
            if rc == 0:
                break
            if rc < 0 and rc != FAULT_IO:
                return rc
            if rc == FAULT_IO:
                self.read_by_block(target, ref, <uint8_t*>data)
            if self.take_inodes(target, ref, data, fault) < 0:
                return fault.code
        if self.close_window(target, fault) < 0:
            return fault.code
        self.counts.inodes = target.file_count
        return 0

    cdef void read_by_block(self, ExtentMap target, const block_ref_t* ref, uint8_t* data) noexcept nogil:
        """Of a run that does not read, what does; the rest becomes inodes without a magic number."""
        cdef uint64_t first = self.groups.chunks.items[ref.owner].first + ref.first
        cdef uint32_t size = self.geometry.block_size
        cdef fault_t ignored
        cdef uint32_t i
        for i in range(ref.count):
            if self.device.read((ref.block + i) * size, data + <size_t>i * size, size, &ignored) < 0:
                memset(data + <size_t>i * size, 0, size)
                target.append_problem(first + (<uint64_t>i << self.geometry.inopblog), (ref.block + i) * size,
                                      b"a block of inodes does not read: inodes from this one on are lost")

    cdef int take_inodes(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil:
        """Copies the inodes in use into the window. A block may begin with inodes of another chunk."""
        cdef const chunk_t* chunk = &self.groups.chunks.items[ref.owner]
        cdef uint32_t size = self.geometry.inode_size
        cdef uint64_t number = chunk.first + ref.first
        cdef uint32_t i
        data += (number & ((<uint64_t>1 << self.geometry.inopblog) - 1)) * size
        for i in range(ref.limit):
            if not chunk.used >> (ref.first + i) & 1:
                continue
            if self.window_count == self.window_capacity and self.close_window(target, fault) < 0:
                return fault.code
            memcpy(self.window + <size_t>self.window_count * size, data + <size_t>i * size, size)
            self.slots[self.window_count].number = number + i
            self.window_count += 1
        return 0

    # Inodes and extents.

    cdef int close_window(self, ExtentMap target, fault_t* fault) noexcept nogil:
        """The extent trees of all inodes of the window are read together; then its files are appended."""
        cdef uint32_t i
        self.data_trees.clear()
        self.attr_trees.clear()
        for i in range(self.window_count):
            if self.examine(i, fault) < 0:
                return fault.code
        if self.take_attr_forks(target, fault) < 0 or self.data_trees.resolve(self.data_roots, fault) < 0:
            return fault.code
        for i in range(self.window_count):
            if self.append_inode(target, i, fault) < 0:
                return fault.code
        self.window_count = 0
        return 0

    cdef int examine(self, uint32_t index, fault_t* fault) noexcept nogil:
        """What the inode alone says: its state, its forks; roots of extent trees are handed on."""
        cdef xfs_slot_t* slot = &self.slots[index]
        cdef const uint8_t* raw = self.window + <size_t>index * self.geometry.inode_size
        slot.text = slot.attr_text = NULL
        slot.fork_count = 0
        slot.data.layout = slot.attr.layout = 0
        slot.state = inode_state(&self.geometry, slot.number, <const xfs_dinode_t*>raw)
        if slot.state != INODE_FILE:
            return 0
        slot.text = verify_inode(&self.geometry, slot.number, raw)
        if slot.text != NULL:
            return 0
        slot.text = data_fork(&self.geometry, raw, &slot.data)
        slot.attr_text = attr_fork_area(&self.geometry, raw, &slot.attr)
        fault.code = 0
        if slot.text == NULL and slot.data.layout == FORK_BTREE:
            slot.text = self.examine_root(self.data_trees, index, &self.data_roots[index], &slot.data, fault)
        if fault.code == 0 and slot.attr_text == NULL and slot.attr.layout == FORK_BTREE:
            slot.attr_text = self.examine_root(self.attr_trees, index, &self.attr_roots[index], &slot.attr, fault)
        return fault.code

    cdef const char* examine_root(self, XfsTrees trees, uint32_t index, tree_t* tree, const xfs_fork_area_t* area,
                                  fault_t* fault) noexcept nogil:
        cdef const char* text = verify_root(&self.geometry, area.bytes, area.size)
        if text != NULL:
            return text
        memset(tree, 0, sizeof(tree_t))
        tree.owner = self.slots[index].number
        tree.depth = <uint32_t>root_depth(area.bytes)
        trees.root_size = area.size
        trees.add_root(index, tree, area.bytes, fault)
        return NULL

    cdef int take_attr_forks(self, ExtentMap target, fault_t* fault) noexcept nogil:
        """Extents of all attribute forks of the window, to the list of them."""
        cdef uint32_t i
        if self.attr_trees.resolve(self.attr_roots, fault) < 0:
            return fault.code
        for i in range(self.window_count):
            if self.slots[i].state == INODE_FILE and self.slots[i].attr_text == NULL and (
                    self.slots[i].attr.layout == FORK_BTREE or self.slots[i].attr.layout == FORK_EXTENTS):
                if self.take_attr_fork(target, i, fault) < 0:
                    return fault.code
        return 0

    cdef int take_attr_fork(self, ExtentMap target, uint32_t index, fault_t* fault) noexcept nogil:
        cdef xfs_slot_t* slot = &self.slots[index]
        cdef const xfs_bmbt_rec_t* records = <const xfs_bmbt_rec_t*>slot.attr.bytes
        cdef tree_t* tree = &self.attr_roots[index]
        slot.fork = self.forks.count
        if slot.attr.layout == FORK_EXTENTS:
            memset(tree, 0, sizeof(tree_t))
            tree.damage = verify_records(&self.geometry, records, slot.attr.count, &tree.end)
            if tree.damage == NULL and self.attr_trees.take_records(target, tree, records, slot.attr.count, fault) < 0:
                return fault.code
        elif self.attr_trees.take_leaves(index, tree, target, fault) < 0:
            return fault.code
        slot.attr_text = tree.damage
        slot.fork_count = <uint32_t>(self.forks.count - slot.fork)
        return 0

    cdef void damaged(self, ExtentMap target, uint64_t offset, const char* text) noexcept nogil:
        """Of the file appended last."""
        cdef file_t* file = &target.files[target.file_count - 1]
        file.flags |= FILE_DAMAGED
        target.append_problem(file.inode, offset, text)

    cdef int append_inode(self, ExtentMap target, uint32_t index, fault_t* fault) noexcept nogil:
        cdef xfs_slot_t* slot = &self.slots[index]
        cdef const uint8_t* raw = self.window + <size_t>index * self.geometry.inode_size
        cdef uint64_t offset
        cdef file_t file
        if slot.state == INODE_FILE:
            decode_inode(&self.geometry, slot.number, raw, self.scratch, &file)
            if slot.text == NULL:
                if target.append_file(&file, fault) < 0 or self.append_data(target, index, fault) < 0:
                    return fault.code
                return self.append_heap(target, index, fault)
            if known_type(file.mode):
                if target.append_file(&file, fault) < 0:
                    return fault.code
                self.damaged(target, xfs_inode_offset(&self.geometry, slot.number), slot.text)
                return 0
        elif slot.state == INODE_BAD:
            slot.text = b"an inode without its magic number"
        if slot.text != NULL:
            offset = xfs_inode_offset(&self.geometry, slot.number)
            target.append_problem(slot.number, offset, slot.text)
        return 0

    cdef int append_data(self, ExtentMap target, uint32_t index, fault_t* fault) noexcept nogil:
        """The data fork of the file appended last; a symlink's target belongs to its heap record."""
        cdef xfs_slot_t* slot = &self.slots[index]
        cdef const uint8_t* raw = self.window + <size_t>index * self.geometry.inode_size
        cdef const xfs_bmbt_rec_t* records = <const xfs_bmbt_rec_t*>slot.data.bytes
        cdef file_t* file = &target.files[target.file_count - 1]
        cdef tree_t* tree = &self.data_roots[index]
        cdef bint is_directory = file.mode & S_IFMT == S_IFDIR
        if slot.data.layout == FORK_LOCAL and is_directory:
            return self.directories.keep_local(<uint32_t>(target.file_count - 1), slot.data.bytes,
                                               <uint32_t>file.size, fault)
        if slot.data.layout != FORK_EXTENTS and slot.data.layout != FORK_BTREE:
            return 0
        if slot.data.layout == FORK_EXTENTS:
            memset(tree, 0, sizeof(tree_t))
        tree.flags = TREE_SHARING if is_reflink(raw) else 0
        if slot.data.layout == FORK_BTREE:
            if self.data_trees.take_leaves(index, tree, target, fault) < 0:
                return fault.code
        else:
            tree.damage = verify_records(&self.geometry, records, slot.data.count, &tree.end)
            tree.offset = xfs_inode_offset(&self.geometry, slot.number)
            if tree.damage == NULL and self.data_trees.take_records(target, tree, records, slot.data.count, fault) < 0:
                return fault.code
        file.fingerprint += tree.digest
        if tree.damage != NULL:
            self.damaged(target, tree.offset, tree.damage)
        return 0

    # Symlink targets and extended attributes.

    cdef bint take_target(self, ExtentMap target, file_t* file, const xfs_fork_area_t* area) noexcept nogil:
        """A target in the inode is good."""
        if file.size > 0 and memchr(area.bytes, 0, file.size) == NULL:
            return True
        self.damaged(target, xfs_inode_offset(&self.geometry, file.inode),
                     b"a symlink without a target, or one that holds a null byte")
        return False

    cdef int append_heap(self, ExtentMap target, uint32_t index, fault_t* fault) noexcept nogil:
        """The heap record of the file appended last, now when all of it stands in the inode, else later."""
        cdef xfs_slot_t* slot = &self.slots[index]
        cdef file_t* file = &target.files[target.file_count - 1]
        cdef bint is_symlink = file.mode & S_IFMT == S_IFLNK
        cdef const char* text = slot.attr_text
        self.heap.begin()
        if slot.attr_text != NULL:
            slot.fork_count = 0
            slot.attr.layout = 0
        file.fingerprint += self.attr_roots[index].digest if slot.attr.layout == FORK_BTREE else 0
        if slot.fork_count > 0 or (is_symlink and slot.data.layout != FORK_LOCAL):
            if text != NULL:
                target.append_problem(file.inode, xfs_inode_offset(&self.geometry, file.inode), text)
            return self.defer_heap(target, index, is_symlink and slot.data.layout != FORK_LOCAL, fault)
        if is_symlink and self.take_target(target, file, &slot.data):
            self.heap.set_target(slot.data.bytes, <uint32_t>file.size)
        fault.code = 0
        if slot.attr.layout == FORK_LOCAL:
            text = attr_shortform(self.heap, slot.attr.bytes, slot.attr.size, fault)
        if fault.code < 0:
            return fault.code
        if text != NULL:
            target.append_problem(file.inode, xfs_inode_offset(&self.geometry, file.inode), text)
        return self.heap.finish(target, file, fault)

    cdef int defer_heap(self, ExtentMap target, uint32_t index, bint remote_target, fault_t* fault) noexcept nogil:
        """Keeps what the inode holds until the blocks are read."""
        cdef xfs_slot_t* slot = &self.slots[index]
        cdef file_t* file = &target.files[target.file_count - 1]
        cdef deferred_t item
        memset(&item, 0, sizeof(deferred_t))
        item.file = <uint32_t>(target.file_count - 1)
        item.fork = slot.fork
        item.fork_count = slot.fork_count
        item.remote_target = remote_target
        if file.mode & S_IFMT == S_IFLNK and not remote_target and self.take_target(target, file, &slot.data):
            item.target_size = <uint32_t>file.size
        if slot.attr.layout == FORK_LOCAL:
            item.attrs_size = slot.attr.size
        return self.deferred.add(&item, slot.data.bytes, slot.attr.bytes, fault)
