"""seeds are the images that are injured: each small, with one of everything its file system can hold.

They stand in corpus/, compressed. ``python -m tests.fuzz.seeds`` makes them anew, through the kernel.
"""

import lzma
import os
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from splitreel.core.device import BlockDevice
from splitreel.mapping import open_filesystem
from tests import crash, ext4_images
from tests.images.table import SMALL_XFS
from tests.support import unmount

FOLDER = Path(__file__).parent / "corpus"
SECTOR = 512
S_IFMT, S_IFREG = 0o170000, 0o100000
MAKE = {
    "ext2-revision0": (2, 1024, "mke2fs -q -F -t ext2 -r 0 -b 1024 -N 256"),
    "ext3": (4, 1024, "mke2fs -q -F -t ext3 -b 1024 -N 320 -J size=1"),
    "ext4": (6, 1024, "mke2fs -q -F -t ext4 -b 1024 -N 320 -J size=1"),
    "ext4-4k": (16, 4096, "mke2fs -q -F -t ext4 -b 4096 -N 320 -J size=4 -O metadata_csum_seed,orphan_file"),
    "ext4-no-checksums": (
        4,
        1024,
        "mke2fs -q -F -t ext4 -b 1024 -N 320 -O ^has_journal,^metadata_csum,meta_bg,^resize_inode",
    ),
    "ext4-inline": (4, 1024, "mke2fs -q -F -t ext4 -b 1024 -I 512 -N 320 -O inline_data,ea_inode,^has_journal"),
    "ext4-bigalloc": (8, 1024, "mke2fs -q -F -t ext4 -b 1024 -N 320 -O bigalloc,large_dir,^has_journal -C 4096"),
    "xfs": (40, 4096, "mkfs.xfs -q -f -b size=4096 -d agcount=2 -m rmapbt=1 -l size=13m"),
    "xfs-1k": (40, 1024, "mkfs.xfs -q -f -b size=1024 -d agcount=2 -n size=4096 -i nrext64=1 -l size=10m"),
}
# these are cut off while they are in use: what is read stands in their journals
UNCLEAN = {
    "ext4-unclean": (6, 1024, "mke2fs -q -F -t ext4 -b 1024 -N 320 -J size=1", "data=journal"),
    "ext4-fast-commits": (6, 1024, "mke2fs -q -F -t ext4 -b 1024 -N 320 -J size=1 -O fast_commit,orphan_file", ""),
    "ext3-unclean": (6, 1024, "mke2fs -q -F -t ext3 -b 1024 -N 320 -J size=1", "data=ordered"),
}


