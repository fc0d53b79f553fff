"""paths walks the names of an extent map: from a name to its path, from a path to its name, all in the order of paths.

It takes verified columns: every name reaches the root. It changes nothing.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy

from splitreel.core.columns cimport columns_t, is_directory, name_t
from splitreel.core.fault cimport FAULT_NO_MEMORY, fault_t, set_fault

cdef extern from "<stdlib.h>" nogil:
    void qsort_r(void* base, size_t count, size_t size,
                 int (*compare)(const void*, const void*, void*) noexcept nogil, void* context)


cdef uint64_t path_size(const columns_t* columns, uint64_t index) noexcept nogil:
    cdef uint64_t size = 0
    while index != 0:
        size += columns.names[index].name_size + 1
        index = columns.names[index].parent
    return size - 1 if size > 0 else 0


cdef void fill_path(const columns_t* columns, uint64_t index, uint8_t* destination, uint64_t size) noexcept nogil:
    cdef const name_t* name
    while index != 0:
        name = &columns.names[index]
        size -= name.name_size
        memcpy(destination + size, columns.name_heap + name.name_offset, name.name_size)
        index = name.parent
        if index != 0:
            size -= 1
            destination[size] = c'/'


cdef int64_t find_path(const columns_t* columns, const uint8_t* path, uint64_t size) noexcept nogil:
    cdef uint64_t i, at = 0, part
    cdef const uint8_t* slash
    cdef const name_t* name
    if columns.name_count == 0:
        return -1
    while size > 0:
        slash = <const uint8_t*>memchr(path, c'/', size)
        part = size if slash == NULL else <uint64_t>(slash - path)
        for i in range(1, columns.name_count):
            name = &columns.names[i]
            if (name.parent == at and name.name_size == part
                    and memcmp(columns.name_heap + name.name_offset, path, part) == 0):
                at = i
                break
        else:
            return -1
        path += part
        size -= part
        if size > 0:
            path += 1
            size -= 1
            if size == 0:
                return -1
    return <int64_t>at


# An event stands for one child in its directory's order: index * 2 emits its path, index * 2 + 1 descends into it. The
# key of a descent is the name and a slash, so that "a", "a-b", "a/x" come out in the order of their bytes.

cdef int compare_events(const void* left, const void* right, void* context) noexcept nogil:
    cdef const columns_t* columns = <const columns_t*>context
    cdef uint64_t a = (<const uint64_t*>left)[0]
    cdef uint64_t b = (<const uint64_t*>right)[0]
    cdef const name_t* first = &columns.names[a >> 1]
    cdef const name_t* second = &columns.names[b >> 1]
    cdef uint32_t common = min(first.name_size, second.name_size)
    cdef int order = memcmp(columns.name_heap + first.name_offset, columns.name_heap + second.name_offset, common)
    cdef int x, y
    if order != 0:
        return order
    x = event_byte(columns, first, common, a)
    y = event_byte(columns, second, common, b)
    if x == y:                                     # the same name twice, or twice the same name with a slash
        return (a > b) - (a < b)
    return -1 if x < y else 1


cdef int event_byte(const columns_t* columns, const name_t* name, uint32_t at, uint64_t event) noexcept nogil:
    if at < name.name_size:
        return columns.name_heap[name.name_offset + at]
    return c'/' if event & 1 else -1


cdef void fill_events(const columns_t* columns, uint64_t* starts, uint64_t* ends, uint64_t* events) noexcept nogil:
    """Groups the events by directory d, sorted: events[starts[d]] .. events[ends[d] - 1]. starts: zeros."""
    cdef uint64_t i, total = 0
    cdef uint32_t parent
    for i in range(1, columns.name_count):
        starts[columns.names[i].parent] += 2 if is_directory(columns, i) else 1
    for i in range(columns.name_count):
        ends[i] = total
        total += starts[i]
        starts[i] = ends[i]
    for i in range(1, columns.name_count):
        parent = columns.names[i].parent
        events[ends[parent]] = i * 2
        ends[parent] += 1
        if is_directory(columns, i):
            events[ends[parent]] = i * 2 + 1
            ends[parent] += 1
    for i in range(columns.name_count):
        if ends[i] - starts[i] > 1:
            qsort_r(events + starts[i], ends[i] - starts[i], sizeof(uint64_t), compare_events, <void*>columns)


cdef void walk_events(const columns_t* columns, uint64_t* starts, const uint64_t* ends, const uint64_t* events,
                      uint32_t* order) noexcept nogil:
    """Goes down and up by parents, without a stack: starts[d] is how far directory d has been emitted."""
    cdef uint64_t at = 0, event, emitted = 1
    order[0] = 0
    while True:
        if starts[at] < ends[at]:
            event = events[starts[at]]
            starts[at] += 1
            if event & 1:
                at = event >> 1
            else:
                order[emitted] = <uint32_t>(event >> 1)
                emitted += 1
        elif at == 0:
            return
        else:
            at = columns.names[at].parent


cdef int order_paths(const columns_t* columns, uint32_t* order, fault_t* fault) noexcept nogil:
    """Needs 16 bytes a name and 8 bytes an event (two for a directory) while it runs."""
    cdef uint64_t i, event_count = columns.name_count
    cdef uint64_t* starts
    cdef uint64_t* ends
    cdef uint64_t* events
    if columns.name_count == 0:
        return 0
    for i in range(columns.name_count):
        event_count += is_directory(columns, i)
    starts = <uint64_t*>calloc(columns.name_count, sizeof(uint64_t))
    ends = <uint64_t*>malloc(columns.name_count * sizeof(uint64_t))
    events = <uint64_t*>malloc(event_count * sizeof(uint64_t))
    if starts != NULL and ends != NULL and events != NULL:
        fill_events(columns, starts, ends, events)
        walk_events(columns, starts, ends, events, order)
    else:
        set_fault(fault, FAULT_NO_MEMORY, b"sorting paths", 0, 0, NULL)
        event_count = 0
    free(starts)
    free(ends)
    free(events)
    return 0 if event_count > 0 else fault.code
