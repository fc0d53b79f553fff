"""catalog remembers backups, volumes, segments and members in SQLite. It touches no drive.

What it lists as written was confirmed by a synchronise. It can be lost: every tape carries its own, and ``rebuild``
reads that back. Paths are byte strings. One connection, one thread at a time.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitreel import records
from splitreel.errors import CatalogError, IntegrityError, NotFound
from splitreel.records import DamagedPage, Member, Segment
from splitreel.schema import MIGRATIONS, SCHEMA_VERSION
from splitreel.volume import Label, from_record

FILE_NAME = "catalog.sqlite"
BATCH = 10_000
STATES = ("running", "complete", "incomplete")

_MEMBER_COLUMNS = [
    "volume",
    "segment",
    "path",
    "type",
    "size",
    "mode",
    "block",
    "offset",
    "stored",
    "extents",
    "crc32c",
    "target",
    "part",
    "parts",
    "of",
    "at",
    "object",
]
_INSERT_MEMBER = f"INSERT INTO members ({','.join(_MEMBER_COLUMNS)}) VALUES ({','.join('?' * len(_MEMBER_COLUMNS))})"


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup as the catalog holds it; ``volume`` is its tape's row."""

    id: int
    uuid: str
    created: str
    host: str
    device: str
    job: str
    state: str
    reason: str
    files: int
    bytes: int
    tape_blocks: int
    seconds: float
    window_ms: float | None
    crc32c: int | None


