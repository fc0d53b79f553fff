"""Fixtures of the quiescers' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.volumes import ext4_volume


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A mounted ext4 that may be frozen."""
    with ext4_volume(tmp_path) as mount:
        yield mount
