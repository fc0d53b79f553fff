"""Conformance to SSC-4, command by command, of every drive there is to test: the software drive and tgtd's.

What tgtd is known to do otherwise stands in DIFFERENCES, and must stay so: a test that passes there unexpectedly fails.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from splitreel import errors
from splitreel.core.sense import parse_sense
from splitreel.core.softdrive import SoftDrive
from splitreel.core.tape import Transport
from splitreel.drive import open_transport
from tests.support import missing

# test -> what tgtd 1.0.85 does instead
DIFFERENCES = {
    "test_write_of_no_bytes_writes_nothing": "writes a block of length 0",
    "test_read_of_no_bytes_moves_nothing": "reads a block and reports its length as a residue",
    "test_longer_block_is_cut_with_a_negative_residue": "sends no data at all",
    "test_shorter_block_has_a_positive_residue": "sends only as many bytes as the residue says",
    "test_suppressed_length_indication": "ignores SILI in variable mode",
    "test_end_of_data_is_a_blank_check": "leaves ASCQ 0 and sets EOM",
    "test_fixed_read_of_another_length": "answers 03/3100 instead of ILI",
    "test_fixed_read_at_end_of_data": "answers 03/3100 instead of a blank check",
    "test_fixed_read_stops_at_filemark": "sends as many bytes as were asked for",
    "test_space_over_blocks_stops_behind_a_filemark": "counts a filemark as a block",
    "test_space_backward_over_blocks_stops_before_a_filemark": "counts a filemark as a block",
    "test_space_beyond_end_of_data": "answers sense key 0 without a residue, as when it just reaches the end",
    "test_space_before_the_beginning": "answers GOOD",
    "test_space_backward_over_filemarks": "lands before the block that precedes the filemark",
    "test_space_16": "has no SPACE(16)",
    "test_locate_object": "has no LOCATE",
    "test_locate_file": "has no LOCATE",
    "test_locate_beyond_the_end_is_a_blank_check": "has no LOCATE",
    "test_locate_end_of_data": "has no LOCATE",
    "test_position_long": "always answers that it does not know",
    "test_position_short": "always answers that it does not know",
    "test_position_extended": "has no extended form",
    "test_unload_then_load": "UNLOAD does nothing",
    "test_prevented_removal": "UNLOAD does nothing",
    "test_compression_page_is_changeable": "MODE SELECT takes no pages",
    "test_programmable_early_warning_page": "has no such page",
    "test_descriptor_format_sense": "MODE SELECT takes no pages",
    "test_wrong_mode_parameters[buffered-mode]": "takes it",
    "test_wrong_mode_parameters[density]": "takes it",
    "test_wrong_mode_parameters[page-cut]": "answers 05/2600",
    "test_wrong_mode_parameters[header-cut]": "answers 05/2400",
    "test_mode_select_10": "has no MODE SELECT(10)",
    "test_log_pages": "has no LOG SENSE",
    "test_attributes": "has no medium auxiliary memory",
    "test_wrong_attributes": "has no medium auxiliary memory",
    "test_density": "has no REPORT DENSITY SUPPORT",
    "test_erase": "has no ERASE",
    "test_filemarks_16": "has no WRITE FILEMARKS(16)",
    "test_one_opcode": "calls an unknown command supported",
    "test_wrong_fields[fixed-without-length]": "answers GOOD, with bytes that are nobody's",
    "test_reserve": "has no RESERVE(6)",
    "test_request_sense_takes_the_unit_attention": "answers with a CHECK CONDITION",
}
FM, EOM, ILI = "filemark", "eom", "ili"


@dataclass
class Answer:
    """Status, sense data decoded, and what came in."""

    status: int
    sense: dict[str, Any]
    data: bytes

    @property
    def code(self) -> tuple[int, int, int]:
        return self.sense["key"], self.sense["asc"], self.sense["ascq"]

    @property
    def residue(self) -> int | None:
        return self.sense["information"] if self.sense["information_valid"] else None


class Bench:
    """A drive on the bench: CDBs in, answers out."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def __call__(self, cdb: bytes | str, out: bytes | None = None, room: int = 0) -> Answer:
        cdb = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
        data = bytearray(room) if room else out
        direction = 2 if room else 1 if out else 0
        status, sense, moved = self.transport.run_command(cdb, direction, data)
        return Answer(status, parse_sense(sense), bytes(data[:moved]) if room and data else b"")

    def good(self, cdb: bytes | str, out: bytes | None = None, room: int = 0) -> bytes:
        answer = self(cdb, out, room)
        assert answer.status == 0, (cdb, answer)
        return answer.data

    def write(self, *blocks: bytes | int) -> None:
        """Blocks as bytes; an int is so many filemarks."""
        for block in blocks:
            if isinstance(block, int):
                self.good(b"\x10\x00" + block.to_bytes(3) + b"\x00")
            else:
                self.good(b"\x0a\x00" + len(block).to_bytes(3) + b"\x00", block)

    def read(self, room: int, flags: int = 0) -> Answer:
        return self(bytes([0x08, flags]) + room.to_bytes(3) + b"\x00", room=room)

    def space(self, code: int, count: int) -> Answer:
        return self(bytes([0x11, code]) + (count & 0xFFFFFF).to_bytes(3) + b"\x00")

    def rewind(self) -> None:
        self.good("010000000000")

    def next(self) -> bytes | str:
        """What stands at the position: a block (of at most 64 bytes), "filemark" or "end"."""
        answer = self.read(128)
        if answer.sense[FM]:
            return "filemark"
        return "end" if answer.sense["key"] == 8 else answer.data[: 128 - (answer.residue or 0)]


