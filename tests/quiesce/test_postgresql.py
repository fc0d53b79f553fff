"""postgresql: the hot backup state goes on for writers, ends with its redo, and with the session that began it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel.errors import QuiesceError, UsageError
from splitreel.quiesce.postgresql import Postgresql
from tests.postgres import Server, recover, running


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
    quiescer.close()
    quiescer.close()
    assert "START WAL LOCATION" in redo["backup_label"].decode()
    recover(folder / "data", redo)
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


def test_recycled_wal_is_noticed(server: Server) -> None:
    quiescer = quiescer_of(server)
    quiescer.prepare()
    with pytest.raises(QuiesceError, match="no longer there"):
        quiescer._wal("000000010000000000000000", "000000010000000000000001")
    quiescer.close()


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
