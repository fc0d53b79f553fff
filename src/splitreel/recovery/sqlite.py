"""sqlite brings a SQLite database back: the file with its -wal and -journal, never an old -shm. It holds no lock.

There is no server: what recovers the database is the first program that opens it. The drill is such a program, in a
process of its own that runs as the owner, so that what SQLite makes beside the file is the owner's too.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitreel.errors import IntegrityError
from splitreel.recovery import Check, Drill, Layout, Piece, files

SIDE_FILES = ("-wal", "-journal")
CHECK_SECONDS = 24 * 3600.0
PROBLEMS = 100
_DRILL = """
import json, sqlite3, sys, time
begun = time.monotonic()
connection = sqlite3.connect(sys.argv[1], timeout=0)
connection.execute("select count(*) from sqlite_master").fetchone()
recovered = time.monotonic()
found = [str(row[0]) for row in connection.execute("pragma integrity_check(%d)" % int(sys.argv[2]))]
connection.close()
print(json.dumps([recovered - begun, time.monotonic() - recovered, [] if found == ["ok"] else found]))
"""


class SqliteRecovery:
    """A SQLite database restored from tape."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._source = files.path(facts, "data")
        self._name = Path(self._source).name
        if not self._name:
            raise IntegrityError("reading session.json", f"data is {self._source!r:.60}")

    def pieces(self) -> tuple[Piece, ...]:
        """The database, and what there was of -wal and -journal."""
        side = [Piece(self._source + suffix, self._name + suffix, optional=True) for suffix in SIDE_FILES]
        return (Piece(self._source, self._name), *side)

    def lay_out(self, layout: Layout) -> list[str]:
        """Remove an old -shm, which SQLite would believe."""
        database = layout.places[self._source]
        if not files.is_file(database):
            raise IntegrityError(f"database {self._source}", "the tape does not hold it as a file")
        return ["an old -shm was removed"] if files.remove(Path(f"{database}-shm")) else []

    def drill(self, layout: Layout, logs: Path) -> Drill:
        """Open it, which recovers it, and run PRAGMA integrity_check."""
        database = layout.places[self._source]
        who: dict[str, Any] = {}
        if layout.owner is not None and os.geteuid() == 0:
            who = {"user": layout.owner.uid, "group": layout.owner.gid, "extra_groups": []}
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-I", "-c", _DRILL, str(database), str(PROBLEMS)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            timeout=CHECK_SECONDS,
            check=False,
            **who,
        )
        if done.returncode != 0:
            (logs / "integrity_check.log").write_text(done.stderr)
            why = (done.stderr.strip().splitlines() or ["it does not open"])[-1]
            raise IntegrityError(f"drill of {database}", why, f"See {logs}.")
        seconds, checked, problems = json.loads(done.stdout)
        check = Check("integrity_check", checked, tuple(problems))
        return Drill(_library(), min(seconds, time.monotonic() - begun), (check,))


def _library() -> str:
    import sqlite3  # noqa: PLC0415 (a restore of another engine needs none)

    return sqlite3.sqlite_version
