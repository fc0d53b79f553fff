"""postgresql is a PostgreSQL server under load: writers that log their commits, and pgbench beside them."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from tests.postgres import USER, Server, run, running
from tests.sessions import commits

SCALE = 3  # of pgbench: 45 MB
SUMS = """select count(distinct s) from (select sum(abalance) s from pgbench_accounts
 union all select sum(bbalance) from pgbench_branches union all select sum(tbalance) from pgbench_tellers
 union all select coalesce(sum(delta), 0) from pgbench_history) t"""


class PostgresqlBench:
    """See Bench. The server keeps no more WAL than it must."""

    MODES = ("hot-backup", "freeze")
    REDO_MODES: ClassVar[frozenset[str]] = frozenset({"hot-backup"})
    WRITERS = 4

    def __init__(self, mount: Path, folder: Path, mode: str) -> None:
        self.mode = mode
        self.folder = folder
        self.logs = {writer: folder / f"writer{writer}.log" for writer in range(self.WRITERS)}
        self._server = Server(mount / "pgdata", folder / "run")

    def start(self) -> None:
        """A cluster with pgbench's tables and the writers'."""
        self._server.data.parent.chmod(0o755)
        self._server.create()
        with (self._server.data / "postgresql.conf").open("a") as file:
            file.write("wal_keep_size = 0\nmax_wal_size = '256MB'\n")
        self._server.start()
        run("pgbench", "-i", "-q", "-s", str(SCALE), self._server.conninfo)
        self._server.query("create table stamp (writer int, n bigint, begun bigint, primary key (writer, n))")

    @contextmanager
    def load(self) -> Iterator[None]:
        """The writers, and pgbench with two clients."""
        insert = "insert into stamp values ({writer}, {number}, {begun}) returning n;"
        client = [*self._as_user(), "psql", "-X", "-q", "-A", "-t", "-d", self._server.conninfo]
        command = [*self._as_user(), "pgbench", "-n", "-c", "2", "-T", "86400", self._server.conninfo]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd="/", **quiet) as pgbench:  # type: ignore[call-overload]
            try:
                with commits.writing(self.logs, insert, client, 0.002):
                    yield
            finally:
                pgbench.send_signal(signal.SIGINT)

    def _as_user(self) -> list[str]:
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]

    def quiescers(self) -> list[dict[str, Any]]:
        """The server, in this bench's mode."""
        return [{"type": "postgresql", "conninfo": self._server.conninfo, "run_as": USER, "mode": self.mode}]

    def rows(self, data: Path, folder: Path) -> dict[int, list[tuple[int, int]]]:
        """Of the restored cluster, whose pgbench sums must agree, too."""
        found: dict[int, list[tuple[int, int]]] = {}
        with running(data, folder, new=False) as server:
            assert server.query(SUMS) == "1", "pgbench's sums differ"
            for line in server.query("select writer, n, begun from stamp order by 1, 2").splitlines():
                writer, number, begun = map(int, line.split("|"))
                found.setdefault(writer, []).append((number, begun))
        shutil.rmtree(folder)
        return found

    def stop(self) -> None:
        """Stop the server."""
        if (self._server.data / "postmaster.pid").exists():
            self._server.stop()
