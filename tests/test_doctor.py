"""Each finding says what was found, and what to do where something is missing."""

import os
import shutil
from pathlib import Path

import pytest

from splitreel import doctor
from splitreel.errors import DeviceError


def test_every_subject_is_looked_at_once(tmp_path: Path) -> None:
    subjects = [finding.subject for finding in doctor.examine(tmp_path)]

    assert len(subjects) == len(set(subjects)) == 9


def test_what_is_no_ok_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without programs, without io_uring and without root."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    findings = {finding.subject: finding for finding in doctor.examine(tmp_path)}

    assert findings["demo"].level == "note"
    assert "apt-get install" in findings["demo"].remedy
    assert findings["privileges"].level == "note"


def test_a_full_state_directory_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_SPACE", 1 << 60)

    (finding,) = [f for f in doctor.examine(tmp_path) if f.subject == "state directory"]

    assert (finding.level, "--state" in finding.remedy) == ("bad", True)


def test_a_state_directory_that_others_may_read_is_noted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    (finding,) = [f for f in doctor.examine(tmp_path) if f.subject == "state directory"]

    assert finding.remedy == f"chmod 700 {tmp_path}"


def test_a_look_that_fails_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DeviceError("opening an engine", "refused")

    monkeypatch.setattr(doctor, "ReadEngine", type("Refusing", (), {"open": staticmethod(refuse)}))

    (finding,) = [f for f in doctor.examine(tmp_path) if f.subject == "read engine"]

    assert (finding.level, "refused" in finding.found) == ("bad", True)
