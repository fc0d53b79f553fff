"""sqlite: no other process can write while it is held, whatever this process opens and closes."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from splitreel.errors import QuiesceError
from splitreel.quiesce import sqlite
from splitreel.quiesce.sqlite import Sqlite

WRITER = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=0.2, isolation_level=None)
try:
    c.execute("begin immediate"); c.execute("insert into t values (1)"); c.execute("commit"); print("WROTE")
except sqlite3.OperationalError as e:
    print(e)
"""


def database(folder: Path, mode: str) -> Path:
    path = folder / f"{mode} 100%?.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"pragma journal_mode={mode}")
        connection.execute("create table t (n int)")
        connection.commit()
    return path


def another_writes(path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_writers_are_kept_out_until_released(tmp_path: Path, mode: str) -> None:
    path = database(tmp_path, mode)
    quiescer = Sqlite(str(path))
    quiescer.check()
    quiescer.prepare()
    assert another_writes(path) == "WROTE"
    quiescer.quiesce()
    assert another_writes(path) == "database is locked"
    quiescer.unquiesce()
    assert another_writes(path) == "WROTE"
    quiescer.unquiesce()
    quiescer.close()
    quiescer.close()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_opening_and_closing_the_files_here_does_not_drop_the_lock(tmp_path: Path, mode: str) -> None:
    path = database(tmp_path, mode)
    quiescer = Sqlite(str(path))
    quiescer.prepare()
    quiescer.quiesce()
    for file in (*quiescer.discover().files, str(path) + "-shm"):
        if Path(file).exists():
            os.close(os.open(file, os.O_RDONLY))
    assert another_writes(path) == "database is locked"
    quiescer.unquiesce()
    quiescer.close()


def test_the_files_discovered_restore_what_was_committed(tmp_path: Path) -> None:
    path = database(tmp_path, "wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        quiescer = Sqlite(str(path))
        quiescer.prepare()
        connection.execute("insert into t values (42)")
        quiescer.quiesce()
        files = quiescer.discover().files
        assert [Path(file).name for file in files] == [path.name, path.name + "-wal"]
        (tmp_path / "copy").mkdir()
        for file in files:
            shutil.copy(file, tmp_path / "copy")
        quiescer.unquiesce()
        quiescer.close()
    with closing(sqlite3.connect(tmp_path / "copy" / path.name)) as copy:
        assert copy.execute("select n from t").fetchall() == [(42,)]
        assert copy.execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_watchdogs_kill_releases(tmp_path: Path, mode: str) -> None:
    path = database(tmp_path, mode)
    quiescer = Sqlite(str(path))
    quiescer.prepare()
    quiescer.quiesce()
    ((kind, pidfd),) = quiescer.releases()
    assert kind == "kill"
    assert isinstance(pidfd, int)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    quiescer.unquiesce()
    assert another_writes(path) == "WROTE"
    quiescer.close()


def test_a_long_writer_is_waited_for_only_so_long_and_then_left_alone(tmp_path: Path) -> None:
    path = database(tmp_path, "wal")
    quiescer = Sqlite(str(path), busy_timeout_ms=100)
    quiescer.prepare()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(QuiesceError, match="lock: database is locked"):
            quiescer.quiesce()
        other.execute("insert into t values (1)")
        other.execute("commit")
    quiescer.unquiesce()
    quiescer.close()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_bytes(b"not a database, but long enough to look at " * 50)
    quiescer = Sqlite(str(tmp_path / "no.db"))
    with pytest.raises(QuiesceError, match="not a database"):
        quiescer.prepare()
    quiescer.unquiesce()
    quiescer.close()
    with pytest.raises(QuiesceError, match="no such file"):
        Sqlite(str(tmp_path / "absent.db")).check()


def test_the_holder_ends_when_the_session_dies(tmp_path: Path) -> None:
    path = database(tmp_path, "delete")
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); from splitreel.quiesce.sqlite import Sqlite\n"
        "q = Sqlite(sys.argv[2]); q.prepare(); q.quiesce(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    source = str(Path(__file__).parents[2] / "src")
    died = subprocess.run([sys.executable, "-c", code, source, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert another_writes(path) == "WROTE"


MODES = ("delete", "truncate", "persist", "memory", "off", "wal")
BUSY = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
c.execute(f"pragma journal_mode={sys.argv[2]}"); c.execute("pragma synchronous=off")
c.execute("attach ? as other", sys.argv[3:]) if sys.argv[3:] else None
also = "insert into other.t values (1)" if sys.argv[3:] else "update pair set v = v + 1"
n = 0
while not sys.stdin.closed:
    c.execute("begin immediate")
    c.execute(also); c.execute("insert into t values (?)", (n,)); n += 1
    c.execute("commit")
    print(n, flush=True)
"""


def copied(files: tuple[str, ...], folder: Path) -> None:
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)


@pytest.mark.parametrize("mode", MODES)
def test_whatever_journal_writers_use_the_copy_is_between_transactions(tmp_path: Path, mode: str) -> None:
    """None is half in the copy, though writers without a journal are in the middle of one most of the time."""
    path = database(tmp_path, "wal" if mode == "wal" else "delete")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("create table pair (v int)")
        connection.execute("insert into pair values (0)")
        connection.execute("insert into pair values (0)")
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        for number in range(4):
            assert writer.stdout.readline()
            quiescer = Sqlite(str(path), busy_timeout_ms=20000)
            quiescer.prepare()
            quiescer.quiesce()
            found = quiescer.discover()
            copied(found.files, tmp_path / f"copy{number}")
            quiescer.unquiesce()
            quiescer.close()
            assert found.facts["journal_mode"] == ("wal" if mode == "wal" else "delete")
        writer.kill()
    for number in range(4):
        with closing(sqlite3.connect(tmp_path / f"copy{number}" / path.name)) as copy:
            assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
            (count,) = copy.execute("select count(*) from t").fetchone()
            assert copy.execute("select v from pair").fetchall() == [(count,), (count,)]


def test_transactions_over_attached_databases_are_whole_or_not_in_the_copies(tmp_path: Path) -> None:
    """With both held, none is between the commit of one and of the other; their super-journals are not needed."""
    paths = [database(tmp_path, "delete"), tmp_path / "second.db"]
    shutil.copy(paths[0], paths[1])
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(paths[0]), "delete", str(paths[1])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        for number in range(4):
            assert writer.stdout.readline()
            held = [Sqlite(str(path), busy_timeout_ms=20000) for path in paths]
            for quiescer in held:
                quiescer.prepare()
            for quiescer in held:
                quiescer.quiesce()
            copied(tuple(file for quiescer in held for file in quiescer.discover().files), tmp_path / f"copy{number}")
            for quiescer in reversed(held):
                quiescer.unquiesce()
                quiescer.close()
        writer.kill()
    for number in range(4):
        counts = []
        for path in paths:
            with closing(sqlite3.connect(tmp_path / f"copy{number}" / path.name)) as copy:
                counts.append(copy.execute("select count(*) from t").fetchone())
        assert counts[0] == counts[1] != (0,)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_that_a_connection_keeps_locked_is_refused_by_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    path = database(tmp_path, mode)
    monkeypatch.setattr(sqlite, "READ_SECONDS", 0.3)
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("pragma locking_mode=exclusive")
        owner.execute("insert into t values (1)")
        quiescer = Sqlite(str(path))
        with pytest.raises(QuiesceError, match="locking_mode=EXCLUSIVE"):
            quiescer.prepare()
        quiescer.unquiesce()
        quiescer.close()


def test_facts_say_what_a_restore_needs(tmp_path: Path) -> None:
    path = database(tmp_path, "wal")
    quiescer = Sqlite(str(path))
    quiescer.prepare()
    facts = quiescer.discover().facts
    quiescer.close()

    assert (facts["engine"], facts["name"], facts["data"]) == ("sqlite", path.stem, str(path))
    assert facts["journal_mode"] == "wal"