@contextmanager
def _reported(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
        advice = (
            "Make room on its file system, then run 'splitreel catalog rebuild --tape TAPE': what is on tape is valid."
            if full
            else f"What is on tape is valid. Move {path} away and run 'splitreel catalog rebuild --tape TAPE'."
        )
        raise CatalogError(f"{doing} catalog {path}", str(error), advice) from error


class Catalog:
    """An open catalog; a context manager. Every method raises CatalogError when the database fails.

    WAL with a busy timeout of 10 s, so that a report can be read while a backup runs; mode 0600.
    """

    def __init__(self, state: str | os.PathLike[str]) -> None:
        self.path = Path(state) / FILE_NAME
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(descriptor)
        except OSError as error:
            raise CatalogError(f"opening catalog {self.path}", error.strerror or "", "Name another --state.") from error
        with _reported(self.path, "opening"):
            self.connection = sqlite3.connect(self.path, timeout=10.0, isolation_level=None, check_same_thread=False)
            try:
                self._configure()
            except BaseException:
                self.connection.close()
                raise

    def _configure(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self.connection.execute(f"PRAGMA {pragma}")
        version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise CatalogError(
                f"opening catalog {self.path}",
                f"it has schema version {version}, this program reads up to {SCHEMA_VERSION}",
                "Use the newer splitreel, or name another --state.",
            )
        for step in range(version, SCHEMA_VERSION):
            with self.transaction():
                # another process may have migrated while we waited for the lock
                if self.connection.execute("PRAGMA user_version").fetchone()[0] == step:
                    MIGRATIONS[step](self.connection)
                    self.connection.execute(f"PRAGMA user_version = {step + 1}")

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; idempotent."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside take effect together or not at all; one inside another is part of it."""
        if self.connection.in_transaction:
            yield
            return
        with _reported(self.path, "writing"):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    # Writing.

    def begin_backup(self, uuid: str, device: str, *, created: str, host: str, job: str = "") -> int:
        """Add a backup in state "running"; returns its row."""
        with self.transaction():
            cursor = self.connection.execute(
                "INSERT INTO backups (uuid, created, host, device, job, state) VALUES (?, ?, ?, ?, ?, 'running')",
                (uuid, created, host, device, job),
            )
        return int(cursor.lastrowid or 0)

    def add_volume(self, backup: int, label: Label, drive: str = "") -> int:
        """Add the tape a backup goes to; returns its row."""
        with self.transaction():
            cursor = self.connection.execute(
                "INSERT INTO volumes (backup, name, uuid, set_uuid, sequence, created, block_size, segment_size, host,"
                " software, drive) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    backup,
                    label.volume,
                    label.volume_uuid,
                    label.set_uuid,
                    label.sequence,
                    label.created,
                    label.block_size,
                    label.segment_size,
                    label.host,
                    label.software,
                    drive,
                ),
            )
        return int(cursor.lastrowid or 0)

    def add_segments(self, volume: int, segments: Iterable[Segment], members: Iterable[Member]) -> None:
        """Add segments that a synchronise has confirmed, with their members: all of them or none."""
        now = time.time()
        with self.transaction():
            self.connection.executemany(
                "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((volume, s.number, s.object, s.blocks, s.crc32c, s.members, now) for s in segments),
            )
            damaged: list[tuple[object, ...]] = []
            self.connection.executemany(_INSERT_MEMBER, (_row(volume, m, damaged) for m in members))
            self.connection.executemany("INSERT OR REPLACE INTO damaged_pages VALUES (?, ?, ?, ?, ?, ?)", damaged)

    def add_redo(self, volume: int, path: bytes, size: int, crc32c: int) -> None:
        """Add a redo member of the closing tape file."""
        with self.transaction():
            self.connection.execute("INSERT OR REPLACE INTO redo VALUES (?, ?, ?, ?)", (volume, path, size, crc32c))

    def add_page_checks(self, volume: int, counts: Mapping[str, int]) -> None:
        """Set what the checks of database pages counted; nothing without any."""
        with self.transaction():
            for name, count in counts.items():
                self.connection.execute("INSERT OR REPLACE INTO page_checks VALUES (?, ?, ?)", (volume, name, count))

    def finish_backup(self, backup: int, state: str, reason: str = "", **totals: float | None) -> None:
        """Set the final state ("complete" or "incomplete") and any of the columns files, bytes, tape_blocks, …"""
        allowed = {"files", "bytes", "tape_blocks", "seconds", "window_ms", "crc32c"}
        assert state in STATES and set(totals) <= allowed
        columns = "".join(f", {name} = ?" for name in totals)
        with self.transaction():
            self.connection.execute(
                f"UPDATE backups SET state = ?, reason = ?{columns} WHERE id = ?",
                (state, reason, *totals.values(), backup),
            )

    def add_phase(self, backup: int, name: str, started: float, seconds: float) -> None:
        """Record how long a phase took; ``started`` in seconds since 1970."""
        with self.transaction():
            self.connection.execute("INSERT INTO phases VALUES (?, ?, ?, ?)", (backup, name, started, seconds))

    def add_window(self, backup: int, name: str, started: float, seconds: float) -> None:
        """Record a window: how long writers were blocked, or the hot-backup state lasted."""
        with self.transaction():
            self.connection.execute("INSERT INTO windows VALUES (?, ?, ?, ?)", (backup, name, started, seconds))

    def overwrite(self, volume_uuid: str) -> None:
        """A tape is about to be written from its beginning: what was on it is listed no more, its backups are kept."""
        reason = "its tape was overwritten"
        with self.transaction():
            for row, backup in list(self.rows("SELECT id, backup FROM volumes WHERE uuid = ?", volume_uuid)):
                for table in ("members", "segments", "redo", "damaged_pages", "page_checks"):
                    self.connection.execute(f"DELETE FROM {table} WHERE volume = ?", (row,))
                self.finish_backup(backup, "incomplete", reason, files=0, bytes=0, tape_blocks=0)

    def forget(self, uuid: str) -> bool:
        """Remove a backup and all that hangs on it; True when it was there."""
        with self.transaction():
            return self.connection.execute("DELETE FROM backups WHERE uuid = ?", (uuid,)).rowcount > 0

    # Reading.

    def rows(self, statement: str, *parameters: object) -> Iterator[Any]:
        """What a SELECT finds, a tuple a row."""
        with _reported(self.path, "reading"):
            yield from self.connection.execute(statement, parameters)

    def backups(self) -> list[Backup]:
        """All backups, oldest first."""
        columns = ", ".join(Backup.__slots__)
        return [Backup(*row) for row in self.rows(f"SELECT {columns} FROM backups ORDER BY created, id")]

    def backup(self, uuid: str = "") -> Backup:
        """The backup whose UUID begins with ``uuid``; the newest that is complete when empty.

        Raises:
            NotFound: there is none, or more than one.
        """
        found = [b for b in self.backups() if (b.uuid.startswith(uuid) if uuid else b.state == "complete")]
        if not found or (uuid and len(found) > 1):
            why = "more than one begins so" if found else "the catalog holds none"
            advice = "'splitreel list' shows what the catalog holds; 'splitreel catalog rebuild' reads a tape's own."
            raise NotFound(f"backup {uuid}".strip(), why, advice)
        return found[-1]

    def volume(self, backup: int) -> tuple[int, Label, str]:
        """Row, label and drive of a backup's first tape.

        Raises:
            NotFound: nothing was written for it.
        """
        statement = (
            "SELECT id, drive, name, uuid, set_uuid, sequence, created, block_size, segment_size, host, software,"
            " (SELECT uuid FROM backups WHERE id = backup) FROM volumes WHERE backup = ? ORDER BY sequence LIMIT 1"
        )
        for row, drive, name, uuid, set_uuid, sequence, created, block, segment, host, software, of in self.rows(
            statement, backup
        ):
            return row, Label(name, uuid, set_uuid, sequence, of, created, block, segment, host, software), drive
        raise NotFound("the tape of this backup", "the catalog names none")

    def segments(self, volume: int) -> list[Segment]:
        """The confirmed segments of a tape, in order."""
        statement = "SELECT number, object, blocks, crc32c, members FROM segments WHERE volume = ? ORDER BY number"
        return [Segment(*row) for row in self.rows(statement, volume)]

    def members(self, volume: int) -> Iterator[Member]:
        """The members of a tape, in archive order."""
        columns = ", ".join(_MEMBER_COLUMNS[1:])
        statement = f"SELECT {columns} FROM members WHERE volume = ? ORDER BY id"
        damaged: dict[bytes, list[DamagedPage]] = {}
        pages = "SELECT path, page, offset, size, why FROM damaged_pages WHERE volume = ? ORDER BY path, offset"
        for path, page, offset, size, why in self.rows(pages, volume):
            damaged.setdefault(path, []).append((page, offset, size, why))
        return (_member(row, damaged) for row in self.rows(statement, volume))

    def page_checks(self, volume: int) -> dict[str, int]:
        """What the checks of database pages counted; empty: there were none."""
        return dict(self.rows("SELECT name, count FROM page_checks WHERE volume = ? ORDER BY name", volume))

    def redo(self, volume: int) -> list[tuple[bytes, int, int]]:
        """Path, size and CRC32C of the redo members of a tape."""
        return list(self.rows("SELECT path, size, crc32c FROM redo WHERE volume = ? ORDER BY path", volume))

    def phases(self, backup: int) -> list[tuple[str, float, float]]:
        """Name, start and seconds of each phase, in order."""
        return list(self.rows("SELECT name, started, seconds FROM phases WHERE backup = ? ORDER BY rowid", backup))

    def windows(self, backup: int) -> list[tuple[str, float, float]]:
        """Name, start and seconds of each window, in order."""
        return list(self.rows("SELECT name, started, seconds FROM windows WHERE backup = ? ORDER BY rowid", backup))

    # The form in which it travels.

    def export(self, backup: Backup) -> Iterator[bytes]:
        """A backup as JSON lines, as the closing tape file holds them."""
        volume, label, _ = self.volume(backup.id)
        pages = self.page_checks(volume)
        return lines(label, self.segments(volume), self.members(volume), self.redo(volume), backup.state, pages)

    def load(self, chunks: Iterable[bytes | memoryview], device: str = "", *, replace: bool = False) -> str:
        """Add the backup that JSON lines describe, all or nothing; returns its UUID. Raises what load_records does."""
        return self.load_records(records.verified(chunks), device, replace=replace)

    def load_records(
        self, stated: Iterator[dict[str, Any]], device: str = "", *, replace: bool = False, drive: str = ""
    ) -> str:
        """Add the backup that a catalog's records describe, all or nothing; returns its UUID.

        Raises:
            IntegrityError: the records are damaged or end early; the catalog is as before.
            CatalogError: it is there already and ``replace`` is False.
        """
        head = next(stated, {})
        label = from_record(head)
        state = "complete" if head.get("state", "complete") == "complete" else "incomplete"
        with self.transaction():
            if any(b.uuid == label.backup for b in self.backups()):
                if not replace:
                    advice = "Say --force to replace it."
                    raise CatalogError(f"adding backup {label.backup}", "the catalog holds it already", advice)
                self.forget(label.backup)
            backup = self.begin_backup(label.backup, device, created=label.created, host=label.host)
            volume = self.add_volume(backup, label, drive)
            self.add_page_checks(volume, records.counts(head, "pages"))
            files, size = self._load_records(volume, stated)
            self.finish_backup(backup, state, "", files=files, bytes=size)
        return label.backup

    def _load_records(self, volume: int, stated: Iterator[dict[str, Any]]) -> tuple[int, int]:
        files = size = 0
        batch: list[Member] = []
        for record in stated:
            if record["kind"] == "segment":
                self.add_segments(volume, [records.segment(record)], ())
            elif record["kind"] == "redo":
                crc = records.crc(record.get("crc32c"))
                self.add_redo(volume, records.path_of(record, "path"), records.integer(record, "size"), crc)
            elif record["kind"] == "member":
                batch.append(records.member(record))
                first = batch[-1].type == "file" and (batch[-1].part or (1, 1))[0] == 1
                files, size = files + first, size + (batch[-1].stored if batch[-1].type == "file" else 0)
            if len(batch) >= BATCH:
                self.add_segments(volume, (), batch)
                batch = []
        self.add_segments(volume, (), batch)
        return files, size


def lines(
    label: Label,
    segments: Iterable[Segment],
    members: Iterable[Member],
    redo: Iterable[tuple[bytes, int, int]] = (),
    state: str = "complete",
    pages: Mapping[str, int] | None = None,
) -> Iterator[bytes]:
    """The lines of ``catalog.jsonl``: the README block's JSON, redo members, segments, members, end.

    ``pages`` is what the checks of database pages counted.
    """

    def every() -> Iterator[dict[str, Any]]:
        yield {"kind": "catalog", **label.record(), "state": state, **({"pages": dict(pages)} if pages else {})}
        for path, size, crc32c in redo:
            yield {"kind": "redo", "path": records.text(path), "size": size, "crc32c": f"{crc32c:08x}"}
        yield from map(records.segment_record, segments)
        yield from map(records.member_record, members)

    return records.summed(every())


def _row(volume: int, m: Member, damaged: list[tuple[object, ...]]) -> tuple[object, ...]:
    """A member's columns; its damaged pages are added to ``damaged``."""
    damaged += ((volume, m.path, *page) for page in m.damaged_pages)
    part, parts = m.part or (None, None)
    fixed = (m.size, m.mode, m.block, m.offset, m.stored, m.extents, m.crc32c, m.target)
    return volume, m.segment, m.path, m.type, *fixed, part, parts, m.of, m.at, m.object


def _member(row: tuple[Any, ...], damaged: Mapping[bytes, list[DamagedPage]]) -> Member:
    segment, path, kind, size, mode, block, offset, stored, extents, crc, target, part, parts, of, at, number = row
    both = (part, parts) if part is not None else None
    pages = tuple(damaged.get(path, ()))
    fixed = (path, kind, size, mode, block, offset, stored, extents, crc, target, both, of, at, segment, number)
    return Member(*fixed, pages)


def read_lines(chunks: Iterable[bytes | memoryview]) -> tuple[Label, list[Segment], list[Member]]:
    """Label, segments and members of a catalog's lines, in memory.

    Raises:
        IntegrityError: they are damaged or end early.
    """
    stated = records.verified(chunks)
    label = from_record(next(stated, {}))
    segments: list[Segment] = []
    members: list[Member] = []
    for record in stated:
        if record["kind"] == "segment":
            segments.append(records.segment(record))
        elif record["kind"] == "member":
            members.append(records.member(record))
    if sum(s.members for s in segments) != len(members):
        raise IntegrityError("reading a catalog", "it does not list as many members as its segments hold")
    return label, segments, members
