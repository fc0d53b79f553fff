"""Pages in passing: the same is found however the bytes of a file are cut, and every page is counted once."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.core import pages_innodb, pages_postgresql
from splitreel.core.pages import REASONS, RULE_FORMAT, SYSTEM, PageChecker
from splitreel.errors import Misuse
from tests.core.test_pages_innodb import made, sealed, tablespace
from tests.core.test_pages_postgresql import header
from tests.core.test_pages_postgresql import sealed as sealed_postgresql
from tests.pages.kept import INNODB, POSTGRESQL, pages

CHECKSUM, NUMBER, SHORT = 3, 6, 8
RULE = np.dtype([("first_page", "<u4"), ("profile", "u1"), ("flags", "u1"), ("reserved", "<u2")])


def checker(
    *rules: tuple[int, int, int], repaired: tuple[int, int] = (0, 0), limit: int = 1000, page_size: int = 16384
) -> PageChecker:
    """Profile 1 is PostgreSQL, 2 InnoDB."""
    found = PageChecker(limit)
    assert found.add_postgresql(repaired=repaired) == 1
    assert found.add_innodb(page_size) == 2
    found.set_rules(np.array([(*rule, 0) for rule in rules], dtype=RULE))
    return found


def in_pieces(found: PageChecker, file: int, data: bytes, cuts: list[int]) -> None:
    """Feed a file cut at these places; a piece of zeros as a hole."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in pairwise(places):
        piece = data[begin:end]
        if any(piece):
            found.feed(file, begin, len(data), piece)
        else:
            found.feed(file, begin, len(data), None, len(piece))


def offsets(found: PageChecker) -> list[tuple[int, int, int]]:
    return [(number, offset, why) for _, number, offset, why, _, _ in found.findings]


def test_records_are_as_python_makes_them() -> None:
    assert np.dtype(RULE).itemsize == 8
    assert np.asarray(memoryview(np.zeros(1, RULE))).dtype == RULE
    assert RULE_FORMAT == b"T{=I:first_page:=B:profile:=B:flags:=H:reserved:}"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(POSTGRESQL + INNODB), st.integers(0), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_cuts_change_nothing(name: str, seed: int, cuts: list[int]) -> None:
    """Whole and in pieces, with holes and with injured bytes: what check_pages says of the same bytes."""
    content, first = pages(name)
    postgresql = name in POSTGRESQL
    size = 8192 if postgresql else int(pages_innodb.describe(content[:4096])["page_size"])
    data = bytearray(content + bytes(3 * size) + content[:size])
    random = Random(seed)
    for _ in range(random.randrange(4)):
        data[random.randrange(size, len(data))] ^= 1 << random.randrange(8)
    module = pages_postgresql if postgresql else pages_innodb
    verdicts = module.check_pages(data, first)
    found = checker((first, 1 if postgresql else 2, 0))
    in_pieces(found, 0, bytes(data), cuts)

    bad = [(first + i, i * size, why) for i, why in enumerate(verdicts) if why > 2]
    assert offsets(found) == bad
    assert found.counts == {
        "files": 1,
        "pages": len(verdicts),
        "new": verdicts.count(1),
        "unchecked": verdicts.count(2),
        "repaired": 0,
        "damaged": len(bad),
    }


def test_only_files_with_a_rule_are_looked_at() -> None:
    """What is no database file may hold anything."""
    found = checker((0, 0, 0), (0, 1, 0))
    found.feed(0, 0, 8192, b"x" * 8192)
    found.feed(7, 0, 8192, b"x" * 8192)

    assert found.counts["files"] == found.counts["pages"] == 0
    found.feed(1, 0, 8192, b"x" * 8192)
    assert found.counts["damaged"] == 1
    assert set(REASONS) == {3, 4, 5, 6, 7, 8}


@pytest.mark.parametrize("cut", [1, 512, 8192, 10000])
def test_a_file_goes_on_in_another_part(cut: int) -> None:
    """The second part begins in the middle of a page: that page is whole again. Another file between, and it is not."""
    data = pages("postgresql-heap-7")[0]
    found = checker((7, 1, 0), (0, 1, 0))
    found.feed(0, 0, len(data), data[:cut])
    found.feed(0, cut, len(data), data[cut:])
    assert found.counts["damaged"] == found.counts["unchecked"] == 0
    assert found.counts["pages"] == 2

    found = checker((7, 1, 0), (0, 1, 0))
    found.feed(0, 0, len(data), data[:cut])
    found.feed(1, 0, 8192, None, 8192)
    found.feed(0, cut, len(data), data[cut:])
    assert found.counts["damaged"] == 0
    assert found.counts["unchecked"] == (2 if cut % 8192 else 0)


@pytest.mark.parametrize("cut", [0, 100, 16384, 40000, 70000])
@pytest.mark.parametrize("algorithm", ["full_crc32", "crc32", "zip_crc32"])
def test_a_run_may_begin_inside_a_file(algorithm: str, cut: int) -> None:
    """Page 0 and the beginning of the cut page are given again: nothing is unchecked, another's page is found."""
    data = bytearray(tablespace(algorithm, 24))
    size = len(data) // 24
    data[-2 * size : -size] = sealed(made(22, size, space=10), algorithm)
    found = checker((0, 2, 0))
    found.go_on(0, cut, len(data), bytes(data[:65536]), bytes(data[cut - cut % 65536 : cut]))
    found.feed(0, cut, len(data), bytes(data[cut:]))

    assert offsets(found) == [(22, 22 * size, 7)]
    assert found.counts["unchecked"] == 0
    assert found.counts["pages"] == 24 - cut // size
    assert found.counts["files"] == 1


