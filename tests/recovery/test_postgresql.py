"""A PostgreSQL cluster on tape, with redo, becomes a data directory that starts and drills."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from splitreel import errors
from splitreel.__main__ import main
from splitreel.quiesce.postgresql import Postgresql
from tests.postgres import USER, Server, running
from tests.recovery.parts import names, session_json, split, to_tape
from tests.sessions.commits import wait_for
from tests.volumes import ext4_volume

pytestmark = pytest.mark.root


@contextmanager
def open_folder() -> Iterator[Path]:
    """A directory that the system user postgres can reach; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="splitreel-test-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def open_path() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@dataclass
class Taped:
    """A tape with a cluster that has a tablespace, with 1000 rows at the split and 10 more at the end of the backup."""

    url: str
    facts: dict[str, Any]
    redo: dict[str, bytes]
    image: Path
    state: Path


def cluster_on(mount: Path, folder: Path) -> Server:
    (mount / "ts").mkdir()
    shutil.chown(mount / "ts", USER, USER)
    mount.chmod(0o755)
    server = Server(mount / "pgdata", folder / "run")
    server.create()
    return server


@pytest.fixture(scope="module")
def taped(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Taped]:
    mode, tmp_path = request.param, tmp_path_factory.mktemp("taped")
    with open_folder() as open_path, ext4_volume(open_path, 256 << 20) as mount:
        server = cluster_on(mount, open_path)
        server.start()
        try:
            server.query(f"create tablespace far location '{mount}/ts'")
            server.query("create table t (n int primary key) tablespace far")
            server.query("insert into t select generate_series(1, 1000)")
            quiescer = Postgresql(conninfo=server.conninfo, run_as=USER, mode=mode)
            quiescer.prepare()
            facts = dict(quiescer.discover().facts)
            split(mount, open_path / "volume.img", tmp_path / "split.img")
            server.query("insert into t select generate_series(1001, 1010)")
            redo = {name: c if isinstance(c, bytes) else c.read_bytes() for name, c in quiescer.redo().items()}
            quiescer.close()
        finally:
            server.stop()
    redo["session.json"] = session_json(mount, facts)
    (tmp_path / "state").mkdir()
    url = to_tape(tmp_path / "split.img", tmp_path / "tape", redo, tmp_path / "state")
    yield Taped(url, facts, redo, tmp_path / "split.img", tmp_path / "state")


def restored(*arguments: object) -> int:
    return main(["restore", *map(str, arguments)])


