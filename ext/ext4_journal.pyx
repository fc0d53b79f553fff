"""ext4_journal finds the journal of an ext3 or ext4 file system and lays what recovery would write over the device.

It writes nothing: the recovered file system is a device of its own, over the one given. Source: fs/ext4/super.c
(ext4_load_journal, ext4_get_journal_blkdev) for where a journal is and what is refused; e2fsprogs' e2fsck/journal.c for
the copy of its map in the superblock, which the kernel does not use.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from splitreel.core.checksum cimport crc32c_update
from splitreel.core.device cimport BlockDevice, raise_named
from splitreel.core.ext4_disk cimport (
    COMPAT_HAS_JOURNAL,
    EXT4_EXTENTS_FL,
    INCOMPAT_RECOVER,
    RO_COMPAT_METADATA_CSUM,
    ext4_inode_t,
    ext4_le16,
    ext4_le32,
    ext4_superblock_t,
)
from splitreel.core.ext4_edit cimport Editor
from splitreel.core.ext4_fast cimport FastCommits
from splitreel.core.ext4_inode cimport verify_inode
from splitreel.core.ext4_lookup cimport extent_list_t, free_extents, list_extents, read_inode
from splitreel.core.ext4_orphan cimport cut_orphans
from splitreel.core.ext4_superblock cimport TRUST_LIVE, decode_superblock, ext4_geometry_t
from splitreel.core.extent cimport EXTENT_UNWRITTEN, extent_t
from splitreel.core.fault cimport (
    FAULT_CORRUPT,
    FAULT_NEEDS_RECOVERY,
    FAULT_NO_MEMORY,
    FAULT_STALE_MAP,
    fault_t,
    raise_fault,
    set_fault,
)
from splitreel.core.jbd2 cimport Journal, journal_copy_t
from splitreel.core.jbd2_disk cimport JBD2_INCOMPAT_FAST_COMMIT, JBD2_MAGIC, jbd2_be32, jbd2_superblock_t
from splitreel.core.spans cimport SpannedDevice

cdef enum:
    SUPERBLOCK_OFFSET = 1024
    SUPERBLOCK_MAGIC = 0xEF53
    INCOMPAT_JOURNAL_DEV = 0x8
    JNL_BACKUP_BLOCKS = 1                          # s_jnl_backup_type: s_jnl_blocks holds i_block, then the size
    ROOT_ROOM = 60
    EXTENT_MAGIC = 0xF30A
    S_IFMT = 0o170000
    S_IFREG = 0o100000
    USERS = 0x40                                   # offset of s_nr_users

cdef const char* SITE = b"finding the journal"

WITH_ADVICE = (
    "Name the journal's device with --with; or quiesce with a file system freeze before the mirror is split, which"
    " empties the journal, and split again."
)


cdef bint needs_recovery(BlockDevice device) noexcept nogil:
    cdef ext4_superblock_t raw
    cdef fault_t ignored
    if device.read(SUPERBLOCK_OFFSET, &raw, sizeof(raw), &ignored) < 0:
        return False
    return (ext4_le16(raw.s_magic) == SUPERBLOCK_MAGIC
            and ext4_le32(raw.s_feature_incompat) & INCOMPAT_RECOVER != 0)


cdef class Recovery:
    """The file system on ``device`` with its journal replayed in memory: ``device`` of this reads as the recovered one.

    ``others`` are devices among which an external journal is looked for. ``warnings`` says what was replayed.

    Raises:
        Corrupt: the journal is damaged where the kernel would refuse it, too.
        Unsupported: a journal feature that is not read.
        NeedsRecovery: the journal is on a device that is not among ``others``.
        DeviceError: a device does not read.
    """

    def __init__(self, BlockDevice device not None, others=()):
        cdef fault_t fault
        cdef int rc
        self.origin = device
        self.others = tuple(others)
        self.warnings = []
        with nogil:
            rc = self.read_superblock(device, &fault)
        if rc < 0:
            raise_fault(&fault)
        self.find_journal()
        self.replay()
        self.finish()

    def replay(self):
        """Lays the blocks of all whole transactions over the device."""
        cdef SpannedDevice over
        cdef fault_t fault
        cdef int rc = 0
        over = SpannedDevice.over(self.origin, (self.journal.device,) if self.external else ())
        with nogil:
            if not self.journal.is_empty:
                rc = self.journal.recover(&fault)
            if rc >= 0:
                rc = self.lay_copies(over, &fault)
            if rc >= 0:
                rc = over.seal(&fault)
        if rc < 0:
            raise_fault(&fault)
        self.device = over

    def finish(self):
        """Goes by the superblock that the journal brought: fast commits, orphans, and nothing is left to recover."""
        cdef SpannedDevice over
        cdef Editor editor
        cdef ext4_superblock_t closed
        cdef fault_t fault
        cdef int rc
        with nogil:
            rc = self.close_superblock(&closed, &fault)
        if rc < 0:
            raise_fault(&fault)
        over = SpannedDevice.over(self.device)
        editor = Editor(self.device)
        editor.geometry = self.geometry
        self.edit(editor)
        cut_orphans(editor, &closed)
        editor.flush(over)
        with nogil:
            rc = over.replace_bytes(SUPERBLOCK_OFFSET, sizeof(closed), <const uint8_t*>&closed, &fault)
            if rc >= 0:
                rc = over.seal(&fault)
        if rc < 0:
            raise_fault(&fault)
        self.device = over

    cdef int edit(self, Editor editor) except -1:
        """Applies fast commits, and says what was replayed."""
        cdef FastCommits fast
        number = <int>jbd2_be32(self.journal.superblock.s_errno)
        if number:
            self.warnings.append(f"the kernel had aborted this journal (error {number}): run e2fsck")
        if self.journal.is_empty:
            return 0
        text = f"{self.journal.transaction_count()} transactions, {self.journal.copy_count} blocks"
        if self.journal.incompat & JBD2_INCOMPAT_FAST_COMMIT:
            fast = FastCommits(self.journal, editor)
            fast.scan()
            fast.apply()
            text += f", {fast.count} fast commits" if fast.count else ""
        self.warnings.append(f"journal replayed in memory: {text}")
        return 0

    # The journal.

    cdef int read_superblock(self, BlockDevice device, fault_t* fault) noexcept nogil:
        if device.read(SUPERBLOCK_OFFSET, &self.superblock, sizeof(ext4_superblock_t), fault) < 0:
            return fault.code
        return decode_superblock(&self.superblock, device.size, TRUST_LIVE, &self.geometry, fault)

    cdef int find_journal(self) except -1:
        cdef fault_t fault
        cdef int rc
        if self.geometry.journal_inode == 0:
            return self.open_external()
        self.journal = Journal(self.origin)
        with nogil:
            rc = self.open_inode(&fault)
        if rc == FAULT_CORRUPT and self.superblock.s_jnl_backup_type == JNL_BACKUP_BLOCKS:
            self.journal = Journal(self.origin)
            with nogil:
                rc = self.open_backup(&fault)
            if rc >= 0:
                self.warnings.append("the journal's inode is damaged: its blocks were found by the superblock's copy")
        if rc < 0:
            raise_fault(&fault)
        return 0

    cdef int open_inode(self, fault_t* fault) noexcept nogil:
        cdef uint8_t* raw = <uint8_t*>malloc(2 * self.geometry.inode_size)
        cdef int rc
        if raw == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, SITE, 0, 0, NULL)
        rc = self.map_inode(raw, fault)
        free(raw)
        return rc if rc < 0 else self.journal.load(fault)

    cdef int map_inode(self, uint8_t* raw, fault_t* fault) noexcept nogil:
        """raw: room for two inodes."""
        cdef const ext4_inode_t* inode = <const ext4_inode_t*>raw
        cdef uint32_t number = self.geometry.journal_inode
        cdef uint64_t size
        cdef extent_list_t list
        cdef const char* text
        cdef int rc
        if read_inode(self.origin, &self.geometry, number, raw, fault) < 0:
            return fault.code
        text = verify_inode(&self.geometry, number, raw, raw + self.geometry.inode_size)
        if text == NULL and (inode.i_links_count == 0 or ext4_le16(inode.i_mode) & S_IFMT != S_IFREG):
            text = b"the journal's inode is deleted, or no file"
        if text != NULL:
            return set_fault(fault, FAULT_CORRUPT, SITE, number, 0, text)
        memset(&list, 0, sizeof(list))
        size = ext4_le32(inode.i_size_lo) | <uint64_t>ext4_le32(inode.i_size_high) << 32
        rc = list_extents(self.origin, &self.geometry, number, raw, &list, NULL, fault)
        if rc >= 0:
            rc = self.add_extents(&list, size, fault)
        free_extents(&list)
        return rc

    cdef int open_backup(self, fault_t* fault) noexcept nogil:
        cdef uint8_t* raw = <uint8_t*>malloc(self.geometry.inode_size)
        cdef int rc
        if raw == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, SITE, 0, 0, NULL)
        rc = self.map_backup(raw, fault)
        free(raw)
        return rc if rc < 0 else self.journal.load(fault)

    cdef int map_backup(self, uint8_t* raw, fault_t* fault) noexcept nogil:
        cdef ext4_inode_t* inode = <ext4_inode_t*>raw
        cdef uint64_t size
        cdef extent_list_t list
        cdef int rc
        memset(raw, 0, self.geometry.inode_size)
        memcpy(inode.i_block, self.superblock.s_jnl_blocks, ROOT_ROOM)
        inode.i_size_high = self.superblock.s_jnl_blocks[15]
        inode.i_size_lo = self.superblock.s_jnl_blocks[16]
        if ext4_le32(self.superblock.s_jnl_blocks[0]) & 0xFFFF == EXTENT_MAGIC:
            inode.i_flags = ext4_le32(EXT4_EXTENTS_FL)
        memset(&list, 0, sizeof(list))
        size = ext4_le32(inode.i_size_lo) | <uint64_t>ext4_le32(inode.i_size_high) << 32
        rc = list_extents(self.origin, &self.geometry, self.geometry.journal_inode, raw, &list, NULL, fault)
        if rc >= 0:
            rc = self.add_extents(&list, size, fault)
        free_extents(&list)
        return rc

    cdef int add_extents(self, const extent_list_t* list, uint64_t size, fault_t* fault) noexcept nogil:
        """The journal's blocks up to its size; they must all be there."""
        cdef uint64_t blocks = size // self.geometry.block_size, count
        cdef const extent_t* extent
        cdef size_t i
        if self.journal.prepare(self.geometry.block_size, self.geometry.block_count, fault) < 0:
            return fault.code
        for i in range(list.count):
            extent = &list.items[i]
            if extent.logical >= blocks:
                break
            if extent.logical != self.journal.length or extent.flags & EXTENT_UNWRITTEN:
                break
            count = min(extent.count, blocks - extent.logical)
            if self.journal.add_run(extent.physical, count, fault) < 0:
                return fault.code
        if self.journal.length != blocks or blocks == 0:
            return set_fault(fault, FAULT_CORRUPT, SITE, self.geometry.journal_inode, 0,
                             b"the journal is empty or has holes")
        return 0

    # A journal on another device.

    cdef int open_external(self) except -1:
        cdef fault_t fault
        cdef BlockDevice other
        cdef int rc
        if not self.geometry.compat & COMPAT_HAS_JOURNAL:
            set_fault(&fault, FAULT_CORRUPT, SITE, 0, SUPERBLOCK_OFFSET,
                      b"needs_recovery is set in a file system without a journal")
            raise_fault(&fault)
        for other in self.others:
            if not self.holds_journal(other):
                continue
            self.external = True
            self.journal = Journal(other)
            with nogil:
                rc = self.load_external(other, &fault)
            if rc < 0:
                raise_fault(&fault)
            return 0
        text = bytes(self.superblock.s_journal_uuid[:16]).hex()
        text = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
        detail = f"needs_recovery is set, and its journal is on another device, of UUID {text}".encode()
        set_fault(&fault, FAULT_NEEDS_RECOVERY, SITE, 0, SUPERBLOCK_OFFSET, detail)
        raise_named(&fault, "opening an ext4 file system", WITH_ADVICE)

    cdef bint holds_journal(self, BlockDevice other) noexcept nogil:
        """An ext4 superblock that says so, and bears the UUID that the file system's names."""
        cdef ext4_superblock_t raw
        cdef fault_t ignored
        if other.read(SUPERBLOCK_OFFSET, &raw, sizeof(raw), &ignored) < 0:
            return False
        return (ext4_le16(raw.s_magic) == SUPERBLOCK_MAGIC
                and ext4_le32(raw.s_feature_incompat) & INCOMPAT_JOURNAL_DEV != 0
                and memcmp(raw.s_uuid, self.superblock.s_journal_uuid, 16) == 0)

    cdef int load_external(self, BlockDevice other, fault_t* fault) noexcept nogil:
        """Blocks are counted from the start of the device; the journal superblock follows the ext4 one's block."""
        cdef ext4_superblock_t raw
        cdef uint32_t size = self.geometry.block_size
        cdef uint64_t blocks
        cdef const uint8_t* data
        if other.read(SUPERBLOCK_OFFSET, &raw, sizeof(raw), fault) < 0:
            return fault.code
        if (ext4_le32(raw.s_feature_ro_compat) & RO_COMPAT_METADATA_CSUM
                and ~crc32c_update(0, &raw, sizeof(raw) - 4) != ext4_le32(raw.s_checksum)):
            return set_fault(fault, FAULT_CORRUPT, SITE, 0, SUPERBLOCK_OFFSET,
                             b"the checksum of the journal device's superblock does not match")
        blocks = min(<uint64_t>ext4_le32(raw.s_blocks_count_lo), other.size // size)
        self.journal.superblock_place = SUPERBLOCK_OFFSET // size + 1
        if self.journal.prepare(size, self.geometry.block_count, fault) < 0:
            return fault.code
        if blocks <= self.journal.superblock_place:
            return set_fault(fault, FAULT_CORRUPT, SITE, 0, SUPERBLOCK_OFFSET, b"the journal's device is too short")
        if self.journal.add_run(0, blocks, fault) < 0 or self.journal.load(fault) < 0:
            return fault.code
        if self.journal.read_block(self.journal.superblock_place, &data, fault) < 0:
            return fault.code
        if jbd2_be32((<const uint32_t*>(data + USERS))[0]) != 1:
            return set_fault(fault, FAULT_CORRUPT, SITE, 0, 0, b"the journal's device serves several file systems")
        return 0

    # The recovered device.

    cdef int lay_copies(self, SpannedDevice over, fault_t* fault) noexcept nogil:
        """Adjacent blocks whose copies are adjacent as one piece. The magic number comes back where it was taken."""
        cdef uint64_t size = self.geometry.block_size, from_offset
        cdef uint32_t magic = jbd2_be32(<uint32_t>JBD2_MAGIC)
        cdef const journal_copy_t* copies = self.journal.copies
        cdef size_t i = 0, count
        cdef int rc
        while i < self.journal.copy_count:
            from_offset = self.journal.offset_of(copies[i].place)
            count = 1
            while (i + count < self.journal.copy_count and copies[i + count].block == copies[i].block + count
                   and self.journal.offset_of(copies[i + count].place) == from_offset + count * size):
                count += 1
            if self.external:
                rc = over.replace_source(copies[i].block * size, count * size, 0, from_offset, fault)
            else:
                rc = over.replace(copies[i].block * size, count * size, from_offset, fault)
            if rc < 0:
                return rc
            i += count
        for i in range(self.journal.copy_count):
            if copies[i].escaped and over.replace_bytes(copies[i].block * size, 4, <const uint8_t*>&magic, fault) < 0:
                return fault.code
        return 0

    cdef int close_superblock(self, ext4_superblock_t* closed, fault_t* fault) noexcept nogil:
        """The superblock as recovery leaves it; the geometry is by it from now on."""
        cdef ext4_geometry_t before = self.geometry
        if self.device.read(SUPERBLOCK_OFFSET, closed, sizeof(closed[0]), fault) < 0:
            return fault.code
        if decode_superblock(closed, self.device.size, TRUST_LIVE, &self.geometry, fault) < 0:
            return fault.code
        if memcmp(before.uuid, self.geometry.uuid, 16) != 0 or before.block_size != self.geometry.block_size:
            return set_fault(fault, FAULT_CORRUPT, b"replaying the journal", 0, SUPERBLOCK_OFFSET,
                             b"it holds the superblock of another file system")
        closed.s_feature_incompat &= ~ext4_le32(INCOMPAT_RECOVER)
        if self.geometry.metadata_csum:
            closed.s_checksum = ext4_le32(~crc32c_update(0, closed, sizeof(closed[0]) - 4))
        return 0

    cdef int check_unchanged(self, fault_t* fault) noexcept nogil:
        """Nothing writes to a split mirror, nor to its journal."""
        cdef ext4_superblock_t now
        cdef jbd2_superblock_t journal
        cdef uint64_t offset = self.journal.offset_of(self.journal.superblock_place)
        if (self.origin.read(SUPERBLOCK_OFFSET, &now, sizeof(now), fault) < 0
                or self.journal.device.read(offset, &journal, sizeof(journal), fault) < 0):
            return fault.code
        # The kernel writes either of them seldom, the log with every transaction.
        if (memcmp(&now, &self.superblock, sizeof(now)) != 0
                or memcmp(&journal, &self.journal.superblock, sizeof(journal)) != 0
                or (not self.journal.is_empty and self.journal.behind_end() != self.journal.behind)):
            return set_fault(fault, FAULT_STALE_MAP, b"mapping an ext4 file system", 0, SUPERBLOCK_OFFSET,
                             b"the mirror was written to while it was read")
        return 0
