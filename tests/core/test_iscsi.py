"""The iSCSI transport against tgtd; what is on tape afterwards is told by tgt's own cartridge file."""

import os
from collections.abc import Iterator

import pytest
from pyscsi.pyscsi.scsi import SCSI
from pyscsi.pyscsi.scsi_enum_command import spc

from splitreel import errors
from splitreel.demo.target import TapeTarget, TargetTape
from tests.iscsi_drive import (
    END_OF_DATA,
    FILEMARK,
    FROM_DEVICE,
    REWIND,
    TEST_UNIT_READY,
    TO_DEVICE,
    IscsiTransport,
    open_ready,
    parse_url,
    tape_of,
)
from tests.tgt_cartridge import read_cartridge

pytestmark = pytest.mark.tgtd


@pytest.fixture
def drive(tgtd_drive: TargetTape) -> Iterator[IscsiTransport]:
    with open_ready(tgtd_drive.url) as transport:
        yield transport


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
