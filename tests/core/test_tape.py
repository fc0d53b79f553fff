"""Transport and Tape: what they refuse, and how replies become conditions. Drives that answer: tests/drive."""

import struct
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core import tape
from splitreel.core.softdrive import SoftDrive


def test_base_transport_executes_nothing() -> None:
    with tape.Transport() as transport, pytest.raises(errors.Misuse, match="does not execute"):
        transport.run_command(bytes(6))


def test_closed_transport_refuses_commands() -> None:
    transport = tape.Transport()
    transport.close()
    transport.close()

    with pytest.raises(errors.Misuse, match="closed"):
        transport.run_command(bytes(6))


@pytest.mark.parametrize("size", [0, 5, 17, 32])
def test_cdb_of_a_strange_length_is_refused(size: int) -> None:
    with pytest.raises(errors.Misuse, match="CDB"):
        tape.Transport().run_command(bytes(size))


def test_tape_refuses_a_template_of_another_command() -> None:
    transport = tape.Transport()

    with pytest.raises(errors.Misuse, match="080000"):
        tape.Tape(transport, bytes([8] + [0] * 5), bytes([8] + [0] * 5), bytes([16] + [0] * 5))


@pytest.mark.parametrize("limit", [0, 1 << 24])
def test_tape_refuses_a_block_limit_that_a_cdb_cannot_carry(limit: int) -> None:
    with pytest.raises(errors.Misuse, match="block limit"):
        tape.Tape(tape.Transport(), b"\x0a" + bytes(5), b"\x08" + bytes(5), b"\x10" + bytes(5), max_block=limit)


WRITE_6, READ_6, FILEMARKS_6 = (bytes([opcode, 0, 0, 0, 0, 0]) for opcode in (0x0A, 0x08, 0x10))
FILEMARKS_16 = b"\x80" + bytes(15)


def soft_tape(drive: SoftDrive, read: bytes = READ_6, filemarks: bytes = FILEMARKS_6) -> tape.Tape:
    drive.run_command(bytes(6))
    return tape.Tape(drive, WRITE_6, read, filemarks, max_block=1 << 20)


@pytest.mark.parametrize("size", [0, (1 << 20) + 1, 1 << 24])
def test_block_of_a_length_out_of_range_is_a_defect(tmp_path: Path, size: int) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive, pytest.raises(errors.Misuse):
        soft_tape(drive).write(bytes(size))


@pytest.mark.parametrize("capacity", [0, 1 << 24])
def test_read_of_a_length_out_of_range_is_a_defect(tmp_path: Path, capacity: int) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive, pytest.raises(errors.Misuse):
        soft_tape(drive).read(capacity)


@pytest.mark.parametrize("read", [READ_6, b"\x08\x02\x00\x00\x00\x00"], ids=["plain", "SILI"])
def test_shorter_block_has_its_own_length(tmp_path: Path, read: bytes) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        moving = soft_tape(drive, read)
        moving.write(b"0123456")
        drive.run_command(b"\x01" + bytes(5))

        assert moving.read(1000) == b"0123456"


