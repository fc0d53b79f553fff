"""pgserver starts a throw-away PostgreSQL server on a restored data directory, checks it and stops it by its pid.

It listens on one socket in a directory of its own and nowhere else, archives nothing, preloads nothing, and reads none
of the primary's configuration but postgresql.auto.conf, over which its command line wins. Recovery, and the extension
that the check needs for its time, change the data directory as any start does.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitreel.errors import IntegrityError, SplitreelError, UsageError
from splitreel.recovery import Check, Drill, files
from splitreel.recovery.files import Owner

HBA = "local all all peer\n"
HOME = "/usr/lib/postgresql"  # Debian's; elsewhere the programs are on the PATH
START_SECONDS = 24 * 3600.0  # of recovery: it ends by itself, with the server or without
STOP_SECONDS = 120.0
CHECK_SECONDS = 24 * 3600.0
POLL_SECONDS = 0.02
SOCKETS = "/tmp"  # a socket's path has 107 bytes at most, and the owner must get there: no directory of the user's
PROBLEMS = 100
SCHEMA = "splitreel_drill"
HAS_AMCHECK = "select count(*) from pg_extension where extname = 'amcheck'"
# pg_controldata's words -> settings that must be no smaller than on the primary, or the server refuses to recover
LIMITS = {"max_prepared_xacts": "max_prepared_transactions", "max_locks_per_xact": "max_locks_per_transaction"}
FIXED = {
    "listen_addresses": "",
    "port": "5432",
    "archive_mode": "off",
    "restore_command": "",
    "primary_conninfo": "",
    "shared_preload_libraries": "",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "logging_collector": "off",
    "log_destination": "stderr",
    "ssl": "off",
    "shared_buffers": "128MB",
    "huge_pages": "off",
    "max_connections": "20",
    "autovacuum": "off",
    "external_pid_file": "",
}


@dataclass(frozen=True)
class Settings:
    """What of a cluster's facts a server for it needs."""

    version: str
    checksums: bool
    superuser: str

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Settings":
        """From the entry of session.json. Raises IntegrityError."""
        version = files.text(facts, "version")
        if not re.match(r"\d{2}(\.|$|\D)", version):
            raise IntegrityError("reading session.json", f"version is {version!r:.60}")
        superuser = files.text(facts, "superuser") if facts.get("superuser") else "postgres"
        return cls(version, facts.get("data_checksums") is True, superuser)

    @property
    def major(self) -> str:
        """The version that data directory and programs must have in common."""
        return self.version[:2]


def binaries(major: str) -> Path:
    """Where the programs of this major version are.

    Raises:
        SplitreelError: they are not on this machine.
    """
    found = shutil.which("postgres")
    for folder in (Path(HOME) / major / "bin", *([Path(found).resolve().parent] if found else [])):
        program = folder / "postgres"
        if os.access(program, os.X_OK):
            told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            if re.search(rf"\) {major}\b", told):
                return folder
    raise SplitreelError(
        "drill", f"PostgreSQL {major} is not on this machine", f"apt install postgresql-{major}, or drill elsewhere."
    )


def drill(data: Path, settings: Settings, owner: Owner | None, logs: Path) -> Drill:
    """Start, wait for recovery, check by pg_amcheck, stop, check by pg_checksums; see Recovery.drill."""
    with started(data, settings, owner, logs) as server:
        version = server.query("show server_version")
        checks = _amcheck(server, logs)
    if settings.checksums:
        command = [*server.who, str(server.programs / "pg_checksums"), "--check", "-D", str(data)]
        checks.append(_check("pg_checksums", command, logs))
    return Drill(version, server.recovery_seconds, tuple(checks))


@contextmanager
def started(data: Path, settings: Settings, owner: Owner | None, logs: Path) -> Iterator["Server"]:
    """A throw-away server on ``data``, recovered, for as long as the block runs. Raises as Recovery.drill."""
    programs = binaries(settings.major)
    who = _identity(owner)
    with tempfile.TemporaryDirectory(prefix="splitreel-drill-", dir=SOCKETS) as made:
        folder = Path(made)
        files.give(folder, owner)
        server = Server(programs, data, folder, who, logs / "postgresql.log", settings.superuser)
        with server.running():
            yield server


def _identity(owner: Owner | None) -> list[str]:
    """How to run a program as the owner; PostgreSQL refuses root. setpriv execs, so signals reach the server.

    Should this process be killed, the server is told to stop at once: nobody else knows of it.
    """
    command = ["setpriv", "--pdeathsig", "QUIT"]
    if os.geteuid() != 0:
        return [*command, "--"] if shutil.which("setpriv") else []
    if owner is None or owner.uid == 0:
        raise UsageError("drill", "PostgreSQL does not run as root", "Name the user with --owner.")
    return [*command, f"--reuid={owner.uid}", f"--regid={owner.gid}", "--clear-groups", "--"]


