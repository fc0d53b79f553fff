"""map_raw: one file that is the whole device, through the plan and the stream, and its refusals."""

import io
import stat
import tarfile
from pathlib import Path

import numpy as np
import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap, unpack_nanoseconds
from splitreel.core.plan import Plan
from splitreel.core.softdrive import SoftDrive
from splitreel.core.spans import SpannedDevice, Zero
from splitreel.core.stream import StreamWriter
from splitreel.mapping import diff
from splitreel.raw import map_raw
from tests.core.test_stream_reader import tape_of
from tests.drive.tapfile import parse

NOISE = np.random.default_rng(5).integers(0, 256, 300_000, dtype=np.uint8).tobytes()  # no multiple of 4096 or of 512


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "image").write_bytes(NOISE)
    return tmp_path / "image"


def test_one_file_holds_the_device(image: Path) -> None:
    """A root and one regular file, 0600, of the device's size to the byte, at the epoch."""
    with BlockDevice(image) as device:
        found = map_raw(device, "asm disk")
    root, file = np.asarray(found.files)

    assert (found.fs_type, found.paths()) == ("raw", [b"", b"asm disk"])
    assert (root["mode"], file["mode"]) == (stat.S_IFDIR | 0o755, stat.S_IFREG | 0o600)
    assert (file["size"], unpack_nanoseconds(file["mtime"]), file["uid"]) == (len(NOISE), 0, 0)
    assert [tuple(extent) for extent in np.asarray(found.extents)] == [(0, 0, -(-len(NOISE) // 4096), 0)]


def test_saved_and_loaded(image: Path, tmp_path: Path) -> None:
    """A map whose last extent ends behind the device passes the verification of a loaded one."""
    with BlockDevice(image) as device:
        found = map_raw(device, b"disk")
    found.save(tmp_path / "map")

    assert ExtentMap.load(tmp_path / "map").digest() == found.digest()


def test_streams_to_the_last_byte(image: Path, tmp_path: Path) -> None:
    """What tar takes from the tape is the device, though that ends inside a block."""
    with BlockDevice(image) as device, SoftDrive(tmp_path / "tape") as drive:
        found = map_raw(device, "disk")
        plan = Plan.build(found, block_size=65536, first_object=0)
        with StreamWriter(found, device, plan, tape_of(drive)) as stream:
            stream.run()
    archive = b"".join(block for block in parse(tmp_path / "tape") if block is not None)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        reader = tar.extractfile("disk")
        assert reader is not None
        assert reader.read() == NOISE


def test_huge_device() -> None:
    """An extent counts to 2^32-1 blocks: 50 TiB take four of them, without a gap."""
    size = (50 << 40) + 512
    with SpannedDevice([], [Zero(size)], path="huge") as device:
        extents = np.asarray(map_raw(device, "huge").extents)

    assert extents["count"].tolist() == [2**32 - 1] * 3 + [-(-size // 4096) - 3 * (2**32 - 1)]
    assert extents["logical"].tolist() == extents["physical"].tolist() == [number * (2**32 - 1) for number in range(4)]


def test_empty_device(tmp_path: Path) -> None:
    """A file of no bytes and no extents."""
    (tmp_path / "empty").touch()
    with BlockDevice(tmp_path / "empty") as device:
        found = map_raw(device, "empty")

    assert (found.extent_count, int(np.asarray(found.files)["size"][1])) == (0, 0)


def test_a_grown_device_differs(image: Path) -> None:
    """Two maps of one device differ in nothing, of a grown one in that file."""
    with BlockDevice(image) as device:
        before, same = map_raw(device, "d"), map_raw(device, "d")
    image.write_bytes(NOISE + bytes(4096))
    with BlockDevice(image) as device:
        grown = map_raw(device, "d")

    assert not diff(before, same).any
    assert diff(before, grown).extents_revised.tolist() == [2]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "n" * 256])
def test_refuses_what_is_no_name(image: Path, name: str) -> None:
    """The name becomes a path on tape and on the restoring machine."""
    with BlockDevice(image) as device, pytest.raises(errors.UsageError, match="no file name"):
        map_raw(device, name)
