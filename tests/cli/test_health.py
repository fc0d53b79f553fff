"""The verbs doctor and selftest: what they print, and when they fail."""

import json
from pathlib import Path

import pytest

from splitreel import selftest, session
from splitreel.__main__ import main
from splitreel.core import checksum
from splitreel.journal import Journal

JOB = """
[job.nightly]
tape = "file:{folder}/a.tap"
[job.nightly.mirror]
type = "static"
image = "{folder}/no such image"
"""


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_doctor_finds_nothing_that_stops_a_backup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(tmp_path), "doctor", "--json"]) == 0

    findings = told(capsys)
    assert {finding["kind"] for finding in findings} == {"finding"}
    assert "read engine" in [finding["subject"] for finding in findings]


def test_doctor_names_a_job_that_cannot_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and a line of what to do below the finding."""
    config = tmp_path / "job.toml"
    config.write_text(JOB.format(folder=tmp_path))

    assert main(["--state", str(tmp_path), "doctor", str(config), "--job", "nightly"]) == 1

    lines = capsys.readouterr().out.splitlines()
    bad = next(number for number, line in enumerate(lines) if line.startswith("BAD   job nightly"))
    assert "no such image" in lines[bad]
    assert lines[bad + 1].strip().startswith("do: ")


def test_doctor_tells_of_an_interrupted_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next session of its job would refuse to begin."""
    config = tmp_path / "job.toml"
    config.write_text(JOB.format(folder=tmp_path))
    monkeypatch.setattr(session, "examine", lambda job, state: ["md /dev/md0: a rejoin copies little"])
    words = ["--state", str(tmp_path), "doctor", str(config)]

    assert main(words) == 0
    assert "a rejoin copies little" in capsys.readouterr().out
    Journal.begin(tmp_path, "nightly").close()
    capsys.readouterr()
    assert main(words) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("BAD   job nightly")
    assert "splitreel resume" in lines[-1]


def test_selftest_passes_and_counts_its_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{selftest.EXPECTED_CHECKS} of {selftest.EXPECTED_CHECKS} passed"
    assert [line for line in lines[:-1] if not line.startswith("ok  ")] == []


def test_selftest_fails_with_a_wrong_core(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checksum, "cksum", lambda data: 1)

    assert main(["selftest", "--json"]) == 1

    assert [check["name"] for check in told(capsys) if not check["ok"]] == ["checksums: known answers"]


def test_selftest_fails_when_a_check_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_CHECKS", selftest._CHECKS[:-1])

    assert main(["selftest"]) == 1
