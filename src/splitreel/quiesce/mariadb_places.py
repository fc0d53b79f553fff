"""mariadb_places finds where a MariaDB or MySQL server keeps its files, by asking it and by looking. It locks nothing.

What lies below the data directory needs no entry of its own; what does not, has one: InnoDB's and Aria's logs, undo
and system tablespaces, tables with DATA DIRECTORY, the binary log. Left out are temporary files and the error log.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLES = (
    *("datadir", "innodb_data_home_dir", "innodb_data_file_path", "innodb_log_group_home_dir", "innodb_undo_directory"),
    *("innodb_doublewrite_dir", "aria_log_dir_path", "rocksdb_datadir", "rocksdb_wal_dir"),
    *("log_bin", "log_bin_basename", "log_bin_index", "relay_log_basename", "relay_log_index"),
    *("lower_case_table_names", "innodb_page_size", "innodb_checksum_algorithm", "server_id", "server_uuid"),
)
FOLDERS = (
    *("innodb_log_group_home_dir", "innodb_undo_directory", "innodb_doublewrite_dir", "aria_log_dir_path"),
    *("rocksdb_datadir", "rocksdb_wal_dir"),
)
# view.column that holds the paths of InnoDB's files, the newest first; which of them a version has is asked
TABLESPACES = ("files.file_name", "innodb_sys_tablespaces.filename", "innodb_sys_datafiles.path")
LINK = ".isl"  # MariaDB, and MySQL before 8: a file that holds the path of a table's tablespace elsewhere

Ask = Callable[[str], list[list[str]]]


@dataclass(frozen=True)
class Places:
    """Absolute paths: the data directory, other directories that are the server's as a whole, and single files."""

    data: str
    directories: tuple[str, ...]
    files: tuple[str, ...]
    logs: tuple[str, ...]  # basenames of binary and relay logs that lie elsewhere

    def all(self) -> tuple[str, ...]:
        """Every path; logs as they are now, for one may have begun since."""
        found = {str(path) for name in self.logs for path in Path(name).parent.glob(Path(name).name + ".*")}
        return (self.data, *self.directories, *self.files, *sorted(found))


def find(variables: Mapping[str, str], ask: Ask) -> Places:
    """Where the server with these VARIABLES has its files.

    Raises:
        OSError: its data directory cannot be read here.
        QuiesceError: from ``ask``.
    """
    data = os.path.realpath(variables["datadir"])
    folders = [_absolute(variables[name], data) for name in FOLDERS if variables.get(name)]
    files = [*_system_tablespaces(variables, data), *_tablespaces(ask, data), *_linked(Path(data))]
    logs = [variables.get(name, "") for name in ("log_bin_basename", "relay_log_basename")]
    files += [path for name in ("log_bin_index", "relay_log_index") if (path := variables.get(name, ""))]
    directories = _outside(folders, [data])
    return Places(
        data,
        directories,
        _outside([os.path.realpath(path) for path in files if Path(path).exists()], [data, *directories]),
        _outside([_absolute(name, data) for name in logs if name], [data]),
    )


def _absolute(path: str, data: str) -> str:
    return os.path.realpath(Path(data) / path)


def _outside(paths: list[str], folders: list[str]) -> tuple[str, ...]:
    """Those that lie below none of the folders, once each, and not below one another."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if not any(path == folder or path.startswith(f"{folder}/") for folder in (*folders, *found)):
            found.append(path)
    return tuple(found)


def _system_tablespaces(variables: Mapping[str, str], data: str) -> list[str]:
    """innodb_data_file_path: NAME:SIZE[:autoextend[:max:SIZE]];... below innodb_data_home_dir, or absolute."""
    home = variables.get("innodb_data_home_dir", "")
    names = [entry.split(":")[0] for entry in variables.get("innodb_data_file_path", "").split(";") if entry]
    return [str(Path(data) / home / name) for name in names]


def _tablespaces(ask: Ask, data: str) -> list[str]:
    views = ", ".join(repr(name) for name in TABLESPACES)
    told = ask(
        "select lower(concat(table_name, '.', column_name)) from information_schema.columns"
        f" where table_schema = 'information_schema' and lower(concat(table_name, '.', column_name)) in ({views})"
    )
    known = {row[0] for row in told}
    found: list[str] = []
    for view, _, column in (name.partition(".") for name in TABLESPACES if name in known):
        rows = ask(f"select {column} from information_schema.{view} where {column} like '/%'")
        found += [row[0] for row in rows]
    return [path for path in found if not path.startswith(f"{data}/")]


def _linked(data: Path) -> list[str]:
    """Where symbolic links and LINK files in the data directory and its schemas lead."""
    found = []
    folders = [data]
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    found.append(os.path.realpath(entry.path))
                if folder == data and entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.name.endswith(LINK) and entry.is_file():
                    found.append(Path(entry.path).read_text("utf-8", "surrogateescape").strip())
    return found
