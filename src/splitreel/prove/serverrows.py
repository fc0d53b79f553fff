"""serverrows keeps our table in a PostgreSQL, MariaDB or MySQL server, by the server's own client. It judges no row.

The copy is laid out and started as ``restore --database --drill`` does, and asked by the same client.
"""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from splitreel.drive import open_drive
from splitreel.errors import IntegrityError
from splitreel.prove.rows import COLUMNS, TABLE, Client, Copy, OnTape, Row, Window
from splitreel.quiesce.mysqlclient import Client as MysqlClient
from splitreel.quiesce.psql import Psql
from splitreel.recovery.mariadb import MariadbRecovery
from splitreel.recovery.postgresql import PostgresqlRecovery
from splitreel.restore import Restored, Wishes, restore_database

ANSWER_SECONDS = 60.0
OPEN = 0o711  # directories that the server's own user must get through
READ = "writer, number, begun_ns, payload, crc32c"
TYPES = ("int", "int", "bigint", "bigint", "varchar(600)", "bigint")
_COLUMNS = ", ".join(f"{name} {kind} not null" for name, kind in zip(COLUMNS, TYPES, strict=True))


def _values(row: Row, place: int) -> str:
    """A row in SQL; its text has neither quote nor backslash."""
    return f"{row.writer}, {place}, {row.number}, {row.begun_ns}, '{row.payload}', {row.crc32c}"


class PostgresqlTable:
    """Our table in the database that ``conninfo`` names."""

    def __init__(self, conninfo: str = "dbname=postgres", run_as: str = "", mode: str = "hot-backup", **_: Any) -> None:
        self.name = f"postgresql {conninfo}"
        self._conninfo, self._run_as = conninfo, run_as
        self._hot = mode == "hot-backup"

    def size(self) -> int:
        """That of all databases of the server."""
        return int(self._ask("select json_build_object('it', sum(pg_database_size(oid))) from pg_database")["it"])

    def create(self) -> None:
        """Make it, anew where an interrupted proof left one."""
        self.drop()
        self._ask(f"create table {TABLE} ({_COLUMNS}, primary key (writer, place)); select '{{}}'")

    def drop(self) -> None:
        """Remove it."""
        self._ask(f"set client_min_messages = error; drop table if exists {TABLE}; select '{{}}'")

    def connect(self) -> Client:
        """A session of one writer's, in which each statement is a transaction."""
        return _PsqlClient(self._opened())

    def window(self, window: Window, released_ns: int) -> Window:
        """A hot backup is restored to where it was stopped: after the window, before its redo had been taken."""
        return (window[1], released_ns) if self._hot else window

    def read(self, tape: str, folder: Path, on_tape: OnTape) -> Copy:
        """The cluster, recovered by a server of its version."""
        database = str(self._ask("select json_build_object('it', current_database())")["it"])
        with _restored(tape, folder) as (restored, logs):
            assert isinstance(restored.recovery, PostgresqlRecovery)
            with restored.recovery.running(restored.layout, logs) as server:
                rows = f"json_agg(json_build_array({READ}) order by number)"
                found = json.loads(server.query(f"select coalesce({rows}, '[]') from {TABLE}", database))
        return Copy("ok", [Row(*row) for row in found])

    def _opened(self) -> Psql:
        psql = Psql(self.name, self._conninfo, self._run_as)
        psql.open()
        return psql

    def _ask(self, statement: str) -> dict[str, Any]:
        with closing(self._opened()) as psql:
            return psql.ask(statement, ANSWER_SECONDS)


class _PsqlClient:
    def __init__(self, psql: Psql) -> None:
        self._psql = psql
        self.close = psql.close
        columns = ", ".join(COLUMNS)
        renewed = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[2:])
        self._statement = (
            f"with done as (insert into {TABLE} ({columns}) values ({{}}) on conflict (writer, place) do update"
            f" set {renewed} returning number) select json_build_object('number', number) from done"
        )

    def commit(self, row: Row, place: int) -> None:
        self._psql.ask(self._statement.format(_values(row, place)), ANSWER_SECONDS)


class MariadbTable:
    """Our table, of InnoDB, in a schema of its own."""

    programs: ClassVar[tuple[str, ...]] = ("mariadb", "mysql")
    engine: ClassVar[str] = "mariadb"

    def __init__(
        self, defaults_file: str = "", socket: str = "", host: str = "", port: int = 0, user: str = "", **_: Any
    ) -> None:
        given = {"defaults-file": defaults_file, "socket": socket, "host": host, "port": port, "user": user}
        self._options = [f"--{key}={value}" for key, value in given.items() if value]
        self.name = f"{self.engine} {socket or host or defaults_file or 'localhost'}"

    def size(self) -> int:
        """That of all tables of the server, as it tells."""
        sizes = "coalesce(sum(data_length + index_length), 0)"
        return int(float(self._ask(f"select {sizes} from information_schema.tables")[0][0]))

    def create(self) -> None:
        """Make it, anew where an interrupted proof left one."""
        self.drop()
        self._ask(f"create schema {TABLE} character set ascii")
        self._ask(f"create table {TABLE}.{TABLE} ({_COLUMNS}, primary key (writer, place)) engine=InnoDB")

    def drop(self) -> None:
        """Remove it with its schema."""
        self._ask(f"drop schema if exists {TABLE}")

    def connect(self) -> Client:
        """A connection of one writer's, in which each statement is a transaction."""
        return _MysqlRows(self._opened())

    def window(self, window: Window, released_ns: int) -> Window:
        """The session's own: the copy recovers to what was committed at the split."""
        return window

    def read(self, tape: str, folder: Path, on_tape: OnTape) -> Copy:
        """The data directory, recovered by a server of its version."""
        with _restored(tape, folder) as (restored, logs):
            assert isinstance(restored.recovery, MariadbRecovery)
            with restored.recovery.running(restored.layout, logs) as server:
                told = server.query(f"select {READ} from {TABLE}.{TABLE} order by number")
        found = [line.split("\t") for line in told.splitlines()]
        return Copy("ok", [Row(int(w), int(n), int(at), text, int(crc)) for w, n, at, text, crc in found])

    def _opened(self) -> MysqlClient:
        return MysqlClient(self.name, self.programs, self._options)

    def _ask(self, statement: str) -> list[list[str]]:
        with closing(self._opened()) as client:
            return client.ask(statement, ANSWER_SECONDS)


class MysqlTable(MariadbTable):
    """The same in a MySQL server."""

    programs: ClassVar[tuple[str, ...]] = ("mysql", "mariadb")
    engine: ClassVar[str] = "mysql"


class _MysqlRows:
    def __init__(self, client: MysqlClient) -> None:
        self._client = client
        self.close = client.close
        self._statement = f"replace into {TABLE}.{TABLE} ({', '.join(COLUMNS)}) values ({{}})"

    def commit(self, row: Row, place: int) -> None:
        self._client.ask(self._statement.format(_values(row, place)), ANSWER_SECONDS)


@contextmanager
def _restored(tape: str, folder: Path) -> Iterator[tuple[Restored, Path]]:
    """The tape's only database below ``folder``, and a directory for logs."""
    folder.mkdir(parents=True)
    logs = folder / "logs"
    logs.mkdir()
    folder.chmod(OPEN)
    with open_drive(tape) as drive:
        restored = restore_database(drive, folder / "database", Wishes())
    if not restored.outcome.complete:
        path, why = restored.outcome.problems.listed[0]
        raise IntegrityError(f"restoring a database, {path.decode(errors='replace')}", why)
    yield restored, logs
