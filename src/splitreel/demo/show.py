"""show runs a whole session on the scene, restores the tape and proves the result; then it times the other order.

The order ``premapped`` goes to tape and is proved; ``conventional`` runs afterwards, only for its window.
"""

import contextlib
import filecmp
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from splitreel import config, session
from splitreel.demo.scene import ROWS_KEPT, Scene
from splitreel.demo.target import TapeTarget
from splitreel.drive import open_drive
from splitreel.prove import rows
from splitreel.prove.sqliterows import read_file
from splitreel.restore import restore

Say = Callable[[str], None]
COMMITS_AFTER_THE_WINDOW = 20


@dataclass
class DemoResult:
    """What was shown; ``restored_ok`` when the proof holds and every file came back the same."""

    window_ms: float
    conventional_window_ms: float
    files: int
    bytes: int
    mb_per_s: float
    restore_seconds: float
    proof: rows.Rows
    differing: list[str] = field(default_factory=list)
    compared: int = 0

    @property
    def restored_ok(self) -> bool:
        """True when the database proves what is claimed and no file differs."""
        return self.proof.ok and not self.differing and self.compared > 0

    def record(self) -> dict[str, Any]:
        """The last JSON line of the demo."""
        return {
            "kind": "demo",
            "restored_ok": self.restored_ok,
            "window_ms": round(self.window_ms, 3),
            "conventional_window_ms": round(self.conventional_window_ms, 3),
            "files": self.files,
            "bytes": self.bytes,
            "mb_per_s": round(self.mb_per_s, 1),
            "restore_seconds": round(self.restore_seconds, 3),
            "rows": self.proof.rows,
            "acknowledged_before": self.proof.before,
            "committed_after": self.proof.after,
            "integrity": self.proof.integrity,
            "failures": [*map(str, self.proof.findings), *(f"differs: {path}" for path in self.differing[:10])],
        }


@contextlib.contextmanager
def tape(directory: Path, drive: Literal["file", "iscsi"], megabytes: int) -> Iterator[str]:
    """The TAPE argument of a drive that holds ``megabytes``; an iSCSI target is started for it, and stopped after."""
    if drive == "file":
        yield f"file:{directory / 'demo.tap'}"
        return
    with TapeTarget(directory / "target", size_mb=megabytes) as target:
        yield target.url


def run_demo(
    directory: Path,
    *,
    files: int,
    writers: int,
    drive: Literal["file", "iscsi"],
    say: Say,
    observe: Callable[[session.SessionResult], None],
) -> DemoResult:
    """The whole demo in an empty directory on a file system that takes direct I/O.

    Raises:
        SplitreelError: a part is missing or failed; everything started is stopped.
    """
    say(f"Setting the scene: a mirrored volume, {files} files, a SQLite database, {writers} writers")
    with Scene(directory, files, writers) as scene, tape(directory, drive, 1024 + files // 25) as url:
        say(f"Session: map, quiesce, split, check, backup to {url}")
        first = _session(scene, url, "premapped", directory)
        observe(first)
        scene.wait_for_commits(COMMITS_AFTER_THE_WINDOW)
        say("Restoring from the tape alone")
        restored, seconds = directory / "restored", time.monotonic()
        with open_drive(url) as opened:
            outcome = restore(opened, restored)
        seconds = time.monotonic() - seconds
        say("Comparing every file, and proving the database")
        compared, differing = _compare(scene.mount_point / "files", restored / "files")
        differing += [os.fsdecode(path) for path, _ in outcome.problems.listed]
        proof = rows.examine(read_file(restored / "db" / "app.db"), scene.logs, ROWS_KEPT, first.window_ns)
        say("Once more in the conventional order: mapping while the database is held")
        second = _session(scene, url, "conventional", directory)
    assert first.backup is not None
    result = first.backup
    return DemoResult(
        window_ms=first.window_ms,
        conventional_window_ms=second.window_ms,
        files=result.files,
        bytes=result.bytes,
        mb_per_s=result.mb_per_s,
        restore_seconds=seconds,
        proof=proof,
        differing=differing,
        compared=compared,
    )


def _session(scene: Scene, url: str, order: str, directory: Path) -> session.SessionResult:
    job = config.parse(scene.job(url, order)).job("demo")
    state = directory / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    return session.run(job, state=state)


def _compare(source: Path, restored: Path) -> tuple[int, list[str]]:
    """How many files were compared byte by byte with the primary's, and which differ or are missing."""
    compared, differing = 0, []
    for directory, _, names in os.walk(source):
        other = restored / Path(directory).relative_to(source)
        for name in names:
            compared += 1
            there = other / name
            if not there.is_file() or not filecmp.cmp(Path(directory) / name, there, shallow=False):
                differing.append(str(there))
    return compared, differing
