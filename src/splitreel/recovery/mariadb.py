"""mariadb makes a restored MariaDB or MySQL data directory one that starts. It starts none: that is mariadbserver's.

There is nothing to put in from redo: the copy recovers from its own logs, which are therefore kept as they are, the
binary log too (a server without it refuses transactions that were prepared in it). Tables and schemas that stood
elsewhere come home into the data directory. Logs and system tablespaces that did stand beside it, and ``my.cnf`` names
them and all that the server must be started with.

Sources: MariaDB, "Storage Snapshots and BACKUP STAGE Commands" (what begins with #sql); MySQL 8.0 manual, 15.6.3.6
"Moving Tablespace Files While the Server is Offline" and 17.1.4.8 "Server UUID" (auto.cnf).
"""

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitreel.errors import IntegrityError
from splitreel.recovery import Drill, Layout, Piece, files, mariadbserver

DATA = "data"
OPTIONS = "my.cnf"
FIRST_DDL_LOG = (
    10,
    6,
)  # MariaDB: an ALTER that was cut short is undone from its log, by the files that begin with #sql
FOLDERS = frozenset(
    (
        *("innodb_log_group_home_dir", "innodb_undo_directory", "innodb_doublewrite_dir", "aria_log_dir_path"),
        *("rocksdb_datadir", "rocksdb_wal_dir"),
    )
)
NUMBERS = ("innodb_page_size", "innodb_log_file_size", "lower_case_table_names", "server_id")
LOOSE = frozenset(("innodb_log_file_size", "innodb_doublewrite_dir", "aria_log_dir_path"))  # not all versions know them
SPACE = re.compile(r"([^:;]+)((?::\d+[KMG]?)?(?::autoextend(?::max:\d+[KMG]?)?)?)", re.IGNORECASE)
LOGS = {"log_bin": "log_bin_basename", "relay_log": "relay_log_basename"}


@dataclass(frozen=True)
class Server:
    """What of a server's facts, verified, its restore needs; paths are the primary's."""

    engine: str
    version: tuple[int, int]
    locked: bool  # in a mode that holds back changes of a table's definition
    data: str
    log_bin: bool
    numbers: Mapping[str, int]
    folders: Mapping[str, str]
    spaces: tuple[tuple[str, str], ...]  # the system tablespace: path, and what follows it in innodb_data_file_path
    tables: Mapping[str, str]
    logs: Mapping[str, tuple[str, tuple[str, ...]]]  # setting -> path that numbers end, and its files

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Server":
        """From the entry of session.json. Raises IntegrityError."""
        version = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.", files.text(facts, "version"))
        if version is None:
            raise IntegrityError("reading session.json", f"version is {facts['version']!r:.60}")
        data = files.path(facts, "data")
        return cls(
            "mysql" if facts.get("engine") == "mysql" else "mariadb",
            (int(version[1]), int(version[2])),
            files.text(facts, "mode") != "freeze",
            data,
            facts.get("log_bin") is True,
            {name: facts[name] for name in NUMBERS if type(facts.get(name)) is int and facts[name] >= 0},
            {name: path for name, path in _paths(facts, "directories").items() if name in FOLDERS},
            _spaces(facts),
            {name: path for name, path in _paths(facts, "tables").items() if _is_home(name)},
            _logs(facts),
        )


