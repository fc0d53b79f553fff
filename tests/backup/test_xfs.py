"""A whole backup of a real XFS image to a software drive, and its restore into another: the kernel's trees agree."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel.__main__ import main
from tests import ext4_images as images
from tests import trees, xfs_images
from tests.images import fillers

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything XFS holds: shared blocks, attributes of 64 KiB and thousands, ACLs, targets in blocks, fragments."""
    made = xfs_images.make_image(tmp_path_factory.mktemp("image") / "disk.img", 160)
    with images.mounted(made) as point:
        images.fill(point)
        (point / "contents/far").unlink()  # 40 GB of zeros
        for filler in (fillers.punched, fillers.links, fillers.big_xattrs, fillers.many_xattrs, fillers.reflinks):
            filler(point, 4096)
        (point / "large").write_bytes(os.urandom(9 << 20))
    return made


@pytest.fixture(scope="module")
def tape(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tape of the image, made and verified by the command line."""
    path = tmp_path_factory.mktemp("tape") / "tape.tap"
    state = str(path.parent / "state")
    sizes = ["--segment-size", "8MiB"]
    assert main(["--state", state, "backup", "--device", str(image), "--tape", f"file:{path}", *sizes]) == 0
    assert main(["--state", state, "verify", "--tape", f"file:{path}"]) == 0
    return path


@pytest.fixture(scope="module")
def shown(image: Path) -> Iterator[Path]:
    """The image, mounted read-only."""
    with images.mounted(image, "ro,norecovery") as point:
        yield point


def test_everything_comes_back_as_it_was(tape: Path, shown: Path, tmp_path: Path) -> None:
    """Into another XFS, which can hold all of it: contents, holes, links, owners, times, attributes, ACLs, devices."""
    source = trees.tree(shown)
    target = xfs_images.make_image(tmp_path / "target.img", 200)
    with images.mounted(target) as point:
        assert main(["restore", "--tape", f"file:{tape}", "--to", str(point / "to")]) == 0
        restored = trees.tree(point / "to", (".splitreel",))
    for entry in restored.values():
        entry.pop("allocated", None)  # XFS gives a growing file more blocks than were written
    for entry in source.values():
        entry.pop("allocated", None)

    assert trees.differences(source, restored) == []
    assert any(len(value) == 65536 for at in source.values() for value in at["xattrs"].values())
    assert any(len(at["xattrs"]) >= 3000 for at in source.values())


def test_cat_writes_what_the_kernel_reads(image: Path, shown: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Files with holes, unwritten and shared extents."""
    for path in ("punched/sparse900", "contents/unwritten", "reflinks/changed", "reflinks/itself", "large"):
        assert main(["cat", str(image), path]) == 0
        assert capfdbinary.readouterr().out == (shown / path).read_bytes()
