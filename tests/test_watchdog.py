"""The watchdog: whatever happens to the session, writers go on."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel.errors import QuiesceError
from splitreel.watchdog import Watchdog
from tests.volumes import ext4_volume, writer_waits, writes_within

FIFREEZE = 0xC0045877
SOURCE = str(Path(__file__).parent.parent / "src")

FREEZE_AND_DIE = """
import fcntl, os, signal, sys
sys.path.insert(0, sys.argv[1])
from splitreel.watchdog import Watchdog
directory = os.open(sys.argv[2], os.O_RDONLY)
watchdog = Watchdog([("thaw", directory)], 60000)
watchdog.arm()
fcntl.ioctl(directory, 0xC0045877, 0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    with ext4_volume(tmp_path) as mount:
        yield mount


@pytest.fixture
def directory(volume: Path) -> Iterator[int]:
    descriptor = os.open(volume, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_session_killed_while_frozen_is_thawed(volume: Path) -> None:
    died = subprocess.run([sys.executable, "-c", FREEZE_AND_DIE, SOURCE, str(volume)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert writes_within(volume, 5.0)


def test_deadline_thaws_and_tells(volume: Path, directory: int) -> None:
    with Watchdog([("thaw", directory)], 400) as watchdog:
        watchdog.arm()
        fcntl.ioctl(directory, FIFREEZE, 0)
        assert watchdog.fired() == ""
        assert writer_waits(volume, 0.2)
        assert writes_within(volume, 5.0)
        assert watchdog.fired() == "the deadline passed"
        assert watchdog.disarm() == "the deadline passed"


def test_freeze_that_completes_after_the_deadline_is_thawed_too(volume: Path, directory: int) -> None:
    with Watchdog([("thaw", directory)], 50) as watchdog:
        watchdog.arm()
        time.sleep(0.3)
        fcntl.ioctl(directory, FIFREEZE, 0)
        assert writes_within(volume, 5.0)
        assert watchdog.disarm() != ""


def test_disarmed_in_time_leaves_the_rest_to_the_session(volume: Path, directory: int) -> None:
    watchdog = Watchdog([("thaw", directory)], 60000)
    watchdog.arm()
    fcntl.ioctl(directory, FIFREEZE, 0)
    assert watchdog.disarm() == ""
    watchdog.close()
    assert writer_waits(volume)


def test_closed_while_armed_releases(volume: Path, directory: int) -> None:
    watchdog = Watchdog([("thaw", directory)], 60000)
    watchdog.arm()
    fcntl.ioctl(directory, FIFREEZE, 0)
    watchdog.close()
    assert writes_within(volume, 5.0)


def test_never_armed_releases_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Watchdog([("run", ("/usr/bin/touch", str(mark)))], 10):
        time.sleep(0.1)
    assert not mark.exists()


def test_kills_and_runs_after_the_deadline_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    holder = subprocess.Popen(["sleep", "600"])
    pidfd = os.pidfd_open(holder.pid)
    command = ("/bin/sh", "-c", f"echo released >> {log}")
    with Watchdog([("kill", pidfd), ("run", command)], 50) as watchdog:
        watchdog.arm()
        assert holder.wait(5) == -signal.SIGKILL
        until = time.monotonic() + 5
        while not log.exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert watchdog.disarm() == "the deadline passed"
    os.close(pidfd)
    assert log.read_text() == "released\n"


def test_switches_are_set_back(tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    switch.write_text("1")
    with switch.open("r+b") as file, Watchdog([("zero", file.fileno())], 60000) as watchdog:
        watchdog.arm()
    assert switch.read_text() == "0"


def test_dead_watchdog_is_noticed_before_anything_is_held() -> None:
    with Watchdog([], 1000) as watchdog:
        os.kill(watchdog.pid, signal.SIGKILL)
        time.sleep(0.2)
        with pytest.raises(QuiesceError, match="died"):
            watchdog.arm()


def test_dead_watchdog_is_noticed_when_disarmed() -> None:
    with Watchdog([], 1000) as watchdog:
        watchdog.arm()
        os.kill(watchdog.pid, signal.SIGKILL)
        assert watchdog.disarm() == "the watchdog died"


def test_ignores_the_signals_that_end_a_terminal_session() -> None:
    with Watchdog([], 60000) as watchdog:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(watchdog.pid, number)
        watchdog.arm()
        assert watchdog.disarm() == ""
