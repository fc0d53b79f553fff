"""columns puts the arrays of an extent map in order and verifies them. It reads no device and no file.

Nothing else in core looks at a column before it has passed verify_columns, whether a reader or a saved file filled it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy

from splitreel.core.fault cimport FAULT_CORRUPT, FAULT_LIMIT, FAULT_MISUSE, FAULT_NO_MEMORY, fault_t, set_fault

cdef extern from "<stdlib.h>" nogil:
    void qsort_r(void* base, size_t count, size_t size,
                 int (*compare)(const void*, const void*, void*) noexcept nogil, void* context)

cdef enum:
    TYPE_MASK = 0o170000
    DIRECTORY = 0o040000
    MAX_NAME = 255
    KNOWN_EXTENT_FLAGS = 0x2A00                    # inline, unwritten, shared

cdef struct inode_key_t:
    uint64_t inode
    uint64_t index


# Growth.

cdef int reserve(void** data, uint64_t* capacity, uint64_t wanted, uint64_t most, size_t item_size,
                 fault_t* fault) noexcept nogil:
    """Room for wanted items, by doubling."""
    cdef uint64_t larger = capacity[0]
    cdef void* moved
    if wanted <= larger:
        return 0
    if wanted > most:
        return set_fault(fault, FAULT_LIMIT, b"filling an extent map", 0, 0, b"more records than a map can hold")
    if larger < 512:
        larger = 512
    larger = min(max(larger * 2, wanted), most)
    moved = realloc(data[0], larger * item_size)
    if moved == NULL:
        return set_fault(fault, FAULT_NO_MEMORY, b"filling an extent map", 0, 0, NULL)
    data[0] = moved
    capacity[0] = larger
    return 0


# Order.

cdef int compare_inodes(const void* left, const void* right, void* context) noexcept nogil:
    cdef uint64_t a = (<const inode_key_t*>left).inode
    cdef uint64_t b = (<const inode_key_t*>right).inode
    return (a > b) - (a < b)


cdef int no_memory(fault_t* fault) noexcept nogil:
    return set_fault(fault, FAULT_NO_MEMORY, b"sealing an extent map", 0, 0, NULL)


cdef bint files_in_order(const columns_t* columns) noexcept nogil:
    cdef uint64_t i
    for i in range(1, columns.file_count):
        if columns.files[i - 1].inode >= columns.files[i].inode:
            return False
    return True


cdef int sort_files(columns_t* columns, fault_t* fault) noexcept nogil:
    """Sorts files by inode and points the names at where their files went."""
    cdef uint64_t i
    cdef inode_key_t* keys = <inode_key_t*>malloc(columns.file_count * sizeof(inode_key_t))
    cdef uint32_t* moved = <uint32_t*>malloc(columns.file_count * sizeof(uint32_t))
    cdef file_t* sorted_files = <file_t*>malloc(columns.file_count * sizeof(file_t))
    if keys == NULL or moved == NULL or sorted_files == NULL:
        free(keys)
        free(moved)
        free(sorted_files)
        return no_memory(fault)
    for i in range(columns.file_count):
        keys[i].inode = columns.files[i].inode
        keys[i].index = i
    qsort_r(keys, columns.file_count, sizeof(inode_key_t), compare_inodes, NULL)
    for i in range(columns.file_count):
        sorted_files[i] = columns.files[keys[i].index]
        moved[keys[i].index] = <uint32_t>i
    for i in range(columns.name_count):
        if columns.names[i].file < columns.file_count:
            columns.names[i].file = moved[columns.names[i].file]
    free(keys)
    free(moved)
    free(columns.files)
    columns.files = sorted_files
    return 0


cdef int check_owned_ranges(const columns_t* columns, fault_t* fault) noexcept nogil:
    """Each file's extents and heap record must lie inside the arrays before anything is moved by them."""
    cdef const file_t* file
    cdef uint64_t i
    for i in range(columns.file_count):
        file = &columns.files[i]
        if file.first_extent > columns.extent_count or file.extent_count > columns.extent_count - file.first_extent:
            return set_fault(fault, FAULT_MISUSE, b"sealing an extent map", file.inode, 0, b"extents outside the map")
        if file.heap_size > 0 and (file.heap_offset > columns.heap_size
                                   or file.heap_size > columns.heap_size - file.heap_offset):
            return set_fault(fault, FAULT_MISUSE, b"sealing an extent map", file.inode, 0, b"heap record outside")
    return 0


cdef bint mergeable(const extent_t* first, const extent_t* second) noexcept nogil:
    return (first.flags == second.flags and not first.flags & EXTENT_INLINE
            and first.logical + first.count == second.logical and first.physical + first.count == second.physical
            and <uint64_t>first.count + second.count <= <uint64_t>0xFFFFFFFF)


