"""The verbs restore, verify, list and catalog: what they print, and their exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitreel.__main__ import main
from splitreel.drive import open_drive
from tests.restore.test_restore import BACKUP, Tape, contents, damaged, expected, segment


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    made = Tape(tmp_path / "tape.tap")
    made.add(segment(1))
    made.add(segment(2))
    yield made
    made.drive.close()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines() if line.startswith("{")]
    return code, lines, captured.err


def finished(tape: Tape) -> str:
    tape.close()
    tape.drive.close()
    return f"file:{tape.path}"


def test_restore_prints_segments_and_a_last_line(
    tape: Tape, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, _ = run(capsys, "restore", "--tape", finished(tape), "--to", tmp_path / "to", "--json")

    assert code == 0
    assert contents(tmp_path / "to") == expected(1, 2)
    assert [line["kind"] for line in lines] == ["segment"] * 3 + ["restore"]
    assert (lines[-1]["id"], lines[-1]["files"], lines[-1]["problems"]) == (BACKUP, 24, 0)


def test_restore_into_a_full_directory_is_a_usage_error(tape: Tape, tmp_path: Path) -> None:
    url = finished(tape)

    assert main(["restore", "--tape", url, "--to", str(tmp_path)]) == 2
    assert main(["restore", "--tape", url, "--to", str(tmp_path), "--force"]) == 0


def test_damage_is_exit_code_3_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape = Tape(tmp_path / "tape.tap")
    made = segment(1)
    tape.add(made, damaged(made, "s1/f02"))
    url = finished(tape)

    code, lines, _ = run(capsys, "verify", "--tape", url, "--json")
    assert code == 3
    assert not lines[-1]["sound"]
    assert {"kind": "finding", "segment": 1, "path": "s1/f02", "why": "its bytes do not match their CRC32C"} in lines
    code, _, errors = run(capsys, "restore", "--tape", url, "--to", tmp_path / "to")
    assert code == 3
    assert "s1/f02: its bytes do not match their CRC32C; it was restored as 's1/f02.splitreel-damaged'" in errors


def test_list_shows_what_the_tape_holds_with_or_without_its_catalog(
    tape: Tape, capsys: pytest.CaptureFixture[str]
) -> None:
    tape.drive.close()
    code, scanned, _ = run(capsys, "list", "--tape", f"file:{tape.path}", "--json")
    assert code == 3
    tape.drive = open_drive(f"file:{tape.path}")
    tape.drive.space_eod()
    code, listed, _ = run(capsys, "list", "--tape", finished(tape), "--json")

    assert code == 0
    assert scanned[:-1] == listed[:-1]
    assert [line["path"] for line in listed[:3]] == ["s1", "s1/f00", "s1/f01"]
    assert listed[-1] == {"kind": "list", "members": 26, "complete": True}


def test_a_rebuilt_catalog_restores_and_lists_as_the_tape_does(
    tape: Tape, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, state = finished(tape), ["--state", tmp_path / "state"]

    assert run(capsys, *state, "catalog", "rebuild", "--tape", url, "--json")[:2] == (
        0,
        [{"kind": "backup", "id": BACKUP, "state": "complete", "files": 24, "bytes": 24 * 9000}],
    )
    assert run(capsys, *state, "catalog", "rebuild", "--tape", url)[0] == 1
    code, lines, _ = run(capsys, *state, "list", "--json")
    assert (code, lines[0]["id"], lines[0]["volume"]) == (0, BACKUP, "SR0001")
    assert run(capsys, *state, "list", "--backup", BACKUP[:4], "s2/f0*", "--json")[1][-1]["members"] == 10
    code, lines, _ = run(capsys, *state, "restore", "--to", tmp_path / "to", "s2/f05", "--json")
    assert code == 0
    assert contents(tmp_path / "to") == {"s2/f05": bytes([2, 5]) * 4500}


def test_an_exported_entry_can_be_imported_elsewhere(
    tape: Tape, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    main(["--state", str(tmp_path / "a"), "catalog", "rebuild", "--tape", finished(tape)])
    capsysbinary.readouterr()

    assert main(["--state", str(tmp_path / "a"), "catalog", "export"]) == 0
    exported = capsysbinary.readouterr().out
    (tmp_path / "entry.jsonl").write_bytes(exported)
    assert main(["--state", str(tmp_path / "b"), "catalog", "import", str(tmp_path / "entry.jsonl")]) == 0
    capsysbinary.readouterr()
    assert main(["--state", str(tmp_path / "b"), "catalog", "export", BACKUP]) == 0
    assert capsysbinary.readouterr().out == exported


def test_an_unknown_path_and_an_unknown_backup_fail(tape: Tape, tmp_path: Path) -> None:
    url = finished(tape)

    assert main(["restore", "--tape", url, "--to", str(tmp_path / "to"), "s9"]) == 1
    assert main(["list", "--tape", url, "s9"]) == 1
    assert main(["--state", str(tmp_path / "s"), "list", "--backup", "123"]) == 1


def test_a_tape_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A mistyped name fails; a tape that is there and blank needs an operator."""
    absent, url = tmp_path / "absent.tap", f"file:{tmp_path}/absent.tap"
    state = ["--state", str(tmp_path / "s")]
    verbs = (["restore", "--to", str(tmp_path / "to")], ["verify"], ["list"], ["catalog", "rebuild"])

    assert [main([*state, *verb, "--tape", url]) for verb in verbs] == [1] * 4
    assert [main(["tape", action, url]) for action in ("status", "load", "rewind", "erase", "eject")] == [1] * 5
    assert not absent.exists()
    absent.touch()
    assert [main([*state, *verb, "--tape", url]) for verb in verbs] == [4] * 4


@pytest.mark.parametrize(
    "content", [b"", b"no export\n", b"{}\n", b'{"kind":"member"}\n', bytes(3 << 20), b"[" * 100_000]
)
def test_importing_what_is_no_export_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "other").write_bytes(content)

    assert main(["--state", str(tmp_path), "catalog", "import", str(tmp_path / "other")]) == 2
    told = capsys.readouterr().err
    assert "no export of a catalog" in told
    assert "verify" not in told
