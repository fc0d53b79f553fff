"""ext4_fast replays fast commits: records of what changed in files and names, behind the last whole transaction.

Source: fs/ext4/fast_commit.c, whose every rule is kept, also where it ends and where it fails. What it leaves to chance
is not imitated: the directories' times, which it sets to that of the recovery, and where new blocks stand.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from splitreel.core.checksum cimport crc32c_update, crc_differs
from splitreel.core.ext4_disk cimport (
    EXT4_EXTENTS_FL,
    EXT4_INLINE_DATA_FL,
    ext4_extent_header_t,
    ext4_inode_t,
    ext4_le16,
    ext4_le32,
)
from splitreel.core.ext4_edit cimport Editor, FileMap, cut_range, lay_range
from splitreel.core.ext4_entries cimport add_name, find_name, make_directory, remove_name
from splitreel.core.extent cimport EXTENT_UNWRITTEN
from splitreel.core.fault cimport FAULT_CORRUPT, FAULT_UNSUPPORTED, fault_t, raise_fault
from splitreel.core.jbd2 cimport Journal

cdef enum fast_tag_t:
    TAG_ADD_RANGE = 1
    TAG_DEL_RANGE = 2
    TAG_CREAT = 3
    TAG_LINK = 4
    TAG_UNLINK = 5
    TAG_INODE = 6
    TAG_PAD = 7
    TAG_TAIL = 8
    TAG_HEAD = 9

cdef enum:
    GOOD_OLD_INODE_SIZE = 128
    NAME_MAX = 255
    I_BLOCK = 0x28                                 # what stands between these two is the file's own map
    I_GENERATION = 0x64
    ROOT_ROOM = 60
    EXTENT_MAGIC = 0xF30A
    MAX_WRITTEN = 32768
    FAST_CRC = 0xFFFFFFFF                          # crc32c_update's word for a register of 0
    S_IFMT = 0o170000
    S_IFDIR = 0o040000


cdef class FastCommits:
    """Not for use from Python."""

    def __cinit__(self, Journal journal not None, Editor editor not None):
        self.journal = journal
        self.editor = editor
        self.records = []

    # What is there.

    cdef int scan(self) except -1:
        """Collects the records of whole fast commits. The first block tells whether there are any."""
        cdef uint64_t place = <uint64_t>self.journal.last + 1
        cdef const uint8_t* data = NULL
        cdef fault_t fault
        self.crc = FAST_CRC
        while place < self.journal.end:
            if self.journal.read_block(place, &data, &fault) < 0:
                raise_fault(&fault)
            if not self.records and ext4_le16((<const ext4_fc_tl_t*>data).fc_tag) != TAG_HEAD:
                return 0
            if not self.scan_block(data):
                break
            place += 1
        del self.records[self.whole :]
        return 0

    cdef bint end_here(self, const char* text) except -1:
        """Behind a whole fast commit the next one may be torn; without one the kernel takes it for damage."""
        if self.count == 0:
            self.editor.fail(FAULT_CORRUPT, 0, text)
        return False

    cdef bint fits(self, uint16_t tag, uint32_t size) noexcept nogil:
        if tag == TAG_ADD_RANGE:
            return size == sizeof(ext4_fc_add_range_t)
        if tag == TAG_DEL_RANGE:
            return size == sizeof(ext4_fc_del_range_t)
        if tag == TAG_CREAT or tag == TAG_LINK or tag == TAG_UNLINK:
            return sizeof(ext4_fc_dentry_info_t) < size <= sizeof(ext4_fc_dentry_info_t) + NAME_MAX
        if tag == TAG_INODE:
            return (size >= sizeof(ext4_fc_inode_t) + GOOD_OLD_INODE_SIZE
                    and size <= sizeof(ext4_fc_inode_t) + self.editor.geometry.inode_size)
        if tag == TAG_TAIL:
            return size >= sizeof(ext4_fc_tail_t)
        return tag == TAG_PAD or (tag == TAG_HEAD and size == sizeof(ext4_fc_head_t))

    cdef bint scan_block(self, const uint8_t* data) except -1:
        """False where the fast commits end."""
        cdef uint32_t room = self.journal.block_size, at = 0, size
        cdef const ext4_fc_tl_t* head
        while at + sizeof(ext4_fc_tl_t) <= room:
            head = <const ext4_fc_tl_t*>(data + at)
            size = ext4_le16(head.fc_len)
            if size > room - at - sizeof(ext4_fc_tl_t) or not self.fits(ext4_le16(head.fc_tag), size):
                return self.end_here(b"its first fast commit is torn or damaged: run e2fsck on a copy")
            if not self.scan_record(data + at, ext4_le16(head.fc_tag), size):
                return False
            at += sizeof(ext4_fc_tl_t) + size
        return True

    cdef bint scan_record(self, const uint8_t* record, uint16_t tag, uint32_t size) except -1:
        cdef const uint8_t* value = record + sizeof(ext4_fc_tl_t)
        if tag == TAG_HEAD and not self.scan_head(<const ext4_fc_head_t*>value):
            return False
        self.records.append((tag, value[:size]))
        if tag == TAG_TAIL:
            self.crc = crc32c_update(self.crc, record, sizeof(ext4_fc_tl_t) + 4)
            return self.scan_tail(<const ext4_fc_tail_t*>value)
        self.crc = crc32c_update(self.crc, record, sizeof(ext4_fc_tl_t) + size)
        return True

    cdef bint scan_head(self, const ext4_fc_head_t* head) except -1:
        if head.fc_features != 0:
            self.editor.fail(FAULT_UNSUPPORTED, 0, b"fast commits with features that are not known")
        return ext4_le32(head.fc_tid) == self.journal.end_sequence

    cdef bint scan_tail(self, const ext4_fc_tail_t* tail) except -1:
        if ext4_le32(tail.fc_tid) != self.journal.end_sequence or crc_differs(ext4_le32(tail.fc_crc), ~self.crc):
            return self.end_here(b"its first fast commit is torn or damaged: run e2fsck on a copy")
        self.count += 1
        self.whole = len(self.records)
        self.crc = FAST_CRC
        return True

    # What it does.

    cdef int apply(self) except -1:
        cdef const ext4_fc_add_range_t* added
        for tag, value in self.records:
            if tag == TAG_ADD_RANGE:               # their blocks may be free by the bitmaps, but are not for others
                added = <const ext4_fc_add_range_t*><const char*>value
                self.editor.excluded.append((first_block(added), block_count(added)))
        for tag, value in self.records:
            self.apply_record(tag, value)
        return 0

    cdef int apply_record(self, uint16_t tag, bytes value) except -1:
        cdef const char* raw = value
        cdef const ext4_fc_dentry_info_t* entry = <const ext4_fc_dentry_info_t*>raw
        if tag == TAG_ADD_RANGE:
            return self.add_range(<const ext4_fc_add_range_t*>raw)
        if tag == TAG_DEL_RANGE:
            return self.del_range(<const ext4_fc_del_range_t*>raw)
        if tag == TAG_INODE:
            return self.write_inode(<const ext4_fc_inode_t*>raw, <uint32_t>(len(value) - sizeof(ext4_fc_inode_t)))
        if tag == TAG_CREAT:
            return self.create(ext4_le32(entry.fc_parent_ino), ext4_le32(entry.fc_ino), value[8:])
        if tag == TAG_LINK and self.editor.is_file(ext4_le32(entry.fc_ino)):
            return self.link(ext4_le32(entry.fc_parent_ino), ext4_le32(entry.fc_ino), value[8:])
        if tag == TAG_UNLINK and self.editor.is_file(ext4_le32(entry.fc_ino)):
            return self.unlink(ext4_le32(entry.fc_parent_ino), ext4_le32(entry.fc_ino), value[8:])
        return 0

    cdef int add_range(self, const ext4_fc_add_range_t* value) except -1:
        cdef uint32_t number = ext4_le32(value.fc_ino), count = block_count(value)
        cdef uint64_t physical = first_block(value), logical = ext4_le32(value.fc_ex.ee_block)
        cdef uint32_t flags = EXTENT_UNWRITTEN if ext4_le16(value.fc_ex.ee_len) > MAX_WRITTEN else 0
        cdef FileMap map
        cdef fault_t fault
        if not self.editor.is_file(number):
            return 0
        if (count == 0 or physical <= self.editor.geometry.first_data_block or logical + count > 0xFFFFFFFF
                or physical + count > self.editor.geometry.block_count):
            self.editor.fail(FAULT_CORRUPT, number, b"a fast commit maps blocks outside the file system")
        map = self.editor.map_of(number)
        map.changed = True
        if lay_range(&map.extents, logical, physical, count, flags, &fault) < 0:
            raise_fault(&fault)
        return 0

    cdef int del_range(self, const ext4_fc_del_range_t* value) except -1:
        cdef uint32_t number = ext4_le32(value.fc_ino)
        cdef uint64_t first = ext4_le32(value.fc_lblk)
        cdef FileMap map
        cdef fault_t fault
        if not self.editor.is_file(number):
            return 0
        map = self.editor.map_of(number)
        map.changed = True
        if cut_range(&map.extents, first, first + ext4_le32(value.fc_len), &fault) < 0:
            raise_fault(&fault)
        return 0

    cdef int write_inode(self, const ext4_fc_inode_t* value, uint32_t size) except -1:
        """All but its map, which the ranges bring; a map that was none becomes an empty tree."""
        cdef uint32_t number = ext4_le32(value.fc_ino)
        cdef ext4_inode_t* inode
        if number < 2 or number > self.editor.geometry.inode_count:
            return 0
        inode = self.editor.inode(number)
        memcpy(inode, value.fc_raw_inode, I_BLOCK)
        memcpy(<uint8_t*>inode + I_GENERATION, value.fc_raw_inode + I_GENERATION, size - I_GENERATION)
        if ext4_le32(inode.i_flags) & EXT4_EXTENTS_FL:
            if ext4_le16((<ext4_extent_header_t*>inode.i_block).eh_magic) != EXTENT_MAGIC:
                self.editor.forget_map(number)
        elif ext4_le32(inode.i_flags) & EXT4_INLINE_DATA_FL:
            memcpy(inode.i_block, value.fc_raw_inode + I_BLOCK, ROOT_ROOM)
        self.editor.mark_used(number)
        if not self.editor.is_file(number):
            self.editor.fail(FAULT_CORRUPT, number, b"a fast commit writes an inode that is no file")
        return self.editor.seal_inode(number)

    cdef int create(self, uint32_t parent, uint32_t number, bytes name) except -1:
        """The inode came before. A directory gets its first block now: of directories no ranges are recorded."""
        if number == 0 or number > self.editor.geometry.inode_count or not self.editor.is_file(number):
            self.editor.fail(FAULT_CORRUPT, number, b"a fast commit gives a name to no file")
        self.editor.mark_used(number)
        if self.is_directory(number):
            if not self.editor.is_file(parent) or not make_directory(self.editor, number, parent):
                return 0
        self.link(parent, number, name)
        return self.set_links(number, 1)

    cdef int link(self, uint32_t parent, uint32_t number, bytes name) except -1:
        if not self.editor.is_file(parent):
            return 0
        if not self.is_directory(parent):
            self.editor.fail(FAULT_CORRUPT, parent, b"a fast commit adds a name to a file that is no directory")
        if find_name(self.editor, parent, name) != 0:
            return 0
        add_name(self.editor, parent, name, number)
        return self.set_links(number, ext4_le16(self.editor.inode(number).i_links_count) + 1)

    cdef int unlink(self, uint32_t parent, uint32_t number, bytes name) except -1:
        """A name that stands for another file by now stays. The last link takes the file's blocks with it."""
        cdef uint32_t found
        if not self.editor.is_file(parent) or not self.is_directory(parent):
            return 0
        found = find_name(self.editor, parent, name)
        if found == 0:
            return 0
        if found == number:
            remove_name(self.editor, parent, name)
        self.set_links(number, ext4_le16(self.editor.inode(number).i_links_count) - 1)
        if self.editor.inode(number).i_links_count == 0:
            self.editor.forget_map(number)
            self.editor.seal_inode(number)
        return 0

    cdef bint is_directory(self, uint32_t number) except -1:
        return ext4_le16(self.editor.look_at(number).i_mode) & S_IFMT == S_IFDIR

    cdef int set_links(self, uint32_t number, uint32_t count) except -1:
        self.editor.inode(number).i_links_count = ext4_le16(<uint16_t>count)
        return self.editor.seal_inode(number)


cdef uint64_t first_block(const ext4_fc_add_range_t* value) noexcept nogil:
    return ext4_le32(value.fc_ex.ee_start_lo) | <uint64_t>ext4_le16(value.fc_ex.ee_start_hi) << 32


cdef uint32_t block_count(const ext4_fc_add_range_t* value) noexcept nogil:
    cdef uint32_t size = ext4_le16(value.fc_ex.ee_len)
    return size - MAX_WRITTEN if size > MAX_WRITTEN else size