@pytest.mark.parametrize("taped", ["hot-backup", "freeze"], indirect=True)
def test_what_is_laid_out_drills_and_starts(taped: Taped, open_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recovered to the stop record in hot-backup mode, to the split in freeze mode; whole by the tools' judgement."""
    target = open_path / "restored"

    assert restored("--database", target, "--drill", "--tape", taped.url, "--json") == errors.EXIT_DONE

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (database,) = [line for line in lines if line["kind"] == "database"]
    (drill,) = [line for line in lines if line["kind"] == "drill"]
    assert (database["problems"], database["data"], database["owner"]) == (0, str(target / "data"), USER)
    assert drill["ok"]
    assert [check["name"] for check in drill["checks"]] == ["pg_amcheck", "pg_checksums"]
    assert names(target) == ["data", "tablespaces"]
    with running(target / "data", open_path / "run2", new=False) as server:
        expected = "1010" if taped.facts["mode"] == "hot-backup" else "1000"
        assert server.query("select count(*) from t") == expected
        assert server.query("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'far'") == str(
            target / "tablespaces" / next(iter(taped.facts["tablespaces"]))
        )
        assert server.query("select count(*) from pg_extension where extname = 'amcheck'") == "0"


@pytest.mark.parametrize("taped", ["hot-backup"], indirect=True)
def test_a_tablespace_goes_where_it_is_asked_for_and_only_there(taped: Taped, open_path: Path) -> None:
    """From the catalog, without --tape; a directory that is not empty is refused before anything is read."""
    (oid, old), elsewhere = *taped.facts["tablespaces"].items(), open_path / "elsewhere"
    state = ("--state", taped.state)
    (open_path / "full").mkdir()
    (open_path / "full/file").touch()
    full = restored("--database", open_path / "no", "--tablespace", f"{old}={open_path}/full", *state)
    assert full == errors.EXIT_USAGE
    assert names(open_path / "full") == ["file"]

    done = restored("--database", open_path / "there", "--tablespace", f"{old}={elsewhere}", "--drill", *state)

    assert done == errors.EXIT_DONE
    assert (open_path / "there/data/pg_tblspc" / oid).readlink() == elsewhere
    assert names(open_path / "there") == ["data"]
    assert [name[:3] for name in names(elsewhere)] == ["PG_"]
    assert elsewhere.owner() == USER


@pytest.mark.parametrize("taped", ["hot-backup"], indirect=True)
def test_without_the_wal_that_makes_it_consistent_nothing_is_called_restored(
    taped: Taped, open_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    redo = {name: content for name, content in taped.redo.items() if not name.startswith("pg_wal/")}
    url = to_tape(taped.image, tmp_path / "without", redo)

    assert restored("--database", open_path / "there", "--tape", url) == errors.EXIT_DATA

    assert "no WAL" in capsys.readouterr().err
    assert not (open_path / "there/.splitreel-restore").exists()


@pytest.mark.parametrize("taped", ["hot-backup"], indirect=True)
def test_a_server_that_does_not_recover_fails_the_drill_with_its_own_words(
    taped: Taped, open_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last WAL file is empty: the stop record is missing."""
    wal = sorted(name for name in taped.redo if name.startswith("pg_wal/"))
    redo = taped.redo | {wal[-1]: bytes(len(taped.redo[wal[-1]]))}
    url = to_tape(taped.image, open_path / "tape", redo)

    assert restored("--database", open_path / "there", "--drill", "--tape", url) == errors.EXIT_DATA

    told = capsys.readouterr().err
    assert "does not start" in told
    logs = Path(told.split("See ")[1].split("/postgresql.log")[0])
    assert (logs / "postgresql.log").stat().st_size > 0
    shutil.rmtree(logs)


@pytest.mark.parametrize("taped", ["freeze"], indirect=True)
def test_a_drill_that_is_killed_leaves_no_server(taped: Taped, open_path: Path) -> None:
    """Nobody else knows of it, and it would keep the directory in use."""
    target, logs = open_path / "there", open_path / "logs"
    assert restored("--database", target, "--tape", taped.url) == errors.EXIT_DONE
    logs.mkdir()
    logs.chmod(0o755)
    code = (
        "import json, os, signal, sys; from pathlib import Path; from splitreel import recovery\n"
        "from splitreel.recovery import Layout, Owner, pgserver\n"
        "pgserver.SOCKETS = sys.argv[3]; pgserver._amcheck = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "facts, target, logs = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])\n"
        "layout = Layout(target, {facts['data']: target / 'data'}, target, Owner.of('postgres'))\n"
        "recovery.create(facts).drill(layout, logs)"
    )
    died = subprocess.run([sys.executable, "-c", code, json.dumps(taped.facts), target, logs], check=False)
    assert died.returncode == -signal.SIGKILL
    left = target / "data/postmaster.pid"
    wait_for(lambda: not left.exists() or ended(int(left.read_text().split()[0])), "the server goes on", 30)


def ended(pid: int) -> bool:
    """Gone, or waiting to be reaped by a PID 1 that does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("taped", ["hot-backup"], indirect=True)
def test_of_several_databases_each_is_given_its_own_redo(taped: Taped, open_path: Path) -> None:
    """Where two gave some, it is in a directory of the database's name; another's label would be its ruin."""
    name = taped.facts["name"]
    redo = {f"{name}/{key}": content for key, content in taped.redo.items() if key != "session.json"}
    redo |= {"other/backup_label": b"another's", f"other/pg_wal/{'0' * 24}": b"another's"}
    redo["session.json"] = taped.redo["session.json"]
    url = to_tape(taped.image, open_path / "tape", redo)

    assert restored("--database", open_path / "there", "--name", name, "--tape", url) == errors.EXIT_DONE

    assert (open_path / "there/data/backup_label").read_bytes() == taped.redo["backup_label"]
    wal = sorted(key.removeprefix("pg_wal/") for key in taped.redo if key.startswith("pg_wal/"))
    assert names(open_path / "there/data/pg_wal") == [*wal, "archive_status"]
