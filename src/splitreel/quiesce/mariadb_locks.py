"""mariadb_locks chooses the statements that hold a MariaDB or MySQL server, by version and mode. It sends none.

What was measured on MariaDB 10.11 stands beside each mode; sources: MariaDB, "BACKUP STAGE" and "Storage Snapshots and
BACKUP STAGE Commands"; MySQL 8.0 manual, 15.3.5 "LOCK INSTANCE FOR BACKUP" and 15.7.8.3 "FLUSH".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MODES = ("backup-stage", "ftwrl", "lock-instance", "freeze")
FIRST_STAGES = (10, 4, 1)  # BACKUP STAGE
FIRST_TIMEOUT = (10, 1, 1)  # max_statement_time, which ends a wait for a lock after a part of a second
FIRST_INSTANCE = (8, 0, 0)  # LOCK INSTANCE FOR BACKUP
FIRST_BINARY_LOG_STATUS = (8, 2, 0)  # MySQL's new word for SHOW MASTER STATUS

FTWRL = "flush tables with read lock"
READERS = frozenset(("select", "show", "with", "explain", "describe", "desc", "set", "use", "do", "kill", "values"))
WRITERS = frozenset(("insert", "update", "delete", "replace", "load", "lock", "call", "execute"))
DEFINERS = frozenset(("create", "alter", "drop", "rename", "truncate", "optimize", "repair", "analyze"))
WORD = re.compile(r"(?:\s|\(|/\*.*?\*/|(?:--\s|#)[^\n]*\n)*([A-Za-z]+)", re.DOTALL)  # after comments and parentheses


@dataclass(frozen=True)
class Server:
    """What the choice depends on; ``unsafe``: tables outside the system's schemas that do not recover by themselves."""

    engine: str
    version: tuple[int, ...]
    unsafe: int

    @property
    def is_mariadb(self) -> bool:
        """MariaDB, not MySQL."""
        return self.engine == "mariadb"


@dataclass(frozen=True)
class Locks:
    """How a server is held. ``early`` keeps no writer waiting; the window begins with the first of ``hold``."""

    mode: str
    early: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    commits_held: bool = False  # then the position in the binary log is the copy's

    def waits_for(self, word: str, server: Server, *, unsafe_in_use: bool) -> bool:
        """Whether ``hold``, or a statement of ``early``, waits for a running statement that begins with ``word``.

        Measured: FLUSH TABLES WITH READ LOCK waits for every running change, whatever the engine, and all other
        writers queue behind it; on MariaDB not for a SELECT. BACKUP STAGE waits for a change of a table that is not
        crash-safe, for CREATE ... SELECT, not for one of InnoDB's, not for ALTER, not for a rollback.
        """
        if FTWRL in self.hold:
            return not server.is_mariadb or word not in READERS
        if self.mode == "backup-stage":
            return word == "create" or (unsafe_in_use and word in WRITERS)
        return self.mode == "lock-instance" and word in DEFINERS


def choose(server: Server, mode: str = "") -> Locks:
    """The statements for ``mode``, or for the best that the server's version has.

    Raises:
        ValueError: this server cannot be held so; the text says why.
    """
    mode = mode or _best(server)
    if mode == "backup-stage":
        if not server.is_mariadb or server.version < FIRST_STAGES:
            raise ValueError("BACKUP STAGE needs MariaDB 10.4.1 or later")
        return _stages(server)
    if mode == "lock-instance":
        if server.is_mariadb or server.version < FIRST_INSTANCE:
            raise ValueError("LOCK INSTANCE FOR BACKUP needs MySQL 8.0 or later")
        return _instance(server)
    if mode == "freeze":
        if server.unsafe:
            raise ValueError("a copy under a freeze alone damages tables that are not crash-safe")
        return Locks("freeze")
    return Locks("ftwrl", (), (FTWRL,), ("unlock tables",), commits_held=True)


def _best(server: Server) -> str:
    if server.is_mariadb:
        return "backup-stage" if server.version >= FIRST_STAGES else "ftwrl"
    return "lock-instance" if server.version >= FIRST_INSTANCE else "ftwrl"


def _stages(server: Server) -> Locks:
    """START keeps nobody waiting. FLUSH keeps writers of tables that are not crash-safe waiting (MyISAM, CSV, Aria with
    TRANSACTIONAL=0), no others, 10 ms for 1000 of them: where there are none it belongs before the window.

    BLOCK_COMMIT goes through the stages that were not asked for: one statement, one limit on its time.
    """
    early = ("backup stage start",) if server.unsafe else ("backup stage start", "backup stage flush")
    return Locks("backup-stage", early, ("backup stage block_commit",), ("backup stage end",), commits_held=True)


def _instance(server: Server) -> Locks:
    """The instance lock lets changes of data go on: it is no quiesce, what makes the copy one is the freeze with it.

    Tables that do not recover by themselves need FLUSH TABLES WITH READ LOCK as well.
    """
    lock, unlock = "lock instance for backup", "unlock instance"
    if server.unsafe:
        return Locks("lock-instance", (), (lock, FTWRL), ("unlock tables", unlock), commits_held=True)
    return Locks("lock-instance", (), (lock,), (unlock,))


def position(server: Server) -> str:
    """The statement whose first row begins with the binary log's file and position."""
    renamed = not server.is_mariadb and server.version >= FIRST_BINARY_LOG_STATUS
    return "show binary log status" if renamed else "show master status"


def first_word(statement: str) -> str:
    """The word a statement begins with, in lower case, comments and parentheses before it left out."""
    match = WORD.match(statement)
    return match[1].lower() if match else ""


def parse_version(text: str) -> tuple[str, tuple[int, ...]]:
    """The engine and the three numbers of what ``select version()`` gives, as 10.11.6-MariaDB-log or 8.0.36.

    Raises:
        ValueError: it begins with no version.
    """
    text = text.removeprefix("5.5.5-")  # some MariaDB servers before 11 put it before their own
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise ValueError(f"{text!r} is no version")
    return ("mariadb" if "mariadb" in text.lower() else "mysql"), tuple(map(int, match.groups()))


def ends_waits(server: Server) -> bool:
    """Whether the server itself ends a wait for a lock after a part of a second, by max_statement_time."""
    return server.is_mariadb and server.version >= FIRST_TIMEOUT


def bounds(server: Server, seconds: float) -> Sequence[str]:
    """Settings after which no single lock is waited for longer than ``seconds``; whole ones where it must be so."""
    whole = f"set session lock_wait_timeout = {max(1, -int(-seconds // 1))}"
    if ends_waits(server):
        return (whole, f"set session max_statement_time = {max(0.001, seconds):.3f}")
    return (whole,)


def unbound(server: Server) -> Sequence[str]:
    """What takes the limit on a statement's time off again."""
    return ("set session max_statement_time = 0",) if ends_waits(server) else ()
