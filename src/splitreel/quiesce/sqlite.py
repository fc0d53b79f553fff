"""sqlite holds a SQLite database with BEGIN IMMEDIATE, in a process of its own. It freezes no file system.

Why a process of its own: POSIX locks belong to a process and a file, so closing any descriptor of the database (or of
its -shm) in the process that holds the lock drops it, and a writer gets in. Only the holder ever opens these files.

In WAL mode the write lock keeps writers out; a checkpoint by another connection may still move pages from -wal to the
database, which changes nothing that recovery would read differently: -wal keeps its frames until a writer resets it.

The other journal modes (delete, truncate, persist, memory, off) are each writer's own and show nowhere. While the lock
is held no writer is in the middle of anything, whichever it uses, so the database file alone is whole: a journal beside
it is empty, or its header is zero (persist). That holds for transactions over attached databases too: with the locks of
all of them held, none is half committed. What a writer without a journal (memory, off) broke when it died cannot be
seen by a lock: a drill's integrity_check sees it.

A connection with locking_mode=EXCLUSIVE keeps its lock for as long as it lives: then there is no quiescing, and it is
refused by that name.
"""

import contextlib
import os
import select
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

from splitreel.errors import QuiesceError
from splitreel.quiesce import Discovery, Release

START_SECONDS = 20.0
CHECKPOINT_SECONDS = 60.0
READ_SECONDS = 10.0  # for the first read: a writer's commit may take some of it
ANSWER_SECONDS = 5.0
SIDE_FILES = ("", "-wal", "-journal")  # never -shm: it is rebuilt, and an old one would be believed

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from splitreel.quiesce.sqlite import hold; hold(*sys.argv[2:])"


