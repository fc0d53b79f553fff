"""mariadb_scene is a loaded MariaDB server on a mirrored volume, its sessions, and the judgement of what comes back."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitreel import config
from splitreel.drive import open_drive
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.recovery import Drill
from splitreel.restore import Wishes, restore_database
from splitreel.session import Session, SessionResult
from tests.mariadb import ACCOUNTS, Load, Server, fill, loaded, started
from tests.volumes import mirrored_volume

MODES = ("backup-stage", "ftwrl", "freeze")


@dataclass
class Scene:
    """A server under load; all that belongs to it is below ``folder``, which others may enter."""

    folder: Path
    embedded: EmbeddedMirror
    server: Server
    load: Load

    def job(self, mode: str, tape: str = "null:", deadline_ms: int = 30_000) -> config.Job:
        """A validated job: the server's own lock, then the freeze of its volume."""
        mount = self.embedded.mount_point
        patient = {"lock_wait_s": deadline_ms // 2000, "statement_limit_s": 10}
        quiesce = [
            {"type": "mariadb", "socket": self.server.socket, "mode": mode, **patient},
            {"type": "fsfreeze", "mount": mount},
        ]
        table = {"tape": tape, "mirror": self.embedded.settings(), "quiesce": quiesce, "deadline_ms": deadline_ms}
        return config.parse({"job": {"nightly": table}}).job()


@contextmanager
def scene(*options: str, isam: bool = True, size: int = 512 << 20) -> Iterator[Scene]:
    """``isam``: with a MyISAM table, which a freeze alone would damage; ``options`` are the server's."""
    folder = Path(tempfile.mkdtemp(prefix="splitreel-maria-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with mirrored_volume(folder, size) as embedded:
            mount = Path(embedded.mount_point)
            with started(mount / "data", folder / "run", "--log-bin=binlog", "--server-id=1", *options) as server:
                fill(server)
                if not isam:
                    server.query("drop table shop.isam")
                with loaded(server, isam=isam) as load:
                    yield Scene(folder, embedded, server, load)
    finally:
        shutil.rmtree(folder)


class Watched(Session):
    """A session that notes what the clients had had acknowledged when all was held, and begun at its end."""

    load: Load
    low = high = 0

    def enter(self, phase: str) -> None:
        if phase == "split":
            self.low = self.load.acknowledged
        if phase == "unquiesce":
            self.high = self.load.begun


@dataclass(frozen=True)
class Outcome:
    """One session, its drill, and the writers' longest wait meanwhile in ms."""

    result: SessionResult
    drill: Drill
    stall_ms: float
    facts: dict[str, Any]


def whole_session(scene: Scene, mode: str, number: int = 0) -> Outcome:
    """A session onto a tape, restored, drilled, judged, and all of it removed again."""
    state, tape = scene.folder / f"state{number}", scene.folder / f"tape{number}"
    target, logs = scene.folder / f"restored{number}", scene.folder / f"logs{number}"
    for folder in (state, logs):
        folder.mkdir()
    session = Watched(scene.job(mode, f"file:{tape}"), state, lambda _: None)
    session.load = scene.load
    scene.load.longest_s = 0.0
    result = session.run()
    stall_ms = scene.load.longest_s * 1000
    with open_drive(f"file:{tape}") as drive:
        done = restore_database(drive, target, Wishes())
    drill = done.recovery.drill(done.layout, logs)
    assert drill.ok, drill
    assert done.outcome.complete, done.outcome.problems.listed
    judge(target, scene.folder / f"again{number}", session.low, session.high)
    for path in (state, target, logs, scene.folder / f"again{number}"):
        shutil.rmtree(path)
    for path in scene.folder.glob(f"tape{number}*"):
        path.unlink()
    return Outcome(result, drill, stall_ms, dict(done.facts))


def judge(target: Path, folder: Path, low: int, high: int) -> None:
    """All that was acknowledged when all was held is there, and nothing that was begun after."""
    with started(target / "data", folder, "--log-bin=binlog", new=False) as server:
        assert server.query("select sum(amount) from shop.account") == str(100 * ACCOUNTS)
        count, last = map(int, server.query("select count(*), max(n) from shop.marker").split("\t"))
        assert count == last, "a marker is missing"
        assert low <= last <= high, f"{last} markers, {low} were acknowledged before, {high} begun"
        assert last - 1 <= int(server.query("select count(*) from shop.aria")) <= last
