"""phases runs one backup of a live database: the phases in their order, with their undos. It holds no mechanism.

    establish -> map -> quiesce -> discover -> prepare -> split -> unquiesce -> check -> backup -> cleanup

The window is what lies between ``quiesce`` and ``unquiesce``. In the default order nothing in it grows with the number
of files: extents are mapped before, from the live primary, and checked after, against the split mirror, where all is
read again. In the order ``conventional`` the map is made inside the window, as it is where there is no raw reader; in
``postsplit`` it is made of the split mirror alone.
"""

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from splitreel import config, mapping, pages, quiesce
from splitreel.core.extent import ExtentMap
from splitreel.errors import EndOfMedium, IntegrityError, MapError, SplitreelError, TapeError
from splitreel.journal import Journal
from splitreel.session import checks, history
from splitreel.session.described import Databases, Redo, members, session_json
from splitreel.session.explain import PLAIN, Explainer
from splitreel.session.forecast import Forecast, require
from splitreel.session.joined import joined, verify_unchanged
from splitreel.session.mirrored import MirroredVolume
from splitreel.session.result import Phase, SessionResult, phase_order
from splitreel.session.tape import Tape
from splitreel.session.undo import UndoStack
from splitreel.session.window import Window, short_window

MOST_KEPT = 100_000  # bytes of paths in the journal: one whose line is too long cannot be read again
Report = Callable[[Mapping[str, Any]], None]


def run(
    job: config.Job,
    *,
    state: str | os.PathLike[str],
    report: Report | None = None,
    explain: bool = False,
) -> SessionResult:
    """Run one whole session of ``job``.

    ``report`` is called with plain dicts: {"event": "phase", "phase", "state": "begin"|"end", "seconds"}, {"event":
    "note", "text"}, {"event": "window", "window_ms", "stages": [{"name", "at_ms", "ms"}]} once it is closed and, from
    another thread, {"event": "progress"} with what StreamWriter.progress says; with ``explain`` also {"event":
    "waiting", "phase", "text", "seconds"}. What happens inside the window is reported after it.

    Raises:
        SplitreelError: it failed; the database was let go and the mirror put back, or the error says what to do.
    """
    return Session(job, Path(state), report or (lambda _: None), explain=explain).run()


def examine(job: config.Job, state: str | os.PathLike[str]) -> list[str]:
    """Check all that a session of ``job`` checks before it touches anything; returns what each mirror's rejoin costs.

    Raises:
        SplitreelError: what would stop it, and what to do.
    """
    one = Session(job, Path(state), lambda _: None)
    try:
        one.check_all()
        return one.costs()
    finally:
        one.close()


