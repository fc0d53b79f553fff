"""JSON lines of manifests and catalogs: what is written comes back, what lies is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import records
from splitreel.errors import IntegrityError
from splitreel.records import Member
from tests import tapes

SIZES = st.integers(0, 1 << 62)
MEMBERS = st.builds(
    Member,
    path=st.binary(max_size=300),
    type=st.sampled_from(sorted(records.TYPES)),
    size=SIZES,
    mode=st.integers(0, 0o7777),
    block=SIZES,
    offset=SIZES,
    stored=SIZES,
    extents=SIZES,
    crc32c=st.none() | st.integers(0, 0xFFFFFFFF),
    target=st.none() | st.binary(max_size=50),
    segment=SIZES,
    object=SIZES,
)


@settings(max_examples=100)
@given(MEMBERS)
def test_a_member_comes_back_from_its_line_whatever_its_path(member: Member) -> None:
    line = records.encode(records.member_record(member))

    assert records.member(records.decode(line)) == member
    assert line.isascii()
    assert line.count(b"\n") == 1


def test_a_part_comes_back_from_its_line() -> None:
    member = Member(b"f\xff.splitreel-part-0002-of-0003", "file", part=(2, 3), of=b"f\xff", at=4096)

    assert records.member(records.decode(records.encode(records.member_record(member)))) == member


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "door"},
        {"size": -1},
        {"size": 1.5},
        {"size": True},
        {"size": 1 << 63},
        {"size": "1"},
        {"path": 5},
        {"path": "\ud800"},
        {"crc32c": "xyz"},
        {"crc32c": "+1234567"},
        {"crc32c": 7},
        {"part": [0, 1]},
        {"part": [2, 1]},
        {"part": "1/2"},
        {"part": [1, 2]},
        {"part": [1, 2], "of": "p", "at": 0},
        {"path": "p.splitreel-part-0001-of-0002", "part": [1, 2], "of": "../p", "at": 0},
        {"target": None},
    ],
)
def test_a_field_that_lies_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        records.member({"kind": "member", "path": "p", "type": "file"} | fields)


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{", b'{"kind":1}', b"\xff", b"[" * 100_000, b'{"kind":"a"' + b" " * (1 << 20)]
)
def test_a_line_that_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(IntegrityError):
        records.decode(line)


def test_sealed_lines_verify_in_any_cut_and_no_changed_byte_does() -> None:
    stated = [{"kind": "a", "n": i} for i in range(5)]
    data = b"".join(records.summed(stated))

    assert (
        data
        == b"".join(
            line + b"\n" for line in tapes.sealed(stated).replace(b": ", b":").replace(b", ", b",").splitlines()[:-1]
        )
        + data.splitlines()[-1]
        + b"\n"
    )
    for step in (1, 3, 1000):
        assert list(records.verified(data[i : i + step] for i in range(0, len(data), step))) == stated
    for i in range(len(data) - 1):
        with pytest.raises(IntegrityError):
            list(records.verified([data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]]))


def test_lines_that_end_early_are_refused() -> None:
    data = b"".join(records.summed([{"kind": "a"}]))

    with pytest.raises(IntegrityError, match="end before"):
        list(records.verified([data[: data.index(b"\n") + 1]]))


def test_the_last_line_is_the_crc32c_of_those_before_it() -> None:
    *lines, last = records.summed([{"kind": "a"}, {"kind": "b"}])

    assert json.loads(last) == {"kind": "end", "crc32c": f"{tapes.crc32c(b''.join(lines)):08x}"}
