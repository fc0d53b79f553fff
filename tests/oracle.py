"""oracle says what a mounted file system holds, from system calls alone, and what a map says, in the same words."""

import errno
import fcntl
import hashlib
import os
import resource
import stat
import struct
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy

FS_IOC_FIEMAP = 0xC020660B
FS_IOC_GETVERSION = 0x80087601
XFS_IOC_GETBMAPX = 0xC0205838
FIEMAP_ROWS = 500
FIEMAP_LAST = 0x1
BMV_IF_PREALLOC, BMV_IF_NO_HOLES = 0x4, 0x10  # xfs_fs.h: tell unwritten extents; leave out holes
BMV_OF_PREALLOC, BMV_OF_LAST, BMV_OF_SHARED = 0x1, 0x4, 0x8
PIECE = 4096  # of contents
KEPT_FLAGS = 0x800 | 0x2000  # unwritten, shared
UNMAPPED_FLAGS = 0x2 | 0x4 | 0x8 | 0x200  # unknown, delayed, encoded, inline

Extent = tuple[int, int, int, int]


@dataclass
class Entry:
    """One path: what lstat, readlink, listxattr, getxattr, FIEMAP and FS_IOC_GETVERSION say. Extents in bytes.

    ``content`` is what digest says of the bytes, of files only, and only where that was asked for.
    """

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
    content: str | None = None


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


def getbmapx(descriptor: int, size: int) -> list[Extent]:
    """The same by XFS_IOC_GETBMAPX, in units of 512 bytes: XFS has no FIEMAP of directories."""
    rows: list[Extent] = []
    start = 0
    while True:
        header = struct.pack("<qqqiiiiii", start, 0, -1, FIEMAP_ROWS + 1, 0, BMV_IF_PREALLOC | BMV_IF_NO_HOLES, 0, 0, 0)
        reply = bytearray(header + bytes(48 * FIEMAP_ROWS))
        fcntl.ioctl(descriptor, XFS_IOC_GETBMAPX, reply, True)
        count = struct.unpack_from("<i", reply, 28)[0]
        last = 0
        for index in range(1, count + 1):
            logical, physical, length, _, _, last = struct.unpack_from("<qqqiii", reply, 48 * index)
            flags = (0x800 if last & BMV_OF_PREALLOC else 0) | (0x2000 if last & BMV_OF_SHARED else 0)
            if physical >= 0:
                rows.append((logical * 512, physical * 512, length * 512, flags))
            start = logical + length
        if count < FIEMAP_ROWS or last & BMV_OF_LAST:
            return merged(rows, size)


def extents_of(descriptor: int, size: int) -> list[Extent] | None:
    """The extents of an open file or directory, by whatever the file system offers; None on one that is no disk's."""
    try:
        return fiemap(descriptor, size)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    try:
        return getbmapx(descriptor, size)
    except OSError as error:
        if error.errno != errno.ENOTTY:  # a source folder in tmpfs
            raise
        return None


class Digest:
    """SHA-256 of contents whatever of their zeros is a hole: of each piece of 4096 bytes that is not all zeros."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def update(self, offset: int, data: bytes) -> None:
        """Add bytes of an aligned offset, whole pieces unless they are the file's last."""
        if not data.strip(b"\0"):
            return
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            if piece.strip(b"\0"):
                self.hash.update(struct.pack("<Q", offset + at) + piece.ljust(PIECE, b"\0"))

    def hexdigest(self) -> str:
        return self.hash.hexdigest()


def digest(descriptor: int, size: int) -> str:
    """The Digest of an open file, read where SEEK_DATA says that there are data."""
    result, at = Digest(), 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
            at = min(size, -(-os.lseek(descriptor, start, os.SEEK_HOLE) // PIECE) * PIECE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        for offset in range(start // PIECE * PIECE, at, 1 << 20):
            result.update(offset, os.pread(descriptor, min(1 << 20, at - offset), offset))
    return result.hexdigest()


def generation(descriptor: int) -> int | None:
    """The inode's, None in tmpfs."""
    try:
        reply = fcntl.ioctl(descriptor, FS_IOC_GETVERSION, bytes(8))
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        return None
    return int(struct.unpack("<I", reply[:4])[0])


def look_at(path: bytes, with_content: bool = False) -> Entry:
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
        if name.startswith("trusted.SGI_ACL_"):  # XFS shows root its ACLs a second time, as they are stored
            continue
        entry.xattrs[name] = os.getxattr(path, name, follow_symlinks=False)
    if stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME)
        try:
            entry.extents = extents_of(descriptor, about.st_size)
            entry.generation = generation(descriptor)
            if with_content and stat.S_ISREG(about.st_mode):
                entry.content = digest(descriptor, about.st_size)
        finally:
            os.close(descriptor)
    return entry


def _open_directory(name: bytes, parent: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


def walk(root: Path, with_content: bool = False) -> dict[bytes, Entry]:
    """Every path below a mount point, without a leading slash; the root is the empty path.

    Through a descriptor for each level: the paths may be longer than the kernel takes.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    found = {b"": look_at(os.fsencode(root))}
    levels: list[tuple[int, bytes, list[bytes]]] = []

    def enter(descriptor: int, path: bytes) -> None:
        names = os.listdir(b"/proc/self/fd/%d" % descriptor)  # noqa: PTH208  (names as bytes)
        levels.append((descriptor, path, names))

    enter(os.open(root, os.O_RDONLY | os.O_DIRECTORY), b"")
    try:
        while levels:
            descriptor, path, names = levels[-1]
            if not names:
                os.close(levels.pop()[0])
                continue
            name = names.pop()
            below = path + b"/" + name if path else name
            found[below] = look_at(b"/proc/self/fd/%d/%s" % (descriptor, name), with_content)
            if stat.S_ISDIR(found[below].mode):
                enter(_open_directory(name, descriptor), below)
    finally:
        for descriptor, _, _ in levels:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return found


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
        target=extent_map.target(index) if stat.S_ISLNK(mode) else None,
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
            if truth != value and not (column.name in ("extents", "content") and truth is None):
                lines.append(f"{path!r}: {column.name} is {value!r}, must be {truth!r}")
    return lines
