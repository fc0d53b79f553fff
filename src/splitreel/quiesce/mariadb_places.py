"""mariadb_places finds where a MariaDB or MySQL server keeps its files, by asking it and by looking. It locks nothing.

What lies below the data directory needs no entry of its own; what does not, has one: InnoDB's and Aria's logs, undo
and system tablespaces, tables with DATA DIRECTORY, the binary log. Left out are temporary files and the error log.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

VARIABLES = (
    *("datadir", "innodb_data_home_dir", "innodb_data_file_path", "innodb_log_group_home_dir", "innodb_undo_directory"),
    *("innodb_doublewrite_dir", "aria_log_dir_path", "rocksdb_datadir", "rocksdb_wal_dir"),
    *("log_bin", "log_bin_basename", "relay_log_basename", "lower_case_table_names", "server_id", "server_uuid"),
    *("innodb_page_size", "innodb_checksum_algorithm", "innodb_log_file_size", "innodb_log_files_in_group"),
    "innodb_flush_log_at_trx_commit",
)
FOLDERS = (
    *("innodb_log_group_home_dir", "innodb_undo_directory", "innodb_doublewrite_dir", "aria_log_dir_path"),
    *("rocksdb_datadir", "rocksdb_wal_dir"),
)
LOGS = {"log_bin": "log_bin_basename", "relay_log": "relay_log_basename"}  # setting -> what tells the path
# view.column that holds the paths of InnoDB's files, the newest first; which of them a version has is asked
TABLESPACES = ("files.file_name", "innodb_sys_tablespaces.filename", "innodb_sys_datafiles.path")
LINK = ".isl"  # MariaDB, and MySQL before 8: a file that holds the path of a table's tablespace elsewhere

Ask = Callable[[str], list[list[str]]]


@dataclass(frozen=True)
class Places:
    """Absolute paths without links; all but ``data`` and ``spaces`` lie outside of it.

    ``folders``: setting -> directory. ``spaces``: name in innodb_data_file_path -> file, wherever it is. ``tables``: a
    name below ``data`` -> the file, or the directory of a schema, that stands elsewhere for it. ``logs``: setting ->
    path that numbers end.
    """

    data: str
    folders: Mapping[str, str] = field(default_factory=dict)
    spaces: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)

    def log_files(self) -> dict[str, list[str]]:
        """Setting -> its log's files as they are now, the index last: one may have begun since."""
        return {setting: sorted(map(str, _siblings(Path(base)))) for setting, base in self.logs.items()}

    def all(self) -> tuple[str, ...]:
        """Every path but those that lie below another."""
        logs = [file for found in self.log_files().values() for file in found]
        found: list[str] = [self.data]
        for path in sorted({*self.folders.values(), *self.spaces.values(), *self.tables.values(), *logs}):
            if not any(within(path, other) for other in found):
                found.append(path)
        return tuple(found)


def within(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or lies below it; both without links."""
    return path == folder or path.startswith(f"{folder}/")


def find(variables: Mapping[str, str], ask: Ask) -> Places:
    """Where the server with these VARIABLES has its files.

    Raises:
        OSError: its data directory cannot be read here.
        QuiesceError: from ``ask``.
    """
    data = os.path.realpath(variables["datadir"])
    folders = {name: os.path.realpath(Path(data) / variables[name]) for name in FOLDERS if variables.get(name)}
    tables = _linked(Path(data))
    known = {*tables.values()}
    for path in _tablespaces(ask):
        if path not in known:
            tables[f"{Path(path).parent.name}/{Path(path).name}"] = path
    logs = {name: os.path.realpath(variables[told]) for name, told in LOGS.items() if variables.get(told)}
    spaces = _system_tablespaces(variables, data)
    return Places(data, _outside(folders, data), spaces, _outside(tables, data), _outside(logs, data))


def _outside(found: Mapping[str, str], data: str) -> dict[str, str]:
    return {name: path for name, path in found.items() if not within(path, data)}


def _siblings(base: Path) -> list[Path]:
    """BASE.000001 and on, BASE.index, and MariaDB's BASE.state."""
    return [path for path in base.parent.glob("*") if path.name.startswith(f"{base.name}.")]


def _system_tablespaces(variables: Mapping[str, str], data: str) -> dict[str, str]:
    """innodb_data_file_path: NAME:SIZE[:autoextend[:max:SIZE]];... below innodb_data_home_dir, or absolute."""
    home = Path(data) / variables.get("innodb_data_home_dir", "")
    names = [entry.split(":")[0] for entry in variables.get("innodb_data_file_path", "").split(";") if entry]
    return {name: os.path.realpath(home / name) for name in names}


def _tablespaces(ask: Ask) -> list[str]:
    """The absolute ones among the paths of InnoDB's files; those below the data directory are told as relative."""
    views = ", ".join(repr(name) for name in TABLESPACES)
    told = ask(
        "select lower(concat(table_name, '.', column_name)) from information_schema.columns"
        f" where table_schema = 'information_schema' and lower(concat(table_name, '.', column_name)) in ({views})"
    )
    known = {row[0] for row in told}
    found: list[str] = []
    for view, _, column in (name.partition(".") for name in TABLESPACES if name in known):
        rows = ask(
            f"select {column} from information_schema.{view} where {column} like '/%.ibd' or {column} like '/%.ibu'"
        )
        found += [os.path.realpath(row[0]) for row in rows]
    return found


def _linked(data: Path) -> dict[str, str]:
    """Where symbolic links and LINK files in the data directory and its schemas lead, by what they stand for."""
    found = {}
    folders = [data]
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = os.path.relpath(entry.path, data)
                if entry.is_symlink() and Path(entry.path).exists():
                    found[name] = os.path.realpath(entry.path)
                elif entry.name.endswith(LINK) and entry.is_file():
                    place = Path(entry.path).read_text("utf-8", "surrogateescape").strip()
                    found[f"{name.removesuffix(LINK)}.ibd"] = os.path.realpath(place)
                if folder == data and entry.is_dir():
                    folders.append(Path(entry.path))
    return found
