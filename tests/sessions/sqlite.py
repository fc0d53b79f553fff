"""sqlite is a SQLite database with writers; the modes are its journal modes."""

import contextlib
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from tests.sessions import commits


class SqliteBench:
    """See Bench."""

    MODES = ("wal", "delete", "truncate", "persist")
    REDO_MODES: ClassVar[frozenset[str]] = frozenset()
    WRITERS = 3

    def __init__(self, mount: Path, folder: Path, mode: str) -> None:
        self.mode = mode
        self.logs = {writer: folder / f"writer{writer}.log" for writer in range(self.WRITERS)}
        self._database = mount / "app.db"

    def start(self) -> None:
        """The writers' table."""
        with contextlib.closing(sqlite3.connect(self._database, isolation_level=None)) as connection:
            connection.execute(f"pragma journal_mode={'wal' if self.mode == 'wal' else 'delete'}")
            connection.execute("create table stamp (writer int, n int, begun int, primary key (writer, n))")

    def load(self) -> AbstractContextManager[None]:
        """The writers, each of which sets the journal mode for itself: only that of WAL is the database's."""
        insert = "insert into stamp values ({writer}, {number}, {begun})"
        return commits.writing(self.logs, insert, ["sqlite", str(self._database), self.mode], 0.002)

    def quiescers(self) -> list[dict[str, Any]]:
        """The database."""
        return [{"type": "sqlite", "database": str(self._database)}]

    def rows(self, data: Path, folder: Path) -> dict[int, list[tuple[int, int]]]:
        """Of the restored file."""
        found: dict[int, list[tuple[int, int]]] = {}
        with contextlib.closing(sqlite3.connect(data)) as connection:
            for writer, number, begun in connection.execute("select writer, n, begun from stamp order by 1, 2"):
                found.setdefault(writer, []).append((number, begun))
        return found

    def stop(self) -> None:
        """Nothing runs."""
