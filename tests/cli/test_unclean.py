"""Devices that were cut off in use: map, cat, backup and restore give what the kernel recovers of them."""

import os
import random
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from splitreel.__main__ import main
from tests import crash, oracle

pytestmark = pytest.mark.root


def crashed(folder: Path, name: str) -> tuple[list[Path], dict[bytes, oracle.Entry]]:
    """The images that a crash left, and what the kernel recovers on copies."""
    crash.need_crashes()
    kind = next(kind for kind in crash.KINDS if kind.name == name)
    recorded = crash.record(replace(kind, megabytes=32), folder, 11, 80)
    images = crash.crash(recorded, random.Random(3), folder, 0.9)
    recovered = crash.recover(images)
    assert recovered is not None
    assert crash.is_dirty(images[0])
    return images, recovered


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return oracle.digest(file.fileno(), path.stat().st_size)


def regular(tree: dict[bytes, oracle.Entry]) -> dict[str, str | None]:
    return {os.fsdecode(path): entry.content for path, entry in tree.items() if stat.S_ISREG(entry.mode)}


@pytest.mark.parametrize("name", ["journal-data", "external-1k", "fast-commit"])
@pytest.mark.parametrize("saved", [False, True], ids=["mapped", "saved map"])
def test_a_backup_of_a_crashed_device_restores_what_the_kernel_recovers(tmp_path: Path, name: str, saved: bool) -> None:
    """All bytes, also those that stand only in the journal; with a map of another command, too."""
    images, recovered = crashed(tmp_path, name)
    more = [word for image in images[1:] for word in ("--with", str(image))]
    tape = f"file:{tmp_path / 'tape.tap'}?size=300M"
    if saved:
        assert main(["map", str(images[0]), *more, "--save", str(tmp_path / "map")]) == 0
        more += ["--map", str(tmp_path / "map")]
    state = ["--state", str(tmp_path / "state")]
    before = [image.read_bytes() for image in images]

    assert main([*state, "backup", "--device", str(images[0]), *more, "--tape", tape]) == 0
    assert main([*state, "restore", "--tape", tape, "--to", str(tmp_path / "to")]) == 0
    restored = {
        os.fspath(path.relative_to(tmp_path / "to")): digest(path)
        for path in (tmp_path / "to").rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert restored == regular(recovered)
    assert len(restored) > 2
    assert [image.read_bytes() for image in images] == before


def test_a_map_that_knows_nothing_of_the_journal_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its places are those of before the crash: the bytes there, with the journal replayed, are other files'."""
    (image, *_), _ = crashed(tmp_path, "journal-data")
    assert main(["map", "--live", str(image), "--save", str(tmp_path / "map")]) in (0, 3)
    tape = f"file:{tmp_path / 'tape.tap'}?size=300M"
    state = ["--state", str(tmp_path / "state")]

    assert main([*state, "backup", "--device", str(image), "--map", str(tmp_path / "map"), "--tape", tape]) != 0
    assert "once its journal is replayed" in capsys.readouterr().err


def test_cat_reads_what_stands_in_the_journal(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    images, recovered = crashed(tmp_path, "journal-data")
    for path, content in sorted(regular(recovered).items())[:8]:
        assert main(["cat", str(images[0]), path]) == 0
        result = oracle.Digest()
        result.update(0, capfdbinary.readouterr().out)

        assert result.hexdigest() == content
