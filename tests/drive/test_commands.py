"""SSC commands as pyscsi classes: their CDBs against the standard's bytes, round trips, threads, refused values."""

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyscsi.utils.converter import encode_dict

from splitreel import errors
from splitreel.core.sense import CONDITIONS
from splitreel.drive import commands, replies
from splitreel.drive.commands import (
    Erase6,
    Inquiry,
    LoadUnload,
    Locate10,
    Locate16,
    LogSense,
    ModeSelect6,
    ModeSelect10,
    ModeSense6,
    ModeSense10,
    PreventAllow,
    Read6,
    ReadAttribute,
    ReadBlockLimits,
    ReadPosition,
    Release6,
    ReportDensitySupport,
    RequestSense,
    Reserve6,
    Rewind,
    Space6,
    Space16,
    Write6,
    WriteAttribute,
    WriteFilemarks6,
    WriteFilemarks16,
)

EXPECTED = [
    (commands.TestUnitReady(), "000000000000"),
    (RequestSense(), "03000000fc00"),
    (RequestSense(descriptor=True, allocation=18), "030100001200"),
    (Inquiry(), "12000000fc00"),
    (Inquiry(page=0x80), "12018000fc00"),
    (ReadBlockLimits(), "050000000000"),
    (ModeSense6(page=0x3F), "1a003f00fc00"),
    (ModeSense6(page=0x10, subpage=1, control=1), "1a005001fc00"),
    (ModeSense10(page=0x10, subpage=1), "5a001001000000020000"),
    (ModeSelect6(bytes(12)), "151000000c00"),
    (ModeSelect10(bytes(300)), "55100000000000012c00"),
    (Write6(bytes(70_000)), "0a0001117000"),
    (Write6(bytes(70_000), blocks=7), "0a0100000700"),
    (Read6(1 << 20), "080010000000"),
    (Read6(512, blocks=3), "080100000300"),
    (Read6(1, suppress=True), "080200000100"),
    (WriteFilemarks6(2), "100000000200"),
    (WriteFilemarks6(1, immediate=True), "100100000100"),
    (WriteFilemarks16(2, immediate=True), "80010000000000000000000000000200"),
    (Space6(commands.SPACE_FILEMARKS, -1), "1101ffffff00"),
    (Space6(commands.SPACE_END_OF_DATA), "110300000000"),
    (Space16(commands.SPACE_BLOCKS, -2), "91000000fffffffffffffffe00000000"),
    (Locate10(0x12345678), "2b000012345678000000"),
    (Locate16(1 << 40), "92000000000001000000000000000000"),
    (Locate16(3, commands.LOCATE_FILE), "92080000000000000000000300000000"),
    (ReadPosition(), "34060000000000000000"),
    (ReadPosition(commands.SHORT_FORM), "34000000000000000000"),
    (Rewind(), "010000000000"),
    (LoadUnload(load=True), "1b0000000100"),
    (LoadUnload(load=False), "1b0000000000"),
    (Erase6(), "190000000000"),
    (Erase6(long=True), "190100000000"),
    (PreventAllow(prevent=True), "1e0000000100"),
    (LogSense(0x2E), "4d006e00000000100000"),
    (ReadAttribute(0x0803), "8c000000000000000803000040000000"),
    (WriteAttribute(bytes(9)), "8d010000000000000000000000090000"),
    (ReportDensitySupport(media=True), "44010000000000100000"),
    (Reserve6(), "160000000000"),
    (Release6(), "170000000000"),
]


@pytest.mark.parametrize(("command", "expected"), EXPECTED, ids=lambda item: str(item)[:40])
def test_cdb_is_what_the_standard_says(command: commands.SscCommand, expected: str) -> None:
    assert command.cdb.hex() == expected


def test_every_command_is_tested() -> None:
    assert {type(command).__name__ for command, _ in EXPECTED} == {kind.__name__ for kind in commands.ALL}


