"""xfs_directory verifies directories of XFS and appends the names in them to a map. It takes types from inodes alone.

Source: "XFS Algorithms & Data Structures", Directories; fs/xfs/libxfs/xfs_dir2_data.c and xfs_dir2_sf.c for the checks.
Every data block is scanned in order: hashes, leaves and free indexes, which lie from 32 GiB on, need not be trusted.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from splitreel.core.device cimport BlockDevice
from splitreel.core.extent cimport FILE_DAMAGED, ExtentMap, extent_t, file_t
from splitreel.core.fault cimport FAULT_IO, FAULT_NO_MEMORY, fault_t, raise_fault, set_fault
from splitreel.core.sweep cimport SWEEP_SPAN, Sweep, append_block, block_ref_t, free_blocks
from splitreel.core.walk cimport NameWalk, directory_t
from splitreel.core.xfs_disk cimport digest_records, xfs_be16, xfs_be32, xfs_be64, xfs_load16, xfs_load32, xfs_load64
from splitreel.core.xfs_fork cimport geometry_of, verify_self
from splitreel.core.xfs_names_disk cimport (
    XFS_DIR2_BLOCK_MAGIC,
    XFS_DIR2_DATA_ALIGN,
    XFS_DIR2_DATA_FREE_TAG,
    XFS_DIR2_DATA_MAGIC,
    XFS_DIR3_BLOCK_MAGIC,
    XFS_DIR3_DATA_MAGIC,
    XFS_DIR3_FT_MAX,
    XFS_DIR_SELF,
    xfs_dir2_block_tail_t,
    xfs_dir2_data_entry_t,
    xfs_dir2_data_hdr_t,
    xfs_dir2_data_unused_t,
    xfs_dir2_leaf_entry_t,
    xfs_dir2_sf_entry_t,
    xfs_dir2_sf_hdr_t,
    xfs_dir3_data_hdr_t,
)
from splitreel.core.xfs_superblock cimport XFS_MAX_SECTOR

cdef enum:
    DATA_SPACE_LOG = 35                            # bits of a byte's offset in a directory, as far as entries go
    ENTRY = 9                                      # bytes of an entry before its name
    TAG = 2                                        # and of its own offset, behind
    SHORT = 3                                      # bytes of an entry in an inode before its name
    INUMBER_BITS = 56
    RING = 8 << 20                                 # bytes in flight

# S_IFMT bits by file type; the last is a whiteout, a character device.
cdef uint32_t* types = [0, 0o100000, 0o040000, 0o020000, 0o060000, 0o010000, 0o140000, 0o120000, 0o020000]


cdef uint32_t entry_size(uint32_t name_size, bint ftype) noexcept nogil:
    cdef uint32_t size = ENTRY + name_size + ftype + TAG
    return (size + XFS_DIR2_DATA_ALIGN - 1) & ~<uint32_t>(XFS_DIR2_DATA_ALIGN - 1)


cdef bint is_dot(const xfs_dir2_data_entry_t* entry, uint32_t number) noexcept nogil:
    """The entries . and .. that begin every directory."""
    if number == 0:
        return entry.namelen == 1 and entry.name[0] == 46
    return number == 1 and entry.namelen == 2 and entry.name[0] == 46 and entry.name[1] == 46


cdef class XfsWalk(NameWalk):
    """Every name of an XFS file system. One walk at a time, one thread at a time; no Python face."""

    def __dealloc__(self):
        free_blocks(&self.pieces)
        free(self.whole)

    cdef int set_geometry(self, const xfs_geometry_t* geometry, fault_t* fault) noexcept nogil:
        free(self.whole)
        self.geometry = geometry
        self.unit = geometry.dir_block_size >> geometry.block_log
        self.whole = <uint8_t*>malloc(geometry.dir_block_size)
        if self.whole == NULL:
            return set_fault(fault, FAULT_NO_MEMORY, b"reading directories", 0, 0, NULL)
        return 0

    # Blocks.

    cdef int list_blocks(self, ExtentMap target, const directory_t* directory, fault_t* fault) noexcept nogil:
        """Whole directory blocks for the sweep. Such a block may lie in pieces; then it is read at once."""
        cdef const file_t* file = &target.files[directory.file]
        cdef uint64_t limit = <uint64_t>1 << (DATA_SPACE_LOG - self.geometry.block_log)
        cdef uint64_t i, begin, end, first, last, physical
        cdef const extent_t* extent
        self.pieces.count = 0
        if not file.flags & FILE_DAMAGED and (
                file.extent_count == 0 or target.extents[file.first_extent].logical != 0):
            self.damaged(target, directory.file, 0, b"a directory without its first block")
        for i in range(file.first_extent, file.first_extent + file.extent_count):
            extent = &target.extents[i]
            if extent.logical >= limit:
                break
            begin = extent.logical
            end = min(begin + extent.count, limit)
            if end - begin > self.blocks_left:
                self.damaged(target, directory.file, 0,
                             b"more directory blocks than the file system has: some are used twice")
                return 0
            self.blocks_left -= end - begin
            physical = extent.physical - begin
            first = (begin + self.unit - 1) // self.unit * self.unit
            last = end // self.unit * self.unit
            if first > end:
                first = last = end
            if (self.list_piece(directory, begin, physical + begin, first - begin, fault) < 0
                    or self.list_run(directory, first, physical + first, last - first, fault) < 0
                    or self.list_piece(directory, last, physical + last, end - last, fault) < 0):
                return fault.code
        return self.read_pieces(target, directory, fault) if self.pieces.count > 0 else 0

    cdef int list_run(self, const directory_t* directory, uint64_t logical, uint64_t block, uint64_t count,
                      fault_t* fault) noexcept nogil:
        """Adjacent directory blocks, in references that leave the sweep several for its span."""
        cdef uint64_t most = SWEEP_SPAN // 4 // self.geometry.dir_block_size * self.unit
        cdef uint64_t part
        self.block_count += count
        while count > 0:
            part = min(most, count)
            if append_block(&self.blocks, block, <uint32_t>part, directory.file, <uint32_t>logical, directory.name,
                            fault) < 0:
                return fault.code
            logical += part
            block += part
            count -= part
        return 0

    cdef int list_piece(self, const directory_t* directory, uint64_t logical, uint64_t block, uint64_t count,
                        fault_t* fault) noexcept nogil:
        self.block_count += count
        if count == 0:
            return 0
        return append_block(&self.pieces, block, <uint32_t>count, directory.file, <uint32_t>logical, directory.name,
                            fault)

    cdef int read_pieces(self, ExtentMap target, const directory_t* directory, fault_t* fault) noexcept nogil:
        """The pieces come in logical order, so that one block is joined at a time; none is read while blocks are."""
        cdef uint32_t size = self.geometry.block_size
        cdef uint64_t wanted = 0, block = 0        # the piece that must come next; where its directory block begins
        cdef const block_ref_t* ref
        cdef const uint8_t* data
        cdef int rc
        self.sweep.start(&self.pieces)
        while True:
            rc = self.sweep.next(&ref, &data, fault)
            if rc == 0:
                break
            if rc < 0 and rc != FAULT_IO:
                return rc
            if rc == FAULT_IO:
                self.damaged(target, directory.file, ref.block * size, b"a directory block does not read")
                continue
            if ref.first % self.unit == 0:
                if wanted % self.unit != 0:
                    self.damaged(target, directory.file, block * size, b"a directory block with a hole in it")
                wanted = ref.first
                block = ref.block
            if ref.first != wanted:
                self.damaged(target, directory.file, ref.block * size, b"a directory block with a hole in it")
                wanted = 0
                continue
            memcpy(self.whole + <size_t>(wanted % self.unit) * size, data, <size_t>ref.count * size)
            wanted += ref.count
            if wanted % self.unit == 0:
                if self.read_block(target, directory, wanted - self.unit, block, self.whole, fault) < 0:
                    return fault.code
        if wanted % self.unit != 0:
            self.damaged(target, directory.file, block * size, b"a directory block with a hole in it")
        return 0

    cdef int read_blocks(self, ExtentMap target, const block_ref_t* ref, const uint8_t* data,
                         fault_t* fault) noexcept nogil:
        cdef directory_t directory = directory_t(ref.owner, ref.limit)
        cdef uint32_t part = 0
        while part < ref.count:
            if self.read_block(target, &directory, <uint64_t>ref.first + part, ref.block + part, data, fault) < 0:
                return fault.code
            part += self.unit
            data += self.geometry.dir_block_size
        return 0

    # One block.

    cdef const char* verify_block(self, ExtentMap target, const directory_t* directory, uint64_t block,
                                  const uint8_t* data, uint32_t* end) noexcept nogil:
        """end: where entries end. A directory of one block alone, leaf and free index too, has its leaf in the tail."""
        cdef const file_t* file = &target.files[directory.file]
        cdef const extent_t* last = &target.extents[file.first_extent + file.extent_count - 1]
        cdef bint crc = self.geometry.crc
        cdef uint32_t magic = xfs_be32((<const xfs_dir2_data_hdr_t*>data).magic)
        cdef uint32_t size = self.geometry.dir_block_size
        cdef bint tailed = magic == <uint32_t>(XFS_DIR3_BLOCK_MAGIC if crc else XFS_DIR2_BLOCK_MAGIC)
        cdef bint alone = last.logical + last.count <= self.unit
        cdef uint32_t count
        end[0] = size
        if not tailed and magic != <uint32_t>(XFS_DIR3_DATA_MAGIC if crc else XFS_DIR2_DATA_MAGIC):
            return b"a directory block without its magic number"
        if tailed != alone and not file.flags & FILE_DAMAGED:
            return b"a directory block of another form than its directory"
        if tailed:
            count = xfs_be32((<const xfs_dir2_block_tail_t*>(data + size - sizeof(xfs_dir2_block_tail_t))).count)
            if count > size // sizeof(xfs_dir2_leaf_entry_t) - 1:
                return b"a directory block with more leaf entries than fit"
            end[0] = size - <uint32_t>((count + 1) * sizeof(xfs_dir2_leaf_entry_t))
        return verify_self(self.geometry, &XFS_DIR_SELF, data, size, block, file.inode) if crc else NULL

    cdef int read_block(self, ExtentMap target, const directory_t* directory, uint64_t logical, uint64_t block,
                        const uint8_t* data, fault_t* fault) noexcept nogil:
        cdef uint32_t end
        cdef const char* text = self.verify_block(target, directory, block, data, &end)
        target.files[directory.file].fingerprint += digest_records(logical, data, self.geometry.dir_block_size)
        if text != NULL:
            self.damaged(target, directory.file, block * self.geometry.block_size, text)
            return 0
        return self.read_entries(target, directory, logical, block * self.geometry.block_size, data, end, fault)

    cdef const char* verify_entry(self, const uint8_t* data, uint32_t at, uint32_t end, uint32_t* size) noexcept nogil:
        """Length, alignment and the tag that names the entry's own place. Those of unused space too."""
        cdef const xfs_dir2_data_unused_t* unused = <const xfs_dir2_data_unused_t*>(data + at)
        if end - at < XFS_DIR2_DATA_ALIGN:
            return b"a directory entry does not fit its block"
        if xfs_be16(unused.freetag) == XFS_DIR2_DATA_FREE_TAG:
            size[0] = xfs_be16(unused.length)
            if size[0] == 0 or size[0] % XFS_DIR2_DATA_ALIGN != 0:
                return b"unused space of a directory block of an odd length"
        else:
            if end - at < 2 * XFS_DIR2_DATA_ALIGN:
                return b"a directory entry does not fit its block"
            size[0] = entry_size((<const xfs_dir2_data_entry_t*>(data + at)).namelen, self.geometry.ftype)
        if size[0] > end - at:
            return b"a directory entry does not fit its block"
        if xfs_load16(data + at + size[0] - TAG) != at:
            return b"a directory entry that names another place for its own"
        return NULL

    cdef int read_entries(self, ExtentMap target, const directory_t* directory, uint64_t logical, uint64_t offset,
                          const uint8_t* data, uint32_t end, fault_t* fault) noexcept nogil:
        """All entries of one block. What is wrong ends the block, since the next entry cannot be found."""
        cdef uint32_t at = sizeof(xfs_dir3_data_hdr_t) if self.geometry.crc else sizeof(xfs_dir2_data_hdr_t)
        cdef const xfs_dir2_data_entry_t* entry
        cdef const char* text
        cdef uint32_t size = 0, number = 0
        while at < end:
            entry = <const xfs_dir2_data_entry_t*>(data + at)
            text = self.verify_entry(data, at, end, &size)
            if text != NULL:
                self.damaged(target, directory.file, offset + at, text)
                return 0
            if xfs_be16((<const xfs_dir2_data_unused_t*>entry).freetag) == XFS_DIR2_DATA_FREE_TAG:
                pass
            elif logical == 0 and is_dot(entry, number):
                self.check_dot(target, directory, offset + at, number, xfs_be64(entry.inumber))
            elif self.add_typed(target, directory, offset + at, xfs_be64(entry.inumber), entry.name, entry.namelen,
                                fault) < 0:
                return fault.code
            number += 1
            at += size
        return 0

    cdef void check_dot(self, ExtentMap target, const directory_t* directory, uint64_t offset, uint32_t number,
                        uint64_t inode) noexcept nogil:
        """What . and .. lead to is known from the walk; another number costs no name, but should be told."""
        cdef uint32_t parent = target.names[directory.name].parent
        cdef uint64_t own = target.files[directory.file].inode
        if number == 0 and inode != own:
            target.append_problem(own, offset, b"an entry . that leads elsewhere")
        if number == 1 and inode != target.files[target.names[parent].file].inode:
            target.append_problem(own, offset, b"a directory that has another parent than the one it was found in")

    cdef int add_typed(self, ExtentMap target, const directory_t* directory, uint64_t offset, uint64_t inode,
                       const uint8_t* name, uint32_t name_size, fault_t* fault) noexcept nogil:
        """An entry whose name is followed by its file type, where entries have one."""
        cdef uint32_t type = name[name_size] if self.geometry.ftype else 0
        if type >= XFS_DIR3_FT_MAX:
            target.append_problem(target.files[directory.file].inode, offset,
                                  b"an entry's file type is none that exists")
            type = 0
        return self.add_entry(target, directory, offset, inode, name, name_size, types[type], fault)

    # Directories in inodes.

    cdef int read_local(self, ExtentMap target, const directory_t* directory, const uint8_t* bytes, uint32_t size,
                        fault_t* fault) noexcept nogil:
        """size: di_size. One inode number above 32 bits makes all of them, the parent's too, eight bytes long."""
        cdef const xfs_dir2_sf_hdr_t* header = <const xfs_dir2_sf_hdr_t*>bytes
        cdef const xfs_dir2_sf_entry_t* entry
        cdef uint32_t inumber = 8 if size > 1 and header.i8count > 0 else 4
        cdef uint32_t at = sizeof(xfs_dir2_sf_hdr_t) + inumber
        cdef uint32_t need, _i
        if size < at:
            self.damaged(target, directory.file, 0, b"a directory that does not fit its inode")
            return 0
        self.check_dot(target, directory, 0, 1, load_inode(header.parent, inumber))
        for _i in range(header.count):
            entry = <const xfs_dir2_sf_entry_t*>(bytes + at)
            need = SHORT + self.geometry.ftype + inumber
            if size - at < need or size - at - need < entry.namelen:
                self.damaged(target, directory.file, 0, b"a directory that does not fit its inode")
                return 0
            need += entry.namelen
            if self.add_typed(target, directory, 0, load_inode(bytes + at + need - inumber, inumber), entry.name,
                              entry.namelen, fault) < 0:
                return fault.code
            at += need
        if at != size:
            self.damaged(target, directory.file, 0, b"a directory with fewer entries than its size says")
        return 0

    def names(self, BlockDevice device not None, ExtentMap target not None, uint64_t root, dict local not None):
        """Append the names of a file system to an unsealed map of its files and extents; for tests.

        local: what stands in the inode of a directory, by its index into files.

        Raises:
            Corrupt, Unsupported: the superblock is not one that is read; the root is no directory.
            DeviceError: the device does not read.
        """
        cdef xfs_geometry_t geometry
        cdef fault_t fault
        cdef bytes entries
        cdef int rc
        geometry_of(device.pread(0, XFS_MAX_SECTOR), &geometry)
        self.sweep = Sweep(device, geometry.block_size, RING)
        self.blocks_left = geometry.block_count
        rc = self.set_geometry(&geometry, &fault)
        for file in sorted(local):
            entries = local[file]
            if rc >= 0:
                rc = self.keep_local(file, <const uint8_t*><const char*>entries, len(entries), &fault)
        if rc >= 0:
            rc = self.walk(target, root, &fault)
        self.sweep.stop()
        self.reset()
        if rc < 0:
            raise_fault(&fault)


cdef uint64_t load_inode(const uint8_t* bytes, uint32_t size) noexcept nogil:
    """Of eight bytes, as the kernel does, the highest one is left alone."""
    return xfs_load32(bytes) if size == 4 else xfs_load64(bytes) & ((<uint64_t>1 << INUMBER_BITS) - 1)
