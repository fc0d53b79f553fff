"""The iSCSI transport when the path fails, is idle, is shared or is queued upon: nothing doubled, lost or leaked."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core.tape import Tape
from splitreel.demo.target import TapeTarget, TargetTape
from tests.iscsi_drive import (
    NO_DATA,
    REWIND,
    TEST_UNIT_READY,
    TO_DEVICE,
    Cutter,
    IscsiTransport,
    open_ready,
    tape_of,
)
from tests.tgt_cartridge import read_cartridge

pytestmark = pytest.mark.tgtd


@pytest.fixture
def drive(tgtd_drive: TargetTape) -> Iterator[IscsiTransport]:
    with open_ready(tgtd_drive.url) as transport:
        yield transport


@pytest.fixture
def own_target(tgtd_target: TapeTarget, tmp_path: Path) -> Iterator[TapeTarget]:
    """A tgtd that the test may stop or kill."""
    with TapeTarget(tmp_path / "target", size_mb=256) as target:
        yield target


class TestPathErrors:
    def test_target_killed_in_mid_write(self, own_target: TapeTarget) -> None:
        """One TransportError that says why, then "path lost" for ever; what was confirmed is on tape once."""
        transport = open_ready(own_target.url)
        killer = threading.Timer(0.05, own_target.kill)
        killer.start()
        confirmed, error = _write_numbered(tape_of(transport))
        killer.join()
        for cdb in (TEST_UNIT_READY, REWIND):
            with pytest.raises(errors.TransportError, match="path lost"):
                transport.run_command(cdb)
        transport.close()
        numbers = _numbers(own_target.cartridge, after_crash=True)

        assert "path lost" not in str(error)
        assert numbers[:confirmed] == list(range(confirmed))
        assert len(numbers) <= confirmed + 1

    @pytest.mark.parametrize("cut_after", [5_000_000, 5_300_000, 8_388_608])
    def test_connection_cut_in_mid_write(self, tgtd_drive: TargetTape, cut_after: int) -> None:
        """The target lives on and would take a re-sent WRITE: none comes, nor another connection."""
        with Cutter(tgtd_drive.url, cut_after) as cutter:
            transport = open_ready(cutter.url)
            confirmed, error = _write_numbered(tape_of(transport))
            with pytest.raises(errors.TransportError, match="path lost"):
                transport.run_command(TEST_UNIT_READY)
            time.sleep(0.3)
            transport.close()
        with IscsiTransport(tgtd_drive.url) as again:
            again.run_command(TEST_UNIT_READY)
        numbers = _numbers(tgtd_drive.cartridge)

        assert "closed the connection" in str(error) or "socket" in str(error)
        assert cutter.connections == 1
        assert confirmed in (3, 4, 5, 6, 7, 8)
        assert numbers in (list(range(confirmed)), list(range(confirmed + 1)))

    def test_target_that_stops_answering(self, own_target: TapeTarget) -> None:
        """The deadline holds, whether the target is stopped before or while it takes data."""
        for cdb, direction, data in (
            (TEST_UNIT_READY, NO_DATA, None),
            (bytes([0x0A, 0, 0xFF, 0xFF, 0xFF, 0]), TO_DEVICE, bytes(0xFFFFFF)),
        ):
            transport = open_ready(own_target.url)
            os.kill(own_target.pid, signal.SIGSTOP)
            started = time.monotonic()
            try:
                with pytest.raises(errors.TransportError, match="time-out"):
                    transport.run_command(cdb, direction, data, timeout_ms=300)
                seconds = time.monotonic() - started
                transport.close()
            finally:
                os.kill(own_target.pid, signal.SIGCONT)

            assert 0.29 <= seconds < 2

    def test_login_time_out(self, own_target: TapeTarget) -> None:
        os.kill(own_target.pid, signal.SIGSTOP)
        started = time.monotonic()
        try:
            with pytest.raises(errors.TransportError, match="time-out"):
                IscsiTransport(own_target.url, timeout_ms=300)
        finally:
            os.kill(own_target.pid, signal.SIGCONT)

        assert 0.29 <= time.monotonic() - started < 2

    def test_sigpipe_does_not_end_the_program(self, own_target: TapeTarget) -> None:
        transport = open_ready(own_target.url)
        before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            own_target.kill()
            with pytest.raises(errors.TransportError):
                transport.run_command(bytes([0x0A, 0, 0xFF, 0xFF, 0xFF, 0]), TO_DEVICE, bytes(0xFFFFFF))
        finally:
            signal.signal(signal.SIGPIPE, before)
            transport.close()


class TestManners:
    def test_closed_is_closed(self, tgtd_drive: TargetTape) -> None:
        transport = open_ready(tgtd_drive.url)
        transport.close()
        transport.close()

        with pytest.raises(errors.Misuse):
            transport.run_command(TEST_UNIT_READY)

    def test_nothing_leaks(self, drive: IscsiTransport) -> None:
        """2000 commands, every second one with sense data, and 20 sessions: memory and descriptors stay flat."""
        invalid = bytes([0xFF]) + bytes(15)

        def commands(count: int) -> None:
            for _ in range(count):
                drive.run_command(TEST_UNIT_READY)
                drive.run_command(invalid)

        def sessions(count: int) -> None:
            for _ in range(count):
                with IscsiTransport(drive.name):
                    pass

        commands(200)
        sessions(3)
        descriptors, size = _descriptors(), _resident()
        commands(1000)
        sessions(20)

        assert _descriptors() == descriptors
        assert _resident() - size < 512 * 1024

    def test_the_gil_is_released(self, own_target: TapeTarget) -> None:
        transport = open_ready(own_target.url)
        ticks = 0
        done = threading.Event()

        def tick() -> None:
            nonlocal ticks
            while not done.wait(0.001):
                ticks += 1

        ticker = threading.Thread(target=tick)
        os.kill(own_target.pid, signal.SIGSTOP)
        ticker.start()
        try:
            with pytest.raises(errors.TransportError):
                transport.run_command(TEST_UNIT_READY, timeout_ms=300)
        finally:
            os.kill(own_target.pid, signal.SIGCONT)
            done.set()
            ticker.join()
            transport.close()

        assert ticks > 30


class TestSession:
    def test_idle_session_answers_pings(self, tgtd_target: TapeTarget, tgtd_drive: TargetTape) -> None:
        """A target that pings every second and drops a silent initiator after two keeps an idle session."""
        tgtd_target.set_parameter(tgtd_drive.tid, "nop_interval", 1)
        tgtd_target.set_parameter(tgtd_drive.tid, "nop_count", 2)
        with open_ready(tgtd_drive.url) as transport:
            time.sleep(5)

            assert transport.run_command(TEST_UNIT_READY)[0] == 0

    def test_redirected_login(self, tgtd_target: TapeTarget, tgtd_drive: TargetTape, own_target: TapeTarget) -> None:
        """The portal sends the initiator to another one, which has a target of the same name.

        tgtd does not redirect to the initiator's own address, so the other portal is behind a relay on 127.0.0.2.
        """
        other = own_target.add_tape(tgtd_drive.url.rsplit(":", 1)[1].removesuffix("/1"), size_mb=16)
        with Cutter(other.url, 1 << 30, address="127.0.0.2") as relay:
            for key, value in (("Address", "127.0.0.2"), ("Port", relay.port), ("Reason", "Temporary")):
                tgtd_target.set_parameter(tgtd_drive.tid, f"Redirect{key}", value)
            with open_ready(tgtd_drive.url) as transport:
                tape_of(transport).write(b"redirected")

        assert [entry.data for entry in read_cartridge(other.cartridge)] == [b"redirected"]

    def test_a_forked_child_leaves_the_session_alone(self, drive: IscsiTransport) -> None:
        child = os.fork()
        if child == 0:
            drive.close()
            del drive
            gc.collect()
            os._exit(0)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert drive.run_command(TEST_UNIT_READY)[0] == 0

    def test_transports_in_several_threads(self, tgtd_target: TapeTarget) -> None:
        """Four sessions at once, each to its own drive, none disturbs another."""
        tapes = [tgtd_target.add_tape(f"thread{number}", size_mb=64) for number in range(4)]

        def write(number: int) -> None:
            with open_ready(tapes[number].url) as transport:
                tape = tape_of(transport)
                for block in range(40):
                    tape.write(bytes([number, block]) * 100_000)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, tape in enumerate(tapes):
            assert [entry.data for entry in read_cartridge(tape.cartridge)] == [
                bytes([number, block]) * 100_000 for block in range(40)
            ]
            tgtd_target.remove_tape(tape)


class TestQueue:
    @staticmethod
    def writes(count: int, size: int) -> list[tuple[bytes, int, bytes]]:
        cdb = bytes([0x0A, 0]) + size.to_bytes(3, "big") + bytes(1)
        return [(cdb, TO_DEVICE, number.to_bytes(8, "big") * (size // 8)) for number in range(count)]

    def test_writes_of_one_length_keep_their_order(self, tgtd_drive: TargetTape) -> None:
        with open_ready(tgtd_drive.url, depth=4) as transport:
            replies = transport.run_queued(self.writes(50, 65536))

        assert replies == [(0, b"", 65536)] * 50
        assert _numbers(tgtd_drive.cartridge) == list(range(50))

    def test_more_than_the_depth_is_refused(self, drive: IscsiTransport, tgtd_drive: TargetTape) -> None:
        """One is the default; what was sent before the refusal is answered, and the session goes on."""
        with pytest.raises(errors.Misuse, match="reap"):
            drive.run_queued(self.writes(3, 1024), ahead=2)

        assert drive.run_command(TEST_UNIT_READY)[0] == 0
        assert _numbers(tgtd_drive.cartridge) == [0]

    def test_lost_path_with_several_outstanding(self, tgtd_drive: TargetTape) -> None:
        """Cut in the midst of 30 queued blocks: one error, each block on tape once, none sent again."""
        with Cutter(tgtd_drive.url, 10_000_000) as cutter, open_ready(cutter.url, depth=8) as transport:
            with pytest.raises(errors.TransportError):
                transport.run_queued(self.writes(30, 1 << 20))
            with pytest.raises(errors.TransportError, match="path lost"):
                transport.run_command(TEST_UNIT_READY)
            time.sleep(0.3)
        numbers = _numbers(tgtd_drive.cartridge)

        assert cutter.connections == 1
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= set(range(30))


def _write_numbered(tape: Tape) -> tuple[int, errors.TransportError]:
    """Write blocks of 1 MiB that tell their number until the path fails: (blocks confirmed, the error)."""
    confirmed = 0
    with pytest.raises(errors.TransportError) as caught:
        while True:
            tape.write(confirmed.to_bytes(8, "big") * 131072)
            confirmed += 1
    return confirmed, caught.value


def _numbers(cartridge: Path, *, after_crash: bool = False) -> list[int]:
    entries = read_cartridge(cartridge, after_crash=after_crash)
    return [int.from_bytes((entry.data or b"")[:8], "big") for entry in entries]


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
