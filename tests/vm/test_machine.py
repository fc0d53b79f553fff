"""The virtual machine fails loudly: each way it can fail has its own words. Nothing is taken for a pass."""

import lzma
import struct
from pathlib import Path

import pytest

from ..support import missing
from . import kernel, testrun
from .machine import GuestError, Machine

LIMIT_SECONDS = 240.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def booted_kernel() -> kernel.Kernel:
    """Nothing here works without a kernel."""
    try:
        return kernel.prepared()
    except kernel.Missing as error:
        missing(str(error))


def script(folder: Path, text: str) -> Machine:
    """A machine that runs a line of shell."""
    try:
        return Machine(folder, ["sh", "-c", text])
    except kernel.Missing as error:
        missing(str(error))


def test_a_status_passes_through_and_a_file_is_waited_for(tmp_path: Path) -> None:
    """What the command ends with is what the host is told."""
    with script(tmp_path, "echo 7 >/run/host/ready; exit 3") as guest:
        assert guest.wait_for("ready", LIMIT_SECONDS).exists()
        assert guest.wait(LIMIT_SECONDS) == 3


def test_a_crash_of_the_kernel_is_no_pass(tmp_path: Path) -> None:
    """The status file that a crash leaves behind is none; the console says why."""
    with script(tmp_path, "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 60") as guest:
        with pytest.raises(GuestError, match="crashed"):
            guest.wait(LIMIT_SECONDS)
        assert "sysrq triggered crash" in "\n".join(guest.console)


def test_a_guest_that_hangs_is_ended(tmp_path: Path) -> None:
    """A limit bounds the whole boot."""
    with script(tmp_path, "sleep 600") as guest:
        guest.wait_for("up", LIMIT_SECONDS)
        with pytest.raises(GuestError, match="took longer than 1 s"):
            guest.wait(1)


def test_a_qemu_that_refuses_its_options_is_told(tmp_path: Path) -> None:
    """QEMU's own words are on the console."""
    with Machine(tmp_path, ["true"], options=["-no-such-option"]) as guest:
        with pytest.raises(GuestError, match="QEMU ended with status 1"):
            guest.wait(LIMIT_SECONDS)
        assert "no-such-option" in "\n".join(guest.console)


def test_no_qemu_is_a_missing_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with the package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(kernel.Missing, match="qemu-system-x86"), Machine(tmp_path, ["true"]):
        pass


def test_an_image_is_unpacked_by_its_header_alone() -> None:
    """The payload is where the boot protocol says, whatever else looks like one; other images are refused."""
    content = b"\x7fELF" + bytes(1000)
    payload = lzma.compress(content)
    image = bytearray(0x400 + 512) + lzma.compress(b"something else that is no kernel")
    offset = len(image) - 1024
    image += payload + bytes(64)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<LL", image, 0x248, offset, len(payload))
    assert kernel.unpacked(bytes(image), "vmlinuz") == content
    struct.pack_into("<LL", image, 0x248, 512, 100)
    with pytest.raises(kernel.Unusable, match="no ELF image"):
        kernel.unpacked(bytes(image), "vmlinuz")
    struct.pack_into("<LL", image, 0x248, 0, 100)
    with pytest.raises(kernel.Unusable, match="unknown way"):
        kernel.unpacked(bytes(image), "vmlinuz")
    with pytest.raises(kernel.Unusable, match="no x86 bzImage"):
        kernel.unpacked(bytes(2048), "vmlinuz")


def test_results_keep_every_failure(tmp_path: Path) -> None:
    """Errors of fixtures count as failures, skips have their reason, and a file is known by its name."""
    (tmp_path / testrun.RESULTS).write_text(
        '<testsuites><testsuite name="pytest">'
        '<testcase classname="tests.vm.guest.test_a" name="one" time="1.5"/>'
        '<testcase classname="tests.vm.guest.test_a" name="two"><failure message="m">body</failure></testcase>'
        '<testcase classname="tests.vm.guest.test_b.TestX" name="three"><error message="e">x</error></testcase>'
        '<testcase classname="tests.vm.guest.test_b" name="four" time="0"><skipped message="why"/></testcase>'
        "</testsuite></testsuites>"
    )
    found = [(result.file, result.name, result.outcome) for result in testrun.results(tmp_path)]
    assert found == [
        ("test_a.py", "one", "passed"),
        ("test_a.py", "two", "failed"),
        ("test_b.py", "three", "failed"),
        ("test_b.py", "four", "skipped"),
    ]
    assert "body" in testrun.results(tmp_path)[1].text
