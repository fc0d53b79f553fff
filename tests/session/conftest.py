"""Fixtures of the session's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from splitreel.mirror.embedded import EmbeddedMirror
from tests.session.parts import make_database, transactions
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

    return lambda embedded: transactions(embedded.mount_point)
