"""rows commits numbered rows to a SQLite database, and looks for them in its copy. It knows no file beside.

Each row bears its number, when it was begun, and the CRC32C of its payload. A writer keeps its last rows, a fixed
number of them: number N takes the place of N minus that. Run as a process it goes on until standard input closes; what
SQLite acknowledged is logged, outside the database's file system, as one line ``number begun acknowledged``.
"""

import contextlib
import os
import select
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitreel.core.checksum import crc32c
from splitreel.prove.finding import Finding

PAYLOAD_SIZE = 512
LINE_SIZE = 60  # of the log, at most
TABLE = "splitreel_prove"
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {TABLE}(
    writer INTEGER NOT NULL, place INTEGER NOT NULL, number INTEGER NOT NULL, begun_ns INTEGER NOT NULL,
    payload BLOB NOT NULL, crc32c INTEGER NOT NULL, PRIMARY KEY(writer, place)) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Commit:
    """One acknowledged row: when its transaction was begun, and when SQLite said that it is committed."""

    number: int
    begun_ns: int
    acknowledged_ns: int


@dataclass
class Rows:
    """What a copy of the database held."""

    integrity: str = ""
    rows: int = 0
    before: int = 0  # acknowledged before the window opened
    after: int = 0  # begun after it closed
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when nothing was wrong with a database that held rows from before the window."""
        return not self.findings and self.integrity == "ok" and self.before > 0


def create_table(database: Path) -> None:
    """Make the table that writers fill.

    Raises:
        sqlite3.Error: it cannot be made.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute(SCHEMA)
        connection.commit()


def drop_table(database: Path) -> None:
    """Remove it again. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        connection.commit()


def payload(writer: int, number: int) -> bytes:
    """The row's payload: a different one for each row, the same at each run."""
    seed = f"{writer}:{number}:".encode()
    return (seed * (PAYLOAD_SIZE // len(seed) + 1))[:PAYLOAD_SIZE]


def write_rows(database: Path, log_fd: int, writer: int, kept: int, pause_s: float) -> Iterator[Commit]:
    """Commit rows for ever, yielding each after it was acknowledged and logged."""
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        number = 0
        while True:
            body = payload(writer, number)
            begun = time.monotonic_ns()
            row = (writer, number % kept, number, begun, body, crc32c(body))
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"INSERT OR REPLACE INTO {TABLE} VALUES(?, ?, ?, ?, ?, ?)", row)
            connection.execute("COMMIT")
            commit = Commit(number, begun, time.monotonic_ns())
            os.write(log_fd, f"{commit.number} {commit.begun_ns} {commit.acknowledged_ns}\n".encode())
            yield commit
            number += 1
            time.sleep(pause_s)
    finally:
        connection.close()


def read_log(path: Path, tail: int = 0) -> NDArray[np.int64]:
    """The acknowledged commits of one writer, a row each of number, begun, acknowledged; or about the last ``tail``.

    A last line without its newline is left out.
    """
    with path.open("rb") as file:
        if tail and (size := os.fstat(file.fileno()).st_size) > tail * LINE_SIZE:
            file.seek(size - tail * LINE_SIZE)
            file.readline()
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1].decode()
    return np.fromstring(whole, np.int64, sep=" ").reshape(-1, 3)


def examine(database: Path, logs: dict[int, Path], kept: int, window_ns: tuple[int, int]) -> Rows:
    """Check ``database`` (restored) against each writer's log.

    Args:
        logs: writer number -> log file.
        kept: how many rows a writer keeps.
        window_ns: CLOCK_MONOTONIC nanoseconds at which the window opened and closed.
    """
    found = Rows()
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
            found.integrity = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
            for writer, log in logs.items():
                _examine_writer(connection, writer, read_log(log), kept, window_ns, found)
    except sqlite3.Error as error:
        found.integrity = str(error)
    if found.integrity != "ok":
        found.findings.append(Finding("damaged", "the database", f"integrity check: {found.integrity}"))
    return found


def _examine_writer(
    connection: sqlite3.Connection,
    writer: int,
    commits: NDArray[np.int64],
    kept: int,
    window_ns: tuple[int, int],
    found: Rows,
) -> None:
    opened, closed = window_ns
    columns = f"SELECT number, begun_ns, payload, crc32c FROM {TABLE} WHERE writer = ? ORDER BY number"
    rows = connection.execute(columns, (writer,)).fetchall()
    numbers = {number for number, *_ in rows}
    before = set(commits[commits[:, 2] <= opened, 0].tolist())
    last = max(numbers | before, default=-1)
    wanted = set(range(max(0, last + 1 - kept), last + 1))
    found.rows += len(rows)
    found.before += len(before)
    found.after += int(np.count_nonzero(commits[:, 1] > closed))
    absent = wanted - numbers
    verdicts = {
        "lost": absent & before,
        "disordered": absent - before,
        "stale": numbers - wanted,
        "late": {number for number, begun, *_ in rows if begun > closed},
        "torn": {number for number, _, body, crc in rows if crc32c(body) != crc},
        "misplaced": {number for number, _, body, _ in rows if body != payload(writer, number)},
    }
    verdicts["misplaced"] -= verdicts["torn"]
    for kind, bad in verdicts.items():
        if bad:
            what = f"{len(bad)} rows, the first is number {min(bad)}"
            found.findings.append(Finding(kind, f"writer {writer}, rows", what, len(bad)))


def main(arguments: list[str]) -> int:
    """``rows DATABASE LOG NUMBER KEPT PAUSE_S``: write until standard input is closed or readable."""
    database, log, number, kept, pause = arguments
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in write_rows(Path(database), log_fd, int(number), int(kept), float(pause)):
            if select.select([sys.stdin], [], [], 0)[0]:
                return 0
    finally:
        os.close(log_fd)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