class Session:
    """One session. ``enter`` is called as each phase begins, inside the window too: a subclass may observe there."""

    rehearsal: ClassVar[bool] = False

    def __init__(self, job: config.Job, state: Path, report: Report, *, explain: bool = False) -> None:
        self.job = job
        self.state = state
        self._explain = explain
        self._phase = ""
        self._streamed = ""
        self._hush = threading.Lock()
        self.result = SessionResult(job.name, time.time())
        self._report = report
        self._queued: list[Mapping[str, Any]] = []
        self._begun = time.monotonic()
        self._undo = UndoStack()
        self._quiescers = [quiesce.create(settings) for settings in job.quiesce]
        self._frozen = [mount for quiescer in self._quiescers for mount in quiescer.frozen()]
        self._volumes = [MirroredVolume(volume, self._frozen, self._note) for volume in job.mirrored]
        self._window = Window(self._quiescers, job.deadline_ms, self._hush)
        self._seconds: list[Window] = []
        self._tape = self.tape()
        self._journal: Journal | None = None
        self._in_window = False
        self._kept_on_tape = False
        self._databases = Databases(self._quiescers, [settings["type"] for settings in job.quiesce])
        self._files: list[str] = []
        self._redo: Redo = {}
        self._prepared = 0.0
        self._steps = {name: getattr(self, f"_{name}") for name in phase_order(job.order, job.unquiesce)}

    def enter(self, phase: str) -> None:
        """Called as ``phase`` begins."""

    def tape(self) -> Tape:
        """The drive to write to."""
        return Tape(self.job, self.state)

    def run(self) -> SessionResult:
        """All phases; on any failure everything begun is taken back, the database first."""
        try:
            self._journal = Journal.begin(self.state, self.job.name, config=self.job.record())
            with (
                Explainer(self._waiting, self._tell_waiting, self._hush) if self._explain else contextlib.nullcontext()
            ):
                self.check_all()
                for name, step in self._steps.items():
                    self._run_phase(name, step)
            self._remember()
            self._keep_run("")
            self._journal.end("done", backup=self.result.backup_id)
        except BaseException as failure:
            self._take_back(failure)
            raise
        finally:
            self.close()
        return self.result

    def close(self) -> None:
        """Let drive, mirror and journal go; what was begun stays as it is. Harmless twice."""
        self._window.end()
        self._tape.close()
        for volume in self._volumes:
            volume.close()
        if self._journal is not None:
            self._journal.close()

    def _run_phase(self, name: str, step: Callable[[], None]) -> None:
        self._tell(event="phase", phase=name, state="begin")
        self._phase = name
        start = time.monotonic()
        self.enter(name)
        step()
        if self._in_window:
            self._window.require_held(name)
        seconds = time.monotonic() - start
        self.result.phases.append(Phase(name, start - self._begun, seconds))
        self._tell(event="phase", phase=name, state="end", seconds=seconds)

    def _tell(self, **event: Any) -> None:
        """Report, but within the window only remember: whoever listens may write to what is frozen."""
        self._queued.append(event)
        while self._queued and not self._in_window:
            self._report(self._queued.pop(0))

    def _waiting(self) -> tuple[str, str]:
        """The phase and what it waits for; called from the explaining thread, which only reads."""
        parts = (*self._quiescers, *(volume.mirror for volume in self._volumes), self._tape)
        said = [getattr(part, "waiting", "") for part in parts]
        if self._phase == "backup":
            said.append(self._streamed)
        return self._phase, next(filter(None, said), PLAIN.get(self._phase, ""))

    def _tell_waiting(self, phase: str, text: str, seconds: float) -> None:
        self._report({"event": "waiting", "phase": phase, "text": text, "seconds": round(seconds, 1)})

    def _note(self, text: str) -> None:
        self.result.notes.append(text)
        self._tell(event="note", text=text)

    # Before anything is touched.

    def check_all(self) -> None:
        """Everything that can be checked; a failure leaves database and mirror as they were."""
        self.foresee()
        for quiescer in self._quiescers:
            quiescer.check()
        for volume in self._volumes:
            volume.mirror.check()
        checks.enough_space(self.state)
        others = [path for volume in self._volumes for path in volume.mirror.files()]
        checks.keep_apart(checks.own_files(self.state, self.job.tape, others), self._frozen)
        for volume in self._volumes:
            volume.check_primary()
        checks.distinct([(volume.name, volume.primary) for volume in self._volumes])
        self._tape.check()

    def foresee(self) -> Forecast:
        """What past runs say of this one's window; refuses what will exceed the job's budget, or is not known."""
        seen = history.foresee(self.state, self.job)
        if not self.rehearsal:
            require(self.job, seen)
        self.result.predicted_ms = None if seen.bound_ms is None or math.isinf(seen.bound_ms) else seen.bound_ms
        return seen

    def costs(self) -> list[str]:
        """What being split and a rejoin cost, a line for each mirror."""
        return [f"{volume.name}: {volume.mirror.cost()}" for volume in self._volumes]

    # The phases.

    def _establish(self) -> None:
        """Sync primary to mirror and wait until it is in sync."""
        for volume in self._volumes:
            volume.mirror.establish()
        for volume in self._volumes:
            volume.mirror.wait_in_sync(self.job.sync_timeout_s)

    def _map(self) -> None:
        """Map every file to its extents: from the primary, or from the split mirror in the order ``postsplit``."""
        for volume in self._volumes:
            if self.job.order == "postsplit":
                volume.map_image()
            elif self.job.order == "conventional":
                volume.map_held()
            else:
                volume.map_live()

    def _quiesce(self) -> None:
        """Hold the database, innermost its file system. All that is slow is done before the first writer waits."""
        for volume in self._volumes:
            self._undo.push(volume.labelled("split"), partial(self._put_back, volume))
        self._prepared = time.monotonic()
        self._window.prepare(self._last_before_window)
        self._undo.push("unquiesce", self._let_go, first=True)
        self._write("quiesce", mounts=self._frozen)
        self._in_window = True
        self._window.open()

    def _last_before_window(self) -> None:
        for volume in self._volumes:
            volume.make_ready()
        self._tape.still_ready()

    def _discover(self) -> None:
        """Which files make up the database."""
        self._files = self._window.timed("discover", self._databases.discover)

    def _prepare(self) -> None:
        """Freeze the list of files; refuse what is not on a mirrored volume."""
        for files in self._databases.together():
            checks.at_one_instant(files, self._frozen)
        mounted = [volume for volume in self._volumes if volume.settings.mount]
        found = checks.within([volume.settings.mount for volume in mounted], self._files)
        for volume, paths in zip(mounted, found, strict=True):
            volume.paths = paths

    def _split(self) -> None:
        """Part the mirrors from their primaries, all held still; a split that the watchdog overtook is no copy."""
        for volume in self._volumes:
            self.result.split_ms += self._window.timed(f"split {volume.name}", volume.split)

    def _unquiesce(self) -> None:
        """Let the database go."""
        self._let_go()
        self._undo.drop("unquiesce")
        self._window.judge()
        self._take_redo()
        self._write("unquiesced", window_ms=self.result.window_ms, split_ms=self.result.split_ms)
        images = {volume.settings.name: (volume.image.path, volume.image.offset) for volume in self._volumes}
        self._write("split", images=images)

    def _take_redo(self) -> None:
        """What the database gives only now; a hot backup state, in which nobody waited, ends with it."""
        self._redo = self._databases.redo()
        if self._redo:
            self.result.hot_backup_ms = (time.monotonic() - self._prepared) * 1000

    def _let_go(self) -> None:
        try:
            self._window.close()
        finally:
            self._in_window = False
            self.result.window_ms = self._window.milliseconds
            self.result.window_ns = (self._window.opened_ns, self._window.closed_ns)
            stages = [stage._asdict() for stage in history.stages(self._window)]
            self._queued.append({"event": "window", "window_ms": self.result.window_ms, "stages": stages})

    def _check(self) -> None:
        """Map the split mirror in full and say what differs: only this map is believed."""
        for volume in self._volumes:
            found = volume.check().map
            if volume.before is not None and self.job.order == "premapped":
                self._compare(volume.before, found)
            volume.before = None
            self.result.files += found.file_count
            self.result.extents += found.extent_count
            self.result.problems += found.problem_count
            for problem in mapping.problems(found):
                self._note(f"damaged: {volume.prefixed(problem)}")

    def _compare(self, before: ExtentMap, after: ExtentMap) -> None:
        try:
            for kind, count in mapping.diff(before, after).counts().items():
                self.result.changes[kind] = self.result.changes.get(kind, 0) + count
        except (IntegrityError, MapError) as failure:
            # The live map was torn; what is backed up is the other one.
            self._note(f"what changed since the live map cannot be told ({failure})")

    def _backup(self) -> None:
        """Write the identified files from the split mirror to tape, and what the database gives only now."""
        paths = [os.fsencode(path).strip(b"/") for path in self.job.paths]
        if paths:
            paths = list(dict.fromkeys([*paths, *(path for volume in self._volumes for path in volume.on_tape())]))
        described = session_json(
            [volume.entry() for volume in self._volumes if volume.settings.mount], self._databases.entries()
        )
        kept = [os.fsdecode(path) for path in paths] if sum(map(len, paths)) <= MOST_KEPT else None
        self._write("backup", paths=kept, redo=sorted(self._redo), session=described)
        parts = [volume.part() for volume in self._volumes]
        with joined(parts) as source:
            databases = pages.from_session(described, source.map, source.device, self._note)
            self.result.backup = self._tape.run(
                source.device,
                source.map,
                paths,
                members(described, self._redo),
                self.result.window_ms,
                self._confirmed,
                self._progress,
                partial(verify_unchanged, parts),
                pages.checks_of(source.map, databases),
            )

    def _progress(self, seen: Mapping[str, Any]) -> None:
        full = seen["ring_fill"] * 2 > seen["ring_blocks"]
        self._streamed = "the drive to take blocks" if full else "the mirror to be read"
        self._report({"event": "progress", **seen})

    def _confirmed(self, facts: Mapping[str, Any]) -> None:
        """What the journal cannot take does not stop the tape: a resume then begins at an earlier segment."""
        self._kept_on_tape = True
        try:
            self._write("confirmed", backup=self._tape.backup_id, **facts)
        except SplitreelError as failure:
            self.result.notes.append(str(failure))

    def _cleanup(self) -> None:
        """Rejoin the mirror, copying only what changed."""
        self.result.dirty_bytes = _total(volume.mirror.dirty_bytes() for volume in self._volumes)
        for volume in self._volumes:
            self._put_back(volume)
            self._undo.drop(volume.labelled("split"))
        self.result.resynced_bytes = _total(volume.mirror.resynced_bytes() for volume in self._volumes)

    def _remember(self) -> None:
        """Complete the catalog: how long each phase took, and the window."""
        phases = [(phase.name, self.result.started + phase.start, phase.seconds) for phase in self.result.phases]
        opened = self._window.opened_ns / 1e9 - self._begun if self._window.opened_ns else 0.0
        windows = [("window", self.result.started + opened, self.result.window_ms / 1000)]
        if self.result.hot_backup_ms:
            prepared = self.result.started + self._prepared - self._begun
            windows.insert(0, ("hot-backup", prepared, self.result.hot_backup_ms / 1000))
        self._tape.remember(phases, windows)

    def _keep_run(self, error: str) -> None:
        """The window, whatever became of it, counts for the next one's prediction."""
        try:
            windows = [self._window, *self._seconds]
            history.keep(self.state, self.job, self.result, windows, rehearsal=self.rehearsal, error=error)
        except SplitreelError as failure:
            self._note(f"this run will not count for the next one's prediction: {failure}")

    # Undo.

    def _put_back(self, volume: MirroredVolume) -> None:
        self._write("rejoin", volume=volume.settings.name)
        try:
            volume.put_back(partial(self._hold, volume))
        finally:
            self.result.second_window_ms = max((window.milliseconds for window in self._seconds), default=0.0)
        self._write("rejoined", volume=volume.settings.name)

    def _hold(self, volume: MirroredVolume) -> Window:
        """A second, short window round its file system alone, for mirrors that need one to rejoin."""
        freezing = checks.freezing(volume.settings.mount, self.job.quiesce)
        self._seconds.append(short_window(freezing, self.job.deadline_ms, self._hush))
        return self._seconds[-1]

    def _take_back(self, failure: BaseException) -> None:
        """Undo all that was begun, the window first; what cannot be undone keeps the journal open for a resume.

        A drive that fails once some of the tape is confirmed is no reason to lose that: the mirror stays split.
        """
        resumable = self._kept_on_tape and isinstance(failure, TapeError) and not isinstance(failure, EndOfMedium)
        if resumable and isinstance(failure, TapeError):
            for volume in self._volumes:
                self._undo.drop(volume.labelled("split"))
            failure.advice = "The mirror stays split. See to the drive, then run `splitreel resume`, which goes on."
        for volume in self._volumes:
            volume.mirror.close()  # a reply that came too late would be taken for the next one's
        failures = self._undo.run()
        self._in_window = False
        error = str(failure) or "interrupted"
        if self._journal is not None and not failures and not resumable:
            with contextlib.suppress(SplitreelError):  # of a full disk; then the next session asks for a resume
                self._journal.end("failed", error=error)
        if failures and isinstance(failure, SplitreelError):
            failure.advice = f"{failures[0][0]} could not be undone ({failures[0][1]}): run `splitreel resume`."
        # Last: whoever listens may be gone, and raise.
        self._keep_run(error)
        self._tell(event="failed", error=error)
        for name, why in failures:
            self._note(f"undoing {name} failed: {why}")

    def _write(self, event: str, **facts: Any) -> None:
        if self._journal is not None and not self._in_window:
            self._journal.write(event, **facts)


def _total(counts: Iterable[int | None]) -> int | None:
    """Their sum, None when none of them is known."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
