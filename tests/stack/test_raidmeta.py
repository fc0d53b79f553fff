"""Which leg of an LVM raid1 is read, by superblocks changed on the disks that a kernel wrote."""

import hashlib
import struct
from pathlib import Path

import pytest

from splitreel.errors import Corrupt, SplitreelError, Unsupported
from tests.stack.fixture import truths, unpack
from tests.stack.parts import content

EVENTS, FAILED, RECOVERY, RESYNC, LEVEL = 16, 24, 32, 40, 48
TRUTH = next(one.sha256 for one in truths() if (one.case, one.volume) == ("lvm-raid", "vg0/one"))


@pytest.fixture
def legs(tmp_path: Path) -> list[Path]:
    """The disks of the two legs of vg0/one, whose superblocks are the first on each."""
    return unpack("lvm-raid", tmp_path)[:2]


def put(path: Path, offset: int, code: str, value: int) -> None:
    at = path.read_bytes().index(b"DmRd")
    with path.open("r+b") as file:
        file.seek(at + offset)
        file.write(struct.pack(code, value))


def get(path: Path, offset: int) -> int:
    data = path.read_bytes()
    return int(struct.unpack_from("<Q", data, data.index(b"DmRd") + offset)[0])


def leg_read(paths: list[Path]) -> str:
    """The name of the leg, whose content is right."""
    warnings: list[str] = []
    assert hashlib.sha256(content(paths, "vg0/one", warnings=warnings)).hexdigest() == TRUTH
    return next(warning.split("leg ")[1].split(",")[0] for warning in warnings if "read from leg" in warning)


def test_the_leg_with_the_newer_superblock(legs: list[Path]) -> None:
    put(legs[1], EVENTS, "<Q", get(legs[1], EVENTS) + 5)
    assert leg_read(legs) == "one_rimage_1"


def test_a_leg_that_the_newest_superblock_calls_failed_is_passed_over(legs: list[Path]) -> None:
    put(legs[1], EVENTS, "<Q", get(legs[1], EVENTS) + 1)
    put(legs[0], EVENTS, "<Q", get(legs[1], EVENTS))
    put(legs[1], FAILED, "<Q", 1)
    assert leg_read(legs) == "one_rimage_1"


def test_what_an_old_superblock_says_of_failures_does_not_count(legs: list[Path]) -> None:
    put(legs[0], EVENTS, "<Q", get(legs[0], EVENTS) + 1)
    put(legs[1], FAILED, "<Q", 1)
    assert leg_read(legs) == "one_rimage_0"


def test_while_the_legs_are_synchronised_only_the_first_is_read(legs: list[Path]) -> None:
    for path in legs:
        put(path, RESYNC, "<Q", 512)
    assert leg_read(legs) == "one_rimage_0"
    with pytest.raises(Unsupported, match="one_rimage_1 is being synchronised"):
        content(legs[1:], "vg0/one")


@pytest.mark.parametrize(
    ("offset", "code", "value", "kind", "why"),
    [
        (RECOVERY, "<Q", 512, Unsupported, "is being rebuilt"),
        (FAILED, "<Q", 2, Unsupported, "is marked as failed"),
        (0, "<I", 0, Unsupported, "has no superblock"),
        (LEVEL, "<i", 5, Corrupt, "of level 5, position 1"),
        (12, "<I", 0, Corrupt, "of level 1, position 0"),
    ],
)
def test_a_leg_that_is_not_known_to_be_good_is_refused(
    legs: list[Path], offset: int, code: str, value: int, kind: type[SplitreelError], why: str
) -> None:
    put(legs[1], offset, code, value)
    with pytest.raises(kind, match=why):
        content(legs[1:], "vg0/one")
