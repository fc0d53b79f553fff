"""view shows arrays of core to Python through the buffer protocol, read-only, without a copy. It knows no map.

``numpy.asarray(column)`` is an array (structured where the records are structs) over the same memory.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE, Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint64_t
from libc.stdlib cimport free


cdef bytes FILE_FORMAT = (
    b"T{=Q:inode:=Q:size:=Q:mtime:=Q:ctime:=Q:fingerprint:=Q:first_extent:=Q:heap_offset:=I:extent_count:=I:heap_size:"
    b"=I:generation:=I:uid:=I:gid:=I:rdev:=I:link_count:=H:mode:=H:flags:}"
)
cdef bytes EXTENT_FORMAT = b"T{=Q:logical:=Q:physical:=I:count:=I:flags:}"
cdef bytes NAME_FORMAT = b"T{=I:parent:=I:file:=I:name_offset:=I:name_size:}"


@cython.no_gc_clear  # __dealloc__ must still know whether the memory is its own
cdef class Column:
    """A read-only buffer over a column of a sealed map; len() is the number of records. Made by ExtentMap."""

    def __cinit__(self):
        self.data = NULL
        self.count = 0

    def __dealloc__(self):
        if self.owner is None:
            free(self.data)

    def __len__(self):
        return self.count

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if flags & PyBUF_WRITABLE == PyBUF_WRITABLE:
            raise BufferError("a column of a sealed map is read-only")
        buffer.buf = self.data
        buffer.obj = self
        buffer.len = self.count * self.itemsize
        buffer.itemsize = self.itemsize
        buffer.readonly = 1
        buffer.ndim = 1
        buffer.format = PyBytes_AS_STRING(self.format) if flags & PyBUF_FORMAT else NULL
        buffer.shape = &self.count if flags & PyBUF_ND else NULL
        buffer.strides = &self.itemsize if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL


cdef Column make_column(object owner, void* data, uint64_t count, Py_ssize_t itemsize, bytes format):
    cdef Column column = Column()
    if owner is None and data == NULL:
        raise MemoryError("no memory for a column")
    column.owner = owner
    column.data = data if data != NULL else <void*>PyBytes_AS_STRING(format)
    column.count = <Py_ssize_t>count
    column.itemsize = itemsize
    column.format = format
    return column
