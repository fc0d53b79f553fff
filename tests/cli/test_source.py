"""What a verb reads: a saved map is believed only of the kind of device that it was made of."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from splitreel.__main__ import main
from splitreel.cli.backups import Shown
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


def test_a_device_that_was_written_to_while_it_was_backed_up_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mounted file system passes for a crashed mirror as long as it is mapped; streaming takes hours.

    Neither catalog nor tape may call that backup complete, whose files are of several moments.
    """
    need_programs("mke2fs")
    image = tmp_path / "image"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image, "8M"], check=True)
    state, tape = ["--state", str(tmp_path / "state")], ["--tape", f"file:{tmp_path / 'tape'}"]
    progress = Shown.progress

    def written_to(shown: Shown, seen: Mapping[str, Any]) -> None:
        with image.open("r+b") as file:
            file.seek(1024 + 0x30)  # s_wtime
            file.write(b"\xa5")
        progress(shown, seen)

    command = [*state, "backup", "--device", str(image), *tape, "--overwrite"]
    assert main(command) == 0
    monkeypatch.setattr(Shown, "progress", written_to)
    assert main(command) not in (0, 3)
    assert "of several moments" in capsys.readouterr().err
    assert main([*state, "list"]) == 0
    assert "incomplete" in capsys.readouterr().out
    assert main([*state, "list", *tape]) == 3
