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
from splitreel.backup import Options, TapeBackup
from splitreel.cli import inspect
from splitreel.core.device import BlockDevice
from splitreel.drive import open_drive
from splitreel.mapping import map_device, open_filesystem
from splitreel.restore import restore
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
        (point / "contents" / "unwritten").unlink()  # with inline_data, mke2fs 1.47 gives it another size
        made = build.make_unmounted(image, point, folder)
    entries, problems = seen(made.path)

    assert oracle.differences(made.truth, build.taken_over(entries)) == []
    assert problems == []


def test_a_hole_that_mke2fs_marks_as_inline_data_is_a_hole(folder: Path) -> None:
    """So does mke2fs -d, whatever the size: the kernel reads zeros, e2fsck finds nothing to say."""
    (folder / "source").mkdir()
    for size in (1, 4096, 4097, 5000, 1 << 30):
        with open(folder / "source" / f"hole{size}", "wb") as file:
            file.truncate(size)
    image = next(image for image in EXT_IMAGES if image.name == "ext4_inline")
    build.format_image(replace(image, command=(*image.command, "-d", f"{folder}/source")), folder / "image")
    with ext4_images.mounted(folder / "image", image.read_only) as point:
        truth = oracle.walk(point)
        assert not (point / "hole5000").read_bytes().strip(b"\0")
    entries, problems = seen(folder / "image")

    assert oracle.differences(truth, entries) == []
    assert problems == []
    assert {entries[path].content for path in truth if path.startswith(b"hole")} == {oracle.Digest().hexdigest()}


VAST = {
    "ext4": "mke2fs -q -F -t ext4 -O ^resize_inode,^has_journal,bigalloc -C 1048576 -N 50000 -E nodiscard",
    "xfs": "mkfs.xfs -q -f -l size=64m -d agcount=40",
}


@pytest.mark.parametrize("kind", VAST)
def test_blocks_beyond_what_32_bits_count(kind: str, folder: Path) -> None:
    """File systems of 18 TiB, as sparse files on XFS: directories and files are spread over all of them."""
    host = replace(next(image for image in XFS_IMAGES if image.name == "xfs_default"), megabytes=1500)
    image = Image(kind, tuple(VAST[kind].split()), 4096, (fillers.spread,), megabytes=18 << 20)
    build.format_image(host, folder / "host")
    with ext4_images.mounted(folder / "host") as point:
        made = build.make(replace(image, read_only="ro"), point / "vast")
        compare(made)
    beyond = [entry for entry in made.truth.values() if any(extent[1] >> 44 for extent in entry.extents or ())]

    assert len(beyond) > 3


def test_what_is_encrypted_is_told_and_never_passes_for_a_file(folder: Path) -> None:
    """The directory is there and damaged, with what is below it counted; everything else is read."""
    image = next(image for image in EXT_IMAGES if image.name == "ext4_encrypt")
    build.format_image(image, folder / "image")
    with ext4_images.mounted(folder / "image") as point:
        build.fill(replace(image, fillers=(fillers.few, fillers.encrypted)), point)
        with ext4_images.frozen(point):
            truth = oracle.walk(point, with_content=True)
    entries, problems = seen(folder / "image")
    truth[b"encrypted"].extents = None  # names that are not read need no blocks
    hidden = {path: truth.pop(path) for path in list(truth) if path.startswith(b"encrypted/")}

    assert len(hidden) == 5
    assert oracle.differences(truth, entries) == []
    assert {inode for inode, _, _ in problems} == {truth[b"encrypted"].inode, *(e.inode for e in hidden.values())}
    assert all("encrypted" in text for _, _, text in problems)


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


ON_TAPE = ("ext2_1k", "ext3_2k", "ext4_bigalloc", "ext4_inline", "ext4_ea_inode", "xfs_default", "xfs_1k")


def brought_back(entries: dict[bytes, oracle.Entry]) -> dict[bytes, oracle.Entry]:
    """What a restore to another file system brings back: sockets are in no archive."""
    kept = {path: entry for path, entry in entries.items() if not stat.S_ISSOCK(entry.mode)}
    for path, entry in kept.items():
        is_directory = stat.S_ISDIR(entry.mode)
        size, links = (0, 0) if is_directory else (entry.size, entry.link_count)
        kept[path] = replace(entry, inode=0, size=size, link_count=links, ctime_ns=0, generation=None, extents=None)
    return kept


@pytest.mark.parametrize("image", [image for image in CHOSEN if image.name in ON_TAPE], ids=str)
def test_a_tape_of_an_image_brings_its_tree_back(image: Image, folder: Path) -> None:
    """Through the stream and back: blocks smaller than a page, clusters, inline data, shared blocks, long attributes.

    Back to XFS, which takes attributes of every length; but no device number above 511, no target above 1023 bytes.
    """
    fill = [each for each in image.fillers if each not in (fillers.basic, fillers.huge, fillers.links, fillers.deep)]
    made = build.make(replace(image, fillers=(fillers.few, fillers.few_xattrs, *fill)), folder)
    tape = f"file:{folder}/tape"
    with BlockDevice(made.path) as device, TapeBackup(Options(tape, block_size=65536), None) as backup:
        backup.check()
        assert backup.run(device, map_device(device)).complete
    target = next(each for each in XFS_IMAGES if each.name == "xfs_default")
    build.format_image(replace(target, megabytes=1000), folder / "target")
    with ext4_images.mounted(folder / "target") as point:
        with open_drive(tape) as drive:
            restore(drive, point / "restored")
        found = oracle.walk(point / "restored", with_content=True)
    made.truth.pop(b"few/kinds/blk_new", None)

    assert oracle.differences(brought_back(made.truth), brought_back(found)) == []
