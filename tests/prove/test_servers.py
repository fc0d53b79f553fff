"""Rows in real servers: what a restored cluster recovers to is one instant, and a row of another is named."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from splitreel import config
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.prove import rows
from splitreel.prove.proof import Options, Proof
from splitreel.prove.run import prove
from tests import mariadb, postgres
from tests.volumes import mirrored_volume

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that a server's own user can get through; pytest's own are closed to it."""
    made = Path(tempfile.mkdtemp(prefix="splitreel-test-", dir="/tmp"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def proof(folder: Path, embedded: EmbeddedMirror, database: dict[str, Any]) -> Proof:
    """One session and its proof."""
    quiescers = [database, {"type": "fsfreeze", "mount": embedded.mount_point}]
    table = {"tape": f"file:{folder}/t.tap", "mirror": embedded.settings(), "quiesce": quiescers, "deadline_ms": 60_000}
    job = config.parse({"job": {"proof": table}}).job()
    (folder / "scratch").mkdir(mode=0o711)
    return prove(job, Options(seconds=0, writers=1), state=folder / "state", scratch=folder / "scratch")


@pytest.mark.parametrize("mode", ["hot-backup", "freeze"])
def test_postgresql_recovers_to_one_instant(folder: Path, mode: str) -> None:
    """In hot backup that of its stop, with files at that of the split; when frozen one for both. Nothing is left."""
    (folder / "state").mkdir()
    with mirrored_volume(folder, 512 << 20) as embedded:
        mount = Path(embedded.mount_point)
        mount.chmod(0o755)
        with postgres.running(mount / "data", folder / "run") as server:
            settings = {"type": "postgresql", "conninfo": server.conninfo, "run_as": postgres.USER, "mode": mode}
            seen = proof(folder, embedded, settings)
            left = server.query(f"select count(*) from pg_tables where tablename = '{rows.TABLE}'")

    assert (seen.error, [str(finding) for one in seen.sessions for finding in one.findings]) == (None, [])
    assert seen.sessions[0].rows > 0
    assert seen.sessions[0].stamps > 2048
    assert left == "0"


def test_mariadb_recovers_to_one_instant(folder: Path) -> None:
    (folder / "state").mkdir()
    with mirrored_volume(folder, 512 << 20) as embedded:
        mount = Path(embedded.mount_point)
        mount.chmod(0o755)
        with mariadb.started(mount / "data", folder / "run") as server:
            seen = proof(folder, embedded, {"type": "mariadb", "socket": server.socket, "lock_wait_s": 10})
            left = server.query(f"select count(*) from information_schema.schemata where schema_name = '{rows.TABLE}'")

    assert (seen.error, [str(finding) for one in seen.sessions for finding in one.findings]) == (None, [])
    assert seen.sessions[0].rows > 0
    assert left == "0"


def test_a_writer_replaces_its_own_oldest_row(folder: Path) -> None:
    """By each server's client: as many rows as are kept, the last ones."""
    with postgres.running(folder / "data", folder / "run") as server:
        table = rows.table({"type": "postgresql", "conninfo": server.conninfo, "run_as": postgres.USER})
        table.create()
        with closing(table.connect()) as client:
            for number in range(5):
                client.commit(rows.Row(0, number, 1, rows.payload(0, number), 7), number % 3)
        held = server.query(f"select string_agg(number::text, ' ' order by number) from {rows.TABLE}")

    assert held == "2 3 4"


@pytest.mark.parametrize(
    ("settings", "instant"),
    [
        ({"type": "postgresql"}, (20, 30)),
        ({"type": "postgresql", "mode": "freeze"}, (10, 20)),
        ({"type": "mariadb", "mode": "backup-stage"}, (10, 20)),
        ({"type": "sqlite", "database": "/app.db"}, (10, 20)),
    ],
)
def test_a_hot_backup_is_of_its_stop_and_others_are_of_the_split(
    settings: dict[str, str], instant: tuple[int, int]
) -> None:
    """The window was from 10 to 20, redo had been taken at 30."""
    assert rows.table(settings).window((10, 20), 30) == instant