cdef uint64_t merge_extents(extent_t* destination, const extent_t* source, uint32_t count) noexcept nogil:
    """Copies count extents to destination (which may be at or below source), merging; returns how many remain."""
    cdef uint64_t kept = 0
    cdef uint32_t i
    cdef extent_t extent
    for i in range(count):
        extent = source[i]
        if kept > 0 and mergeable(&destination[kept - 1], &extent):
            destination[kept - 1].count += extent.count
        else:
            destination[kept] = extent
            kept += 1
    return kept


cdef int arrange_extents(columns_t* columns, fault_t* fault) noexcept nogil:
    """Puts extents in file order and merges; in place when they stand in that order already."""
    cdef uint64_t i, kept, used = 0, total = 0
    cdef bint ordered = True
    cdef extent_t* destination = columns.extents
    for i in range(columns.file_count):
        if columns.files[i].first_extent < total:
            ordered = False
        total += columns.files[i].extent_count
    if total > columns.extent_count:
        return set_fault(fault, FAULT_MISUSE, b"sealing an extent map", 0, 0, b"two files share extent records")
    if not ordered:
        destination = <extent_t*>malloc((total + 1) * sizeof(extent_t))
        if destination == NULL:
            return no_memory(fault)
    for i in range(columns.file_count):
        kept = merge_extents(destination + used, columns.extents + columns.files[i].first_extent,
                             columns.files[i].extent_count)
        columns.files[i].first_extent = used
        columns.files[i].extent_count = <uint32_t>kept
        used += kept
    if not ordered:
        free(columns.extents)
        columns.extents = destination
    columns.extent_count = used
    return 0


cdef int arrange_heap(columns_t* columns, fault_t* fault) noexcept nogil:
    """Puts heap records in file order without gaps; nothing to do when a reader appended them so."""
    cdef uint64_t i, total = 0
    cdef bint ordered = True
    cdef uint8_t* destination
    for i in range(columns.file_count):
        if columns.files[i].heap_size == 0:
            columns.files[i].heap_offset = 0
        elif columns.files[i].heap_offset != total:
            ordered = False
        total += columns.files[i].heap_size
    if ordered and total == columns.heap_size:
        return 0
    if total > columns.heap_size:
        return set_fault(fault, FAULT_MISUSE, b"sealing an extent map", 0, 0, b"two files share a heap record")
    destination = <uint8_t*>malloc(total + 1)
    if destination == NULL:
        return no_memory(fault)
    total = 0
    for i in range(columns.file_count):
        if columns.files[i].heap_size > 0:
            memcpy(destination + total, columns.heap + columns.files[i].heap_offset, columns.files[i].heap_size)
            columns.files[i].heap_offset = total
            total += columns.files[i].heap_size
    free(columns.heap)
    columns.heap = destination
    columns.heap_size = total
    return 0


cdef uint32_t swapped(uint32_t index, uint32_t root) noexcept nogil:
    return 0 if index == root else root if index == 0 else index


cdef void move_root(columns_t* columns) noexcept nogil:
    """Exchanges name 0 with the one whose name is empty and whose parent is itself."""
    cdef uint64_t i, root = columns.name_count
    cdef name_t first
    for i in range(columns.name_count):
        if columns.names[i].name_size == 0 and columns.names[i].parent == i:
            root = i
            break
    if root == columns.name_count or root == 0:
        return
    first = columns.names[0]
    columns.names[0] = columns.names[root]
    columns.names[root] = first
    for i in range(columns.name_count):
        columns.names[i].parent = swapped(columns.names[i].parent, <uint32_t>root)


cdef int arrange_columns(columns_t* columns, fault_t* fault) noexcept nogil:
    cdef uint64_t i
    cdef int rc = check_owned_ranges(columns, fault)
    if rc == 0 and not files_in_order(columns):
        rc = sort_files(columns, fault)
    if rc < 0:
        return rc
    for i in range(1, columns.file_count):
        if columns.files[i - 1].inode == columns.files[i].inode:
            return set_fault(fault, FAULT_CORRUPT, b"sealing an extent map", columns.files[i].inode, 0,
                             b"the inode was found twice")
    rc = arrange_extents(columns, fault)
    if rc == 0:
        rc = arrange_heap(columns, fault)
    if rc == 0:
        move_root(columns)
    return rc


# Verification.

cdef int refuse(fault_t* fault, uint64_t inode, const char* why) noexcept nogil:
    return set_fault(fault, FAULT_CORRUPT, b"verifying an extent map", inode, 0, why)


