"""The iSCSI transport against tgtd; what is on tape afterwards is told by tgt's own cartridge file."""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyscsi.pyscsi.scsi import SCSI
from pyscsi.pyscsi.scsi_enum_command import spc

from splitreel import errors
from splitreel.core.iscsi import IscsiTransport, parse_url
from splitreel.core.tape import Tape
from splitreel.target import TapeTarget, TargetTape
from tests.tgt_cartridge import read_cartridge

pytestmark = pytest.mark.tgtd

NO_DATA, TO_DEVICE, FROM_DEVICE = 0, 1, 2
TEST_UNIT_READY = bytes(6)
REWIND = bytes([0x01, 0, 0, 0, 0, 0])
WRITE_6, READ_6, WRITE_FILEMARKS_6 = (bytes([opcode, 0, 0, 0, 0, 0]) for opcode in (0x0A, 0x08, 0x10))
FILEMARK, END_OF_DATA = 3, 4


def open_ready(url: str, **options: object) -> IscsiTransport:
    """A transport whose unit attention of the new session has been taken."""
    transport = IscsiTransport(url, **options)  # type: ignore[arg-type]
    assert transport.run_command(TEST_UNIT_READY)[0] == 2
    assert transport.run_command(TEST_UNIT_READY)[0] == 0
    return transport


def tape_of(transport: IscsiTransport) -> Tape:
    return Tape(transport, WRITE_6, READ_6, WRITE_FILEMARKS_6)


@pytest.fixture
def drive(tgtd_drive: TargetTape) -> Iterator[IscsiTransport]:
    with open_ready(tgtd_drive.url) as transport:
        yield transport


@pytest.fixture
def own_target(tgtd_target: TapeTarget, tmp_path: Path) -> Iterator[TapeTarget]:
    """A tgtd that the test may stop or kill."""
    with TapeTarget(tmp_path / "target", size_mb=256) as target:
        yield target


