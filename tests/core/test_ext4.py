"""Whole maps of ext4 images, compared path by path and field by field with what the kernel says of the same image."""

from pathlib import Path

import pytest

from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests import oracle

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
