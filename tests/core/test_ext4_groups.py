"""Where group descriptors stand in every layout, and which blocks are the file system's own: dumpe2fs is the oracle."""

import random
import re
import struct
import subprocess
from pathlib import Path

import numpy
import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests.ext4_surgery import Surgeon, debugfs
from tests.support import need_programs

LAYOUTS = [
    (1024, ("-g", "1024")),
    (1024, ("-O", "^extents,^64bit", "-g", "2048")),
    (1024, ("-O", "^sparse_super,^resize_inode", "-g", "1024")),
    (1024, ("-O", "sparse_super2", "-g", "1024")),
    (1024, ("-O", "sparse_super2,^resize_inode", "-g", "1024", "-E", "num_backup_sb=1")),
    (1024, ("-O", "meta_bg,^resize_inode,^64bit", "-g", "256")),
    (1024, ("-O", "meta_bg,^resize_inode,^sparse_super,^flex_bg", "-g", "256")),
    (1024, ("-O", "^flex_bg", "-E", "desc_size=1024", "-g", "1024")),
    (1024, ("-O", "bigalloc,^resize_inode", "-C", "16384", "-g", "4096")),
    (2048, ("-O", "bigalloc", "-C", "8192", "-g", "4096")),
    (4096, ("-O", "^metadata_csum,uninit_bg", "-g", "512")),
]


@pytest.fixture(autouse=True)
def _parts() -> None:
    need_programs("mke2fs", "debugfs", "dumpe2fs")


def map_image(path: Path) -> ExtentMap:
    with BlockDevice(path) as device:
        return Ext4(device).map()


def dumped(image: Path) -> str:
    return subprocess.run(["dumpe2fs", image], capture_output=True, text=True, check=True).stdout


def own_blocks(image: Path) -> set[int]:
    """Blocks of superblocks, descriptors, room for descriptors, bitmaps and inode tables, as dumpe2fs tells them."""
    text = dumped(image)
    found: set[int] = set()
    pattern = r"(?:superblock|descriptors?|blocks|bitmap|table) at (\d+)(?:-(\d+))?"
    for first, last in re.findall(pattern, text[text.index("Group 0:") :]):
        found.update(range(int(first), int(last or first) + 1))
    return found


def filled(tmp_path: Path, block_size: int, options: tuple[str, ...]) -> Path:
    """An image with a file of one extent, made without mounting it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"f" * 100)
    return images.make_image(tmp_path / "image", 24, "-b", str(block_size), *options, "-d", str(source))


def damaged(image: Path, number: int) -> bool:
    extent_map = map_image(image)
    return bool(numpy.asarray(extent_map.files)["flags"][extent_map.find_file(number)] & 1)


@pytest.mark.parametrize(("block_size", "options"), LAYOUTS, ids=str)
def test_a_block_is_data_or_the_file_system_s_own(tmp_path: Path, block_size: int, options: tuple[str, ...]) -> None:
    """A file whose one extent is moved to a block is damaged exactly when that is metadata or the journal's."""
    image = filled(tmp_path, block_size, options)
    own = own_blocks(image) | journal_blocks(image)
    count = image.stat().st_size // block_size
    others = set(range(2, count)) - own
    edges = {block + step for block in own for step in (-1, 1)} & others
    chance = random.Random(str(options))
    tried = {block for some in (own, edges, others) for block in chance.sample(sorted(some), min(20, len(some)))}
    tried -= {0, 1}
    surgeon = Surgeon(image)
    number = surgeon.number("/file")
    place = surgeon.inode(number) + 0x28
    by_extents = surgeon.read(place, 2) == b"\x0a\xf3"
    for block in sorted(tried):
        if by_extents:
            surgeon.write(place + 12, struct.pack("<IHHI", 0, 1, 0, block))
        else:
            surgeon.write(place, struct.pack("<I", block))
        surgeon.fix_inode(number)
        assert damaged(image, number) == (block in own), block
    assert len(tried & own) > 10
    assert len(tried - own) > 10


