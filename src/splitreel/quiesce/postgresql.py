"""postgresql puts a PostgreSQL server into its hot backup state, or has it checkpoint. It freezes nothing.

Mode "hot-backup": pg_backup_start before the window; reads and writes go on. pg_backup_stop after it gives the backup
label and, with the WAL written meanwhile, what makes the copy consistent. All of it goes to the end of the tape as
redo: ``backup_label``, ``tablespace_map``, ``pg_wal/...``. A temporary replication slot, made before the start, keeps
that WAL from being recycled; it goes with the session that made it, whatever becomes of this process. The WAL is copied
right after the stop, and the slot dropped: the server keeps no WAL for as long as the tape runs.

Mode "freeze": a checkpoint before the window, nothing else; the copy recovers as after a power cut, provided that data,
WAL and all tablespaces are on file systems that are frozen together, which the session checks.

No SQL runs between ``quiesce`` and ``unquiesce``: on a frozen file system a statement may wait for the thaw.
Passwords belong in a pgpass or service file.
"""

import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from splitreel.errors import QuiesceError, UsageError
from splitreel.quiesce import Discovery, Release
from splitreel.quiesce.psql import Psql

MODES = ("hot-backup", "freeze")
CHECKPOINTS = ("fast", "spread")
FIRST_VERSION = 130000
NEW_NAMES = 150000  # pg_backup_start and pg_backup_stop; before, pg_start_backup and pg_stop_backup
SECRET = re.compile(r"password\s*=|://[^/@\s]*:[^/@\s]*@", re.IGNORECASE)
WAL_NAME = re.compile(r"[0-9A-F]{24}")
SPOOL = "splitreel-wal-"
CONFIGURATION_LIMIT = 256 << 10

_ABOUT = """select json_build_object('version_num', current_setting('server_version_num')::int,
 'version', current_setting('server_version'), 'data', current_setting('data_directory'),
 'standby', pg_is_in_recovery(), 'places',
 (select coalesce(json_object_agg(o, p), '{}') from (select oid o, pg_tablespace_location(oid) p from pg_tablespace) t
 where p <> ''), 'cluster_name', current_setting('cluster_name'),
 'wal_level', current_setting('wal_level'), 'wal_keep', (select setting <> '0' from pg_settings
 where name = 'wal_keep_size'), 'wal_segment_size', (select setting::bigint from pg_settings
 where name = 'wal_segment_size'), 'block_size', current_setting('block_size')::int,
 'segment_size', (select setting::bigint * current_setting('block_size')::int from pg_settings
 where name = 'segment_size'), 'data_checksums', current_setting('data_checksums')::bool,
 'system_identifier', (select system_identifier::text from pg_control_system()),
 'timeline', (select timeline_id from pg_control_checkpoint()),
 'superuser', (select rolname from pg_roles where oid = 10),
 'may_slot', (select rolreplication or rolsuper from pg_roles where rolname = current_user),
 'free_slots', current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots),
 'configuration', (select json_agg(f) from (select distinct sourcefile f from pg_settings where sourcefile is not null
 union select setting from pg_settings where name in ('config_file', 'hba_file', 'ident_file')) s))"""
_SLOT = """select json_build_object('name', slot_name)
 from pg_create_physical_replication_slot('{slot}', true, true)"""
_DROP = "select json_build_object('dropped', count(pg_drop_replication_slot('{slot}')))"
_START = "select json_build_object('lsn', pg_backup_start('splitreel', {fast}))"
_STOP = "pg_backup_stop(wait_for_archive => false)"
_OLD_START = "select json_build_object('lsn', pg_start_backup('splitreel', {fast}, false))"
_OLD_STOP = "pg_stop_backup(false, false)"
_STOPPED = """select json_build_object('lsn', lsn, 'label', labelfile, 'map', spcmapfile, 'last', pg_walfile_name(lsn))
 from {stop}"""
_CHECKPOINT = "checkpoint; select json_build_object('lsn', checkpoint_lsn) from pg_control_checkpoint()"