def test_a_page_that_was_not_whole_is_counted() -> None:
    """The end of a tape in the middle of a page."""
    found = checker((0, 1, 0))
    found.feed(0, 0, 16384, bytes(8192) + b"x")
    found.forget()
    found.forget()

    assert found.counts["unchecked"] == 1
    assert found.counts["pages"] == 2


def test_a_file_that_ends_inside_a_page_is_damaged() -> None:
    """Unless recovery writes it anew, as it does with what was extended during a hot backup."""
    found = checker((0, 1, 0))
    found.feed(0, 0, 8192 + 100, bytes(8292))
    assert offsets(found) == [(1, 8192, SHORT)]

    found = checker((0, 1, 0), repaired=(1, 9))
    found.feed(0, 0, 8192 + 100, bytes(8292))
    assert found.counts["damaged"] == 0
    assert found.counts["repaired"] == 1


def test_pages_that_recovery_writes_anew_are_no_damage() -> None:
    """Torn while a hot backup ran: its LSN lies between the backup's start and end. Any other page is damaged."""

    def page(lsn: int) -> bytes:
        made = bytearray(sealed_postgresql(header()))
        made[:8] = (lsn >> 32).to_bytes(4, "little") + (lsn & 0xFFFFFFFF).to_bytes(4, "little")
        return bytes(made)

    start = 0x1_0000_0010
    found = checker((0, 1, 0), repaired=(start, start + 2))
    found.feed(0, 0, 6 * 8192, b"".join(map(page, (start - 1, start, start + 2, 0xFFFFFFFF, start + 3, 1 << 63))))

    assert [offset // 8192 for _, offset, _ in offsets(found)] == [0, 3, 4, 5]
    assert found.findings[0][4] == start - 1
    assert found.counts["repaired"] == 2


def test_pages_of_the_doublewrite_buffer_are_copies() -> None:
    """In the system tablespace they bear others' numbers: where page 5 says, else where a new server puts them."""
    system = [sealed(made(i, space=0, flags=0x15), "full_crc32") for i in range(70)]
    system[65] = sealed(made(3, space=4), "full_crc32")
    system[66] = b"x" * 16384
    system[10] = sealed(made(3, space=4), "full_crc32")
    found = checker((0, 2, SYSTEM))
    found.feed(0, 0, 70 * 16384, b"".join(system))
    assert offsets(found) == [(10, 10 * 16384, NUMBER)]
    assert found.counts["unchecked"] == 6

    page = made(5, space=0)
    page[-200 + 10 : -200 + 22] = b"".join(n.to_bytes(4, "big") for n in (536853855, 8, 1000))
    system[5] = sealed(page, "full_crc32")
    found = checker((0, 2, SYSTEM))
    found.feed(0, 0, 70 * 16384, b"".join(system))
    assert offsets(found) == []
    assert found.counts["unchecked"] == 62


def test_a_second_file_of_a_tablespace_counts_on() -> None:
    """It has no page that says the format; page numbers go on from the first file's."""
    data = b"".join(sealed(made(i, space=0), "crc32") for i in (1000, 1001, 1003))
    found = checker((1000, 2, SYSTEM), page_size=16384)
    found.feed(0, 0, len(data), data)

    assert offsets(found) == [(1002, 2 * 16384, NUMBER)]


def test_a_new_tablespace_says_nothing_yet() -> None:
    """Page 0 may be zeros still: then the server's page size counts."""
    found = checker((0, 2, 0), page_size=4096)
    found.feed(0, 0, 65536, None, 65536)

    assert found.counts["new"] == found.counts["pages"] == 16


def test_the_list_is_bounded_and_the_count_is_not() -> None:
    found = checker((0, 1, 0), limit=3)
    found.feed(0, 0, 10 * 8192, b"x" * (10 * 8192))

    assert [offset // 8192 for _, offset, _ in offsets(found)] == [0, 1, 2]
    assert found.counts["damaged"] == 10


def test_what_cannot_be_is_refused() -> None:
    found = PageChecker()
    for size in (512, 65536, 8000):
        with pytest.raises(Misuse, match="size"):
            found.add_postgresql(size)
    for size in (2048, 131072):
        with pytest.raises(Misuse, match="size"):
            found.add_innodb(size)
    with pytest.raises(Misuse, match="profile"):
        found.set_rules(np.array([(0, 1, 0, 0)], dtype=RULE))
    with pytest.raises(Misuse, match="8 bytes"):
        PageChecker().set_rules(b"1234567")
    with pytest.raises(Misuse, match="databases"):
        found.add_postgresql()
    found = PageChecker()
    for _ in range(255):
        found.add_innodb()
    with pytest.raises(Misuse, match="255"):
        found.add_innodb()