@pytest.mark.parametrize("kind", commands.ALL, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=20)
def test_cdb_round_trip(kind: Any, data: st.DataObject) -> None:
    """Fields to bytes and back, each field's whole range; pyscsi's own encoder agrees."""
    masks = {name: bits[0] for name, bits in kind._cdb_bits.items()}
    fields = {name: data.draw(st.integers(0, mask // (mask & -mask)), name) for name, mask in masks.items()}
    command = next(command for command, _ in EXPECTED if type(command).__name__ == kind.__name__)

    cdb = command.build_cdb(**fields)

    expected = bytearray(len(command.cdb))
    encode_dict(fields, kind._cdb_bits, expected)
    assert cdb == expected
    assert kind.unmarshall_cdb(cdb) == fields


@pytest.mark.parametrize("kind", commands.ALL, ids=lambda kind: kind.__name__)
def test_fields_do_not_overlap(kind: Any) -> None:
    taken = 0
    for mask, at in kind._cdb_bits.values():
        bits = mask << 8 * (15 - at - (mask.bit_length() - 1) // 8)
        assert not taken & bits
        taken |= bits


@pytest.mark.parametrize(
    "make",
    [
        lambda: Locate10(1 << 32),
        lambda: Locate16(-1),
        lambda: WriteFilemarks6(1 << 24),
        lambda: Space6(0, 1 << 23),
        lambda: Space6(0, -(1 << 23) - 1),
        lambda: ModeSelect6(bytes(256)),
    ],
)
def test_value_that_a_field_cannot_hold_is_refused(make: Any) -> None:
    with pytest.raises(errors.Misuse):
        make()


def test_two_threads_do_not_mix_their_cdbs() -> None:
    wrong = []

    def build(kind: Any, expected: bytes) -> None:
        wrong.extend(1 for _ in range(3000) if kind(7).cdb != expected)

    threads = [
        threading.Thread(target=build, args=(kind, bytes(kind(7).cdb)))
        for kind in (Locate16, WriteFilemarks6, Locate10, WriteFilemarks16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


# --- replies ---


def test_conditions_are_those_of_core() -> None:
    assert {item.value: item.name for item in replies.Condition if item} == CONDITIONS


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_no_reply_crashes_the_decoders(data: bytes) -> None:
    for decode in (
        replies.block_limits,
        replies.long_position,
        replies.short_position,
        lambda data: replies.mode_header(data, ten=False),
        lambda data: replies.mode_header(data, ten=True),
        replies.log_parameters,
        lambda data: list(replies.attributes(data)),
        replies.densities,
        lambda data: replies.identity(data, data),
    ):
        try:
            decode(data)
        except errors.TapeError as error:
            assert "where" in error.why


@given(
    st.lists(
        st.builds(
            replies.Attribute,
            identifier=st.integers(0, 0xFFFF),
            format=st.integers(0, 2),
            read_only=st.just(False),
            value=st.binary(max_size=40),
        ),
        max_size=8,
    )
)
@settings(max_examples=40)
def test_attributes_round_trip(items: list[replies.Attribute]) -> None:
    assert list(replies.attributes(replies.encode_attributes(items))) == items


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("20" + "00" * 31, None),  # tgtd: a reserved bit and zeros
        ("04" + "00" * 31, None),  # LONU
        ("80" + "00" * 31, (0, 0)),
        ("00" * 8 + "0000000000000007" + "0000000000000002" + "00" * 8, (7, 2)),
        ("08" + "00" * 7 + "0000000000000007" + "0000000000000002" + "00" * 8, (7, -1)),  # MPU
    ],
)
def test_long_position_is_believed_only_when_it_agrees_with_itself(data: str, expected: Any) -> None:
    found = replies.long_position(bytes.fromhex(data))

    assert (found and (found.object_id, found.file_id)) == expected


def test_attribute_texts() -> None:
    assert replies.Attribute(0x0806, 1, False, b"TST001L9  \0").text() == "TST001L9"
    assert replies.Attribute(0x0000, 0, True, (77).to_bytes(8)).text() == 77
    assert replies.Attribute(0x080C, 0, False, bytes(9)).text() == "00" * 9