class Server:
    """A server on ``data`` with its socket in ``folder``; ``who`` is what comes before a command to run it so."""

    def __init__(self, programs: Path, data: Path, folder: Path, who: list[str], log: Path, superuser: str) -> None:
        self.programs, self.data, self.folder, self.who, self.log = programs, data, folder, who, log
        self.connection = ["--host", str(folder), "--port", "5432", "--username", superuser]
        self.recovery_seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it and wait until it has recovered; stop it by its pid, whatever happens.

        Raises:
            IntegrityError: it does not come up.
        """
        begun = time.monotonic()
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                [*self.who, str(self.programs / "postgres"), "-D", str(self.data), *self._options()],
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

    def query(self, statement: str, database: str = "template1") -> str:
        """What a statement answers, as psql prints it without ornament.

        Raises:
            IntegrityError: it is refused.
        """
        command = [*self.who, str(self.programs / "psql"), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(
            [*command, *self.connection, "--dbname", database, "-c", statement],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        if done.returncode != 0:
            raise IntegrityError(f"drill of {self.data}", " ".join(done.stderr.split())[:500], f"See {self.log}.")
        return done.stdout.strip()

    def databases(self) -> list[str]:
        """Those that can be connected to."""
        return self.query("select datname from pg_database where datallowconn order by 1").splitlines()

    def _options(self) -> list[str]:
        for name, content in (("postgresql.conf", ""), ("pg_hba.conf", "local all all trust\n"), ("pg_ident.conf", "")):
            (self.folder / name).write_text(content)
            (self.folder / name).chmod(0o644)
        options = {
            **FIXED,
            **self._limits(),
            "unix_socket_directories": str(self.folder),
            "config_file": str(self.folder / "postgresql.conf"),
            "hba_file": str(self.folder / "pg_hba.conf"),
            "ident_file": str(self.folder / "pg_ident.conf"),
        }
        return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]

    def _limits(self) -> dict[str, str]:
        command = [*self.who, str(self.programs / "pg_controldata"), "-D", str(self.data)]
        told = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, env={"LC_ALL": "C"})
        found = re.findall(r"^(\w+) setting: +(\d+)$", told.stdout, re.MULTILINE)
        return {LIMITS[name]: value for name, value in found if name in LIMITS}

    def _await(self, process: "subprocess.Popen[bytes]", until: float) -> None:
        """Wait until it takes connections: from a primary it does when recovery has ended."""
        command = [*self.who, str(self.programs / "pg_isready"), "-q", *self.connection]
        while True:
            if process.poll() is not None:
                raise IntegrityError(f"drill of {self.data}", f"the server does not start: {self._why()}", self._see())
            if subprocess.run(command, cwd="/", check=False).returncode == 0:
                break
            if time.monotonic() > until:
                raise IntegrityError(f"drill of {self.data}", "the server does not come up", self._see())
            time.sleep(POLL_SECONDS)
        if self.query("select pg_is_in_recovery()") != "f":
            raise IntegrityError(f"drill of {self.data}", "the server stays in recovery", self._see())

    def _why(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        told = [line for line in lines if re.search("FATAL|PANIC|cannot|could not|not permitted", line)] or lines
        return " ".join(told[-2:])[:500] or "it says nothing"

    def _see(self) -> str:
        return f"See {self.log}."


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """A fast shutdown, which a later start need not recover from; an immediate one, and an end, if it takes long."""
    for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue


def _amcheck(server: Server, logs: Path) -> list[Check]:
    """Heap and B-tree indexes of all databases against each other; what the check needs is gone afterwards."""
    program = server.programs / "pg_amcheck"
    known = server.query("select count(*) from pg_available_extensions where name = 'amcheck'") == "1"
    if not os.access(program, os.X_OK) or not known:
        return []  # it came with PostgreSQL 14
    lacking = [name for name in server.databases() if server.query(HAS_AMCHECK, name) == "0"]
    for name in lacking:
        server.query(f"create schema {SCHEMA}; create extension amcheck with schema {SCHEMA}", name)
    command = [*server.who, str(program), *server.connection, "--all", "--heapallindexed"]
    check = _check("pg_amcheck", command, logs)
    for name in lacking:
        server.query(f"set client_min_messages = error; drop schema {SCHEMA} cascade", name)
    return [check]


def _check(name: str, command: list[str], logs: Path) -> Check:
    """Run a program that tells what it finds, and ends with 0 when it finds nothing."""
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=CHECK_SECONDS, check=False)
    seconds = time.monotonic() - begun
    printed = f"{done.stdout}{done.stderr}"
    (logs / f"{name}.log").write_text(printed)
    if done.returncode == 0:
        return Check(name, seconds)
    return Check(name, seconds, tuple(printed.splitlines()[:PROBLEMS]) or (f"it ended with {done.returncode}",))
