"""scenes are mirrored volumes with a database on each that somebody writes to, and the job that backs it up."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitreel.__main__ import main
from splitreel.mirror.embedded import EmbeddedMirror
from tests import mariadb, postgres
from tests.session.parts import make_database, transactions
from tests.volumes import mirrored_volume

DEADLINE_MS = 2000
FILLER_BYTES = 6 << 20  # several segments, so that some are confirmed before the last
SIZES = {"block_size": 65536, "segment_size": 2 << 20, "sync_segments": 1}


@dataclass
class Scene:
    """``count`` says how many commits were acknowledged; ``check`` complains of a copy that the tape gives back."""

    folder: Path
    embedded: EmbeddedMirror
    quiesce: list[dict[str, Any]]
    count: Callable[[], int]
    check: Callable[[str, Path], None]

    @property
    def mount(self) -> Path:
        """Where the volume is mounted."""
        return Path(self.embedded.mount_point)

    @property
    def tape(self) -> str:
        """The software drive."""
        return f"file:{self.folder / 'tape.tap'}"

    def configuration(self) -> Path:
        """The job in a file."""
        quiesce = [*self.quiesce, {"type": "fsfreeze", "mount": str(self.mount)}]
        job = {"tape": self.tape, "deadline_ms": DEADLINE_MS, "overwrite": True, **SIZES}
        lines = ["[job.kills]", *(f"{key} = {json.dumps(value)}" for key, value in job.items())]
        lines += ["[job.kills.mirror]", *_table(self.embedded.settings())]
        for entry in quiesce:
            lines += ["[[job.kills.quiesce]]", *_table(entry)]
        path = self.folder / "job.toml"
        path.write_text("\n".join(lines) + "\n")
        return path


def _table(entries: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in entries.items()]


def _drill(tape: str, folder: Path) -> None:
    """The database restored from the tape starts and is whole."""
    code = main(["restore", "--database", str(folder / "database"), "--drill", "--tape", tape, "--json"])
    assert code == 0, f"the drill ended with {code}"


@contextmanager
def files(folder: Path) -> Iterator[Scene]:
    """A file to which numbered lines are appended, each synced."""
    with _volume(folder) as embedded:
        log = Path(embedded.mount_point) / "log"
        with _appending(log) as count:

            def check(tape: str, folder: Path) -> None:
                assert main(["restore", "--to", str(folder / "copy"), "--tape", tape, "--json", "log"]) == 0
                lines = (folder / "copy" / "log").read_text().split()
                assert lines == [str(number) for number in range(1, len(lines) + 1)], "a line is missing or torn"

            yield Scene(folder, embedded, [], count, check)


@contextmanager
def _appending(log: Path) -> Iterator[Callable[[], int]]:
    stop, count = threading.Event(), [0]

    def work() -> None:
        with log.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"%d\n" % (count[0] + 1))
                os.fsync(file.fileno())
                count[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: count[0]
    finally:
        stop.set()
        thread.join(60)


@contextmanager
def sqlite(folder: Path) -> Iterator[Scene]:
    """A SQLite database in WAL mode."""
    with _volume(folder) as embedded:
        database = Path(embedded.mount_point) / "app.db"
        make_database(database)

        def check(tape: str, folder: Path) -> None:
            _drill(tape, folder)
            with closing(sqlite3.connect(folder / "database" / "app.db")) as copy:
                assert copy.execute("select sum(amount) from account").fetchone() == (100_000,)
                (rows, last) = copy.execute("select count(*), coalesce(max(n), 0) from log").fetchone()
                assert rows == last, "a transaction is missing"

        with transactions(embedded.mount_point) as count:
            yield Scene(folder, embedded, [{"type": "sqlite", "database": str(database)}], count, check)


@contextmanager
def _postgresql(folder: Path, mode: str) -> Iterator[Scene]:
    with _volume(folder, 512 << 20) as embedded:
        data = Path(embedded.mount_point) / "data"
        with postgres.running(data, folder / "run") as server, postgres.inserting(server) as count:
            settings = {"type": "postgresql", "conninfo": server.conninfo, "mode": mode}
            yield Scene(folder, embedded, [settings], count, _drill)


def postgresql(folder: Path) -> Any:
    """A PostgreSQL server in its hot backup state, frozen round the split."""
    return _postgresql(folder, "hot-backup")


def postgresql_freeze(folder: Path) -> Any:
    """A PostgreSQL server that is only frozen."""
    return _postgresql(folder, "freeze")


@contextmanager
def mariadb_stage(folder: Path) -> Iterator[Scene]:
    """A MariaDB server held by BACKUP STAGE."""
    with _volume(folder, 512 << 20) as embedded:
        data = Path(embedded.mount_point) / "data"
        with mariadb.started(data, folder / "run") as server:
            mariadb.fill(server)
            with mariadb.loaded(server) as load:
                settings = {"type": "mariadb", "socket": server.socket}
                yield Scene(folder, embedded, [settings], lambda: load.acknowledged, _drill)


@contextmanager
def _volume(folder: Path, size: int = 256 << 20) -> Iterator[EmbeddedMirror]:
    """A mirrored volume that holds something besides the database."""
    mariadb.open_to_all(folder)
    with mirrored_volume(folder, size) as embedded:
        (Path(embedded.mount_point) / "filler").write_bytes(os.urandom(FILLER_BYTES))
        yield embedded


SCENES: dict[str, Callable[[Path], Any]] = {
    "files": files,
    "sqlite": sqlite,
    "postgresql": postgresql,
    "postgresql-freeze": postgresql_freeze,
    "mariadb": mariadb_stage,
}
