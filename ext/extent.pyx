"""extent holds the extent map: the files of one file system at one instant, as columns. It reads no file system itself.

A map is filled by a reader, sealed (sorted, merged, verified), and from then on read-only. Python sees its columns
through the buffer protocol: ``numpy.asarray(map.files)`` is a structured array over the map's own memory.
"""

import struct

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strncpy

from splitreel.core.columns cimport (
    MAX_INDEX, arrange_columns, mergeable, next_xattr, record_target, reserve, verify_columns, xattr_t,
)
from splitreel.core.fault cimport FAULT_MAP_FILE, FAULT_MISUSE, fault_t, raise_fault, set_fault
from splitreel.core.mapfile cimport SECTION_COUNT, digest_columns, read_map, section_t, write_map
from splitreel.core.paths cimport fill_path, find_path, order_paths
from splitreel.core.paths cimport path_size as size_of_path
from splitreel.core.view cimport EXTENT_FORMAT, FILE_FORMAT, NAME_FORMAT, Column, make_column

cdef uint64_t MAX_RECORDS = <uint64_t>MAX_INDEX - 1
cdef uint64_t MAX_NAME_HEAP = MAX_INDEX
cdef uint64_t MAX_HEAP = <uint64_t>1 << 36
cdef uint64_t MAX_PROBLEMS = 4096                  # kept with their text; more are only counted


# Time.

def pack_nanoseconds(time):
    """A packed time from nanoseconds since 1970; of the inverse see ``unpack_nanoseconds``."""
    seconds, nanoseconds = divmod(time, 1_000_000_000)
    return pack_time(max(-(1 << 40), min(1 << 40, seconds)), nanoseconds)


def unpack_nanoseconds(uint64_t packed):
    """Nanoseconds since 1970 of a packed time."""
    return <object>time_seconds(packed) * 1_000_000_000 + time_nanoseconds(packed)


