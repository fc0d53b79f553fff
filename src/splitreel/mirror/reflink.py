"""reflink clones the image file that a volume lives in, on XFS or btrfs. It is no mirror: both are on one disk.

FICLONE shares every block of the image with a new file, at one instant; what is written afterwards goes to new blocks.
So nothing is synchronised before and nothing copied back after, but the image is fragmented by every backup, needs room
for what is written meanwhile, and is lost with its disk. The file system in the image must be frozen.

Source: ioctl_ficlone(2).
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import ClassVar

from splitreel.errors import MirrorError
from splitreel.hostmap import fiemap
from splitreel.mirror import Hold, SplitImage, inuse

FICLONE = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h
FICLONERANGE = 0x4020940D  # _IOW(0x94, 13, struct file_clone_range)
UNWRITTEN = 0x800  # FIEMAP_EXTENT_UNWRITTEN
_RANGE = struct.Struct("=qQQQ")  # struct file_clone_range: fd, source offset, length, destination offset

_REASONS = {
    errno.EOPNOTSUPP: ("its file system cannot share blocks", "Use XFS made with reflink=1, or btrfs."),
    errno.ENOTTY: ("its file system cannot share blocks", "Use XFS made with reflink=1, or btrfs."),
    errno.EXDEV: ("the clone would be on another file system", "Put `image` on the file system of `source`."),
    errno.EINVAL: ("it cannot be cloned: swap space, or a file without copy on write", "See ioctl_ficlone(2)."),
    errno.ENOSPC: ("there is no room for the clone", "Make room on its file system."),
}

Extent = tuple[int, int, int]  # logical, physical, length, in bytes


class ReflinkMirror:
    """The image file ``source``, cloned to ``image``, which exists while it is split. Use from one thread."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "source": ("path", True),
        "image": ("path", True),
        "offset": ("integer", False),
        "room": ("size", False),
    }

    def __init__(self, source: str, image: str, offset: int = 0, room: int = -1) -> None:
        """``room``: bytes that must be free, for what is written while it is split; all of ``source`` when not given.

        Too little, and the database's own writes fail.
        """
        self.name = f"reflink {source}"
        self._source = source
        self._image = SplitImage(image, offset)
        self._room = room
        self._descriptors = (-1, -1)

    def check(self) -> None:
        """The image can be cloned to where it shall be, and there is room for what will be written meanwhile."""
        try:
            status = Path(self._source).stat()
            self._try_cloning(status)
        except OSError as error:
            raise self._refusal(error) from error
        if users := self._users():
            raise MirrorError(self.name, f"{self._image.path} is in use: {', '.join(users)}", "End that use of it.")
        needed = self._room if self._room >= 0 else status.st_blocks * 512
        free = os.statvfs(self._source)
        if free.f_bavail * free.f_frsize < needed:
            why = f"{free.f_bavail * free.f_frsize >> 20} MiB are free, up to {needed >> 20} may be written anew"
            raise MirrorError(self.name, why, "Make room, or set `room` to what is written during a backup.")

    def check_primary(self, device: str) -> None:
        """What is mounted lies in the image."""
        try:
            backing = [inuse.backing_file(node) for node in inuse.beneath(device)]
        except OSError:  # the image file itself, of a virtual machine
            backing = [Path(device)]
        if not any(inuse.same_file(Path(self._source), file) for file in backing if file is not None):
            raise MirrorError(self.name, f"{device} does not lie in it", "Correct `source`, or `mount`.")

    def cost(self) -> str:
        """Nothing is copied; what it costs otherwise."""
        pieces = len(self._extents(self._source))
        return (
            "nothing is copied back, but it is no mirror: the clone is on the primary's own disk, and what is written"
            f" while it is there goes to new places; the image has {pieces} extents now, more after every backup"
        )

    def files(self) -> list[str]:
        """Image and clone."""
        return [self._source, self._image.path]

    def state(self) -> str:
        """ "split" while there is a clone with something in it."""
        try:
            return "split" if Path(self._image.path).stat().st_size else "in-sync"
        except FileNotFoundError:
            return "in-sync"

    def establish(self) -> None:
        """Nothing is to be copied; a clone that is there is a session's that did not end."""
        if self.state() == "split":
            raise MirrorError(
                self.name, f"the clone {self._image.path} exists", "Run `splitreel resume`, or remove it."
            )

    def wait_in_sync(self, timeout_s: float) -> None:
        """Nothing: the image is its own copy."""

    def is_in_sync(self) -> bool:
        """Unless there is a clone already."""
        return self.state() == "in-sync"

    def flush(self) -> None:
        """Make the clone's empty file, and put on the medium what the clone would wait for."""
        self.close()
        source = os.open(self._source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(source)
            clone = os.open(self._image.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            os.close(source)
            raise self._refusal(error) from error
        self._descriptors = (source, clone)

    def split(self) -> SplitImage:
        """Clone it."""
        source, clone = self._descriptors
        try:
            fcntl.ioctl(clone, FICLONE, source)
        except OSError as error:
            raise self._refusal(error) from error
        return self._image

    def dirty_bytes(self) -> int | None:
        """What of the image lies elsewhere than in the clone by now: it was written meanwhile.

        The flag for shared extents does not tell: btrfs shares an extent as long as any of it is in use twice.
        """
        if self.state() != "split":
            return 0
        source = self._extents(self._source)
        return sum(length for _, _, length in source) - _common(source, self._extents(self._image.path))

    def resynced_bytes(self) -> int | None:
        """None were copied."""
        return 0

    def rejoin(self, hold: Hold) -> None:
        """Remove the clone."""
        self.close()
        try:
            Path(self._image.path).unlink(missing_ok=True)
        except OSError as error:
            raise self._refusal(error) from error

    def forget(self) -> None:
        """Remove the clone."""
        self.rejoin(contextlib.nullcontext)

    def close(self) -> None:
        """Close what ``flush`` opened."""
        for descriptor in self._descriptors:
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptors = (-1, -1)

    def _try_cloning(self, status: os.stat_result) -> None:
        """Clone the first block to a file without a name, which is gone when it is closed."""
        if not stat.S_ISREG(status.st_mode):
            raise MirrorError(self.name, "it is no image file", "Name the file that the volume lives in.")
        folder = str(Path(self._image.path).parent)
        source = os.open(self._source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            clone = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                length = min(os.fstatvfs(source).f_bsize, status.st_size)
                fcntl.ioctl(clone, FICLONERANGE, _RANGE.pack(source, 0, length, 0))
            finally:
                os.close(clone)
        finally:
            os.close(source)

    def _users(self) -> list[str]:
        try:
            return inuse.users(self._image.path)
        except FileNotFoundError:
            return []

    def _extents(self, path: str) -> list[Extent]:
        """What is written, flushed first: before, it has no place. XFS clones no unwritten space."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
            return [extent[:3] for extent in fiemap(descriptor) if not extent[3] & UNWRITTEN]
        finally:
            os.close(descriptor)

    def _refusal(self, error: OSError) -> MirrorError:
        why, advice = _REASONS.get(error.errno or 0, (str(error), "Correct `source` and `image`."))
        return MirrorError(self.name, why, advice)


def _common(one: list[Extent], other: list[Extent]) -> int:
    """How many bytes lie at the same place in both; each in logical order."""
    total = first = second = 0
    while first < len(one) and second < len(other):
        (logical, physical, length), (start, place, size) = one[first], other[second]
        overlap = min(logical + length, start + size) - max(logical, start)
        if overlap > 0 and physical - logical == place - start:
            total += overlap
        if logical + length <= start + size:
            first += 1
        else:
            second += 1
    return total
