"""A rehearsal is a session without its tape; what it measures decides whether a job with a budget may run."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from splitreel import errors, journal, runs, session
from splitreel.__main__ import main
from splitreel.catalog import Catalog
from splitreel.errors import BudgetExceeded, BudgetUnknown, QuiesceError, SplitreelError
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.runs import Run
from splitreel.session.forecast import NEEDED, settings_of
from splitreel.session.rehearse import Rehearsal
from splitreel.session.result import phase_order
from tests.session.parts import KeepingSession, job_of
from tests.volumes import writes_within

NO_DRIVE = "/dev/nst99"


def known(state: Path) -> list[Run]:
    with Catalog(state) as catalog:
        return runs.of_job(catalog, "nightly")


def fill(state: Path, job: Any, windows: list[float]) -> None:
    with Catalog(state) as catalog:
        for window in windows:
            runs.add(catalog, Run(job.name, settings_of(job), time.time(), True, True, window))


def test_it_is_a_whole_session_but_for_the_tape_and_needs_no_drive(
    embedded: EmbeddedMirror, state: Path, writing: Any
) -> None:
    job = job_of(embedded, NO_DRIVE)
    with writing(embedded):
        done = session.rehearse(job, state=state)

    phases = [phase.name for phase in done.phases]
    assert phases == [name for name in phase_order(job.order, job.unquiesce) if name != "backup"]
    assert done.backup is None
    (history,) = journal.histories(state)
    assert history.finished
    mirror = embedded.mirror()
    mirror.wait_in_sync(60)
    mirror.close()
    (run,) = known(state)
    assert (run.rehearsal, run.whole, run.error, run.backup) == (True, True, "", "")
    assert run.window_ms == done.window_ms > 0
    assert run.files == done.files > 20
    quiesced, released = ["sqlite", "fsfreeze"], ["fsfreeze", "sqlite"]
    names = [stage.name.split()[:2] for stage in run.stages if not stage.name.startswith("discover")]
    assert names == [*(["quiesce", w] for w in quiesced), ["split", "qemu"], *(["unquiesce", w] for w in released)]
    assert all(stage.at_ms + stage.ms <= run.window_ms + 1e-6 for stage in run.stages)


def test_a_backup_is_kept_with_its_name_and_its_window(embedded: EmbeddedMirror, state: Path, tmp_path: Path) -> None:
    job = job_of(embedded, f"file:{tmp_path}/tape")
    done = session.run(job, state=state)

    (run,) = known(state)
    assert done.backup is not None
    assert (run.rehearsal, run.whole, run.backup, run.window_ms) == (False, True, done.backup.id, done.window_ms)


def test_what_happened_in_the_window_is_told_after_it(embedded: EmbeddedMirror, state: Path) -> None:
    events: list[Any] = []

    class Looking(Rehearsal):
        def enter(self, phase: str) -> None:
            seen.append((phase, len(events)))

    seen: list[tuple[str, int]] = []
    Looking(job_of(embedded, NO_DRIVE), state, events.append).run()

    told = dict(seen)
    assert told["discover"] == told["prepare"] == told["split"] == told["unquiesce"]
    (window,) = [event for event in events if event["event"] == "window"]
    assert [stage["name"].split()[0] for stage in window["stages"]][-2:] == ["unquiesce", "unquiesce"]


def test_a_window_that_the_deadline_closed_is_kept_as_cut_short(embedded: EmbeddedMirror, state: Path) -> None:
    class Slow(Rehearsal):
        def enter(self, phase: str) -> None:
            if phase == "split":
                time.sleep(1)

    with pytest.raises(QuiesceError, match="the deadline passed"):
        Slow(job_of(embedded, NO_DRIVE, deadline_ms=300), state, lambda _: None).run()

    assert writes_within(Path(embedded.mount_point), 5)
    (run,) = known(state)
    assert not run.whole
    assert "deadline passed" in run.error


def test_a_watchdog_killed_in_the_window_ends_it_and_lets_go(embedded: EmbeddedMirror, state: Path) -> None:
    class Unguarded(Rehearsal):
        def enter(self, phase: str) -> None:
            if phase == "prepare":
                assert self._window._watchdog is not None
                os.kill(self._window._watchdog.pid, signal.SIGKILL)
                time.sleep(0.2)
            assert phase != "split"

    with pytest.raises(QuiesceError, match="the watchdog died"):
        Unguarded(job_of(embedded, NO_DRIVE), state, lambda _: None).run()
    assert writes_within(Path(embedded.mount_point), 5)


def test_a_session_that_fails_before_its_window_is_no_run(embedded: EmbeddedMirror, state: Path) -> None:
    class Failing(Rehearsal):
        def enter(self, phase: str) -> None:
            if phase == "map":
                raise SplitreelError("told to fail")

    with pytest.raises(SplitreelError, match="told to fail"):
        Failing(job_of(embedded, NO_DRIVE), state, lambda _: None).run()
    assert known(state) == []


def test_a_budget_is_refused_before_anything_is_touched(embedded: EmbeddedMirror, state: Path) -> None:
    class Untouched(KeepingSession):
        def enter(self, phase: str) -> None:
            raise AssertionError(phase)

    job = job_of(embedded, "null:", window_ms=2000)
    with pytest.raises(BudgetUnknown):
        Untouched(job, state, lambda _: None).run()
    fill(state, job, [3000.0] * NEEDED)
    with pytest.raises(BudgetExceeded, match="up to 3000 ms"):
        Untouched(job, state, lambda _: None).run()
    with pytest.raises(BudgetExceeded):
        session.examine(job, state)
    assert all(history.finished for history in journal.histories(state))


def test_within_its_budget_a_job_runs_and_one_refused_may_be_rehearsed(embedded: EmbeddedMirror, state: Path) -> None:
    job = job_of(embedded, "null:", window_ms=4000)
    session.rehearse(job, state=state)
    fill(state, job, [1000.0] * NEEDED)

    done = KeepingSession(job, state, lambda _: None).run()

    assert done.predicted_ms is not None
    assert known(state)[-1].predicted_ms == done.predicted_ms
    assert known(state)[-1].budget_ms == 4000


def test_the_command_line_rehearses_and_says_what_is_foretold(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "job.toml"
    mirror = ", ".join(f'{key} = "{value}"' for key, value in embedded.settings().items())
    config.write_text(
        f'[job.nightly]\ntape = "{NO_DRIVE}"\nwindow_ms = 4000\nmirror = {{ {mirror} }}\n'
        f'[[job.nightly.quiesce]]\ntype = "fsfreeze"\nmount = "{embedded.mount_point}"\n'
    )
    common = ["--state", str(state), "backup", str(config)]

    assert main(common) == errors.EXIT_OPERATOR
    assert f"--rehearse --count {NEEDED}" in capsys.readouterr().err
    assert main([*common, "--rehearse", "--count", "0"]) == errors.EXIT_USAGE
    assert main([*common, "--rehearse", "--count", "2", "--json"]) == 0
    *lines, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [(line["kind"], line["number"]) for line in lines] == [("rehearsal", 1), ("rehearsal", 2)]
    assert last == {"kind": "forecast", "job": "nightly", **NO_BOUND, "budget_ms": 4000}
    assert main([*common, "--rehearse"]) == 0
    assert f"no prediction, by 3 runs of the {NEEDED}" in capsys.readouterr().out


NO_BOUND = {"bound_ms": None, "percent": 95, "runs": 2, "cut": 0}
