"""The null drive: counts what it discards, answers what a writer of tapes asks."""

import pytest

from splitreel.core.null import NullDrive
from splitreel.core.sense import parse_sense
from splitreel.core.tape import Tape

END_OF_DATA = 4


@pytest.fixture
def drive() -> NullDrive:
    return NullDrive()


@pytest.fixture
def tape(drive: NullDrive) -> Tape:
    return Tape(drive, b"\x0a" + bytes(5), b"\x08" + bytes(5), b"\x10" + bytes(5), max_block=0xFFFFFF)


def test_blocks_and_filemarks_are_counted(drive: NullDrive, tape: Tape) -> None:
    assert [tape.write(bytes(1000)), tape.write(bytes(24)), tape.filemarks(2)] == [0, 0, 0]

    assert (drive.object_id, drive.file_id, drive.end, drive.bytes_written) == (4, 2, 4, 1024)


def test_nothing_is_kept(drive: NullDrive, tape: Tape) -> None:
    tape.write(b"x")
    drive.run_command(b"\x01" + bytes(5))

    assert tape.read(10) == END_OF_DATA
    assert drive.object_id == 0


@pytest.mark.parametrize(
    ("cdb", "moved"),
    [("34060000000000000000", 32), ("34000000000000000000", 20), ("050000000000", 6), ("1a000000fc00", 12)],
)
def test_answers(drive: NullDrive, cdb: str, moved: int) -> None:
    data = bytearray(64)

    assert drive.run_command(bytes.fromhex(cdb), 2, data) == (0, b"", moved)


def test_position_is_told_in_both_forms(drive: NullDrive, tape: Tape) -> None:
    tape.write(b"x")
    tape.filemarks(1)
    long, short = bytearray(32), bytearray(20)
    drive.run_command(bytes.fromhex("34060000000000000000"), 2, long)
    drive.run_command(bytes.fromhex("34000000000000000000"), 2, short)

    assert (long[0], long[15], long[23]) == (0, 2, 1)
    assert (short[0], short[7]) == (0, 2)


@pytest.mark.parametrize(
    ("cdb", "code"),
    [
        ("190000000000", (5, 0x20, 0)),
        ("110100000100", (5, 0x24, 0)),
        ("92000000000000000000000900000000", (8, 0, 5)),
        ("12010100ff00", (5, 0x24, 0)),
    ],
)
def test_refusals(drive: NullDrive, cdb: str, code: tuple[int, int, int]) -> None:
    status, sense, _ = drive.run_command(bytes.fromhex(cdb), 2, bytearray(255))
    decoded = parse_sense(sense)

    assert status == 2
    assert (decoded["key"], decoded["asc"], decoded["ascq"]) == code


def test_locate_and_space_move_within_what_was_written(drive: NullDrive, tape: Tape) -> None:
    tape.filemarks(5)
    drive.run_command(bytes.fromhex("92000000000000000000000300000000"))
    assert drive.object_id == 3
    drive.run_command(bytes.fromhex("110300000000"))
    assert drive.object_id == 5


def test_sense_when_asked_is_no_sense(drive: NullDrive) -> None:
    data = bytearray(18)
    drive.run_command(bytes.fromhex("030000001200"), 2, data)

    assert data == bytes([0x70, 0, 0, 0, 0, 0, 0, 10]) + bytes(10)
