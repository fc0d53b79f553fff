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
from tests.volumes import ext4_volume, mirrored_volume, writer_waits, writes_within

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
    told, tell = os.pipe()
    died = subprocess.run([sys.executable, "-c", FREEZE_AND_DIE, SOURCE, str(volume)], check=False, stderr=tell)
    os.close(tell)
    assert died.returncode == -signal.SIGKILL
    assert writes_within(volume, 5.0)
    assert os.read(told, 1) == b""  # until the watchdog, which has the pipe too, is gone: it keeps the volume busy
    os.close(told)


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


FREEZE_AND_STOP = """
import fcntl, os, signal, sys
sys.path.insert(0, sys.argv[1])
from splitreel.watchdog import Watchdog
directory = os.open(sys.argv[2], os.O_RDONLY)
with Watchdog([("thaw", directory)], 500) as watchdog:
    watchdog.arm()
    fcntl.ioctl(directory, 0xC0045877, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    sys.exit(0 if watchdog.fired() == "the deadline passed" else 1)
"""


def test_session_stopped_while_frozen_is_thawed_and_learns_of_it(volume: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FREEZE_AND_STOP, SOURCE, str(volume)]) as session:
        os.waitid(os.P_PID, session.pid, os.WSTOPPED)
        assert writes_within(volume, 5.0)
        session.send_signal(signal.SIGCONT)
    assert session.returncode == 0


def test_the_deadline_counts_from_the_moment_that_is_named() -> None:
    with Watchdog([], 60000) as watchdog:
        watchdog.arm(time.monotonic_ns() - 60_000_000_000)
        until = time.monotonic() + 5
        while not watchdog.fired() and time.monotonic() < until:
            time.sleep(0.01)
        assert watchdog.fired() == "the deadline passed"


FREEZE = "import fcntl, os, sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0xC0045877, 0)"


def test_a_device_that_does_not_answer_keeps_only_its_own_writers_waiting(volume: Path, directory: int) -> None:
    """A thaw waits for a freeze that still flushes; the other file system's writers must not wait for that."""
    folder = volume.parent
    with mirrored_volume(folder) as embedded:
        slow = Path(embedded.mount_point)
        (slow / "dirty").write_bytes(bytes(1 << 20))
        hung, daemon = os.open(slow, os.O_RDONLY), embedded._pids["qemu-storage-daemon"]
        with Watchdog([("thaw", hung), ("thaw", directory)], 300) as watchdog:
            watchdog.arm()
            fcntl.ioctl(directory, FIFREEZE, 0)
            os.kill(daemon, signal.SIGSTOP)
            freezer = subprocess.Popen([sys.executable, "-c", FREEZE, str(slow)])
            try:
                assert writes_within(volume, 5.0)
                assert freezer.poll() is None
            finally:
                os.kill(daemon, signal.SIGCONT)
            assert writes_within(slow, 10.0)
            assert freezer.wait(10) == 0
        os.close(hung)


def test_a_command_that_outlives_its_session_is_ended_before_it_is_undone(tmp_path: Path) -> None:
    log, group = tmp_path / "log", os.memfd_create("group")
    late = subprocess.Popen(["sh", "-c", f"sleep 1; echo held >> {log}"], start_new_session=True)
    watchdog = Watchdog([("group", group), ("run", ("/bin/sh", "-c", f"echo released >> {log}"))], 60000)
    os.pwrite(group, late.pid.to_bytes(8, "little"), 0)
    watchdog.arm()
    watchdog.close()
    os.close(group)
    assert late.wait(5) == -signal.SIGKILL
    time.sleep(1.2)
    assert log.read_text() == "released\n"


def test_a_command_that_hangs_does_not_keep_the_next_one_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child reads its limit from the module, so it is shortened there."""
    mark = tmp_path / "mark"
    boot = "import sys; sys.path.insert(0, sys.argv[1]); from splitreel import watchdog; watchdog.RUN_SECONDS = 0.2"
    monkeypatch.setattr("splitreel.watchdog._BOOT", f"{boot}; watchdog.child(sys.argv[2])")
    commands = [("/bin/sleep", "5"), ("/usr/bin/touch", str(mark))]
    with Watchdog([("run", command) for command in commands], 60000) as watchdog:
        watchdog.arm()
    assert mark.exists()
