"""mysql: which locks a version gets, and which statements reach it, by a double of its client program.

No MySQL server is in Debian: what one answers is written down here after its manual, and no more is shown by it.
"""

import json
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from splitreel.errors import QuiesceError
from splitreel.quiesce import mariadb_locks
from splitreel.quiesce.mariadb import Mariadb, Mysql
from splitreel.quiesce.mariadb_locks import FTWRL, Server

# Reads statements, answers by the first key that one begins with, notes all; "error", "hang" and "die" act.
DOUBLE = """#!{python} -IS
import json, sys, time
script, notes = {script!r}, {notes!r}
answers = json.load(open(script))
for line in sys.stdin:
    statement = line.strip().rstrip(";")
    if statement.startswith("select 'splitreel "):
        print(statement.split("'")[1], flush=True)
        continue
    open(notes, "a").write(statement + "\\n")
    for part in statement.split("; "):
        rows = next((rows for key, rows in answers.items() if part.startswith(key)), [])
        if rows == "hang":
            time.sleep(60)
        if isinstance(rows, str):
            sys.exit(sys.stderr.write(rows + "\\n"))
        for row in rows:
            print("\\t".join(row))
"""


class Double:
    """A mysql and a mariadb on the PATH that answer from a script."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, **changes: Any) -> None:
        self.folder, self.notes = folder, folder / "notes"
        (folder / "data").mkdir()
        variables = [["datadir", f"{folder}/data/"], ["log_bin", "ON"], ["log_bin_basename", f"{folder}/data/binlog"]]
        self.answers: dict[str, Any] = {
            "select version()": [[version]],
            "select count(*), coalesce": [["0", "0"]],
            "select table_schema": [],
            "show global variables": variables,
            "select lower": [["files.file_name"]],
            "select get_lock": [["1"]],
            "select is_used_lock": [[""]],
            "select coalesce(is_used_lock": [[""]],
            "select id": [],
            "show master status": [["binlog.000003", "157", "", "", "3e11fa47-71ca:1-5,\\n9c2-1:1"]],
            "show binary log status": [["binlog.000004", "158", "", "", ""]],
            "select @@global.gtid_binlog_pos": [["0-1-5"]],
            **changes,
        }
        (folder / "script").write_text(json.dumps(self.answers))
        for name in ("mysql", "mariadb"):
            text = DOUBLE.format(python=sys.executable, script=str(folder / "script"), notes=str(self.notes))
            (folder / name).write_text(text)
            (folder / name).chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def asked(self) -> list[str]:
        return self.notes.read_text().splitlines()


ISAM = [["shop", "old", "MyISAM", "Dynamic", ""]]


def window(quiescer: Mariadb, double: Double) -> tuple[list[str], list[str], Any]:
    """A whole window; what was asked before it and in it, and the facts."""
    quiescer.prepare()
    before = double.asked()
    quiescer.quiesce()
    facts = quiescer.discover().facts
    quiescer.unquiesce()
    quiescer.redo()
    quiescer.close()
    return before, double.asked()[len(before) :], facts


def test_mysql_8_is_held_by_the_instance_lock_alone_when_all_is_innodb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Double(tmp_path, monkeypatch, "8.0.36")
    before, within, facts = window(Mysql(lock_wait_s=0.5), double)
    assert "set session lock_wait_timeout = 1" in before
    assert not any("max_statement_time" in statement for statement in (*before, *within))
    assert within[1:] == ["set session lock_wait_timeout = 1; lock instance for backup", "unlock instance"]
    assert facts["mode"] == "lock-instance"
    assert facts["binlog"] is None  # changes of data go on: no position is the copy's


def test_mysql_8_with_other_tables_is_held_by_a_read_lock_too_and_tells_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Double(tmp_path, monkeypatch, "8.0.36", **{"select table_schema": ISAM})
    _, within, facts = window(Mysql(), double)
    statements = [part for statement in within[1:] for part in statement.split("; ") if not part.startswith("set ")]
    assert statements == [
        *("lock instance for backup", FTWRL, "flush no_write_to_binlog engine logs", "show master status"),
        *("unlock tables", "unlock instance"),
    ]
    assert facts["binlog"] == {"file": "binlog.000003", "position": 157, "gtid": "3e11fa47-71ca:1-5,9c2-1:1"}
    assert facts["non_innodb_tables"] == 1


def test_mysql_8_4_is_asked_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = Double(tmp_path, monkeypatch, "8.4.3", **{"select table_schema": ISAM})
    _, within, facts = window(Mysql(), double)
    assert any("show binary log status" in statement for statement in within)
    assert not any("show master status" in statement for statement in within)
    assert facts["binlog"] == {"file": "binlog.000004", "position": 158, "gtid": ""}


def test_an_old_mariadb_is_held_by_a_read_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = Double(tmp_path, monkeypatch, "5.5.5-10.3.39-MariaDB-log")
    _, within, facts = window(Mariadb(), double)
    assert [statement.split("; ")[-1] for statement in within if FTWRL in statement] == [FTWRL]
    assert "unlock tables" in within
    assert facts["mode"] == "ftwrl"
    assert facts["binlog"]["gtid"] == "0-1-5"


def test_mysql_is_not_locked_while_a_select_runs_that_the_read_lock_would_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = [["17", "9", "/* report */ (select secret from shop.account)"]]
    Double(tmp_path, monkeypatch, "8.0.36", **{"select table_schema": ISAM, "select id": running})
    quiescer = Mysql(quiet_timeout_s=0)
    with pytest.raises(QuiesceError, match="connection 17 has been running SELECT for 9 s") as caught:
        quiescer.prepare()
    quiescer.close()
    assert "secret" not in "".join(caught.value.lines())


def test_a_server_that_does_not_answer_is_given_up_in_time_and_its_client_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Double(tmp_path, monkeypatch, "8.0.36", **{"lock instance": "hang"})
    quiescer = Mysql(lock_wait_s=0.3)
    quiescer.prepare()
    start = time.monotonic()
    with pytest.raises(QuiesceError, match=r"no answer within 0\.3 s to lock instance for backup"):
        quiescer.quiesce()
    quiescer.unquiesce()
    quiescer.close()
    assert time.monotonic() - start < 20


def test_a_server_that_refuses_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "ERROR 1227 (42000) at line 9: Access denied; you need (at least one of) the BACKUP_ADMIN privilege(s)"
    Double(tmp_path, monkeypatch, "8.0.36", **{"lock instance": refusal})
    quiescer = Mysql()
    quiescer.prepare()
    with pytest.raises(QuiesceError, match=r"BACKUP_ADMIN privilege\(s\) \(error 1227\)") as caught:
        quiescer.quiesce()
    quiescer.unquiesce()
    quiescer.close()
    assert "Grant" in caught.value.advice


@pytest.mark.parametrize(
    ("engine", "version", "unsafe", "mode"),
    [
        ("mariadb", (10, 4, 1), 0, "backup-stage"),
        ("mariadb", (11, 8, 2), 3, "backup-stage"),
        ("mariadb", (10, 4, 0), 0, "ftwrl"),
        ("mariadb", (10, 3, 39), 0, "ftwrl"),
        ("mysql", (5, 7, 44), 0, "ftwrl"),
        ("mysql", (8, 0, 11), 0, "lock-instance"),
        ("mysql", (9, 1, 0), 2, "lock-instance"),
    ],
)
def test_the_mode_goes_by_the_version(engine: str, version: tuple[int, ...], unsafe: int, mode: str) -> None:
    assert mariadb_locks.choose(Server(engine, version, unsafe)).mode == mode


@pytest.mark.parametrize(
    ("engine", "version", "unsafe", "mode"),
    [
        ("mariadb", (10, 4, 0), 0, "backup-stage"),
        ("mysql", (8, 4, 0), 0, "backup-stage"),
        ("mariadb", (11, 4, 0), 0, "lock-instance"),
        ("mysql", (5, 7, 44), 0, "lock-instance"),
        ("mysql", (8, 4, 0), 1, "freeze"),
        ("mariadb", (11, 4, 0), 1, "freeze"),
    ],
)
def test_a_mode_that_the_server_lacks_or_that_damages_tables_is_refused(
    engine: str, version: tuple[int, ...], unsafe: int, mode: str
) -> None:
    with pytest.raises(ValueError, match=r"needs|damages"):
        mariadb_locks.choose(Server(engine, version, unsafe), mode)


@pytest.mark.parametrize(
    ("text", "engine", "version"),
    [
        ("10.11.6-MariaDB-0+deb12u1-log", "mariadb", (10, 11, 6)),
        ("5.5.5-10.1.48-MariaDB", "mariadb", (10, 1, 48)),
        ("8.0.36-0ubuntu0.22.04.1", "mysql", (8, 0, 36)),
        ("8.4.3", "mysql", (8, 4, 3)),
    ],
)
def test_versions_are_read(text: str, engine: str, version: tuple[int, ...]) -> None:
    assert mariadb_locks.parse_version(text) == (engine, version)


def test_every_lock_that_is_taken_is_given_back() -> None:
    for engine, version in (
        ("mariadb", (10, 11, 6)),
        ("mariadb", (10, 2, 0)),
        ("mysql", (8, 4, 0)),
        ("mysql", (5, 7, 0)),
    ):
        for unsafe in (0, 1):
            locks = mariadb_locks.choose(Server(engine, version, unsafe))
            taken = (*locks.early, *locks.hold)
            assert (FTWRL in taken) == ("unlock tables" in locks.release)
            assert ("lock instance for backup" in taken) == ("unlock instance" in locks.release)
            assert any("backup stage" in statement for statement in taken) == ("backup stage end" in locks.release)


@pytest.mark.parametrize(
    ("statement", "word"),
    [("UPDATE t set a=1", "update"), ("/* x */ (SELECT 1)", "select"), ("-- c\n insert into t", "insert"), ("", "")],
)
def test_a_statements_first_word(statement: str, word: str) -> None:
    assert mariadb_locks.first_word(statement) == word


def test_whole_seconds_are_rounded_up_and_mariadb_gets_parts_of_them() -> None:
    assert mariadb_locks.bounds(Server("mysql", (8, 0, 36), 0), 0.2) == ("set session lock_wait_timeout = 1",)
    assert mariadb_locks.bounds(Server("mariadb", (10, 11, 6), 0), 1.5) == (
        "set session lock_wait_timeout = 2",
        "set session max_statement_time = 1.500",
    )
