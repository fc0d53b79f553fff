"""mariadb holds a MariaDB or MySQL server by its own backup locks, waiting for none of them long. It freezes nothing.

Modes, chosen by version unless named: "backup-stage" (MariaDB 10.4.1 and later), "lock-instance" (MySQL 8 and later;
with FLUSH TABLES WITH READ LOCK where tables are not crash-safe), "ftwrl" (all others), "freeze" (no lock: the copy
recovers as after a power cut; refused where tables are not crash-safe). With every mode belongs an fsfreeze after it:
what is committed may still be in the page cache; "freeze" and "lock-instance" are no quiesce without it.

A lock that is waited for keeps other writers waiting behind it. So statements that would be waited for are looked for
before, and a wait ends after ``lock_wait_s``. Nothing is asked of the server once the file system is frozen.
"""

import contextlib
import time
from typing import Any, ClassVar

from splitreel.errors import QuiesceError
from splitreel.quiesce import Discovery, Release, mariadb_locks, mariadb_places
from splitreel.quiesce.mariadb_locks import Locks, Server
from splitreel.quiesce.mysqlclient import Client

ANSWER_SECONDS = 5.0
SLACK_SECONDS = 2.0  # where the server ends its waits itself: its message says what was waited for
POLL_SECONDS = 0.2
LOG_SECONDS = 2.0
LOG_POLL_SECONDS = 0.01
CLAIM = "splitreel"  # a lock of the server's by this name says who holds it for a backup
NAMED = 3

_TABLES = """select table_schema, table_name, engine, coalesce(row_format, ''), coalesce(create_options, '')
 from information_schema.tables where table_type = 'BASE TABLE' and engine is not null and engine <> 'InnoDB'
 and table_schema not in ('mysql', 'sys', 'information_schema', 'performance_schema')"""
_RUNNING = """select id, round({seconds}, 1), left(info, 200) from information_schema.processlist
 where command in ('Query', 'Execute') and info is not null and id <> connection_id() and {seconds} >= {limit}"""
_TRANSACTIONS = """select count(*), coalesce(max(timestampdiff(second, trx_started, now())), 0)
 from information_schema.innodb_trx where trx_rows_modified > 0"""
_STATUS = "show global status where variable_name in"
# engines with nothing on disk that changes, or nothing at all
HARMLESS = frozenset(("MEMORY", "BLACKHOLE", "FEDERATED", "SEQUENCE", "MRG_MyISAM", "PERFORMANCE_SCHEMA"))


