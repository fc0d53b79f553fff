"""What probe calls a device's contents, against the tools that write them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from splitreel.core.device import BlockDevice
from splitreel.probe import probe
from tests.support import missing

TOOLS = {
    "ext": ["mke2fs", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "swap": ["mkswap"],
}


def image(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def probed(path: Path) -> str | None:
    with BlockDevice(path) as device:
        return probe(device)


@pytest.mark.parametrize("kind", ["ext", "xfs", "swap"])
def test_what_a_tool_made_is_called_by_its_name(kind: str, tmp_path: Path) -> None:
    tool = TOOLS[kind]
    if shutil.which(tool[0]) is None:
        missing(f"needs {tool[0]}")
    path = image(tmp_path / "image", 320 << 20)
    subprocess.run([*tool, path], check=True, capture_output=True)

    assert probed(path) == kind


@pytest.mark.parametrize(
    ("offset", "magic", "kind"),
    [
        (512 + 24, b"LVM2 001", "LVM2 member"),
        (0, b"LUKS\xba\xbe\0\2", "LUKS"),
        (65600, b"_BHRfS_M", "btrfs"),
        (32, b"ORCLDISK", "Oracle ASM disk"),
        (0, b"SnAp\1\0\0\0", "LVM snapshot store"),
        (4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), "bcache"),
        (512, b"EFI PART", "GPT partition table"),
        (510, b"\x55\xaa", "DOS partition table"),
        (0, b"", None),
    ],
)
def test_signatures_at_their_specified_places(offset: int, magic: bytes, kind: str | None, tmp_path: Path) -> None:
    path = image(tmp_path / "image", 1 << 20)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(magic)

    assert probed(path) == kind


def test_an_array_member_that_once_held_ext4_is_an_array_member(tmp_path: Path) -> None:
    path = image(tmp_path / "image", 1 << 20)
    with path.open("r+b") as file:
        file.seek(1080)
        file.write(b"\x53\xef")
        file.seek(4096)
        file.write(b"\xfc\x4e\x2b\xa9")

    assert probed(path) == "Linux RAID member"


def test_a_device_shorter_than_any_superblock_is_nothing_known(tmp_path: Path) -> None:
    assert probed(image(tmp_path / "image", 512)) is None
