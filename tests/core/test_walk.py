"""The walk over names: names that stand twice in a directory, wherever its blocks lie, and blocks that do not read."""

import os
from pathlib import Path

import numpy
import pytest

from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests.core.test_ext4_devices import unreadable
from tests.ext4_surgery import Surgeon
from tests.support import need_programs

pytestmark = pytest.mark.root

TWICE = "an entry whose name another one in its directory has: left out"
FILE_DAMAGED = 1


def name_of(number: int) -> str:
    """Four to a block of 1 KiB."""
    return f"{number:05}" + "n" * 220


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of one block; two whose blocks alternate, so that each is many pieces; one of 60 adjacent blocks."""
    images.need_ext4()
    image = images.make_image(
        tmp_path_factory.mktemp("good") / "image", 24, "-b", "1024", "-N", "4000", "-O", "^dir_index,^has_journal"
    )
    with images.mounted(image) as point:
        for folder in ("small", "spread", "other", "large"):
            (point / folder).mkdir()
        for number in range(3):
            (point / "small" / name_of(number)).touch()
        for number in range(120):
            (point / "spread" / name_of(number)).touch()
            (point / "other" / name_of(number)).touch()
        for number in range(240):
            (point / "large" / name_of(number)).touch()
    return image


@pytest.fixture
def surgeon(good: Path, tmp_path: Path) -> Surgeon:
    return Surgeon(images.copy_sparse(good, tmp_path / "image"))


def map_image(image: Path) -> ExtentMap:
    with BlockDevice(image) as device:
        return Ext4(device, frozen=True).map()


def extents_of(extent_map: ExtentMap, number: int) -> int:
    return int(numpy.asarray(extent_map.files)["extent_count"][extent_map.find_file(number)])


def rename(surgeon: Surgeon, folder: str, number: int, old: str, new: str) -> int:
    """Change a name in a directory's block to another of its length; returns the offset of the entry."""
    inode = surgeon.number(f"/{folder}")
    for logical in range(number // 4 + 2):
        block = surgeon.block(inode, logical)
        at = surgeon.read(block, surgeon.block_size).find(old.encode())
        if at >= 0:
            surgeon.write(block + at, new.encode())
            surgeon.fix_directory_block(inode, block)
            return block + at - 8
    raise AssertionError(old)


@pytest.mark.parametrize(
    ("folder", "first", "second"),
    [("small", 0, 1), ("small", 1, 2), ("large", 3, 4), ("large", 0, 199), ("spread", 0, 119), ("spread", 40, 41)],
)
def test_of_two_entries_with_one_name_one_is_kept(surgeon: Surgeon, folder: str, first: int, second: int) -> None:
    """In one block, in blocks that lie together, in blocks that do not; the file of the other is left out with it."""
    before = map_image(surgeon.image)
    number = surgeon.number(f"/{folder}")
    rename(surgeon, folder, second, name_of(second), name_of(first))
    extent_map = map_image(surgeon.image)
    paths = extent_map.paths()

    assert [(inode, text) for inode, _, text in extent_map.problems] == [(number, TWICE)]
    assert len(paths) == len(set(paths)) == before.name_count - 1
    assert extent_map.file_count == before.file_count - 1
    assert not int(numpy.asarray(extent_map.files)["flags"][extent_map.find_file(number)]) & FILE_DAMAGED


def test_the_image_has_directories_of_each_kind(good: Path) -> None:
    """One piece, and many: the names of these are kept in different tables."""
    surgeon = Surgeon(good)
    extent_map = map_image(good)

    assert extents_of(extent_map, surgeon.number("/small")) == 1
    assert extents_of(extent_map, surgeon.number("/spread")) > 5


def test_equal_names_in_two_directories_are_two_names(good: Path) -> None:
    """Nothing but equal names in one directory is a duplicate: /spread and /other hold the same ones."""
    extent_map = map_image(good)

    assert extent_map.problems == []
    assert extent_map.name_count == 1 + 1 + 4 + 3 + 120 + 120 + 240


def test_of_a_piece_that_does_not_read_only_the_bad_block_is_lost(good: Path) -> None:
    """Sixty blocks are asked for at once; where one of them fails they are read one by one."""
    need_programs("qemu-storage-daemon")
    surgeon = Surgeon(good)
    number = surgeon.number("/large")
    before = map_image(good)
    offset = surgeon.block(number, 30)
    with unreadable(good, offset) as faulty:
        extent_map = map_image(faulty)

    assert (number, offset, "a directory block does not read") in extent_map.problems
    assert extent_map.problem_count == 1
    assert before.name_count - 4 <= extent_map.name_count < before.name_count


def test_a_name_longer_than_255_bytes_is_refused(tmp_path: Path) -> None:
    """Without filetype a name's length has 16 bits."""
    images.need_ext4()
    image = images.make_image(tmp_path / "image", 8, "-b", "1024", "-O", "^filetype,^metadata_csum,^dir_index")
    with images.mounted(image) as point:
        (point / ("n" * 255)).touch()
    assert map_image(image).find(b"n" * 255) > 0
    surgeon = Surgeon(image)
    block = surgeon.block(2, 0)
    at = surgeon.read(block, 1024).find(b"n" * 255)
    surgeon.write(block + at - 2, os.fsencode("\x00\x01"))
    extent_map = map_image(image)

    assert extent_map.name_count == 2
    assert [text for _, _, text in extent_map.problems] == ["a directory entry's name does not fit its rec_len"]