cdef int verify_extents(const columns_t* columns, const file_t* file, fault_t* fault) noexcept nogil:
    cdef const extent_t* extents = columns.extents + file.first_extent
    # A whole device as one file may end inside its last block; reading behind the end is the engine's to refuse.
    cdef uint64_t device_blocks = (columns.device_size // columns.block_size
                                   + (columns.device_size % columns.block_size != 0))
    cdef uint64_t max_logical = (<uint64_t>-1) // columns.block_size
    cdef uint64_t end = 0
    cdef uint32_t i
    for i in range(file.extent_count):
        if extents[i].count == 0 or extents[i].flags & ~<uint32_t>KNOWN_EXTENT_FLAGS:
            return refuse(fault, file.inode, b"an extent is empty or has unknown flags")
        if extents[i].physical > device_blocks or extents[i].count > device_blocks - extents[i].physical:
            return refuse(fault, file.inode, b"an extent lies beyond the end of the device")
        if extents[i].logical < end or extents[i].logical > max_logical - extents[i].count:
            return refuse(fault, file.inode, b"extents overlap or are out of order")
        if i > 0 and mergeable(&extents[i - 1], &extents[i]):
            return refuse(fault, file.inode, b"adjacent extents are not merged")
        end = extents[i].logical + extents[i].count
    return 0


