"""ext4 maps an ext2, ext3 or ext4 file system read raw: attributes, extents, xattrs and names. It reads no file data.

Passes: group descriptors; inode tables in order with the extent trees below them; symlink targets, extended attribute
blocks and values; directories from the root downward. Each has many large requests in flight, never a file at a time.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memset

from splitreel.core.device cimport BlockDevice
from splitreel.core.ext4_directory cimport DirectoryWalk
from splitreel.core.ext4_disk cimport (
    EXT4_EA_INODE_FL,
    EXT4_ROOT_INO,
    ext4_extent_header_t,
    ext4_inode_t,
    ext4_le16,
    ext4_le32,
    ext4_mmp_t,
    ext4_superblock_t,
)
from splitreel.core.ext4_groups cimport (
    add_group_stretches,
    add_stretch,
    arrange_stretches,
    decode_group,
    ext4_group_t,
    free_stretches,
    join_tables,
    list_descriptors,
)
from splitreel.core.ext4_indirect cimport IndirectTrees, has_indirect
from splitreel.core.ext4_journal cimport Recovery, needs_recovery
from splitreel.core.ext4_inode cimport (
    LAYOUT_EXTENTS,
    LAYOUT_INDIRECT,
    decode_inode,
    inode_in_use,
    inode_layout,
    inode_seed,
    inode_size,
    known_type,
    layout_reach,
    verify_inode,
)
from splitreel.core.ext4_lookup cimport descriptor_offset, extent_list_t, free_extents, list_extents, read_inode
from splitreel.core.ext4_superblock cimport (
    ext4_geometry_t,
    TRUST_CLEAN,
    TRUST_FROZEN,
    TRUST_LIVE,
    decode_superblock,
    family_name,
    feature_names,
    geometry_warnings,
    mmp_warnings,
)
from splitreel.core.sweep cimport SWEEP_SPAN, Sweep, append_block, block_ref_t, free_blocks
from splitreel.core.ext4_records cimport RecordPass
from splitreel.core.ext4_tree cimport ExtentTrees, append_leaf, verify_node
from splitreel.core.extent cimport FILE_DAMAGED, ExtentMap, file_t
from splitreel.core.fault cimport FAULT_IO, FAULT_NO_MEMORY, FAULT_STALE_MAP, fault_t, raise_fault, set_fault
from splitreel.core.filesystem cimport MAP_AGAIN, Filesystem, now
from splitreel.core.trees cimport tree_t

cdef enum:
    SUPERBLOCK_OFFSET = 1024
    RING = 8 << 20                                 # bytes in flight, for each of the three sweeps
    ROOT_ROOM = 60                                 # bytes of i_block
    MAX_BLOCK = 0xFFFFFFFF
    SMALLEST_INODE = 128


cdef class Ext4(Filesystem):
    """An ext2, ext3 or ext4 file system on a device, for mapping. One thread at a time.

    ``frozen``: the caller knows that it was frozen (or unmounted) when the mirror was split; only a file system without
    a journal needs it, which looks crashed otherwise. ``live``: the device is in use; the map is a hint that must be
    checked against the split mirror, its journal is left alone, and no change while reading is refused. A journal that
    was not emptied is replayed in memory otherwise; ``others``: devices among which an external one is looked for.
    ``device`` is then not the one given, but reads as what recovery would have made of it: files' bytes, too.

    Raises:
        Corrupt: no ext4, or a superblock that fails its own checks.
        Unsupported: an incompatible feature, by name and bit.
        NeedsRecovery: the journal was not emptied before the mirror was split, and is on a device that was not given.
        DeviceError: the device does not read, or is shorter than the file system.
    """

    def __init__(self, BlockDevice device not None, *, bint frozen=False, bint live=False, others=()):
        cdef fault_t fault
        cdef int rc
        if not live and needs_recovery(device):
            self.recovery = Recovery(device, others)
            device = self.recovery.device
        self.device = device
        self.trust = TRUST_LIVE if live else TRUST_FROZEN if frozen else TRUST_CLEAN
        with nogil:
            rc = self.open_superblock(&fault)
            if rc >= 0:
                rc = self.allocate(&fault)
        if rc < 0:
            raise_fault(&fault)
        self.fs_type = "ext4"
        self.block_size = self.geometry.block_size
        self.uuid = <bytes>self.geometry.uuid[:16]
        self.kind = family_name(&self.geometry)
        self.warnings = geometry_warnings(&self.geometry)
        if self.recovery is not None:
            self.warnings = self.recovery.warnings + self.warnings
        if self.geometry.mmp_block != 0:
            self.warnings += mmp_warnings(&self.mmp)
        self.table_sweep = Sweep(device, self.block_size, RING)
        self.block_sweep = Sweep(device, self.block_size, RING)
        self.pointer_sweep = Sweep(device, self.block_size, RING)
        self.trees = ExtentTrees()
        self.trees.geometry = &self.geometry
        self.trees.sweep = self.block_sweep
        self.indirects = IndirectTrees()
        self.indirects.geometry = &self.geometry
        self.indirects.sweep = self.pointer_sweep
        self.indirects.seen = &self.trees.seen
        self.directories = DirectoryWalk()
        self.directories.geometry = &self.geometry
        self.directories.index = &self.index
        self.directories.sweep = self.block_sweep
        self.records.directories = self.directories
        self.records.sweep = self.records.values.sweep = self.block_sweep

    def __cinit__(self):
        self.records = RecordPass()

    def __dealloc__(self):
        self.index.is_short = False
        self.forget()
        free(self.slots)
        free(self.scratch)

    @property
    def features(self):
        """{"compat": [names], "incompat": [names], "ro_compat": [names]}, as mke2fs names them."""
        return feature_names(&self.geometry)

    @property
    def statistics(self):
        """As of every file system, and its kind: "ext2", "ext3" or "ext4"."""
        return {"kind": self.kind, **Filesystem.statistics.__get__(self)}

    # Opening.

    cdef int read_superblock(self, ext4_superblock_t* raw, fault_t* fault) noexcept nogil:
        return self.device.read(SUPERBLOCK_OFFSET, raw, sizeof(ext4_superblock_t), fault)

    cdef int read_mmp(self, ext4_mmp_t* raw, fault_t* fault) noexcept nogil:
        memset(raw, 0, sizeof(ext4_mmp_t))
        if self.geometry.mmp_block == 0:
            return 0
        return self.device.read(self.geometry.mmp_block * self.geometry.block_size, raw, sizeof(ext4_mmp_t), fault)

    cdef int open_superblock(self, fault_t* fault) noexcept nogil:
        if self.read_superblock(&self.superblock, fault) < 0:
            return fault.code
        if decode_superblock(&self.superblock, self.device.size, self.trust, &self.geometry, fault) < 0:
            return fault.code
        self.geometry.metadata = &self.metadata
        return self.read_mmp(&self.mmp, fault)

    cdef int allocate(self, fault_t* fault) noexcept nogil:
        free(self.slots)
        free(self.scratch)
        self.slots = <tree_t*>calloc(SWEEP_SPAN // SMALLEST_INODE, sizeof(tree_t))
        self.scratch = <uint8_t*>malloc(self.geometry.inode_size)
        if self.slots == NULL or self.scratch == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"opening an ext4 file system", 0, 0, NULL)
        return self.records.prepare(&self.geometry, fault)

    cdef void forget(self) noexcept nogil:
        """Gives back what one map needed; but for what a map that is made again needs to know."""
        free_blocks(&self.blocks)
        free_blocks(&self.descriptors)
        free_stretches(&self.metadata)
        free_stretches(&self.tables)
        free(self.index.first_file)
        self.index.first_file = NULL
        if not self.index.is_short:
            free(self.index.used_inodes)
            self.index.used_inodes = NULL
        self.indexed_groups = 0

    # Mapping.

    cdef int map_all(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef ext4_geometry_t opened = self.geometry
        cdef int rc
        memset(&self.counts, 0, sizeof(self.counts))
        self.table_sweep.bytes_read = self.table_sweep.read_count = 0
        self.block_sweep.bytes_read = self.block_sweep.read_count = 0
        self.pointer_sweep.bytes_read = self.pointer_sweep.read_count = 0
        if self.open_superblock(fault) < 0:
            return fault.code
        if (memcmp(opened.uuid, self.geometry.uuid, 16) != 0 or opened.block_size != self.geometry.block_size
                or opened.inode_size != self.geometry.inode_size):
            return set_fault(fault, FAULT_STALE_MAP, b"mapping an ext4 file system", 0, SUPERBLOCK_OFFSET,
                             b"another file system stands on the device than when it was opened")
        self.records.reset()
        rc = self.run_passes(target, fault)
        self.table_sweep.stop()
        self.block_sweep.stop()
        self.pointer_sweep.stop()
        self.counts.bytes_read = self.table_sweep.bytes_read + self.block_sweep.bytes_read
        self.counts.bytes_read += self.pointer_sweep.bytes_read
        self.counts.reads = self.table_sweep.read_count + self.block_sweep.read_count + self.pointer_sweep.read_count
        self.counts.directory_blocks = self.directories.block_count
        self.directories.reset()
        self.trees.reset()
        self.indirects.reset()
        self.records.reset()
        if rc < 0:
            self.index.is_short = False
        self.forget()
        return MAP_AGAIN if self.index.is_short else rc

    cdef int run_passes(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef double begun = now(), ended
        if self.read_groups(target, fault) < 0:
            return fault.code
        ended = now()
        self.counts.seconds[0] = ended - begun
        if self.scan_tables(target, fault) < 0:
            return fault.code
        begun = now()
        self.counts.seconds[1] = begun - ended
        if self.records.read_blocks(target, fault) < 0:
            return fault.code
        ended = now()
        self.counts.seconds[2] = ended - begun
        self.directories.blocks_left = self.geometry.block_count
        if (self.directories.walk(target, EXT4_ROOT_INO, fault) < 0
                or self.directories.drop_unnamed(target, &self.counts.unnamed, fault) < 0):
            return fault.code
        self.counts.unnamed -= self.records.values.inode_count
        self.counts.seconds[3] = now() - ended
        return self.check_unchanged(fault)

    cdef int check_unchanged(self, fault_t* fault) noexcept nogil:
        """Nothing writes to a split mirror. A superblock that changed means that the device is the live one.

        So does multiple mount protection, whose holder counts on every few seconds.
        """
        cdef ext4_superblock_t last
        cdef ext4_mmp_t last_mmp
        if self.trust == TRUST_LIVE:
            return 0
        if self.recovery is not None:
            return self.recovery.check_unchanged(fault)
        if self.read_superblock(&last, fault) < 0 or self.read_mmp(&last_mmp, fault) < 0:
            return fault.code
        if memcmp(&last, &self.superblock, sizeof(last)) != 0 or memcmp(&last_mmp, &self.mmp, sizeof(last_mmp)) != 0:
            return set_fault(fault, FAULT_STALE_MAP, b"mapping an ext4 file system", 0, SUPERBLOCK_OFFSET,
                             b"the mirror was written to while it was read")
        return 0

    # Group descriptors.

    cdef int prepare_index(self, fault_t* fault) noexcept nogil:
        """Keeps which tables are to be read whole from the map that is made again; the third time, all of them."""
        cdef uint64_t i
        if self.index.used_inodes != NULL and self.index.group_count == self.geometry.group_count:
            self.attempt += 1
        else:
            free(self.index.used_inodes)
            self.attempt = 0
            self.index.used_inodes = <uint32_t*>calloc(self.geometry.group_count, sizeof(uint32_t))
        self.index.is_short = False
        self.index.group_count = self.geometry.group_count
        self.index.inodes_per_group = self.geometry.inodes_per_group
        self.index.first_file = <uint64_t*>calloc(self.geometry.group_count + 1, sizeof(uint64_t))
        if self.index.first_file == NULL or self.index.used_inodes == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"reading group descriptors", 0, 0, NULL)
        if self.attempt > 1:
            for i in range(self.geometry.group_count):
                self.index.used_inodes[i] = self.geometry.inodes_per_group
        return 0

    cdef int read_groups(self, ExtentMap target, fault_t* fault) noexcept nogil:
        """Lists the used head of every inode table, in the order of inodes, and the file system's own blocks."""
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef uint32_t i
        cdef int rc
        if self.prepare_index(fault) < 0:
            return fault.code
        if list_descriptors(&self.geometry, &self.descriptors, fault) < 0:
            return fault.code
        self.table_sweep.start(&self.descriptors)
        while True:
            rc = self.table_sweep.next(&ref, &data, fault)
            if rc < 0:
                return rc
            if rc == 0:
                break
            for i in range(ref.limit):
                if self.add_table(target, ref.first + i, data + <size_t>i * self.geometry.desc_size, fault) < 0:
                    return fault.code
        if join_tables(&self.geometry, &self.tables, &self.metadata, fault) < 0:
            return fault.code
        return self.protect_journal(fault)

    cdef int protect_journal(self, fault_t* fault) noexcept nogil:
        """The journal's blocks are no file's. One that is itself a file (tune2fs -j of a mounted ext2) is left alone.

        A damaged journal inode protects nothing: nobody needs it, or the journal would have been replayed.
        """
        cdef uint32_t number = self.geometry.journal_inode
        cdef uint8_t* raw = <uint8_t*>malloc(self.geometry.inode_size)
        cdef extent_list_t lists[2]                # what it maps, and the blocks of its map
        cdef fault_t ignored
        cdef size_t i, j
        cdef int rc = 0
        memset(lists, 0, sizeof(lists))
        if (raw != NULL and number != 0 and number < self.geometry.first_ino
                and read_inode(self.device, &self.geometry, number, raw, &ignored) >= 0
                and verify_inode(&self.geometry, number, raw, self.scratch) == NULL
                and list_extents(self.device, &self.geometry, number, raw, &lists[0], &lists[1], &ignored) >= 0):
            for i in range(2):
                for j in range(lists[i].count):
                    if rc >= 0:
                        rc = add_stretch(&self.geometry, &self.metadata, lists[i].items[j].physical,
                                         lists[i].items[j].count, fault)
            arrange_stretches(&self.metadata)
        free(raw)
        free_extents(&lists[0])
        free_extents(&lists[1])
        return rc

    cdef int add_table(self, ExtentMap target, uint64_t group, const uint8_t* raw, fault_t* fault) noexcept nogil:
        """The used head of one inode table, in pieces: owner is the group, first the inode, limit their number."""
        cdef uint32_t per_block = self.geometry.block_size // self.geometry.inode_size
        cdef uint32_t per_piece = SWEEP_SPAN // self.geometry.inode_size
        cdef uint32_t first = 0, count, used
        cdef ext4_group_t decoded
        if (decode_group(&self.geometry, group, raw, &decoded, fault) < 0
                or add_group_stretches(&self.geometry, &self.tables, &self.metadata, group, &decoded, fault) < 0):
            return fault.code
        used = self.used_inodes(target, group, &decoded)
        while first < used:
            count = min(per_piece, used - first)
            if append_block(&self.blocks, decoded.inode_table + first // per_block,
                            (count + per_block - 1) // per_block, <uint32_t>group,
                            <uint32_t>group * self.geometry.inodes_per_group + first + 1, count,
                            fault) < 0:
                return fault.code
            first += count
        return 0

    cdef uint32_t used_inodes(self, ExtentMap target, uint64_t group, const ext4_group_t* decoded) noexcept nogil:
        """The used head of a table: all of it where the descriptor was found to be wrong, by its checksum or by names.

        The kernel, mounting read-only, reads such groups too; a strict backup refuses them.
        """
        cdef uint32_t used = max(decoded.used_inodes, self.index.used_inodes[group])
        cdef uint64_t inode = group * self.geometry.inodes_per_group
        used = min(used, self.geometry.inodes_per_group)
        self.index.used_inodes[group] = used
        if not decoded.is_verified:
            target.append_problem(inode + 1, descriptor_offset(&self.geometry, group),
                                  b"the checksum of its group's descriptor does not match: the whole table is read")
        elif self.attempt > 0 and used > decoded.used_inodes:
            target.append_problem(inode + decoded.used_inodes + 1, descriptor_offset(&self.geometry, group),
                                  b"its group counts inodes from this one on as never used, but names lead to some")
        return used

    # Inodes and extents.

    cdef void index_groups(self, ExtentMap target, uint64_t end) noexcept nogil:
        """The files of groups below end are complete, or there are none."""
        while self.indexed_groups <= end:
            self.index.first_file[self.indexed_groups] = target.file_count
            self.indexed_groups += 1

    cdef int scan_tables(self, ExtentMap target, fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef int rc
        self.table_sweep.start(&self.blocks)
        while True:
            rc = self.table_sweep.next(&ref, &data, fault)
            if rc == 0:
                break
            if rc < 0 and rc != FAULT_IO:
                return rc
            if rc == FAULT_IO:
                self.read_piece_by_block(target, ref, <uint8_t*>data)
            self.index_groups(target, ref.owner)
            if self.scan_piece(target, ref, data, fault) < 0:
                return fault.code
        self.index_groups(target, self.geometry.group_count)
        self.counts.inodes = target.file_count - self.records.values.inode_count
        return 0

    cdef void read_piece_by_block(self, ExtentMap target, const block_ref_t* ref, uint8_t* data) noexcept nogil:
        """Of a piece that does not read, what does; the rest becomes free inodes."""
        cdef uint32_t size = self.geometry.block_size
        cdef fault_t ignored
        cdef uint32_t i
        for i in range(ref.count):
            if self.device.read((ref.block + i) * size, data + <size_t>i * size, size, &ignored) < 0:
                memset(data + <size_t>i * size, 0, size)
                target.append_problem(ref.first + i * (size // self.geometry.inode_size), (ref.block + i) * size,
                                      b"a block of the inode table does not read: inodes from this one on are lost")

    cdef int scan_piece(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                        fault_t* fault) noexcept nogil:
        cdef uint32_t per_block = self.geometry.block_size // self.geometry.inode_size
        cdef const uint8_t* raw
        cdef uint32_t i
        if self.gather_trees(ref, data, fault) < 0:
            return fault.code
        for i in range(ref.limit):
            raw = data + <size_t>i * self.geometry.inode_size
            if inode_in_use(&self.geometry, ref.first + i, <const ext4_inode_t*>raw):
                if self.append_inode(target, ref.first + i, raw, i, ref.block + i // per_block, fault) < 0:
                    return fault.code
        return 0

    cdef int gather_trees(self, const block_ref_t* ref, const uint8_t* data, fault_t* fault) noexcept nogil:
        """Finds the inodes whose extents do not all stand in them, and has their tree blocks read, all at once."""
        cdef const ext4_inode_t* inode
        cdef uint32_t i
        cdef int rc
        self.trees.clear()
        self.indirects.clear()
        for i in range(ref.limit):
            inode = <const ext4_inode_t*>(data + <size_t>i * self.geometry.inode_size)
            memset(&self.slots[i], 0, sizeof(tree_t))
            if inode.i_links_count != 0 and inode_in_use(&self.geometry, ref.first + i, inode):
                if self.gather_tree(ref.first + i, inode, i, fault) < 0:
                    return fault.code
        rc = self.trees.resolve(self.slots, fault)
        return rc if rc < 0 else self.indirects.resolve(self.slots, fault)

    cdef int gather_tree(self, uint32_t number, const ext4_inode_t* inode, uint32_t slot,
                         fault_t* fault) noexcept nogil:
        cdef const ext4_extent_header_t* root = <const ext4_extent_header_t*>inode.i_block
        cdef tree_t* tree = &self.slots[slot]
        cdef uint64_t size = inode_size(&self.geometry, inode)
        cdef const char* text
        cdef int layout = inode_layout(&self.geometry, inode, size, &text)
        if layout == LAYOUT_INDIRECT:
            size = min(size, layout_reach(&self.geometry, layout))
            tree.end = (size + self.geometry.block_size - 1) // self.geometry.block_size
            if not has_indirect(inode.i_block, tree.end):
                return 0
        elif layout != LAYOUT_EXTENTS or root.eh_depth == 0:
            return 0
        if verify_inode(&self.geometry, number, <const uint8_t*>inode, self.scratch) != NULL:
            return 0
        if layout == LAYOUT_INDIRECT:
            return self.indirects.add_roots(slot, tree, inode.i_block, fault)
        if verify_node(&self.geometry, inode.i_block, ROOT_ROOM, -1, 0, MAX_BLOCK) != NULL:
            return 0
        tree.depth = ext4_le16(root.eh_depth)
        tree.owner = inode_seed(&self.geometry, number, ext4_le32(inode.i_generation))
        return self.trees.add_root(slot, tree, inode.i_block, fault)

    cdef int append_inode(self, ExtentMap target, uint32_t number, const uint8_t* raw, uint32_t slot, uint64_t block,
                          fault_t* fault) noexcept nogil:
        cdef const ext4_inode_t* inode = <const ext4_inode_t*>raw
        cdef const char* text = verify_inode(&self.geometry, number, raw, self.scratch)
        cdef int layout = -1
        cdef file_t file
        decode_inode(&self.geometry, number, raw, self.scratch, &file)
        if text == NULL:
            layout = inode_layout(&self.geometry, inode, file.size, &text)
        if layout == LAYOUT_EXTENTS:
            text = verify_node(&self.geometry, inode.i_block, ROOT_ROOM, -1, 0, MAX_BLOCK)
        if layout >= LAYOUT_EXTENTS and file.size > layout_reach(&self.geometry, layout):
            text = b"the inode's size is above 2^32 blocks"
            if layout == LAYOUT_INDIRECT:
                text = b"the inode's size is above what indirect blocks reach"
        if text != NULL:
            layout = -1
            target.append_problem(number, 0, text)
            file.flags |= FILE_DAMAGED
            if not known_type(file.mode):
                return 0
        if target.append_file(&file, fault) < 0 or self.append_extents(target, raw, layout, slot, fault) < 0:
            return fault.code
        if layout < 0:
            return 0
        if ext4_le32(inode.i_flags) & EXT4_EA_INODE_FL:
            return self.records.values.keep(target, raw, fault)
        return self.records.add_inode(target, raw, layout, block, fault)

    cdef int append_extents(self, ExtentMap target, const uint8_t* raw, int layout, uint32_t slot,
                            fault_t* fault) noexcept nogil:
        cdef const ext4_inode_t* inode = <const ext4_inode_t*>raw
        cdef tree_t* tree = &self.slots[slot]
        cdef file_t* file = &target.files[target.file_count - 1]
        cdef int rc
        if layout == LAYOUT_EXTENTS and tree.depth == 0:
            rc = append_leaf(target, inode.i_block, fault)
        elif layout == LAYOUT_EXTENTS:
            rc = self.trees.take_leaves(slot, tree, target, fault)
        elif layout == LAYOUT_INDIRECT:
            rc = self.indirects.append_blocks(slot, tree, inode.i_block, target, fault)
        else:
            return 0
        if rc < 0:
            return rc
        file.fingerprint += tree.digest
        if tree.damage != NULL:
            file.flags |= FILE_DAMAGED
            target.append_problem(file.inode, tree.offset, tree.damage)
        return 0
