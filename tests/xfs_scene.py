"""xfs_scene is one small XFS image with something of every kind of metadata, and what is asked of its maps."""

import fcntl
from pathlib import Path

import numpy

from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.xfs import Xfs
from tests import ext4_images as images
from tests.images import fillers
from tests.support import need_programs
from tests.xfs_images import make_image

FICLONE = 0x40049409
FILE_DAMAGED = 1
BLOCK = 1024


def make_good(path: Path) -> Path:
    """Trees of two levels, shared blocks, a directory of many blocks, xattrs and symlinks; two groups."""
    need_programs("xfs_db")
    image = make_image(path, 34, "-b", f"size={BLOCK}", "-d", "agcount=2")
    with images.mounted(image) as point:
        images.write_alternate(point / "deep", 3000, BLOCK)
        images.write_alternate(point / "wide", 160, BLOCK)
        (point / "many").mkdir()
        for number in range(200):
            (point / "many" / f"name{number:03}").write_bytes(b"m" * number)
        (point / "one").mkdir()
        (point / "one" / "file").write_bytes(b"o" * 5000)
        (point / "short").symlink_to("target")
        (point / "long").symlink_to("target" * 100)
        fillers.big_xattrs(point, BLOCK)
        (point / "original").write_bytes(fillers.pattern(20_000))
        with open(point / "original", "rb") as original, open(point / "copy", "wb") as copy:
            fcntl.ioctl(copy, FICLONE, original.fileno())
    return image


def map_image(image: Path) -> ExtentMap:
    with BlockDevice(image) as device:
        return Xfs(device).map()


def damaged_paths(extent_map: ExtentMap) -> set[bytes]:
    """Of files that are marked so."""
    flags = numpy.asarray(extent_map.files)["flags"]
    files = numpy.asarray(extent_map.names)["file"]
    return {extent_map.path_of(i) for i in range(extent_map.name_count) if flags[files[i]] & FILE_DAMAGED}


def texts(extent_map: ExtentMap) -> list[str]:
    """Of its problems."""
    return [text for _, _, text in extent_map.problems]
