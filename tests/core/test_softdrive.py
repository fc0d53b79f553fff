"""The software drive as a medium: capacity, crashes, side file, locks, faults. Commands: tests/drive/test_ssc.py."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.softdrive import SoftDrive
from splitreel.core.tape import Tape, Transport
from tests.drive.tapfile import encode, parse

TEST_UNIT_READY = bytes(6)
REWIND = b"\x01" + bytes(5)
EARLY_WARNING, PROGRAMMABLE_EARLY_WARNING, FILEMARK, END_OF_DATA = 1, 2, 3, 4


def tape_of(drive: Transport) -> Tape:
    """The drive's tape, its first unit attention taken."""
    drive.run_command(TEST_UNIT_READY)
    return Tape(drive, b"\x0a" + bytes(5), b"\x08" + bytes(5), b"\x10" + bytes(5), max_block=0xFFFFFF)


def read_all(drive: SoftDrive, tape: Tape, capacity: int = 1 << 16) -> list[bytes | None]:
    """Every object from the beginning to end of data, as tapfile.parse gives them."""
    drive.run_command(REWIND)
    objects: list[bytes | None] = []
    while (block := tape.read(capacity)) != END_OF_DATA:
        objects.append(block if isinstance(block, bytes) else None)
    return objects


@given(st.lists(st.none() | st.binary(min_size=1, max_size=300), max_size=20))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_a_tap_file_and_reads_back(tmp_path_factory, objects: list[bytes | None]) -> None:
    path = tmp_path_factory.mktemp("tap") / "a.tap"
    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        for block in objects:
            assert (tape.filemarks(1) if block is None else tape.write(block)) == 0
        assert tape.object_id == len(objects)
        assert read_all(drive, tape) == objects

    assert parse(path) == objects
    assert path.read_bytes() == encode(objects)


def test_tap_file_made_elsewhere_reads_back(tmp_path: Path) -> None:
    objects = [b"VOL1".ljust(80), None, b"x" * 7, b"y" * 4096, None, None]
    path = tmp_path / "a.tap"
    path.write_bytes(encode(objects))

    with SoftDrive(path) as drive:
        assert read_all(drive, tape_of(drive)) == objects


def test_gaps_are_passed_and_end_of_medium_marker_ends_the_data(tmp_path: Path) -> None:
    gap, end = struct.pack("<I", 0xFFFFFFFE), struct.pack("<I", 0xFFFFFFFF)
    path = tmp_path / "a.tap"
    path.write_bytes(gap + encode([b"one"]) + gap * 2 + encode([None, b"two"]) + end + encode([b"beyond"]))

    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        assert read_all(drive, tape) == [b"one", None, b"two"]
        assert drive.repaired_bytes == 0
        assert drive.run_command(b"\x11\x00\xff\xff\xfd\x00")[1][12:14] == b"\x00\x01"  # SPACE -3 blocks: a filemark
        assert drive.position[:2] == (1, 0)


def test_overwriting_cuts_off_what_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        for size in (100, 200, 300):
            tape.write(bytes(size))
        drive.run_command(REWIND)
        tape.read(100)
        tape.write(b"new")

    assert parse(path) == [bytes(100), b"new"]


def test_capacity_warns_then_refuses_and_refused_blocks_are_not_on_tape(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    with SoftDrive.create(path, 10_000, early_warning=3_000, programmable_early_warning=2_000) as drive:
        tape = tape_of(drive)
        seen = [tape.write(bytes(992)) for _ in range(10)]  # 1000 bytes each on tape
        with pytest.raises(errors.EndOfMedium) as raised:
            tape.write(b"z")

        assert seen == [0] * 5 + [PROGRAMMABLE_EARLY_WARNING] + [0] + [EARLY_WARNING] * 3
        assert raised.value.sense == (0xD, 0, 2)
        assert tape.object_id == 10
        assert tape.filemarks(2) == EARLY_WARNING  # room to close the tape

    assert parse(path) == [bytes(992)] * 10 + [None] * 2


def test_programmable_early_warning_is_given_again_after_going_back(tmp_path: Path) -> None:
    with SoftDrive.create(tmp_path / "a", 10_000, early_warning=3_000, programmable_early_warning=2_000) as drive:
        tape = tape_of(drive)
        first = [tape.write(bytes(992)) for _ in range(7)]
        drive.run_command(REWIND)

        assert [tape.write(bytes(992)) for _ in range(7)] == first == [0] * 5 + [PROGRAMMABLE_EARLY_WARNING, 0]


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 100, 104, 107])
def test_torn_tail_is_left_out_and_reported(tmp_path: Path, cut: int) -> None:
    whole = encode([b"a" * 10, None, b"b" * 100])
    path = tmp_path / "a.tap"
    path.write_bytes(whole[:-cut])

    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        assert read_all(drive, tape) == [b"a" * 10, None]
        assert drive.repaired_bytes == 108 - cut
        assert path.stat().st_size == len(whole) - cut  # reading changes nothing
        tape.write(b"c")

    assert parse(path) == [b"a" * 10, None, b"c"]


