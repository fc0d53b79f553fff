"""Devices that are not as one would like: blocks that do not read, sectors above blocks, blocks above pages."""

import os
import stat
import subprocess
from pathlib import Path

import numpy
import pytest

from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests import oracle
from tests.ext4_surgery import Surgeon
from tests.faulty import unreadable
from tests.support import need_programs

FILE_DAMAGED = 1


def map_image(image: Path) -> ExtentMap:
    with BlockDevice(image) as device:
        return Ext4(device).map()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images.need_ext4()
    need_programs("qemu-storage-daemon")
    image = images.make_image(tmp_path_factory.mktemp("good") / "image", 12, "-b", "1024", "-N", "600")
    with images.mounted(image) as point:
        images.write_alternate(point / "deep", 1000, 1024)
        (point / "folder").mkdir()
        (point / "folder" / "file").touch()
        (point / "slow").symlink_to("target" * 30)
        (point / "xattrs").touch()
        os.setxattr(point / "xattrs", "user.large", b"L" * 700)
        (point / "last").write_bytes(b"l" * 5000)
    return image


@pytest.fixture(scope="module")
def truth(good: Path) -> dict[bytes, oracle.Entry]:
    with images.mounted(good, "ro") as point:
        return oracle.walk(point)


@pytest.mark.root
@pytest.mark.parametrize(
    ("path", "text", "lost"),
    [
        ("/deep", "a block of its extent tree does not read", set()),
        ("/folder", "a directory block does not read", {b"folder/file"}),
        ("/slow", "its target does not read", set()),
        ("/xattrs", "its extended attribute block does not read", set()),
    ],
)
def test_a_block_that_does_not_read_costs_its_own_file_alone(
    good: Path, truth: dict[bytes, oracle.Entry], path: str, text: str, lost: set[bytes]
) -> None:
    surgeon = Surgeon(good)
    number = surgeon.number(path)
    offset = {
        "/deep": lambda: surgeon.nodes(number)[1],
        "/folder": lambda: surgeon.block(number, 0),
        "/slow": lambda: surgeon.block(number, 0),
        "/xattrs": lambda: surgeon.xattr_block(number),
    }[path]()
    with unreadable(good, offset) as faulty:
        extent_map = map_image(faulty)
    left = {name: entry for name, entry in truth.items() if name not in lost and name != os.fsencode(path[1:])}
    entries = oracle.map_entries(extent_map)
    entries.pop(os.fsencode(path[1:]))

    assert extent_map.problems == [(number, offset, text)]
    assert oracle.differences(left, entries) == []


@pytest.mark.root
def test_an_inode_block_that_does_not_read_costs_its_inodes_alone(good: Path) -> None:
    """Four inodes of 256 bytes stand in a block of 1024; the names that lead to them are reported."""
    surgeon = Surgeon(good)
    number = surgeon.number("/last")
    offset = surgeon.inode(number) // 1024 * 1024
    with unreadable(good, offset) as faulty:
        extent_map = map_image(faulty)
    first = (number - 1) // 4 * 4 + 1
    inodes = set(numpy.asarray(extent_map.files)["inode"].tolist())

    assert extent_map.problems[0] == (
        first,
        offset,
        "a block of the inode table does not read: inodes from this one on are lost",
    )
    assert inodes.isdisjoint(range(first, first + 4))
    assert {2, 11} < inodes


@pytest.mark.root
def test_sectors_of_4096_bytes_under_blocks_of_1024(tmp_path: Path) -> None:
    """Direct reads must then be aligned to more than a block."""
    images.need_ext4()
    need_programs("losetup")
    image = images.make_image(tmp_path / "image", 64, "-b", "1024")
    with images.mounted(image) as point:
        images.fill_names(point / "names")
        images.fill_xattrs(point / "xattrs")
        images.write_alternate(point / "deep", 1000, 1024)
    with images.mounted(image, "ro") as point:
        truth = oracle.walk(point)
    loop = subprocess.run(
        ["losetup", "-f", "--show", "-r", "--sector-size", "4096", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        with BlockDevice(loop) as device:
            assert device.logical_block_size == 4096
            extent_map = Ext4(device).map()
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []


@pytest.mark.parametrize("block_size", [16384, 65536])
def test_blocks_larger_than_the_kernel_mounts(tmp_path: Path, block_size: int) -> None:
    """Filled by mke2fs -d: names, attributes and contents are those of the folder."""
    need_programs("mke2fs")
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    for number in range(1000):
        (source / "folder" / f"a name that fills a large block {number:05}").write_bytes(b"%d" % number * 50)
    (source / "link").symlink_to("t" * 200)
    image = images.make_image(tmp_path / "image", 400, "-b", str(block_size), "-d", os.fspath(source))
    extent_map = map_image(image)
    raw = image.read_bytes()
    entries = oracle.map_entries(extent_map)
    entries.pop(b"lost+found")

    assert extent_map.problems == []
    assert entries.keys() == {b"", *(os.fsencode(path.relative_to(source)) for path in source.rglob("*"))}
    for path, entry in entries.items():
        about = (source / os.fsdecode(path)).lstat()
        if stat.S_ISREG(about.st_mode):
            logical, physical, size, flags = (entry.extents or [])[0]
            assert raw[physical : physical + size] == (source / os.fsdecode(path)).read_bytes()
            assert (logical, size, flags, entry.mode) == (0, about.st_size, 0, about.st_mode)
    assert entries[b"link"].target == b"t" * 200
