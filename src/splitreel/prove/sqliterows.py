"""sqliterows keeps our table in a SQLite database. It judges no row."""

import contextlib
import glob
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from splitreel.drive import open_drive
from splitreel.errors import SplitreelError, UsageError
from splitreel.prove.rows import COLUMNS, TABLE, Client, Copy, OnTape, Row, Window
from splitreel.restore import restore

PATIENCE_S = 60.0
SCHEMA = f"""
CREATE TABLE {TABLE}(
    writer INTEGER NOT NULL, place INTEGER NOT NULL, number INTEGER NOT NULL, begun_ns INTEGER NOT NULL,
    payload TEXT NOT NULL, crc32c INTEGER NOT NULL, PRIMARY KEY(writer, place)) WITHOUT ROWID
"""


class SqliteTable:
    """Our table in ``database``; the quiescer's other settings are of no use here."""

    def __init__(self, database: str | os.PathLike[str], **_: Any) -> None:
        self.database = Path(database)
        self.name = f"sqlite {database}"

    def size(self) -> int:
        """That of the file."""
        try:
            return self.database.stat().st_size
        except OSError as error:
            raise UsageError(f"prove: {self.name}", error.strerror or str(error), "Correct `database`.") from error

    def create(self) -> None:
        """Make it, anew where an interrupted proof left one."""
        self.drop()
        self._change(SCHEMA)

    def drop(self) -> None:
        """Remove it."""
        self._change(f"DROP TABLE IF EXISTS {TABLE}")

    def connect(self) -> Client:
        """A connection for which committed means synchronised."""
        return _SqliteClient(self.database)

    def window(self, window: Window, released_ns: int) -> Window:
        """The session's own: the copy recovers to what was committed at the split."""
        return window

    def read(self, tape: str, folder: Path, on_tape: OnTape) -> Copy:
        """The database with its -wal and -journal, opened, which recovers it."""
        path = os.fsdecode(on_tape(self.database))
        with open_drive(tape) as drive:
            restore(drive, folder, [glob.escape(path) + "*"])
        return read_file(folder / path)

    def _change(self, statement: str) -> None:
        with _named(self.name), contextlib.closing(sqlite3.connect(self.database, timeout=PATIENCE_S)) as connection:
            connection.execute(statement)
            connection.commit()


class _SqliteClient:
    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(database, timeout=PATIENCE_S, isolation_level=None)
        self._connection.execute("PRAGMA synchronous=FULL")
        self._statement = f"INSERT OR REPLACE INTO {TABLE}({', '.join(COLUMNS)}) VALUES(?, ?, ?, ?, ?, ?)"

    def commit(self, row: Row, place: int) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(
            self._statement, (row.writer, place, row.number, row.begun_ns, row.payload, row.crc32c)
        )
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


def read_file(database: Path) -> Copy:
    """Our rows in a restored database, and what its integrity check says."""
    copy = Copy()
    columns = "writer, number, begun_ns, CAST(payload AS TEXT), crc32c"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
            copy.integrity = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
            copy.rows = [Row(*found) for found in connection.execute(f"SELECT {columns} FROM {TABLE} ORDER BY number")]
    except sqlite3.Error as error:
        copy.integrity = str(error)
    return copy


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SplitreelError(f"prove: {name}", str(error)) from error