class Mariadb:
    """A MariaDB server, by its client program."""

    engine: ClassVar[str] = "mariadb"
    programs: ClassVar[tuple[str, ...]] = ("mariadb", "mysql")
    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "defaults_file": ("path", False),
        "socket": ("path", False),
        "host": ("text", False),
        "port": ("integer", False),
        "user": ("text", False),
        "mode": ("|".join(mariadb_locks.MODES), False),
        "lock_wait_s": ("number", False),
        "statement_limit_s": ("number", False),
        "quiet_timeout_s": ("number", False),
        "timeout_s": ("number", False),
    }

    def __init__(
        self,
        defaults_file: str = "",
        socket: str = "",
        host: str = "",
        port: int = 0,
        user: str = "",
        mode: str = "",
        lock_wait_s: float = 1.0,
        statement_limit_s: float = 1.0,
        quiet_timeout_s: float = 60.0,
        timeout_s: float = 60.0,
    ) -> None:
        """``lock_wait_s``: for all locks together, so the longest that a writer waits before the window is given up.

        ``statement_limit_s``: one that has run for so long is not waited for; ``quiet_timeout_s``: how long to wait,
        before the window, until there is none; ``timeout_s`` bounds every other statement before the window.
        """
        given = {"defaults-file": defaults_file, "socket": socket, "host": host, "port": port, "user": user}
        self._options = [f"--{key}={value}" for key, value in given.items() if value]
        self.waiting = ""
        self.name = f"{self.engine} {socket or host or defaults_file or 'localhost'}"
        self._mode = mode
        self._lock_wait_s = lock_wait_s
        self._statement_limit_s = statement_limit_s
        self._quiet_timeout_s = quiet_timeout_s
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._server = Server(self.engine, (0, 0, 0), 0)
        self._locks = Locks("")
        self._unsafe: set[tuple[str, str]] = set()
        self._places = mariadb_places.Places("")
        self._facts: dict[str, Any] = {}
        self._writes_late = False
        self.waiting = ""
        self._held = False
        self._lost = ""

    def check(self) -> None:
        """The server answers, can be held in this mode, and has its files on this machine."""
        try:
            self._survey()
        finally:
            self.close()

    def prepare(self) -> None:
        """Find out all about the server, wait until no long statement is in the way, take what keeps nobody waiting."""
        self._survey()
        self._claim()
        self._await_quiet()
        for setting in mariadb_locks.bounds(self._server, self._lock_wait_s):
            self._ask(setting)
        for statement in self._locks.early:
            self.waiting = statement.upper()
            self._ask(statement, self._lock_wait_s + self._slack())
        self.waiting = ""

    def releases(self) -> list[Release]:
        """The end of the client: the server drops the locks of a connection that is gone."""
        return [("kill", self._client.pidfd)] if self._client is not None else []

    def frozen(self) -> list[str]:
        """None: readers go on."""
        return []

    def quiesce(self) -> int:
        """Look once more for what would be waited for, then lock; the position in the binary log is asked last."""
        if not self._locks.hold:
            return 0
        if blocker := self._blocker():
            raise QuiesceError(self.name, blocker, "Run it when no long statement does, or raise `statement_limit_s`.")
        self._held = True
        since = time.monotonic_ns()
        until = time.monotonic() + self._lock_wait_s
        for statement in self._locks.hold:
            left = max(0.001, until - time.monotonic())
            *_, limit = mariadb_locks.bounds(self._server, left)
            self._ask(f"{limit}; {statement}", left + self._slack())
        if self._locks.commits_held:
            rows = self._finish()
            self._await_log()
            self._record_position(rows)
        return since

    def discover(self) -> Discovery:
        """The server's directories and files, as they were told before; binary logs as they are.

        One instant in every mode: InnoDB goes on writing pages under its locks, and recovers only with the log to them.
        """
        self._facts["logs"] = self._places.log_files()
        return Discovery(self._places.all(), self._facts, together=True)

    def unquiesce(self) -> None:
        """Give the locks back; without an answer the client is ended instead, and ``redo`` says so."""
        if not self._held:
            return
        self._held = False
        try:
            for statement in self._locks.release:
                self._ask(statement, ANSWER_SECONDS)
        except QuiesceError as failure:
            self._lost = failure.why
            if self._client is not None:
                self._client.kill()

    def recover(self) -> str:
        """Nothing is left, as a rule: the locks ended with the session's client. One that still runs is ended."""
        try:
            self._open()
            holder = self._claimed()
            until = time.monotonic() + self._lock_wait_s + ANSWER_SECONDS
            while holder and time.monotonic() < until:
                time.sleep(POLL_SECONDS)
                holder = self._claimed()
            if holder:
                self._ask(f"kill {int(holder)}")
            return f"connection {holder} still held {self.name}; it was ended" if holder else ""
        except QuiesceError:
            return ""  # a server that does not answer holds nobody for us: the client has ended
        finally:
            self.close()

    def redo(self) -> dict[str, bytes]:
        """Nothing: the copy recovers from its own logs.

        Raises:
            QuiesceError: the connection was lost while it held the server: what was split meanwhile is no copy.
        """
        if self._lost:
            raise QuiesceError(
                self.name,
                f"its connection was lost while it held the server ({self._lost}): the split is not used",
                "Find out who ended it, then run the session again.",
            )
        return {}

    def close(self) -> None:
        """End the connection, and with it whatever it holds."""
        self.waiting = ""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, statement: str, seconds: float = 0.0) -> list[list[str]]:
        if self._client is None:
            raise QuiesceError(self.name, "there is no connection")
        return self._client.ask(statement, seconds or self._timeout_s)

    def _slack(self) -> float:
        return SLACK_SECONDS if mariadb_locks.ends_waits(self._server) else 0.0

    # What is found out before the window.

    def _open(self) -> tuple[str, tuple[int, ...]]:
        """Connect; returns engine and version."""
        self._client = Client(self.name, self.programs, self._options)
        ((text,),) = self._ask("select version()")
        try:
            engine, version = mariadb_locks.parse_version(text)
        except ValueError as error:
            raise QuiesceError(self.name, str(error)) from error
        self._facts = {"engine": engine, "version": text}
        return engine, version

    def _survey(self) -> None:
        """Version, mode, tables, places."""
        self.waiting = "the server's answers about its tables and files"
        engine, version = self._open()
        if engine != self.engine:
            text = self._facts["version"]
            raise QuiesceError(self.name, f"it is {text}", f'Write type = "{engine}" in the configuration.')
        self._ask("set session wait_timeout = 86400")
        ((_, oldest),) = self._ask(_TRANSACTIONS)  # refused without PROCESS, which the list of statements needs too
        tables = [row for row in self._ask(_TABLES) if row[2] not in HARMLESS]
        self._unsafe = {(row[0], row[1]) for row in tables if not is_crash_safe(*row[2:])}
        self._server = Server(engine, version, len(self._unsafe))
        self._choose()
        variables = dict(self._ask(_variables()))
        self._writes_late = engine == "mariadb" and variables.get("innodb_flush_log_at_trx_commit") == "0"
        self._find_places(variables)
        self._facts |= _facts(self._places, variables)
        self._facts |= {
            "mode": self._locks.mode,
            "non_innodb_tables": len(tables),
            "not_crash_safe": self._server.unsafe,
        }
        self._facts |= {"oldest_transaction_s": int(oldest), "binlog": None}

    def _choose(self) -> None:
        try:
            self._locks = mariadb_locks.choose(self._server, self._mode)
        except ValueError as error:
            some = ", ".join(".".join(name) for name in sorted(self._unsafe)[:NAMED])
            why = f"{error}: {some}" if self._mode == "freeze" else f"{error}; it is {self._facts['version']}"
            advice = "Leave `mode` out: it is then chosen by the server's version and tables."
            raise QuiesceError(f"{self.name}: mode {self._mode}", why, advice) from error

    def _find_places(self, variables: dict[str, str]) -> None:
        try:
            self._places = mariadb_places.find(variables, self._ask)
        except OSError as error:
            why = f"its data directory {variables['datadir']}: {error.strerror}"
            raise QuiesceError(self.name, why, "Run where the server runs, as root or as its user.") from error

    def _claim(self) -> None:
        """Say that a session holds this server: two would be in each other's way, and ``recover`` asks for it."""
        ((granted,),) = self._ask(f"select get_lock('{CLAIM}', 0)")
        if granted != "1":
            why = f"connection {self._claimed()} holds it for another session"
            raise QuiesceError(self.name, why, "Wait until that session has ended.")

    def _claimed(self) -> str:
        ((holder,),) = self._ask(f"select coalesce(is_used_lock('{CLAIM}'), '')")
        return holder

    def _await_quiet(self) -> None:
        until = time.monotonic() + self._quiet_timeout_s
        while blocker := self._blocker():
            if time.monotonic() > until:
                advice = "Run it when no long statement does, or raise `quiet_timeout_s`."
                raise QuiesceError(self.name, f"{blocker}, and did not end within {self._quiet_timeout_s:g} s", advice)
            self.waiting = f"a lock: {blocker}"
            time.sleep(POLL_SECONDS)
        self.waiting = ""

    def _blocker(self) -> str:
        """A statement that the locks would wait for and that has run for too long, or ""; nothing of its text."""
        if self._locks.mode == "freeze":
            return ""
        seconds = "time_ms / 1000" if self._server.is_mariadb else "time"
        running = self._ask(_RUNNING.format(seconds=seconds, limit=self._statement_limit_s))
        in_use = bool(running) and self._unsafe_in_use()
        for number, seconds, text in running:
            word = mariadb_locks.first_word(text)
            if self._locks.waits_for(word, self._server, unsafe_in_use=in_use):
                return f"connection {number} has been running {word.upper() or 'a statement'} for {seconds} s"
        return ""

    def _unsafe_in_use(self) -> bool:
        if not self._unsafe or self._locks.mode != "backup-stage":
            return False
        opened = {(row[0], row[1]) for row in self._ask("show open tables where in_use > 0")}
        return bool(opened & self._unsafe)

    # Within the window.

    def _await_log(self) -> None:
        """InnoDB's log is written out, so that the copy holds all that was acknowledged.

        With innodb_flush_log_at_trx_commit = 0 it is written once a second, and MariaDB's FLUSH ENGINE LOGS does
        nothing (measured on 10.11: a copy lacked 74 of 355 acknowledged rows): then that second is waited for.
        """
        if not self._writes_late:
            return
        until = time.monotonic() + LOG_SECONDS
        wanted, written = self._log_positions()
        while written < wanted:
            if time.monotonic() > until:
                why = f"InnoDB's log was not written within {LOG_SECONDS:g} s"
                raise QuiesceError(self.name, why, "Set innodb_flush_log_at_trx_commit to 1 or 2 for the backup.")
            time.sleep(LOG_POLL_SECONDS)
            written = self._log_positions()[1]

    def _log_positions(self) -> tuple[int, int]:
        """Where InnoDB's log ends, and up to where it is written."""
        told = self._ask(f"{_STATUS} ('Innodb_lsn_current', 'Innodb_lsn_flushed')", ANSWER_SECONDS)
        found = {name.lower(): int(value) for name, value in told}
        return found.get("innodb_lsn_current", 0), found.get("innodb_lsn_flushed", 0)

    def _finish(self) -> list[list[str]]:
        """What follows the locks, asked at once: each answer that is waited for is a part of the window."""
        statements = [*mariadb_locks.unbound(self._server), "flush no_write_to_binlog engine logs"]
        if self._facts["log_bin"]:
            statements.append(mariadb_locks.position(self._server))
            statements += ["select @@global.gtid_binlog_pos"] if self._server.is_mariadb else []
        return self._ask("; ".join(statements), ANSWER_SECONDS)

    def _record_position(self, rows: list[list[str]]) -> None:
        """Where the binary log ends: exact, since no commit ends now."""
        with contextlib.suppress(IndexError):
            gtid = rows[1][0] if self._server.is_mariadb else rows[0][4]
            self._facts["binlog"] = {"file": rows[0][0], "position": int(rows[0][1]), "gtid": gtid.replace("\n", "")}


