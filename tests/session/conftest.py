"""Fixtures of the session's tests."""

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from splitreel.mirror.embedded import EmbeddedMirror
from tests.session.parts import make_database
from tests.volumes import mirrored_volume


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedMirror]:
    """A mirrored volume with a database app.db and some other files on it."""
    with mirrored_volume(tmp_path) as volume:
        mount = Path(volume.mount_point)
        make_database(mount / "app.db")
        (mount / "other").mkdir()
        for number in range(20):
            (mount / "other" / f"file{number}").write_bytes(bytes([number]) * 5000)
        yield volume


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory on the root file system."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def writing() -> Callable[[EmbeddedMirror], object]:
    """A context in which a thread moves amounts between accounts; yields a count of acknowledged transactions."""

    @contextmanager
    def write(embedded: EmbeddedMirror) -> Iterator[Callable[[], int]]:
        stop, count = threading.Event(), [0]

        def work() -> None:
            connection = sqlite3.connect(
                f"{embedded.mount_point}/app.db", timeout=60, isolation_level=None, check_same_thread=False
            )
            places = random.Random(1)
            while not stop.is_set():
                connection.execute("begin immediate")
                connection.execute("update account set amount = amount - 1 where id = ?", (places.randrange(1000),))
                connection.execute("update account set amount = amount + 1 where id = ?", (places.randrange(1000),))
                connection.execute("insert into log select coalesce(max(n), 0) + 1 from log")
                connection.execute("commit")
                count[0] += 1
            connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield lambda: count[0]
        finally:
            stop.set()
            thread.join(60)

    return write
