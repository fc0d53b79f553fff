"""After SIGKILL in any phase: writers go on, ``resume`` puts the mirror back, and the next session works."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from splitreel import journal
from splitreel.__main__ import main
from splitreel.errors import SplitreelError
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.session.resume import resume
from tests.session.parts import KeepingSession, Kept, job_of, sound
from tests.volumes import writes_within

ROOT = Path(__file__).parents[2]

DIE = """
import json, os, signal, sys
from pathlib import Path
from splitreel.config import Job
from tests.session.parts import KeepingSession

class Dying(KeepingSession):
    def enter(self, phase):
        if phase == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)

Dying(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]), lambda event: None).run()
"""


def die_in(job: Any, state: Path, phase: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", DIE, json.dumps(job.record()), str(state), phase]
    died = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr


@pytest.mark.parametrize(
    "phase",
    ["establish", "map", "quiesce", "discover", "prepare", "split", "unquiesce", "check", "backup", "cleanup"],
)
def test_killed_in_any_phase(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path, writing: Any, phase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(embedded, "null:")
    with writing(embedded) as count:
        die_in(job, state, phase)
        assert writes_within(Path(embedded.mount_point), 5)
        before, until = count(), time.monotonic() + 10
        while count() == before and time.monotonic() < until:
            time.sleep(0.01)
        assert count() > before
        with pytest.raises(SplitreelError, match="interrupted") as caught:
            KeepingSession(job, state, print).run()
        assert "splitreel resume" in caught.value.advice
        assert main(["--state", str(state), "resume", "--json"]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told["job"] == "nightly"
        assert told["failures"] == []
        assert len(told["lines"]) >= 2
        result = KeepingSession(job, state, lambda _: None).run()
    assert isinstance(result.backup, Kept)
    sound(result.backup.files, tmp_path / "copy")
    assert all(history.finished for history in journal.histories(state))


def test_a_split_that_was_recorded_rejoins_with_what_changed_and_one_that_was_not_is_copied_in_full(
    embedded: EmbeddedMirror, state: Path
) -> None:
    job = job_of(embedded, "null:")
    for phase, words in (("check", "it has rejoined"), ("unquiesce", "copied in full"), ("split", "was not split")):
        die_in(job, state, phase)
        assert writes_within(Path(embedded.mount_point), 5)
        (done,) = resume(state)
        assert any(words in line for line in done.lines), (phase, done.lines)
        mirror = embedded.mirror()
        mirror.wait_in_sync(60)
        with Frozen(embedded):
            pass
        mirror.flush()
        with Frozen(embedded):
            mirror.split()
            same = subprocess.run(["cmp", embedded.primary_image, embedded.mirror_image], check=False).returncode
        assert same == 0, phase
        mirror.rejoin(lambda: Frozen(embedded))
        mirror.close()


class Frozen:
    """The volume, frozen."""

    def __init__(self, embedded: EmbeddedMirror) -> None:
        self.mount = embedded.mount_point

    def __enter__(self) -> None:
        subprocess.run(["fsfreeze", "--freeze", self.mount], check=True)

    def __exit__(self, *error: object) -> None:
        subprocess.run(["fsfreeze", "--unfreeze", self.mount], check=True)


def test_a_freeze_that_outlived_its_watchdog_is_thawed(embedded: EmbeddedMirror, state: Path) -> None:
    die_in(job_of(embedded, "null:"), state, "discover")
    assert writes_within(Path(embedded.mount_point), 5)
    Frozen(embedded).__enter__()
    (done,) = resume(state)
    assert any("still frozen" in line for line in done.lines)
    assert writes_within(Path(embedded.mount_point), 5)


def test_a_freeze_that_outlived_a_rejoin_is_thawed(embedded: EmbeddedMirror, state: Path) -> None:
    die_in(job_of(embedded, "null:"), state, "cleanup")
    (history,) = journal.histories(state)
    log = journal.Journal.reopen(state, history)
    log.write("rejoin")
    log.close()
    Frozen(embedded).__enter__()
    (done,) = resume(state)
    assert any("still frozen" in line for line in done.lines)
    assert writes_within(Path(embedded.mount_point), 5)


def test_what_cannot_be_put_back_stays_interrupted(embedded: EmbeddedMirror, state: Path) -> None:
    die_in(job_of(embedded, "null:"), state, "check")
    embedded.qmp.rename(embedded.qmp.with_suffix(".away"))
    (done,) = resume(state)
    assert len(done.failures) == 1
    assert main(["--state", str(state), "resume"]) == 1
    embedded.qmp.with_suffix(".away").rename(embedded.qmp)
    (done,) = resume(state)
    assert done.failures == []
    assert resume(state) == []


def test_nothing_to_resume_says_so(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(state), "resume"]) == 0
    assert "no session was interrupted" in capsys.readouterr().err


def test_a_job_that_was_not_interrupted_is_told_from_one_that_is_not_known(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.Journal.begin(state, "nightly").end("done")

    assert main(["--state", str(state), "resume", "--job", "nightly"]) == 0
    assert capsys.readouterr().err == "no interrupted session of job nightly\n"
    for options in ([], ["--json"]):
        assert main(["--state", str(state), "resume", "--job", "nigthly", *options]) == 2
        assert "no interrupted session of job nigthly" in capsys.readouterr().err


def test_a_running_session_is_left_alone(embedded: EmbeddedMirror, state: Path) -> None:
    class Looking(KeepingSession):
        def enter(self, phase: str) -> None:
            if phase == "backup":
                assert resume(state) == []
                with pytest.raises(SplitreelError, match="is running"):
                    resume(state, "nightly")

    Looking(job_of(embedded, "null:"), state, lambda _: None).run()
