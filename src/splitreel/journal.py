"""journal keeps, on stable storage, what a session began and finished. It undoes nothing and knows no mechanism.

One file for each session, ``sessions/JOB.UUID.journal`` in the state directory: a JSON object a line, appended and
synced before the next step begins. A last line without its newline was torn by a crash and counts as not written.
"""

import contextlib
import fcntl
import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from splitreel.errors import SplitreelError

FOLDER = "sessions"
SUFFIX = ".journal"
KEPT = 20  # finished journals kept for each job
LINE_LIMIT = 1 << 20


class Running(SplitreelError):
    """A session of this job is running."""

    default_advice = "Wait until it has ended."


@dataclass(frozen=True)
class History:
    """A journal as read back: its file, the job, and its records in order."""

    path: Path
    job: str
    records: tuple[dict[str, Any], ...]

    @property
    def finished(self) -> bool:
        """True when the session ended in good order, with or without success."""
        return bool(self.records) and self.records[-1]["event"] == "end"

    def last(self, event: str) -> dict[str, Any] | None:
        """The last record of that event, or None."""
        return next((record for record in reversed(self.records) if record["event"] == event), None)


class Journal:
    """The journal of the session at hand; holds the job's lock until closed. Use from one thread."""

    def __init__(self, path: Path, lock: BinaryIO) -> None:
        self.path = path
        self._lock = lock
        # a job's configuration is in it, and that may name a secret
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o600), "ab")

    @classmethod
    def begin(cls, state: Path, job: str, **facts: Any) -> "Journal":
        """Start a journal for ``job``; its first record, "begin", bears ``facts``.

        Raises:
            SplitreelError: a session of this job is running, or one was interrupted and not resumed.
        """
        lock = lock_job(state, job)
        try:
            _refuse_unfinished(state, job)
            journal = cls(state / FOLDER / f"{job}.{uuid.uuid4()}{SUFFIX}", lock)
        except BaseException:
            lock.close()
            raise
        try:
            journal.write("begin", job=job, pid=os.getpid(), **facts)
            _sync_directory(journal.path.parent)
        except BaseException:
            journal.path.unlink()
            journal.close()
            raise
        return journal

    @classmethod
    def reopen(cls, state: Path, history: History) -> "Journal":
        """Go on with an interrupted session's journal.

        Raises:
            Running: that session is still running.
        """
        lock = lock_job(state, history.job)
        try:
            _cut_torn_line(history.path)
            return cls(history.path, lock)
        except BaseException:
            lock.close()
            raise

    def write(self, event: str, **facts: Any) -> None:
        """Append one record and wait until it is on stable storage. Never within a window: a sync may take long.

        Raises:
            SplitreelError: it is not there; nothing of it is.
        """
        record = {"event": event, "time": time.time(), **facts}
        whole = os.fstat(self._file.fileno()).st_size
        try:
            self._append(json.dumps(record, default=str).encode() + b"\n")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), whole)
            raise SplitreelError(
                f"writing journal {self.path}", error.strerror or str(error), "Make room in the state directory."
            ) from error

    def _append(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._file.fileno(), line) :]
        os.fdatasync(self._file.fileno())

    def end(self, outcome: str, **facts: Any) -> None:
        """Write the last record and close; older finished journals of the job beyond the kept ones are removed."""
        self.write("end", outcome=outcome, **facts)
        self.close()
        _prune(self.path)

    def close(self) -> None:
        """Close without an end record: the session counts as interrupted."""
        self._file.close()
        self._lock.close()


def require_ended(state: Path, job: str) -> None:
    """Refuse as ``Journal.begin`` does, and begin nothing.

    Raises:
        SplitreelError: a session of this job is running, or one was interrupted and not resumed.
    """
    with lock_job(state, job):
        _refuse_unfinished(state, job)


def _refuse_unfinished(state: Path, job: str) -> None:
    left = [history for history in histories(state, job) if not history.finished]
    if left:
        raise SplitreelError(
            f"job {job}",
            f"an earlier session was interrupted ({left[0].path})",
            "Run `splitreel resume` first: it thaws, puts the mirror back and says what was lost.",
        )


def lock_job(state: Path, job: str) -> BinaryIO:
    """Take the lock that a running session of ``job`` holds; closing the file gives it back.

    Raises:
        Running: another process holds it.
    """
    folder = state / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (folder / f"{job}.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Running(f"job {job}", "a session of this job is running") from None
    return lock


def histories(state: Path, job: str | None = None) -> list[History]:
    """All journals in the state directory, or one job's, oldest first.

    Raises:
        SplitreelError: a complete line of one is not a record.
    """
    found = [read(path) for path in (state / FOLDER).glob(f"*{SUFFIX}")]
    found.sort(key=lambda history: history.records[0]["time"] if history.records else 0.0)
    return [history for history in found if job is None or history.job == job]


def read(path: Path) -> History:
    """One journal; a torn last line is left out.

    Raises:
        SplitreelError: a complete line is not a record.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    records = tuple(_record(path, number, line) for number, line in enumerate(lines, 1))
    return History(path, path.name.rsplit(".", 2)[0], records)


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(line) if len(line) <= LINE_LIMIT else None
        if isinstance(record, dict) and isinstance(record.get("event"), str) and isinstance(record.get("time"), float):
            return record
    raise SplitreelError(
        f"journal {path}", f"line {number} is damaged", "Check mirror and database by hand, then remove this file."
    )


def _cut_torn_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _prune(path: Path) -> None:
    job = path.name.rsplit(".", 2)[0]
    finished = [history for history in histories(path.parent.parent, job) if history.finished]
    for history in finished[:-KEPT]:
        history.path.unlink(missing_ok=True)


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