class TestAddress:
    def test_full_address(self) -> None:
        url = "iscsi://joe%s3%cr@t@[fd00::1]:3261/iqn.2001-04.com.example%3Atape/257"

        assert parse_url(url) == ("[fd00::1]:3261", "iqn.2001-04.com.example:tape", 257, "joe", "s3%cr@t")

    def test_secret_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPLITREEL_CHAP_SECRET", "from outside")

        assert parse_url("iscsi://joe@host/iqn.x:y/0")[3:] == ("joe", "from outside")

    @pytest.mark.parametrize(
        "url",
        [
            "iscsi://host/iqn.x:y",
            "iscsi://host//1",
            "iscsi:///iqn.x:y/1",
            "iscsi://host:0/iqn.x:y/1",
            "iscsi://host:65536/iqn.x:y/1",
            "iscsi://host:port/iqn.x:y/1",
            "iscsi://fd00::1/iqn.x:y/1",
            "iscsi://host/iqn.x:y/-1",
            "iscsi://host/iqn.x:y/16384",
            "iscsi://host/iqn.x%00InitiatorName=z/1",
            "http://host/iqn.x:y/1",
            "iscsi://joe@host/iqn.x:y/1",
            "iscsi://%@host/iqn.x:y/1",
        ],
    )
    def test_refused(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SPLITREEL_CHAP_SECRET", raising=False)
        with pytest.raises(errors.UsageError):
            parse_url(url)

    @pytest.mark.parametrize("rest", ["host", "host/iqn.x:y/lun", "host:0/iqn.x:y/1", ":1/iqn.x:y/1"])
    def test_no_message_shows_user_or_secret(self, rest: str) -> None:
        with pytest.raises(errors.UsageError) as caught:
            parse_url(f"iscsi://joe%tops3cret@{rest}")

        assert "tops3cret" not in repr(caught.value) + "".join(caught.value.lines())
        assert "joe" not in str(caught.value)


class TestData:
    @pytest.mark.parametrize("size", [1, 3, 4, 511, 4096, 8193, 65536, 262144, 262145, 1048575, 1048576])
    def test_block_is_read_back_as_written(self, drive: IscsiTransport, tgtd_drive: TargetTape, size: int) -> None:
        block = os.urandom(size)
        tape = tape_of(drive)

        assert tape.write(block) == 0
        drive.run_command(REWIND)

        assert tape.read(size) == block
        assert [entry.data for entry in read_cartridge(tgtd_drive.cartridge)] == [block]

    def test_largest_command(self, drive: IscsiTransport, tgtd_drive: TargetTape) -> None:
        """16 MiB - 1, what WRITE(6) can say, in one command."""
        block = os.urandom(drive.max_transfer)
        cdb = bytes([0x0A, 0, 0xFF, 0xFF, 0xFF, 0])

        assert drive.run_command(cdb, TO_DEVICE, block) == (0, b"", len(block))
        assert [entry.data for entry in read_cartridge(tgtd_drive.cartridge)] == [block]

    def test_order_is_kept(self, drive: IscsiTransport, tgtd_drive: TargetTape) -> None:
        """Long blocks wait for R2T and short ones do not: queued, short ones overtake. One at a time they cannot."""
        sizes = [1048576, 1000, None, 1048576, 1000, None]
        tape = tape_of(drive)
        for size in sizes:
            if size is None:
                tape.filemarks(1)
            else:
                tape.write(bytes(size))

        written = [None if entry.data is None else len(entry.data) for entry in read_cartridge(tgtd_drive.cartridge)]

        assert written == sizes

    def test_filemark_and_end_of_data(self, drive: IscsiTransport) -> None:
        tape = tape_of(drive)
        tape.write(b"first")
        tape.filemarks(1)
        drive.run_command(REWIND)

        assert [tape.read(5), tape.read(5), tape.read(5)] == [b"first", FILEMARK, END_OF_DATA]

    def test_residual_is_honoured(self, drive: IscsiTransport) -> None:
        """INQUIRY for 255 bytes: the drive has fewer, and the count says so (additional length, SPC-4 6.6.2)."""
        data = bytearray(255)

        status, _, transferred = drive.run_command(bytes([0x12, 0, 0, 0, 255, 0]), FROM_DEVICE, data)

        assert (status, transferred) == (0, data[4] + 5)
        assert data[transferred:] == bytes(255 - transferred)

    def test_header_digest(self, tgtd_drive: TargetTape) -> None:
        with open_ready(tgtd_drive.url, header_digest=True) as transport:
            tape_of(transport).write(b"with digest" * 1000)

        assert read_cartridge(tgtd_drive.cartridge)[0].data == b"with digest" * 1000


class TestSense:
    def test_unit_attention_of_the_new_session_reaches_the_caller(self, tgtd_drive: TargetTape) -> None:
        with IscsiTransport(tgtd_drive.url) as transport:
            status, sense, _ = transport.run_command(TEST_UNIT_READY)

        assert (status, sense[0] & 0x7F, sense[2] & 0x0F, sense[12], sense[13]) == (2, 0x70, 6, 0x29, 0)

    @pytest.mark.parametrize("size", [100, 1 << 20, 16 << 20])
    def test_write_protected(self, tgtd_target: TapeTarget, drive: IscsiTransport, tgtd_drive: TargetTape,
                             size: int) -> None:  # fmt: skip
        """A refusal before all data were taken: nothing of it is left queued, and the session goes on."""
        tgtd_target.set_readonly(tgtd_drive, True)
        size = min(size, drive.max_transfer)
        status, sense, _ = drive.run_command(bytes([0x0A, 0]) + size.to_bytes(3, "big") + b"\0", TO_DEVICE, bytes(size))

        assert (status, sense[2] & 0x0F, sense[12]) == (2, 7, 0x27)
        assert drive.run_command(TEST_UNIT_READY)[0] == 0
        assert read_cartridge(tgtd_drive.cartridge) == []

    def test_invalid_command(self, drive: IscsiTransport) -> None:
        status, sense, _ = drive.run_command(bytes([0xFF]) + bytes(15))

        assert (status, sense[2] & 0x0F, sense[12]) == (2, 5, 0x20)


class TestPyscsi:
    def test_facade(self, drive: IscsiTransport) -> None:
        drive.opcodes = spc

        scsi = SCSI(drive)
        inquiry = scsi.inquiry().result

        assert bytes(inquiry["t10_vendor_identification"]) == b"SPLTREEL"
        assert drive.devicetype == 1
        scsi.testunitready()


class TestRefusals:
    def test_wrong_lun(self, tgtd_drive: TargetTape) -> None:
        with pytest.raises(errors.TransportError, match="no logical unit 7"):
            IscsiTransport(tgtd_drive.url[:-1] + "7")

    def test_wrong_target(self, tgtd_drive: TargetTape) -> None:
        with pytest.raises(errors.TransportError, match="Target not found"):
            IscsiTransport(tgtd_drive.url.replace(":tape", ":reel"))

    def test_nobody_listens(self) -> None:
        with pytest.raises(errors.TransportError, match="Connection refused") as caught:
            IscsiTransport("iscsi://127.0.0.1:1/iqn.x:y/1")

        assert "opening iscsi://127.0.0.1:1/iqn.x:y/1" in caught.value.what

    def test_chap(self, tgtd_target: TapeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
        tape = tgtd_target.add_tape("chap", size_mb=16, chap=("joe", "twelve chars"))
        monkeypatch.setenv("SPLITREEL_CHAP_SECRET", "twelve chars")
        with open_ready(tape.url.replace("//", "//joe@")) as transport:
            assert "joe" not in transport.name

        for account in ("", "joe%another secret@"):
            with pytest.raises(errors.TransportError, match=r"[Aa]uth") as caught:
                IscsiTransport(tape.url.replace("//", f"//{account}"))

            assert "another" not in repr(caught.value)
        tgtd_target.remove_tape(tape)


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


class Cutter:
    """A TCP relay to a target that drops the connection when so many bytes have gone to the target."""

    def __init__(self, url: str, cut_after: int) -> None:
        authority, _, path = url.removeprefix("iscsi://").partition("/")
        host, _, port = authority.partition(":")
        self.portal, self.cut_after, self.connections = (host, int(port)), cut_after, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.1)
        self.url = f"iscsi://127.0.0.1:{self.listener.getsockname()[1]}/{path}"
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.done.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self.listener.accept()
                self.connections += 1
                with connection, socket.create_connection(self.portal) as target:
                    self.relay(connection, target)

    def relay(self, initiator: socket.socket, target: socket.socket) -> None:
        left = self.cut_after
        while left > 0 and not self.done.is_set():
            for ready in select.select([initiator, target], [], [], 0.1)[0]:
                data = ready.recv(min(left, 65536))
                if not data:
                    return
                (target if ready is initiator else initiator).sendall(data)
                left -= len(data) if ready is initiator else 0

    def __enter__(self) -> "Cutter":
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.thread.join()
        self.listener.close()


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