def test_damage_in_the_middle_is_a_medium_error_and_never_end_of_data(tmp_path: Path) -> None:
    data = bytearray(encode([b"a" * 10, b"b" * 10, b"c" * 10]))
    data[18 + 14] ^= 1  # trailer of block 1
    path = tmp_path / "a.tap"
    path.write_bytes(data)

    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        assert tape.read(100) == b"a" * 10
        with pytest.raises(errors.CheckCondition) as raised:
            tape.read(100)

    assert raised.value.sense == (3, 0x11, 0)
    assert path.read_bytes() == data


def test_record_marked_bad_is_a_medium_error_and_the_next_one_reads(tmp_path: Path) -> None:
    bad = struct.pack("<I", 0x80000004)
    path = tmp_path / "a.tap"
    path.write_bytes(bad + b"oops" + bad + encode([b"good"]))

    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        with pytest.raises(errors.CheckCondition):
            tape.read(100)
        assert tape.read(100) == b"good"


@given(st.binary(max_size=200))
@settings(max_examples=80, deadline=None)
def test_no_file_crashes_the_drive(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("tap") / "a.tap"
    path.write_bytes(data)
    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        for _ in range(60):
            try:
                if tape.read(1000) == END_OF_DATA:
                    break
            except errors.CheckCondition as error:
                assert error.sense[0] == 3
        while drive.position[0]:
            if drive.run_command(b"\x11\x01\xff\xff\xff\x00")[0]:  # SPACE -1 filemark
                break


WRITER = """
import sys
from splitreel.core.softdrive import SoftDrive
from tests.core.test_softdrive import tape_of
drive = SoftDrive(sys.argv[1])
tape = tape_of(drive)
while True:
    for i in range(5):
        tape.write(tape.object_id.to_bytes(8, "little") * 9001)
    tape.filemarks(1)
    print(tape.object_id, flush=True)
"""


def test_killed_writer_loses_nothing_that_was_synchronised(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment)
    assert writer.stdout is not None
    synchronised = [int(writer.stdout.readline()) for _ in range(20)]
    time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    synchronised += [int(line) for line in writer.communicate()[0].split()]

    with SoftDrive(path) as drive:
        objects = read_all(drive, tape_of(drive), 9001 * 8)

    assert len(objects) >= synchronised[-1]
    for i, block in enumerate(objects):
        assert block == (None if i % 6 == 5 else i.to_bytes(8, "little") * 9001)


def test_second_opener_is_refused(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap"), pytest.raises(errors.TapeError, match="in use"):
        SoftDrive(tmp_path / "a.tap")

    SoftDrive(tmp_path / "a.tap").close()


def test_settings_and_index_survive_in_the_side_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    with SoftDrive.create(path, 1_000_000, barcode="TST001L9") as drive:
        tape = tape_of(drive)
        for i in range(500):
            tape.write(bytes([i % 256]) * 10)
        end = drive.end
    with SoftDrive(path) as drive:
        assert drive.capacity == 1_000_000
        assert drive.end == end
        drive.run_command(TEST_UNIT_READY)
        assert drive.run_command(locate(400))[0] == 0
        assert tape_of(drive).read(10) == bytes([400 % 256]) * 10


def test_side_file_of_a_changed_tape_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    with SoftDrive.create(path, 1_000_000) as drive:
        tape_of(drive).write(bytes(100))
    path.write_bytes(encode([bytes(50), None]))

    with SoftDrive(path) as drive:
        assert drive.end == (2, 1, 62)
        assert drive.capacity == 1_000_000


@pytest.mark.parametrize("junk", [b"", b"x" * 50, b"SRPIDX01" + bytes(20_000)])
def test_broken_side_file_is_ignored(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "a.tap"
    path.write_bytes(encode([b"abc"]))
    (tmp_path / "a.tap.idx").write_bytes(junk)

    with SoftDrive(path) as drive:
        assert drive.end[0] == 1
        assert drive.capacity == 0


def test_file_without_write_permission_is_write_protected(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    path.write_bytes(encode([b"abc"]))
    path.chmod(0o444)
    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        with pytest.raises(errors.WriteProtected):
            tape.write(b"x")
        assert tape.read(3) == b"abc"

    assert list(tmp_path.iterdir()) == [path]


def test_missing_file_may_be_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.TapeError, match="No such file"):
        SoftDrive(tmp_path / "a.tap", create=False)


def test_creating_over_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tap").write_bytes(encode([b"abc"]))

    with pytest.raises(errors.TapeError, match="holds data"):
        SoftDrive.create(tmp_path / "a.tap")


# --- injected faults ---


def test_injected_write_error_keeps_the_block_off_the_tape(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        tape = tape_of(drive)
        drive.inject("write-error", after_blocks=2)
        tape.write(b"0")
        tape.write(b"1")
        with pytest.raises(errors.CheckCondition) as raised:
            tape.write(b"2")

        assert raised.value.sense == (3, 0x0C, 0)
        assert tape.object_id == drive.end[0] == 2
        assert drive.strikes == 1


def test_deferred_error_comes_one_command_later_and_condemns_what_was_buffered(tmp_path: Path) -> None:
    path = tmp_path / "a.tap"
    with SoftDrive(path) as drive:
        tape = tape_of(drive)
        tape.write(b"safe")
        tape.filemarks(0)
        drive.inject("deferred-error", after_blocks=1)
        tape.write(b"lost")
        tape.write(b"lost too")
        with pytest.raises(errors.DeferredError, match="write error"):
            tape.write(b"not taken")

        assert drive.end[0] == 1

    assert parse(path) == [b"safe"]


@pytest.mark.parametrize(("kind", "on_tape"), [("transport-before", 1), ("transport-after", 2)])
def test_lost_path_leaves_it_open_whether_the_block_is_on_tape(tmp_path: Path, kind: str, on_tape: int) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        tape = tape_of(drive)
        drive.inject(kind, after_blocks=1)
        tape.write(b"0")
        with pytest.raises(errors.TransportError):
            tape.write(b"1")

        assert tape.object_id == 1
        assert drive.end[0] == on_tape


@pytest.mark.parametrize(
    ("kind", "error", "objects", "position"),
    [
        ("unit-attention", errors.UnitAttention, 3, 3),
        ("reset", errors.UnitAttention, 3, 0),
        ("power-loss", errors.UnitAttention, 1, 0),
        ("busy", errors.TapeError, 3, 3),
        ("not-ready", errors.NotReady, 3, 3),
        ("reservation-conflict", errors.ReservationConflict, 3, 3),
    ],
)
def test_injected_state_strikes_once(tmp_path: Path, kind: str, error: type, objects: int, position: int) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        tape = tape_of(drive)
        tape.write(b"0")
        tape.filemarks(0)
        tape.write(b"1")
        tape.write(b"2")
        drive.inject(kind)
        with pytest.raises(error):
            tape.write(b"3")

        assert (drive.end[0], drive.position[0]) == (objects, position)
        tape.write(b"4")


def test_injected_read_error_passes_the_block(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        tape = tape_of(drive)
        for i in range(3):
            tape.write(bytes([i]))
        drive.run_command(REWIND)
        drive.inject("read-error", after_blocks=1)

        assert tape.read(1) == b"\0"
        with pytest.raises(errors.CheckCondition):
            tape.read(1)
        assert tape.read(1) == b"\2"


def test_too_many_injections_are_refused(tmp_path: Path) -> None:
    with SoftDrive(tmp_path / "a.tap") as drive:
        for _ in range(8):
            drive.inject("busy")
        with pytest.raises(errors.Misuse):
            drive.inject("busy")
        with pytest.raises(KeyError):
            drive.inject("fire")


def test_sparse_full_disk_is_a_volume_overflow(tmp_path: Path) -> None:
    """A write that the file system refuses for lack of room ends the tape there, whole records only."""
    pytest.importorskip("resource")
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from splitreel import errors\n"
        "from splitreel.core.softdrive import SoftDrive\n"
        "from tests.core.test_softdrive import tape_of\n"
        "drive = SoftDrive(sys.argv[1])\n"
        "tape = tape_of(drive)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        "    while True: tape.write(bytes(3000))\n"
        "except errors.CheckCondition as error: print(error.sense, tape.object_id, drive.end[2])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    ran = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.tap"], capture_output=True, text=True, env=environment, check=True
    )

    assert ran.stdout.split("\n")[0] == "(3, 12, 0) 3 9024"
    assert parse(tmp_path / "a.tap") == [bytes(3000)] * 3


def test_index_forgets_what_was_overwritten(tmp_path: Path) -> None:
    """LOCATE after overwriting with blocks of another size: index points behind the overwritten block must be gone."""
    with SoftDrive(tmp_path / "a.tap") as drive:
        tape = tape_of(drive)
        for _ in range(300):
            tape.write(bytes(10))
        drive.run_command(locate(5))
        for number in range(300):
            tape.write(number.to_bytes(2))
        for object_id in (304, 64, 65, 128, 200, 5):
            assert drive.run_command(locate(object_id))[0] == 0
            assert tape.read(2) == (object_id - 5).to_bytes(2)


def locate(object_id: int) -> bytes:
    """LOCATE(16)."""
    return b"\x92" + bytes(3) + object_id.to_bytes(8) + bytes(4)
