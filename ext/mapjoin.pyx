"""mapjoin makes one extent map of those of several volumes, each below a directory of its name. It reads no device.

The volumes lie one behind the other on a flat device. Their inode numbers may be equal, and what later handles a file
tells it by its number: in the joined map it is the volume's number, from 1, times 10^17, plus its own, so that in a
message both can be read. The largest that any file system gives is 2^56 (XFS). Problems keep a file's own number and
begin with the volume's name.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memset

from splitreel.core.columns cimport EXTENT_INLINE, extent_t, file_t, name_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport FAULT_LIMIT, FAULT_MISUSE, fault_t, raise_fault, set_fault

cdef enum:
    DIRECTORY = 0o040755
    MOST_VOLUMES = 100
    MOST_COUNT = 0xFFFFFFFF                        # blocks of one extent
    MOST_NAME = 64                                 # bytes: a problem's text must have room besides
    PROBLEM_TEXT = 112                             # of problem_t

cdef uint64_t STEP = 100_000_000_000_000_000
cdef const char* JOINING = "joining extent maps"

INODE_STEP = STEP


cdef struct volume_t:
    uint64_t number                                # from 1
    uint64_t first_block                           # on the flat device
    uint32_t scale                                 # its blocks, in blocks of the joined map
    const uint8_t* name
    uint32_t name_size


cdef int refuse(int code, uint64_t offset, const char* why) except -1:
    cdef fault_t fault
    set_fault(&fault, code, JOINING, 0, offset, why)
    raise_fault(&fault)


cdef int join_extent(ExtentMap joined, const volume_t* volume, const extent_t* extent, fault_t* fault) noexcept nogil:
    """In smaller blocks an extent may have more than one can count: then it is cut, into such as cannot be merged."""
    cdef uint64_t logical = extent.logical * volume.scale
    cdef uint64_t physical = volume.first_block + extent.physical * volume.scale
    cdef uint64_t left = <uint64_t>extent.count * volume.scale
    cdef uint64_t part
    if extent.flags & EXTENT_INLINE:
        left = extent.count                        # the block that holds the inode
    while left > 0:
        part = min(left, <uint64_t>MOST_COUNT // volume.scale * volume.scale)
        if joined.append_extent(logical, physical, <uint32_t>part, extent.flags, fault) < 0:
            return fault.code
        logical += part
        physical += part
        left -= part
    return 0


cdef int join_files(ExtentMap joined, ExtentMap part, const volume_t* volume, fault_t* fault) noexcept nogil:
    cdef uint64_t i, k, heap = 0
    cdef file_t file
    if joined.append_heap(part.heap, part.heap_size, &heap, fault) < 0:
        return fault.code
    for i in range(part.file_count):
        file = part.files[i]
        if file.inode >= STEP:
            return set_fault(fault, FAULT_LIMIT, JOINING, file.inode, 0, b"an inode number above 10^17")
        file.inode += volume.number * STEP
        if file.heap_size > 0:
            file.heap_offset += heap
        if joined.append_file(&file, fault) < 0:
            return fault.code
        for k in range(part.files[i].first_extent, part.files[i].first_extent + part.files[i].extent_count):
            if join_extent(joined, volume, &part.extents[k], fault) < 0:
                return fault.code
    return 0


cdef int join_names(ExtentMap joined, ExtentMap part, const volume_t* volume, uint64_t first_file,
                    fault_t* fault) noexcept nogil:
    """The volume's root becomes the directory of its name; all else moves with it."""
    cdef uint64_t i, first_name = joined.name_count
    cdef const name_t* name
    for i in range(part.name_count):
        name = &part.names[i]
        if i == 0:
            if joined.append_name(0, <uint32_t>(first_file + name.file), volume.name, volume.name_size, fault) < 0:
                return fault.code
        elif joined.append_name(<uint32_t>(first_name + name.parent), <uint32_t>(first_file + name.file),
                                part.name_heap + name.name_offset, name.name_size, fault) < 0:
            return fault.code
    return 0


cdef void join_problems(ExtentMap joined, ExtentMap part, const volume_t* volume) noexcept nogil:
    cdef char text[MOST_NAME + 3 + PROBLEM_TEXT]
    cdef uint64_t i
    for i in range(part.problem_stored):
        snprintf(text, sizeof(text), "%.64s: %.111s", <const char*>volume.name, part.problems[i].text)
        joined.append_problem(part.problems[i].inode, part.problems[i].offset, text)
    joined.problem_count += part.problem_count - part.problem_stored


cdef int join_volume(ExtentMap joined, ExtentMap part, const volume_t* volume, fault_t* fault) noexcept nogil:
    cdef uint64_t first_file = joined.file_count
    if join_files(joined, part, volume, fault) < 0 or join_names(joined, part, volume, first_file, fault) < 0:
        return fault.code
    join_problems(joined, part, volume)
    return 0


cdef int add_root(ExtentMap joined, uint64_t mtime) except -1:
    """A directory that no volume has, root's own, as old as the youngest of theirs."""
    cdef file_t root
    cdef fault_t fault
    memset(&root, 0, sizeof(file_t))
    root.mode, root.link_count, root.mtime, root.ctime = DIRECTORY, 2, mtime, mtime
    if joined.append_file(&root, &fault) < 0 or joined.append_name(0, 0, b"", 0, &fault) < 0:
        raise_fault(&fault)
    return 0


cdef uint64_t root_mtime(ExtentMap part) noexcept:
    return part.files[part.names[0].file].mtime if part.name_count > 0 else 0


def join_maps(parts, uint64_t device_size):
    """One sealed map of sealed ones; ``parts`` are (name, map, where the volume begins on the flat device, in bytes).

    Its kind is ``volumes``, its UUID zeros, its blocks the smallest of theirs.

    Raises:
        Misuse: a map is not sealed, a volume does not begin at a block of its own, a name is none for a directory.
        LimitReached: more volumes or files than a map can hold.
    """
    cdef ExtentMap part, joined
    cdef volume_t volume
    cdef fault_t fault
    cdef uint64_t start, newest = 0
    cdef int rc = 0
    if not 0 < len(parts) < MOST_VOLUMES:
        refuse(FAULT_LIMIT, 0, b"1 to 99 volumes can be joined")
    for _, part, start in parts:
        part.need_sealed()
        newest = max(newest, root_mtime(part))
        if start % part.block_size:
            refuse(FAULT_MISUSE, start, b"a volume must begin at a block of its own")
    joined = ExtentMap("volumes", bytes(16), min(part.block_size for _, part, _ in parts), device_size)
    add_root(joined, newest)
    volume.number = 0
    for name, part, start in parts:
        if part.block_size % joined.block_size or not 0 < len(name) <= MOST_NAME:
            refuse(FAULT_MISUSE, start, b"a name of 1 to 64 bytes is needed, and blocks that are multiples")
        volume.number += 1
        volume.scale = part.block_size // joined.block_size
        volume.first_block = start // joined.block_size
        volume.name, volume.name_size = <const uint8_t*>PyBytes_AS_STRING(name), len(name)
        with nogil:
            rc = join_volume(joined, part, &volume, &fault)
        if rc < 0:
            raise_fault(&fault)
    joined.finish()
    return joined
