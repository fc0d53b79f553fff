"""mariadbserver starts a throw-away MariaDB or MySQL server on restored data, checks it and stops it by its pid.

It listens on one socket in a directory of its own and nowhere else, asks nobody for a password, replicates nothing,
runs no event, loads no plugin that was installed by SQL, and reads no option file. Recovery, a new binary log and the
checks change the data as any start does. Its log, socket, pid file and temporary files are not with the data.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from splitreel.errors import IntegrityError, SplitreelError, UsageError
from splitreel.recovery import Check, Drill, files
from splitreel.recovery.files import Owner

START_SECONDS = 24 * 3600.0  # of recovery: it ends by itself, with the server or without
STOP_SECONDS = 300.0
CHECK_SECONDS = 24 * 3600.0
POLL_SECONDS = 0.05
PROBLEMS = 100
SERVERS = {"mariadb": ("mariadbd", "mysqld"), "mysql": ("mysqld",)}
CLIENTS = {"mariadb": ("mariadb", "mysql"), "mysql": ("mysql", "mariadb")}
CHECKERS = {"mariadb": ("mariadb-check", "mysqlcheck"), "mysql": ("mysqlcheck", "mariadb-check")}
OFF_PATH = "/usr/sbin:/usr/local/sbin:/usr/libexec"
# "loose": what another version does not know is passed over
FIXED = (
    *("--skip-networking", "--skip-grant-tables", "--loose-skip-slave-start", "--loose-skip-replica-start"),
    *("--loose-event-scheduler=DISABLED", "--loose-mysqlx=OFF", "--skip-name-resolve"),
    *("--innodb-buffer-pool-size=134217728", "--loose-innodb-buffer-pool-load-at-startup=OFF"),
    *("--loose-innodb-buffer-pool-dump-at-shutdown=OFF", "--max-connections=20"),
)


def drill(
    engine: str, version: tuple[int, int], settings: Mapping[str, str | None], owner: Owner | None, logs: Path
) -> Drill:
    """Start with these settings, wait for recovery, check every table, stop; see Recovery.drill."""
    with started(engine, version, settings, owner, logs) as server:
        told = server.query("select version()")
        check = server.check(logs)
    return Drill(told, server.recovery_seconds, (check,))


@contextmanager
def started(
    engine: str, version: tuple[int, int], settings: Mapping[str, str | None], owner: Owner | None, logs: Path
) -> Iterator["Server"]:
    """A throw-away server with these settings, recovered, for as long as the block runs. Raises as Recovery.drill."""
    program = _server(engine, version)
    who = _identity(owner)
    with tempfile.TemporaryDirectory(prefix="splitreel-drill-", dir="/tmp") as made:
        folder = Path(made)
        files.give(folder, owner)
        server = Server(engine, [*who, program], settings, folder, logs / f"{engine}.log")
        with server.running():
            yield server


def _server(engine: str, version: tuple[int, int]) -> str:
    """A server program of this version, which neither upgrades the data nor refuses them.

    Raises:
        SplitreelError: there is none on this machine.
    """
    wanted = ".".join(map(str, version))
    for name in SERVERS[engine]:
        for path in dict.fromkeys((shutil.which(name), shutil.which(name, path=OFF_PATH))):
            if path is not None:
                told = subprocess.run([path, "--no-defaults", "--version"], capture_output=True, text=True, check=False)
                found = re.search(r"Ver (\d+\.\d+)\.\d+(-MariaDB)?", told.stdout)
                if found and found[1] == wanted and bool(found[2]) == (engine == "mariadb"):
                    return path
    name = "MariaDB" if engine == "mariadb" else "MySQL"
    raise SplitreelError("drill", f"{name} {wanted} is not on this machine", "Install its server, or drill elsewhere.")


def _identity(owner: Owner | None) -> list[str]:
    """How to run a program as the owner; the server refuses root. setpriv execs, so signals reach it.

    Should this process be killed, the server is told to stop: nobody else knows of it.
    """
    command = ["setpriv", "--pdeathsig", "TERM"]
    if os.geteuid() != 0:
        return [*command, "--"] if shutil.which("setpriv") else []
    if owner is None or owner.uid == 0:
        raise UsageError("drill", "the server does not run as root", "Name the user with --owner.")
    return [*command, f"--reuid={owner.uid}", f"--regid={owner.gid}", "--clear-groups", "--"]


class Server:
    """A server, by its ``command``, with its socket in ``folder``."""

    def __init__(
        self, engine: str, command: list[str], settings: Mapping[str, str | None], folder: Path, log: Path
    ) -> None:
        self.engine, self.command, self.folder, self.log = engine, command, folder, log
        self.settings = settings
        self.recovery_seconds = 0.0
        self._what = f"drill of {settings['datadir']}"
        self._connection = ["--no-defaults", f"--socket={folder}/socket", "--user=root"]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it and wait until it has recovered; stop it by its pid, whatever happens.

        Raises:
            IntegrityError: it does not come up.
        """
        own = [f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid", f"--tmpdir={self.folder}"]
        given = [_option(name, value) for name, value in self.settings.items()]
        begun = time.monotonic()
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                [*self.command, "--no-defaults", *given, *own, *FIXED],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        try:
            self._await(process, begun + START_SECONDS)
            self.recovery_seconds = time.monotonic() - begun
            yield
        finally:
            _stop(process)

    def query(self, statement: str) -> str:
        """What a statement answers, without ornament.

        Raises:
            IntegrityError: it is refused.
        """
        done = self._ask(statement)
        if done.returncode != 0:
            raise IntegrityError(self._what, " ".join(done.stderr.split())[:500], f"See {self.log}.")
        return done.stdout.strip()

    def check(self, logs: Path) -> Check:
        """CHECK TABLE of every table, by the client that does so."""
        program = _program(CHECKERS[self.engine])
        begun = time.monotonic()
        done = subprocess.run(
            [program, *self._connection, "--all-databases", "--check"],
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            timeout=CHECK_SECONDS,
            check=False,
        )
        printed = f"{done.stdout}{done.stderr}"
        (logs / f"{Path(program).name}.log").write_text(printed)
        found = problems(printed) or ([f"it ended with {done.returncode}"] if done.returncode else [])
        return Check(Path(program).name, time.monotonic() - begun, tuple(found[:PROBLEMS]))

    def _ask(self, statement: str) -> "subprocess.CompletedProcess[str]":
        command = [_program(CLIENTS[self.engine]), *self._connection, "--batch", "--skip-column-names", "-e", statement]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", cwd="/", check=False)

    def _await(self, process: "subprocess.Popen[bytes]", until: float) -> None:
        """Wait until it answers: it listens when recovery has ended."""
        while self._ask("do 1").returncode != 0:
            if process.poll() is not None:
                raise IntegrityError(self._what, f"the server does not start: {self._why()}", f"See {self.log}.")
            if time.monotonic() > until:
                raise IntegrityError(self._what, "the server does not come up", f"See {self.log}.")
            time.sleep(POLL_SECONDS)

    def _why(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        told = [line for line in lines if "[ERROR]" in line] or lines
        return " ".join(told[:2])[:500] or "it says nothing"


def problems(printed: str) -> list[str]:
    """What mariadb-check found, a line each: a table whose answer is not on its own line has lines below it."""
    found, table = [], ""
    for line in printed.splitlines():
        kind, colon, text = line.partition(":")
        if colon and kind.strip().lower() == "error":
            found.append(f"{table}: {text.strip()}")
        elif not colon and line and not line.endswith(" OK"):
            table = line.strip()
    return found


def _option(name: str, value: str | None) -> str:
    return f"--{name.replace('_', '-')}" + ("" if value is None else f"={value}")


def _program(names: tuple[str, ...]) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    raise SplitreelError("drill", f"there is no program {names[0]}", "apt install mariadb-client")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """A clean shutdown, by its pid; one that does not end is killed."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
