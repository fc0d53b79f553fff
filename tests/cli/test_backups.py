"""The verb backup with a configuration: the job goes to the session, its result and failures to the user."""

import json
from pathlib import Path
from typing import Any

import pytest

from splitreel import session
from splitreel.__main__ import main
from splitreel.backup import Incomplete, Result


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "job.toml"
    path.write_text("")
    monkeypatch.setattr("splitreel.config.load", lambda given: Given(str(given)))
    return path


class Given:
    """A configuration that has one job: its own path and the name that was asked for."""

    def __init__(self, path: str) -> None:
        self.path = path

    def job(self, name: str | None) -> tuple[str, str | None]:
        return self.path, name


def written(**more: Any) -> Result:
    return Result("uuid", "SR0001", **({"state": "complete", "files": 3, "bytes": 10, "seconds": 1.0} | more))


def test_the_sessions_result_is_the_last_line(
    configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def run(job: Any, *, state: Path, report: Any, explain: Any) -> session.SessionResult:
        asked.append((job, state))
        report({"event": "phase", "phase": "map", "state": "end", "seconds": 0.5})
        return session.SessionResult("nightly", 0.0, window_ms=4.5, backup=written())

    monkeypatch.setattr(session, "run", run)
    state = ["--state", str(tmp_path / "state")]
    assert main([*state, "backup", str(configuration), "--job", "nightly", "--json"]) == 0

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert asked == [((str(configuration), "nightly"), tmp_path / "state")]
    assert lines[0]["phase"] == "map"
    assert (lines[-1]["kind"], lines[-1]["window_ms"], lines[-1]["files"]) == ("backup", 4.5, 3)
    assert main([*state, "backup", str(configuration)]) == 0
    assert "window 4.5 ms" in capsys.readouterr().out


def test_what_was_left_out_is_exit_code_3(
    configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = written(left_out=[(b"bad", "it is damaged")])
    monkeypatch.setattr(session, "run", lambda *_, **__: session.SessionResult("j", 0.0, backup=result))

    assert main(["--state", str(tmp_path), "backup", str(configuration)]) == 3
    assert "left out: bad" in capsys.readouterr().err


def test_a_full_tape_prints_what_it_holds_and_is_exit_code_4(
    configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        error = Incomplete("tape SR0001", "it is full")
        error.result = written(state="incomplete")
        raise error

    monkeypatch.setattr(session, "run", full)

    assert main(["--state", str(tmp_path), "backup", str(configuration), "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["state"] == "incomplete"


@pytest.mark.parametrize(
    "arguments", [[], ["a.toml", "b.toml"], ["--device", "/dev/null"], ["a.toml", "--tape", "null:"]]
)
def test_neither_form_is_a_usage_error(arguments: list[str]) -> None:
    assert main(["backup", *arguments]) == 2


def test_a_tape_beside_a_configuration_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "job.toml", "--tape", "null:"]) == 2
    assert "a configuration names its tape itself" in capsys.readouterr().err