cdef uint32_t little_endian_32(const uint8_t* at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8 | <uint32_t>at[2] << 16 | <uint32_t>at[3] << 24


cdef const uint8_t* record_target(const uint8_t* record, uint32_t* size) noexcept nogil:
    size[0] = little_endian_32(record)
    return record + 4


cdef int next_xattr(const uint8_t* record, uint32_t record_size, uint32_t* cursor, xattr_t* out) noexcept nogil:
    cdef uint16_t name_size
    cdef uint32_t left = record_size - cursor[0]
    if left == 0:
        return 0
    if left < 6:
        return -1
    name_size = record[cursor[0]] | <uint16_t>record[cursor[0] + 1] << 8
    out.value_size = little_endian_32(record + cursor[0] + 2)
    left -= 6
    if name_size == 0 or name_size > left or out.value_size > left - name_size:
        return -1
    out.name_size = name_size
    out.name = record + cursor[0] + 6
    out.value = out.name + name_size
    cursor[0] += 6 + out.name_size + out.value_size
    return 1


cdef int compare_bytes(const uint8_t* left, uint64_t left_size, const uint8_t* right,
                       uint64_t right_size) noexcept nogil:
    cdef int order = memcmp(left, right, min(left_size, right_size))
    return order if order != 0 else (left_size > right_size) - (left_size < right_size)


cdef int verify_record(const columns_t* columns, const file_t* file, fault_t* fault) noexcept nogil:
    cdef const uint8_t* record = columns.heap + file.heap_offset
    cdef uint32_t target_size, cursor, xattr_count = 0
    cdef xattr_t xattr, previous
    cdef int rc
    if file.heap_size < 4:
        return refuse(fault, file.inode, b"a heap record is too short")
    record_target(record, &target_size)
    if target_size > file.heap_size - 4 or (target_size > 0 and not file.flags & (FILE_TARGET | FILE_INLINE)):
        return refuse(fault, file.inode, b"a heap record has a target that does not fit")
    cursor = 4 + target_size
    previous.name, previous.name_size = NULL, 0
    while True:
        rc = next_xattr(record, file.heap_size, &cursor, &xattr)
        if rc <= 0:
            break
        if xattr_count > 0 and compare_bytes(previous.name, previous.name_size, xattr.name, xattr.name_size) >= 0:
            return refuse(fault, file.inode, b"extended attributes are out of order")
        previous = xattr
        xattr_count += 1
    if rc < 0:
        return refuse(fault, file.inode, b"an extended attribute does not fit its heap record")
    if (xattr_count > 0) != ((file.flags & FILE_XATTRS) != 0):
        return refuse(fault, file.inode, b"the flag for extended attributes disagrees with the heap record")
    return 0


cdef int verify_files(const columns_t* columns, fault_t* fault) noexcept nogil:
    cdef uint64_t i, extents = 0, heap = 0
    cdef const file_t* file
    cdef int rc
    for i in range(columns.file_count):
        file = &columns.files[i]
        if i > 0 and columns.files[i - 1].inode >= file.inode:
            return refuse(fault, file.inode, b"files are out of order")
        if file.first_extent != extents or file.extent_count > columns.extent_count - extents:
            return refuse(fault, file.inode, b"extents outside the map")
        extents += file.extent_count
        rc = verify_extents(columns, file, fault)
        if rc < 0:
            return rc
        if file.heap_size == 0:
            if file.heap_offset != 0 or file.flags & (FILE_TARGET | FILE_INLINE | FILE_XATTRS):
                return refuse(fault, file.inode, b"a heap record is missing")
            continue
        if file.heap_offset != heap or file.heap_size > columns.heap_size - heap:
            return refuse(fault, file.inode, b"a heap record lies outside the heap")
        heap += file.heap_size
        rc = verify_record(columns, file, fault)
        if rc < 0:
            return rc
    if extents != columns.extent_count or heap != columns.heap_size:
        return refuse(fault, 0, b"extents or heap records without a file")
    return 0


cdef bint is_directory(const columns_t* columns, uint64_t index) noexcept nogil:
    return (columns.files[columns.names[index].file].mode & TYPE_MASK) == DIRECTORY


cdef bint name_allowed(const uint8_t* name, uint32_t size) noexcept nogil:
    if size == 0 or size > MAX_NAME or memchr(name, 0, size) != NULL or memchr(name, c'/', size) != NULL:
        return False
    return not (name[0] == c'.' and (size == 1 or (size == 2 and name[1] == c'.')))


cdef int verify_name(const columns_t* columns, uint64_t index, fault_t* fault) noexcept nogil:
    cdef const name_t* name = &columns.names[index]
    cdef uint64_t inode
    if name.file >= columns.file_count or name.parent >= columns.name_count:
        return refuse(fault, 0, b"a name refers to nothing")
    inode = columns.files[name.file].inode
    if name.name_offset > columns.name_heap_size or name.name_size > columns.name_heap_size - name.name_offset:
        return refuse(fault, inode, b"a name lies outside the name heap")
    if index == 0:
        if name.parent != 0 or name.name_size != 0 or not is_directory(columns, 0):
            return refuse(fault, inode, b"the first name is not a root directory")
    elif not name_allowed(columns.name_heap + name.name_offset, name.name_size):
        return refuse(fault, inode, b"a name is empty, too long, or holds a slash or a zero byte, or is . or ..")
    return 0


cdef int verify_tree(const columns_t* columns, uint32_t* depths, fault_t* fault) noexcept nogil:
    """Every name reaches the root through directories. depths: zeros; afterwards depth + 1 of each name."""
    cdef uint64_t i, at
    cdef uint32_t steps, depth
    depths[0] = 1
    for i in range(1, columns.name_count):
        at = i
        steps = 0
        while depths[at] == 0:
            at = columns.names[at].parent
            steps += 1
            if steps > MAX_DEPTH:
                return set_fault(fault, FAULT_LIMIT, b"verifying an extent map",
                                 columns.files[columns.names[i].file].inode, 0,
                                 b"directories form a cycle or are nested more than 65536 deep")
            if not is_directory(columns, at):
                return refuse(fault, columns.files[columns.names[i].file].inode, b"a name's parent is not a directory")
        depth = depths[at] + steps
        if depth > MAX_DEPTH:
            return set_fault(fault, FAULT_LIMIT, b"verifying an extent map",
                             columns.files[columns.names[i].file].inode, 0,
                             b"directories are nested more than 65536 deep")
        at = i
        while depths[at] == 0:
            depths[at] = depth
            depth -= 1
            at = columns.names[at].parent
    return 0


cdef int verify_names(const columns_t* columns, fault_t* fault) noexcept nogil:
    cdef uint32_t* depths
    cdef uint64_t i
    cdef int rc = 0
    for i in range(columns.name_count):
        rc = verify_name(columns, i, fault)
        if rc < 0:
            return rc
    if columns.name_count == 0:
        return 0
    depths = <uint32_t*>calloc(columns.name_count, sizeof(uint32_t))
    if depths == NULL:
        return no_memory(fault)
    rc = verify_tree(columns, depths, fault)
    free(depths)
    return rc


cdef int verify_columns(const columns_t* columns, fault_t* fault) noexcept nogil:
    cdef uint64_t most = MAX_INDEX
    cdef int rc
    if columns.block_size == 0:
        return refuse(fault, 0, b"the block size is zero")
    if columns.file_count >= most or columns.extent_count >= most or columns.name_count >= most:
        return set_fault(fault, FAULT_LIMIT, b"verifying an extent map", 0, 0, b"more than 2^32 - 2 records")
    rc = verify_files(columns, fault)
    return rc if rc < 0 else verify_names(columns, fault)


# Time.

cdef uint64_t pack_time(int64_t seconds, uint32_t nanoseconds) noexcept nogil:
    """Clamps to 1901-12-13 .. 2446-05-10, what 34 bits hold."""
    cdef int64_t shifted = seconds + (<int64_t>1 << 31)
    if seconds < -(<int64_t>1 << 31):
        return 0
    if shifted >= <int64_t>1 << 34:
        shifted = (<int64_t>1 << 34) - 1
    return <uint64_t>shifted << 30 | (nanoseconds & 0x3FFFFFFF)


cdef int64_t time_seconds(uint64_t packed) noexcept nogil:
    return <int64_t>(packed >> 30) - (<int64_t>1 << 31)


cdef uint32_t time_nanoseconds(uint64_t packed) noexcept nogil:
    return packed & 0x3FFFFFFF
