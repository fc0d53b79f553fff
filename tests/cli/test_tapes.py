"""The verb tape over a software drive and a null drive."""

import json
from pathlib import Path

import pytest

from splitreel.__main__ import main
from splitreel.core.softdrive import SoftDrive
from splitreel.drive import open_drive


@pytest.fixture
def tape(tmp_path: Path) -> str:
    url = f"file:{tmp_path}/a.tap"
    with open_drive(f"{url}?size=50M&barcode=TST001L9") as drive:
        drive.tape.write(b"data" * 100)
        drive.write_filemarks(1)
    return url


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_status_as_json(tape: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tape", "status", tape, "--json", "--alerts"]) == 0

    found = told(capsys)
    assert found["kind"] == "tape"
    assert found["ready"] is True
    assert (found["object_id"], found["at_beginning"], found["barcode"]) == (0, True, "TST001L9")
    assert found["alerts"] == []


def test_status_as_text(tape: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tape", "status", tape]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "ready: yes" in lines
    assert "write protected: no" in lines
    assert "product: SOFTDRIVE" in lines


def test_status_of_the_null_drive(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tape", "status", "null:", "--json"]) == 0
    assert told(capsys)["ready"] is True


def test_erase_refuses_what_holds_data(tape: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tape", "erase", tape]) == 4
    assert "--force" in capsys.readouterr().err
    assert Path(tape.removeprefix("file:")).stat().st_size == 412

    assert main(["tape", "erase", tape, "--force", "--json"]) == 0
    assert told(capsys)["erased"] is True
    assert Path(tape.removeprefix("file:")).stat().st_size == 0
    assert main(["tape", "erase", tape]) == 0


def test_rewind_and_eject(tape: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tape", "rewind", tape, "--json"]) == 0
    assert told(capsys)["object_id"] == 0
    assert main(["tape", "eject", tape, "--json"]) == 0
    assert told(capsys)["ejected"] is True
    assert main(["tape", "load", tape, "--json"]) == 0


def test_drive_in_use_is_a_failure_with_advice(tape: str, capsys: pytest.CaptureFixture[str]) -> None:
    with SoftDrive(tape.removeprefix("file:")):
        assert main(["tape", "status", tape]) == 1

    assert "in use" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["tape0", "file:"])
def test_unknown_address_is_a_usage_error(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tape", "status", address]) == 2
    assert "/dev/nst0" in capsys.readouterr().err
