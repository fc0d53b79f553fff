"""Whole maps of ext4 images, compared path by path and field by field with what the kernel says of the same image."""

import os
import struct
from pathlib import Path

import numpy
import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests import oracle
from tests.ext4_surgery import Surgeon, debugfs

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _parts() -> None:
    images.need_ext4()


def map_image(path: Path, *, is_frozen: bool = False) -> ExtentMap:
    with BlockDevice(path) as device:
        return Ext4(device, frozen=is_frozen).map()


@pytest.mark.parametrize(
    "options",
    [
        images.DEBIAN_12,
        images.CURRENT,
        ("-b", "1024"),
        ("-b", "2048", "-I", "128"),
        ("-b", "4096", "-I", "1024"),
        ("-O", "^metadata_csum,uninit_bg"),
        ("-O", "^metadata_csum,^uninit_bg,^64bit,^flex_bg"),
        ("-O", "^dir_index,^has_journal,^filetype"),
        ("-O", "^resize_inode,meta_bg", "-b", "1024"),
        ("-O", "^resize_inode,meta_bg,^64bit", "-b", "1024", "-g", "256"),
    ],
    ids=lambda options: " ".join(options) or "defaults",
)
def test_map_equals_the_mounted_tree(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Every path has the inode, attributes, xattrs, target and extents that the kernel shows; none is missing."""
    image = images.make_image(tmp_path / "image", 96, *options)
    with images.mounted(image) as point:
        images.fill(point)
    extent_map = map_image(image)
    with images.mounted(image, "ro") as point:
        truth = oracle.walk(point)

    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert extent_map.problems == []
    assert len(truth) > 1600


def test_extent_trees_of_every_depth(tmp_path: Path) -> None:
    """Trees of depth 0 to 3, made by holes at every other block, have the extents that FIEMAP shows."""
    image = images.make_image(tmp_path / "image", 200, "-b", "1024", "-O", "^has_journal")
    with images.mounted(image) as point:
        for depth, blocks in enumerate((6, 60, 2000)):
            images.punch_alternate(point / f"punched{depth}", blocks, 1024)
        for depth, blocks in ((2, 1000), (3, 70_000)):
            images.write_alternate(point / f"sparse{depth}", blocks, 1024)
    extent_map = map_image(image)
    with images.mounted(image, "ro") as point:
        truth = oracle.walk(point)

    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert extent_map.problems == []
    for path, depth in (("punched1", 1), ("punched2", 2), ("sparse2", 2), ("sparse3", 3)):
        assert f"{depth}/ {depth}" in debugfs(image, f"ex {path}")
    assert len(truth[b"sparse3"].extents or []) == 35_000


def test_a_frozen_copy_equals_the_frozen_tree(tmp_path: Path) -> None:
    """Split after a freeze: a file just written is there, one unlinked while open is not, and no replay is needed."""
    image = images.make_image(tmp_path / "image", 96, *images.CURRENT)
    with images.mounted(image, "noatime") as point:
        images.fill(point)
        (point / "gone").write_bytes(b"x" * 50_000)
        (point / "new").write_bytes(b"y" * 50_000)
        with open(point / "gone", "rb"):
            (point / "gone").unlink()
            with images.frozen(point):
                copy = images.copy_sparse(image, tmp_path / "copy")
                truth = oracle.walk(point)
        with BlockDevice(copy) as device:
            filesystem = Ext4(device)
            extent_map = filesystem.map()

    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert extent_map.problems == []
    assert filesystem.statistics["unnamed"] == 0
    assert b"new" in truth and b"gone" not in truth


def test_a_copy_without_a_freeze_shows_what_was_made_durable(tmp_path: Path) -> None:
    """Its journal was not emptied: what fsync promised is there all the same."""
    image = images.make_image(tmp_path / "image", 32)
    with images.mounted(image) as point:
        with open(point / "file", "wb") as file:
            file.write(b"x" * 50_000)
            os.fsync(file.fileno())
        copy = images.copy_sparse(image, tmp_path / "copy")
    found = oracle.map_entries(map_image(copy))

    assert found[b"file"].size == 50_000


def test_a_frozen_copy_without_a_journal_is_read_on_the_caller_s_word(tmp_path: Path) -> None:
    image = images.make_image(tmp_path / "image", 32, "-O", "^has_journal")
    with images.mounted(image, "noatime") as point:
        (point / "file").write_bytes(b"x" * 50_000)
        with images.frozen(point):
            copy = images.copy_sparse(image, tmp_path / "copy")
            truth = oracle.walk(point)
    with pytest.raises(errors.NeedsRecovery):
        map_image(copy)
    assert oracle.differences(truth, oracle.map_entries(map_image(copy, is_frozen=True))) == []


def test_a_live_map_finds_what_was_synced(tmp_path: Path) -> None:
    """Mapping ahead of the quiesce: what was written back is there, whatever the journal says."""
    image = images.make_image(tmp_path / "image", 32)
    with images.mounted(image) as point:
        (point / "file").write_bytes(b"x" * 50_000)
        os.sync()
        entry = oracle.look_at(os.fsencode(point / "file"))
        copy = images.copy_sparse(image, tmp_path / "copy")
    with BlockDevice(copy) as device:
        entries = oracle.map_entries(Ext4(device, live=True).map())
    assert entries[b"file"] == entry


@pytest.mark.parametrize(("raw", "count", "flags"), [(0x7FFF, 32767, 0), (0x8000, 32768, 0), (0x8001, 1, 0x800)])
def test_lengths_about_32768(tmp_path: Path, raw: int, count: int, flags: int) -> None:
    """Length 0x8000 is a full written extent; above it, an unwritten one of length - 0x8000."""
    image = images.make_image(tmp_path / "image", 400, "-b", "4096", "-O", "^has_journal")
    group_2 = 65536  # all for data: bitmaps and inodes stand in group 0, it has no superblock, no journal
    with images.mounted(image) as point, open(point / "file", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 4096)
        file.truncate(150 << 20)
    surgeon = Surgeon(image)
    number = surgeon.number("/file")
    surgeon.write(surgeon.inode(number) + 0x28 + 12 + 4, struct.pack("<HHI", raw, 0, group_2))
    surgeon.fix_inode(number)

    extent_map = map_image(image)
    row = numpy.asarray(extent_map.files)[extent_map.find_file(number)]
    extent = numpy.asarray(extent_map.extents)[int(row["first_extent"])]
    assert (int(row["extent_count"]), int(extent["count"]), int(extent["flags"])) == (1, count, flags)
    assert (int(extent["logical"]), int(extent["physical"])) == (0, group_2)
    assert extent_map.problems == []


def fingerprints(extent_map: ExtentMap) -> dict[bytes, int]:
    files, names = numpy.asarray(extent_map.files), numpy.asarray(extent_map.names)
    return {
        extent_map.path_of(i): int(files[int(names[i]["file"])]["fingerprint"]) for i in range(extent_map.name_count)
    }


def test_fingerprints_change_with_what_they_stand_for_and_not_with_atime(tmp_path: Path) -> None:
    """Reading leaves every fingerprint; each kind of change touches its own file, and its directory if renamed."""
    image = images.make_image(tmp_path / "image", 96, "-b", "1024")
    with images.mounted(image) as point:
        images.fill(point)
        images.punch_alternate(point / "deep", 2000, 1024)
    before = fingerprints(map_image(image))
    with images.mounted(image, "strictatime") as point:
        (point / "contents" / "size4096").read_bytes()
        list((point / "names" / "many").iterdir())
        (point / "kinds" / "link255").readlink()
    after_reading = fingerprints(map_image(image))
    with images.mounted(image, "noatime") as point:
        with open(point / "deep", "r+b") as file:
            images.fallocate(file.fileno(), 3, 100 * 1024, 1024)
        (point / "attributes" / "mode777").chmod(0o700)
        os.setxattr(point / "xattrs" / "large", "user.large", b"M" * 700)
        (point / "names" / "many" / "a name that fills a block soon 00700").rename(point / "names" / "many" / "other")
    after_changing = fingerprints(map_image(image))

    changed = {path for path in before if after_changing.get(path) != before[path]}
    gone = b"names/many/a name that fills a block soon 00700"
    assert after_reading == before
    assert changed == {b"deep", b"attributes/mode777", b"xattrs/large", b"names/many", gone}
    assert len(set(before.values())) == len(set(before.keys())) - 2  # one inode has three names
