"""mariadb runs a MariaDB server of its own for a test, as the system user mysql, and clients that load it."""

import os
import pwd
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.support import missing, need_programs, need_root

T = TypeVar("T")
USER = "mysql"
START_SECONDS = 120.0
ACCOUNTS = 2000


class Server:
    """A server on ``data``; socket, log, pid file and tmpdir in ``folder``, which must not lie on what is frozen."""

    def __init__(self, data: Path, folder: Path, *options: str, file: Path | None = None) -> None:
        need_root()
        need_programs("mariadbd", "mariadb", "mariadb-install-db")
        if USER not in {entry.pw_name for entry in pwd.getpwall()}:
            missing("needs the system user mysql")
        self.data, self.folder, self.options, self.file = data, folder, options, file
        self.socket = str(folder / "socket")
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, USER, USER)
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        self.data.mkdir()
        shutil.chown(self.data, USER, USER)
        command = ["mariadb-install-db", "--no-defaults", f"--user={USER}", f"--datadir={self.data}", "--skip-test-db"]
        # its own: a server that starts removes whatever temporary tables there are, another's too
        command.append(f"--tmpdir={self.folder}")
        command += [option for option in self.options if any(word in option for word in ("-dir", "undo", "page-size"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        folder = self.folder
        where = [f"--datadir={self.data}", f"--socket={self.socket}", f"--pid-file={folder}/pid", f"--tmpdir={folder}"]
        where += ["--skip-networking", f"--log-error={folder}/log.err"]
        defaults = f"--defaults-file={self.file}" if self.file else "--no-defaults"
        small = ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--key-buffer-size=8M"]
        self._process = subprocess.Popen(
            ["mariadbd", defaults, *where, *small, *self.options],
            user=USER,
            group=USER,
            extra_groups=[],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            if subprocess.run([*self.client(), "-e", "do 1"], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError((folder / "log.err").read_text()[-3000:])

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def client(self) -> list[str]:
        return ["mariadb", "--no-defaults", f"--socket={self.socket}", "--batch", "--skip-column-names"]

    def query(self, statement: str) -> str:
        done = subprocess.run([*self.client(), "-e", statement], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextmanager
def started(data: Path, folder: Path, *options: str, new: bool = True, file: Path | None = None) -> Iterator[Server]:
    """A server that runs in this context; ``file``: its option file."""
    server = Server(data, folder, *options, file=file)
    if new:
        server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Client:
    """One connection; ``run`` waits for the answer, ``begin`` does not."""

    def __init__(self, server: Server) -> None:
        command = [*server.client(), "--unbuffered", "--skip-reconnect", "--database=shop"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, cwd="/"
        )

    def begin(self, statement: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{statement};\nselect 'done';\n".encode())

    def end(self) -> bool:
        """True when the statement succeeded; False when the server is gone or refused it."""
        assert self._process.stdout is not None
        return self._process.stdout.readline() == b"done\n"

    def run(self, statement: str) -> bool:
        try:
            self.begin(statement)
        except BrokenPipeError:
            return False
        return self.end()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def fill(server: Server) -> None:
    """Schema shop: accounts that sum up to a constant, markers in InnoDB, Aria and MyISAM."""
    server.query(
        "create database shop; use shop;"
        "create table account (id int primary key, amount bigint) engine=innodb;"
        f"insert into account select seq, 100 from seq_1_to_{ACCOUNTS};"
        "create table marker (n bigint primary key) engine=innodb;"
        "create table aria (n bigint primary key) engine=aria;"
        "create table isam (n bigint primary key, pad char(200)) engine=myisam;"
    )


@dataclass
class Load:
    """What the clients have had acknowledged, and the longest that one statement of the marker's client took."""

    acknowledged: int = 0
    begun: int = 0
    longest_s: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)


@contextmanager
def loaded(server: Server, *, isam: bool = True) -> Iterator[Load]:
    """Clients that move amounts, write to MyISAM, and insert 1, 2, 3... into ``marker`` one by one."""
    load = Load()

    def transfer(seed: int) -> None:
        places, client = random.Random(seed), Client(server)
        while not load.stop.is_set():
            first, second = sorted(places.sample(range(1, ACCOUNTS + 1), 2))
            client.run(
                f"begin; update account set amount = amount - 1 where id = {first};"
                f" update account set amount = amount + 1 where id = {second}; commit"
            )
            if isam:
                client.run(f"replace into isam values ({places.randrange(5000)}, repeat('x', 200))")
        client.close()

    def mark() -> None:
        client = Client(server)
        while not load.stop.is_set():
            load.begun += 1
            start = time.monotonic()
            if not client.run(f"insert into marker values ({load.begun}); insert into aria values ({load.begun})"):
                break
            load.longest_s = max(load.longest_s, time.monotonic() - start)
            load.acknowledged = load.begun
        client.close()

    threads = [threading.Thread(target=transfer, args=(seed,)) for seed in (1, 2)] + [threading.Thread(target=mark)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(60)


def wait_until(happened: Callable[[], T], seconds: float = 60.0) -> T:
    """What ``happened`` gives once that is true."""
    until = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
    return found


def open_to_all(folder: Path) -> Path:
    """A folder that the server's user can reach: pytest's are for their owner alone."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    return folder