class MariadbRecovery:
    """A MariaDB or MySQL server's data restored from tape."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._server = Server.of(facts)

    def pieces(self) -> tuple[Piece, ...]:
        """The data directory, then whatever lies in none of the pieces before it."""
        server = self._server
        wanted = [(path, f"{name}") for name, path in server.folders.items()]
        wanted += [(path, f"innodb_data/{number}/{_name(path)}") for number, (path, _) in enumerate(server.spaces)]
        wanted += [(path, f"tables/{number}/{_name(path)}") for number, path in enumerate(server.tables.values())]
        for setting, (_, found) in server.logs.items():
            wanted += [(path, f"{setting}/{_name(path)}") for path in found]
        pieces = [Piece(server.data, DATA)]
        for path, target in sorted(wanted):
            if not any(_within(path, piece.source) for piece in pieces):
                pieces.append(Piece(path, target))
        return tuple(pieces)

    def lay_out(self, layout: Layout) -> list[str]:
        """Tables home, stale files gone, ``my.cnf`` beside the data directory."""
        data = layout.places[self._server.data]
        if not files.is_directory(data / "mysql"):
            raise IntegrityError(f"database {self._server.data}", "the tape holds no data directory of a server there")
        notes = self._bring_home(data, layout)
        notes += self._clean(data)
        for setting, (base, _) in self._server.logs.items():
            if not _within(base, self._server.data):
                self._rewrite_index(setting, layout)
        settings = self.settings(layout)
        text = "".join(
            f"{name}\n" if value is None else f"{name} = {_quoted(value)}\n" for name, value in settings.items()
        )
        files.write(layout.directory / OPTIONS, f"[mysqld]\n{text}".encode(), layout.owner, 0o640)
        files.remove_all([layout.directory / "tables"])
        _give_parents(layout)
        if len(layout.places) > 1:
            notes.append(
                f"not all stood in the data directory: start it with --defaults-file={layout.directory}/{OPTIONS}"
            )
        return notes + self._warnings(data)

    def drill(self, layout: Layout, logs: Path) -> Drill:
        """See mariadbserver.drill."""
        server = self._server
        return mariadbserver.drill(server.engine, server.version, self.settings(layout), layout.owner, logs)

    def running(self, layout: Layout, logs: Path) -> AbstractContextManager[mariadbserver.Server]:
        """See mariadbserver.started."""
        server = self._server
        return mariadbserver.started(server.engine, server.version, self.settings(layout), layout.owner, logs)

    def settings(self, layout: Layout) -> dict[str, str | None]:
        """What a server of this data must be started with; None is an option without a value."""
        server = self._server
        found: dict[str, str | None] = {"datadir": str(layout.places[server.data].absolute())}
        found |= {_loose(name): str(value) for name, value in server.numbers.items()}
        found |= {_loose(name): str(self._now(path, layout)) for name, path in server.folders.items()}
        if server.spaces:
            places = [self._space(path, layout) for path, _ in server.spaces]
            ends = [end for _, end in server.spaces]
            found["innodb_data_file_path"] = ";".join(f"{p}{end}" for p, end in zip(places, ends, strict=True))
            found |= {"innodb_data_home_dir": ""} if any(place.startswith("/") for place in places) else {}
        for setting, (base, its_files) in server.logs.items():
            if setting == "log_bin" and not server.log_bin:
                continue
            if _within(base, server.data):
                found[setting] = os.path.relpath(base, server.data)
            elif its_files:
                found[setting] = str(self._now(its_files[0], layout).parent / _name(base))
        if server.engine == "mysql" and not server.log_bin:
            found["skip_log_bin"] = None  # it is on by default
        return found

    # The parts of lay_out.

    def _now(self, path: str, layout: Layout) -> Path:
        """Where a path of the primary's is: in a piece."""
        for source, place in layout.places.items():
            if _within(path, source):
                return (place / os.path.relpath(path, source) if path != source else place).absolute()
        raise IntegrityError(f"database {self._server.data}", f"the tape does not hold {path}")

    def _space(self, path: str, layout: Layout) -> str:
        """A file of the system tablespace, as innodb_data_file_path names it."""
        data = self._server.data
        return os.path.relpath(path, data) if _within(path, data) else str(self._now(path, layout))

    def _bring_home(self, data: Path, layout: Layout) -> list[str]:
        """Tables with DATA DIRECTORY, and schemas that were links: in place of their links."""
        notes = []
        for name, path in self._server.tables.items():
            home = data / name
            if home.parent != data and not files.is_directory(home.parent):
                raise IntegrityError(f"database {self._server.data}", f"the tape does not hold the schema of {name}")
            files.move(self._now(path, layout), home, layout.owner)
            files.remove(home.with_suffix(".isl"))
            if home.suffix == ".ibd" and _is_unwritten(home):
                notes.append(
                    f"{name} was made right before the backup: InnoDB may look for it at {path}; link it there"
                )
        count = len(self._server.tables)
        return [*notes, f"{count} tables or schemas stood elsewhere and are in the data directory now"] if count else []

    def _clean(self, data: Path) -> list[str]:
        """Old pid files; before MariaDB 10.6 what a running ALTER left, which no later start removes."""
        files.remove_all(path for path in data.iterdir() if path.suffix == ".pid" and files.is_file(path))
        server = self._server
        if server.engine != "mariadb" or server.version >= FIRST_DDL_LOG or not server.locked:
            return []
        schemas = [path for path in data.iterdir() if files.is_directory(path)]
        left = [path for schema in schemas for path in schema.iterdir() if path.name.startswith("#sql")]
        count = files.remove_all(path for path in left if path.suffix not in (".ibd", ".isl"))  # InnoDB removes its own
        return [f"{count} files of an unfinished ALTER were removed"] if count else []

    def _rewrite_index(self, setting: str, layout: Layout) -> None:
        """The index names its log's files by their paths on the primary."""
        _, found = self._server.logs[setting]
        for index in (path for path in found if path.endswith(".index")):
            numbered = [path for path in found if re.search(r"\.\d+$", path)]
            text = "".join(f"{self._now(path, layout)}\n" for path in numbered)
            files.write(self._now(index, layout), text.encode("utf-8", "surrogateescape"), layout.owner, 0o660)

    def _warnings(self, data: Path) -> list[str]:
        notes = []
        if files.is_file(data / "master.info") or files.is_file(data / "relay-log.info"):
            notes.append("it was a replica: it connects to its primary when started, unless with --skip-slave-start")
        if files.is_file(data / "auto.cnf"):
            notes.append("it has its primary's UUID: remove auto.cnf before it runs as a clone beside it")
        return notes