def test_longer_block_is_a_limit_and_is_passed(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        moving = soft_tape(drive)
        moving.write(b"0123456")
        moving.write(b"next")
        drive.run_command(b"\x01" + bytes(5))
        moving.object_id = 0

        with pytest.raises(errors.LimitReached, match="has 7 bytes, room was for 4"):
            moving.read(4)
        assert moving.object_id == 1
        assert moving.read(4) == b"next"


def test_filemarks_count_as_objects(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        moving = soft_tape(drive, filemarks=FILEMARKS_16)
        moving.filemarks(3)
        moving.filemarks(1, immediate=True)
        moving.filemarks(0)

        assert moving.object_id == drive.end[1] == 4
        with pytest.raises(errors.Misuse):
            moving.filemarks(1 << 24)


def test_fault_names_the_object_and_carries_the_sense(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        moving = soft_tape(drive)
        moving.write(b"x")
        drive.inject("write-error")
        with pytest.raises(errors.CheckCondition) as raised:
            moving.write(b"y")

    assert raised.value.what == "writing a tape block (object 1)"
    assert raised.value.why == "medium error: write error, sense 3h/0Ch/00h"
    assert raised.value.sense == (3, 0x0C, 0)


def test_full_tape_wants_an_operator(tmp_path: Path) -> None:
    with SoftDrive.create(tmp_path / "a.tap", 4000, early_warning=0) as drive:
        moving = soft_tape(drive)
        moving.write(bytes(3000))
        with pytest.raises(errors.EndOfMedium) as raised:
            moving.write(bytes(3000))

        assert raised.value.exit_code == errors.EXIT_OPERATOR
        assert moving.object_id == 1


def test_context_closes_the_transport(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        pass

    with pytest.raises(errors.Misuse, match="closed"):
        drive.run_command(bytes(6))


def sense(key: int, ascq: int = 0, bits: int = 0, information: int | None = None, asc: int = 0) -> bytes:
    """Fixed format sense data."""
    code = 0x70 if information is None else 0xF0
    return struct.pack(">BBBiB4xBB4x", code, 0, key | bits, information or 0, 10, asc, ascq)


FM, EOM, ILI = 0x80, 0x40, 0x20


@pytest.mark.parametrize(
    ("answer", "moved", "error", "why"),
    [
        (sense(0, 2, EOM, 100), 100, errors.EndOfMedium, "no sense"),  # early warning, and the block is left over
        (sense(0, 1, FM), 100, errors.CheckCondition, "no sense"),
        (sense(8, 5), 100, errors.CheckCondition, "blank check"),
        (b"", 100, errors.CheckCondition, "without readable sense"),
        (b"\x7fvendor", 100, errors.CheckCondition, "without readable sense"),
        (None, 99, errors.IntegrityError, "another number of bytes"),
    ],
)
def test_write_that_was_not_taken_does_not_count(
    tmp_path: Path, answer: bytes | None, moved: int, error: type[errors.SplitreelError], why: str
) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        moving = soft_tape(drive)
        drive.inject_reply(0x0A, 0 if answer is None else 2, answer or b"", moved)
        with pytest.raises(error, match=why):
            moving.write(bytes(100))

        assert moving.object_id == 0


@pytest.mark.parametrize(
    ("answer", "condition"),
    [
        (sense(0, 2, EOM), 1),
        (sense(0, 2, EOM, 0), 1),
        (sense(0, 0, EOM), 1),
        (sense(0, 7, EOM), 2),
        (sense(1, 0, 0, asc=0x17), 0),  # recovered: the block is on tape
    ],
)
def test_write_that_was_taken_counts(tmp_path: Path, answer: bytes, condition: int) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        moving = soft_tape(drive)
        drive.inject_reply(0x0A, 2, answer, 100)

        assert moving.write(bytes(100)) == condition
        assert moving.object_id == 1


@pytest.mark.parametrize(
    ("answer", "moved", "error"),
    [
        (sense(0, 0, ILI, 10), 80, errors.IntegrityError),  # a block of 90, of which 80 came
        (sense(0, 0, ILI), 90, errors.CheckCondition),  # ILI without a residue: the length is unknown
        (sense(0, 0, ILI, 101), 0, errors.IntegrityError),  # a block of -1 bytes
        (bytes.fromhex("72000000 00000010 000a8000 8000000000000000 04020020"), 0, errors.LimitReached),  # -2^63
        (sense(0, 4, EOM), 0, errors.CheckCondition),  # beginning of partition
        (sense(3, 0, FM, asc=0x11), 0, errors.CheckCondition),  # an error beside a filemark is an error
    ],
)
def test_read_whose_length_is_not_certain_is_a_fault(
    tmp_path: Path, answer: bytes, moved: int, error: type[errors.SplitreelError]
) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        moving = soft_tape(drive)
        drive.inject_reply(0x08, 2, answer, moved)
        with pytest.raises(error):
            moving.read(100)


def test_filemarks_that_did_not_fit_are_a_full_tape(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        moving = soft_tape(drive)
        drive.inject_reply(0x10, 2, sense(0, 2, EOM, 2))
        with pytest.raises(errors.EndOfMedium):
            moving.filemarks(3)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0x08, errors.TapeError),
        (0x18, errors.ReservationConflict),
        (0x28, errors.TapeError),
        (0x40, errors.TransportError),
    ],
)
def test_statuses_without_sense_data_are_faults(tmp_path: Path, status: int, error: type[errors.TapeError]) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        moving = soft_tape(drive)
        drive.inject_reply(0x10, status, b"")
        with pytest.raises(error):
            moving.filemarks(0)
