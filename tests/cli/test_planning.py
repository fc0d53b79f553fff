"""The verb plan prints the layout that a backup then has."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from splitreel.__main__ import main
from splitreel.cli.planning import byte_count
from tests.support import need_programs


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An ext4 image with a few files, made without a mount."""
    need_programs("mkfs.ext4")
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir" / "one").write_bytes(b"1" * 5000)
    (tree / "two").write_bytes(b"2" * 300_000)
    (tree / "three\n").symlink_to("two")
    path = tmp_path / "image"
    command = ["mkfs.ext4", "-q", "-O", "^has_journal", "-d", str(tree), str(path), "8M"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_member_has_a_place_and_the_totals_come_last(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--device", str(image), "--frozen", "--json", "--block-size", "64K"]) == 0
    found = records(capsys)
    members = {record["path"]: record for record in found if record["kind"] == "member"}

    assert set(members) == {"", "dir", "dir/one", "lost+found", "three\n", "two"}
    assert members["two"]["stored"] == 300_000
    assert members["three\n"]["type"] == "symlink"
    assert found[0]["kind"] == "segment"
    assert found[-1] == {
        "kind": "plan",
        "files": 2,
        "members": 6,
        "bytes": 305_000,
        "blocks": found[0]["blocks"],
        "segments": 1,
        "skipped": 0,
    }


def test_paths_choose_what_is_planned(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--device", str(image), "--frozen", "--json", "dir"]) == 0
    assert [r["path"] for r in records(capsys) if r["kind"] == "member"] == ["dir", "dir/one"]
    assert main(["plan", "--device", str(image), "--frozen", "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_what_is_damaged_is_named(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a backup would lack is said before it is made, not only by the exit code."""
    told = subprocess.run(["debugfs", "-R", "imap /two", image], check=True, capture_output=True, text=True).stdout
    found = re.search(r"block (\d+), offset 0x([0-9a-f]+)", told)
    assert found is not None, told
    with open(image, "r+b") as file:
        file.seek(1024 + 0x18)
        size = 1024 << int.from_bytes(file.read(4), "little")
        file.seek(int(found[1]) * size + int(found[2], 16) + 0x10)
        file.write(b"\xa5")

    assert main(["plan", "--device", str(image), "--frozen"]) == 3
    assert "damaged: inode" in capsys.readouterr().err


def test_text_is_one_line_a_member(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--device", str(image), "--frozen", "--segment-size", "256k", "--block-size", "4096"]
    assert main(command) == 0
    out = capsys.readouterr().out.splitlines()

    assert sum(line.startswith("segment ") for line in out) >= 2
    assert out[1].endswith(" .")
    assert any(line.endswith("three\\n") for line in out)
    assert out[-1].startswith("2 files, 297.9 KiB")


@pytest.mark.parametrize(
    ("text", "count"), [("4096", 4096), ("1M", 1 << 20), ("64k", 65536), ("16GiB", 1 << 34), ("2T", 1 << 41)]
)
def test_byte_counts_have_units(text: str, count: int) -> None:
    assert byte_count(text) == count


def test_a_byte_count_that_is_none_is_refused(image: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", "--device", str(image), "--block-size", "many"])
    assert caught.value.code == 2
