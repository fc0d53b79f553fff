"""The software drive's medium: index, gaps, damage and files that change, seen through commands."""

import os
import struct
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core.checksum import crc32c
from splitreel.core.sense import parse_sense
from splitreel.core.softdrive import SoftDrive
from tests.core.test_softdrive import locate, tape_of
from tests.drive.tapfile import encode, parse

GAP = struct.pack("<I", 0xFFFFFFFE)
SPACE_BACK_1 = b"\x11\x00\xff\xff\xff\x00"


def code(
    drive: SoftDrive, cdb: bytes, data: bytearray | bytes | None = None, direction: int = 0
) -> tuple[int, int, int]:
    """Sense key, ASC and ASCQ of a command's answer; zeros when it was GOOD."""
    decoded = parse_sense(drive.run_command(cdb, direction, data)[1])
    return decoded["key"], decoded["asc"], decoded["ascq"]


@pytest.mark.parametrize("reopen", ["never", "with the index", "without it"])
def test_objects_are_found_by_number_and_file(tmp_path: Path, reopen: str) -> None:
    """10 000 objects, a filemark every seventh: more index points than there is room for at first."""
    path = tmp_path / "a.tap"
    objects = [None if number % 7 == 6 else number.to_bytes(2) for number in range(10_000)]
    drive = SoftDrive(path)
    if reopen == "never":
        tape = tape_of(drive)
        for block in objects:
            tape.filemarks(1, immediate=True) if block is None else tape.write(block)
    else:
        drive.close()
        path.write_bytes(encode(objects))
        drive = SoftDrive(path)
        if reopen == "with the index":
            drive.close()
            drive = SoftDrive(path)
        tape = tape_of(drive)
    with drive:
        assert drive.end == (10_000, 1428, len(encode(objects)))
        for number in (9_999, 1, 64, 4_097, 4_096, 8_191, 6):
            assert code(drive, locate(number)) == (0, 0, 0)
            assert drive.position[:2] == (number, objects[:number].count(None))
        for file_id in (1428, 0, 1, 700, 9):
            assert code(drive, b"\x92\x08" + bytes(2) + file_id.to_bytes(8) + bytes(4)) == (0, 0, 0)
            assert drive.position[:2] == (file_id * 7, file_id)


def test_index_of_a_closed_tape_saves_the_scan(tmp_path: Path) -> None:
    """A header damaged where only a scan would meet it, times put back: the end is known all the same."""
    path = tmp_path / "a.tap"
    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        for _ in range(200):
            tape.write(bytes(100))
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(108 * 50)
        file.write(b"\xff\xff\xff\x7f")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    with SoftDrive(path) as drive:
        assert drive.end[0] == 200
        tape = tape_of(drive)
        assert code(drive, locate(50)) == (0, 0, 0)
        with pytest.raises(errors.CheckCondition):
            tape.read(100)
        assert code(drive, locate(60)) == (3, 0x11, 0)
        assert code(drive, locate(120)) == (0, 0, 0)


