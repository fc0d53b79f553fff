"""heap builds the heap record of a file: its target or inline data, and its attributes in order. It decodes none.

Every attribute is kept as it will stand in the record (see columns.pxd), so that sorting moves references alone and
the record is written into the map in pieces, without a copy in between.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, strlen

from splitreel.core.columns cimport reserve
from splitreel.core.extent cimport FILE_INLINE, FILE_TARGET, FILE_XATTRS, ExtentMap, file_t
from splitreel.core.fault cimport FAULT_MISUSE, fault_t, raise_fault, set_fault

cdef extern from "<stdlib.h>" nogil:
    void qsort_r(void* base, size_t count, size_t size,
                 int (*compare)(const void*, const void*, void*) noexcept nogil, void* context)

cdef enum:
    HEAD = 6                                       # bytes before an attribute's name: the sizes of name and value
    MAX_NAME = 0xFFFF
    MAX_ATTRS = 1 << 28                            # bytes of a file's attributes; a heap record has less than 2^32


cdef void put16(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = value & 0xFF
    at[1] = value >> 8 & 0xFF


cdef void put32(uint8_t* at, uint32_t value) noexcept nogil:
    put16(at, value & 0xFFFF)
    put16(at + 2, value >> 16)


cdef uint32_t name_size_of(const uint8_t* attr) noexcept nogil:
    return attr[0] | <uint32_t>attr[1] << 8


cdef uint32_t value_size_of(const uint8_t* attr) noexcept nogil:
    return name_size_of(attr + 2) | name_size_of(attr + 4) << 16


cdef int compare_names(const uint8_t* a, const uint8_t* b) noexcept nogil:
    cdef uint32_t first = name_size_of(a), second = name_size_of(b)
    cdef int order = memcmp(a + HEAD, b + HEAD, min(first, second))
    return order if order != 0 else (first > second) - (first < second)


cdef int compare_attrs(const void* left, const void* right, void* memory) noexcept nogil:
    cdef const attr_t* a = <const attr_t*>left
    cdef const attr_t* b = <const attr_t*>right
    cdef int order = compare_names(<uint8_t*>memory + a.at, <uint8_t*>memory + b.at)
    return order if order != 0 else (a.source > b.source) - (a.source < b.source)


cdef class HeapWriter:
    """Gathers the target and the extended attributes of one file at a time. One thread at a time."""

    def __dealloc__(self):
        free(self.attrs)
        free(self.memory)

    cdef void begin(self) noexcept nogil:
        self.attr_count = 0
        self.used = 0
        self.target = NULL
        self.target_size = 0
        self.too_large = False

    cdef void set_target(self, const uint8_t* bytes, uint32_t size) noexcept nogil:
        self.target = bytes
        self.target_size = size

    cdef int add_room(self, const char* prefix, const uint8_t* name, uint32_t name_size, uint32_t value_size,
                      uint32_t source, uint8_t** room, fault_t* fault) noexcept nogil:
        cdef uint64_t prefix_size = strlen(prefix)
        cdef uint64_t size = HEAD + prefix_size + name_size + value_size
        cdef uint8_t* at
        if prefix_size + name_size > MAX_NAME or size > MAX_ATTRS:
            return set_fault(fault, FAULT_MISUSE, b"filling an extent map", 0, 0, b"an attribute larger than any is")
        if self.used + size > MAX_ATTRS:           # the memory is used again, so that there is room to be filled
            self.too_large = True
            self.used = self.attr_count = 0
        if (reserve(<void**>&self.memory, &self.capacity, self.used + size, MAX_ATTRS, 1, fault) < 0
                or reserve(<void**>&self.attrs, &self.attr_capacity, <uint64_t>self.attr_count + 1, MAX_ATTRS // HEAD,
                           sizeof(attr_t), fault) < 0):
            return fault.code
        at = self.memory + self.used
        put16(at, <uint32_t>(prefix_size + name_size))
        put32(at + 2, value_size)
        memcpy(at + HEAD, prefix, prefix_size)
        if name_size > 0:
            memcpy(at + HEAD + prefix_size, name, name_size)
        self.attrs[self.attr_count] = attr_t(self.used, 0, <uint32_t>size, source, 0)
        self.attr_count += 1
        self.used += size
        room[0] = at + HEAD + prefix_size + name_size
        return 0

    cdef int add(self, const char* prefix, const uint8_t* name, uint32_t name_size, const uint8_t* value,
                 uint32_t value_size, uint32_t source, fault_t* fault) noexcept nogil:
        cdef uint8_t* room
        if self.add_room(prefix, name, name_size, value_size, source, &room, fault) < 0:
            return fault.code
        if value_size > 0:
            memcpy(room, value, value_size)
        return 0

    cdef void tag(self, uint32_t tag) noexcept nogil:
        self.attrs[self.attr_count - 1].tag = tag

    cdef void keep_first(self, uint32_t count) noexcept nogil:
        if count < self.attr_count:
            self.attr_count = count
            self.used = self.attrs[count].at

    cdef int append(self, ExtentMap target, const void* data, uint32_t size, file_t* file,
                    fault_t* fault) noexcept nogil:
        """The next piece of the record; pieces that are appended one after the other stand so."""
        cdef uint64_t offset
        if target.append_heap(data, size, &offset, fault) < 0:
            return fault.code
        if file.heap_size == 0:
            file.heap_offset = offset
        file.heap_size += size
        return 0

    cdef int finish(self, ExtentMap target, file_t* file, fault_t* fault) noexcept nogil:
        cdef uint8_t head[4]
        cdef attr_t* attr
        cdef uint32_t i
        if self.too_large:
            target.append_problem(file.inode, 0, b"its extended attributes are larger than can be")
            self.attr_count = 0
        if self.attr_count == 0 and self.target_size == 0 and not file.flags & FILE_INLINE:
            return 0
        if self.attr_count > 1:
            qsort_r(self.attrs, self.attr_count, sizeof(attr_t), compare_attrs, self.memory)
        file.heap_size = 0
        put32(head, self.target_size)
        if self.append(target, head, 4, file, fault) < 0 or (
                self.target_size > 0 and self.append(target, self.target, self.target_size, file, fault) < 0):
            return fault.code
        for i in range(self.attr_count):
            attr = &self.attrs[i]
            if i > 0 and compare_names(self.memory + self.attrs[i - 1].at, self.memory + attr.at) == 0:
                continue
            if self.append(target, self.memory + attr.at, attr.size, file, fault) < 0:
                return fault.code
            attr.place = target.heap_size - value_size_of(self.memory + attr.at)
        if self.attr_count > 0:
            file.flags |= FILE_XATTRS
        if self.target_size > 0 and not file.flags & FILE_INLINE:
            file.flags |= FILE_TARGET
        return 0

    def write(self, ExtentMap target not None, uint64_t file_index, bytes link not None, list attributes not None):
        """Give a file of an unsealed map its record; for tests. attributes: (prefix, name, value, source), bytes.

        Raises:
            Misuse: an attribute whose name or value is larger than any is.
            LimitReached: memory, or a full heap.
        """
        cdef fault_t fault
        cdef int rc = 0
        if file_index >= target.file_count or target.sealed:
            raise IndexError(file_index)
        self.begin()
        self.set_target(<const uint8_t*>PyBytes_AS_STRING(link), len(link))
        for prefix, name, value, source in attributes:
            if rc == 0:
                rc = self.add(PyBytes_AS_STRING(prefix), <const uint8_t*>PyBytes_AS_STRING(name), len(name),
                              <const uint8_t*>PyBytes_AS_STRING(value), len(value), source, &fault)
        if rc == 0:
            rc = self.finish(target, &target.files[file_index], &fault)
        if rc < 0:
            raise_fault(&fault)