def journal_blocks(image: Path) -> set[int]:
    """What the journal has, and the blocks of its map; nothing of an unused inode."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", debugfs(image, "blocks <8>").replace(" ", "\n")):
        found.update(range(int(first), int(last or first) + 1))
    return found


def test_an_extent_that_only_reaches_into_metadata_is_damage(tmp_path: Path) -> None:
    """Its first block is good, its last is the copy of the superblock in the next group."""
    image = filled(tmp_path, 1024, ("-g", "1024", "-O", "^has_journal"))
    surgeon = Surgeon(image)
    number = surgeon.number("/file")
    for first, count, bad in ((1000, 25, False), (1000, 26, True), (1020, 500, True)):
        surgeon.write(surgeon.inode(number) + 0x28 + 12, struct.pack("<IHHI", 0, count, 0, first))
        surgeon.fix_inode(number)
        assert damaged(image, number) == bad


def test_a_first_meta_block_group_out_of_bounds_is_refused(tmp_path: Path) -> None:
    image = filled(tmp_path, 1024, ("-O", "meta_bg,^resize_inode", "-g", "256"))
    surgeon = Surgeon(image)
    for value, good in ((6, True), (7, False), (0xFFFFFFFF, False)):
        surgeon.write(1024 + 0x104, struct.pack("<I", value))
        surgeon.fix_superblock()
        with BlockDevice(image) as device:
            if good:
                Ext4(device)
                continue
            with pytest.raises(errors.Corrupt, match="s_first_meta_bg"):
                Ext4(device)


@pytest.mark.parametrize(
    ("offset", "form", "value", "words"),
    [
        (0x1C, "<I", 0, "s_log_cluster_size"),
        (0x1C, "<I", 21, "s_log_cluster_size"),
        (0x24, "<I", 17, "s_clusters_per_group"),
        (0x24, "<I", 0xFFFFFFFF, "s_clusters_per_group"),
    ],
)
def test_clusters_out_of_bounds_are_refused(tmp_path: Path, offset: int, form: str, value: int, words: str) -> None:
    image = filled(tmp_path, 2048, ("-O", "bigalloc", "-C", "8192"))
    surgeon = Surgeon(image)
    surgeon.write(1024 + offset, struct.pack(form, value))
    surgeon.fix_superblock()
    with BlockDevice(image) as device, pytest.raises(errors.Corrupt, match=words):
        Ext4(device)


def test_two_groups_with_one_inode_table_are_refused(tmp_path: Path) -> None:
    """Every inode of it would be there twice, under two numbers, and no checksum would say so."""
    image = filled(tmp_path, 1024, ("-O", "^metadata_csum,^uninit_bg,^64bit", "-g", "1024"))
    surgeon = Surgeon(image)
    surgeon.write(surgeon.group(3) + 8, surgeon.read(surgeon.group(1) + 8, 4))
    with pytest.raises(errors.Corrupt, match="inode tables of two groups overlap"):
        map_image(image)


def test_reserved_inodes_of_more_than_one_group(tmp_path: Path) -> None:
    """With 8 inodes a group, lost+found and the first file are inodes of the second: few files on a large device."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"f")
    options = ("-b", "1024", "-g", "512", "-N", "64", "-d", str(source))
    extent_map = map_image(images.make_image(tmp_path / "image", 16, *options))

    assert "Inodes per group:         8\n" in dumped(tmp_path / "image")
    assert set(extent_map.paths()) == {b"", b"lost+found", b"file"}
    assert extent_map.problems == []


@pytest.mark.root
def test_stale_inodes_of_a_former_file_system_are_not_read(tmp_path: Path) -> None:
    """A table that was never initialised holds what was there before: with uninit_bg its head alone is read."""
    images.need_ext4()
    image = images.make_image(tmp_path / "image", 16, "-b", "1024", "-N", "2048")
    with images.mounted(image) as point:
        for number in range(1500):
            (point / f"former {number}").touch()
    command = ["mke2fs", "-t", "ext4", "-q", "-F", "-b", "1024", "-N", "2048", "-E", "lazy_itable_init=1", image]
    subprocess.run([*command[:-1], "-O", "^metadata_csum,uninit_bg", image], check=True, capture_output=True)
    extent_map = map_image(image)

    assert extent_map.paths() == [b"", b"lost+found"]
    assert extent_map.problems == []
    with BlockDevice(image) as device:
        filesystem = Ext4(device)
        filesystem.map()
    assert filesystem.statistics["inodes"] == 2
