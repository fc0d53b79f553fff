"""Block sizes that no kernel here mounts, and inodes of features that change what a file holds."""

import os
import struct
from pathlib import Path

import numpy
import pytest

from splitreel.cli import inspect
from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests import oracle
from tests.ext4_surgery import Surgeon
from tests.support import need_programs

FLAGS, MODE, SIZE = 0x20, 0x00, 0x04


@pytest.fixture(autouse=True)
def _parts() -> None:
    need_programs("mke2fs", "debugfs")


def map_image(path: Path) -> ExtentMap:
    with BlockDevice(path) as device:
        return Ext4(device).map()


def content(image: Path, extent_map: ExtentMap, path: bytes) -> bytes:
    """A file's bytes, as the verb cat writes them."""
    index = int(numpy.asarray(extent_map.names)[extent_map.find(path)]["file"])
    with BlockDevice(image) as device:
        return b"".join(inspect.file_pieces(extent_map, index, device))


def fill(folder: Path, block_size: int) -> None:
    """A tree for mke2fs -d: sizes round a block, holes, more names than a block holds, links, owners, times."""
    for size in (0, 1, block_size - 1, block_size, block_size + 1, 13 * block_size + 5):
        (folder / f"size{size}").write_bytes(bytes(i % 251 for i in range(size)))
    images.write_blocks(folder / "sparse", block_size, [0, 11, 12, 40, 300], 400 * block_size)
    images.write_alternate(folder / "alternate", 1500, block_size)
    (folder / "many").mkdir()
    for number in range(3 * block_size // 200):
        (folder / "many" / f"{number:05} {'n' * 200}").touch()
    (folder / "fast").symlink_to("target")
    (folder / "slow").symlink_to("t" * 200)
    os.link(folder / "size1", folder / "many" / "one more name")
    (folder / "old").write_bytes(b"o")
    os.utime(folder / "old", ns=(0, -(10**18)))
    (folder / "old").chmod(0o4711)


@pytest.mark.parametrize("block_size", [16384, 65536])
@pytest.mark.parametrize("options", [(), ("-O", "^extents,^64bit,^has_journal")], ids=["extents", "indirect"])
def test_blocks_larger_than_a_page(tmp_path: Path, block_size: int, options: tuple[str, ...]) -> None:
    """What mke2fs copied from a directory is in the map and reads the same: names, attributes, contents."""
    source = tmp_path / "source"
    source.mkdir()
    fill(source, block_size)
    image = images.make_image(tmp_path / "image", 512, "-b", str(block_size), *options, "-d", str(source))
    extent_map = map_image(image)
    entries = oracle.map_entries(extent_map)
    truth = {path: entry for path, entry in oracle.walk(source).items() if path}

    assert extent_map.problems == []
    assert entries.keys() - {b"", b"lost+found"} == truth.keys()
    for path, entry in truth.items():
        found = entries[path]
        assert (found.mode, found.uid, found.gid, found.target) == (entry.mode, entry.uid, entry.gid, entry.target)
        assert found.mtime_ns // 10**9 == entry.mtime_ns // 10**9
        if entry.target is None and not path.startswith(b"many"):
            assert content(image, extent_map, path) == (source / os.fsdecode(path)).read_bytes(), path
    assert entries[b"many/one more name"].inode == entries[b"size1"].inode
    assert len(entries[b"alternate"].extents or []) == 750


@pytest.fixture
def small(tmp_path: Path) -> Surgeon:
    """An image with a file of 20 KB, made without mounting it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(bytes(range(250)) * 80)
    (source / "other").write_bytes(b"other")
    return Surgeon(images.make_image(tmp_path / "image", 16, "-b", "1024", "-d", str(source)))


def change(surgeon: Surgeon, path: str, offset: int, form: str, value: int) -> int:
    """Set a field of an inode, checksum and all; returns the inode's number."""
    number = surgeon.number(path)
    surgeon.write(surgeon.inode(number) + offset, struct.pack(form, value))
    surgeon.fix_inode(number)
    return number


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        (0x800, "encrypted: without the key neither names nor contents can be read"),
        (0x200, "compressed by e2compr, which is not supported"),
    ],
    ids=["encrypt", "comprblk"],
)
def test_what_is_not_stored_as_it_reads_is_damage(small: Surgeon, flag: int, text: str) -> None:
    """Ciphertext and compressed clusters are never a plain file; the file beside is read."""
    number = change(small, "/file", FLAGS, "<I", 0x80000 | flag)
    extent_map = map_image(small.image)
    files = numpy.asarray(extent_map.files)

    assert extent_map.problems == [(number, 0, text)]
    assert [int(row["inode"]) for row in files[files["flags"] & 1 != 0]] == [number]
    assert files[extent_map.find_file(number)]["extent_count"] == 0
    assert content(small.image, extent_map, b"other") == b"other"


def test_the_wish_to_be_compressed_changes_nothing(small: Surgeon) -> None:
    """chattr +c sets a flag that no kernel acts on: the file is as it was."""
    change(small, "/file", FLAGS, "<I", 0x80000 | 0x4)
    extent_map = map_image(small.image)

    assert extent_map.problems == []
    assert content(small.image, extent_map, b"file") == bytes(range(250)) * 80


def test_a_file_with_verity_ends_where_its_size_says(small: Surgeon) -> None:
    """The Merkle tree stands behind the end of the file, in blocks of its own: it is no data."""
    change(small, "/file", SIZE, "<I", 2500)
    change(small, "/file", FLAGS, "<I", 0x80000 | 0x100000)
    extent_map = map_image(small.image)

    assert extent_map.problems == []
    assert content(small.image, extent_map, b"file") == (bytes(range(250)) * 80)[:2500]


def test_the_high_word_of_the_attribute_block_needs_64bit(tmp_path: Path) -> None:
    """In a file system of the Hurd the same two bytes are the mode's."""
    image = images.make_image(tmp_path / "image", 16, "-b", "1024", "-o", "hurd", kind="ext2")
    surgeon = Surgeon(image)
    surgeon.write(surgeon.inode(2) + 0x76, b"\xff\xff")
    extent_map = map_image(image)
    with BlockDevice(image) as device:
        warnings = Ext4(device).warnings

    assert extent_map.problems == []
    assert warnings == ["made by the Hurd: translators and the high mode word are not read"]