def _is_unwritten(tablespace: Path) -> bool:
    """Whether its first page is in the redo log alone.

    Measured on MariaDB 10.11: recovery finds a tablespace in the data directory by its first page, whatever path the
    log has; without that page it takes the path.
    """
    if not files.is_file(tablespace):
        return False
    with tablespace.open("rb") as file:
        return not any(file.read(4096))


def _give_parents(layout: Layout) -> None:
    """Directories that were made for single files are the owner's too: a log makes files beside its own."""
    for place in layout.places.values():
        for parent in place.absolute().parents:
            if layout.directory in parent.parents and files.is_directory(parent):
                files.give(parent, layout.owner)


# The facts come from a tape.


def _paths(facts: Mapping[str, Any], key: str) -> dict[str, str]:
    stated = facts.get(key) or {}
    if not isinstance(stated, dict):
        raise IntegrityError("reading session.json", f"{key} are {stated!r:.60}")
    return {str(name): files.path(stated, name) for name in stated}


def _is_home(name: str) -> bool:
    """NAME or SCHEMA/NAME, both ordinary: what is not stops the restore."""
    parts = name.split("/")
    if len(parts) > 2 or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise IntegrityError("reading session.json", f"a table is called {name!r:.60}")
    return True


def _spaces(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """innodb_data_file_path taken apart, each name as the path that the server said it has."""
    known, found = _paths(facts, "spaces"), []
    for entry in str(facts.get("innodb_data_file_path") or "").split(";") if known else ():
        match = SPACE.fullmatch(entry)
        if match is None or match[1] not in known:
            raise IntegrityError("reading session.json", f"innodb_data_file_path has {entry!r:.60}")
        found.append((known[match[1]], match[2]))
    return tuple(found)


def _logs(facts: Mapping[str, Any]) -> dict[str, tuple[str, tuple[str, ...]]]:
    stated = facts.get("logs") or {}
    if not isinstance(stated, dict) or not all(isinstance(found, list) for found in stated.values()):
        raise IntegrityError("reading session.json", f"logs are {stated!r:.60}")
    logs = {}
    for setting, key in LOGS.items():
        if facts.get(key):
            base = files.path(facts, key)
            found = [files.path({setting: path}, setting) for path in stated.get(setting, ())]
            logs[setting] = (base, tuple(path for path in found if path.startswith(f"{base}.")))
    return logs


def _name(path: str) -> str:
    return os.path.basename(path)  # noqa: PTH119 (a text on both sides, and Path("x/") has another name)


def _loose(name: str) -> str:
    return f"loose_{name}" if name in LOOSE else name


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _quoted(value: str) -> str:
    """As an option file's value. Raises IntegrityError for a path that none can hold."""
    if "\n" in value:
        raise IntegrityError("writing my.cnf", f"a path with a line break: {value!r:.60}")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
