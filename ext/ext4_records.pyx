"""ext4_records builds the heap records of inodes: symlink targets, inline data, extended attributes. It maps nothing.

Source: Linux Documentation/filesystems/ext4, "Inline Data", "Symbolic Links"; fs/ext4/inline.c. What stands in the
inode is written at once. What needs a block waits, so that all of these are read in one sweep in disk order.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memset

from splitreel.core.columns cimport reserve
from splitreel.core.ext4_disk cimport ext4_digest, ext4_inode_t
from splitreel.core.ext4_groups cimport verify_place
from splitreel.core.ext4_inode cimport (
    LAYOUT_EXTENTS,
    LAYOUT_FAST_SYMLINK,
    LAYOUT_INLINE,
    inode_area_t,
    inode_xattr_block,
    inode_xattrs,
)
from splitreel.core.ext4_superblock cimport ext4_geometry_t
from splitreel.core.ext4_values cimport ValueReader
from splitreel.core.ext4_xattr cimport XattrDecoder, find_inline_data
from splitreel.core.extent cimport (
    EXTENT_INLINE, EXTENT_UNWRITTEN, FILE_DAMAGED, FILE_INLINE, ExtentMap, extent_t, file_t,
)
from splitreel.core.fault cimport FAULT_IO, FAULT_NO_MEMORY, fault_t, set_fault
from splitreel.core.sweep cimport append_block, block_ref_t, free_blocks, grow_array, sort_blocks

cdef enum:
    ROOT_ROOM = 60                                 # bytes of i_block
    LONGEST_TARGET = 4095                          # PATH_MAX - 1
    PARENT = 4                                     # bytes before the entries of an inline directory: its parent's inode
    SMALLEST_ROOM = 4096                           # inline data are never larger than a page or a block
    S_IFMT = 0o170000
    S_IFDIR = 0o040000
    S_IFREG = 0o100000
    S_IFLNK = 0o120000

cdef uint64_t MAX_ARENA = <uint64_t>1 << 40        # no bound of its own: it holds what inodes and targets hold


cdef bint are_zeros(const uint8_t* data, uint32_t size) noexcept nogil:
    cdef uint32_t i
    for i in range(size):
        if data[i] != 0:
            return False
    return True


cdef class RecordPass:
    """The heap records of one file system. One map at a time, one thread at a time; no Python face."""

    def __cinit__(self):
        self.xattrs = XattrDecoder()
        self.values = ValueReader()
        self.values.xattrs = self.xattrs

    def __dealloc__(self):
        self.reset()
        free(self.room)

    cdef int prepare(self, const ext4_geometry_t* geometry, fault_t* fault) noexcept nogil:
        free(self.room)
        self.geometry = self.xattrs.geometry = self.values.geometry = geometry
        self.room_size = max(geometry.block_size, <uint32_t>SMALLEST_ROOM)
        # i_block and a value that fits the inode; the size in the inode may ask for more zeros behind them.
        self.room = <uint8_t*>malloc(<size_t>self.room_size + ROOT_ROOM)
        if self.room == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"opening an ext4 file system", 0, 0, NULL)
        return 0

    cdef void reset(self) noexcept nogil:
        free_blocks(&self.blocks)
        free(self.pending)
        free(self.arena)
        self.pending = NULL
        self.arena = NULL
        self.arena_size = self.arena_capacity = 0
        self.pending_count = self.pending_capacity = 0
        self.values.reset()
        self.xattrs.reset(self.geometry.block_count * self.geometry.block_size if self.geometry != NULL else 0)

    cdef void damaged(self, ExtentMap target, uint32_t file, uint64_t offset, const char* text) noexcept nogil:
        target.files[file].flags |= FILE_DAMAGED
        target.append_problem(target.files[file].inode, offset, text)

    # What stands in the inode.

    cdef int add_inode(self, ExtentMap target, const uint8_t* raw, int layout, uint64_t block,
                       fault_t* fault) noexcept nogil:
        cdef const ext4_inode_t* inode = <const ext4_inode_t*>raw
        cdef file_t* file = &target.files[target.file_count - 1]
        cdef inode_area_t area = inode_xattrs(self.geometry, raw)
        cdef const uint8_t* bytes = <const uint8_t*>&inode.i_block[0]
        cdef const char* text
        cdef pending_t item
        memset(&item, 0, sizeof(item))
        item.file = <uint32_t>(target.file_count - 1)
        item.area_size = area.size
        item.xattr_block = inode_xattr_block(self.geometry, inode)
        item.slow_symlink = layout >= LAYOUT_EXTENTS and file.mode & S_IFMT == S_IFLNK
        text = verify_place(self.geometry, item.xattr_block, 1,
                            b"its extended attribute block lies outside the file system",
                            b"its extended attribute block lies in the file system's own metadata")
        if item.xattr_block != 0 and text != NULL:
            target.append_problem(file.inode, 0, text)
            item.xattr_block = 0
        if layout == LAYOUT_FAST_SYMLINK and inode.i_block[file.size] != 0:
            self.damaged(target, item.file, 0, b"a symlink whose target is longer than its size")
        elif layout == LAYOUT_FAST_SYMLINK:
            item.target_size = <uint32_t>file.size
        elif layout == LAYOUT_INLINE:
            bytes = self.room
            if self.add_inline(target, inode, &area, block, &item.target_size, fault) < 0:
                return fault.code
            if file.flags & FILE_DAMAGED:
                item.area_size = 0                 # what is wrong with it has been said
        if item.xattr_block != 0 or item.slow_symlink:
            return self.defer(&item, bytes, area.bytes, fault)
        if area.size == 0 and item.target_size == 0:
            return 0
        return self.write(target, &item, bytes, area.bytes, NULL, fault)

    cdef int add_inline(self, ExtentMap target, const ext4_inode_t* inode, const inode_area_t* area, uint64_t block,
                        uint32_t* size, fault_t* fault) noexcept nogil:
        """Gathers i_block and the value behind it in self.room; *size of what belongs into the record."""
        cdef uint32_t index = <uint32_t>(target.file_count - 1)
        cdef file_t* file = &target.files[index]
        cdef const uint8_t* value
        cdef uint32_t value_size
        cdef const char* text = find_inline_data(area.bytes, area.size, &value, &value_size)
        if text == NULL and value == NULL:
            if file.mode & S_IFMT == S_IFREG and file.size == 0:
                return 0
            text = b"inline data without the attribute that holds the rest of them"
        if text == NULL and file.mode & S_IFMT != S_IFDIR and file.size > self.room_size:
            # mke2fs -d marks a file that is one hole so, however long; the kernel reads zeros behind the inline data.
            if (file.mode & S_IFMT == S_IFREG and are_zeros(<const uint8_t*>&inode.i_block[0], ROOT_ROOM)
                    and are_zeros(value, value_size)):
                return 0
            text = b"inline data larger than a block"
        if text != NULL:
            self.damaged(target, index, 0, text)
            return 0
        memset(self.room, 0, self.room_size + ROOT_ROOM)
        memcpy(self.room, inode.i_block, ROOT_ROOM)
        memcpy(self.room + ROOT_ROOM, value, value_size)
        if file.mode & S_IFMT == S_IFDIR:
            return self.directories.keep_local(index, self.room + PARENT, ROOT_ROOM - PARENT + value_size, fault)
        size[0] = <uint32_t>file.size
        if file.mode & S_IFMT == S_IFREG:
            file.flags |= FILE_INLINE
            return target.append_extent(0, block, 1, EXTENT_INLINE, fault)
        return 0

    # What waits for a block.

    cdef int keep_bytes(self, const uint8_t* data, uint32_t size, uint64_t* offset, fault_t* fault) noexcept nogil:
        if reserve(<void**>&self.arena, &self.arena_capacity, self.arena_size + size, MAX_ARENA, 1, fault) < 0:
            return fault.code
        memcpy(self.arena + self.arena_size, data, size)
        offset[0] = self.arena_size
        self.arena_size += size
        return 0

    cdef int defer(self, const pending_t* item, const uint8_t* target, const uint8_t* area,
                   fault_t* fault) noexcept nogil:
        cdef pending_t* kept
        if grow_array(<void**>&self.pending, &self.pending_capacity, self.pending_count, sizeof(pending_t), fault) < 0:
            return fault.code
        kept = &self.pending[self.pending_count]
        kept[0] = item[0]
        if item.area_size > 0 and self.keep_bytes(area, item.area_size, &kept.area, fault) < 0:
            return fault.code
        if item.target_size > 0 and self.keep_bytes(target, item.target_size, &kept.target, fault) < 0:
            return fault.code
        self.pending_count += 1
        return 0

    cdef bint has_target_block(self, ExtentMap target, const file_t* file) noexcept nogil:
        cdef const extent_t* extent = &target.extents[file.first_extent]
        return (file.extent_count > 0 and extent.logical == 0 and not extent.flags & EXTENT_UNWRITTEN
                and (file.size < self.geometry.block_size or self.geometry.block_size > <uint32_t>LONGEST_TARGET))

    cdef int list_blocks(self, ExtentMap target, bint targets, fault_t* fault) noexcept nogil:
        """Blocks of slow symlinks' targets, or of extended attributes; owner is the index into pending."""
        cdef pending_t* item
        cdef const file_t* file
        cdef size_t i
        cdef int rc
        self.blocks.count = 0
        for i in range(self.pending_count):
            item = &self.pending[i]
            file = &target.files[item.file]
            rc = 0
            if not targets:
                if item.xattr_block != 0:
                    rc = append_block(&self.blocks, item.xattr_block, 1, <uint32_t>i, 0, 0, fault)
            elif item.slow_symlink and self.has_target_block(target, file):
                rc = append_block(&self.blocks, target.extents[file.first_extent].physical, 1, <uint32_t>i, 0, 0, fault)
            elif item.slow_symlink:
                if not file.flags & FILE_DAMAGED:
                    self.damaged(target, item.file, 0, b"a symlink whose target is not in its first block")
                if item.xattr_block == 0:
                    rc = self.write(target, item, NULL, self.arena + item.area, NULL, fault)
            if rc < 0:
                return rc
        sort_blocks(&self.blocks)
        return 0

    cdef int sweep_blocks(self, ExtentMap target, bint targets, fault_t* fault) noexcept nogil:
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef int rc
        if self.list_blocks(target, targets, fault) < 0:
            return fault.code
        self.sweep.start(&self.blocks)
        while True:
            rc = self.sweep.next(&ref, &data, fault)
            if rc == 0:
                return 0
            if rc < 0 and rc != FAULT_IO:
                return rc
            if rc == FAULT_IO:
                data = NULL
            rc = self.take_target(target, ref, data, fault) if targets else self.take_xattrs(target, ref, data, fault)
            if rc < 0:
                return rc

    cdef int take_target(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil:
        cdef pending_t* item = &self.pending[ref.owner]
        cdef file_t* file = &target.files[item.file]
        if data == NULL:
            self.damaged(target, item.file, ref.block * self.geometry.block_size, b"its target does not read")
        else:
            file.fingerprint += ext4_digest(0, data, self.geometry.block_size)
            item.target_size = <uint32_t>min(file.size, <uint64_t>LONGEST_TARGET)
            if file.size > <uint64_t>LONGEST_TARGET:
                target.append_problem(file.inode, 0, b"a symlink longer than any path: cut off, as the kernel does")
            if item.xattr_block != 0:
                return self.keep_bytes(data, item.target_size, &item.target, fault)
        if item.xattr_block != 0:
            return 0
        return self.write(target, item, data, self.arena + item.area, NULL, fault)

    cdef int take_xattrs(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil:
        """Files that share a block come one after the other."""
        cdef const pending_t* item = &self.pending[ref.owner]
        if data == NULL:
            target.append_problem(target.files[item.file].inode, ref.block * self.geometry.block_size,
                                  b"its extended attribute block does not read")
        return self.write(target, item, self.arena + item.target, self.arena + item.area, data, fault)

    cdef int read_blocks(self, ExtentMap target, fault_t* fault) noexcept nogil:
        if self.sweep_blocks(target, True, fault) < 0 or self.sweep_blocks(target, False, fault) < 0:
            return fault.code
        return self.values.read(target, fault)

    # Records.

    cdef uint32_t target_length(self, ExtentMap target, file_t* file, const uint8_t* bytes,
                                uint32_t size) noexcept nogil:
        """A symlink's target ends at a null byte, as for the kernel, which refuses one only in the inode itself."""
        cdef const uint8_t* end = <const uint8_t*>memchr(bytes, 0, size)
        if file.mode & S_IFMT != S_IFLNK or end == NULL:
            return size
        if end == bytes or size < ROOT_ROOM:
            self.damaged(target, <uint32_t>(file - target.files), 0, b"a symlink whose target holds a null byte")
            return 0
        target.append_problem(file.inode, 0, b"a symlink whose target ends at a null byte before its size")
        return <uint32_t>(end - bytes)

    cdef int write(self, ExtentMap target, const pending_t* item, const uint8_t* bytes, const uint8_t* area,
                   const uint8_t* data, fault_t* fault) noexcept nogil:
        """The record of a file. Bad attributes are dropped and reported; the file is kept."""
        cdef file_t* file = &target.files[item.file]
        cdef const char* text
        self.xattrs.begin()
        if item.target_size > 0 and bytes != NULL:
            self.xattrs.heap.set_target(bytes, self.target_length(target, file, bytes, item.target_size))
        if item.area_size > 0:
            if self.xattrs.add_area(area, item.area_size, &text, fault) < 0:
                return fault.code
            if text != NULL:
                target.append_problem(file.inode, 0, text)
        if data != NULL:
            file.fingerprint += ext4_digest(1, data, self.geometry.block_size)
            if self.xattrs.add_block(item.xattr_block, data, &text, fault) < 0:
                return fault.code
            if text != NULL:
                target.append_problem(file.inode, item.xattr_block * self.geometry.block_size, text)
        return self.xattrs.finish(target, item.file, fault)
