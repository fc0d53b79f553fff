"""What a drive holds comes through the reading thread byte for byte, and ends where the tape file ends."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.softdrive import SoftDrive
from splitreel.core.stream_reader import StreamReader
from splitreel.core.tape import Tape, Transport
from tests.core.source import crc32c

REWIND = b"\x01" + bytes(5)


def tape_of(drive: Transport) -> Tape:
    """The drive's tape, its first unit attention taken."""
    drive.run_command(bytes(6))
    return Tape(drive, b"\x0a" + bytes(5), b"\x08" + bytes(5), b"\x10" + bytes(5), max_block=0xFFFFFF)


def written(path: Path, files: list[list[bytes]], last_mark: bool = True) -> SoftDrive:
    drive = SoftDrive(path)
    tape = tape_of(drive)
    for number, blocks in enumerate(files):
        for block in blocks:
            tape.write(block)
        if last_mark or number + 1 < len(files):
            tape.filemarks(1)
    drive.run_command(REWIND)
    return drive


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[SoftDrive]:
    blocks = [os.urandom(4096) for _ in range(40)]
    with written(tmp_path / "tape", [blocks, [b"second" * 100]]) as found:
        yield found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(st.binary(min_size=1, max_size=3000), max_size=12), min_size=1, max_size=3),
    ring=st.integers(1, 5),
    sizes=st.lists(st.integers(0, 5000), min_size=1),
)
def test_reads_of_any_size_give_back_what_was_written(
    files: list[list[bytes]], ring: int, sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tape") / "tape"
    with written(path, files) as drive, StreamReader(tape_of(drive), 3000, ring) as reader:
        for blocks in files:
            reader.next_file()
            content, got, turn = b"".join(blocks), b"", 0
            while not reader.at_filemark:
                got += reader.read(sizes[turn % len(sizes)] or 1)
                turn += 1
            assert got == content
            assert reader.position == len(content)
            assert list(reader.block_crcs) == [crc32c(block) for block in blocks]
        reader.next_file()
        assert reader.at_end_of_data
        assert not reader.at_filemark


def test_skip_and_copy_sum_what_they_pass(drive: SoftDrive, tmp_path: Path) -> None:
    with StreamReader(tape_of(drive), 4096, 4) as reader:
        reader.next_file()
        whole = reader.read(40 * 4096)
        drive_file = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
        reader.stop()
        drive.run_command(REWIND)
        reader.next_file()
        buffer = bytearray(1000)
        assert reader.readinto(buffer) == 1000
        assert buffer == whole[:1000]
        assert reader.skip(5000) == crc32c(whole[1000:6000])
        assert reader.copy_to(drive_file, 70, 20_000, crc32c(b"x")) == crc32c(b"x" + whole[6000:26_000])
        assert os.pread(drive_file, 30_000, 0) == bytes(70) + whole[6000:26_000]
        assert reader.blocks == 26_000 // 4096
        os.close(drive_file)


def test_a_tape_file_that_ends_early_is_an_integrity_error(drive: SoftDrive, tmp_path: Path) -> None:
    with StreamReader(tape_of(drive), 4096, 4) as reader:
        reader.next_file()
        with pytest.raises(errors.IntegrityError):
            reader.skip(40 * 4096 + 1)
        assert reader.at_filemark
        assert reader.read(10) == b""
        reader.next_file()
        with (tmp_path / "out").open("wb") as out, pytest.raises(errors.IntegrityError):
            reader.copy_to(out.fileno(), 0, 601)


def test_a_block_longer_than_said_is_raised_where_it_stands(tmp_path: Path) -> None:
    with written(tmp_path / "tape", [[b"a" * 100, b"b" * 200]]) as drive, StreamReader(tape_of(drive), 100) as reader:
        reader.next_file()
        assert reader.read(100) == b"a" * 100
        with pytest.raises(errors.LimitReached):
            reader.read(1)


def test_an_unwritable_target_is_an_oserror(drive: SoftDrive) -> None:
    with StreamReader(tape_of(drive), 4096) as reader, open("/dev/null", "rb") as target:
        reader.next_file()
        with pytest.raises(OSError, match="Bad file descriptor"):
            reader.copy_to(target.fileno(), 0, 100)


def test_stopping_ends_the_thread_and_reading_goes_on_after_next_file(drive: SoftDrive) -> None:
    before = threading.active_count()
    reader = StreamReader(tape_of(drive), 4096, 2)
    with pytest.raises(errors.Misuse):
        reader.read(1)
    reader.next_file()
    first = reader.read(10)
    reader.stop()
    with pytest.raises(errors.Cancelled):
        reader.read(100_000)
    drive.run_command(REWIND)
    reader.next_file()
    assert reader.read(10) == first
    reader.close()
    reader.close()
    assert threading.active_count() == before
    with pytest.raises(errors.Misuse):
        reader.read(1)


def test_a_ring_of_no_blocks_is_refused(drive: SoftDrive) -> None:
    with pytest.raises(errors.Misuse):
        StreamReader(tape_of(drive), 4096, 0)


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1])
def test_a_size_above_all_signed_numbers_is_only_too_large(drive: SoftDrive, tmp_path: Path, size: int) -> None:
    """As a header may state it: everything there is is passed, and nothing behind it."""
    with open(tmp_path / "out", "wb") as out, StreamReader(tape_of(drive), 4096) as reader:
        reader.next_file()
        with pytest.raises(errors.IntegrityError, match="ends before"):
            reader.copy_to(out.fileno(), 0, size)
        reader.next_file()
        with pytest.raises(errors.IntegrityError, match="ends before"):
            reader.skip(size)

    assert (tmp_path / "out").stat().st_size == 40 * 4096


def test_a_reader_without_a_thread_does_not_wait(drive: SoftDrive, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with StreamReader(tape_of(drive), 4096) as reader:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            reader.next_file()
        with pytest.raises(errors.Misuse):
            reader.read(1)


def test_an_interrupted_stop_can_be_repeated(drive: SoftDrive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that still reads into the ring is waited for before the ring is freed."""
    waits = []

    class Interrupted:
        """A lock of which the second wait is interrupted."""

        def __init__(self) -> None:
            self.lock = make_lock()
            self.release = self.lock.release
            threading.Lock = make_lock  # the thread makes locks of its own

        def acquire(self) -> bool:
            waits.append(len(waits))
            if len(waits) == 2:
                raise KeyboardInterrupt
            return self.lock.acquire()

    make_lock = threading.Lock
    before = threading.active_count()
    reader = StreamReader(tape_of(drive), 4096, 2)
    monkeypatch.setattr(threading, "Lock", Interrupted)
    reader.next_file()
    with pytest.raises(KeyboardInterrupt):
        reader.close()
    reader.close()

    assert waits == [0, 1, 2]
    assert threading.active_count() == before
