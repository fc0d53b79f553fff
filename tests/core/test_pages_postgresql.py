"""PostgreSQL pages: what a server wrote is right, what was changed is not, and both kernels say the same."""

import struct
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.core import pages_postgresql
from splitreel.errors import Misuse
from tests.pages.kept import POSTGRESQL, pages

GOOD, NEW, CHECKSUM, HEADER = 0, 1, 3, 4
SIZE = 8192
BASE = np.frombuffer(
    bytes.fromhex(
        "5B1F36E9 B8525960 02AB50AA 1DE66D2A 79FF467A 9BB9F8A3 217E7CD2 83E13D2C"
        " F8D4474F E39EB970 42C6AE16 993216FA 7B093B5D 98DAFF3C F718902A 0B1C9CDB"
        " E58F764B 187636BC 5D7B3BB1 E73DE7DE 92BEC979 CCA6C0B2 304A0979 85AA43D4"
        " 783125BB 6CA8EAA2 E407EAC6 4B5CFC3E 9FBF8C76 15CA20BE F2CA9FD3 959BD756"
    ),
    dtype=">u4",
).astype(np.uint32)


def oracle(page: bytes, block: int) -> int:
    """The checksum as checksum_impl.h describes it, in numpy."""
    rows = np.frombuffer(page[:8] + b"\0\0" + page[10:], dtype="<u4").reshape(-1, 32)
    sums = BASE.copy()
    for row in [*rows, np.zeros(32, np.uint32), np.zeros(32, np.uint32)]:
        mixed = sums ^ row
        sums = (mixed * np.uint32(16777619)) ^ (mixed >> np.uint32(17))
    return int((int(np.bitwise_xor.reduce(sums)) ^ block) % 65535 + 1)


def sealed(page: bytes, block: int = 0) -> bytes:
    """The page with the checksum that belongs to it."""
    return page[:8] + struct.pack("<H", oracle(page, block)) + page[10:]


def header(lower: int = 28, upper: int = 4096, special: int = SIZE, flags: int = 0) -> bytes:
    """A page with these fields."""
    return (bytes(10) + struct.pack("<HHHH", flags, lower, upper, special)).ljust(SIZE, b"\x5a")


@pytest.mark.parametrize("kernel", ["auto", "portable"])
@pytest.mark.parametrize("name", POSTGRESQL)
def test_pages_of_a_server_are_right(name: str, kernel: str) -> None:
    data, first = pages(name)
    pages_postgresql.force(kernel)  # type: ignore[arg-type]
    try:
        assert set(pages_postgresql.check_pages(data, first)) <= {GOOD, NEW}
        assert pages_postgresql.page_checksum(data[:SIZE], first) == struct.unpack_from("<H", data, 8)[0]
        assert pages_postgresql.page_checksum(data[:SIZE], first) == oracle(data[:SIZE], first)
    finally:
        pages_postgresql.force("auto")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1024, 8192, 32768]), st.integers(0, 2**32 - 1))
def test_kernels_agree_with_the_oracle(seed: int, size: int, block: int) -> None:
    """On every page size and block number; the page need not be aligned."""
    page = Random(seed).randbytes(size)
    shifted = memoryview(b"x" + page)[1:]
    found = set()
    for kernel in ("portable", "auto"):
        pages_postgresql.force(kernel)
        found.add(pages_postgresql.page_checksum(shifted, block))

    assert found == {oracle(page, block)}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(POSTGRESQL), st.integers(0, SIZE * 8 - 1))
def test_one_changed_bit_is_found(name: str, bit: int) -> None:
    """Wherever it is: even in the checksum itself. A new page's only sign is its zeros, which it then loses."""
    data, first = pages(name)
    page = bytearray(data[:SIZE])
    page[bit // 8] ^= 1 << bit % 8

    assert pages_postgresql.check_pages(page, first)[0] in (CHECKSUM, HEADER)


def test_a_page_in_another_place_is_found() -> None:
    data, first = pages("postgresql-heap-7")

    assert set(pages_postgresql.check_pages(data, first + 1)) == {CHECKSUM}
    assert set(pages_postgresql.check_pages(data[SIZE:] + data[:SIZE], first)) == {CHECKSUM}


@pytest.mark.parametrize(
    ("page", "verdict"),
    [
        (header(), GOOD),
        (header(flags=7), GOOD),
        (header(flags=8), HEADER),
        (header(lower=4097), HEADER),
        (header(upper=SIZE, special=4096), HEADER),
        (header(special=SIZE + 8), HEADER),
        (header(special=SIZE - 4), HEADER),
    ],
)
def test_header_is_checked_as_the_server_does(page: bytes, verdict: int) -> None:
    """A right checksum does not make a page right (PageIsVerifiedExtended), and without one the header still counts."""
    assert list(pages_postgresql.check_pages(sealed(page))) == [verdict]
    assert list(pages_postgresql.check_pages(page, checksums=False)) == [verdict]


def test_new_pages_are_all_zeros() -> None:
    """pd_upper says that a page is new; one byte elsewhere, and it is no page at all."""
    for place in (0, 9, 4000, SIZE - 1):
        page = bytearray(SIZE)
        page[place] = 1

        assert list(pages_postgresql.check_pages(bytes(SIZE) + page)) == [NEW, HEADER]


@pytest.mark.parametrize(("size", "page_size"), [(8191, 8192), (8192, 0), (8192, 512), (65536, 65536), (12288, 6144)])
def test_what_is_no_pages_is_refused(size: int, page_size: int) -> None:
    with pytest.raises(Misuse, match="whole pages"):
        pages_postgresql.check_pages(bytes(size), page_size=page_size)
    with pytest.raises(Misuse):
        pages_postgresql.force("none")  # type: ignore[arg-type]
