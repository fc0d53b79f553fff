"""ext4_edit changes an ext4 file system in memory: inodes, their maps, group descriptors. It writes to no device.

What recovery does besides copying blocks is done with it: fast commits, truncations that a crash cut short. New blocks
are taken from those that the block bitmaps call free, as the kernel does. Source: Linux
Documentation/filesystems/ext4, "Extent Tree", "Block and Inode Bitmaps", "Checksums".
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from splitreel.core.checksum cimport crc32c_update
from splitreel.core.ext4_disk cimport (
    BG_INODE_UNINIT,
    EXT4_EXTENTS_FL,
    EXT4_ROOT_INO,
    ext4_extent_header_t,
    ext4_group_desc_t,
    ext4_inode_t,
    ext4_le16,
    ext4_le32,
)
from splitreel.core.ext4_groups cimport decode_verified_group, ext4_group_t, group_checksum
from splitreel.core.ext4_inode cimport inode_seed, known_type
from splitreel.core.ext4_lookup cimport descriptor_offset, find_inode, free_extents, list_extents
from splitreel.core.extent cimport EXTENT_UNWRITTEN, extent_t
from splitreel.core.fault cimport FAULT_CORRUPT, FAULT_NEEDS_RECOVERY, fault_t, raise_fault, set_fault
from splitreel.core.sweep cimport grow_array

cdef enum:
    GOOD_OLD_SIZE = 128
    CHECKSUM_LO = 0x7C                             # offsets of the checksum's halves in an inode
    CHECKSUM_HI = 0x82
    BG_BLOCK_UNINIT = 2
    EXTENT_MAGIC = 0xF30A
    RECORD = 12                                    # bytes of a header, an index and an extent alike
    ROOT_RECORDS = 4
    ROOT_ROOM = 60
    MAX_WRITTEN = 32768                            # exactly this length is written; above, unwritten of length - 32768
    MAX_UNWRITTEN = 32767
    MOST_READ = 1 << 14                            # blocks kept that were only read

cdef const char* SITE = b"replaying the journal"


# Maps.

cdef size_t first_behind(const extent_list_t* list, uint64_t logical) noexcept nogil:
    """The first extent that ends behind a block."""
    cdef size_t low = 0, high = list.count, middle
    while low < high:
        middle = (low + high) // 2
        if list.items[middle].logical + list.items[middle].count <= logical:
            low = middle + 1
        else:
            high = middle
    return low


cdef int insert_run(extent_list_t* list, size_t at, uint64_t logical, uint64_t physical, uint32_t count, uint32_t flags,
                    fault_t* fault) noexcept nogil:
    if grow_array(<void**>&list.items, &list.capacity, list.count, sizeof(extent_t), fault) < 0:
        return fault.code
    memmove(&list.items[at + 1], &list.items[at], (list.count - at) * sizeof(extent_t))
    list.items[at].logical = logical
    list.items[at].physical = physical
    list.items[at].count = count
    list.items[at].flags = flags
    list.count += 1
    return 0


cdef int cut_range(extent_list_t* list, uint64_t first, uint64_t end, fault_t* fault) noexcept nogil:
    cdef size_t at = first_behind(list, first), behind
    cdef extent_t* item
    cdef extent_t whole
    if at < list.count and list.items[at].logical < first:
        item = &list.items[at]
        whole = item[0]
        item.count = <uint32_t>(first - whole.logical)
        at += 1
        if whole.logical + whole.count > end:
            return insert_run(list, at, end, whole.physical + (end - whole.logical),
                              <uint32_t>(whole.logical + whole.count - end), whole.flags, fault)
    behind = at
    while behind < list.count and list.items[behind].logical + list.items[behind].count <= end:
        behind += 1
    if behind > at:                                # a list that never held anything has no items to be moved
        memmove(&list.items[at], &list.items[behind], (list.count - behind) * sizeof(extent_t))
        list.count -= behind - at
    if at < list.count and list.items[at].logical < end:
        item = &list.items[at]
        item.physical += end - item.logical
        item.count -= <uint32_t>(end - item.logical)
        item.logical = end
    return 0


cdef int lay_range(extent_list_t* list, uint64_t logical, uint64_t physical, uint32_t count, uint32_t flags,
                   fault_t* fault) noexcept nogil:
    cdef size_t at
    cdef extent_t* before
    if cut_range(list, logical, logical + count, fault) < 0:
        return fault.code
    at = first_behind(list, logical)
    if at > 0:
        before = &list.items[at - 1]
        if (before.logical + before.count == logical and before.physical + before.count == physical
                and before.flags == flags):
            before.count += count
            return 0
    return insert_run(list, at, logical, physical, count, flags, fault)


cdef class FileMap:
    """What one file maps, while it is edited. Not for use from Python."""

    def __dealloc__(self):
        free_extents(&self.extents)
        free_extents(&self.nodes)

    cdef uint64_t place(self, uint64_t logical) noexcept nogil:
        cdef size_t at = first_behind(&self.extents, logical)
        if at == self.extents.count or self.extents.items[at].logical > logical:
            return 0
        return self.extents.items[at].physical + (logical - self.extents.items[at].logical)


cdef bytes extent_records(const extent_list_t* list):
    """As they stand in leaves: none longer than its length field can say."""
    cdef bytearray made = bytearray()
    cdef uint32_t most, part
    cdef uint64_t done
    cdef size_t i
    for i in range(list.count):
        item = list.items[i]
        most = MAX_UNWRITTEN if item.flags & EXTENT_UNWRITTEN else MAX_WRITTEN
        done = 0
        while done < item.count:
            part = <uint32_t>min(most, item.count - done)
            made += (<uint32_t>(item.logical + done)).to_bytes(4, "little")
            made += (part + (MAX_WRITTEN if item.flags & EXTENT_UNWRITTEN else 0)).to_bytes(2, "little")
            made += ((item.physical + done) >> 32).to_bytes(2, "little")
            made += ((item.physical + done) & 0xFFFFFFFF).to_bytes(4, "little")
            done += part
    return bytes(made)


cdef class Editor:
    """Edits what ``device`` holds. Not for use from Python."""

    def __cinit__(self, BlockDevice device not None):
        self.device = device
        self.blocks = {}
        self.changed = set()
        self.maps = {}
        self.excluded = []

    cdef int fail(self, int code, uint32_t number, const char* text) except -1:
        cdef fault_t fault
        set_fault(&fault, code, SITE, number, 0, text)
        raise_fault(&fault)

    # Blocks.

    cdef const uint8_t* look(self, uint64_t block) except NULL:
        cdef uint32_t size = self.geometry.block_size
        cdef bytearray data
        cdef fault_t fault
        if block >= self.geometry.block_count:
            self.fail(FAULT_CORRUPT, 0, b"a block outside the file system is referred to")
        data = self.blocks.get(block)
        if data is None:
            if len(self.blocks) - len(self.changed) >= MOST_READ:
                self.blocks = {number: self.blocks[number] for number in self.changed}
            data = PyByteArray_FromStringAndSize(NULL, size)
            if self.device.read(block * size, PyByteArray_AS_STRING(data), size, &fault) < 0:
                raise_fault(&fault)
            self.blocks[block] = data
        return <const uint8_t*>PyByteArray_AS_STRING(data)

    cdef uint8_t* edit(self, uint64_t block) except NULL:
        cdef const uint8_t* data = self.look(block)
        self.changed.add(block)
        return <uint8_t*>data

    cdef int flush(self, SpannedDevice over) except -1:
        """Writes all maps back into inodes and nodes, then lays every changed block over the device."""
        cdef uint32_t size = self.geometry.block_size
        cdef fault_t fault
        for number, map in self.maps.items():
            if (<FileMap>map).changed:
                self.write_map(number, map)
        for block in sorted(self.changed):
            if over.replace_bytes(<uint64_t>block * size, size, self.look(block), &fault) < 0:
                raise_fault(&fault)
        return 0

    # Inodes and group descriptors.

    cdef uint64_t place(self, uint32_t number) except? 0:
        """Offset of an inode on the device."""
        cdef uint64_t offset = 0
        cdef fault_t fault
        if find_inode(self.device, &self.geometry, number, &offset, &fault) < 0:
            raise_fault(&fault)
        return offset

    cdef const ext4_inode_t* look_at(self, uint32_t number) except NULL:
        cdef uint64_t offset = self.place(number)
        return <const ext4_inode_t*>(self.look(offset // self.geometry.block_size) + offset % self.geometry.block_size)

    cdef ext4_inode_t* inode(self, uint32_t number) except NULL:
        cdef uint64_t offset = self.place(number)
        return <ext4_inode_t*>(self.edit(offset // self.geometry.block_size) + offset % self.geometry.block_size)

    cdef int seal_inode(self, uint32_t number) except -1:
        cdef ext4_inode_t* inode = self.inode(number)
        cdef uint8_t* raw = <uint8_t*>inode
        cdef bint wide = self.geometry.inode_size > GOOD_OLD_SIZE and ext4_le16(inode.i_extra_isize) >= 4
        cdef uint32_t crc
        if not self.geometry.metadata_csum:
            return 0
        memset(raw + CHECKSUM_LO, 0, 2)
        if wide:
            memset(raw + CHECKSUM_HI, 0, 2)
        crc = inode_seed(&self.geometry, number, ext4_le32(inode.i_generation))
        crc = ~crc32c_update(crc, raw, self.geometry.inode_size)
        inode.i_checksum_lo = ext4_le16(<uint16_t>(crc & 0xFFFF))
        if wide:
            inode.i_checksum_hi = ext4_le16(<uint16_t>(crc >> 16))
        return 0

    cdef bint is_file(self, uint32_t number) except -1:
        cdef const ext4_inode_t* inode
        if number > self.geometry.inode_count or (number < self.geometry.first_ino and number != EXT4_ROOT_INO):
            return False
        inode = self.look_at(number)
        return inode.i_links_count != 0 and known_type(ext4_le16(inode.i_mode))

    cdef uint8_t* descriptor(self, uint64_t group) except NULL:
        cdef uint64_t offset = descriptor_offset(&self.geometry, group)
        return self.edit(offset // self.geometry.block_size) + offset % self.geometry.block_size

    cdef int mark_used(self, uint32_t number) except -1:
        cdef uint64_t group = (number - 1) // self.geometry.inodes_per_group
        cdef uint32_t left = self.geometry.inodes_per_group - (number - 1) % self.geometry.inodes_per_group - 1
        cdef ext4_group_desc_t* desc
        cdef ext4_group_t decoded
        cdef fault_t fault
        desc = <ext4_group_desc_t*>self.descriptor(group)
        if decode_verified_group(&self.geometry, group, <uint8_t*>desc, &decoded, &fault) < 0:
            raise_fault(&fault)
        if self.geometry.inodes_per_group - decoded.used_inodes <= left:
            return 0
        desc.bg_flags &= ~ext4_le16(BG_INODE_UNINIT)
        desc.bg_itable_unused_lo = ext4_le16(<uint16_t>(left & 0xFFFF))
        if self.geometry.desc_size >= 64:
            desc.bg_itable_unused_hi = ext4_le16(<uint16_t>(left >> 16))
        desc.bg_checksum = ext4_le16(group_checksum(&self.geometry, <uint32_t>group, <const uint8_t*>desc))
        return 0

    # Free blocks.

    cdef bint is_excluded(self, uint64_t block) except -1:
        for first, count in self.excluded:
            if first <= block < first + count:
                return True
        return False

    cdef uint64_t free_block(self, uint64_t group) except? 0:
        """A free block of a group from next_bit on; 0: none is left."""
        cdef uint32_t ratio = self.geometry.cluster_size // self.geometry.block_size
        cdef uint64_t bits = self.geometry.blocks_per_group // ratio, block
        cdef const uint8_t* bitmap
        cdef ext4_group_t decoded
        cdef fault_t fault
        cdef const ext4_group_desc_t* desc = <const ext4_group_desc_t*>self.descriptor(group)
        if ext4_le16(desc.bg_flags) & BG_BLOCK_UNINIT and (self.geometry.metadata_csum or self.geometry.gdt_csum):
            return 0                               # its bitmap was never written
        if decode_verified_group(&self.geometry, group, <const uint8_t*>desc, &decoded, &fault) < 0:
            raise_fault(&fault)
        while self.next_bit < bits:
            block = self.geometry.first_data_block + group * self.geometry.blocks_per_group + self.next_bit * ratio
            bitmap = self.look(decoded.block_bitmap)
            self.next_bit += 1
            if (not bitmap[(self.next_bit - 1) // 8] >> ((self.next_bit - 1) % 8) & 1
                    and block + ratio <= self.geometry.block_count and not self.is_excluded(block)):
                return block
        return 0

    cdef uint64_t allocate(self) except 0:
        cdef uint64_t block
        while self.next_group < self.geometry.group_count:
            block = self.free_block(self.next_group)
            if block != 0:
                memset(self.edit(block), 0, self.geometry.block_size)
                return block
            self.next_group += 1
            self.next_bit = 0
        self.fail(FAULT_NEEDS_RECOVERY, 0, b"no block is free for what its fast commits add: run e2fsck on a copy")

    # Maps.

    cdef FileMap map_of(self, uint32_t number):
        cdef FileMap map = self.maps.get(number)
        cdef const ext4_inode_t* inode
        cdef fault_t fault
        if map is None:
            inode = self.inode(number)
            map = FileMap.__new__(FileMap)
            if ext4_le32(inode.i_flags) & EXT4_EXTENTS_FL == 0:
                self.fail(FAULT_NEEDS_RECOVERY, number,
                          b"a fast commit of a file without extents: run e2fsck on a copy")
            if list_extents(self.device, &self.geometry, number, <const uint8_t*>inode, &map.extents, &map.nodes,
                            &fault) < 0:
                raise_fault(&fault)
            self.maps[number] = map
        return map

    cdef int forget_map(self, uint32_t number) except -1:
        cdef ext4_inode_t* inode = self.inode(number)
        cdef ext4_extent_header_t* root = <ext4_extent_header_t*>inode.i_block
        memset(inode.i_block, 0, ROOT_ROOM)
        if ext4_le32(inode.i_flags) & EXT4_EXTENTS_FL:
            root.eh_magic = ext4_le16(EXTENT_MAGIC)
            root.eh_max = ext4_le16(ROOT_RECORDS)
        self.maps.pop(number, None)
        return 0

    cdef int write_map(self, uint32_t number, FileMap map) except -1:
        """A new tree: four records in the inode, or levels of nodes above full leaves until four are enough."""
        cdef ext4_inode_t* inode = self.inode(number)
        cdef ext4_extent_header_t* root = <ext4_extent_header_t*>inode.i_block
        cdef uint32_t seed = inode_seed(&self.geometry, number, ext4_le32(inode.i_generation)), depth = 0
        cdef bytes records = extent_records(&map.extents)
        while len(records) > ROOT_RECORDS * RECORD:
            records = self.write_level(map, records, depth, seed)
            depth += 1
        memset(inode.i_block, 0, ROOT_ROOM)
        root.eh_magic = ext4_le16(EXTENT_MAGIC)
        root.eh_entries = ext4_le16(<uint16_t>(len(records) // RECORD))
        root.eh_max = ext4_le16(ROOT_RECORDS)
        root.eh_depth = ext4_le16(<uint16_t>depth)
        memcpy(<uint8_t*>inode.i_block + RECORD, <const char*>records, len(records))
        return self.seal_inode(number)

    cdef bytes write_level(self, FileMap map, bytes records, uint32_t depth, uint32_t seed):
        """Puts records into nodes; the index entries of these nodes."""
        cdef uint32_t most = (self.geometry.block_size - RECORD) // RECORD, crc
        cdef ext4_extent_header_t* header
        cdef bytearray index = bytearray()
        cdef uint8_t* node
        cdef uint64_t block
        for at in range(0, len(records), most * RECORD):
            part = records[at : at + most * RECORD]
            if map.nodes.count > 0:
                map.nodes.count -= 1
                block = map.nodes.items[map.nodes.count].physical
            else:
                block = self.allocate()
            node = self.edit(block)
            memset(node, 0, self.geometry.block_size)
            header = <ext4_extent_header_t*>node
            header.eh_magic = ext4_le16(EXTENT_MAGIC)
            header.eh_entries = ext4_le16(<uint16_t>(len(part) // RECORD))
            header.eh_max = ext4_le16(<uint16_t>most)
            header.eh_depth = ext4_le16(<uint16_t>depth)
            memcpy(node + RECORD, <const char*>part, len(part))
            if self.geometry.metadata_csum:
                crc = ext4_le32(~crc32c_update(seed, node, (most + 1) * RECORD))
                memcpy(node + (most + 1) * RECORD, &crc, 4)
            index += part[:4] + (block & 0xFFFFFFFF).to_bytes(4, "little") + (block >> 32).to_bytes(4, "little")
        return bytes(index)
