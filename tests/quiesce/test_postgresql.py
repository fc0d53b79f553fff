"""postgresql: the hot backup state goes on for writers, ends with its redo, and with the session that began it."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitreel.errors import QuiesceError, UsageError
from splitreel.quiesce.postgresql import Postgresql, _configuration
from splitreel.quiesce.psql import Psql
from tests.postgres import Server, recover, run, running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    with running(folder / "data", folder / "run") as started:
        yield started
    shutil.rmtree(folder)


def quiescer_of(server: Server, **more: str) -> Postgresql:
    return Postgresql(conninfo=server.conninfo, run_as="postgres", **more)


@pytest.mark.parametrize(
    "conninfo", ["dbname=x password=hunter2", "postgresql://me:hunter2@host/db", "PassWord = hunter2"]
)
def test_a_password_in_the_configuration_is_refused_and_not_repeated(conninfo: str) -> None:
    with pytest.raises(UsageError, match="password") as caught:
        Postgresql(conninfo=conninfo)
    assert "hunter2" not in "".join(caught.value.lines())
    assert Postgresql(conninfo="postgresql://me@host/db?passfile=/x").name


def in_backup(server: Server) -> bool:
    # 15 shows no backup state to other sessions; but the session that is in it is still there.
    return (
        server.query(
            "select count(*) from pg_stat_activity where query like '%pg_backup_start%' and pid <> pg_backend_pid()"
        )
        != "0"
    )


def test_a_copy_taken_meanwhile_and_its_redo_make_a_server(server: Server, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    server.query("create table t (n int); insert into t values (1)")
    quiescer = quiescer_of(server)
    quiescer.check()
    quiescer.prepare()
    assert quiescer.quiesce() == 0
    server.query("insert into t values (2)")
    found = quiescer.discover()
    assert found.files == (str(server.data),)
    assert "/" in found.facts["start_lsn"]
    shutil.copytree(server.data, folder / "data", symlinks=True)
    shutil.chown(folder / "data", "postgres", "postgres")
    for path in (folder / "data").rglob("*"):
        shutil.chown(path, "postgres", "postgres")
    server.query("insert into t values (3)")
    quiescer.unquiesce()
    redo = quiescer.redo()
    assert quiescer.redo() == {}
    assert b"START WAL LOCATION" in redo["backup_label"]
    assert found.facts["stop_lsn"] > found.facts["start_lsn"]
    recover(folder / "data", redo)
    quiescer.close()
    quiescer.close()
    with running(folder / "data", folder / "run", new=False) as copy:
        assert copy.query("select count(*) >= 2 from t") == "t"
        assert copy.query("select sum(n) from t where n < 3") == "3"
    shutil.rmtree(folder)


def test_the_backup_state_ends_with_the_session_that_began_it(server: Server) -> None:
    quiescer = quiescer_of(server)
    quiescer.prepare()
    assert in_backup(server)
    quiescer.close()
    assert not in_backup(server)
    again = quiescer_of(server)
    again.prepare()
    again.close()


@pytest.fixture
def tight(server: Server) -> Iterator[Server]:
    """A server that recycles WAL as soon as it may."""
    settings = {"wal_keep_size": "0", "min_wal_size": "'32MB'", "max_wal_size": "'32MB'"}
    for name, value in settings.items():
        server.query(f"alter system set {name} = {value}")
    server.query("select pg_reload_conf()")
    yield server
    for name in settings:
        server.query(f"alter system reset {name}")
    server.query("select pg_reload_conf()")


def write_wal(server: Server, megabytes: int) -> None:
    """So much of it, in files of 16 MiB, and what may be recycled then is."""
    for _ in range(megabytes // 16):
        server.query("select pg_switch_wal(); select txid_current()")
    server.query("checkpoint")
    server.query("checkpoint")


def test_the_wal_of_the_backup_is_kept_by_a_slot_that_goes_with_it(tight: Server) -> None:
    quiescer = quiescer_of(tight)
    quiescer.check()
    quiescer.prepare()
    assert tight.query("select count(*) from pg_replication_slots where temporary") == "1"
    write_wal(tight, 128)

    redo = quiescer.redo()

    assert tight.query("select count(*) from pg_replication_slots") == "0"
    wal = [content for name, content in redo.items() if name.startswith("pg_wal/")]
    assert len(wal) >= 8
    write_wal(tight, 128)
    assert all(isinstance(path, Path) and path.stat().st_size == 16 << 20 for path in wal)
    quiescer.close()
    assert not any(isinstance(path, Path) and path.exists() for path in wal)


def test_wal_that_was_recycled_is_noticed(tight: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a slot, where nothing else keeps it: refused before the start; if it is gone at the end, an error."""
    monkeypatch.setattr(Postgresql, "_can_slot", lambda self: False)
    quiescer = quiescer_of(tight)
    with pytest.raises(QuiesceError, match="wal_keep_size is 0"):
        quiescer.check()
    quiescer.prepare()
    write_wal(tight, 256)
    with pytest.raises(QuiesceError, match="no longer there"):
        quiescer.redo()
    quiescer.close()
    assert not in_backup(tight)


def lose_connection(server: Server) -> None:
    ended = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'splitreel'"
    assert server.query(ended) == "t"


