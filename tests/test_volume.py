"""Tape file 0: what is written is recognised; what is not ours is named and never overwritten unasked."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import errors, volume
from splitreel.volume import Label
from tests import tapes


def test_label_is_a_vol1_block_of_80_bytes() -> None:
    block = volume.build_label(Label("SR0007"))

    assert len(block) == 80
    assert block[:10] == b"VOL1SR0007"
    assert block[24:37] == b"SPLITREEL    "
    assert block[79:] == b"4"
    assert block[37:79].isspace()


def test_readme_repeats_the_label_as_json_and_fits_its_block() -> None:
    label = Label("SR0007", backup="b", block_size=65536, segment_size=1 << 30)

    block = volume.build_readme(label)

    assert len(block) % 512 == 0
    assert len(block) <= 64 << 10
    assert volume.parse_readme(block) == label
    assert b"dd if=$TAPE bs=65536 | tar " in block


@pytest.mark.parametrize("name", ["", "TOOLONG", "lower", "A B", "Ä"])
def test_a_volume_name_that_vol1_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(errors.UsageError, match="volume name"):
        Label(name)


def test_generated_names_fit_a_label() -> None:
    assert all(Label(volume.new_name()) for _ in range(100))


def test_a_written_label_is_recognised_whatever_follows() -> None:
    drive = tapes.MemoryDrive([b"old"] * 5)
    label = Label("SR0001")
    volume.write(drive, label)

    found = volume.recognise(drive)

    assert (found.kind, found.label, found.has_data) == ("ours", label, False)
    drive.at = 3
    drive.write(b"data")
    assert volume.recognise(drive).has_data


FOREIGN = [
    ([], "blank", "blank"),
    ([None], "foreign", "begins with a filemark"),
    ([bytes(257) + b"ustar\0" + bytes(249)], "foreign", "tar archive"),
    ([b"VOL1ABC123" + b" " * 14 + b"LTFS         ".ljust(55) + b"4"], "foreign", "LTFS"),
    ([b"VOL1ABC123".ljust(24) + b"IBMZOS".ljust(55) + b"4"], "foreign", "by 'IBMZOS"),
    ([b"\x1f\x8b\x08" + bytes(100)], "foreign", "gzip"),
    ([bytes(1000)], "foreign", "unknown kind"),
    ([volume.build_label(Label("SR0001"))], "foreign", "without its README"),
    ([volume.build_label(Label("SR0001")), b"garbage"], "foreign", "README block is damaged"),
    ([volume.build_label(Label("SR0001")), volume.build_readme(Label("SR0002"))], "foreign", "different volumes"),
]


@pytest.mark.parametrize(("objects", "kind", "description"), FOREIGN)
def test_what_is_not_ours_is_named(objects: list[bytes | None], kind: str, description: str) -> None:
    found = volume.recognise(tapes.MemoryDrive(objects))

    assert found.kind == kind
    assert description in found.description


def test_only_blank_and_empty_tapes_may_be_written_unasked() -> None:
    ours = volume.Found("ours", "ours", Label("SR0001"), has_data=True)
    foreign = volume.Found("foreign", "a tar archive", has_data=True)

    volume.require_writable(volume.Found("blank", "blank"))
    volume.require_writable(volume.Found("ours", "ours", Label("SR0001")))
    volume.require_writable(ours, overwrite=True)
    volume.require_writable(foreign, force=True)
    for found, permission in ((ours, {}), (foreign, {}), (foreign, {"overwrite": True})):
        with pytest.raises(errors.WrongTape) as raised:
            volume.require_writable(found, **permission)
        assert raised.value.exit_code == 4


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_tape_file_0_never_raises_anything_but_what_it_says(data: st.DataObject) -> None:
    drive = tapes.MemoryDrive()
    label = Label("SR0001")
    volume.write(drive, label)
    which = data.draw(st.integers(0, 1))
    block = bytearray(drive.objects[which] or b"")
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    drive.objects[which] = bytes(block)

    found = volume.recognise(drive)

    assert found.kind in ("ours", "foreign")


def test_readme_commands_are_valid_shell() -> None:
    text = volume.build_readme(Label("SR0001")).decode()
    commands = [line for line in text.split("--- JSON ---")[0].splitlines() if line.startswith("    ")]
    begin = next(i for i, line in enumerate(commands) if "TAPE=/dev/nst0" in line)

    checked = subprocess.run(
        ["sh", "-n"], input="\n".join(commands[begin:]), text=True, capture_output=True, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")