class Postgresql:
    """A PostgreSQL server, by psql."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "conninfo": ("text", False),
        "mode": ("|".join(MODES), False),
        "checkpoint": ("|".join(CHECKPOINTS), False),
        "run_as": ("text", False),
        "spool": ("path", False),
        "timeout_s": ("number", False),
    }

    def __init__(
        self,
        conninfo: str = "dbname=postgres",
        mode: str = "hot-backup",
        run_as: str = "",
        timeout_s: float = 600.0,
        checkpoint: str = "fast",
        spool: str = "/var/tmp",
    ) -> None:
        """``run_as``: the system user for psql, for peer authentication; ``timeout_s`` bounds the checkpoint.

        ``checkpoint``: "spread" lets it take the server's own pace, which is minutes, instead of flushing at once.
        ``spool``: where WAL waits for its place on tape.
        """
        if SECRET.search(conninfo):
            raise UsageError(
                "postgresql: conninfo",
                "it holds a password, which the list of processes would show to everybody",
                "Put it into a pgpass or service file.",
            )
        self.name = f"postgresql {conninfo}"
        self.waiting = ""
        self._hot = mode == "hot-backup"
        self._timeout_s = timeout_s
        self._fast = "true" if checkpoint == "fast" else "false"
        self._spool_in = spool
        self._psql = Psql(self.name, conninfo, run_as)
        self._about: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._slot = ""
        self._started = False
        self._spool: Path | None = None

    def check(self) -> None:
        """The server answers, tells its data directory, and can be backed up in this mode."""
        try:
            self._open()
            self._refuse()
        finally:
            self.close()

    def _refuse(self) -> None:
        about = self._about
        if about["version_num"] < FIRST_VERSION:
            raise QuiesceError(self.name, f"PostgreSQL {about['version']} is older than 13", "Use `fsfreeze` alone.")
        if not Path(about["data"]).is_dir():
            raise QuiesceError(
                self.name, f"its data directory {about['data']} is not here", "Run this on the database's own host."
            )
        if not self._hot:
            return
        if about["standby"]:
            raise QuiesceError(self.name, "it is a standby", 'Back up the primary, or use mode = "freeze".')
        if about["wal_level"] == "minimal":
            raise QuiesceError(self.name, "its wal_level is minimal", 'Set `wal_level`, or use mode = "freeze".')
        if not self._can_slot() and not about["wal_keep"]:
            raise QuiesceError(
                self.name,
                "its WAL cannot be kept: no replication slot is free or permitted, and wal_keep_size is 0",
                "Give the role REPLICATION and a slot (`max_replication_slots`), or set `wal_keep_size`.",
            )

    def _can_slot(self) -> bool:
        return bool(self._about["may_slot"]) and int(self._about["free_slots"]) > 0

    def prepare(self) -> None:
        """Begin the hot backup, or checkpoint: 2 to 6 s under load, in which nobody waits."""
        _remove_dead_spools(Path(self._spool_in))
        self._open()
        self._facts = self._facts_of()
        self.waiting = "checkpoint"
        try:
            self._begin()
        finally:
            self.waiting = ""

    def _begin(self) -> None:
        if not self._hot:
            self._facts["checkpoint_lsn"] = self._psql.ask(_CHECKPOINT, self._timeout_s)["lsn"]
            return
        if self._can_slot():
            slot = f"splitreel_{os.getpid()}_{secrets.token_hex(4)}"
            self._psql.ask(_SLOT.format(slot=slot))
            self._slot = slot
        start = _START if self._has_new_names() else _OLD_START
        self._facts["start_lsn"] = self._psql.ask(start.format(fast=self._fast), self._timeout_s)["lsn"]
        self._started = True

    def _has_new_names(self) -> bool:
        return bool(self._about["version_num"] >= NEW_NAMES)

    def _open(self) -> None:
        self._psql.open()
        self._about = self._psql.ask(_ABOUT)

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
        """Data directory, WAL directory, tablespaces: as they were told before the window.

        The WAL directory of a hot backup counts only as far as it is in the data directory: what is needed is redo.
        """
        return Discovery(tuple(self._facts["places"]), self._facts, together=not self._hot)

    def _facts_of(self) -> dict[str, Any]:
        """What a restore must know, and what is good to know of the copy. Paths are without links in them."""
        about = self._about
        data = os.path.realpath(about["data"])
        spaces = {oid: os.path.realpath(Path(data) / place) for oid, place in about["places"].items()}
        wal = os.path.realpath(f"{data}/pg_wal")
        kept = ("version", "system_identifier", "timeline", "data_checksums", "block_size", "segment_size")
        return {
            "engine": "postgresql",
            "name": about["cluster_name"].replace("/", "-") or Path(data).name,
            "mode": "hot-backup" if self._hot else "freeze",
            "data": data,
            "wal": wal,
            "tablespaces": spaces,
            "places": _outer(data, [*spaces.values()] if self._hot else [wal, *spaces.values()]),
            "owner": _owner(data),
            "superuser": about["superuser"],
            "wal_segment_size": about["wal_segment_size"],
            "configuration": _configuration(data, about["configuration"] or []),
            **{key: about[key] for key in kept},
        }

    def unquiesce(self) -> None:
        """Nothing is held."""

    def recover(self) -> str:
        """Nothing of the server's: it ended backup state and slot with the session. WAL kept for the tape goes."""
        count = _remove_dead_spools(Path(self._spool_in))
        return f"WAL of {count} backups was removed from {self._spool_in}" if count else ""

    def redo(self) -> dict[str, bytes | Path]:
        """End the hot backup: the label, the tablespace map, and the WAL from the start to the end of the backup.

        Raises:
            QuiesceError: the session was lost, and the backup with it; or WAL that is needed was recycled.
        """
        if not self._started:
            return {}
        self._started = False
        stop = _STOP if self._has_new_names() else _OLD_STOP
        answer = self._psql.ask(_STOPPED.format(stop=stop), self._timeout_s)
        self._facts["stop_lsn"] = answer["lsn"]
        begun = re.search(r"\(file ([0-9A-F]{24})\)", answer["label"])
        if begun is None:
            raise QuiesceError(self.name, "its backup label names no WAL file")
        found: dict[str, bytes | Path] = {"backup_label": answer["label"].encode()}
        if answer["map"]:
            found["tablespace_map"] = answer["map"].encode()
        for path in self._keep(self._wal(begun[1], answer["last"])):
            found[f"pg_wal/{path.name}"] = path
        if self._slot:
            self._psql.ask(_DROP.format(slot=self._slot))
            self._slot = ""
        return found

    def _wal(self, first: str, last: str) -> list[Path]:
        """The WAL files from ``first`` to ``last``, every one of which must be there, and histories of timelines."""
        folder = Path(self._facts["wal"])
        names = sorted(p.name for p in folder.iterdir() if WAL_NAME.fullmatch(p.name) and first <= p.name <= last)
        if len(names) != _number(last, self._segment_size) - _number(first, self._segment_size) + 1:
            why = f"WAL from {first} to {last} is no longer there"
            raise QuiesceError(self.name, why, "Raise `wal_keep_size` or `max_slot_wal_keep_size`.")
        return [*sorted(folder.glob("*.history")), *(folder / name for name in names)]

    @property
    def _segment_size(self) -> int:
        return int(self._about["wal_segment_size"])

    def _keep(self, paths: list[Path]) -> list[Path]:
        """Copies of the files, which stay until ``close``: the server reuses its own as soon as the slot is gone."""
        try:
            self._spool = Path(tempfile.mkdtemp(prefix=f"{SPOOL}{os.getpid()}-", dir=self._spool_in))
            return [Path(shutil.copyfile(path, self._spool / path.name)) for path in paths]
        except OSError as error:
            why = f"its WAL cannot be kept in {self._spool_in}: {error.strerror}"
            raise QuiesceError(self.name, why, "Make room there, or name another directory with `spool`.") from error

    def close(self) -> None:
        """End the session, and with it a backup that was not stopped; remove the kept WAL."""
        self._psql.close()
        self._started = False
        self._slot = ""
        if self._spool is not None:
            shutil.rmtree(self._spool, ignore_errors=True)
            self._spool = None


