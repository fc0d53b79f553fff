"""fsfreeze: writers wait, readers do not, and letting go is always possible."""

import os
import time
from pathlib import Path

import pytest

from splitreel.errors import QuiesceError
from splitreel.quiesce import create, fsfreeze
from tests.support import missing, need_root
from tests.volumes import writer_waits, writes_within


def test_writers_wait_until_released_and_readers_do_not(volume: Path) -> None:
    (volume / "file").write_bytes(b"before")
    quiescer = create({"type": "fsfreeze", "mount": str(volume)})
    quiescer.check()
    quiescer.prepare()
    before = time.monotonic_ns()
    since = quiescer.quiesce()
    assert before <= since <= time.monotonic_ns()
    assert quiescer.frozen() == [str(volume)]
    assert (volume / "file").read_bytes() == b"before"
    assert writer_waits(volume)
    quiescer.unquiesce()
    assert writes_within(volume, 5.0)
    quiescer.unquiesce()
    quiescer.close()
    quiescer.close()


def test_release_after_somebody_else_thawed_is_harmless(volume: Path) -> None:
    quiescer = fsfreeze.FsFreeze(str(volume))
    quiescer.prepare()
    quiescer.quiesce()
    assert fsfreeze.thaw(str(volume))
    assert not fsfreeze.thaw(str(volume))
    quiescer.unquiesce()
    quiescer.close()


def test_a_freeze_of_somebody_else_is_refused_and_left_alone(volume: Path) -> None:
    first, second = fsfreeze.FsFreeze(str(volume)), fsfreeze.FsFreeze(str(volume))
    first.prepare()
    second.prepare()
    first.quiesce()
    with pytest.raises(QuiesceError, match="somebody else"):
        second.quiesce()
    second.unquiesce()
    assert writer_waits(volume)
    first.unquiesce()
    first.close()
    second.close()


def test_what_cannot_be_frozen_is_refused_before_the_window(tmp_path: Path) -> None:
    with pytest.raises(QuiesceError, match="not a mount point"):
        fsfreeze.FsFreeze(str(tmp_path)).check()
    with pytest.raises(QuiesceError, match="root file system"):
        fsfreeze.FsFreeze("/").check()


def test_unsupported_file_system_is_named() -> None:
    need_root()
    quiescer = fsfreeze.FsFreeze("/dev/shm")
    quiescer.prepare()
    with pytest.raises(QuiesceError, match="cannot be frozen"):
        quiescer.quiesce()
    quiescer.unquiesce()
    quiescer.close()


def test_release_before_anything_was_done_is_harmless(volume: Path) -> None:
    quiescer = fsfreeze.FsFreeze(str(volume))
    quiescer.unquiesce()
    quiescer.prepare()
    quiescer.unquiesce()
    assert [kind for kind, _ in quiescer.releases()] in (["thaw"], ["thaw", "zero"])
    quiescer.close()
    assert os.path.ismount(volume)


def test_grace_periods_are_as_they_were_after_a_freeze(tmp_path: Path) -> None:
    """The kernel-wide switch is on for the length of one call only, also when that call fails."""
    need_root()
    switch = Path(fsfreeze.RCU_EXPEDITED)
    if not switch.exists():
        missing("this kernel has no rcu_expedited")
    before = switch.read_text()
    refused = fsfreeze.FsFreeze(str(tmp_path))
    refused.prepare()
    refused._descriptor, directory = os.open("/proc", os.O_RDONLY), refused._descriptor

    with pytest.raises(QuiesceError, match="cannot be frozen"):
        refused.quiesce()

    os.close(directory)
    refused.close()
    assert switch.read_text() == before