@dataclass
class Seed:
    """An image in memory, and where it may be injured."""

    name: str
    data: bytes = field(repr=False)

    @cached_property
    def places(self) -> list[int]:
        """Offsets of sectors that hold metadata: neither empty nor the content of a file."""
        sectors = np.frombuffer(self.data, np.uint8).reshape(-1, SECTOR).any(axis=1)
        with tempfile.NamedTemporaryFile() as image:
            image.write(self.data)
            image.flush()
            with BlockDevice(image.name) as device:
                extent_map = open_filesystem(device, frozen=True).map()
        block = extent_map.block_size
        for row in np.asarray(extent_map.files):
            if row["mode"] & S_IFMT != S_IFREG:
                continue
            first = int(row["first_extent"])
            for extent in np.asarray(extent_map.extents)[first : first + int(row["extent_count"])]:
                start = int(extent["physical"]) * block // SECTOR
                sectors[start : start + int(extent["count"]) * block // SECTOR] = False
        sectors[log_body(self.data)] = False
        return [int(number) * SECTOR for number in np.flatnonzero(sectors)]


def log_body(data: bytes) -> slice:
    """Sectors of an XFS log behind its first few: each bears a cycle number, and they are most of it."""
    if data[:4] != b"XFSB":
        return slice(0)
    block, ag_blocks, blocks = (struct.unpack_from(">I", data, at)[0] for at in (4, 84, 96))
    start, shift = struct.unpack_from(">Q", data, 48)[0], data[124]
    first = ((start >> shift) * ag_blocks + (start & ((1 << shift) - 1))) * block // SECTOR
    return slice(first + 8, first + blocks * block // SECTOR)


def load(name: str) -> Seed:
    """One of the images in corpus/."""
    return Seed(name, lzma.decompress((FOLDER / f"{name}.img.xz").read_bytes()))


def names() -> list[str]:
    return sorted(path.name.removesuffix(".img.xz") for path in FOLDER.glob("*.img.xz"))


def populate(root: Path, block: int) -> None:
    """A little of everything: deep and long extent trees, a directory with an index, attributes inside and outside."""
    (root / "empty").touch()
    (root / "small").write_bytes(b"small\n")
    (root / "plain").write_bytes(bytes(range(251)) * (3 * block // 251 + 1))
    with (root / "holes").open("wb") as file:
        for number in range(100):
            file.seek(2 * number * block)
            file.write(b"%8d" % number)
    with (root / "far").open("wb") as file:
        file.seek((12 + block // 4 + 5) * block)
        file.write(b"behind the single indirect block")
    (root / "many").mkdir()
    for number in range(120):
        (root / "many" / f"{'name' * 8}{number}").symlink_to("short")
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "a" / "b" / "c" / "file").write_bytes(b"deep")
    (root / "slow").symlink_to("target/" * 40)
    os.link(root / "small", root / "a" / "link")
    os.mknod(root / "device", 0o020600, os.makedev(8, 1))
    os.mkfifo(root / "fifo")
    for number in range(4):
        os.setxattr(root / "small", f"user.number{number}", b"v" * 30 * number)
        os.setxattr(root / "plain", f"user.large{number}", b"V" * 150)
    for name, size in (("user.remote", 3000), ("user.other", 2000)):
        try:
            os.setxattr(root / "plain", name, b"R" * size)
        except OSError:  # no room: only XFS and ea_inode have it
            break
    acl = b"\2\0\0\0" + b"".join(t + b"\7\0" + i for t, i in ((b"\1\0", b"\xff" * 4), (b"\2\0", b"\5\0\0\0")))
    acl += b"".join(t + b"\5\0" + b"\xff" * 4 for t in (b"\4\0", b"\x10\0", b"\x20\0"))
    os.setxattr(root / "a", "system.posix_acl_access", acl)


def make(name: str) -> bytes:
    """The image ``name``, made by mkfs and the kernel."""
    megabytes, block, command = MAKE[name]
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run([*command.split(), image], check=True, env={**os.environ, **SMALL_XFS})
        with ext4_images.mounted(image) as point:
            populate(point, block)
        if name.startswith("xfs"):  # its log is most of what is not empty, and clean: injuries there say little
            subprocess.run(["xfs_repair", "-L", image], check=True, capture_output=True)
        return image.read_bytes()


def make_unclean(name: str) -> bytes:
    """The image ``name`` as a crash leaves it: nothing that fsync promised has been put in its place."""
    megabytes, block, command, options = UNCLEAN[name]
    with tempfile.TemporaryDirectory() as folder:
        image, point = Path(folder) / "image", Path(folder) / "point"
        point.mkdir()
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run([*command.split(), image], check=True)
        with crash.logged(image) as (loop, _):
            subprocess.run(["mount", "-o", options or "defaults", loop, point], check=True)
            try:
                populate(point, block)
                for number in range(12):
                    disturb(point, number)
                return image.read_bytes()
            finally:
                unmount(point)


def disturb(root: Path, number: int) -> None:
    """A change and what makes it durable; some end names, some blocks, some leave an orphan."""
    with (root / f"new{number}").open("wb") as file:
        file.write(bytes.fromhex("C03B3998") * 700 * (number % 3))
        file.flush()
        os.fsync(file.fileno())
        if number % 4 == 1:
            (root / f"new{number}").unlink()
        elif number % 4 == 2:
            (root / f"new{number}").rename(root / f"old{number}")
            (root / "many" / f"{'name' * 8}{number}").unlink()
        elif number % 4 == 3:
            os.ftruncate(file.fileno(), 1000)
            (root / f"folder{number}").mkdir()
        os.fsync(file.fileno())


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for wanted in sys.argv[1:] or [*MAKE, *UNCLEAN]:
        made = make_unclean(wanted) if wanted in UNCLEAN else make(wanted)
        compressed = lzma.compress(made, preset=9 | lzma.PRESET_EXTREME)
        (FOLDER / f"{wanted}.img.xz").write_bytes(compressed)
        print(f"{wanted}: {len(compressed)} bytes, {len(load(wanted).places)} sectors of metadata")
