"""The throw-away tape target: what it starts it ends, and what it cannot do it says; tgtimg tells what it made."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel.demo import target as module
from splitreel.demo.target import TapeTarget
from splitreel.errors import TapeError, TransportError
from tests.iscsi_drive import TEST_UNIT_READY, TO_DEVICE, IscsiTransport, open_ready, tape_of

pytestmark = pytest.mark.tgtd


def show(cartridge: Path) -> str:
    command = ["tgtimg", "--op", "show", "--device-type", "tape", "--file", str(cartridge)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def runs(pid: int) -> bool:
    """Whether the process still executes; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def target(tgtd_target: TapeTarget, tmp_path: Path) -> Iterator[TapeTarget]:
    with TapeTarget(tmp_path / "target", size_mb=16) as started:
        yield started


class TestLife:
    def test_it_leaves_nothing_but_cartridge_and_log(self, tgtd_target: TapeTarget, tmp_path: Path) -> None:
        with TapeTarget(tmp_path / "target", size_mb=16) as target:
            pid, url, control = target.pid, target.url, target._control
            assert runs(pid) and control is not None and control.is_dir()
            with open_ready(url) as transport:
                tape_of(transport).write(b"kept")
        target.stop()

        assert not runs(pid) and not control.exists()
        assert {path.name for path in (tmp_path / "target").iterdir()} == {"tape.cartridge", "tgtd.log"}
        assert re.search(r"Variable data.*sz 4\b|Blk No\. 1, .*sz 4\b", show(target.cartridge))
        with pytest.raises(TransportError, match="refused"):
            IscsiTransport(url)

    def test_it_ends_with_the_program_that_started_it(self, tgtd_target: TapeTarget, tmp_path: Path) -> None:
        """Killed, so that no handler can run."""
        program = (
            "import os, sys; from pathlib import Path; from splitreel.demo.target import TapeTarget\n"
            "target = TapeTarget(Path(sys.argv[1]), size_mb=16).start()\n"
            "print(target.pid, target._control, flush=True); os.kill(os.getpid(), 9)"
        )
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", program, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        pid, control = done.stdout.split()
        deadline = time.monotonic() + 5
        while runs(int(pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        for left in Path(control).iterdir():
            left.unlink()
        Path(control).rmdir()

        assert not runs(int(pid))

    def test_killed_and_started_again(self, target: TapeTarget) -> None:
        target.kill()
        target.stop()
        target.start()
        with open_ready(target.url):
            pass

    def test_two_at_once(self, target: TapeTarget, tmp_path: Path) -> None:
        with TapeTarget(tmp_path / "other", size_mb=16) as other:
            with open_ready(target.url), open_ready(other.url):
                pass

            assert other.port != target.port

    def test_a_taken_port_is_given_up(
        self, target: TapeTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """tgtd runs on without a portal when it cannot bind it; another port is tried."""
        free = module._free_port()
        ports = iter([target.port, free])
        monkeypatch.setattr(module, "_free_port", lambda: next(ports))
        with TapeTarget(tmp_path / "other", size_mb=16) as other:
            assert other.port == free


class TestTapes:
    def test_capacity(self, target: TapeTarget) -> None:
        assert "Capacity 16 MB" in show(target.cartridge)

    def test_readonly(self, target: TapeTarget) -> None:
        tape = target.add_tape("protected", size_mb=16, readonly=True)
        with open_ready(tape.url) as transport:
            status, sense, _ = transport.run_command(bytes([0x0A, 0, 0, 0, 4, 0]), TO_DEVICE, b"data")

        assert (status, sense[2] & 0x0F, sense[12]) == (2, 7, 0x27)

    def test_removed_tape(self, target: TapeTarget) -> None:
        tape = target.add_tape("gone", size_mb=16)
        with open_ready(tape.url) as transport:
            target.remove_tape(tape)
            with pytest.raises(TransportError):
                transport.run_command(TEST_UNIT_READY)

        assert not tape.cartridge.exists()


class TestRefusals:
    def test_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_search_path", lambda: str(tmp_path))
        with pytest.raises(TapeError) as caught:
            TapeTarget(tmp_path).start()

        assert caught.value.lines() == [
            "starting a tape target",
            "tgtd is not installed",
            "apt-get install tgt",
        ]

    def test_not_root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(TapeError, match="root"):
            TapeTarget(tmp_path).start()

    def test_started_twice(self, target: TapeTarget) -> None:
        with pytest.raises(TapeError, match="running already"):
            target.start()

    def test_asked_while_it_does_not_run(self, tmp_path: Path) -> None:
        target = TapeTarget(tmp_path)
        for question in ("url", "pid", "tape"):
            with pytest.raises(TapeError, match="not running"):
                getattr(target, question)

    def test_a_secret_is_in_no_message(self, target: TapeTarget) -> None:
        target.kill()
        with pytest.raises(TapeError) as caught:
            target._bind_account(1, "joe", "tops3cret")

        assert "--password ***" in caught.value.what
        assert "tops3cret" not in "".join(caught.value.lines())

    def test_tgtimg_refuses(self, target: TapeTarget) -> None:
        with pytest.raises(TapeError, match="tgtimg"):
            target.add_tape("no/such/directory", size_mb=16)
