"""postgresql makes a restored PostgreSQL data directory one that starts. It starts none: that is pgserver's.

Hot-backup: ``backup_label`` and the WAL of the tape's last file take the place of what was in the mirror, so that the
server recovers from the backup's start to its stop record. Freeze: the copy recovers as after a power cut.

What is removed is what a base backup leaves out (PostgreSQL manual, "Backing Up The Data Directory").
"""

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from splitreel.errors import IntegrityError
from splitreel.recovery import Drill, Layout, Piece, files, pgserver

DATA = "data"
WAL = "wal"
TABLESPACES = "tablespaces"
CONFIGURATION = "configuration"
EMPTIED = ("pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans")
STALE = (
    *("postmaster.pid", "postmaster.opts", "pg_internal.init", "backup_label.old", "tablespace_map.old"),
    *("backup_manifest", "standby.signal", "recovery.signal", "backup_label", "tablespace_map"),
)
WAL_NAME = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
OID = re.compile(r"[1-9][0-9]{0,9}")
TEMPORARY = re.compile(r"pgsql_tmp.*|t[0-9]+_[0-9]+(_(fsm|vm|init))?(\.[0-9]+)?|pg_internal\.init(\.[0-9]+)?")


class PostgresqlRecovery:
    """A PostgreSQL cluster restored from tape."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._data = files.path(facts, "data")
        self._wal = files.path(facts, "wal") if facts.get("wal") else f"{self._data}/pg_wal"
        self._hot = files.text(facts, "mode") == "hot-backup"
        self._outer_places = facts.get("places") or []
        self._tablespaces = _tablespaces(facts)
        self._settings = pgserver.Settings.of(facts)
        self._configuration = _configuration(facts)

    def pieces(self) -> tuple[Piece, ...]:
        """Data directory, tablespaces outside of it, and in freeze mode a WAL directory outside of it."""
        found = [Piece(self._data, DATA)]
        if not self._hot and self._is_outer(self._wal):
            found.append(Piece(self._wal, WAL))
        for oid, place in self._tablespaces.items():
            if self._is_outer(place):
                found.append(Piece(place, f"{TABLESPACES}/{oid}", movable=True))
        return tuple(found)

    def lay_out(self, layout: Layout) -> list[str]:
        """Stale files out, redo in, tablespaces linked to where they are now."""
        data = layout.places[self._data]
        if not files.is_file(data / "PG_VERSION"):
            raise IntegrityError(f"database {self._data}", "the tape holds no PostgreSQL data directory there")
        notes = self._clean(data, layout)
        if self._hot:
            self._put_redo(data, layout)
        elif self._wal in layout.places:
            files.move(layout.places[self._wal], data / "pg_wal", layout.owner)
        if not files.is_directory(data / "pg_wal"):
            raise IntegrityError(f"database {self._data}", "the tape does not hold its pg_wal")
        self._link(data, layout)
        return notes + self._configure(data, layout)

    def drill(self, layout: Layout, logs: Path) -> Drill:
        """See pgserver.drill."""
        return pgserver.drill(layout.places[self._data], self._settings, layout.owner, logs)

    def running(self, layout: Layout, logs: Path) -> AbstractContextManager[pgserver.Server]:
        """See pgserver.started."""
        return pgserver.started(layout.places[self._data], self._settings, layout.owner, logs)

    def _is_outer(self, place: str) -> bool:
        """Whether the tape does not hold it with the data directory: it was elsewhere, or mounted there."""
        return place in self._outer_places or not _within(place, self._data)

    # The parts of lay_out.

    def _clean(self, data: Path, layout: Layout) -> list[str]:
        signals = [name for name in ("standby.signal", "recovery.signal") if files.is_file(data / name)]
        files.remove_all(data / name for name in STALE)
        for name in EMPTIED:
            if os.path.lexists(data / name):
                files.make_directory(data / name, layout.owner)
        for place in [data, *(layout.places[place] for place in self._outer(layout))]:
            _remove_temporary(place)
        return [f"{name} was removed: it starts as a primary" for name in signals]

    def _put_redo(self, data: Path, layout: Layout) -> None:
        label = layout.redo / "backup_label"
        wal = sorted(p for p in _entries(layout.redo / "pg_wal") if WAL_NAME.fullmatch(p.name) and files.is_file(p))
        if not files.is_file(label) or not any(len(path.name) == 24 for path in wal):
            raise IntegrityError(
                f"database {self._data}",
                "the tape holds no backup label or no WAL for it: it cannot be made consistent",
                "Restore a backup that ran to its end.",
            )
        files.make_directory(data / "pg_wal", layout.owner)
        files.make_directory(data / "pg_wal" / "archive_status", layout.owner)
        for path in wal:
            files.move(path, data / "pg_wal" / path.name, layout.owner)
        files.move(label, data / "backup_label", layout.owner)

    def _link(self, data: Path, layout: Layout) -> None:
        """The links of pg_tblspc; a tablespace map is not needed beside them, and would hold the old places."""
        links = data / "pg_tblspc"
        files.remove_all(path for path in _entries(links) if path.is_symlink())
        for oid, place in self._tablespaces.items():
            if _within(place, f"{self._data}/pg_tblspc"):
                continue  # in place: a directory there, no link
            here = layout.places.get(place) or data / os.path.relpath(place, self._data)
            files.link(links / oid, here.absolute(), layout.owner)

    def _configure(self, data: Path, layout: Layout) -> list[str]:
        """Configuration that stood outside of the data directory: beside it, and a minimal one in it to start with."""
        for name, content in self._configuration.items():
            place = layout.directory / CONFIGURATION / name
            place.parent.mkdir(parents=True, exist_ok=True)
            files.write(place, content.encode("utf-8", "surrogateescape"), layout.owner, 0o640)
        made = []
        for name, content in (("postgresql.conf", ""), ("pg_hba.conf", pgserver.HBA), ("pg_ident.conf", "")):
            if not files.is_file(data / name):
                files.write(data / name, content.encode(), layout.owner)
                made.append(name)
        if not made:
            return []
        where = f"; the primary's is in {layout.directory / CONFIGURATION}" if self._configuration else ""
        return [f"{', '.join(made)} stood elsewhere: a minimal one was made{where}"]

    def _outer(self, layout: Layout) -> list[str]:
        return [place for place in self._tablespaces.values() if place in layout.places]


def _within(place: str, directory: str) -> bool:
    return place == directory or place.startswith(f"{directory}/")


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if files.is_directory(directory) else []


def _remove_temporary(top: Path) -> None:
    """Temporary files and relations, and caches of the catalog, which a server makes anew."""
    for folder, folders, names, descriptor in os.fwalk(top, follow_symlinks=False):
        for name in [name for name in folders if name.startswith("pgsql_tmp")]:
            folders.remove(name)
            files.remove(Path(folder) / name)
        for name in names:
            if TEMPORARY.fullmatch(name):
                os.unlink(name, dir_fd=descriptor)


def _tablespaces(facts: Mapping[str, Any]) -> dict[str, str]:
    stated = facts.get("tablespaces") or {}
    if not isinstance(stated, dict) or not all(OID.fullmatch(oid) for oid in stated):
        raise IntegrityError("reading session.json", f"tablespaces are {stated!r:.60}")
    return {oid: files.path(stated, oid) for oid in stated}


def _configuration(facts: Mapping[str, Any]) -> dict[str, str]:
    """Name -> content, for files whose absolute paths lead nowhere but below one directory."""
    stated = facts.get("configuration") or {}
    if not isinstance(stated, dict) or not all(isinstance(content, str) for content in stated.values()):
        raise IntegrityError("reading session.json", "its configuration is malformed")
    names = {os.path.normpath(f"/{name}").lstrip("/"): content for name, content in stated.items()}
    parents = {str(parent) for name in names for parent in Path(name).parents}
    if not all(name and "\0" not in name for name in names) or parents & names.keys():
        raise IntegrityError("reading session.json", "its configuration is malformed")
    return names
