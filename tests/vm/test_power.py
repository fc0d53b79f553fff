"""The power goes while a mirror is split; after the next start `splitreel resume` puts it right."""

from pathlib import Path

import pytest

from ..support import missing
from . import testrun
from .kernel import Missing
from .machine import GuestError, Machine

POWER = "tests/vm/guest/power.py"
LIMIT_SECONDS = 600.0


def boot(folder: Path, disks: list[Path], test: str) -> Machine:
    """A machine on these disks that runs one test."""
    arguments = ["-q", "--timeout=500", f"{POWER}::{test}"]
    return Machine(folder, testrun.command(arguments), disks=disks, environment=testrun.environment())


def told(guest: Machine) -> str:
    """What the guest printed last."""
    return "\n".join(guest.console[-testrun.CONSOLE_LINES :])


@pytest.mark.slow
@pytest.mark.timeout(1300)
def test_resume_after_a_power_loss(tmp_path: Path) -> None:
    """QEMU is killed in the backup; the second boot is on the same disks."""
    disks = testrun.disk_images(tmp_path, 3)
    try:
        with boot(tmp_path / "first", disks, "test_until_the_power_goes") as first:
            try:
                first.wait_for("split", LIMIT_SECONDS)
            except GuestError as failure:
                pytest.fail(f"{failure}\n{told(first)}", pytrace=False)
            first.kill()
    except Missing as error:
        missing(str(error))
    with boot(tmp_path / "second", disks, "test_after_the_power_is_back") as second:
        try:
            status = second.wait(LIMIT_SECONDS)
        except GuestError as failure:
            pytest.fail(f"{failure}\n{told(second)}", pytrace=False)
        assert status == 0, told(second)
