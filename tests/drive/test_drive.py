"""Drive over the software drive and tgtd: positions, fall-backs, status; and the ways to name a tape."""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitreel import errors
from splitreel.core.null import NullDrive
from splitreel.core.softdrive import SoftDrive
from splitreel.drive import Condition, Drive, address, open_drive, parse_size, redacted
from splitreel.drive.commands import Locate16
from tests.drive.tapfile import parse


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.tap"


@pytest.fixture
def soft(path: Path) -> Iterator[Drive]:
    with open_drive(f"file:{path}?size=20M&ew=4M&barcode=TST001L9") as drive:
        yield drive


@pytest.fixture(params=["soft", pytest.param("tgtd", marks=pytest.mark.tgtd)])
def drive(request: pytest.FixtureRequest) -> Iterator[Drive]:
    if request.param == "soft":
        yield request.getfixturevalue("soft")
        return
    with open_drive(request.getfixturevalue("tgtd_drive").url) as drive:
        drive.rewind()
        yield drive


def fill(drive: Drive) -> list[bytes | None]:
    """0 1 | 3 4 5 | | 8: blocks named by their object, filemarks at 2, 6 and 7."""
    objects = [None if i in (2, 6, 7) else bytes([i]) * (100 + i) for i in range(9)]
    for block in objects:
        assert (drive.tape.write(block) if block else drive.write_filemarks(1)) == 0
    return objects


def read(drive: Drive) -> bytes | int:
    return drive.tape.read(1000)


def test_opening_takes_the_unit_attention_and_sets_variable_blocks(drive: Drive) -> None:
    assert drive.test_unit_ready()
    assert drive.mode().block_length == 0
    assert drive.mode().buffered_mode == 1
    assert drive.tape.object_id == 0
    assert drive.tape.max_block >= 1 << 20


def test_locate_reaches_every_object_in_any_order(drive: Drive) -> None:
    """LOCATE where there is one; over tgtd REWIND and SPACE."""
    objects = fill(drive)
    for number in (0, 8, 3, 2, 7, 6, 9, 1, 5):
        drive.locate(number)
        assert drive.expect_position(number).object_id == drive.tape.object_id == number
        expected = objects[number] if number < 9 else Condition.END_OF_DATA
        assert read(drive) == (Condition.FILEMARK if expected is None else expected)


def test_locate_beyond_the_end_says_so(drive: Drive) -> None:
    fill(drive)
    for number in (10, 11, 1000):
        with pytest.raises(errors.PositionLost, match="fewer objects"):
            drive.locate(number)


def test_position_counts_blocks_and_filemarks(soft: Drive) -> None:
    fill(soft)

    position = soft.position()
    assert (position.object_id, position.file_id, position.known, position.at_bop) == (9, 3, True, False)
    soft.rewind()
    assert soft.position().at_bop


@pytest.mark.tgtd
def test_position_of_a_drive_that_tells_none_is_our_count(tgtd_drive: Any) -> None:
    with open_drive(tgtd_drive.url) as drive:
        assert (drive.position().object_id, drive.position().known) == (-1, False)
        drive.rewind()
        fill(drive)
        assert (drive.position().object_id, drive.position().known) == (9, False)
        drive.space_filemarks(-1)
        assert drive.position().object_id == -1
        with pytest.raises(errors.PositionLost):
            drive.expect_position(8)


@pytest.mark.parametrize("lacking", [frozenset({0x92}), frozenset({0x92, 0x2B})], ids=["LOCATE(16)", "both"])
def test_locate_without_locate_commands_on_a_drive_that_stops_at_filemarks(path: Path, lacking: frozenset[int]) -> None:
    with Picky(path) as transport:
        transport.lacking = lacking
        drive = Drive(transport)
        objects = fill(drive)
        for number in (8, 3, 2, 7, 9, 0, 5):
            drive.locate(number)
            assert drive.position().object_id == number
            expected = objects[number] if number < 9 else Condition.END_OF_DATA
            assert read(drive) == (Condition.FILEMARK if expected is None else expected)
        with pytest.raises(errors.PositionLost):
            drive.locate(10)
        assert transport.refused == len(lacking)


class Picky(SoftDrive):
    """A software drive whose control commands can be taken away, as if it were an older model."""

    lacking: frozenset[int] = frozenset()
    refused = 0

    def execute(self, cmd: Any, en_raw_sense: bool = False) -> int:
        if cmd.cdb[0] in self.lacking:
            self.refused += 1
            cmd.sense = bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0])
            error = errors.CheckCondition("executing", "illegal request")
            error.sense = (5, 0x20, 0)
            raise error
        return super().execute(cmd, en_raw_sense)


