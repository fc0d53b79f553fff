"""The guest agent's quiescer with a real agent, which listens at a socket of the guest's own instead of a port."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel.errors import QuiesceError
from splitreel.quiesce import create
from splitreel.session.window import Window
from tests.quiesce.test_guestagent import die_holding
from tests.volumes import reap_probes, writer_waits, writes_within

from .parts import disks, run, wait_until

MOUNT, SOCKET = Path("/mnt/agent"), "/run/qga.sock"


@pytest.fixture(scope="module", autouse=True)
def volume() -> Iterator[None]:
    """An ext4, and an agent that may freeze it."""
    (disk,) = disks(1)
    run("modprobe", "ext4")
    run("mkfs.ext4", "-q", "-F", disk)
    MOUNT.mkdir(exist_ok=True)
    run("mount", disk, str(MOUNT))
    agent = subprocess.Popen(["qemu-ga", "--method=unix-listen", f"--path={SOCKET}", "--statedir=/run"])
    wait_until(lambda: Path(SOCKET).exists(), "the agent listens")
    yield
    create(settings()).recover()
    agent.kill()  # it does not heed SIGTERM while something is frozen
    agent.wait(20)
    reap_probes()
    run("umount", str(MOUNT))


def settings(**changes: object) -> dict[str, object]:
    return {"type": "guest-agent", "socket": SOCKET, "mounts": [str(MOUNT)], **changes}


def test_writers_wait_while_it_is_held() -> None:
    quiescer = create(settings())
    quiescer.check()
    with Window([quiescer], 30000):
        assert writer_waits(MOUNT)
    assert writes_within(MOUNT, 20)


def test_what_is_not_mounted_is_refused() -> None:
    with pytest.raises(QuiesceError, match="nothing is mounted at /mnt/other"):
        create(settings(mounts=["/mnt/other"])).check()


def test_what_somebody_froze_is_refused_and_recovered() -> None:
    held = create(settings())
    held.prepare()
    held.quiesce()
    held.close()
    with pytest.raises(QuiesceError, match="frozen already"):
        create(settings()).check()
    assert "they are thawed" in create(settings()).recover()
    assert writes_within(MOUNT, 20)


@pytest.mark.parametrize(("number", "deadline_ms"), [(signal.SIGKILL, 60000), (signal.SIGSTOP, 2000)])
def test_the_watchdog_thaws_what_a_session_held_that_died_or_stopped(number: int, deadline_ms: int) -> None:
    session = die_holding(SOCKET, number, deadline_ms)
    try:
        begun = time.monotonic()
        wait_until(lambda: writes_within(MOUNT, 20), "writers go on", 60)
        assert time.monotonic() - begun < 60
    finally:
        session.kill()
        session.wait()
    wait_until(lambda: create(settings()).recover() == "", "the agent is free, and nothing frozen")
