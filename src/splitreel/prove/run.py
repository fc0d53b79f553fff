"""run proves the point in time on the user's own set-up: session after session under writers, each one examined.

It is the session that every backup runs, to the job's tape and back; only what is written to tape is less: the stamped
files, and what the quiescers discover. It touches nothing but a directory and a table of its own.
"""

import dataclasses
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from splitreel import config, quiesce, session
from splitreel.drive import open_drive
from splitreel.errors import Cancelled, IntegrityError, NotFound, SplitreelError, UsageError
from splitreel.prove import rows
from splitreel.prove.examine import Examiner, Window
from splitreel.prove.finding import Finding
from splitreel.prove.places import Places
from splitreel.prove.proof import Options, Proof, Proved
from splitreel.prove.stamping import ROWS_KEPT, Stamping
from splitreel.reading import label_of
from splitreel.restore import restore
from splitreel.session.checks import is_frozen

ROWS_LIMIT = 1 << 30  # bytes of a database that is restored after every session
LONGEST_PAUSE_S = 1.0
PASSABLE = 0o711  # for the user as whom a restored database is started


def prove(
    job: config.Job,
    options: Options,
    *,
    state: str | os.PathLike[str],
    scratch: Path,
    tell: Callable[[Proved], None] = lambda _: None,
) -> Proof:
    """Stamp the job's volume while session after session runs, and examine what each of their tapes holds.

    ``scratch`` is an empty directory elsewhere; ``tell`` hears of each session.

    Raises:
        UsageError: this job cannot be proved, or its volume not be written to.
    """
    return _Run(job, options, Path(state), scratch, tell).run()