def test_short_position_serves_where_the_long_form_is_missing(path: Path) -> None:
    class Short(SoftDrive):
        def execute(self, cmd: Any, en_raw_sense: bool = False) -> int:
            if cmd.cdb[0] == 0x34 and cmd.cdb[1] == 6:
                cmd.cdb[1] = 5  # a form that the drive refuses itself
            return super().execute(cmd, en_raw_sense)

    with Short(path) as transport:
        drive = Drive(transport)
        fill(drive)
        assert (drive.position().object_id, drive.position().file_id, drive.position().known) == (9, -1, True)


def test_spacing(soft: Drive) -> None:
    fill(soft)
    soft.rewind()

    assert soft.space_blocks(1) == Condition.DONE
    assert soft.tape.object_id == 1
    assert soft.space_blocks(5) == Condition.FILEMARK
    assert soft.tape.object_id == 3
    assert soft.space_filemarks(2) == Condition.DONE
    assert soft.tape.object_id == 8
    assert soft.space_filemarks(1) == Condition.END_OF_DATA
    assert soft.space_filemarks(-3) == Condition.DONE
    assert soft.tape.object_id == 2
    assert soft.space_blocks(-9) == Condition.BEGINNING_OF_PARTITION
    soft.space_eod()
    assert soft.tape.object_id == 9


def test_stolen_position_is_found(path: Path) -> None:
    with SoftDrive(path) as transport:
        drive = Drive(transport)
        fill(drive)
        transport.inject("reset")
        with pytest.raises(errors.UnitAttention):
            drive.expect_position(9)
        with pytest.raises(errors.PositionLost, match="at object 0, not 9"):
            drive.expect_position(9)


def test_status_of_the_software_drive(soft: Drive) -> None:
    fill(soft)
    status = soft.status()

    assert status["ready"] and not status["write_protected"]
    assert (status["object_id"], status["file_id"]) == (9, 3)
    assert status["barcode"] == "TST001L9"
    assert status["maximum_capacity_mib"] == 20
    assert (status["vendor"], status["product"]) == ("SPLTREEL", "SOFTDRIVE")


def test_unloaded_drive_is_not_ready_until_loaded(soft: Drive) -> None:
    fill(soft)
    soft.unload()
    assert not soft.test_unit_ready()
    assert soft.status()["ready"] is False
    with pytest.raises(errors.NotReady):
        soft.wait_ready(0.1)

    soft.load()
    assert soft.expect_position(0).at_bop


def test_drive_that_is_becoming_ready_is_waited_for(path: Path) -> None:
    with SoftDrive(path) as transport:
        drive = Drive(transport)
        transport.inject("not-ready", count=2)
        drive.wait_ready(30)

        assert drive.test_unit_ready()


def test_prevented_medium_cannot_be_unloaded(soft: Drive) -> None:
    soft.prevent_removal()
    with pytest.raises(errors.CheckCondition, match="prevented"):
        soft.unload()
    soft.allow_removal()
    soft.unload()


@pytest.mark.tgtd
def test_a_drive_that_cannot_erase_says_what_to_do_instead(tgtd_drive: Any) -> None:
    with open_drive(tgtd_drive.url) as drive:
        for long in (False, True, False):
            with pytest.raises(errors.CheckCondition, match="cannot erase") as caught:
                drive.erase(long)
            assert "tape label --force" in caught.value.advice


def test_erase_leaves_nothing_behind_the_position(soft: Drive, path: Path) -> None:
    objects = fill(soft)
    soft.locate(4)
    soft.erase()

    assert soft.tape.object_id == 4
    soft.space_eod()
    assert soft.tape.object_id == 4
    soft.close()
    assert parse(path) == objects[:4]


def test_early_warning_comes_through_every_layer(soft: Drive) -> None:
    block = bytes(1 << 20)
    conditions = [soft.tape.write(block) for _ in range(19)]

    assert conditions == [0] * 15 + [Condition.EARLY_WARNING] * 4
    assert soft.position().at_eop
    with pytest.raises(errors.EndOfMedium):
        soft.tape.write(block)
    assert soft.write_filemarks(1) == Condition.EARLY_WARNING
    assert soft.expect_position(20)


def test_programmable_early_warning_is_set_in_megabytes(soft: Drive) -> None:
    assert soft.set_pew(5)
    conditions = [soft.tape.write(bytes(1_000_000)) for _ in range(17)]

    # 20 971 520 bytes, early warning 4 194 304 before the end, the programmable one 5 000 000 before that.
    assert conditions == [0] * 11 + [Condition.PROGRAMMABLE_EARLY_WARNING] + [0] * 4 + [Condition.EARLY_WARNING]


