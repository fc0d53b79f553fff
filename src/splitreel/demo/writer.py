"""writer commits numbered rows to a SQLite database until its standard input closes. It runs as a process of its own.

Each row carries the CRC-32 of its payload, so that a torn row shows. Each commit that SQLite acknowledged is logged,
outside the database's file system, as one line ``number begun acknowledged`` with CLOCK_MONOTONIC nanoseconds,
comparable between processes.
"""

import os
import select
import sqlite3
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAYLOAD_SIZE = 512
SCHEMA = """
CREATE TABLE IF NOT EXISTS row(
    writer INTEGER NOT NULL, number INTEGER NOT NULL, begun_ns INTEGER NOT NULL,
    payload BLOB NOT NULL, crc32 INTEGER NOT NULL, PRIMARY KEY(writer, number)) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Commit:
    """One acknowledged row: when its transaction was begun, and when SQLite said that it is committed."""

    number: int
    begun_ns: int
    acknowledged_ns: int


def create_database(path: Path) -> None:
    """Make the database with the table that writers fill, in write-ahead mode."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(SCHEMA)
        connection.commit()
    finally:
        connection.close()


def payload(writer: int, number: int) -> bytes:
    """The row's payload: a different one for each row, the same at each run."""
    seed = f"{writer}:{number}:".encode()
    return (seed * (PAYLOAD_SIZE // len(seed) + 1))[:PAYLOAD_SIZE]


def write_rows(database: Path, log_fd: int, writer: int, pause_s: float) -> Iterator[Commit]:
    """Commit rows for ever, yielding each after it was acknowledged and logged."""
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        number = 0
        while True:
            body = payload(writer, number)
            begun = time.monotonic_ns()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO row VALUES(?, ?, ?, ?, ?)", (writer, number, begun, body, zlib.crc32(body)))
            connection.execute("COMMIT")
            commit = Commit(number, begun, time.monotonic_ns())
            os.write(log_fd, f"{commit.number} {commit.begun_ns} {commit.acknowledged_ns}\n".encode())
            yield commit
            number += 1
            time.sleep(pause_s)
    finally:
        connection.close()


def read_log(path: Path) -> list[Commit]:
    """The acknowledged commits of one writer; a last line without its newline is left out."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [Commit(*map(int, line.split())) for line in lines]


def main(arguments: list[str]) -> int:
    """``writer DATABASE LOG NUMBER PAUSE_S``: write until standard input is closed or readable."""
    database, log, number, pause = arguments
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in write_rows(Path(database), log_fd, int(number), float(pause)):
            if select.select([sys.stdin], [], [], 0)[0]:
                return 0
    finally:
        os.close(log_fd)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