@cython.no_gc_clear  # __dealloc__ must still know whether the columns are its own or the mapping's
cdef class ExtentMap:
    """The files of one file system at one instant.

    ``files``, ``extents`` and ``names`` are columns (structured arrays for numpy, field names as in columns.pxd; units
    are file system blocks). ``name_bytes`` and ``heap_bytes`` hold what names and files point into. One thread at a
    time while it is filled; any number of readers once sealed.
    """

    def __init__(self, str fs_type, bytes uuid, uint32_t block_size, uint64_t device_size):
        if len(uuid) != 16:
            raise ValueError("a UUID has 16 bytes")
        if block_size == 0:
            raise ValueError("the block size is zero")
        self.fs_type = fs_type
        memcpy(self.uuid, PyBytes_AS_STRING(uuid), 16)
        self.block_size = block_size
        self.device_size = device_size
        self.in_order = True

    def __dealloc__(self):
        if self.mapping is None:
            free(self.problems)
            free(self.files)
            free(self.extents)
            free(self.names)
            free(self.name_heap)
            free(self.heap)

    cdef columns_t columns(self) noexcept nogil:
        cdef columns_t columns
        columns.files = self.files
        columns.extents = self.extents
        columns.names = self.names
        columns.name_heap = self.name_heap
        columns.heap = self.heap
        columns.file_count = self.file_count
        columns.extent_count = self.extent_count
        columns.name_count = self.name_count
        columns.name_heap_size = self.name_heap_size
        columns.heap_size = self.heap_size
        columns.device_size = self.device_size
        columns.block_size = self.block_size
        return columns

    cdef int append_file(self, const file_t* file, fault_t* fault) noexcept nogil:
        cdef int rc
        if self.sealed:
            return set_fault(fault, FAULT_MISUSE, b"filling an extent map", file.inode, 0, b"it is sealed")
        rc = reserve(<void**>&self.files, &self.file_capacity, self.file_count + 1, MAX_RECORDS, sizeof(file_t), fault)
        if rc < 0:
            return rc
        if self.file_count > 0 and self.files[self.file_count - 1].inode >= file.inode:
            self.in_order = False
        self.files[self.file_count] = file[0]
        self.files[self.file_count].first_extent = self.extent_count
        self.files[self.file_count].extent_count = 0
        self.file_count += 1
        return 0

    cdef int append_extent(self, uint64_t logical, uint64_t physical, uint32_t count, uint32_t flags,
                           fault_t* fault) noexcept nogil:
        cdef extent_t extent
        cdef file_t* file
        cdef int rc
        if self.sealed or self.file_count == 0:
            return set_fault(fault, FAULT_MISUSE, b"filling an extent map", 0, 0, b"an extent needs a file before it")
        file = &self.files[self.file_count - 1]
        extent.logical = logical
        extent.physical = physical
        extent.count = count
        extent.flags = flags
        if file.extent_count > 0 and mergeable(&self.extents[self.extent_count - 1], &extent):
            self.extents[self.extent_count - 1].count += count
            return 0
        rc = reserve(<void**>&self.extents, &self.extent_capacity, self.extent_count + 1, MAX_RECORDS,
                     sizeof(extent_t), fault)
        if rc < 0:
            return rc
        self.extents[self.extent_count] = extent
        self.extent_count += 1
        file.extent_count += 1
        return 0

    cdef int append_name(self, uint32_t parent, uint32_t file, const uint8_t* name, uint32_t size,
                         fault_t* fault) noexcept nogil:
        cdef name_t record
        cdef int rc
        if self.sealed or size > 255:
            return set_fault(fault, FAULT_MISUSE, b"filling an extent map", 0, 0, b"a name over 255 bytes, or sealed")
        rc = reserve(<void**>&self.names, &self.name_capacity, self.name_count + 1, MAX_RECORDS, sizeof(name_t), fault)
        if rc == 0:
            rc = reserve(<void**>&self.name_heap, &self.name_heap_capacity, self.name_heap_size + size, MAX_NAME_HEAP,
                         1, fault)
        if rc < 0:
            return rc
        record.parent = parent
        record.file = file
        record.name_offset = <uint32_t>self.name_heap_size
        record.name_size = size
        if size > 0:
            memcpy(self.name_heap + self.name_heap_size, name, size)
        self.names[self.name_count] = record
        self.name_heap_size += size
        self.name_count += 1
        return 0

    cdef int append_heap(self, const void* data, uint64_t size, uint64_t* offset, fault_t* fault) noexcept nogil:
        cdef int rc
        if self.sealed or size > MAX_HEAP:
            return set_fault(fault, FAULT_MISUSE, b"filling an extent map", 0, 0, b"a record over 64 GiB, or sealed")
        rc = reserve(<void**>&self.heap, &self.heap_capacity, self.heap_size + size, MAX_HEAP, 1, fault)
        if rc < 0:
            return rc
        offset[0] = self.heap_size
        if size > 0:
            memcpy(self.heap + self.heap_size, data, size)
        self.heap_size += size
        return 0

    cdef void append_problem(self, uint64_t inode, uint64_t offset, const char* text) noexcept nogil:
        cdef fault_t ignored
        cdef problem_t* problem
        self.problem_count += 1
        if self.sealed:
            return
        if reserve(<void**>&self.problems, &self.problem_capacity, self.problem_stored + 1, MAX_PROBLEMS,
                   sizeof(problem_t), &ignored) < 0:
            return
        problem = &self.problems[self.problem_stored]
        memset(problem, 0, sizeof(problem_t))
        problem.inode = inode
        problem.offset = offset
        strncpy(problem.text, text, sizeof(problem.text) - 1)
        self.problem_stored += 1

    cdef int seal(self, fault_t* fault) noexcept nogil:
        cdef columns_t columns
        cdef int rc
        if self.sealed:
            return 0
        columns = self.columns()
        rc = arrange_columns(&columns, fault)
        self.files = columns.files
        self.extents = columns.extents
        self.heap = columns.heap
        self.extent_count = columns.extent_count
        self.heap_size = columns.heap_size
        self.file_capacity = self.file_count       # nothing is appended any more
        self.extent_capacity = self.extent_count
        self.heap_capacity = self.heap_size
        if rc == 0:
            rc = verify_columns(&columns, fault)
        if rc == 0:
            self.in_order = True
            self.sealed = True
        return rc

    cdef int64_t find_inode(self, uint64_t inode) noexcept nogil:
        cdef uint64_t low = 0, high = self.file_count, middle
        if not self.in_order:
            for low in range(high):
                if self.files[low].inode == inode:
                    return <int64_t>low
            return -1
        while low < high:
            middle = low + (high - low) // 2
            if self.files[middle].inode < inode:
                low = middle + 1
            else:
                high = middle
        return <int64_t>low if low < self.file_count and self.files[low].inode == inode else -1

    cdef uint64_t path_size(self, uint64_t index) noexcept nogil:
        cdef columns_t columns = self.columns()
        return size_of_path(&columns, index)

    cdef int64_t path(self, uint64_t index, uint8_t* destination, size_t capacity) noexcept nogil:
        cdef columns_t columns = self.columns()
        cdef uint64_t size = size_of_path(&columns, index)
        if size > capacity:
            return -1
        fill_path(&columns, index, destination, size)
        return <int64_t>size

    # The Python face. Attributes of the C level hide properties of the same name, so these come by __getattr__.

    def __getattr__(self, str name):
        if name == "uuid":
            return self.uuid_bytes()
        if name == "problems":
            return [
                (self.problems[i].inode, self.problems[i].offset, self.problems[i].text.decode("utf-8", "replace"))
                for i in range(self.problem_stored)
            ]
        if name not in ("files", "extents", "names"):
            raise AttributeError(f"'ExtentMap' object has no attribute {name!r}")
        return self.sections()[("files", "extents", "names").index(name)]

    cdef bytes uuid_bytes(self):
        return PyBytes_FromStringAndSize(<char*>self.uuid, 16)

    cdef int need_sealed(self) except -1:
        cdef fault_t fault
        if not self.sealed:
            set_fault(&fault, FAULT_MISUSE, b"reading an extent map", 0, 0, b"it is not sealed")
            raise_fault(&fault)
        return 0

    cdef int need_index(self, int64_t index, uint64_t count) except -1:
        self.need_sealed()
        if index < 0 or <uint64_t>index >= count:
            raise IndexError(f"{index} is not below {count}")
        return 0

    @property
    def name_bytes(self):
        """The name heap, a buffer of bytes."""
        return self.sections()[3]

    @property
    def heap_bytes(self):
        """The heap of targets and extended attributes, a buffer of bytes."""
        return self.sections()[4]

    def path_of(self, int64_t index):
        """Path of names[index] without a leading slash; the root's is empty."""
        cdef columns_t columns = self.columns()
        self.need_index(index, self.name_count)
        path = PyBytes_FromStringAndSize(NULL, size_of_path(&columns, index))
        fill_path(&columns, index, <uint8_t*>PyBytes_AS_STRING(path), len(path))
        return path

    def paths(self):
        """Every path, by name index. Of a map with millions of names, ask ``path_of`` one by one instead."""
        return [self.path_of(index) for index in range(self.name_count)]

    def path_order(self):
        """Indexes of names sorted by the bytes of their full paths: a buffer of uint32."""
        cdef columns_t columns = self.columns()
        cdef fault_t fault
        cdef int rc
        self.need_sealed()
        cdef Column column = make_column(None, malloc(self.name_count * 4 + 1), self.name_count, 4, b"=I")
        with nogil:
            rc = order_paths(&columns, <uint32_t*>column.data, &fault)
        if rc < 0:
            raise_fault(&fault)
        return column

    def find(self, bytes path not None):
        """Index of the name with this path (leading and trailing slashes are ignored), or -1."""
        cdef columns_t columns = self.columns()
        cdef const uint8_t* data
        cdef uint64_t size
        cdef int64_t found
        self.need_sealed()
        path = path.strip(b"/")
        data = <const uint8_t*>PyBytes_AS_STRING(path)
        size = len(path)
        with nogil:
            found = find_path(&columns, data, size)
        return found

    def find_file(self, uint64_t inode):
        """Index into files of an inode, or -1."""
        return self.find_inode(inode)

    def target(self, int64_t file_index):
        """Target of a symbolic link, or the data of a file that stands in its inode (FILE_INLINE); None without."""
        cdef uint32_t size
        cdef const uint8_t* data
        self.need_index(file_index, self.file_count)
        if not self.files[file_index].flags & (FILE_TARGET | FILE_INLINE):
            return None
        data = record_target(self.heap + self.files[file_index].heap_offset, &size)
        return PyBytes_FromStringAndSize(<const char*>data, size)

    def xattrs(self, int64_t file_index):
        """Extended attributes by name (as listxattr shows it), values as getxattr shows them."""
        cdef uint32_t cursor
        cdef xattr_t xattr
        cdef const uint8_t* record
        self.need_index(file_index, self.file_count)
        found = {}
        if not self.files[file_index].flags & FILE_XATTRS:
            return found
        record = self.heap + self.files[file_index].heap_offset
        record_target(record, &cursor)
        cursor += 4
        while next_xattr(record, self.files[file_index].heap_size, &cursor, &xattr) > 0:
            name = PyBytes_FromStringAndSize(<const char*>xattr.name, xattr.name_size)
            value = PyBytes_FromStringAndSize(<const char*>xattr.value, xattr.value_size)
            found[name.decode("utf-8", "surrogateescape")] = value
        return found

    cdef list sections(self):
        self.need_sealed()
        return [
            make_column(self, self.files, self.file_count, sizeof(file_t), FILE_FORMAT),
            make_column(self, self.extents, self.extent_count, sizeof(extent_t), EXTENT_FORMAT),
            make_column(self, self.names, self.name_count, sizeof(name_t), NAME_FORMAT),
            make_column(self, self.name_heap, self.name_heap_size, 1, b"B"),
            make_column(self, self.heap, self.heap_size, 1, b"B"),
            make_column(self, self.problems, self.problem_stored, sizeof(problem_t), b"128s"),
        ]

    def digest(self):
        """Lengths and two CRCs of each column: equal maps have equal digests."""
        return digest_columns(self.sections()[:5])

    def save(self, path):
        """Write the map to a file of mode 0600, whole or not at all.

        Raises:
            MapError: the file cannot be written.
        """
        identity = (self.fs_type, self.uuid_bytes(), self.block_size, self.device_size, self.problem_count)
        write_map(path, identity, self.sections())

    @staticmethod
    def load(path):
        """Map a saved map into memory and verify all of it; nobody may write to the file while the map is in use.

        Raises:
            MapError: the file cannot be read, is no map, or a checksum does not match.
            Corrupt: its columns contradict each other.
        """
        cdef section_t sections[SECTION_COUNT]
        sizes = (sizeof(file_t), sizeof(extent_t), sizeof(name_t), 1, 1, sizeof(problem_t))
        identity, mapping = read_map(path, sizes, sections)
        cdef ExtentMap loaded = ExtentMap(*identity[:4])
        loaded.mapping = mapping
        loaded.adopt(sections, identity[4])
        return loaded

    cdef int adopt(self, const section_t* sections, uint64_t problem_count) except -1:
        """Take the sections of a mapped file as columns, once they are verified."""
        cdef columns_t columns
        cdef fault_t fault
        cdef uint64_t i
        cdef int rc
        self.files, self.file_count = <file_t*>sections[0].data, sections[0].count
        self.extents, self.extent_count = <extent_t*>sections[1].data, sections[1].count
        self.names, self.name_count = <name_t*>sections[2].data, sections[2].count
        self.name_heap, self.name_heap_size = <uint8_t*>sections[3].data, sections[3].count
        self.heap, self.heap_size = <uint8_t*>sections[4].data, sections[4].count
        self.problems, self.problem_stored = <problem_t*>sections[5].data, sections[5].count
        self.problem_count = max(problem_count, self.problem_stored)
        columns = self.columns()
        with nogil:
            rc = verify_columns(&columns, &fault)
            for i in range(self.problem_stored):
                if rc == 0 and self.problems[i].text[111] != 0:
                    rc = set_fault(&fault, FAULT_MAP_FILE, b"verifying an extent map", 0, 0, b"a problem has no end")
        if rc < 0:
            raise_fault(&fault)
        self.sealed = True
        return 0

    # Filling from Python: for tests and for readers that are not compiled.

    def add_file(self, uint64_t inode, uint32_t mode, *, uint64_t size=0, uint64_t mtime=0, uint64_t ctime=0,
                 uint64_t fingerprint=0, uint32_t generation=0, uint32_t uid=0, uint32_t gid=0, uint32_t rdev=0,
                 uint32_t link_count=1, uint32_t flags=0, bytes target=None, xattrs=None):
        """Append a file; times are packed (``pack_nanoseconds``). Returns its index, valid until ``finish``."""
        cdef file_t file
        cdef uint64_t offset
        cdef fault_t fault
        memset(&file, 0, sizeof(file_t))
        if target is not None and not flags & FILE_INLINE:
            flags |= FILE_TARGET
        if xattrs:
            flags |= FILE_XATTRS
        if target is not None or xattrs:
            record = heap_record(target or b"", xattrs or {})
            file.heap_size = len(record)
            if self.append_heap(PyBytes_AS_STRING(record), len(record), &offset, &fault) < 0:
                raise_fault(&fault)
            file.heap_offset = offset
        file.inode, file.mode, file.size, file.mtime, file.ctime = inode, mode, size, mtime, ctime
        file.fingerprint, file.generation, file.uid, file.gid = fingerprint, generation, uid, gid
        file.rdev, file.link_count, file.flags = rdev, link_count, flags
        if self.append_file(&file, &fault) < 0:
            raise_fault(&fault)
        return self.file_count - 1

    def add_extent(self, uint64_t logical, uint64_t physical, uint32_t count, uint32_t flags=0):
        """Append an extent to the last file, in blocks."""
        cdef fault_t fault
        if self.append_extent(logical, physical, count, flags, &fault) < 0:
            raise_fault(&fault)

    def add_name(self, uint32_t parent, uint32_t file, bytes name not None):
        """Append a name in the directory whose name index is parent; the root is its own parent. Returns its index."""
        cdef fault_t fault
        if self.append_name(parent, file, <const uint8_t*>PyBytes_AS_STRING(name), min(len(name), 256), &fault) < 0:
            raise_fault(&fault)
        return self.name_count - 1

    def add_problem(self, uint64_t inode, uint64_t offset, str text not None):
        """Append what was found wrong; the text is cut at 111 bytes."""
        encoded = text.encode()
        self.append_problem(inode, offset, encoded)

    def finish(self):
        """Seal the map.

        Raises:
            Corrupt: an inode or name contradicts another.
            LimitReached: memory, or one of the caps in extent.pxd.
        """
        cdef fault_t fault
        cdef int rc
        with nogil:
            rc = self.seal(&fault)
        if rc < 0:
            raise_fault(&fault)


def heap_record(bytes target not None, dict xattrs not None):
    """A heap record, as in columns.pxd; names of extended attributes are str with surrogateescape, or bytes."""
    parts = [struct.pack("<I", len(target)), target]
    named = {n.encode("utf-8", "surrogateescape") if isinstance(n, str) else n: v for n, v in xattrs.items()}
    for name in sorted(named):
        parts += [struct.pack("<HI", len(name), len(named[name])), name, named[name]]
    return b"".join(parts)
