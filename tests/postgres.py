"""postgres runs a PostgreSQL server of its own for a test, as the system user of that name."""

import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support import missing, need_root

USER = "postgres"


def binaries() -> Path:
    """Where initdb and postgres are; Debian keeps them off the PATH."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    if found is None:
        missing("needs postgresql")
    return Path(found).parent


def run(*command: str | Path) -> str:
    """A program as the system user postgres; its output."""
    done = subprocess.run(
        command, user=USER, group=USER, extra_groups=[], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Server:
    """A cluster in ``data``; socket and log in ``run``, which must lie on another file system than a frozen one."""

    def __init__(self, data: Path, folder: Path) -> None:
        need_root()
        if USER not in {entry.pw_name for entry in pwd.getpwall()}:
            missing("needs the system user postgres")
        self.data, self.folder, self.bin = data, folder, binaries()
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, USER, USER)
        self.conninfo = f"host={folder} dbname=postgres user=postgres"

    def create(self, *options: str | Path) -> None:
        self.data.mkdir()
        shutil.chown(self.data, USER, USER)
        self.data.chmod(0o700)
        run(self.bin / "initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "--data-checksums", "-N", *options)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("listen_addresses = ''\nlogging_collector = off\nwal_keep_size = '256MB'\n")

    def start(self) -> None:
        options = f"-k {self.folder}"
        run(self.bin / "pg_ctl", "-w", "-t", "60", "-D", self.data, "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        run(self.bin / "pg_ctl", "-w", "-m", "immediate", "-D", self.data, "stop")

    def query(self, statement: str) -> str:
        return run("psql", "-X", "-A", "-t", "-d", self.conninfo, "-c", statement).strip()


@contextmanager
def running(data: Path, folder: Path, *, new: bool = True) -> Iterator[Server]:
    """A server that runs in this context."""
    server = Server(data, folder)
    if new:
        server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def inserting(server: Server) -> Iterator[Callable[[], int]]:
    """A client that inserts 1, 2, 3... into table marker; yields how many were acknowledged."""
    server.query("create table marker (n bigint primary key)")
    command = ["psql", "-X", "-A", "-t", "-d", server.conninfo]
    client = subprocess.Popen(
        command, user=USER, group=USER, extra_groups=[], cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    stop, count = threading.Event(), [0]

    def work() -> None:
        assert client.stdin is not None
        assert client.stdout is not None
        while not stop.is_set():
            client.stdin.write(f"insert into marker values ({count[0] + 1}) returning n;\n".encode())
            client.stdin.flush()
            while client.stdout.readline().strip() != str(count[0] + 1).encode():
                pass
            count[0] += 1
            client.stdout.readline()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: count[0]
    finally:
        stop.set()
        thread.join(60)
        client.communicate()


def recover(data: Path, redo: Mapping[str, bytes | Path]) -> None:
    """What a person does after a restore: drop the old pid file, put the redo files in place."""
    (data / "postmaster.pid").unlink(missing_ok=True)
    if any(name.startswith("pg_wal/") for name in redo):
        shutil.rmtree(data / "pg_wal")
        (data / "pg_wal").mkdir(mode=0o700)
    for name, content in redo.items():
        (data / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    owner = pwd.getpwnam(USER)
    for path in [data / "pg_wal", *(data / name for name in redo)]:
        os.chown(path, owner.pw_uid, owner.pw_gid)
