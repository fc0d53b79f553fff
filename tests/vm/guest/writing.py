"""writing keeps a SQLite database busy while a session runs, and judges what was restored. It backs up nothing.

The writer is a process of its own. It logs each row that was acknowledged as ``number begun acknowledged``, the times
of CLOCK_MONOTONIC in nanoseconds, on another file system than the database's.
"""

import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from . import parts

PAUSE_S = 0.01
ENOUGH = 20
BODY = b"splitreel" * 56
SCHEMA = "create table if not exists row (number integer primary key, body blob not null, crc integer not null)"


class Commit(NamedTuple):
    """One acknowledged row."""

    number: int
    begun_ns: int
    acknowledged_ns: int


def create(database: Path) -> None:
    """An empty database in write-ahead mode."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute(SCHEMA)


@contextmanager
def committing(database: Path, log: Path) -> Iterator[None]:
    """A process that commits rows all the time; some are acknowledged before the context begins and after it ends."""
    create(database)
    process = subprocess.Popen([sys.executable, "-m", "tests.vm.guest.writing", str(database), str(log)])
    try:
        wait_for_more(log)
        yield
        wait_for_more(log)
    finally:
        process.terminate()
        process.wait(60)


def write(database: Path, log: Path) -> None:
    """Commit rows until the process is ended."""
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    connection.execute("pragma synchronous=full")
    number = max(numbers(database), default=0)
    with log.open("ab", buffering=0) as file:
        while True:
            number += 1
            begun = time.monotonic_ns()
            body = b"%d" % number + BODY
            connection.execute("insert into row values (?, ?, ?)", (number, body, zlib.crc32(body)))
            file.write(b"%d %d %d\n" % (number, begun, time.monotonic_ns()))
            time.sleep(PAUSE_S)


def read_log(log: Path) -> list[Commit]:
    """What was acknowledged; a last line without its newline is left out."""
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return [Commit(*map(int, line.split())) for line in lines]


def wait_for_more(log: Path) -> None:
    """Until some more rows are acknowledged."""
    wanted = len(read_log(log)) + ENOUGH
    parts.wait_until(lambda: len(read_log(log)) >= wanted, "the writer does not get on")


def numbers(database: Path) -> set[int]:
    """The rows that the database has, when it is sound and none is torn or missing between others."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        rows = connection.execute("select number, body, crc from row").fetchall()
    assert all(zlib.crc32(body) == crc for _, body, crc in rows)
    found = {number for number, _, _ in rows}
    assert found == set(range(1, len(found) + 1))
    return found


def prove(database: Path, log: Path, window_ns: tuple[int, int]) -> None:
    """What was acknowledged before the window is in the copy, and nothing that was begun after it."""
    opened, closed = window_ns
    found, commits = numbers(database), read_log(log)
    before = {one.number for one in commits if one.acknowledged_ns < opened}
    after = {one.number for one in commits if one.begun_ns > closed}
    assert before and after
    assert before <= found and not after & found


def longest_stall(log: Path, since_ns: int) -> float:
    """Seconds that the slowest commit took that began after that time."""
    return max((one.acknowledged_ns - one.begun_ns) / 1e9 for one in read_log(log) if one.begun_ns >= since_ns)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
