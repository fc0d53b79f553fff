"""run proves the point in time on the user's own set-up: session after session under writers, each one examined.

It is the session that every backup runs, to the job's tape and back; only what is written to tape is less: the stamped
files, and what the quiescers discover. It touches nothing but a directory and a table of its own.
"""

import dataclasses
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splitreel import config, quiesce, session
from splitreel.drive import open_drive
from splitreel.errors import EXIT_DATA, EXIT_DONE, SplitreelError, UsageError
from splitreel.prove import rows
from splitreel.prove.examine import Examiner, Window
from splitreel.prove.finding import Finding, totals
from splitreel.prove.stamping import ROWS_KEPT, Stamping
from splitreel.reading import label_of
from splitreel.restore import restore
from splitreel.session.checks import is_frozen, keep_apart

ROWS_LIMIT = 1 << 30  # bytes of a database that is restored after every session
LONGEST_PAUSE_S = 1.0
KEPT_FINDINGS = 1000


@dataclass(frozen=True)
class Options:
    """How to prove. ``tape`` takes the place of the job's own; ``rows``: stamp the job's SQLite database too."""

    seconds: float = 60.0
    writers: int = 4
    tape: str = ""
    rows: bool = True


@dataclass
class Proved:
    """What one session showed."""

    session: int
    window_ms: float
    split_ms: float
    stamps: int = 0
    rows: int = 0
    before: int = 0
    in_flight: int = 0
    bytes: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As a JSON line."""
        facts = {key: value for key, value in dataclasses.asdict(self).items() if key != "findings"}
        return {"kind": "proved", **facts, "violations": totals(self.findings)}


@dataclass
class Proof:
    """What all sessions showed. ``error`` is what ended it early."""

    job: str
    frozen: bool
    with_rows: bool
    seconds: float = 0.0
    stamps_written: int = 0
    rows_written: int = 0
    sessions: list[Proved] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: str = ""
    error: SplitreelError | None = None

    @property
    def violations(self) -> dict[str, int]:
        """How many stamps and rows were wrong, by kind."""
        return totals(finding for one in self.sessions for finding in one.findings)

    @property
    def exit_code(self) -> int:
        """0 nothing was wrong, 3 something was, else that of the error."""
        if self.violations:
            return EXIT_DATA
        return EXIT_DONE if self.error is None else self.error.exit_code

    def record(self) -> dict[str, Any]:
        """The last JSON line."""
        windows = [one.window_ms for one in self.sessions] or [0.0]
        listed = [str(finding) for one in self.sessions for finding in one.findings]
        return {
            "kind": "prove",
            "job": self.job,
            "proved": not self.violations and self.error is None and bool(self.sessions),
            "seconds": round(self.seconds, 1),
            "sessions": len(self.sessions),
            "stamps_written": self.stamps_written,
            "stamps_examined": sum(one.stamps for one in self.sessions),
            "rows_written": self.rows_written,
            "rows_examined": sum(one.rows for one in self.sessions),
            "in_flight": sum(one.in_flight for one in self.sessions),
            "violations": sum(self.violations.values()),
            "by_kind": self.violations,
            "findings": listed[:KEPT_FINDINGS],
            "window_ms_median": round(statistics.median(windows), 3),
            "window_ms_max": round(max(windows), 3),
            "frozen": self.frozen,
            "notes": self.notes,
            "kept": self.kept,
            "error": str(self.error) if self.error else "",
        }


def prove(
    job: config.Job,
    options: Options,
    *,
    state: str | os.PathLike[str],
    scratch: Path,
    tell: Callable[[Proved], None] = lambda _: None,
) -> Proof:
    """Stamp the job's volume while session after session runs, and examine what each of their tapes holds.

    ``scratch`` is an empty directory elsewhere; ``tell`` hears of each session. At least one session is run.

    Raises:
        UsageError: this job cannot be proved, or its volume not be written to.
    """
    return _Run(job, options, Path(state), scratch, tell).run()


class _Run:
    """One proof under way."""

    def __init__(
        self, job: config.Job, options: Options, state: Path, scratch: Path, tell: Callable[[Proved], None]
    ) -> None:
        _refuse(job, scratch)
        self.job, self.options, self.state, self.scratch, self.tell = job, options, state, scratch, tell
        self.number = random.SystemRandom().getrandbits(63)
        self.mount = Path(job.mount)
        self.folder = self.mount / f"splitreel-prove-{self.number:016x}"
        mounts = [mount for settings in job.quiesce for mount in quiesce.create(settings).frozen()]
        frozen = is_frozen(job.mount, mounts)
        self.proof = Proof(job.name, frozen, False)
        self.database = self._database() if options.rows else None
        self.proof.with_rows = self.database is not None
        self.examiners = {writer: Examiner(self.number, writer, frozen) for writer in range(options.writers)}
        self.last_backup = ""

    def run(self) -> Proof:
        """Sessions until the time is over."""
        began, proof = time.monotonic(), self.proof
        dice = random.Random(self.number)
        stamping = Stamping(self.folder, self.scratch, self.number, self.options.writers, self.database)
        with stamping:
            try:
                while not proof.sessions or time.monotonic() - began < self.options.seconds:
                    time.sleep(dice.uniform(0, LONGEST_PAUSE_S))
                    self._session(stamping)
            except SplitreelError as error:
                proof.error = error
            proof.stamps_written, proof.rows_written = stamping.stamps(), stamping.commits()
        proof.seconds = time.monotonic() - began
        return proof

    def _session(self, stamping: Stamping) -> None:
        """One session, restored from its tape and examined."""
        began = time.monotonic()
        job = self._job()
        marks: dict[tuple[str, str], int] = {}

        def report(event: Mapping[str, Any]) -> None:
            if event.get("event") == "phase":
                marks[event["phase"], event["state"]] = time.monotonic_ns()

        done = session.run(job, state=self.state, report=report)
        window = done.window_ns
        if not window[0]:
            # Nobody had to wait: then the split lies somewhere between these two.
            window = (marks["quiesce", "begin"], marks["unquiesce", "end"])
        stamping.wait_past(window[1])
        proved = Proved(len(self.proof.sessions) + 1, done.window_ms, done.split_ms)
        proved.findings += [Finding("damaged", "the split mirror", note) for note in done.notes if "damaged" in note]
        if done.backup is not None:
            self.last_backup, proved.bytes = done.backup.id, done.backup.bytes
        self._examine(stamping, job.tape, window, proved)
        proved.seconds = time.monotonic() - began
        self.proof.sessions.append(proved)
        self.tell(proved)

    def _job(self) -> config.Job:
        """The job as it is run: of our files alone, over the last proof's tape but over no other."""
        tape = self.options.tape or self.job.tape
        overwrite = self.job.overwrite
        if self.last_backup:
            with open_drive(tape) as drive:
                overwrite = overwrite or label_of(drive).backup == self.last_backup
        return dataclasses.replace(
            self.job, tape=tape, overwrite=overwrite, paths=[os.path.relpath(self.folder, self.mount)]
        )

    def _examine(self, stamping: Stamping, tape: str, window: Window, proved: Proved) -> None:
        """Restore what was stamped, and compare; a copy with violations is kept, the first one."""
        restored = self.scratch / f"restored-{proved.session}"
        with open_drive(tape) as drive:
            patterns = [] if self.database is not None else [os.fsencode(self.folder.relative_to(self.mount))]
            outcome = restore(drive, restored, patterns)
        problems = [(os.fsdecode(path) or "the tape", why) for path, why in outcome.problems.listed]
        proved.findings += [Finding("damaged", path, why) for path, why in problems]
        for writer, examiner in self.examiners.items():
            folder = restored / stamping.directory(writer).relative_to(self.mount)
            found = examiner.examine(folder, stamping.log(writer), window)
            proved.stamps += found.stamps
            proved.before += found.before
            proved.in_flight += found.begun - found.before
            proved.findings += found.findings
        if self.database is not None:
            copy = restored / self.database.relative_to(self.mount)
            seen = rows.examine(copy, stamping.row_logs, ROWS_KEPT, window)
            proved.rows = seen.rows
            proved.findings += seen.findings
        if proved.findings and not self.proof.kept:
            self.proof.kept = str(restored)
        else:
            shutil.rmtree(restored)

    def _database(self) -> Path | None:
        """The job's first SQLite database, when it is on the volume and small enough to be restored each time."""
        named = [Path(os.path.realpath(entry["database"])) for entry in self.job.quiesce if entry["type"] == "sqlite"]
        for database in named:
            if not database.is_relative_to(self.mount.resolve()) or not database.is_file():
                continue
            if database.stat().st_size <= ROWS_LIMIT:
                return self.mount / database.relative_to(self.mount.resolve())
            self.proof.notes.append(f"{database} is larger than {ROWS_LIMIT >> 20} MiB: rows were not stamped")
        return None


def _refuse(job: config.Job, scratch: Path) -> None:
    if job.raw or not job.mount or not os.path.ismount(job.mount):
        raise UsageError(
            f"prove: job {job.name}",
            "where its volume is mounted is not known" if not job.mount else f"nothing is mounted at {job.mount}",
            "Set `mount`; a raw volume and one that is not mounted cannot be stamped.",
        )
    if (job.tape or "").startswith("null:"):
        raise UsageError(f"prove: job {job.name}", "its tape is null:, which gives nothing back", "Name a --tape.")
    keep_apart([("scratch directory", str(scratch))], [job.mount])
