"""InnoDB pages: what a server wrote is right in every format, what was changed or lies elsewhere is not."""

import struct
import zlib
from random import Random

import crcmod.predefined
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.core import pages_innodb
from splitreel.errors import Misuse
from tests.pages.kept import INNODB, pages

GOOD, NEW, UNCHECKED, CHECKSUM, TORN, NUMBER, SPACE = 0, 1, 2, 3, 5, 6, 7
NO_CHECKSUM = 0xDEADBEEF
crc32c = crcmod.predefined.mkCrcFun("crc-32c")


def fold(data: bytes) -> int:
    """ut_fold_binary of MariaDB's ut0rnd.h."""
    value = 0
    for byte in data:
        value = ((((value ^ byte ^ 1653893711) << 8) + value) ^ 1463735687) + byte & 0xFFFFFFFF
    return value


def made(number: int, size: int = 16384, *, space: int = 9, lsn: int = 0x0102030405060708, flags: int = 0) -> bytearray:
    """A page without checksums; page 0 with the flags of its tablespace."""
    page = bytearray(Random(number).randbytes(size))
    struct.pack_into(">IIIIQHQI", page, 0, 0, number, 0, 0, lsn, 17855, 0, space)
    if number == 0:
        struct.pack_into(">IIIII", page, 38, space, 0, 8, 8, flags)
    return page


def sealed(page: bytearray, algorithm: str) -> bytes:
    """The page with the checksums of an algorithm, computed by other means."""
    size, low = len(page), page[20:24]
    if algorithm == "full_crc32":
        page[-8:-4] = low
        page[-4:] = struct.pack(">I", crc32c(bytes(page[:-4])))
        return bytes(page)
    if algorithm.startswith("zip"):
        take = zlib.adler32 if algorithm == "zip_adler" else None
        parts = (bytes(page[4:16]), bytes(page[24:26]), bytes(page[34:]))
        value = take(parts[2], take(parts[1], take(parts[0], 0))) if take else 0
        if take is None:
            value = crc32c(parts[0]) ^ crc32c(parts[1]) ^ crc32c(parts[2])
        page[:4] = struct.pack(">I", value)
        return bytes(page)
    page[-4:] = low
    crc = crc32c(bytes(page[4:26])) ^ crc32c(bytes(page[38 : size - 8]))
    new = {"crc32": crc, "none": NO_CHECKSUM, "innodb": fold(page[4:26]) + fold(page[38 : size - 8])}[algorithm]
    page[:4] = struct.pack(">I", new & 0xFFFFFFFF)
    page[-8:-4] = struct.pack(">I", fold(page[:26]) if algorithm == "innodb" else new)
    return bytes(page)


FLAGS = {"full_crc32": 0x15, "crc32": 0, "innodb": 0, "none": 0, "zip_crc32": 0x27, "zip_adler": 0x27}


def tablespace(algorithm: str, count: int = 3) -> bytes:
    """A tablespace of ``count`` pages."""
    size = 4096 if algorithm.startswith("zip") else 16384
    return b"".join(sealed(made(number, size, flags=FLAGS[algorithm]), algorithm) for number in range(count))


@pytest.mark.parametrize("name", INNODB)
def test_pages_of_a_server_are_right(name: str) -> None:
    """Without full_crc32, MariaDB gives compressed pages no checksum: they are counted, not trusted."""
    data, first = pages(name)
    verdicts = set(pages_innodb.check_pages(data, first))

    assert verdicts <= ({GOOD, UNCHECKED} if name == "innodb-crc32-page_compressed-0" else {GOOD})