class _Run:
    """One proof under way."""

    def __init__(
        self, job: config.Job, options: Options, state: Path, scratch: Path, tell: Callable[[Proved], None]
    ) -> None:
        self.job, self.options, self.state, self.scratch, self.tell = job, options, state, scratch, tell
        self.tape = options.tape or job.tape
        if self.tape.startswith("null:"):
            raise UsageError(f"prove: job {job.name}", "its tape is null:, which gives nothing back", "Name a --tape.")
        self.number = random.SystemRandom().getrandbits(63)
        self.places = Places(job, self.number, scratch)
        mounts = [mount for settings in job.quiesce for mount in quiesce.create(settings).frozen()]
        frozen = all(is_frozen(str(mount), mounts) for mount in self.places.mounts)
        self.proof = Proof(job.name, frozen)
        self.tables = self._tables() if options.rows else []
        self.proof.notes += [
            f"{path} is of an interrupted proof and can be removed" for path in self.places.leftovers()
        ]
        self.examiners = {writer: Examiner(self.number, writer, frozen) for writer in range(options.writers)}
        self.last_backup = ""

    def run(self) -> Proof:
        """Sessions until the time is over."""
        proof, dice = self.proof, random.Random(self.number)
        with Stamping(self.places.folders, self.scratch, self.number, self.options.writers, self.tables) as stamping:
            began = time.monotonic()
            try:
                while len(proof.sessions) < self.options.sessions or time.monotonic() - began < self.options.seconds:
                    time.sleep(dice.uniform(0, LONGEST_PAUSE_S))
                    self._session(stamping)
            except SplitreelError as error:
                proof.error = error
            except KeyboardInterrupt:
                # The session has put everything back; what was shown until then is worth a verdict.
                proof.error = Cancelled("splitreel prove", "interrupted", "What was examined until then counts.")
            proof.stamps_written, proof.rows_written = stamping.stamps(), stamping.commits()
            proof.seconds = time.monotonic() - began
        return proof

    def _session(self, stamping: Stamping) -> None:
        """One session, restored from its tape and examined."""
        began = time.monotonic()
        marks: dict[tuple[str, str], int] = {}

        def report(event: Mapping[str, Any]) -> None:
            if event.get("event") == "phase":
                marks[event["phase"], event["state"]] = time.monotonic_ns()

        try:
            done = session.run(self._job(), state=self.state, report=report)
        except NotFound as error:
            # of a mirror that had been split long before; the error itself is what ends the run
            lost = Finding("lost", "the split mirror", f"it does not hold what was stamped ({error})")
            self._add(Proved(len(self.proof.sessions) + 1, 0.0, 0.0, findings=[lost]))
            raise
        released = marks["unquiesce", "end"]
        # When nobody had to wait, the split lies somewhere within these phases.
        window = done.window_ns if done.window_ns[0] else (marks["quiesce", "begin"], released)
        stamping.wait_past(released)
        proved = Proved(len(self.proof.sessions) + 1, done.window_ms, done.split_ms)
        proved.findings += [Finding("damaged", "the split mirror", note) for note in done.notes if "damaged" in note]
        if done.backup is not None:
            self.last_backup, proved.bytes = done.backup.id, done.backup.bytes
        self._examine(stamping, window, released, proved)
        proved.seconds = time.monotonic() - began
        self._add(proved)

    def _add(self, proved: Proved) -> None:
        self.proof.sessions.append(proved)
        self.tell(proved)

    def _job(self) -> config.Job:
        """The job as it is run: of our files alone, over the last proof's tape but over no other."""
        overwrite = self.job.overwrite
        if self.last_backup:
            with open_drive(self.tape) as drive:
                overwrite = overwrite or label_of(drive).backup == self.last_backup
        paths = [os.fsdecode(self.places.on_tape(folder)) for folder in self.places.folders]
        return dataclasses.replace(self.job, tape=self.tape, overwrite=overwrite, paths=paths)

    def _examine(self, stamping: Stamping, window: Window, released: int, proved: Proved) -> None:
        """Restore what was stamped, and compare; a copy with violations is kept, the first one."""
        place = self.scratch / f"restored-{proved.session}"
        place.mkdir(mode=PASSABLE)
        self._examine_files(stamping, place / "files", window, proved)
        for index, table in enumerate(stamping.tables):
            try:
                copy = table.read(self.tape, place / f"database-{index}", self.places.on_tape)
            except IntegrityError as error:
                proved.findings.append(Finding("damaged", table.name, str(error)))
                continue
            limits = table.window(window, released)
            seen = rows.examine(copy, stamping.row_logs[index], ROWS_KEPT, limits)
            proved.rows += seen.rows
            proved.findings += seen.findings
        if proved.findings and not self.proof.kept:
            self.proof.kept = str(place)
        else:
            shutil.rmtree(place)

    def _examine_files(self, stamping: Stamping, place: Path, window: Window, proved: Proved) -> None:
        with open_drive(self.tape) as drive:
            outcome = restore(drive, place, [self.places.on_tape(folder) for folder in self.places.folders])
        problems = [(os.fsdecode(path) or "the tape", why) for path, why in outcome.problems.listed]
        proved.findings += [Finding("damaged", path, why) for path, why in problems]
        for writer, examiner in self.examiners.items():
            folders = [place / os.fsdecode(self.places.on_tape(one)) for one in stamping.directories(writer)]
            found = examiner.examine(folders, stamping.log(writer), window)
            proved.stamps += found.stamps
            proved.before += found.before
            proved.in_flight += found.begun - found.before
            proved.findings += found.findings

    def _tables(self) -> Sequence[Mapping[str, Any]]:
        """The settings of the job's databases that can be stamped, and are small enough to be restored each time."""
        chosen = []
        known = [settings for settings in self.job.quiesce if settings["type"] in rows.TABLES]
        for settings in known:
            table = rows.table(settings)
            if settings["type"] != "sqlite" and len(known) > 1:
                self.proof.notes.append(f"the job has several databases: no rows were stamped in {table.name}")
            elif (size := table.size()) > ROWS_LIMIT:
                note = f"{table.name} has {size >> 20} MiB, more than {ROWS_LIMIT >> 20}: its rows were not stamped"
                self.proof.notes.append(note)
            else:
                chosen.append(settings)
                self.proof.databases.append(table.name)
        return chosen