class Sqlite:
    """A SQLite database held by the write lock of a helper process."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {"database": ("path", True), "busy_timeout_ms": ("integer", False)}

    def __init__(self, database: str, busy_timeout_ms: int = 2000) -> None:
        """``busy_timeout_ms``: how long to wait for another writer's lock; nobody is blocked meanwhile."""
        self.database = os.path.realpath(database)
        self.name = f"sqlite {self.database}"
        self.busy_timeout_ms = busy_timeout_ms
        self.waiting = ""
        self._holder: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._locked = False
        self._journal_mode = ""

    def check(self) -> None:
        """Refuse what is no readable and writable regular file."""
        if not Path(self.database).is_file():
            raise QuiesceError(self.name, "there is no such file", "Correct `database` in the configuration.")
        if not os.access(self.database, os.R_OK | os.W_OK):
            raise QuiesceError(self.name, "not permitted", "Run as the database's owner or as root.")

    def prepare(self) -> None:
        """Start the helper and let it checkpoint: a small -wal makes for a quick recovery of the copy."""
        self._holder = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-c",
                _BOOT,
                str(Path(__file__).resolve().parents[2]),
                self.database,
                str(READ_SECONDS),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            bufsize=0,
        )
        self._pidfd = os.pidfd_open(self._holder.pid)
        self._journal_mode = self._expect("ready", START_SECONDS)
        self.waiting = "checkpoint"
        self._ask(b"checkpoint\n", "checkpointed", CHECKPOINT_SECONDS)
        self.waiting = ""

    def releases(self) -> list[Release]:
        """The end of the helper: the kernel then drops its locks, and nothing is written."""
        return [("kill", self._pidfd)]

    def frozen(self) -> list[str]:
        """None: readers go on, and so do writers of other files."""
        return []

    def quiesce(self) -> int:
        """BEGIN IMMEDIATE, tried for at most the busy time-out; writers wait from the try that succeeds.

        Then what writers with synchronous=OFF or NORMAL left in the page cache is put on the disk: without a freeze
        nothing else would before the split. This process may open the files, since the helper holds the lock.
        """
        self._locked = True
        limit = self.busy_timeout_ms / 1000
        since = int(self._ask(b"lock %d\n" % self.busy_timeout_ms, "locked", limit + ANSWER_SECONDS))
        for path in self._files():
            _synchronize(path)
        return since

    def discover(self) -> Discovery:
        """The database and those of -wal and -journal that exist."""
        facts = {
            "engine": "sqlite",
            "name": Path(self.database).stem,
            "version": sqlite3.sqlite_version,
            "mode": "freeze",
            "data": self.database,
            "journal_mode": self._journal_mode,
        }
        return Discovery(tuple(self._files()), facts)

    def _files(self) -> list[str]:
        return [self.database + suffix for suffix in SIDE_FILES if Path(self.database + suffix).exists()]

    def unquiesce(self) -> None:
        """ROLLBACK, which writes nothing since nothing was changed; without an answer the helper is ended instead."""
        if not self._locked or self._holder is None:
            return
        self._locked = False
        try:
            self._ask(b"unlock\n", "unlocked", ANSWER_SECONDS)
        except QuiesceError:
            # A dead helper holds no lock: the deadline's kill, or ours.
            self._holder.kill()
            self._holder.wait()

    def recover(self) -> str:
        """Nothing: the helper ended with the session, and its locks with it."""
        return ""

    def redo(self) -> dict[str, bytes]:
        """Nothing: the copy recovers from its own -wal or -journal."""
        return {}

    def close(self) -> None:
        """End the helper. It exits without closing the database, so nothing is written even if that is frozen."""
        if self._holder is None:
            return
        for pipe in (self._holder.stdin, self._holder.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._holder.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        os.close(self._pidfd)
        self._holder = None

    def _ask(self, question: bytes, answer: str, seconds: float) -> str:
        holder = self._holder
        if holder is None or holder.stdin is None:
            raise QuiesceError(self.name, "its lock holder is not running")
        try:
            holder.stdin.write(question)
        except OSError as error:
            raise QuiesceError(self.name, "its lock holder has died", "Run the session again.") from error
        return self._expect(answer, seconds)

    def _expect(self, answer: str, seconds: float) -> str:
        """One line of the helper's: the word expected and a value, else the reason why not."""
        pipe = self._holder.stdout if self._holder else None
        if pipe is None or not select.select([pipe], [], [], seconds)[0]:
            raise QuiesceError(self.name, f"its lock holder did not answer within {seconds:g} s")
        # One write of the helper's, below PIPE_BUF: it arrives whole.
        word, _, value = os.read(pipe.fileno(), 4096).decode(errors="replace").strip().partition(" ")
        if word != answer:
            raise QuiesceError(self.name, value or "its lock holder has died", "See what else uses this database.")
        return value


def hold(database: str, patience_s: str) -> None:
    """The helper process: answers checkpoint, lock MS, unlock; exits without a write when its input ends."""
    try:
        where = f"file:{_quoted(database)}?mode=rw"
        _serve(sqlite3.connect(where, uri=True, timeout=0, isolation_level=None), float(patience_s))
    except (sqlite3.Error, OSError) as error:
        _answer(f"failed {error}")
    os._exit(0)


def _synchronize(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _quoted(path: str) -> str:
    return "".join(f"%{byte:02x}" if chr(byte) in "?#%" or byte > 126 else chr(byte) for byte in os.fsencode(path))


def _serve(connection: sqlite3.Connection, patience_s: float) -> None:
    # The first statement that reads proves that this is a database, and makes -wal and -shm exist before the window.
    try:
        _patiently(connection, "select count(*) from sqlite_master", patience_s)
    except sqlite3.OperationalError as error:
        if "lock" not in str(error):
            raise
        raise sqlite3.OperationalError(f"{error}: a connection with locking_mode=EXCLUSIVE keeps it") from error
    _answer(f"ready {connection.execute('pragma journal_mode').fetchone()[0]}")
    pending = b""
    while data := os.read(0, 4096):
        pending += data
        *lines, pending = pending.split(b"\n")
        for line in lines:
            _answer(_act(connection, line.decode()))


def _act(connection: sqlite3.Connection, line: str) -> str:
    word, _, value = line.partition(" ")
    try:
        if word == "checkpoint":
            # Not TRUNCATE: that holds the write lock while it waits for readers, and writers before the window opens.
            _patiently(connection, "pragma wal_checkpoint(PASSIVE)", CHECKPOINT_SECONDS / 2)
            return "checkpointed"
        if word == "lock":
            return f"locked {_patiently(connection, 'begin immediate', int(value) / 1000)}"
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("rollback")
        return f"unlocked {time.monotonic_ns()}"
    except sqlite3.Error as error:
        return f"failed {word}: {error}"


def _patiently(connection: sqlite3.Connection, statement: str, seconds: float) -> int:
    """Run a statement as soon as the locks let it, trying for so long; returns when the try that succeeded began.

    No sleep between tries: a writer that commits back to back leaves gaps of some 20 us, and neither a retry every
    millisecond nor SQLite's own busy handler met one within seconds; without it the wait was 40 ms at most.
    """
    until = time.monotonic() + seconds
    while True:
        since = time.monotonic_ns()
        try:
            connection.execute(statement).fetchall()
            return since
        except sqlite3.OperationalError as error:
            if time.monotonic() > until or "lock" not in str(error):
                raise
        os.sched_yield()


def _answer(line: str) -> None:
    os.write(1, line.replace("\n", " ").encode()[:4000] + b"\n")