@pytest.mark.parametrize("algorithm", list(FLAGS))
def test_every_checksum(algorithm: str) -> None:
    """Computed here by crcmod, zlib and the definition."""
    data = tablespace(algorithm)

    assert set(pages_innodb.check_pages(data)) == {UNCHECKED if algorithm == "none" else GOOD}
    strict = {GOOD} if "crc32" in algorithm else {CHECKSUM}
    assert set(pages_innodb.check_pages(data, strict=True)) == strict


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(INNODB), st.data())
def test_one_changed_bit_is_found(name: str, data: st.DataObject) -> None:
    """In what a checksum covers; of a plain page those are all bytes but the header's key version and space."""
    content, first = pages(name)
    size = int(pages_innodb.describe(content[:4096])["page_size"])
    number = data.draw(st.integers(1, len(content) // size - 1))
    page = bytearray(content[number * size : (number + 1) * size])
    before = pages_innodb.check_pages(content, first)
    used = size
    if "full_crc32-page_compressed" in name and page[24] & 0x80:
        used = (struct.unpack_from(">H", page, 24)[0] & 0x7FFF) << 8
    bit = data.draw(st.integers(0, used * 8 - 1))
    page[bit // 8] ^= 1 << bit % 8
    changed = content[: number * size] + page + content[(number + 1) * size :]
    found = pages_innodb.check_pages(changed, first)
    uncovered = "full_crc32" not in name and 26 <= bit // 8 < 34
    uncovered |= "zip" in name and (16 <= bit // 8 < 24 or 26 <= bit // 8 < 34)

    if before[number] == GOOD and not uncovered:
        assert found[number] not in (GOOD, NEW)
    assert found[:number] + found[number + 1 :] == before[:number] + before[number + 1 :]


@pytest.mark.parametrize("algorithm", ["full_crc32", "crc32", "innodb", "zip_crc32"])
def test_pages_in_other_places_are_found(algorithm: str) -> None:
    """A page that is right in itself but stands where another belongs, or in another tablespace."""
    data = tablespace(algorithm)
    size = len(data) // 3
    alien = sealed(made(2, size, space=10), algorithm)

    assert list(pages_innodb.check_pages(data[:size] + data[2 * size :] + data[size : 2 * size])) == [0, NUMBER, NUMBER]
    assert list(pages_innodb.check_pages(data[: 2 * size] + alien)) == [GOOD, GOOD, SPACE]


@pytest.mark.parametrize("algorithm", ["full_crc32", "crc32"])
def test_torn_pages_are_told_from_changed_ones(algorithm: str) -> None:
    """The first half new, the second old: the halves of the LSN differ."""
    data = tablespace(algorithm)
    newer = sealed(made(1, lsn=0x0102030405060799), algorithm)
    torn = data[:16384] + newer[:8192] + data[16384 + 8192 :]

    assert list(pages_innodb.check_pages(torn)) == [GOOD, TORN, GOOD]


@pytest.mark.parametrize("algorithm", ["full_crc32", "crc32", "zip_crc32"])
def test_new_pages_are_all_zeros(algorithm: str) -> None:
    data = tablespace(algorithm, 1)
    page = bytearray(len(data))
    page[-1] = 1

    assert list(pages_innodb.check_pages(data + bytes(len(data)) + page))[:2] == [GOOD, NEW]
    assert pages_innodb.check_pages(data + bytes(len(data)) + page)[2] not in (GOOD, NEW)


def test_without_page_0_the_format_is_found_page_by_page() -> None:
    """So that damage to page 0, or a tablespace's second file, hides nothing of the other pages."""
    for algorithm in ("full_crc32", "crc32", "innodb"):
        data = tablespace(algorithm)[16384:]

        assert set(pages_innodb.check_pages(data, 1)) == {GOOD}
        assert list(pages_innodb.check_pages(data[:-100] + b"x" + data[-99:], 1)) == [GOOD, CHECKSUM]


@pytest.mark.parametrize("algorithm", ["crc32", "zip_crc32"])
def test_encrypted_pages_bear_a_checksum_of_their_own(algorithm: str) -> None:
    """MariaDB takes it after encryption (fil_space_verify_crypt_checksum): such pages are verified without any key."""
    data = bytearray(tablespace(algorithm))
    size = len(data) // 3
    page = data[size : 2 * size]
    struct.pack_into(">I", page, 26, 7)
    plain = crc32c(bytes(page[4:26])) ^ crc32c(bytes(page[38:-8]))
    zipped = crc32c(bytes(page[4:16])) ^ crc32c(bytes(page[24:26])) ^ crc32c(bytes(page[34:]))
    struct.pack_into(">I", page, 30, plain if algorithm == "crc32" else zipped)
    page[:4] = b"gone"
    data[size : 2 * size] = page

    assert list(pages_innodb.check_pages(data)) == [GOOD, GOOD, GOOD]
    data[size + 1000] ^= 1
    assert pages_innodb.check_pages(data)[1] == CHECKSUM


@pytest.mark.parametrize(
    ("flags", "described"),
    [
        (0x13, (4096, "full_crc32")),
        (0x17, (65536, "full_crc32")),
        (0x1F, (16384, "unknown")),
        (0x12, (16384, "unknown")),
        (0, (16384, "plain")),
        (0x21, (16384, "plain")),
        (0xE1, (4096, "plain")),
        (0x1C1, (65536, "plain")),
        (0x27, (4096, "compressed rows")),
        (0x29, (8192, "compressed rows")),
        (0x3FF, (16384, "unknown")),
    ],
)
def test_flags_say_page_size_and_format(flags: int, described: tuple[int, str]) -> None:
    """What cannot be is not believed: the server's own page size is kept."""
    found = pages_innodb.describe(bytes(made(0, flags=flags)))

    assert (found["page_size"], found["format"]) == described


def test_what_is_no_pages_is_refused() -> None:
    for size, page_size in ((100, 16384), (16384, 2048), (16384, 131072), (16384, 12288)):
        with pytest.raises(Misuse, match="whole pages"):
            pages_innodb.check_pages(bytes(size), page_size=page_size)