def test_attributes_are_written_read_and_deleted(soft: Drive) -> None:
    assert soft.write_attributes({0x0801: "splitreel", 0x0803: "Größe", 0x080C: b"\x01\x02"})
    values = soft.attributes()

    assert (values[0x0801].text(), values[0x0803].text(), values[0x080C].value) == ("splitreel", "Größe", b"\x01\x02")
    assert soft.write_attributes({0x0801: ""})
    assert 0x0801 not in soft.attributes()


def test_attributes_survive_closing(soft: Drive, path: Path) -> None:
    soft.write_attributes({0x0803: "label"})
    soft.close()
    with open_drive(f"file:{path}") as again:
        assert again.attributes()[0x0803].text() == "label"


def test_tape_alerts_are_read_once(path: Path) -> None:
    with SoftDrive(path) as transport:
        drive = Drive(transport)
        transport.inject("write-error")
        with pytest.raises(errors.CheckCondition, match="write error"):
            drive.tape.write(b"x")

        assert drive.tape_alert() == [6]
        assert drive.tape_alert() == []


@pytest.mark.tgtd
def test_drive_without_optional_commands_says_so_quietly(tgtd_drive: Any) -> None:
    with open_drive(tgtd_drive.url) as drive:
        assert drive.tape_alert() == []
        assert drive.attributes() == {}
        assert drive.density_support() == []
        assert not drive.set_pew(1)
        assert not drive.write_attributes({0x0803: "x"})
        assert drive.status()["position_known"] is False


def test_density_support(soft: Drive) -> None:
    assert [(d.code, d.writable, d.capacity_mb) for d in soft.density_support()] == [(0x60, True, 20)]


def test_pyscsi_facade_works_over_the_drive(soft: Drive) -> None:
    assert soft.scsi.inquiry().result["peripheral_device_type"] == 1
    soft.scsi.testunitready()
    soft.unload()
    with pytest.raises(errors.NotReady):
        soft.scsi.testunitready()


def test_command_keeps_its_sense_when_raw_sense_is_asked_for(soft: Drive) -> None:
    command = Locate16(99)
    assert soft.transport.execute(command, en_raw_sense=True) == Condition.END_OF_DATA
    assert command.sense[2] & 0x0F == 8


def test_two_transports_on_one_file_are_refused(soft: Drive, path: Path) -> None:
    with pytest.raises(errors.TapeError, match="in use"):
        open_drive(f"file:{path}")


# --- addresses ---


def test_null_drive_counts_and_discards() -> None:
    with open_drive("null:") as drive:
        assert [drive.tape.write(bytes(1 << 20)) for _ in range(3)] == [0, 0, 0]
        assert drive.write_filemarks(2) == 0
        assert drive.expect_position(5).file_id == 2
        drive.rewind()
        assert drive.tape.read(100) == Condition.END_OF_DATA
        assert isinstance(drive.transport, NullDrive)
        assert drive.transport.bytes_written == 3 << 20


@pytest.mark.parametrize(
    ("url", "error", "why"),
    [
        ("tape0", errors.UsageError, "no such kind"),
        ("nfs://host/tape", errors.UsageError, "no such kind"),
        ("file:", errors.UsageError, "no such kind"),
        ("null:x", errors.UsageError, "no such kind"),
        ("file:x?speed=9", errors.UsageError, "unknown option speed"),
        ("file:x?size=big", errors.UsageError, "no number"),
        ("/dev/null", errors.UsageError, "not a tape"),
        ("/dev/nst99", errors.TapeError, "no such device"),
        ("file:/nonexistent/dir/tape", errors.TapeError, "No such file"),
    ],
)
def test_wrong_addresses_say_what_is_wrong(url: str, error: type[errors.SplitreelError], why: str) -> None:
    with pytest.raises(error, match=why) as raised:
        open_drive(url)

    assert raised.value.advice


def test_missing_transport_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(address.importlib, "import_module", without)

    with pytest.raises(errors.UsageError, match="without iSCSI drives"):
        open_drive("iscsi://host/target/1")


def test_secret_is_left_out_of_messages() -> None:
    assert redacted("iscsi://me%s3cret@host/target/1") == "iscsi://me@host/target/1"
    assert redacted("iscsi://me%s3/cr@t@host/target/1") == "iscsi://me@host/target/1"
    assert redacted("iscsi://host/target/1%25") == "iscsi://host/target/1%25"
    assert redacted("file:a%b@c") == "file:a%b@c"


