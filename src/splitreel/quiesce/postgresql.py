"""postgresql puts a PostgreSQL server into its hot backup state, or has it checkpoint. It freezes nothing.

Mode "hot-backup" (15 and later): pg_backup_start before the window; reads and writes go on. pg_backup_stop after it
gives the backup label and, with the WAL written meanwhile, what makes the copy consistent. All of it goes to the end of
the tape as redo: ``backup_label``, ``tablespace_map``, ``pg_wal/...``. To restore: remove ``postmaster.pid``, put these
files into the data directory (``pg_wal`` in place of the one there), start the server.

Mode "freeze": a checkpoint before the window, nothing else; the copy recovers as after a power cut, provided that data,
WAL and all tablespaces are on volumes that are frozen together.

It speaks through one psql, kept open since only the session that began a backup may end it; should this process die,
psql ends with it and the server gives the backup state up by itself. Passwords belong in a pgpass or service file.
"""

import json
import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

from splitreel.errors import QuiesceError, UsageError
from splitreel.quiesce import Discovery, Release

MODES = ("hot-backup", "freeze")
FIRST_VERSION = 150000  # pg_backup_start and pg_backup_stop; they were pg_start_backup and pg_stop_backup before
ANSWER_SECONDS = 30.0
ANSWER_LIMIT = 1 << 20
REDO_LIMIT = 1 << 30
SECRET = re.compile(r"password\s*=|://[^/@\s]*:[^/@\s]*@", re.IGNORECASE)
WAL_NAME = re.compile(r"[0-9A-F]{24}")

_ABOUT = """select json_build_object('version', current_setting('server_version_num')::int,
 'data', current_setting('data_directory'), 'standby', pg_is_in_recovery(), 'places',
 (select coalesce(json_agg(p), '[]') from (select pg_tablespace_location(oid) p from pg_tablespace) t where p <> ''))"""
_START = "select json_build_object('lsn', pg_backup_start('splitreel', true))"
_STOP = """select json_build_object('lsn', lsn, 'label', labelfile, 'map', spcmapfile, 'last', pg_walfile_name(lsn))
 from pg_backup_stop(wait_for_archive => false)"""


