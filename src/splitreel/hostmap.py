"""hostmap maps a mounted file system by asking the kernel about every file (stat, FIEMAP). It reads no device.

This is how extents are found without a raw reader, and what the order ``conventional`` does while the database is held.
Its cost grows with the number of files: one open and one ioctl each. The kernel's answer is also an independent one.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from splitreel.core.extent import ExtentMap, pack_nanoseconds
from splitreel.errors import DeviceError

FS_IOC_FIEMAP = 0xC020660B
_HEADER = struct.Struct("<QQIIII")  # struct fiemap: start, length, flags, mapped_extents, extent_count, reserved
_EXTENT = struct.Struct("<QQQQQIIII")  # struct fiemap_extent: logical, physical, length, 2 reserved, flags, 3 reserved
_LAST = 0x1
_KEPT_FLAGS = 0x200 | 0x800 | 0x2000
_BATCH = 64
_REQUEST = bytes(_EXTENT.size * _BATCH)


def fiemap(fd: int) -> Iterator[tuple[int, int, int, int]]:
    """The extents of an open file: (logical, physical, length, flags), bytes and linux/fiemap.h flags.

    Delayed allocation shows as it is: sync the file system first.

    Raises:
        OSError: the file system has no FIEMAP.
    """
    start, last = 0, False
    while not last:
        buffer = bytearray(_HEADER.pack(start, (1 << 64) - 1 - start, 0, 0, _BATCH, 0) + _REQUEST)
        fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
        mapped = _HEADER.unpack_from(buffer)[3]
        last = mapped == 0
        for index in range(mapped):
            logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(
                buffer, _HEADER.size + index * _EXTENT.size
            )
            yield logical, physical, length, flags & _KEPT_FLAGS
            start = logical + length
            last = last or bool(flags & _LAST)


class _Walk:
    """One walk over a mount point; directories are visited once, files once for each inode."""

    def __init__(self, extents: ExtentMap) -> None:
        self.extents = extents
        self.files: dict[int, int] = {}

    def add(self, fd: int, name: bytes, parent: int) -> int:
        """The name, and its inode when it is new; returns the index of the name."""
        status = os.stat(name, dir_fd=fd, follow_symlinks=False) if name else os.fstat(fd)
        if status.st_ino not in self.files:
            self.files[status.st_ino] = self._add_file(fd, name, status)
        return self.extents.add_name(parent, self.files[status.st_ino], name)

    def _add_file(self, fd: int, name: bytes, status: os.stat_result) -> int:
        is_link = stat.S_ISLNK(status.st_mode)
        index = self.extents.add_file(
            status.st_ino,
            status.st_mode,
            size=status.st_size,
            mtime=pack_nanoseconds(status.st_mtime_ns),
            ctime=pack_nanoseconds(status.st_ctime_ns),
            uid=status.st_uid,
            gid=status.st_gid,
            link_count=status.st_nlink,
            target=os.readlink(name, dir_fd=fd) if is_link else None,
        )
        if stat.S_ISREG(status.st_mode) and status.st_blocks:
            self._add_extents(fd, name)
        return index

    def _add_extents(self, fd: int, name: bytes) -> None:
        size = self.extents.block_size
        file = os.open(name, os.O_RDONLY | os.O_NOATIME | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            for logical, physical, length, flags in fiemap(file):
                self.extents.add_extent(logical // size, physical // size, length // size, flags)
        finally:
            os.close(file)

    def directory(self, path: bytes, name: int) -> None:
        """All below one directory, without recursion: trees may be deeper than Python's stack."""
        pending = [(path, name)]
        while pending:
            current, parent = pending.pop()
            fd = os.open(current, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        index = self.add(fd, os.fsencode(entry.name), parent)
                        if entry.is_dir(follow_symlinks=False):
                            pending.append((current + b"/" + os.fsencode(entry.name), index))
            finally:
                os.close(fd)


def map_mounted(mount_point: str, fs_type: str, uuid: bytes, block_size: int, device_size: int) -> ExtentMap:
    """The map of a mounted file system; fingerprints are 0, and xattrs are left to the check.

    Args:
        block_size, device_size: bytes, as the file system's superblock has them.

    Raises:
        DeviceError: a file could not be asked about.
    """
    extents = ExtentMap(fs_type, uuid, block_size, device_size)
    walk = _Walk(extents)
    root = os.fsencode(mount_point)
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            name = walk.add(fd, b"", 0)
        finally:
            os.close(fd)
        walk.directory(root, name)
    except OSError as error:
        raise DeviceError(f"mapping {mount_point} through the kernel", str(error)) from error
    extents.finish()
    return extents
