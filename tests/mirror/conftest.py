"""Fixtures of the mirrors' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel.mirror.embedded import EmbeddedMirror
from tests.volumes import mirrored_volume


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedMirror]:
    """A mirrored ext4 of 256 MiB, mounted."""
    with mirrored_volume(tmp_path) as volume:
        yield volume
