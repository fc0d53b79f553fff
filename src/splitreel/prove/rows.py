"""rows commits numbered rows to a table, and judges what a copy of that table holds. It knows no database engine.

Each row bears its number, when it was begun, and the CRC32C of its payload. A writer keeps its last rows, a fixed
number of them: number N takes the place of N minus that. Run as a process it goes on until standard input closes; what
the database acknowledged is logged, outside its file system, as one line ``number begun acknowledged``.
"""

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from splitreel import kinds
from splitreel.core.checksum import crc32c
from splitreel.prove.finding import Finding

PAYLOAD_SIZE = 512
LINE_SIZE = 60  # of the log, at most
TABLE = "splitreel_prove"
COLUMNS = ("writer", "place", "number", "begun_ns", "payload", "crc32c")  # key: the first two

Window = tuple[int, int]
OnTape = Callable[[Path], bytes]  # where on tape a file of the primary is


@dataclass(frozen=True)
class Row:
    """One row as a copy holds it; ``payload`` is ASCII text."""

    writer: int
    number: int
    begun_ns: int
    payload: str
    crc32c: int


@dataclass
class Copy:
    """What a restored database held: all of our rows, and what its own check says: "ok", or what is wrong."""

    integrity: str = ""
    rows: list[Row] = field(default_factory=list)


@dataclass
class Rows:
    """What was found in a copy."""

    integrity: str = ""
    rows: int = 0
    before: int = 0  # acknowledged before the window opened
    after: int = 0  # begun after it closed
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when nothing was wrong with a database that held rows from before the window."""
        return not self.findings and self.integrity == "ok" and self.before > 0


class Client(Protocol):
    """A connection that commits rows."""

    def commit(self, row: Row, place: int) -> None:
        """Put it in that place of its writer's; returns when the database has acknowledged it."""

    def close(self) -> None:
        """Hang up."""


class Table(Protocol):
    """Our table in a database of the job's, made from the settings of its quiescer."""

    name: str

    def size(self) -> int:
        """How many bytes are restored to read it. Raises SplitreelError."""

    def create(self) -> None:
        """Make it. Raises SplitreelError."""

    def drop(self) -> None:
        """Remove it. Raises SplitreelError."""

    def connect(self) -> Client:
        """A connection of one writer's. Raises SplitreelError."""

    def window(self, window: Window, released_ns: int) -> Window:
        """Between which moments the instant lies at which this database restarts; ``released_ns``: redo was taken."""

    def read(self, tape: str, folder: Path, on_tape: OnTape) -> Copy:
        """Restore the database from the tape below ``folder``, recover and read it. Raises SplitreelError."""


# type of a quiescer -> (module, class)
TABLES: dict[str, tuple[str, str]] = {
    "sqlite": ("splitreel.prove.sqliterows", "SqliteTable"),
    "postgresql": ("splitreel.prove.serverrows", "PostgresqlTable"),
    "mariadb": ("splitreel.prove.serverrows", "MariadbTable"),
    "mysql": ("splitreel.prove.serverrows", "MysqlTable"),
}


def table(settings: Mapping[str, Any]) -> Table:
    """Our table in the database that a quiescer's settings name. Raises UsageError."""
    return cast(Table, kinds.make("table", TABLES, settings))


def payload(writer: int, number: int) -> str:
    """The row's payload: a different one for each row, the same at each run."""
    seed = f"{writer}:{number}:"
    return (seed * (PAYLOAD_SIZE // len(seed) + 1))[:PAYLOAD_SIZE]


def write_rows(client: Client, log_fd: int, writer: int, kept: int, pause_s: float) -> Iterator[Row]:
    """Commit rows for ever, yielding each after it was acknowledged and logged."""
    number = 0
    while True:
        body = payload(writer, number)
        row = Row(writer, number, time.monotonic_ns(), body, crc32c(body.encode()))
        client.commit(row, number % kept)
        os.write(log_fd, f"{number} {row.begun_ns} {time.monotonic_ns()}\n".encode())
        yield row
        number += 1
        time.sleep(pause_s)


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


def examine(copy: Copy, logs: Mapping[int, Path], kept: int, window_ns: Window) -> Rows:
    """Judge a copy by each writer's log.

    Args:
        logs: writer number -> log file.
        kept: how many rows a writer keeps.
        window_ns: CLOCK_MONOTONIC nanoseconds at which the window opened and closed.
    """
    found = Rows(copy.integrity)
    for writer, log in logs.items():
        mine = [row for row in copy.rows if row.writer == writer]
        _examine_writer(writer, mine, read_log(log), kept, window_ns, found)
    if found.integrity != "ok":
        found.findings.append(Finding("damaged", "the database", f"integrity check: {found.integrity}"))
    return found


def _examine_writer(
    writer: int, mine: list[Row], commits: NDArray[np.int64], kept: int, window_ns: Window, found: Rows
) -> None:
    opened, closed = window_ns
    numbers = {row.number for row in mine}
    before = set(commits[commits[:, 2] <= opened, 0].tolist())
    last = max(numbers | before, default=-1)
    wanted = set(range(max(0, last + 1 - kept), last + 1))
    found.rows += len(mine)
    found.before += len(before)
    found.after += int(np.count_nonzero(commits[:, 1] > closed))
    absent = wanted - numbers
    torn = {row.number for row in mine if crc32c(row.payload.encode()) != row.crc32c}
    verdicts = {
        "lost": absent & before,
        "disordered": absent - before,
        "stale": numbers - wanted,
        "late": {row.number for row in mine if row.begun_ns > closed},
        "torn": torn,
        "misplaced": {row.number for row in mine if row.payload != payload(writer, row.number)} - torn,
    }
    for kind, bad in verdicts.items():
        if bad:
            what = f"{len(bad)} rows, the first is number {min(bad)}"
            found.findings.append(Finding(kind, f"writer {writer}, rows", what, len(bad)))


def main(arguments: list[str]) -> int:
    """``rows SETTINGS LOG NUMBER KEPT PAUSE_S``: write until standard input is closed or readable."""
    settings, log, number, kept, pause = arguments
    client = table(json.loads(settings)).connect()
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with contextlib.closing(client):
        for _ in write_rows(client, log_fd, int(number), int(kept), float(pause)):
            if select.select([sys.stdin], [], [], 0)[0]:
                return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