class Postgresql:
    """A PostgreSQL server, by psql."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "conninfo": ("text", False),
        "mode": ("|".join(MODES), False),
        "run_as": ("text", False),
        "timeout_s": ("number", False),
    }

    def __init__(
        self, conninfo: str = "dbname=postgres", mode: str = "hot-backup", run_as: str = "", timeout_s: float = 600.0
    ) -> None:
        """``run_as``: the system user for psql, for peer authentication; ``timeout_s`` bounds the checkpoint."""
        if SECRET.search(conninfo):
            raise UsageError(
                "postgresql: conninfo",
                "it holds a password, which the list of processes would show to everybody",
                "Put it into a pgpass or service file.",
            )
        self.name = f"postgresql {conninfo}"
        self._conninfo = conninfo
        self._hot = mode == "hot-backup"
        self._run_as = run_as
        self._timeout_s = timeout_s
        self._psql: subprocess.Popen[bytes] | None = None
        self._about: dict[str, Any] = {}
        self._lsn = ""

    def check(self) -> None:
        """The server answers, tells its data directory, and can be backed up in this mode."""
        if shutil.which("psql") is None:
            raise QuiesceError(self.name, "there is no psql", "apt install postgresql-client")
        try:
            self._open()
            if self._hot and self._about["version"] < FIRST_VERSION:
                raise QuiesceError(self.name, "hot backup needs PostgreSQL 15 or later", 'Use mode = "freeze".')
            if self._hot and self._about["standby"]:
                raise QuiesceError(self.name, "it is a standby", 'Back up the primary, or use mode = "freeze".')
        finally:
            self.close()

    def prepare(self) -> None:
        """Begin the hot backup, or checkpoint: 2 to 6 s under load, in which nobody waits."""
        self._open()
        if self._hot:
            self._lsn = str(self._ask(_START, self._timeout_s)["lsn"])
        else:
            self._ask("checkpoint; select '{}'", self._timeout_s)

    def releases(self) -> list[Release]:
        """Nothing: no writer waits, and the server itself ends the backup state of a session that died."""
        return []

    def frozen(self) -> list[str]:
        """None."""
        return []

    def quiesce(self) -> int:
        """Nothing more: 0, since no writer waits. No SQL may run once the file system is frozen: it would hang."""
        return 0

    def discover(self) -> Discovery:
        """Data directory, WAL directory, tablespaces: as they were told before the window."""
        data = Path(self._about["data"])
        places = [str(data), os.path.realpath(data / "pg_wal"), *map(os.path.realpath, self._about["places"])]
        outer = [place for place in places if not place.startswith(f"{data}/")]
        return Discovery(tuple(outer), {"start_lsn": self._lsn} if self._lsn else {})

    def unquiesce(self) -> None:
        """Nothing is held."""

    def recover(self) -> str:
        """Nothing: the server ended the backup state when the session died."""
        return ""

    def redo(self) -> dict[str, bytes]:
        """End the hot backup: the label, the tablespace map, and the WAL from the start to the end of the backup.

        Raises:
            QuiesceError: the server ended the backup, or has recycled WAL that is needed.
        """
        if not self._lsn:
            return {}
        self._lsn = ""
        stop = self._ask(_STOP, self._timeout_s)
        found = {"backup_label": stop["label"].encode()}
        if stop["map"]:
            found["tablespace_map"] = stop["map"].encode()
        begun = re.search(r"\(file ([0-9A-F]{24})\)", stop["label"])
        if begun is None:
            raise QuiesceError(self.name, "its backup label names no WAL file")
        for path in self._wal(begun[1], stop["last"]):
            found[f"pg_wal/{path.name}"] = path.read_bytes()
        return found

    def close(self) -> None:
        """End psql, and with it a backup that was not stopped."""
        if self._psql is None:
            return
        for pipe in (self._psql.stdin, self._psql.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._psql.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._psql.kill()
            self._psql.wait()
        self._psql = None

    def _wal(self, first: str, last: str) -> list[Path]:
        """The WAL files from ``first`` to ``last``; every one of them must be there."""
        folder = Path(self._about["data"]) / "pg_wal"
        names = sorted(p.name for p in folder.iterdir() if WAL_NAME.fullmatch(p.name) and first <= p.name <= last)
        if not names or len(names) != _wal_number(folder / last) - _wal_number(folder / first) + 1:
            raise QuiesceError(self.name, f"WAL from {first} to {last} is no longer there", "Raise `wal_keep_size`.")
        paths = [folder / name for name in names]
        size = sum(path.stat().st_size for path in paths)
        if size > REDO_LIMIT:
            raise QuiesceError(
                self.name, f"{size >> 20} MiB of WAL were written during the backup", 'Use mode = "freeze".'
            )
        return paths

    def _open(self) -> None:
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self._conninfo]
        who: dict[str, Any] = {"user": self._run_as, "extra_groups": []} if self._run_as else {}
        try:
            self._psql = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                bufsize=0,
                start_new_session=True,
                **who,
            )
        except (OSError, LookupError, ValueError) as error:
            raise QuiesceError(self.name, f"psql: {error}", "Correct `run_as`.") from error
        self._about = self._ask(_ABOUT, ANSWER_SECONDS)

    def _ask(self, statement: str, seconds: float) -> dict[str, Any]:
        """The one JSON object that a statement answers, on one line."""
        psql = self._psql
        if psql is None or psql.stdin is None or psql.stdout is None:
            raise QuiesceError(self.name, "psql is not running")
        answer, until = b"", time.monotonic() + seconds
        try:
            psql.stdin.write(statement.replace("\n", " ").encode() + b";\n")
            while not answer.endswith(b"\n") and len(answer) < ANSWER_LIMIT:
                if not select.select([psql.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                    raise QuiesceError(self.name, f"no answer within {seconds:g} s", "Raise `timeout_s`.")
                if not (data := os.read(psql.stdout.fileno(), 1 << 16)):
                    break
                answer += data
            found = json.loads(answer)
        except (OSError, ValueError) as error:
            why = " ".join(answer.decode(errors="replace").split())[:500]
            raise QuiesceError(self.name, why or str(error), "Check `conninfo`, and the server's log.") from error
        if not isinstance(found, dict):
            raise QuiesceError(self.name, "psql answered something else")
        return found


def _wal_number(path: Path) -> int:
    """A WAL file's place in its timeline: the name holds it in two halves, the second counting within 4 GiB."""
    size = path.stat().st_size if path.exists() else 0
    return int(path.name[8:16], 16) * ((1 << 32) // size) + int(path.name[16:], 16) if size else -1
