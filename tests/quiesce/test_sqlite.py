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
