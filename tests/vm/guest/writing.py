"""writing keeps SQLite databases busy while a session runs, and judges what was restored. It backs up nothing."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from splitreel.demo import writer

from . import parts

PAUSE_S = 0.01
ENOUGH = 20


@contextmanager
def committing(database: Path, log: Path) -> Iterator[None]:
    """A process that commits rows all the time; some are acknowledged before the context begins and after it ends."""
    writer.create_database(database)
    command = [sys.executable, "-m", "splitreel.demo.writer", str(database), str(log), "1", str(PAUSE_S)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        wait_for_more(log)
        yield
        wait_for_more(log)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def wait_for_more(log: Path) -> None:
    """Until some more rows are acknowledged."""
    wanted = count(log) + ENOUGH
    parts.wait_until(lambda: count(log) >= wanted, "the writer does not get on")


def count(log: Path) -> int:
    """How many rows are acknowledged."""
    return len(writer.read_log(log)) if log.exists() else 0


def numbers(database: Path) -> set[int]:
    """The rows that the database has, when it is sound."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        return {number for (number,) in connection.execute("select number from row where writer = 1")}


def longest_stall(log: Path, since_ns: int) -> float:
    """Seconds that the slowest commit took that began after that time."""
    return max((one.acknowledged_ns - one.begun_ns) / 1e9 for one in writer.read_log(log) if one.begun_ns >= since_ns)


def now_ns() -> int:
    """Comparable with the writer's times."""
    return time.monotonic_ns()
