"""mapdiff compares two sealed extent maps of one file system, file by file. It reads no device and changes no map.

Two judgements are made apart and must agree: the fingerprints of the raw records, and the decoded columns. Raw
records that differ while the columns are equal are a change of something that a map does not hold; columns that differ
while the raw records are equal cannot be, unless a reader or the memory is wrong.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from splitreel.core.columns cimport FILE_DAMAGED, columns_t, extent_t, file_t, name_t
from splitreel.core.extent cimport ExtentMap
from splitreel.core.fault cimport FAULT_CHECKSUM, FAULT_NO_MEMORY, fault_t, raise_fault, set_fault
from splitreel.core.view cimport Column, make_column

cdef enum change_t:
    CHANGE_SAME = 0
    CHANGE_EXTENTS = 1                             # decoded extents differ, whatever else does
    CHANGE_ATTRIBUTES = 2                          # extents are equal; some other column or the fingerprint is not
    CHANGE_ABSENT = 3                              # in this map only: new or gone, another generation included
    CHANGE_RENAMED = 0x80                          # flag: the same file has another set of names

SAME, EXTENTS, ATTRIBUTES, ABSENT = CHANGE_SAME, CHANGE_EXTENTS, CHANGE_ATTRIBUTES, CHANGE_ABSENT
RENAMED = CHANGE_RENAMED


cdef bint same_bytes(const void* left, const void* right, size_t size) noexcept nogil:
    """An empty column is NULL, which memcmp does not take even for no bytes."""
    return size == 0 or memcmp(left, right, size) == 0


cdef bint same_extents(const columns_t* old, const file_t* a, const columns_t* new, const file_t* b) noexcept nogil:
    return (a.extent_count == b.extent_count
            and same_bytes(old.extents + a.first_extent, new.extents + b.first_extent,
                           a.extent_count * sizeof(extent_t)))


cdef bint same_attributes(const columns_t* old, const file_t* a, const columns_t* new, const file_t* b) noexcept nogil:
    if (a.size != b.size or a.mtime != b.mtime or a.ctime != b.ctime or a.uid != b.uid or a.gid != b.gid
            or a.rdev != b.rdev or a.link_count != b.link_count or a.mode != b.mode or a.flags != b.flags):
        return False
    return (a.heap_size == b.heap_size
            and same_bytes(old.heap + a.heap_offset, new.heap + b.heap_offset, a.heap_size))


cdef int classify(const columns_t* old, const file_t* a, const columns_t* new, const file_t* b,
                  fault_t* fault) noexcept nogil:
    """The change of a file that both maps hold, or a fault."""
    cdef int change = CHANGE_SAME
    if not same_extents(old, a, new, b):
        change = CHANGE_EXTENTS
    elif a.fingerprint != b.fingerprint or not same_attributes(old, a, new, b):
        change = CHANGE_ATTRIBUTES
    if change != CHANGE_SAME and a.fingerprint == b.fingerprint and not (a.flags | b.flags) & FILE_DAMAGED:
        return set_fault(fault, FAULT_CHECKSUM, b"comparing extent maps, inode", b.inode, 0,
                         b"its raw records are unchanged, but decode to other extents or attributes")
    return change


cdef uint64_t mix(uint64_t value) noexcept nogil:
    """The finaliser of splitmix64."""
    value = (value ^ value >> 30) * <uint64_t>0xBF58476D1CE4E5B9
    value = (value ^ value >> 27) * <uint64_t>0x94D049BB133111EB
    return value ^ value >> 31


cdef void hash_names(const columns_t* columns, uint64_t* hashes) noexcept nogil:
    """Adds to each file's hash one of every name it has: directory's inode and name. The order of names has no say."""
    cdef uint64_t i, hash
    cdef uint32_t k
    cdef const name_t* name
    for i in range(columns.name_count):
        name = &columns.names[i]
        hash = mix(columns.files[columns.names[name.parent].file].inode + 1)
        for k in range(name.name_size):
            hash = (hash ^ columns.name_heap[name.name_offset + k]) * <uint64_t>0x100000001B3
        hashes[name.file] += mix(hash)


cdef int compare_files(const columns_t* old, const columns_t* new, const uint64_t* old_names, const uint64_t* new_names,
                       uint8_t* old_codes, uint8_t* new_codes, fault_t* fault) noexcept nogil:
    """Merges the two lists of files, both sorted by inode."""
    cdef uint64_t i = 0, k = 0
    cdef int change
    while i < old.file_count or k < new.file_count:
        if k == new.file_count or (i < old.file_count and old.files[i].inode < new.files[k].inode):
            old_codes[i] = CHANGE_ABSENT
            i += 1
        elif i == old.file_count or new.files[k].inode < old.files[i].inode:
            new_codes[k] = CHANGE_ABSENT
            k += 1
        else:
            change = CHANGE_ABSENT
            if old.files[i].generation == new.files[k].generation:
                change = classify(old, &old.files[i], new, &new.files[k], fault)
                if change < 0:
                    return change
                if old_names[i] != new_names[k]:
                    change |= CHANGE_RENAMED
            old_codes[i] = new_codes[k] = <uint8_t>change
            i += 1
            k += 1
    return 0


cdef int compare_columns(const columns_t* old, const columns_t* new, uint8_t* old_codes, uint8_t* new_codes,
                         fault_t* fault) noexcept nogil:
    cdef int rc
    cdef uint64_t* old_names = <uint64_t*>calloc(old.file_count + 1, sizeof(uint64_t))
    cdef uint64_t* new_names = <uint64_t*>calloc(new.file_count + 1, sizeof(uint64_t))
    if old_names == NULL or new_names == NULL:
        rc = set_fault(fault, FAULT_NO_MEMORY, b"comparing extent maps", 0, 0, NULL)
    else:
        hash_names(old, old_names)
        hash_names(new, new_names)
        rc = compare_files(old, new, old_names, new_names, old_codes, new_codes, fault)
    free(old_names)
    free(new_names)
    return rc


def compare(ExtentMap old not None, ExtentMap new not None):
    """Change codes of every file of the old map, and of every file of the new one: two buffers of uint8.

    A code is SAME, EXTENTS, ATTRIBUTES or ABSENT (from the other map), plus RENAMED.

    Raises:
        IntegrityError: a file's fingerprint is unchanged, but its columns are not.
    """
    cdef fault_t fault
    cdef int rc
    old.need_sealed()
    new.need_sealed()
    cdef columns_t before = old.columns()
    cdef columns_t after = new.columns()
    cdef Column old_codes = make_column(None, calloc(before.file_count + 1, 1), before.file_count, 1, b"B")
    cdef Column new_codes = make_column(None, calloc(after.file_count + 1, 1), after.file_count, 1, b"B")
    with nogil:
        rc = compare_columns(&before, &after, <uint8_t*>old_codes.data, <uint8_t*>new_codes.data, &fault)
    if rc < 0:
        raise_fault(&fault)
    return old_codes, new_codes
