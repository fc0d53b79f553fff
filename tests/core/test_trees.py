"""Extent trees of many files at once: whatever their depths, every file gets its own leaves, in its own order."""

from collections.abc import Callable
from pathlib import Path

import pytest

from splitreel.core.device import BlockDevice
from splitreel.mapping import open_filesystem
from tests import ext4_images, oracle, xfs_images

pytestmark = pytest.mark.root

BLOCKS = (4, 1200, 30, 3000, 0, 90, 9, 2500, 700, 40)  # of the files, written at every other block


def ext4(path: Path) -> Path:
    ext4_images.need_ext4()
    return ext4_images.make_image(path, 100, "-b", "1024", "-O", "^has_journal")


def xfs(path: Path) -> Path:
    return xfs_images.make_image(path, 100, "-b", "size=1024", "-d", "agcount=3")


@pytest.mark.parametrize("make", [ext4, xfs])
def test_files_of_every_depth_side_by_side(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Neighbours in the inode table, with trees of no level to two, in three directories that grow by turns."""
    image = make(tmp_path / "image")
    with ext4_images.mounted(image) as point:
        for folder in ("a", "b", "c"):
            (point / folder).mkdir()
        for number, blocks in enumerate(BLOCKS):
            for folder in ("a", "b", "c"):
                ext4_images.write_alternate(point / folder / f"{number}", blocks, 1024)
    with ext4_images.mounted(image, "ro") as point:
        truth = oracle.walk(point)
    with BlockDevice(image) as device:
        extent_map = open_filesystem(device, frozen=True).map()

    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert extent_map.problems == []
    assert max(len(entry.extents or []) for entry in truth.values()) >= 1500
