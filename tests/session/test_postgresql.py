"""Sessions of a PostgreSQL server whose WAL and a tablespace are on another volume; and with its connection lost."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from splitreel import config, journal
from splitreel.__main__ import main
from splitreel.errors import QuiesceError, UsageError
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.session import Session
from tests.postgres import USER, Server, inserting, running
from tests.volumes import mirrored_volume

pytestmark = pytest.mark.root
LEAST = 20


@dataclass
class Cluster:
    """A server on two mirrored volumes, and a client that inserts 1, 2, 3... into a table in the tablespace."""

    folder: Path
    volumes: dict[str, EmbeddedMirror]
    server: Server
    count: Callable[[], int]

    def job(self, mode: str, frozen: tuple[str, ...] = ("data", "far"), tape: str = "null:") -> config.Job:
        volumes = [
            {"name": name, "mirror": volume.settings(), "mount": volume.mount_point}
            for name, volume in self.volumes.items()
        ]
        held = {"type": "postgresql", "conninfo": self.server.conninfo, "run_as": USER, "mode": mode}
        freezes = [{"type": "fsfreeze", "mount": self.volumes[name].mount_point} for name in frozen]
        table = {"tape": tape, "volumes": volumes, "quiesce": [held, *freezes], "overwrite": True}
        return config.parse({"job": {"nightly": table | {"deadline_ms": 30_000}}}).job()

    def goes_on(self) -> None:
        before = int(self.server.query("select max(n) from marker"))
        while int(self.server.query("select max(n) from marker")) < before + 3:
            pass


@contextmanager
def cluster_on(folder: Path, volumes: dict[str, EmbeddedMirror]) -> Iterator[Cluster]:
    data, far = (Path(volumes[name].mount_point) for name in ("data", "far"))
    server = Server(data / "pgdata", folder / "run")
    for place in (data, far):
        place.chmod(0o755)
    (far / "ts").mkdir()
    (far / "wal").mkdir()
    for name in ("ts", "wal"):
        shutil.chown(far / name, USER, USER)
    server.create("-X", far / "wal")
    server.start()
    try:
        server.query(f"create tablespace far location '{far}/ts'")
        server.query("alter database postgres set default_tablespace = far")
        with inserting(server) as count:
            while count() < LEAST:
                pass
            yield Cluster(folder, volumes, server, count)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="splitreel-test-", dir="/tmp"))
    folder.chmod(0o755)
    for name in ("data", "far"):
        (folder / name).mkdir()
    try:
        with (
            mirrored_volume(folder / "data", 256 << 20) as data,
            mirrored_volume(folder / "far", 512 << 20) as far,
            cluster_on(folder, {"data": data, "far": far}) as made,
        ):
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("mode", ["hot-backup", "freeze"])
def test_wal_and_a_tablespace_on_another_volume_come_back_with_the_data(
    cluster: Cluster, state: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In freeze mode the WAL directory itself, of the instant of the data; in hot-backup mode the WAL of the redo."""
    tape, target = f"file:{cluster.folder}/tape-{mode}", cluster.folder / f"restored-{mode}"
    before = cluster.count()
    Session(cluster.job(mode, tape=tape), state, lambda _: None).run()
    after = cluster.count() + 1
    capsys.readouterr()

    assert main(["restore", "--database", str(target), "--drill", "--tape", tape, "--json"]) == 0

    lines = {line["kind"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert lines["drill"]["ok"]
    assert sorted(path.name for path in target.iterdir()) == ["data", "tablespaces"]
    assert (target / "data/pg_wal").is_dir() and not (target / "data/pg_wal").is_symlink()
    with running(target / "data", cluster.folder / "run2", new=False) as server:
        count, last = map(int, server.query("select count(*), max(n) from marker").split("|"))
    assert count == last
    assert before <= last <= after


def test_a_freeze_that_leaves_the_wal_moving_is_refused(cluster: Cluster, state: Path) -> None:
    """Data of one instant with WAL of another is no copy; a hot backup needs no freeze."""
    for frozen in ((), ("data",)):
        with pytest.raises(UsageError, match=r"frozen|fsfreeze"):
            cluster.job("freeze", frozen=frozen)
    Session(cluster.job("hot-backup", frozen=()), state, lambda _: None).run()


@pytest.mark.parametrize(
    ("phase", "told"), [("map", ""), ("discover", "connection"), ("split", "connection"), ("check", "")]
)
def test_a_connection_lost_in_any_phase_lets_writers_go_on_and_spoils_only_what_it_began(
    cluster: Cluster, state: Path, phase: str, told: str
) -> None:
    """Before the backup and behind it nothing depends on it; within, there is no label, so there is no copy."""
    ended = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'splitreel'"

    class Losing(Session):
        def enter(self, name: str) -> None:
            if name == phase:
                cluster.server.query(ended)

    session = Losing(cluster.job("hot-backup"), state, lambda _: None)
    if told:
        with pytest.raises(QuiesceError, match=told):
            session.run()
    else:
        session.run()
    cluster.goes_on()
    assert all(history.finished for history in journal.histories(state))
    assert cluster.server.query("select count(*) from pg_replication_slots") == "0"
    assert not any(Path("/var/tmp").glob("splitreel-wal-*"))
