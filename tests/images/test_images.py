"""What splitreel says of an image is what the kernel says of it, path by path, field by field, byte by byte."""

import os
import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from splitreel import errors
from splitreel.cli import inspect
from splitreel.core.device import BlockDevice
from splitreel.mapping import open_filesystem
from tests import oracle
from tests.images import build
from tests.images.table import EXT_IMAGES, XFS_IMAGES, Image

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


def seen(path: Path, **trust: bool) -> tuple[dict[bytes, oracle.Entry], list[tuple[int, int, str]]]:
    """What splitreel says of an image, in the oracle's words, with contents; and its problems."""
    with BlockDevice(path) as device:
        filesystem = open_filesystem(device, **trust)
        extent_map = filesystem.map()
        entries = oracle.map_entries(extent_map)
        for index, row in enumerate(numpy.asarray(extent_map.names)["file"]):
            entry = entries[extent_map.path_of(index)]
            if stat.S_ISREG(entry.mode) and entry.content is None:
                entry.content = content(extent_map, int(row), device)
        return entries, extent_map.problems


@pytest.mark.parametrize("image", CHOSEN, ids=str)
@pytest.mark.xfail(raises=errors.Unsupported, strict=False)
def test_an_image_is_read_as_the_kernel_reads_it(image: Image, folder: Path) -> None:
    """Paths, attributes, xattrs, targets, extents and contents are equal; nothing is missing, nothing damaged."""
    made = build.make(image, folder)
    entries, problems = seen(made.path)

    assert oracle.differences(made.truth, entries) == []
    assert problems == []
    assert len(made.truth) > 100
