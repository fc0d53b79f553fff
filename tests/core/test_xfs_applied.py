"""What a freeze leaves in the log is read; what a crash leaves, only where the kernel's recovery changes nothing."""

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.xfs import Xfs
from splitreel.core.xfs_log import examine
from tests import ext4_images as images
from tests import oracle, xfs_images

pytestmark = pytest.mark.root


@pytest.fixture
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, Path]]:
    """An image and its mount point, with a file of 64 KiB; the parameter is how it is mounted."""
    image = xfs_images.make_image(tmp_path / "image")
    with images.mounted(image, getattr(request, "param", "noatime")) as point:
        (point / "file").write_bytes(b"1" * 65536)
        yield image, point


def split(image: Path, point: Path, name: str) -> Path:
    """A copy taken while the file system is frozen."""
    with images.frozen(point):
        return images.copy_sparse(image, image.with_name(name))


def overwrite(point: Path) -> None:
    """What a database does: the same blocks again, forced out."""
    with open(point / "file", "r+b") as file:
        file.write(os.urandom(20_000))
        file.flush()
        os.fsync(file.fileno())


def seen(copy: Path) -> dict[bytes, oracle.Entry]:
    with BlockDevice(copy) as device:
        return oracle.map_entries(Xfs(device).map())


@pytest.mark.parametrize("mounted", ["noatime", "noatime,logbsize=256k", "lazytime,logbsize=64k"], indirect=True)
def test_a_freeze_of_a_database_that_overwrites_its_files_is_read(mounted: tuple[Path, Path]) -> None:
    """Such a freeze leaves the inode's last change between tail and head; it stands in place.

    Records of a large logbsize have more headers than their data need, and a checksum over those that are needed.
    """
    image, point = mounted
    split(image, point, "first")
    states = set()
    for number in range(4):
        overwrite(point)
        copy = split(image, point, f"copy{number}")
        truth = oracle.walk(point)
        with BlockDevice(copy) as device:
            states.add(examine(device)[0])

        assert oracle.differences(truth, seen(copy)) == []
    assert "dirty" in states  # else this test shows nothing


def test_a_change_that_was_logged_and_is_not_in_place_is_refused(mounted: tuple[Path, Path]) -> None:
    image, point = mounted
    split(image, point, "first")
    overwrite(point)
    crash = images.copy_sparse(image, image.with_name("crash"))
    with BlockDevice(crash) as device, pytest.raises(errors.NeedsRecovery, match="not in place"):
        Xfs(device)


def change(point: Path, chance: random.Random) -> None:
    """A little of everything that is logged."""
    kind = chance.randrange(5)
    if kind == 0:
        overwrite(point)
    elif kind == 1:
        (point / f"name{chance.random()}").touch()
    elif kind == 2:
        folder = point / f"folder{chance.random()}"
        folder.mkdir()
        for number in range(100):
            (folder / f"{number}").write_bytes(b"x" * 5000)
    elif kind == 3:
        for path in list(point.glob("name*"))[:3]:
            path.unlink()
    else:
        os.setxattr(point / "file", f"user.{chance.randrange(50)}", b"v" * chance.randrange(3000))


def test_a_copy_of_any_moment_is_refused_or_is_what_recovery_makes_of_it(mounted: tuple[Path, Path]) -> None:
    """Copies without a freeze, some right after one: what is accepted equals the tree after the kernel's recovery."""
    image, point = mounted
    chance = random.Random(7)
    copies = []
    for number in range(16):
        for _ in range(chance.randrange(1, 4)):
            change(point, chance)
        after = chance.randrange(4)
        if after in (0, 3):
            with images.frozen(point):
                pass
        if after == 1:
            subprocess.run(["sync", "-f", point], check=True)
        if after == 3:
            change(point, chance)
        copies.append(images.copy_sparse(image, image.with_name(f"copy{number}")))
    accepted = 0
    for copy in copies:
        try:
            entries = seen(copy)
        except errors.NeedsRecovery:
            continue
        accepted += 1
        with images.mounted(copy, "nouuid,noatime") as recovered:
            assert oracle.differences(oracle.walk(recovered), entries) == []

    assert 0 < accepted < len(copies)
