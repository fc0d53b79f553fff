"""scene sets the stage: a mirrored ext4 volume with files, a SQLite database and writers. It backs nothing up."""

import contextlib
import json
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from splitreel.errors import SplitreelError
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.prove import rows
from splitreel.prove.sqliterows import SqliteTable

FILES_IN_DIRECTORY = 250
MEDIAN_FILE_BYTES = 3000
LARGEST_FILE_BYTES = 1 << 20
WRITER_PAUSE_S = 0.002
ROWS_KEPT = 1 << 30  # all of them
COMMITS_BEFORE_THE_SESSION = 100
WRITER_START_S = 20.0
WRITER_STOP_S = 40.0


class Scene:
    """A directory with all of it; a context manager, which takes everything down in the right order."""

    def __init__(self, directory: Path, files: int, writers: int, seed: int = 1) -> None:
        """Nothing is started yet. The volume's size follows from the number of files."""
        self.directory = directory
        self.files = files
        self.writers = writers
        self.random = random.Random(seed)
        self.mirror = EmbeddedMirror(directory / "mirror", size=(512 << 20) + files * 24_000 // 4096 * 4096)
        self.mount_point = directory / "volume"
        self.database = self.mount_point / "db" / "app.db"
        self.logs = {number: directory / f"writer-{number}.log" for number in range(writers)}
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Scene":
        try:
            self.mirror.start()
            self.mirror.format()
            self.mirror.mount(self.mount_point)
            self._fill()
            self._make_database()
            self._start_writers()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self) -> None:
        """Seeded files of log-normal sizes, in directories of 250, besides the database."""
        text = self.random.randbytes(LARGEST_FILE_BYTES)
        for number in range(self.files):
            directory = self.mount_point / "files" / f"{number // FILES_IN_DIRECTORY:04d}"
            if number % FILES_IN_DIRECTORY == 0:
                directory.mkdir(parents=True)
            size = min(LARGEST_FILE_BYTES, int(MEDIAN_FILE_BYTES * self.random.lognormvariate(0, 1)))
            start = self.random.randrange(LARGEST_FILE_BYTES - size + 1)
            (directory / f"document-{number:06d}").write_bytes(text[start : start + size])

    def _make_database(self) -> None:
        """A database in write-ahead mode."""
        self.database.parent.mkdir()
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        SqliteTable(self.database).create()

    def _start_writers(self) -> None:
        for number, log in self.logs.items():
            command = [sys.executable, "-m", "splitreel.prove.rows"]
            settings = json.dumps({"type": "sqlite", "database": str(self.database)})
            arguments = [settings, str(log), str(number), str(ROWS_KEPT), str(WRITER_PAUSE_S)]
            self._processes.append(subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE))
        self.wait_for_commits(COMMITS_BEFORE_THE_SESSION)

    def wait_for_commits(self, more: int) -> None:
        """Wait until every writer has had ``more`` further commits acknowledged.

        Raises:
            SplitreelError: a writer ended, or none came in time.
        """
        wanted = {log: len(self._commits(log)) + more for log in self.logs.values()}
        until = time.monotonic() + WRITER_START_S
        while any(len(self._commits(log)) < count for log, count in wanted.items()):
            if any(process.poll() is not None for process in self._processes) or time.monotonic() > until:
                raise SplitreelError("demo: the database's writers", "one of them ended or does not get on")
            time.sleep(0.01)

    @staticmethod
    def _commits(log: Path) -> list[Any]:
        return list(rows.read_log(log)) if log.exists() else []

    def stop_writers(self) -> None:
        """Close their standard input; each ends after its next commit. Harmless twice."""
        for process in self._processes:
            if process.stdin:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(WRITER_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def close(self) -> None:
        """Stop the writers, then the volume; harmless twice."""
        try:
            self.stop_writers()
        finally:
            self.mirror.stop()

    def job(self, tape: str, order: str) -> dict[str, Any]:
        """The configuration of a session on this scene: one job ``demo``."""
        quiesce = [
            {"type": "sqlite", "database": str(self.database)},
            {"type": "fsfreeze", "mount": str(self.mount_point)},
        ]
        job = {
            "tape": tape,
            "mirror": self.mirror.settings(),
            "mount": str(self.mount_point),
            "quiesce": quiesce,
            "order": order,
            "overwrite": True,
        }
        return {"job": {"demo": job}}
