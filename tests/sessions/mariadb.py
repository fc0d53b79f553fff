"""mariadb is a MariaDB server under load: writers that log their commits, and change InnoDB, Aria and MyISAM tables."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from tests.mariadb import Server, started
from tests.sessions import commits

ACCOUNTS = 1000  # for each writer, so that none waits for another's rows
AMOUNT = 100


class MariadbBench:
    """See Bench. In mode "freeze" there is no MyISAM table: a freeze alone would damage it, and it is refused."""

    MODES = ("backup-stage", "ftwrl", "freeze")
    REDO_MODES: ClassVar[frozenset[str]] = frozenset()
    WRITERS = 4

    def __init__(self, mount: Path, folder: Path, mode: str) -> None:
        self.mode = mode
        self.logs = {writer: folder / f"writer{writer}.log" for writer in range(self.WRITERS)}
        self._server = Server(mount / "data", folder / "run", "--log-bin=binlog", "--server-id=1", "--sync-binlog=1")

    def start(self) -> None:
        """A server with the writers' tables."""
        self._server.data.parent.chmod(0o755)
        self._server.create()
        self._server.start()
        self._server.query(
            "create database shop; use shop;"
            "create table stamp (writer int, n bigint, begun bigint, primary key (writer, n)) engine=innodb;"
            "create table account (id int primary key, amount bigint) engine=innodb;"
            f"insert into account select seq, {AMOUNT} from seq_0_to_{self.WRITERS * ACCOUNTS - 1};"
            "create table aria (n int primary key, pad char(200)) engine=aria;"
            + ("" if self.mode == "freeze" else "create table isam like aria; alter table isam engine=myisam;")
        )

    def load(self) -> AbstractContextManager[None]:
        """The writers: each moves an amount and stamps a row in one transaction."""
        one, other = (f"{{writer}} * {ACCOUNTS} + ({{number}} * {step}) % {ACCOUNTS}" for step in (1, 7))
        tables = ("aria",) if self.mode == "freeze" else ("aria", "isam")
        others = "".join(f"replace into {table} values ({{number}} % 5000, repeat('x', 200)); " for table in tables)
        statement = (
            f"{others}begin; update account set amount = amount - 1 where id = {one};"
            f" update account set amount = amount + 1 where id = {other};"
            " insert into stamp values ({writer}, {number}, {begun}); commit; select {number};"
        )
        client = [*self._server.client(), "--unbuffered", "--skip-reconnect", "--database=shop"]
        return commits.writing(self.logs, statement, client, 0.002)

    def quiescers(self) -> list[dict[str, Any]]:
        """The server, in this bench's mode."""
        return [{"type": "mariadb", "socket": self._server.socket, "mode": self.mode, "lock_wait_s": 4.0}]

    def rows(self, data: Path, folder: Path) -> dict[int, list[tuple[int, int]]]:
        """Of the restored server, whose accounts must sum up to what they did."""
        found: dict[int, list[tuple[int, int]]] = {}
        with started(data, folder, "--log-bin=binlog", new=False) as server:
            assert server.query("select sum(amount) from shop.account") == str(self.WRITERS * ACCOUNTS * AMOUNT)
            for line in server.query("select writer, n, begun from shop.stamp order by 1, 2").splitlines():
                writer, number, begun = map(int, line.split("\t"))
                found.setdefault(writer, []).append((number, begun))
        shutil.rmtree(folder)
        return found

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()
