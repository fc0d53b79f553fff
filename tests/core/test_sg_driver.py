"""The SG_IO transport against a driver preloaded in the kernel's place: what it sends, what it makes of replies."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import need_programs

PREAMBLE = """
import os, signal, struct
from splitreel import errors
from splitreel.core import sg
sg.open_character_device = lambda name, exclusive: os.open("/dev/null", os.O_RDWR)
drive = sg.SgTransport("/dev/sg0")
def told():
    data = bytearray(18)
    assert drive.run_command(bytes([0xC1, 0, 0, 0, 0, 0]), 2, data, 1234) == (0, b"", 18)
    return struct.unpack("=4I2B", data)
def refused(cdb, size=0):
    try:
        drive.run_command(cdb, 1 if size else 0, bytes(size) if size else None)
    except errors.SplitreelError as error:
        return type(error).__name__, str(error)
    return None
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_programs("gcc")
    library = tmp_path_factory.mktemp("sg") / "sg_driver.so"
    source = Path(__file__).with_name("sg_driver.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source], check=True)
    return library


def run(driver: Path, program: str, *, preamble: str = PREAMBLE, **settings: str) -> list[str]:
    """The lines that a program prints that has such a driver."""
    environment = os.environ | settings | {"LD_PRELOAD": str(driver), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", preamble + program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_data_travel_both_ways(driver: Path) -> None:
    program = """
block = os.urandom(1000)
print(drive.run_command(bytes([0x0A, 0, 0, 3, 0xE8, 0]), 1, block))
back = bytearray(1000)
print(drive.run_command(bytes([0x08, 0, 0, 3, 0xE8, 0]), 2, back), back == block, drive.duration_ms)
"""
    assert run(driver, program) == ["(0, b'', 1000)", "(0, b'', 1000) True 7"]


def test_sense_and_residue(driver: Path) -> None:
    program = """
status, sense, _ = drive.run_command(bytes(6))
print(status, len(sense), sense[2], sense[12])
print(drive.run_command(bytes([0x12, 0, 0, 0, 100, 0]), 2, bytearray(100))[2])
"""
    assert run(driver, program) == ["2 18 6 41", "24"]


def test_issued_at_the_tail_with_room_for_all_sense_data(driver: Path) -> None:
    assert run(driver, "print(told()[:3])") == ["(16, 1234, 252)"]


def test_no_signal_interrupts_a_command(driver: Path) -> None:
    """Blocked inside, as they were outside: one that was blocked before stays so, one that was not does not."""
    program = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print(told()[4:], sorted(int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
"""
    assert run(driver, program) == ["(1, 1) [2]"]


@pytest.mark.parametrize("number", [errno.EINTR, errno.EIO, errno.ENODEV, errno.ENXIO, errno.EAGAIN])
def test_a_failed_ioctl_is_not_tried_again(driver: Path, number: int) -> None:
    program = f"""
print(refused(bytes([0xC0, {number}, 0, 0, 0, 0])))
print(told()[3])
"""
    error, calls = run(driver, program)

    assert "TransportError" in error and os.strerror(number) in error
    assert calls == "2"


def test_no_memory_is_no_path_error(driver: Path) -> None:
    """Nothing was sent: a smaller block may do."""
    (error,) = run(driver, f"print(refused(bytes([0xC0, {errno.ENOMEM}, 0, 0, 0, 0]), 4096))")

    assert "LimitReached" in error and "4096 bytes" in error


def test_host_and_driver_states(driver: Path) -> None:
    program = """
print(refused(bytes([0xC2, 3, 0, 0, 0, 0])))
print(refused(bytes([0xC2, 0, 6, 0, 0, 0])))
"""
    host, state = run(driver, program)

    assert "TransportError" in host and "DID_TIME_OUT" in host
    assert "TransportError" in state and "DRIVER_TIMEOUT" in state


def test_limits_come_from_the_driver(driver: Path) -> None:
    program = """
print(drive.max_transfer, "|", drive.limit_reason)
print(refused(bytes([0x0A, 0, 8, 0, 1, 0]), 524289))
"""
    told, error = run(driver, program)

    assert told == "524288 | the adapter's queue limit (max_sectors), as its driver sets it"
    assert "LimitReached" in error and "carries 524288" in error


def test_scatter_list_limits_too(driver: Path) -> None:
    (told,) = run(driver, "print(drive.max_transfer, drive.limit_reason)", FAKE_TABLESIZE="4")

    assert told.startswith(f"{4 * 32768} ") and "scatter list of 4 elements" in told


def test_old_driver_is_refused(driver: Path) -> None:
    program = PREAMBLE.replace("drive = ", "try:\n    drive = ").split("def told")[0]
    program += "except errors.UsageError as error:\n    print(error)"
    (told,) = run(driver, program, preamble="", FAKE_VERSION="20000")

    assert "speaks version 20000" in told
