"""PostgreSQL with its data on one mirrored volume and its WAL and a tablespace on another: what comes back starts."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from splitreel import config, session
from splitreel.__main__ import main
from splitreel.backup import Result
from splitreel.mirror.embedded import EmbeddedMirror
from tests.postgres import USER, Server, inserting, run, running
from tests.recovery.test_postgresql import open_folder
from tests.volumes import mirrored_volume

pytestmark = pytest.mark.root
NAMES = ("data", "wal")


@pytest.fixture
def pair() -> Iterator[dict[str, EmbeddedMirror]]:
    """Two mirrored volumes that another system user may enter, by name."""
    with ExitStack() as held:
        folders = [held.enter_context(open_folder()) for _ in NAMES]
        volumes = [held.enter_context(mirrored_volume(folder, 512 << 20)) for folder in folders]
        for volume in volumes:
            volume.directory.chmod(0o755)
            Path(volume.mount_point).chmod(0o755)
        yield dict(zip(NAMES, volumes, strict=True))


def cluster(pair: dict[str, EmbeddedMirror]) -> Server:
    """A cluster whose pg_wal is a link to the other volume, with a directory for a tablespace there."""
    data, other = (Path(volume.mount_point) for volume in pair.values())
    for name in ("pg_wal", "space"):
        (other / name).mkdir(mode=0o700)
        shutil.chown(other / name, USER, USER)
    server = Server(data / "pgdata", data.parent / "run")
    server.create()
    run("cp", "-a", f"{server.data}/pg_wal/.", other / "pg_wal")
    shutil.rmtree(server.data / "pg_wal")
    run("ln", "-s", other / "pg_wal", server.data / "pg_wal")
    return server


@pytest.mark.parametrize("mode", ["freeze", "hot-backup"])
def test_both_volumes_come_back_as_one_database(
    pair: dict[str, EmbeddedMirror], mode: str, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row acknowledged before the session is there, none is missing before the last; the drill finds nothing."""
    server, acknowledged = cluster(pair), [0]

    class Counting(session.Session):
        def enter(self, phase: str) -> None:
            if phase == "quiesce":
                acknowledged[0] = count()

    quiesce = [{"type": "postgresql", "conninfo": server.conninfo, "run_as": USER, "mode": mode}]
    quiesce += [{"type": "fsfreeze", "mount": volume.mount_point} for volume in reversed(pair.values())]
    volumes = [{"name": n, "mirror": v.settings(), "mount": v.mount_point} for n, v in pair.items()]
    job = config.parse({"job": {"pg": {"tape": f"file:{tmp_path}/tape", "quiesce": quiesce, "volumes": volumes}}}).job()
    with running(server.data, server.folder, new=False), inserting(server) as count:
        server.query(f"create tablespace far location '{pair['wal'].mount_point}/space'")
        server.query("create table t tablespace far as select generate_series(1, 1000) n")
        done = Counting(job, state, lambda event: None).run()
        at_end = count() + 1

    assert isinstance(done.backup, Result) and done.backup.complete
    with open_folder() as folder:
        to = folder / "restored"
        code = main(["--state", str(state), "restore", "--tape", job.tape, "--database", str(to), "--drill"])
        told = capsys.readouterr()
        assert code == 0, told
        with running(to / "data", folder / "run", new=False) as copy:
            rows, last = map(int, copy.query("select count(*), max(n) from marker").split("|"))
            assert copy.query("select count(*), max(n) from t") == "1000|1000"
    assert rows == last
    assert acknowledged[0] <= rows <= at_end
