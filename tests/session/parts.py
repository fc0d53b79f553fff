"""parts is what the session's tests share: a job over a mirrored volume, and a tape that keeps what it is given."""

import random
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from splitreel import config
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.pages import Checks
from splitreel.session import Session
from splitreel.session.tape import Tape


def make_database(path: Path, mode: str = "wal") -> None:
    """A database of a thousand accounts of 100 each, and an empty log."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"pragma journal_mode={mode}")
        connection.execute("create table account (id integer primary key, amount int)")
        connection.execute("create table log (n int)")
        connection.execute("begin")
        connection.executemany("insert into account values (?, 100)", [(number,) for number in range(1000)])
        connection.execute("commit")


@contextmanager
def transactions(mount_point: str, pause_s: float = 0.0) -> Iterator[Callable[[], int]]:
    """A thread moves amounts between the accounts of app.db; yields a count of acknowledged transactions."""
    stop, count = threading.Event(), [0]

    def work() -> None:
        connection = sqlite3.connect(f"{mount_point}/app.db", timeout=60, isolation_level=None, check_same_thread=False)
        places = random.Random(1)
        while not stop.is_set():
            connection.execute("begin immediate")
            connection.execute("update account set amount = amount - 1 where id = ?", (places.randrange(1000),))
            connection.execute("update account set amount = amount + 1 where id = ?", (places.randrange(1000),))
            connection.execute("insert into log select coalesce(max(n), 0) + 1 from log")
            connection.execute("commit")
            count[0] += 1
            stop.wait(pause_s)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: count[0]
    finally:
        stop.set()
        thread.join(60)


def job_of(embedded: EmbeddedMirror, tape: str, **changes: Any) -> config.Job:
    """A validated job: SQLite and the freeze of its volume, mirrored by the embedded mirror."""
    mount = embedded.mount_point
    table = {
        "tape": tape,
        "mirror": embedded.settings(),
        "quiesce": [
            {"type": "sqlite", "database": f"{mount}/app.db"},
            {"type": "fsfreeze", "mount": mount},
        ],
        **changes,
    }
    return config.parse({"job": {"nightly": table}}).job()


@dataclass
class Kept:
    """What was backed up: contents by path."""

    id: str = "kept"
    files: dict[bytes, bytes] = field(default_factory=dict, repr=False)


class KeepingTape(Tape):
    """Keeps the content of every file that it is asked to write."""

    def run(
        self,
        device: BlockDevice,
        source: ExtentMap,
        paths: Sequence[bytes],
        redo: Mapping[str, bytes | Path],
        window_ms: float,
        confirmed: Callable[[Mapping[str, Any]], None],
        progress: Callable[[Mapping[str, Any]], None] | None = None,
        verify: Callable[[], None] | None = None,
        checks: Checks | None = None,
    ) -> Kept:
        kept = Kept()
        files, extents, names = (np.asarray(c) for c in (source.files, source.extents, source.names))
        inside = tuple(path + b"/" for path in paths)
        for index, path in enumerate(source.paths()):
            file = files[names[index]["file"]]
            if not (
                stat.S_ISREG(int(file["mode"]))
                and (path in paths or path.startswith(inside) or b"" in paths or not paths)
            ):
                continue
            content = bytearray(int(file["size"]) + source.block_size)
            first = int(file["first_extent"])
            for extent in extents[first : first + int(file["extent_count"])]:
                start, length = int(extent["logical"]) * source.block_size, int(extent["count"]) * source.block_size
                content[start : start + length] = device.pread(int(extent["physical"]) * source.block_size, length)
            kept.files[path] = bytes(content[: int(file["size"])])
        return kept


class KeepingSession(Session):
    """A session onto a KeepingTape."""

    def tape(self) -> Tape:
        return KeepingTape(self.job, self.state)


def sound(files: Mapping[bytes, bytes], folder: Path) -> int:
    """Recover the database in ``files`` and check it; returns how many transactions it has."""
    folder.mkdir()
    for path, content in files.items():
        if path not in (b"app.db", b"app.db-wal", b"app.db-journal"):
            continue
        (folder / path.decode()).write_bytes(content)
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert connection.execute("select sum(amount) from account").fetchone() == (100_000,)
        (count, last) = connection.execute("select count(*), coalesce(max(n), 0) from log").fetchone()
        assert count == last
        return int(count)
