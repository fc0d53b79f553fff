"""oracle says what a mounted file system holds, from system calls alone, and what a map says, in the same words."""

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy

FS_IOC_FIEMAP = 0xC020660B
FS_IOC_GETVERSION = 0x80087601
FIEMAP_ROWS = 500
FIEMAP_LAST = 0x1
KEPT_FLAGS = 0x800 | 0x2000  # unwritten, shared
UNMAPPED_FLAGS = 0x2 | 0x4 | 0x8 | 0x200  # unknown, delayed, encoded, inline

Extent = tuple[int, int, int, int]


@dataclass
class Entry:
    """One path: what lstat, readlink, listxattr, getxattr, FIEMAP and FS_IOC_GETVERSION say. Extents in bytes."""

    inode: int
    mode: int
    uid: int
    gid: int
    size: int
    link_count: int
    mtime_ns: int
    ctime_ns: int
    rdev: tuple[int, int] = (0, 0)
    target: bytes | None = None
    generation: int | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    extents: list[Extent] | None = None


def merged(rows: list[Extent], size: int) -> list[Extent]:
    """Adjacent extents of one kind as one, cut at the end of the file: what lies beyond holds no data."""
    result: list[Extent] = []
    for logical, physical, wanted, flags in rows:
        length = min(wanted, size - logical)
        if length <= 0:
            continue
        kind = flags & KEPT_FLAGS
        if result:
            before = result[-1]
            if (before[0] + before[2], before[1] + before[2], before[3]) == (logical, physical, kind):
                result[-1] = (before[0], before[1], before[2] + length, kind)
                continue
        result.append((logical, physical, length, kind))
    return result


def fiemap(descriptor: int, size: int) -> list[Extent] | None:
    """Extents of an open file or directory, merged; None where a row has no place on the device."""
    rows: list[Extent] = []
    start = 0
    while True:
        header = struct.pack("<QQIIII", start, 2**64 - 1 - start, 0, 0, FIEMAP_ROWS, 0)
        reply = bytearray(header + bytes(56 * FIEMAP_ROWS))
        fcntl.ioctl(descriptor, FS_IOC_FIEMAP, reply, True)
        count = struct.unpack_from("<I", reply, 20)[0]
        for index in range(count):
            logical, physical, length, _, _, flags = struct.unpack_from("<QQQQQI", reply, 32 + 56 * index)
            if flags & UNMAPPED_FLAGS:
                return None
            rows.append((logical, physical, length, flags))
        if count == 0 or flags & FIEMAP_LAST:
            return merged(rows, size)
        start = logical + length


def look_at(path: bytes) -> Entry:
    """The entry of one path; the last component is not followed."""
    about = os.lstat(path)
    entry = Entry(
        about.st_ino,
        about.st_mode,
        about.st_uid,
        about.st_gid,
        about.st_size,
        about.st_nlink,
        about.st_mtime_ns,
        about.st_ctime_ns,
    )
    if stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
        entry.rdev = (os.major(about.st_rdev), os.minor(about.st_rdev))
    if stat.S_ISLNK(about.st_mode):
        entry.target = os.readlink(path)  # noqa: PTH115  (a Path cannot hold every target: it drops slashes)
    for name in os.listxattr(path, follow_symlinks=False):
        entry.xattrs[name] = os.getxattr(path, name, follow_symlinks=False)
    if stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME)
        try:
            entry.extents = fiemap(descriptor, about.st_size)
            reply = fcntl.ioctl(descriptor, FS_IOC_GETVERSION, bytes(8))
            entry.generation = struct.unpack("<I", reply[:4])[0]
        finally:
            os.close(descriptor)
    return entry


def _walk(directory: int, path: bytes) -> Iterator[tuple[bytes, Entry]]:
    # Through a descriptor for each level: the paths may be longer than the kernel takes.
    here = b"/proc/self/fd/%d" % directory
    for name in os.listdir(here):  # noqa: PTH208  (names as bytes)
        entry = look_at(here + b"/" + name)
        below = path + b"/" + name if path else name
        yield below, entry
        if stat.S_ISDIR(entry.mode):
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                yield from _walk(descriptor, below)
            finally:
                os.close(descriptor)


def walk(root: Path) -> dict[bytes, Entry]:
    """Every path below a mount point, without a leading slash; the root is the empty path."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {b"": look_at(os.fsencode(root)), **dict(_walk(descriptor, b""))}
    finally:
        os.close(descriptor)


def nanoseconds(packed: int) -> int:
    """Nanoseconds since 1970 of a packed time: 34 bits of seconds since -2^31, 30 bits of nanoseconds."""
    return ((packed >> 30) - (1 << 31)) * 1_000_000_000 + (packed & 0x3FFFFFFF)


def described(extent_map: Any, index: int) -> Entry:
    """The entry of files[index] of a sealed map."""
    block_size = extent_map.block_size
    row = numpy.asarray(extent_map.files)[index]
    mode = int(row["mode"])
    entry = Entry(
        int(row["inode"]),
        mode,
        int(row["uid"]),
        int(row["gid"]),
        int(row["size"]),
        int(row["link_count"]),
        nanoseconds(int(row["mtime"])),
        nanoseconds(int(row["ctime"])),
        rdev=(int(row["rdev"]) >> 20, int(row["rdev"]) & 0xFFFFF),
        target=extent_map.target(index),
        xattrs=extent_map.xattrs(index),
    )
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        first = int(row["first_extent"])
        rows = numpy.asarray(extent_map.extents)[first : first + int(row["extent_count"])]
        extents = [
            (
                int(r["logical"]) * block_size,
                int(r["physical"]) * block_size,
                int(r["count"]) * block_size,
                int(r["flags"]),
            )
            for r in rows
        ]
        entry.extents = merged(extents, entry.size)
        entry.generation = int(row["generation"])
    return entry


def map_entries(extent_map: Any) -> dict[bytes, Entry]:
    """Every path of a sealed map."""
    names = numpy.asarray(extent_map.names)
    files = {int(index): described(extent_map, int(index)) for index in set(names["file"])}
    return {extent_map.path_of(i): files[int(names[i]["file"])] for i in range(extent_map.name_count)}


def differences(want: dict[bytes, Entry], got: dict[bytes, Entry]) -> list[str]:
    """What differs, one line for each field of each path; empty when equal."""
    lines = [f"{path!r} is missing" for path in sorted(want.keys() - got.keys())]
    lines += [f"{path!r} is too much" for path in sorted(got.keys() - want.keys())]
    for path in sorted(want.keys() & got.keys()):
        for column in fields(Entry):
            truth, value = getattr(want[path], column.name), getattr(got[path], column.name)
            if truth != value and not (column.name == "extents" and truth is None):
                lines.append(f"{path!r}: {column.name} is {value!r}, must be {truth!r}")
    return lines
