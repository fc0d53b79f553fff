"""A stamp says whether it is whole, and whether it stands where it was written."""

import crcmod.predefined
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.prove import stamp
from splitreel.prove.stamp import SECTOR, Owner, decode, encode

OWNER = Owner(run=0x0123456789ABCDEF, writer=3, file=7)


def written(first: int = 0, count: int = 4, number: int = 9, begun: int = 1000) -> bytes:
    return encode(OWNER, first, count, number, begun).tobytes()


def test_the_sum_is_crc32c_of_all_behind_it() -> None:
    """An independent implementation agrees, so a copy can be examined without this program."""
    sector = written(5, 1)
    reference = crcmod.predefined.mkCrcFun("crc-32c")

    assert int.from_bytes(sector[8:12], "little") == reference(sector[12:])


@settings(max_examples=30)
@given(st.integers(0, 2000), st.integers(1, 64), st.integers(1, 2**62), st.integers(0, 2**62))
def test_what_was_stamped_is_good_where_it_was_written(first: int, count: int, number: int, begun: int) -> None:
    sectors = decode(OWNER, bytes(first * SECTOR) + written(first, count, number, begun))

    assert set(sectors.kind[:first]) <= {stamp.ZERO}
    assert set(sectors.kind[first:]) == {stamp.GOOD}
    assert set(sectors.number[first:]) == {number}
    assert set(sectors.begun_ns[first:]) == {begun}


@settings(max_examples=60)
@given(st.integers(0, SECTOR - 1), st.integers(1, 255))
def test_a_changed_byte_is_seen(at: int, change: int) -> None:
    data = bytearray(written())
    data[SECTOR + at] ^= change
    kinds = decode(OWNER, bytes(data)).kind.tolist()

    assert kinds[1] in (stamp.TORN, stamp.FOREIGN)
    assert kinds[:1] + kinds[2:] == [stamp.GOOD] * 3


@pytest.mark.parametrize("cut", [12, 48, 100, 256, 480, 511])
@pytest.mark.parametrize("other", [written(number=8), bytes(4 * SECTOR)], ids=["older", "zeros"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_sector_of_two_generations_is_torn(cut: int, other: bytes, swapped: bool) -> None:
    """Wherever it is cut, and whichever came first."""
    head, tail = (other, written()) if swapped else (written(), other)
    kind = decode(OWNER, head[:cut] + tail[cut:SECTOR]).kind[0]

    # of a stamp's last bytes alone nobody can tell what they were
    assert kind == (stamp.FOREIGN if head == bytes(4 * SECTOR) and cut > 500 else stamp.TORN)


@pytest.mark.parametrize("owner", [Owner(OWNER.run, 4, 7), Owner(OWNER.run, 3, 8)])
def test_another_files_stamp_is_misplaced(owner: Owner) -> None:
    assert set(decode(owner, written()).kind) == {stamp.MISPLACED}


def test_a_stamp_at_another_offset_is_misplaced() -> None:
    data = written()

    assert decode(OWNER, data[SECTOR : 2 * SECTOR] + data[:SECTOR]).kind.tolist() == [stamp.MISPLACED] * 2


def test_an_earlier_runs_stamp_is_foreign() -> None:
    assert set(decode(Owner(5, 3, 7), written()).kind) == {stamp.FOREIGN}


def test_random_bytes_are_foreign_and_an_odd_end_is_torn() -> None:
    noise = np.random.default_rng(1).bytes(SECTOR)

    assert decode(OWNER, noise + written(1, 1) + b"x").kind.tolist() == [stamp.FOREIGN, stamp.GOOD, stamp.TORN]


def test_an_empty_file_has_no_sectors() -> None:
    assert len(decode(OWNER, b"")) == 0
