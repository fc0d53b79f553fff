"""measure runs one session on a bench and says what it cost; restores its tape and judges the copy."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from splitreel import config, volume
from splitreel.session import Session
from tests.sessions import Bench, Volume
from tests.sessions.commits import judge, longest_ms


@dataclass
class Measured:
    """One session. Stalls are of commits, as the writers saw them; ``failures`` is empty when the copy is right."""

    database: str
    mode: str
    mirror: str
    order: str
    number: int
    extra_files: int = 0  # on the volume, besides the database
    window_ms: float = 0.0
    split_ms: float = 0.0
    hot_backup_ms: float = 0.0
    second_window_ms: float = 0.0
    window_stall_ms: float = 0.0  # the longest commit under way in the window
    held_stall_ms: float = 0.0  # from the beginning of the quiesce, its checkpoint included, to the end of the release
    session_stall_ms: float = 0.0
    usual_stall_ms: float = 0.0  # in the second before the session
    first_byte_ms: float = 0.0  # from the end of the split to the first byte on tape
    resynced_bytes: int | None = None
    files: int = 0
    bytes: int = 0
    session_s: float = 0.0
    restore_s: float = 0.0
    recovery_s: float = 0.0
    checks: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Timed(Session):
    """A session that notes when each phase begins, and when the first byte goes to tape."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.entered: dict[str, int] = {}

    def enter(self, phase: str) -> None:
        self.entered[phase] = time.monotonic_ns()

    def run_timed(self) -> None:
        """Run it; the label is what goes to tape first."""
        real = volume.write

        def write(*arguments: Any) -> None:
            self.entered["first byte"] = time.monotonic_ns()
            real(*arguments)

        with mock.patch.object(volume, "write", write):
            self.run()
        self.entered["end"] = time.monotonic_ns()


def job_table(bench: Bench, held: Volume, folder: Path, order: str) -> dict[str, Any]:
    """The configuration of a session on a bench; its state is ``folder``/state."""
    (folder / "state").mkdir(exist_ok=True)
    return {
        "tape": f"file:{folder}/tape",
        "mirror": held.settings(),
        "quiesce": [*bench.quiescers(), {"type": "fsfreeze", "mount": held.mount_point}],
        "order": order,
        "overwrite": True,
    }


def run_session(bench: Bench, held: Volume, folder: Path, measured: Measured) -> tuple[int, int]:
    """One session to ``folder``/tape; returns the bounds in time of what its copy must hold."""
    job = job_table(bench, held, folder, measured.order)
    time.sleep(1.0)
    session = Timed(config.parse({"job": {"bench": job}}).job(), folder / "state", lambda _: None)
    begun = time.monotonic_ns()
    session.run_timed()
    result, at = session.result, session.entered
    opened, closed = result.window_ns
    released = at["backup"] if measured.order == "conventional" else at["check"]
    measured.window_ms, measured.split_ms = result.window_ms, result.split_ms
    measured.hot_backup_ms, measured.second_window_ms = result.hot_backup_ms, result.second_window_ms
    measured.window_stall_ms = longest_ms(bench.logs, opened, closed)
    measured.held_stall_ms = longest_ms(bench.logs, at["quiesce"], released)
    measured.session_stall_ms = longest_ms(bench.logs, begun, at["end"])
    measured.usual_stall_ms = longest_ms(bench.logs, begun - 10**9, begun)
    measured.first_byte_ms = (at["first byte"] - at["split"]) / 1e6 - result.split_ms
    measured.resynced_bytes, measured.files = result.dirty_bytes, result.files
    measured.bytes = result.backup.bytes if result.backup is not None else 0
    measured.session_s = (at["end"] - begun) / 1e9
    return (at["unquiesce"], released) if bench.mode in bench.REDO_MODES else (opened, closed)


def restore(folder: Path, measured: Measured) -> Mapping[str, Any]:
    """Restore the database from the tape and drill it, as a user does; the facts that were printed of it."""
    target = folder / "restored"
    begun = time.monotonic()
    command = [sys.executable, "-m", "splitreel", "restore", "--database", str(target), "--drill", "--json"]
    done = subprocess.run([*command, "--tape", f"file:{folder}/tape"], capture_output=True, text=True, check=False)
    measured.restore_s = time.monotonic() - begun
    found: dict[str, Any] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        if line["kind"] == "database":
            found = line
        elif line["kind"] == "drill":
            measured.recovery_s = line["seconds"]
            measured.checks = {check["name"]: check["seconds"] for check in line["checks"]}
            measured.failures += [f"{c['name']}: {problem}" for c in line["checks"] for problem in c["problems"]]
        elif line["kind"] == "problem":
            measured.failures.append(f"{line['path']}: {line['why']}")
    if done.returncode != 0 and not measured.failures:
        measured.failures.append(" ".join(done.stderr.split())[-500:])
    return found


def measure(bench: Bench, held: Volume, folder: Path, measured: Measured) -> Measured:
    """A session in full: the copy in order ``premapped`` is restored, drilled and judged; any other only measured."""
    before, after = run_session(bench, held, folder, measured)
    if measured.order != "premapped":
        return measured
    found = restore(folder, measured)
    if found and not measured.failures:
        rows = bench.rows(Path(found["data"]), folder / "run-restored")
        measured.failures += judge(rows, bench.logs, before, after)
    shutil.rmtree(folder / "restored", ignore_errors=True)
    os.truncate(folder / "tape", 0)
    return measured
