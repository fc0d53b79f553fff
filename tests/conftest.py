"""Fixtures that more than one room's tests use."""

import itertools
from collections.abc import Iterator

import pytest

from splitreel.demo.target import TapeTarget, TargetTape
from splitreel.errors import TapeError

from .support import compiled, keep_mounts_private, missing

_tape_numbers = itertools.count(1)


def pytest_configure() -> None:
    """Before the first mount of any test."""
    keep_mounts_private()


@pytest.fixture(scope="session")
def tgtd_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TapeTarget]:
    """One tgtd for all tests that do not harm it. Its own first tape is nobody's: take tgtd_drive."""
    compiled("iscsi")
    target = TapeTarget(tmp_path_factory.mktemp("tgtd"), size_mb=16)
    try:
        target.start()
    except TapeError as error:
        missing(f"needs a tgtd that starts: {error}")
    yield target
    target.stop()


@pytest.fixture
def tgtd_drive(tgtd_target: TapeTarget) -> Iterator[TargetTape]:
    """A tape drive of its own with an empty cartridge of 256 MiB; its first command meets a unit attention."""
    tape = tgtd_target.add_tape(f"tape{next(_tape_numbers)}", size_mb=256)
    yield tape
    tgtd_target.remove_tape(tape)