def _number(name: str, size: int) -> int:
    """A WAL file's place in its timeline: the name holds it in two halves, the second counting within 4 GiB."""
    return int(name[8:16], 16) * ((1 << 32) // size) + int(name[16:], 16)


def _outer(data: str, places: list[str]) -> list[str]:
    """The data directory, and those of the others that are not on tape with it: elsewhere, or mounted in it."""
    device = Path(data).stat().st_dev
    inner = {place for place in places if place.startswith(f"{data}/") and Path(place).stat().st_dev == device}
    return list(dict.fromkeys([data, *(place for place in places if place not in inner)]))


def _owner(path: str) -> str:
    try:
        return Path(path).owner()
    except (KeyError, OSError):
        return ""


def _configuration(data: str, names: list[str]) -> dict[str, str]:
    """Configuration files that lie outside of the data directory, by path; what cannot be read is left out."""
    found = {}
    for name in names:
        path = Path(os.path.realpath(name))
        try:
            if not path.is_relative_to(data) and path.stat().st_size <= CONFIGURATION_LIMIT:
                found[name] = path.read_text("utf-8", "surrogateescape")
        except OSError:
            continue
    return found


def _remove_dead_spools(folder: Path) -> int:
    """Remove what sessions left that were killed; how many."""
    count = 0
    for path in folder.glob(f"{SPOOL}*-*"):
        pid = path.name.removeprefix(SPOOL).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and path.lstat().st_uid == os.geteuid():
            shutil.rmtree(path, ignore_errors=True)
            count += 1
    return count
