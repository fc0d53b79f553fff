"""mapfile writes extent maps to files and maps such files into memory. It does not judge what the columns say.

Layout, in the byte order of the writer: a header of 4096 bytes, then the sections in a fixed order, each padded with
zeros to 4096 bytes. The header: magic, version, byte order mark, header size, CRC32C of the header (taken with this
field zero), file size, device size, block size, number of sections, number of problems, UUID, type of file system;
then for each section its offset, number of records, bytes a record and the CRC32C of its padded bytes; zeros to the
end. Every byte is thus under some CRC, and every number but the counts has one right value.
"""

import mmap
import os
import stat
import struct
import tempfile

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t

from splitreel.core.checksum cimport cksum_finish, cksum_update, crc32c_update, crc32c_zeros
from splitreel.core.fault cimport FAULT_MAP_FILE, fault_t, raise_fault, set_fault
from splitreel.core.view cimport Column

MAGIC = b"SPLTMAP\n"
VERSION = 1
BYTE_ORDER_MARK = 0x01020304
ALIGNMENT = 4096
HEADER = struct.Struct("=8sIIIIQQIIQ16s16s")
SECTION = struct.Struct("=QQII")


cdef int refuse(object path, str why, int os_errno=0) except -1:
    """Raise MapError for this file."""
    cdef fault_t fault
    site = f"extent map {os.fsdecode(path)}".encode("utf-8", "replace")
    detail = why.encode()
    set_fault(&fault, FAULT_MAP_FILE, site, 0, 0, detail)
    fault.os_errno = os_errno
    return raise_fault(&fault)


cdef uint32_t crc_of(object data, uint64_t padding):
    """CRC32C of a buffer and the zeros after it."""
    cdef Py_buffer buffer
    cdef uint32_t crc
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    with nogil:
        crc = crc32c_zeros(crc32c_update(0, buffer.buf, <size_t>buffer.len), padding)
    PyBuffer_Release(&buffer)
    return crc


cdef bytes digest_columns(list columns):
    cdef Column column
    cdef uint32_t first, second
    cdef size_t size
    parts = []
    for column in columns:
        size = <size_t>(column.count * column.itemsize)
        with nogil:
            first = crc32c_update(0, column.data, size)
            second = cksum_finish(cksum_update(0, column.data, size), size)
        parts.append(struct.pack("<QII", size, first, second))
    return b"".join(parts)


# Writing.

def padding(size):
    return -size % ALIGNMENT


cdef bytes make_header(tuple identity, list columns):
    cdef Column column
    fs_type, uuid, block_size, device_size, problem_count = identity
    offset = ALIGNMENT
    table = []
    for column in columns:
        size = column.count * column.itemsize
        crc = crc_of(memoryview(column).cast("B") if size else b"", padding(size))
        table.append(SECTION.pack(offset, column.count, column.itemsize, crc))
        offset += size + padding(size)

    def header(crc):
        return (HEADER.pack(MAGIC, VERSION, BYTE_ORDER_MARK, ALIGNMENT, crc, offset, device_size, block_size,
                            len(columns), problem_count, uuid, fs_type.encode())
                + b"".join(table)).ljust(ALIGNMENT, b"\0")

    return header(crc_of(header(0), 0))


cdef int write_all(int fd, object data) except -1:
    view = memoryview(data)
    if view.nbytes == 0:
        return 0
    view = view.cast("B")
    while len(view):
        view = view[os.write(fd, view):]
    return 0


cdef int write_sections(int fd, bytes header, list columns) except -1:
    cdef Column column
    write_all(fd, header)
    for column in columns:
        write_all(fd, column)
        write_all(fd, bytes(padding(column.count * column.itemsize)))
    os.fsync(fd)
    return 0


cdef object write_map(object path, tuple identity, list columns):
    path = os.fspath(path)
    directory = os.path.dirname(path) or (b"." if isinstance(path, bytes) else ".")
    prefix = b".splitreel-map-" if isinstance(path, bytes) else ".splitreel-map-"
    try:
        fd, temporary = tempfile.mkstemp(prefix=prefix, dir=directory)     # mode 0600
        try:
            try:
                write_sections(fd, make_header(identity, columns), columns)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        refuse(path, "cannot be written", error.errno or 0)


# Reading.

cdef object map_file(object path):
    """The whole file, mapped read-only."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode) or about.st_size < ALIGNMENT:
                refuse(path, "it is not a saved map: too short, or not a regular file")
            return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
        finally:
            os.close(fd)
    except OSError as error:
        refuse(path, "cannot be read", error.errno or 0)


cdef tuple check_header(object path, object view):
    """The header's fields after every check that needs no section."""
    header = bytearray(view[:ALIGNMENT])
    fields = HEADER.unpack_from(header)
    magic, version, mark, size, crc, file_size = fields[:6]
    if magic != MAGIC:
        refuse(path, "it is not a saved map: no magic number")
    if mark != BYTE_ORDER_MARK:
        refuse(path, "it was saved by a machine of another byte order")
    if version != VERSION:
        refuse(path, f"it has format version {version}; this program reads version {VERSION}")
    header[20:24] = bytes(4)
    if size != ALIGNMENT or crc != crc_of(header, 0):
        refuse(path, "the checksum of its header does not match")
    if file_size != len(view) or fields[8] != SECTION_COUNT:
        refuse(path, f"it has {len(view)} bytes, and its header says {file_size}")
    if fields[7] == 0:
        refuse(path, "its block size is zero")
    return fields


cdef int check_section(object path, object view, int index, tuple record, uint64_t expected, int record_size) except -1:
    offset, count, size, crc = record
    end = offset + count * size
    if offset != expected or size != record_size or end + padding(end) > len(view):
        refuse(path, f"section {index} is not where it must be")
    if crc_of(view[offset:end + padding(end)], 0) != crc:
        refuse(path, f"the checksum of section {index} does not match")
    return 0


cdef tuple read_map(object path, tuple record_sizes, section_t* sections):
    cdef Py_buffer buffer
    cdef int i
    view = map_file(path)
    fields = check_header(path, view)
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    base = <uint64_t>buffer.buf
    PyBuffer_Release(&buffer)                      # the view keeps the memory mapped
    end = ALIGNMENT
    for i in range(SECTION_COUNT):
        record = SECTION.unpack_from(view, HEADER.size + i * SECTION.size)
        check_section(path, view, i, record, end, record_sizes[i])
        sections[i].data = <void*><uint64_t>(base + record[0])
        sections[i].count = record[1]
        end = record[0] + record[1] * record[2]
        end += padding(end)
    if end != len(view):
        refuse(path, "bytes follow its last section")
    device_size, block_size, _, problem_count, uuid, fs_type = fields[6:]
    return (fs_type.rstrip(b"\0").decode("ascii", "replace"), uuid, block_size, device_size, problem_count), view
