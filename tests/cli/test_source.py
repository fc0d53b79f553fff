"""What a verb reads: a saved map is believed only of the kind of device that it was made of."""

import subprocess
from pathlib import Path

import pytest

from splitreel.__main__ import main
from tests.support import need_programs


def refused(image: Path, saved: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What backup says when it does not take a saved map."""
    state = ["--state", str(image.parent / "state")]
    assert main([*state, "backup", "--device", str(image), *options, "--map", str(saved), "--tape", "null:"]) != 0
    return capsys.readouterr().err


def test_a_file_systems_map_is_not_read_from_a_raw_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither its UUID nor its journal would be looked at."""
    need_programs("mke2fs")
    image, saved = tmp_path / "image", tmp_path / "map"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image, "8M"], check=True)
    assert main(["map", str(image), "--save", str(saved)]) == 0

    assert "not of a raw device" in refused(image, saved, capsys, "--raw")


def test_a_raw_map_of_a_smaller_device_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file would be cut off where the device ended once."""
    image, saved = tmp_path / "image", tmp_path / "map"
    image.write_bytes(b"a" * 100_000)
    assert main(["map", str(image), "--raw", "--save", str(saved)]) == 0
    image.write_bytes(b"a" * 200_000)

    assert "of a device of 100000 bytes" in refused(image, saved, capsys, "--raw")
