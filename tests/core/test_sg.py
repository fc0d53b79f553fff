"""The SG_IO transport without hardware: its headers against a ctypes layout, its decoding, limits and refusals."""

import ctypes
import os
import stat
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core.sg import SgTransport, decode, marshal, transfer_limits
from tests.support import missing, need_root

NO_DATA, TO_DEVICE, FROM_DEVICE = 0, 1, 2
SG_FLAG_Q_AT_TAIL = 0x10


class Header(ctypes.Structure):
    """struct sg_io_hdr, written from the SCSI Generic HOWTO's table, not from the header that the code uses."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class TestMarshal:
    @pytest.mark.parametrize(
        ("direction", "size", "on_the_wire"),
        [(NO_DATA, 0, -1), (TO_DEVICE, 1 << 20, -2), (FROM_DEVICE, 36, -3), (TO_DEVICE, 0, -1), (FROM_DEVICE, 0, -1)],
    )
    def test_header(self, direction: int, size: int, on_the_wire: int) -> None:
        header = Header.from_buffer_copy(marshal(bytes([0x0A, 0, 0x10, 0, 0, 0]), direction, size, 1_500_000))

        assert header.interface_id == ord("S")
        assert (header.dxfer_direction, header.dxfer_len) == (on_the_wire, size)
        assert (header.cmd_len, header.mx_sb_len, header.iovec_count) == (6, 252, 0)
        assert (header.timeout, header.flags) == (1_500_000, SG_FLAG_Q_AT_TAIL)
        assert bytes(header)[Header.status.offset :] == bytes(ctypes.sizeof(Header) - Header.status.offset)

    def test_size(self) -> None:
        assert len(marshal(bytes(16), NO_DATA, 0, 0)) == ctypes.sizeof(Header)
        assert Header.from_buffer_copy(marshal(bytes(16), NO_DATA, 0, 0)).cmd_len == 16


class TestDecode:
    def test_good(self) -> None:
        assert decode(bytes(Header(dxfer_len=512))) == (0, b"", 512)

    @pytest.mark.parametrize(("resid", "transferred"), [(0, 8192), (3192, 5000), (8192, 0), (9000, 0), (-1, 8192)])
    def test_residual(self, resid: int, transferred: int) -> None:
        """A negative residual is an overrun: all that was asked for moved (SCSI Generic HOWTO)."""
        assert decode(bytes(Header(dxfer_len=8192, resid=resid)))[2] == transferred

    def test_check_condition(self) -> None:
        sense = bytes([0xF0, 0, 0x80, 0, 0, 4, 0, 10]) + bytes(10)
        header = Header(status=2, sb_len_wr=len(sense), driver_status=0x08, dxfer_len=8192, resid=8192)

        assert decode(bytes(header), sense + bytes(234)) == (2, sense, 0)

    def test_sense_beside_a_good_status(self) -> None:
        """Adapters that fetch sense data of their own accord may clear the status: it was a CHECK CONDITION."""
        assert decode(bytes(Header(sb_len_wr=18, driver_status=0x08)), bytes(18))[0] == 2

    @pytest.mark.parametrize("status", [0x08, 0x18, 0x28, 0x40])
    def test_other_statuses_are_the_callers(self, status: int) -> None:
        assert decode(bytes(Header(status=status)))[0] == status

    @pytest.mark.parametrize(
        ("host", "name"),
        [
            (0x01, "DID_NO_CONNECT"),
            (0x03, "DID_TIME_OUT"),
            (0x05, "DID_ABORT"),
            (0x07, "DID_ERROR"),
            (0x08, "DID_RESET"),
            (0x0E, "DID_TRANSPORT_DISRUPTED"),
            (0x0F, "DID_TRANSPORT_FAILFAST"),
            (0x10, "DID_TARGET_FAILURE"),
            (0x14, "DID_TRANSPORT_MARGINAL"),
            (0x77, "unknown host status"),
        ],
    )
    def test_host_errors(self, host: int, name: str) -> None:
        with pytest.raises(errors.TransportError, match=name):
            decode(bytes(Header(host_status=host)))

    def test_a_host_error_outweighs_a_status(self) -> None:
        with pytest.raises(errors.TransportError, match="DID_TIME_OUT"):
            decode(bytes(Header(host_status=3, status=2)))

    @pytest.mark.parametrize(("host", "status"), [(0x10, 2), (0x11, 0x18), (0x13, 2)])
    def test_the_hosts_opinion_of_an_answer_is_no_error(self, host: int, status: int) -> None:
        assert decode(bytes(Header(host_status=host, status=status)))[0] == status

    @pytest.mark.parametrize(("driver", "name"), [(0x06, "DRIVER_TIMEOUT"), (0x14, "DRIVER_ERROR"), (0x0E, "unknown")])
    def test_driver_errors(self, driver: int, name: str) -> None:
        with pytest.raises(errors.TransportError, match=name):
            decode(bytes(Header(driver_status=driver)))

    def test_another_size_is_refused(self) -> None:
        with pytest.raises(errors.Misuse):
            decode(bytes(87))


class TestLimits:
    def test_least_wins(self, tmp_path: Path) -> None:
        queue = tmp_path / "sg7" / "device" / "block" / "sdq" / "queue"
        queue.mkdir(parents=True)
        (queue / "max_sectors_kb").write_text("512\n")
        element = tmp_path / "scatter_elem_sz"
        element.write_text("16384\n")

        limits = transfer_limits("sg7", 786432, 128, tmp_path, element)

        assert [size for size, _ in limits] == [0xFFFFFF, 786432, 128 * 16384, 512 * 1024]
        assert "max_sectors_kb" in min(limits)[1]

    def test_nothing_told(self, tmp_path: Path) -> None:
        limits = transfer_limits("sg0", 0xFFFFFF, 0, tmp_path, tmp_path / "absent")

        assert [size for size, _ in limits] == [0xFFFFFF]

    def test_element_size_unknown(self, tmp_path: Path) -> None:
        """32 KiB is the driver's default."""
        assert min(transfer_limits("sg0", 0, 16, tmp_path, tmp_path / "absent"))[0] == 16 * 32768


class TestRefusals:
    def test_null_is_no_scsi_device(self) -> None:
        with pytest.raises(errors.UsageError, match="not a SCSI generic device"):
            SgTransport("/dev/null")

    def test_nothing_is_created(self, tmp_path: Path) -> None:
        with pytest.raises(errors.UsageError, match="No such file"):
            SgTransport(tmp_path / "sg0")

        assert list(tmp_path.iterdir()) == []

    def test_files_are_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "sg0"
        path.write_bytes(b"precious")
        with pytest.raises(errors.UsageError, match="not a SCSI generic device"):
            SgTransport(path)

        assert path.read_bytes() == b"precious"

    @pytest.mark.root
    def test_node_without_a_device_behind_it(self, tmp_path: Path) -> None:
        """sg200, which no machine here has: the kernel says so, or the container forbids the node."""
        need_root()
        node = tmp_path / "sg200"
        try:
            os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(21, 200))
        except PermissionError:
            missing("this container may not make device nodes")
        with pytest.raises(errors.TapeError):
            SgTransport(node)
