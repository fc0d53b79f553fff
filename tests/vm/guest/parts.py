"""parts is what the guest's tests share: programs run, disks found and cleared. It runs in the guest alone."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..machine import DISK_SERIAL

PROGRAM_SECONDS = 120.0
SPLITREEL = (sys.executable, "-m", "splitreel")


def run(*command: str, seconds: float = PROGRAM_SECONDS) -> str:
    """What the program printed; the test fails with it when the program does."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def disks(count: int) -> list[str]:
    """That many of the machine's own disks, their signatures wiped."""
    found = own_disks()
    assert len(found) >= count, f"{count} disks are needed, found {found}"
    for disk in found[:count]:
        run("wipefs", "--all", "--quiet", disk)
    return found[:count]


def own_disks() -> list[str]:
    """The machine's own disks, in their order; no device without their serial is ever touched."""
    blocks = [block for block in sorted(Path("/sys/block").iterdir()) if (block / "serial").exists()]
    return [f"/dev/{block.name}" for block in blocks if (block / "serial").read_text().startswith(DISK_SERIAL)]


def wait_until(reached: Callable[[], bool], what: str, seconds: float = PROGRAM_SECONDS) -> None:
    """Wait for it; the test fails with ``what`` when it takes longer."""
    until = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > until:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)