class Mysql(Mariadb):
    """A MySQL server, by its client program or MariaDB's."""

    engine: ClassVar[str] = "mysql"
    programs: ClassVar[tuple[str, ...]] = ("mysql", "mariadb")


def is_crash_safe(engine: str, row_format: str, options: str) -> bool:
    """Whether such a table recovers from a copy of one instant: of those that are not InnoDB's, Aria's own default."""
    return engine == "Aria" and row_format == "Page" and "transactional=0" not in options.lower()


def _variables() -> str:
    names = ", ".join(f"'{name}'" for name in mariadb_places.VARIABLES)
    return f"show global variables where variable_name in ({names})"


def _facts(places: mariadb_places.Places, variables: dict[str, str]) -> dict[str, Any]:
    """What a restore has to know of the server's settings and places."""
    numbers = ("lower_case_table_names", "innodb_page_size", "server_id", "innodb_log_file_size")
    texts = ("innodb_data_file_path", "innodb_checksum_algorithm", "log_bin_basename", "relay_log_basename")
    others = ("innodb_log_files_in_group", "server_uuid")
    return {
        "data": places.data,
        "log_bin": variables.get("log_bin", "OFF") in ("ON", "1"),
        "directories": dict(places.folders),
        "spaces": dict(places.spaces),
        "tables": dict(places.tables),
        **{name: int(variables[name]) for name in numbers if variables.get(name, "").isdecimal()},
        **{name: variables[name] for name in (*texts, *others) if variables.get(name)},
    }