def softdrive(request: pytest.FixtureRequest) -> Transport:
    path: Path = request.getfixturevalue("tmp_path") / "a.tap"
    return SoftDrive.create(path, 100_000_000, early_warning=10_000_000, barcode="TST001L9")


def tgtd(request: pytest.FixtureRequest) -> Transport:
    url = request.getfixturevalue("tgtd_drive").url
    try:
        return open_transport(url)
    except errors.UsageError as error:
        missing(f"needs the iscsi transport: {error}")


@pytest.fixture(params=[softdrive, pytest.param(tgtd, marks=pytest.mark.tgtd)], ids=lambda opened: opened.__name__)
def fresh(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A drive to which nothing has been sent."""
    opened: Callable[[pytest.FixtureRequest], Transport] = request.param
    case = request.node.name.replace("tgtd-", "").replace("[tgtd]", "")
    difference = DIFFERENCES.get(case) or DIFFERENCES.get(request.function.__name__)
    if opened is tgtd and difference:
        request.applymarker(pytest.mark.xfail(reason=f"tgtd: {difference}", strict=True))
    with opened(request) as transport:
        yield Bench(transport)


@pytest.fixture
def drive(fresh: Bench) -> Bench:
    """A drive whose first unit attention is taken; empty tape, at the beginning."""
    fresh("000000000000")
    return fresh


# --- state ---


def test_first_command_meets_a_unit_attention_once(fresh: Bench) -> None:
    assert fresh("000000000000").code == (6, 0x29, 0)
    assert fresh("000000000000").status == 0


def test_inquiry_passes_the_unit_attention(fresh: Bench) -> None:
    data = fresh.good("120000006000", room=96)

    assert (data[0], data[1] & 0x80, data[3] & 0x0F) == (1, 0x80, 2)
    assert fresh("000000000000").code == (6, 0x29, 0)


def test_request_sense_takes_the_unit_attention(fresh: Bench) -> None:
    assert parse_sense(fresh.good("030000001200", room=18))["asc"] == 0x29
    assert fresh("000000000000").status == 0
    assert parse_sense(fresh.good("030000001200", room=18))["key"] == 0


@pytest.mark.parametrize("page", [0x00, 0x80, 0x83, 0xB0])
def test_vital_product_data(drive: Bench, page: int) -> None:
    data = drive.good(bytes([0x12, 1, page, 0, 252, 0]), room=252)

    assert data[1] == page
    assert len(data) == 4 + int.from_bytes(data[2:4])
    assert page in drive.good("12010000fc00", room=252)[4:]


def test_inquiry_is_cut_to_the_allocation_length(drive: Bench) -> None:
    assert len(drive.good("120000000500", room=5)) == 5


def test_block_limits(drive: Bench) -> None:
    data = drive.good("050000000000", room=6)

    assert int.from_bytes(data[1:4]) >= 1 << 20
    assert int.from_bytes(data[4:6]) <= 4


def test_unknown_command_is_refused(drive: Bench) -> None:
    assert drive("040000000000").code == (5, 0x20, 0)
    assert drive("0f0000000000").code == (5, 0x20, 0)


def test_unload_then_load(drive: Bench) -> None:
    drive.write(b"x")
    drive.good("1b0000000000")
    assert drive("000000000000").code == (2, 0x3A, 0)
    assert drive.read(10).code == (2, 0x3A, 0)
    drive.good("1b0000000100")
    assert drive("000000000000").code == (6, 0x28, 0)
    assert drive.next() == b"x"


def test_prevented_removal(drive: Bench) -> None:
    drive.good("1e0000000100")
    assert drive("1b0000000000").code == (5, 0x53, 2)
    drive.good("1e0000000000")
    drive.good("1b0000000000")


def test_reserve(drive: Bench) -> None:
    drive.good("160000000000")
    drive.good("170000000000")


# --- blocks and filemarks, variable length ---


@pytest.mark.parametrize("size", [1, 2, 3, 511, 512, 65537, 1 << 20])
def test_block_reads_back_as_written(drive: Bench, size: int) -> None:
    block = bytes(range(256)) * (size // 256 + 1)
    drive.write(block[:size])
    drive.rewind()

    answer = drive.read(size)
    assert (answer.status, answer.data) == (0, block[:size])


def test_write_of_no_bytes_writes_nothing(drive: Bench) -> None:
    drive.good("0a0000000000")
    drive.write(b"x")
    drive.rewind()

    assert drive.next() == b"x"


def test_read_of_no_bytes_moves_nothing(drive: Bench) -> None:
    drive.write(b"x")
    drive.rewind()

    drive.good("080000000000")
    assert drive.next() == b"x"


def test_longer_block_is_cut_with_a_negative_residue(drive: Bench) -> None:
    drive.write(b"0123456789", b"next")
    drive.rewind()

    answer = drive.read(4)
    assert (answer.code, answer.sense[ILI], answer.residue, answer.data) == ((0, 0, 0), 1, -6, b"0123")
    assert drive.next() == b"next"


def test_shorter_block_has_a_positive_residue(drive: Bench) -> None:
    drive.write(b"0123456789")
    drive.rewind()

    answer = drive.read(16)
    assert (answer.code, answer.sense[ILI], answer.residue, answer.data) == ((0, 0, 0), 1, 6, b"0123456789")


def test_suppressed_length_indication(drive: Bench) -> None:
    drive.write(b"0123456789", b"0123456789")
    drive.rewind()

    assert drive.read(16, flags=2).data == b"0123456789"
    longer = drive.read(4, flags=2)
    assert (longer.status, longer.data) == (0, b"0123")


def test_filemark_stops_a_read(drive: Bench) -> None:
    drive.write(b"a", 1, b"b")
    drive.rewind()
    drive.read(1)

    answer = drive.read(100)
    assert (answer.code, answer.sense[FM], answer.residue) == ((0, 0, 1), 1, 100)
    assert drive.next() == b"b"


def test_end_of_data_is_a_blank_check(drive: Bench) -> None:
    drive.write(b"a")

    answer = drive.read(100)
    assert (answer.code, answer.residue, answer.sense[EOM]) == ((8, 0, 5), 100, 0)


def test_writing_ends_the_data(drive: Bench) -> None:
    drive.write(b"a", b"b", 1, b"c")
    drive.rewind()
    drive.write(b"new")
    drive.rewind()

    assert [drive.next(), drive.next()] == [b"new", "end"]


def test_many_filemarks(drive: Bench) -> None:
    drive.write(b"a", 3)
    drive.rewind()

    assert [drive.next() for _ in range(5)] == [b"a", "filemark", "filemark", "filemark", "end"]


def test_synchronize_writes_nothing(drive: Bench) -> None:
    drive.write(b"a", 0, b"b")
    drive.rewind()

    assert [drive.next() for _ in range(3)] == [b"a", b"b", "end"]


def test_immediate_filemark(drive: Bench) -> None:
    drive.good("100100000100")
    drive.rewind()

    assert drive.next() == "filemark"


def test_filemarks_16(drive: Bench) -> None:
    drive.good("80000000000000000000000000000200")
    drive.rewind()

    assert [drive.next() for _ in range(3)] == ["filemark", "filemark", "end"]


# --- fixed length ---


def set_block_length(drive: Bench, length: int) -> None:
    drive.good("151000000c00", bytes([0, 0, 0x10, 8, 0, 0, 0, 0, 0]) + length.to_bytes(3))


def test_fixed_blocks(drive: Bench) -> None:
    set_block_length(drive, 4)
    drive.good("0a0100000300", b"aaaabbbbcccc")
    drive.rewind()
    assert drive("080100000300", room=12).data == b"aaaabbbbcccc"

    set_block_length(drive, 0)
    drive.rewind()
    assert drive.next() == b"aaaa"


def test_fixed_read_stops_at_filemark(drive: Bench) -> None:
    drive.write(b"aaaa", b"bbbb", 1, b"cccc")
    drive.rewind()
    set_block_length(drive, 4)

    answer = drive("080100000500", room=20)
    assert (answer.code, answer.sense[FM], answer.residue, answer.data) == ((0, 0, 1), 1, 3, b"aaaabbbb")


def test_fixed_read_at_end_of_data(drive: Bench) -> None:
    drive.write(b"aaaa")
    drive.rewind()
    set_block_length(drive, 4)

    answer = drive("080100000500", room=20)
    assert (answer.code, answer.residue, answer.data) == ((8, 0, 5), 4, b"aaaa")


def test_fixed_read_of_another_length(drive: Bench) -> None:
    drive.write(b"aaaa", b"odd", b"next")
    drive.rewind()
    set_block_length(drive, 4)

    answer = drive("080100000300", room=12)
    assert (answer.code, answer.sense[ILI], answer.residue, answer.data) == ((0, 0, 0), 1, 2, b"aaaa")
    assert drive("080100000100", room=4).data == b"next"


def test_suppressing_length_indication_in_fixed_mode_is_refused(drive: Bench) -> None:
    set_block_length(drive, 4)

    assert drive("080300000100", room=4).code == (5, 0x24, 0)


@pytest.mark.parametrize(
    "cdb",
    [
        pytest.param("080100000100", id="fixed-without-length"),
        pytest.param("110500000100", id="space-code"),
        pytest.param("34050000000000000000", id="position-form"),
        pytest.param("120001000500", id="page-without-evpd"),
        pytest.param("12011100ff00", id="page"),
    ],
)
def test_wrong_fields(drive: Bench, cdb: str) -> None:
    assert drive(cdb, room=255).code == (5, 0x24, 0)


# --- positions ---


@pytest.fixture
def spaced(drive: Bench) -> Bench:
    """a b | c d | | e, at the beginning; objects 0..7."""
    drive.write(b"a", b"b", 1, b"c", b"d", 2, b"e")
    drive.rewind()
    return drive


def test_space_over_blocks(spaced: Bench) -> None:
    assert spaced.space(0, 1).status == 0
    assert spaced.next() == b"b"


def test_space_over_no_blocks(spaced: Bench) -> None:
    assert spaced.space(0, 0).status == 0
    assert spaced.next() == b"a"


def test_space_over_blocks_stops_behind_a_filemark(spaced: Bench) -> None:
    answer = spaced.space(0, 5)

    assert (answer.code, answer.sense[FM], answer.residue) == ((0, 0, 1), 1, 3)
    assert spaced.next() == b"c"


def test_space_backward_over_blocks(spaced: Bench) -> None:
    spaced.space(0, 2)
    assert spaced.space(0, -1).status == 0
    assert spaced.next() == b"b"


def test_space_backward_over_blocks_stops_before_a_filemark(spaced: Bench) -> None:
    spaced.space(1, 1)
    spaced.space(0, 1)

    answer = spaced.space(0, -3)
    assert (answer.code, answer.sense[FM], answer.residue) == ((0, 0, 1), 1, 2)
    assert spaced.next() == "filemark"


def test_space_over_filemarks(spaced: Bench) -> None:
    assert spaced.space(1, 1).status == 0
    assert spaced.next() == b"c"
    assert spaced.space(1, 2).status == 0
    assert spaced.next() == b"e"


def test_space_backward_over_filemarks(spaced: Bench) -> None:
    spaced.space(3, 0)
    assert spaced.space(1, -2).status == 0
    assert [spaced.next(), spaced.next(), spaced.next()] == ["filemark", "filemark", b"e"]
    assert spaced.space(1, -3).status == 0
    assert [spaced.next(), spaced.next()] == ["filemark", b"c"]


def test_space_beyond_end_of_data(spaced: Bench) -> None:
    answer = spaced.space(1, 5)
    assert (answer.code, answer.residue) == ((8, 0, 5), 2)
    assert spaced.next() == "end"


def test_space_before_the_beginning(spaced: Bench) -> None:
    spaced.space(0, 1)
    answer = spaced.space(0, -5)

    assert (answer.code, answer.sense[EOM], answer.residue) == ((0, 0, 4), 1, 4)
    assert spaced.next() == b"a"


def test_space_to_end_of_data(spaced: Bench) -> None:
    assert spaced.space(3, 0).status == 0
    assert spaced.next() == "end"
    spaced.write(b"f")
    spaced.rewind()
    spaced.space(1, 3)
    assert [spaced.next(), spaced.next(), spaced.next()] == [b"e", b"f", "end"]


def test_space_16(spaced: Bench) -> None:
    spaced.good(struct.pack(">BBxxq4x", 0x91, 1, 1))
    assert spaced.next() == b"c"
    spaced.good(struct.pack(">BBxxq4x", 0x91, 0, -1))
    assert spaced.next() == b"c"
    spaced.good(struct.pack(">BBxxq4x", 0x91, 3, 0))
    assert spaced.next() == "end"


def test_locate_object(spaced: Bench) -> None:
    expected = [b"a", b"b", "filemark", b"c", b"d", "filemark", "filemark", b"e", "end"]
    for order in (range(9), range(8, -1, -1), (3, 7, 0, 5)):
        for number in order:
            spaced.good(struct.pack(">BBBIxxx", 0x2B, 0, 0, number))
            assert spaced.next() == expected[number]
            spaced.good(struct.pack(">BBBBQ4x", 0x92, 0, 0, 0, number))
            assert spaced.next() == expected[number]


def test_locate_file(spaced: Bench) -> None:
    for number, first in enumerate([b"a", b"c", "filemark", b"e"]):
        spaced.good(struct.pack(">BBBBQ4x", 0x92, 1 << 3, 0, 0, number))
        assert spaced.next() == first


def test_locate_beyond_the_end_is_a_blank_check(spaced: Bench) -> None:
    for cdb in (struct.pack(">BBBIxxx", 0x2B, 0, 0, 9), struct.pack(">BBBBQ4x", 0x92, 1 << 3, 0, 0, 4)):
        spaced.rewind()
        assert spaced(cdb).code == (8, 0, 5)
        assert spaced.next() == "end"


def test_locate_end_of_data(spaced: Bench) -> None:
    spaced.good(struct.pack(">BBBBQ4x", 0x92, 3 << 3, 0, 0, 0))
    assert spaced.next() == "end"


def test_position_long(spaced: Bench) -> None:
    assert spaced.good("34060000000000000000", room=32) == b"\x80" + bytes(31)
    spaced.space(1, 2)
    assert spaced.good("34060000000000000000", room=32) == struct.pack(">B7xQQ8x", 0, 6, 2)


def test_position_short(spaced: Bench) -> None:
    assert spaced.good("34000000000000000000", room=20) == b"\x80" + bytes(19)
    spaced.space(1, 1)
    assert spaced.good("34000000000000000000", room=20) == struct.pack(">B3xII8x", 0, 3, 3)
    spaced.space(3, 0)
    spaced.write(b"123456", b"xx")
    assert spaced.good("34000000000000000000", room=20) == struct.pack(">B3xIIxBHI", 0, 10, 8, 0, 2, 14 + 10)


def test_position_extended(spaced: Bench) -> None:
    spaced.space(3, 0)
    spaced.write(b"123456")

    assert spaced.good("34080000000000002000", room=32) == struct.pack(">BBHIQQQ", 0, 0, 28, 1, 9, 8, 14)


def test_erase(spaced: Bench) -> None:
    spaced.space(1, 1)
    spaced.good("190000000000")
    spaced.rewind()

    assert [spaced.next() for _ in range(4)] == [b"a", b"b", "filemark", "end"]


# --- mode, log, attributes ---


def test_mode_sense(drive: Bench) -> None:
    six, ten = drive.good("1a003f00fc00", room=252), drive.good("5a003f00000000020000", room=512)

    assert (six[0] + 1, six[3]) == (len(six), 8)
    assert (int.from_bytes(ten[:2]) + 2, int.from_bytes(ten[6:8])) == (len(ten), 8)
    assert six[2] & 0x70 == 0x10
    assert six[9:12] == bytes(3)
    assert {0x0F, 0x10} <= set(pages(six[12:]))


def pages(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 2 <= len(data):
        size = 4 + int.from_bytes(data[at + 2 : at + 4]) if data[at] & 0x40 else 2 + data[at + 1]
        found[data[at] & 0x3F] = data[at : at + size]
        at += size
    return found


def test_block_length_is_set_and_told(drive: Bench) -> None:
    set_block_length(drive, 512)

    assert drive.good("1a000000fc00", room=252)[9:12] == b"\x00\x02\x00"


def test_mode_select_10(drive: Bench) -> None:
    drive.good("55100000000000001000", bytes([0, 0, 0, 0x10, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 4, 0]))

    assert drive.good("1a000000fc00", room=252)[9:12] == b"\x00\x04\x00"


def test_compression_page_is_changeable(drive: Bench) -> None:
    mask = drive.good("1a084f00fc00", room=252)[4:]
    assert mask[2] & 0x80
    for dce in (0x00, 0x80):
        drive.good("151000001400", bytes([0, 0, 0x10, 0, 0x0F, 14, dce]) + bytes(13))
        assert drive.good("1a080f00fc00", room=252)[6] & 0x80 == dce


def test_programmable_early_warning_page(drive: Bench) -> None:
    page = bytearray(drive.good("5a081001000000020000", room=512)[8:])
    assert page[:4] == bytes([0x50, 1, 0, 28])
    page[6:8] = (25).to_bytes(2)
    drive.good("55100000000000002800", bytes([0, 0, 0, 0x10, 0, 0, 0, 0]) + page)

    assert drive.good("5a081001000000020000", room=512)[14:16] == (25).to_bytes(2)
    assert drive.transport.end == (0, 0, 0)  # type: ignore[attr-defined]


def test_descriptor_format_sense(drive: Bench) -> None:
    drive.good("151000001000", bytes([0, 0, 0x10, 0, 0x0A, 10, 4]) + bytes(9))
    drive.write(b"0123456789", 1)
    drive.rewind()

    status, sense, _ = drive.transport.run_command(b"\x08\x00\x00\x00\x04\x00", 2, bytearray(4))
    assert (status, sense[0]) == (2, 0x72)
    assert parse_sense(sense)["information"] == -6
    answer = drive.read(9)
    assert (answer.code, answer.sense[FM], answer.residue) == ((0, 0, 1), 1, 9)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(bytes([0, 0, 0x30, 0]), (5, 0x26, 0), id="buffered-mode"),
        pytest.param(bytes([0, 0, 0x10, 7]) + bytes(7), (5, 0x26, 0), id="descriptor-length"),
        pytest.param(bytes([0, 0, 0x10, 8, 0x42]) + bytes(7), (5, 0x26, 0), id="density"),
        pytest.param(bytes([0, 0, 0x10, 0, 0x2A, 2, 0, 0]), (5, 0x26, 0), id="page"),
        pytest.param(bytes([0, 0, 0x10, 0, 0x0F, 14, 0, 0]), (5, 0x1A, 0), id="page-cut"),
        pytest.param(bytes([0, 0, 0x10]), (5, 0x1A, 0), id="header-cut"),
    ],
)
def test_wrong_mode_parameters(drive: Bench, data: bytes, code: tuple[int, int, int]) -> None:
    before = drive.good("1a003f00fc00", room=252)

    assert drive(bytes([0x15, 0x10, 0, 0, len(data), 0]), data).code == code
    assert drive.good("1a003f00fc00", room=252) == before


def test_saved_pages_are_refused(drive: Bench) -> None:
    assert drive("1a00ff00fc00", room=252).code == (5, 0x39, 0)


def test_log_pages(drive: Bench) -> None:
    assert drive.good("4d004000000000010000", room=256)[4:] == bytes([0, 2, 3, 0x17, 0x2E, 0x31])
    for page in (2, 3, 0x17, 0x2E, 0x31):
        data = drive.good(bytes([0x4D, 0, 0x40 | page, 0, 0, 0, 0, 4, 0, 0]), room=1024)
        assert (data[0], int.from_bytes(data[2:4])) == (page, len(data) - 4)
    assert drive("4d004500000000010000", room=256).code == (5, 0x24, 0)


def test_attributes(drive: Bench) -> None:
    drive.write(b"x" * 3_000_000)
    label = b"\x08\x03\x02\x00\x05label"
    drive.good(b"\x8d" + bytes(9) + (len(label) + 4).to_bytes(4) + bytes(2), len(label).to_bytes(4) + label)

    listed = drive.good(b"\x8c\x01" + bytes(8) + (4096).to_bytes(4) + bytes(2), room=4096)
    values = drive.good(b"\x8c\x00" + bytes(8) + (4096).to_bytes(4) + bytes(2), room=4096)
    assert int.from_bytes(listed[:4]) == len(listed) - 4
    assert int.from_bytes(values[:4]) == len(values) - 4
    assert b"\x08\x03" in [listed[i : i + 2] for i in range(4, len(listed), 2)]
    assert label in values and b"TST001L9" in values
    assert values[4:17] == b"\x00\x00\x80\x00\x08" + (92).to_bytes(8)  # 97 000 000 bytes left, in whole MiB
    drive.good(b"\x8d" + bytes(9) + (9).to_bytes(4) + bytes(2), b"\x00\x00\x00\x05\x08\x03\x02\x00\x00")
    assert label not in drive.good(b"\x8c\x00" + bytes(8) + (4096).to_bytes(4) + bytes(2), room=4096)


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (b"\x00\x00\x00\x00\x01x", 0x26),  # remaining capacity: read-only
        (b"\x08\x02\x01\x00\x09" + b"x" * 9, 0x26),  # longer than the attribute may be
        (b"\x08\x02\x01\x00\x09x", 0x1A),  # cut short
    ],
)
def test_wrong_attributes(drive: Bench, item: bytes, code: int) -> None:
    data = len(item).to_bytes(4) + item

    assert drive(b"\x8d" + bytes(9) + len(data).to_bytes(4) + bytes(2), data).code == (5, code, 0)


def test_density(drive: Bench) -> None:
    data = drive.good("44000000000000020000", room=512)

    assert (len(data) - 2, data[4]) == (int.from_bytes(data[:2]), drive.good("1a000000fc00", room=252)[4])


def test_luns(drive: Bench) -> None:
    data = drive.good("a00000000000000001000000", room=256)

    assert len(data) >= 16 and int.from_bytes(data[:4]) == len(data) - 8


def test_opcodes(drive: Bench) -> None:
    data = drive.good("a30c00000000000010000000", room=4096)
    known = {data[i] for i in range(4, 4 + int.from_bytes(data[:4]), 8)}

    assert {0x00, 0x01, 0x08, 0x0A, 0x10, 0x11, 0x12} <= known
    for opcode in set(range(0x20)) - known - {0x0B, 0x14, 0x04}:
        assert drive(bytes([opcode, 0, 0, 0, 0, 0])).code == (5, 0x20, 0)


def test_one_opcode(drive: Bench) -> None:
    write = drive.good("a30c810a0000000001000000", room=256)
    none = drive.good("a30c010f0000000001000000", room=256)

    assert (write[1], write[2:4], len(write)) == (0x83, b"\x00\x06", 22)
    assert none[1] == 1
