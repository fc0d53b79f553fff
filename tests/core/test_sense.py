"""Sense data and statuses to conditions and faults."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.core import sense as sense_data

EARLY_WARNING, PROGRAMMABLE_EARLY_WARNING, FILEMARK, END_OF_DATA, BEGINNING_OF_PARTITION, INCORRECT_LENGTH = range(1, 7)
FM, EOM, ILI = 0x80, 0x40, 0x20


def fixed(
    key: int, asc: int = 0, ascq: int = 0, bits: int = 0, information: int | None = None, deferred: bool = False
) -> bytes:
    """Fixed format sense data, SPC-4 4.5.3."""
    code = (0x71 if deferred else 0x70) | (0x80 if information is not None else 0)
    return struct.pack(">BBBiB4xBB4x", code, 0, key | bits, information or 0, 10, asc, ascq)


def descriptor(
    key: int, asc: int = 0, ascq: int = 0, bits: int = 0, information: int | None = None, deferred: bool = False
) -> bytes:
    """Descriptor format sense data, SPC-4 4.5.2, stream commands descriptor last."""
    items = b"" if information is None else struct.pack(">BBBxq", 0, 10, 0x80, information)
    items += struct.pack(">BBxB", 4, 2, bits)
    return struct.pack(">BBBB3xB", 0x73 if deferred else 0x72, key, asc, ascq, len(items)) + items


@pytest.mark.parametrize("encode", [fixed, descriptor])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"key": 0, "ascq": 2, "bits": EOM}, EARLY_WARNING),
        ({"key": 0, "bits": EOM}, EARLY_WARNING),
        ({"key": 0, "ascq": 7, "bits": EOM}, PROGRAMMABLE_EARLY_WARNING),
        ({"key": 0, "ascq": 1, "bits": FM}, FILEMARK),
        ({"key": 0, "ascq": 1, "bits": FM | EOM}, FILEMARK),
        ({"key": 8, "ascq": 5}, END_OF_DATA),
        ({"key": 8, "bits": EOM}, END_OF_DATA),
        ({"key": 0, "ascq": 5}, END_OF_DATA),
        ({"key": 0, "ascq": 4, "bits": EOM}, BEGINNING_OF_PARTITION),
        ({"key": 0, "bits": ILI, "information": -3}, INCORRECT_LENGTH),
        ({"key": 1, "asc": 0x18}, 0),
        ({"key": 8, "asc": 0x14, "ascq": 3}, -40),
        ({"key": 3, "asc": 0x11}, -40),
        ({"key": 3, "asc": 0x11, "bits": FM}, -40),
        ({"key": 0xD, "ascq": 2, "bits": EOM}, -43),
        ({"key": 7, "asc": 0x27}, -44),
        ({"key": 7, "asc": 0x30, "ascq": 0x0C}, -44),
        ({"key": 7, "asc": 0x20, "ascq": 2}, -40),
        ({"key": 2, "asc": 0x3A}, -45),
        ({"key": 6, "asc": 0x29}, -42),
        ({"key": 3, "asc": 0x0C, "deferred": True}, -41),
        ({"key": 0, "ascq": 2, "bits": EOM, "deferred": True}, -41),
    ],
)
def test_sense_data_become_a_condition_or_a_fault(encode, fields, status) -> None:
    assert sense_data.classify(2, encode(**fields)) == status


@pytest.mark.parametrize(
    ("status", "code"), [(0, 0), (4, 0), (8, -47), (0x28, -47), (0x18, -46), (0x40, -48), (0x30, -40), (2, -40)]
)
def test_status_without_sense_data(status: int, code: int) -> None:
    assert sense_data.classify(status, b"") == code


@pytest.mark.parametrize("encode", [fixed, descriptor])
@given(
    key=st.integers(0, 15),
    asc=st.integers(0, 255),
    ascq=st.integers(0, 255),
    bits=st.sampled_from([0, FM, EOM, ILI, FM | EOM, FM | EOM | ILI]),
    information=st.none() | st.integers(-(2**31), 2**31 - 1),
    deferred=st.booleans(),
)
@settings(max_examples=60)
def test_sense_data_come_back_field_by_field(encode, key, asc, ascq, bits, information, deferred) -> None:
    sense = sense_data.parse_sense(encode(key, asc, ascq, bits, information, deferred))

    assert (sense["key"], sense["asc"], sense["ascq"]) == (key, asc, ascq)
    assert (sense["filemark"], sense["eom"], sense["ili"]) == (bool(bits & FM), bool(bits & EOM), bool(bits & ILI))
    assert sense["information_valid"] == (information is not None)
    assert sense["information"] == (information or 0)
    assert sense["valid"] and sense["deferred"] == deferred


@given(st.binary(max_size=300), st.sampled_from([None, 0x70, 0x71, 0x72, 0x73, 0xF0]))
@settings(max_examples=300)
def test_no_sense_data_crash_the_decoder(data: bytes, code: int | None) -> None:
    if code is not None and data:
        data = bytes([code]) + data[1:]

    sense = sense_data.parse_sense(data)
    status = sense_data.classify(2, data)

    assert 0 <= sense["key"] <= 15
    assert status in range(7) or status in (-40, -41, -42, -43, -44, -45)
    assert sense["valid"] or status == -40


@pytest.mark.parametrize("size", range(18))
def test_cut_fixed_sense_data_yield_only_what_is_there(size: int) -> None:
    sense = sense_data.parse_sense(fixed(3, 0x11, 0x22, information=7)[:size])

    assert sense["valid"] == (size >= 3)
    assert sense["information_valid"] == (size >= 7)
    assert sense["asc"] == (0x11 if size >= 13 else 0)
    assert sense["ascq"] == (0x22 if size >= 14 else 0)


def test_cut_descriptor_is_not_believed() -> None:
    whole = descriptor(0, information=5, bits=ILI)

    assert sense_data.parse_sense(whole[:-1])["ili"] == 0
    assert sense_data.parse_sense(whole[:-1])["information"] == 5
    assert sense_data.parse_sense(whole[:15])["information_valid"] == 0


def test_vendor_sense_format_is_not_valid() -> None:
    assert not sense_data.parse_sense(b"\x7f" + bytes(17))["valid"]