def test_a_session_that_was_lost_is_told_and_leaves_nothing(server: Server) -> None:
    """In the backup state the server has given it up; before, nothing was begun. Letting go is harmless either way."""
    quiescer = quiescer_of(server)
    quiescer.prepare()
    lose_connection(server)
    assert quiescer.quiesce() == 0
    quiescer.discover()
    quiescer.unquiesce()
    with pytest.raises(QuiesceError, match=r"terminating connection|closed the connection"):
        quiescer.redo()
    quiescer.unquiesce()
    quiescer.close()
    assert not in_backup(server)
    assert server.query("select count(*) from pg_replication_slots") == "0"


def test_a_server_that_ends_idle_sessions_does_not_end_this_one(server: Server) -> None:
    server.query("alter role postgres set idle_session_timeout = '300ms'")
    server.query("alter role postgres set statement_timeout = '2s'")
    quiescer = quiescer_of(server)
    try:
        quiescer.prepare()
        time.sleep(0.7)
        assert "backup_label" in quiescer.redo()
    finally:
        quiescer.close()
        server.query("alter role postgres reset all")


def test_facts_are_what_a_restore_and_page_checks_need(server: Server, tmp_path: Path) -> None:
    """Read off the control file by PostgreSQL's own tool; files of the configuration elsewhere come with their text."""
    hba = Path(server.query("show hba_file"))
    moved = server.folder / "elsewhere.conf"
    shutil.copy(hba, moved)
    quiescer = quiescer_of(server)
    quiescer._psql.open()
    quiescer.prepare()
    facts = dict(quiescer.discover().facts)
    quiescer.redo()
    quiescer.close()
    control = dict(
        line.split(":", 1) for line in run(server.bin / "pg_controldata", "-D", server.data).splitlines() if ":" in line
    )
    control = {key: value.strip() for key, value in control.items()}

    assert facts["engine"] == "postgresql"
    assert facts["system_identifier"] == control["Database system identifier"]
    assert facts["timeline"] == int(control["Latest checkpoint's TimeLineID"])
    assert facts["block_size"] == int(control["Database block size"])
    assert facts["wal_segment_size"] == int(control["Bytes per WAL segment"])
    assert facts["segment_size"] == int(control["Blocks per segment of large relation"]) * facts["block_size"]
    assert facts["data_checksums"] is (control["Data page checksum version"] != "0")
    assert (facts["data"], facts["wal"]) == (str(server.data), f"{server.data}/pg_wal")
    assert (facts["mode"], facts["owner"], facts["superuser"]) == ("hot-backup", "postgres", "postgres")
    assert facts["places"] == [str(server.data)]
    assert facts["configuration"] == {}
    assert json.loads(json.dumps(facts)) == facts
    assert _configuration(str(server.data), [str(moved), str(hba), "/nonexistent"]) == {str(moved): hba.read_text()}


def test_wal_left_by_a_killed_session_is_removed_and_no_other(server: Server, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (tmp_path / f"splitreel-wal-{pid}-x").mkdir()
    assert "1 backups" in quiescer_of(server, spool=str(tmp_path)).recover()
    assert [path.name for path in tmp_path.iterdir()] == [f"splitreel-wal-{os.getpid()}-x"]


@pytest.mark.parametrize(("version", "start"), [(130020, "pg_start_backup"), (140000, "pg_start_backup"), (150000, "")])
def test_functions_have_the_names_of_the_servers_version(
    server: Server, monkeypatch: pytest.MonkeyPatch, version: int, start: str
) -> None:
    """The old names with the arguments that mean not exclusive; without such a server: what would be asked."""
    asked: list[str] = []
    label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)"

    def ask(self: Psql, statement: str, seconds: float = 0) -> dict[str, Any]:
        asked.append(statement)
        if "server_version_num" in statement:
            return real(self, statement) | {"version_num": version}
        return {"lsn": "0/1", "label": label, "map": "", "last": "000000010000000000000002", "name": ""}

    real = Psql.ask
    monkeypatch.setattr(Psql, "ask", ask)
    monkeypatch.setattr(Postgresql, "_wal", lambda self, first, last: [])
    quiescer = quiescer_of(server)
    quiescer.prepare()
    quiescer.redo()
    quiescer.close()
    assert ("pg_start_backup('splitreel', true, false)" in "".join(asked)) == bool(start)
    assert ("pg_stop_backup(false, false)" in "".join(asked)) == bool(start)


def test_freeze_mode_checkpoints_and_gives_no_redo(server: Server) -> None:
    quiescer = quiescer_of(server, mode="freeze")
    quiescer.check()
    before = server.query("select checkpoint_lsn from pg_control_checkpoint()")
    server.query("create table if not exists u (n int); insert into u values (1)")
    quiescer.prepare()
    assert server.query("select checkpoint_lsn from pg_control_checkpoint()") != before
    assert not in_backup(server)
    assert quiescer.redo() == {}
    quiescer.close()


def test_what_does_not_answer_is_refused_with_the_servers_words(server: Server) -> None:
    with pytest.raises(QuiesceError, match="No such file or directory"):
        Postgresql(conninfo="host=/nonexistent", run_as="postgres").check()
    with pytest.raises(QuiesceError, match='database "nope" does not exist'):
        Postgresql(conninfo=server.conninfo.replace("dbname=postgres", "dbname=nope"), run_as="postgres").check()
    with pytest.raises(QuiesceError, match="nobody-at-all"):
        Postgresql(conninfo=server.conninfo, run_as="nobody-at-all").check()