@pytest.mark.parametrize(
    ("text", "size"), [("7", 7), ("2k", 2048), ("3M", 3 << 20), ("1GiB", 1 << 30), ("4TB", 4 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("node", ["nst0", "st0", "nst0a", "st0l"])
def test_tape_node_is_resolved_to_its_sg_node(tmp_path: Path, node: str) -> None:
    (tmp_path / "scsi_tape" / node / "device" / "scsi_generic" / "sg7").mkdir(parents=True)

    assert address.sg_node(f"/dev/{node}", tmp_path) == "/dev/sg7"
    assert address.sg_node("/dev/sg3", tmp_path) == "/dev/sg3"


def test_link_to_a_tape_node_is_followed(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to("/dev/sg5")

    assert address.sg_node(str(tmp_path / "by-id"), tmp_path) == "/dev/sg5"


def test_tape_node_without_sg_node_says_so(tmp_path: Path) -> None:
    with pytest.raises(errors.TapeError, match="no sg node"):
        address.sg_node("/dev/nst0", tmp_path)


def test_st_node_is_held_while_the_drive_is_open(tmp_path: Path) -> None:
    device = tmp_path / "sys" / "scsi_generic" / "sg7" / "device"
    (device / "scsi_tape" / "nst0").mkdir(parents=True)
    (device / "scsi_tape" / "nst0a").mkdir()
    (tmp_path / "nst0").touch()

    held = address.hold_tape_node("/dev/sg7", tmp_path / "sys", tmp_path)
    assert held is not None
    assert Path(f"/proc/self/fd/{held}").resolve() == tmp_path / "nst0"
    os.close(held)
    assert address.hold_tape_node("/dev/sg8", tmp_path / "sys", tmp_path) is None
    assert address.hold_tape_node("null:") is None


def test_st_node_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scsi_generic" / "sg7" / "device" / "scsi_tape" / "nst0").mkdir(parents=True)

    def busy(*arguments: object) -> int:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(address.os, "open", busy)
    with pytest.raises(errors.TapeError, match="in use"):
        address.hold_tape_node("/dev/sg7", tmp_path, tmp_path)


@pytest.mark.tgtd
def test_read_that_tgtd_cuts_short_is_noticed(tgtd_drive: Any) -> None:
    """Exact size and twice the size are right; between, tgtd before 1.0.94 sends too few bytes."""
    with open_drive(tgtd_drive.url) as drive:
        drive.rewind()
        block = bytes(range(250)) * 20
        drive.tape.write(block)
        for room in (5000, 10_000, 65_536):
            drive.rewind()
            assert drive.tape.read(room) == block
        drive.rewind()
        with pytest.raises(errors.LimitReached, match="5000 bytes"):
            drive.tape.read(4000)
        assert drive.tape.object_id == 1
        drive.rewind()
        with pytest.raises(errors.IntegrityError, match="the target sent 3192"):
            drive.tape.read(8192)


@pytest.mark.tgtd
def test_early_warning_without_a_code_is_early_warning(tgtd_target: Any) -> None:
    """tgtd sets the EOM bit alone, on every block past the capacity, and takes them all."""
    tape = tgtd_target.add_tape("small", size_mb=2)
    try:
        with open_drive(tape.url) as drive:
            drive.rewind()
            seen = [drive.tape.write(bytes(512 << 10)) for _ in range(6)]
            assert seen[0] == 0
            assert seen[-2:] == [Condition.EARLY_WARNING] * 2
            assert drive.tape.object_id == 6
    finally:
        tgtd_target.remove_tape(tape)


def test_second_thread_is_refused_while_a_command_runs(soft: Drive) -> None:
    """The guard of the transport: two commands at once are a defect of the caller, and neither is spoilt."""
    block = bytes(8 << 20)
    caught: list[errors.Misuse] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set() and not caught:
            try:
                soft.transport.run_command(bytes(6))
            except errors.Misuse as error:
                caught.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    deadline = time.monotonic() + 20
    while not caught and time.monotonic() < deadline:
        with contextlib.suppress(errors.Misuse):
            soft.rewind()
            soft.tape.write(block)
    stop.set()
    thread.join()

    assert "outstanding" in str(caught[0])
    soft.rewind()


def test_options_of_an_address_shape_a_new_tape_only(path: Path) -> None:
    with open_drive(f"file:{path}?size=1M&pew=64K") as drive:
        assert drive.attributes()[0x0001].text() == 1
        drive.tape.write(b"x")
    with open_drive(f"file:{path}?size=9M") as drive:
        assert drive.attributes()[0x0001].text() == 1