def test_gaps_are_passed_in_both_directions(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    path.write_bytes(GAP + encode([b"one"]) + GAP * 3 + encode([b"two"]) + GAP)
    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        assert drive.end[0] == 2
        code(drive, locate(2))
        assert code(drive, SPACE_BACK_1) == (0, 0, 0)
        assert tape.read(10) == b"two"
        code(drive, locate(1))
        assert code(drive, SPACE_BACK_1) == (0, 0, 0)
        assert tape.read(10) == b"one"


def test_file_that_shrinks_under_the_lock_is_a_medium_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        tape.write(bytes(1000))
        tape.write(bytes(1000))
        code(drive, locate(0))
        os.truncate(path, 500)
        for _ in range(2):
            with pytest.raises(errors.CheckCondition) as raised:
                tape.read(1000)
            assert raised.value.sense == (3, 0x11, 0)


def test_trailer_that_changed_is_a_medium_error_on_the_way_back(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    with SoftDrive(path) as drive:
        tape_of(drive).write(bytes(1000))
        with path.open("r+b") as file:
            file.seek(1004)
            file.write(b"\x00\x00\x01\x00")
        assert code(drive, SPACE_BACK_1) == (3, 0x11, 0)


def test_record_marked_bad_is_stepped_over(tmp_path: Path) -> None:
    bad = struct.pack("<I", 0x80000003)
    path = tmp_path / "a.tap"
    path.write_bytes(bad + b"bad\0" + bad + encode([b"good"]))
    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        code(drive, locate(1))
        assert tape.read(4) == b"good"
        code(drive, locate(1))
        assert code(drive, SPACE_BACK_1) == (0, 0, 0)
        with pytest.raises(errors.CheckCondition):
            tape.read(3)


def test_filemarks_beyond_the_end_of_medium_are_refused(tmp_path: Path) -> None:
    """There is room behind the capacity to close a tape, not to write on."""
    path = tmp_path / "a.tap"
    with SoftDrive.create(path, 1000) as drive:
        tape = tape_of(drive)
        with pytest.raises(errors.EndOfMedium):
            tape.filemarks(20_000)
        assert drive.end[0] == drive.end[1] < 17_000

    assert set(parse(path)) == {None}


def test_unbuffered_writes_are_synchronised(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        tape = tape_of(drive)
        drive.run_command(b"\x15\x10\x00\x00\x04\x00", 1, bytes(4))
        tape.write(b"kept")
        drive.inject("power-loss")
        with pytest.raises(errors.UnitAttention):
            tape.write(b"x")

        assert drive.end[0] == 1


def test_side_file_that_cannot_be_written_costs_only_the_index(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    (tmp_path / "a.tap.idx.tmp").mkdir()
    with SoftDrive(path) as drive:
        tape_of(drive).write(b"x")
    with SoftDrive(path) as drive:
        assert drive.end[0] == 1
        assert drive.capacity == 0


def test_directory_in_place_of_a_tape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.TapeError):
        SoftDrive(tmp_path)


def test_write_protect_tab_can_be_slid(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    with SoftDrive.create(path, write_protected=True) as drive:
        tape = tape_of(drive)
        assert drive.write_protected
        for act in (lambda: tape.write(b"x"), lambda: tape.filemarks(1)):
            with pytest.raises(errors.WriteProtected):
                act()
        assert code(drive, b"\x19" + bytes(5)) == (7, 0x27, 0)
        assert code(drive, b"\x8d" + bytes(9) + (4).to_bytes(4) + bytes(2), bytes(4), 1) == (7, 0x27, 0)
        assert tape.filemarks(0) == 0
        drive.write_protected = False
        tape.write(b"x")
    with SoftDrive(path) as drive:
        assert not drive.write_protected


def test_position_flags_of_a_tape_that_fills(tmp_path: Path) -> None:
    with SoftDrive.create(tmp_path / "a", 10_000, early_warning=3_000, programmable_early_warning=2_000) as drive:
        tape = tape_of(drive)
        flags = []
        for _ in range(9):
            data = bytearray(32)
            drive.run_command(b"\x34\x06" + bytes(8), 2, data)
            flags.append(data[0])
            tape.write(bytes(992))

    assert flags == [0x80, 0, 0, 0, 0, 0, 0x01, 0x01, 0x41]


@pytest.mark.parametrize(
    ("cdb", "data", "direction"),
    [
        (b"\x0a\x01\x00\x00\x01\x00", bytes(10), 1),  # fixed WRITE without a block length
        (b"\x0a\x00\x00\x00\x0b\x00", bytes(10), 1),  # more than there is data
        (b"\x08\x00\x00\x00\x0b\x00", bytearray(10), 2),  # more than there is room
        (b"\x10\x02\x00\x00\x01\x00", None, 0),  # setmarks
        (b"\x2b\x02" + bytes(6) + b"\x01\x00", None, 0),  # another partition
        (b"\x92\x10" + bytes(14), None, 0),  # destination type 2
        (b"\x12\x00\x80\x00\xff\x00", bytearray(255), 2),  # a page without EVPD
        (b"\x8c\x02" + bytes(14), bytearray(255), 2),  # attribute service action 2
        (b"\x15\x11\x00\x00\x04\x00", bytes(4), 1),  # saving pages
        (b"\x4d\x01\x40\x00\x00\x00\x00\x00\xff\x00", bytearray(255), 2),  # saving parameters
    ],
)
def test_fields_out_of_range_are_refused(
    tmp_path: Path, cdb: bytes, data: bytes | bytearray | None, direction: int
) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        tape_of(drive)

        assert code(drive, cdb, data, direction) == (5, 0x24, 0)


def test_cdb_that_is_too_short_is_a_defect(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive, pytest.raises(errors.Misuse, match="too short"):
        drive.run_command(b"\x92" + bytes(9))


def test_side_file_with_an_attribute_longer_than_its_room_is_ignored(tmp_path: Path) -> None:
    """Right checksum and all: READ ATTRIBUTE would copy what lies behind the attribute."""
    SoftDrive.create(tmp_path / "a.tap", capacity=1 << 30, barcode="X").close()
    side = bytearray((tmp_path / "a.tap.idx").read_bytes())
    at = side.index(struct.pack("=HHI1s", 0x0806, 1, 1, b"X"))
    checked = at + 16 * 264
    side[at + 2 : at + 4] = b"\xff\xff"
    assert side[checked : checked + 4] != struct.pack("=I", crc32c(side[:checked]))
    side[checked : checked + 4] = struct.pack("=I", crc32c(side[:checked]))
    (tmp_path / "a.tap.idx").write_bytes(side)
    with SoftDrive(tmp_path / "a.tap") as drive:
        tape_of(drive)
        assert drive.capacity == 0
        assert code(drive, b"\x8c\x00" + bytes(6) + b"\x08\x06" + bytes(2) + b"\x40\x00" + bytes(2), None)[0] == 5


def test_spacing_by_the_most_negative_count_ends_at_the_beginning(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        tape = tape_of(drive)
        for _ in range(3):
            tape.write(b"block")

        assert code(drive, b"\x91\x00" + bytes(2) + b"\x80" + bytes(11)) == (0, 0, 4)
        assert drive.position == (0, 0, 0)
