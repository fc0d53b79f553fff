"""What splitreel says of an image is what the kernel says of it, path by path, field by field, byte by byte."""

import os
import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from splitreel import errors
from splitreel.cli import inspect
from splitreel.core.device import BlockDevice
from splitreel.mapping import open_filesystem
from tests import ext4_images, oracle
from tests.images import build, fillers, kept
from tests.images.table import EXT_IMAGES, FROZEN, KEPT_IMAGES, UNMOUNTED_IMAGES, XFS_IMAGES, Image
from tests.support import need_programs

pytestmark = pytest.mark.root

EVERY = os.environ.get("SPLITREEL_EVERY_IMAGE") == "1"
WHOLE = 16 << 20  # bytes: files up to here are read as the verb cat does, of longer ones what their extents hold
CHOSEN = [image for image in EXT_IMAGES + XFS_IMAGES if image.always or EVERY]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that goes when the test ends: pytest keeps those of three runs, and these are large."""
    with tempfile.TemporaryDirectory(prefix="splitreel-image-") as made:
        yield Path(made)


def pieces(extent_map: Any, index: int, device: BlockDevice) -> Iterator[tuple[int, bytes]]:
    """A file's bytes with their offsets, in aligned pieces; of a very long file without its holes."""
    if int(numpy.asarray(extent_map.files)[index]["size"]) <= WHOLE:
        yield 0, b"".join(inspect.file_pieces(extent_map, index, device))
        return
    found: dict[int, bytearray] = defaultdict(lambda: bytearray(oracle.PIECE))
    for logical, physical, length, flags in oracle.described(extent_map, index).extents or []:
        data = bytes(0) if flags & inspect.EXTENT_UNWRITTEN else device.pread(physical, length)
        for offset in range(logical // oracle.PIECE * oracle.PIECE, logical + len(data), oracle.PIECE):
            start, end = max(offset, logical), min(offset + oracle.PIECE, logical + length)
            found[offset][start - offset : end - offset] = data[start - logical : end - logical]
    yield from sorted((offset, bytes(data)) for offset, data in found.items())


def content(extent_map: Any, index: int, device: BlockDevice) -> str:
    result = oracle.Digest()
    for offset, data in pieces(extent_map, index, device):
        result.update(offset, data)
    return result.hexdigest()


def seen(path: Path, *more: Path, frozen: bool = False) -> tuple[dict[bytes, oracle.Entry], list[Any]]:
    """What splitreel says of an image, in the oracle's words, with contents; and its problems."""
    with ExitStack() as opened:
        device, *others = [opened.enter_context(BlockDevice(each)) for each in (path, *more)]
        filesystem = open_filesystem(device, frozen=frozen, others=others)
        extent_map = filesystem.map()
        entries = oracle.map_entries(extent_map)
        for index, row in enumerate(numpy.asarray(extent_map.names)["file"]):
            entry = entries[extent_map.path_of(index)]
            if stat.S_ISREG(entry.mode) and entry.content is None:
                entry.content = content(extent_map, int(row), filesystem.device)
        return entries, extent_map.problems


def compare(made: build.Made, *more: Path, frozen: bool = False) -> None:
    """Nothing differs, nothing is missing, nothing damaged."""
    entries, problems = seen(made.path, *more, frozen=frozen)

    assert oracle.differences(made.truth, entries) == []
    assert problems == []
    assert len(made.truth) > 100


@pytest.mark.parametrize("image", CHOSEN, ids=str)
def test_an_image_is_read_as_the_kernel_reads_it(image: Image, folder: Path) -> None:
    """Paths, attributes, xattrs, targets, extents and contents are equal."""
    compare(build.make(image, folder))


@pytest.mark.parametrize("image", [image for image in CHOSEN if image.name in FROZEN], ids=str)
def test_a_frozen_copy_is_read_as_the_kernel_shows_it_while_frozen(image: Image, folder: Path) -> None:
    """So is a copy made during a freeze, with files that are open and have no name, which are left out."""
    compare(build.make_frozen(image, folder), frozen=True)


@pytest.mark.parametrize("image", KEPT_IMAGES, ids=str)
def test_a_kept_image_is_read_as_the_kernel_that_made_it_did(image: Image, folder: Path) -> None:
    """So is what this kernel may not mount: XFS without checksums, with quotas; ext4 with verity, with casefolding."""
    compare(kept.load(image, folder))


@pytest.mark.parametrize("image", [image for image in UNMOUNTED_IMAGES if image.always or EVERY], ids=str)
def test_an_image_with_large_blocks_holds_what_mke2fs_was_given(image: Image, folder: Path) -> None:
    """Blocks above the page size, which this kernel does not mount: contents and attributes are the source's."""
    need_programs("mount")
    source = next(image for image in EXT_IMAGES if image.name == "ext4_default")
    path = folder / "source"
    build.format_image(replace(source, fillers=()), path)
    with ext4_images.mounted(path) as point:
        for filler in (fillers.basic, fillers.links, fillers.big_directories):
            filler(point, 4096)
        made = build.make_unmounted(image, point, folder)
    entries, problems = seen(made.path)

    assert oracle.differences(made.truth, build.taken_over(entries)) == []
    assert problems == []


@pytest.mark.parametrize("make", [build.make_ext4_and_journal, build.make_xfs_and_log], ids=["ext4", "xfs"])
@pytest.mark.parametrize("given", [True, False], ids=["with_it", "without_it"])
def test_a_frozen_copy_is_read_with_and_without_the_device_of_its_journal(make: Any, given: bool, folder: Path) -> None:
    """Ext4 says itself that its journal is empty; of XFS without its log, the caller must vouch for the freeze."""
    need_programs("losetup", "mke2fs", "mkfs.xfs")
    made, other = make(folder, lambda point: fillers.basic(point, 4096))
    compare(made, *([other] if given else []), frozen=make is build.make_xfs_and_log and not given)
    if make is build.make_xfs_and_log and not given:
        with pytest.raises(errors.NeedsRecovery):
            seen(made.path)
