"""CRC32C and cksum against crcmod, cksum(1) and published check values, for every kernel this CPU has."""

import subprocess
from collections.abc import Iterator

import crcmod
import crcmod.predefined
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.core import checksum
from splitreel.errors import Misuse
from tests.support import missing, need_programs

oracle_crc32c = crcmod.predefined.mkPredefinedCrcFun("crc-32c")
oracle_cksum = crcmod.mkCrcFun(0x104C11DB7, initCrc=0, rev=False)
NOISE = np.random.default_rng(20031).integers(0, 256, 70_000, dtype=np.uint8).tobytes()
# Around the borders of words, folding and lanes; then two rounds of long lanes with everything shorter behind them.
SIZES = [*range(70), 127, 128, 129, 767, 768, 769, 800, 1537, 12287, 12288, 12289, 2 * 12288 + 2 * 768 + 31, 65536]
pieces = st.binary(max_size=3000)


@pytest.fixture(params=["auto", "slice8"], autouse=True)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs with every kernel."""
    checksum.force(request.param)
    if request.param == "auto" and "slice8" in checksum.implementation().values():
        missing("this CPU has no CRC instructions")
    yield request.param
    checksum.force("auto")


def oracle_register(data: bytes, register: int = 0) -> int:
    return int(oracle_cksum(data, register))


def oracle_finished(data: bytes) -> int:
    size = len(data)
    length = size.to_bytes((size.bit_length() + 7) // 8, "little")
    return oracle_register(data + length) ^ 0xFFFFFFFF


def test_check_values() -> None:
    """RFC 3720 B.4 and the catalogue's check values."""
    assert checksum.crc32c(b"") == 0
    assert checksum.crc32c(b"123456789") == 0xE3069283
    assert checksum.crc32c(bytes(32)) == 0x8A9136AA
    assert checksum.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert checksum.cksum(b"") == 0xFFFFFFFF
    assert checksum.cksum(b"123456789") == 930766865


def test_kernel_is_the_one_forced(kernel: str) -> None:
    """implementation() names what runs."""
    names = set(checksum.implementation().values())

    assert (names == {"slice8"}) == (kernel == "slice8")


def test_unknown_kernel_is_refused() -> None:
    """A misspelt kernel does not leave the choice as it was unnoticed."""
    with pytest.raises(Misuse, match="auto and slice8"):
        checksum.force("sse9")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES)
def test_every_alignment(size: int) -> None:
    """Sizes at every border, at each of 16 alignments, continued from a value that is not zero."""
    view = memoryview(NOISE)
    for start in range(16):
        data = view[start : start + size]

        assert checksum.crc32c(data, 0x12345678) == oracle_crc32c(bytes(data), 0x12345678)
        assert checksum.cksum_register(data, 0x9ABCDEF0) == oracle_register(bytes(data), 0x9ABCDEF0)


@settings(max_examples=60, deadline=None)
@given(pieces, st.integers(0, 2**32 - 1))
def test_any_bytes(data: bytes, start: int) -> None:
    """Any bytes, any start value."""
    assert checksum.crc32c(data, start) == oracle_crc32c(data, start)
    assert checksum.cksum_register(data, start) == oracle_register(data, start)
    assert checksum.cksum(data) == oracle_finished(data)


@settings(max_examples=60, deadline=None)
@given(pieces, pieces)
def test_join(first: bytes, second: bytes) -> None:
    """Joined checksums of two pieces equal the checksum of the whole."""
    joined = checksum.crc32c_join(checksum.crc32c(first), checksum.crc32c(second), len(second))
    register = checksum.cksum_join(checksum.cksum_register(first), checksum.cksum_register(second), len(second))

    assert joined == oracle_crc32c(first + second)
    assert checksum.cksum_value(register, len(first + second)) == oracle_finished(first + second)


@settings(max_examples=40, deadline=None)
@given(pieces, st.integers(0, 100_000))
def test_extend_by_zeros(data: bytes, zeros: int) -> None:
    """Extension by zeros equals the checksum of data and as many zero bytes."""
    whole = data + bytes(zeros)

    assert checksum.crc32c_extend_zeros(checksum.crc32c(data), zeros) == oracle_crc32c(whole)
    assert checksum.cksum_extend_zeros(checksum.cksum_register(data), zeros) == oracle_register(whole)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.integers(0, 2**63 - 1))
def test_zeros_add_up(value: int, first: int, second: int) -> None:
    """Sizes far beyond what can be summed: two extensions are one of the sum."""
    twice = checksum.crc32c_extend_zeros(checksum.crc32c_extend_zeros(value, first), second)
    register = checksum.cksum_extend_zeros(checksum.cksum_extend_zeros(value, first), second)

    assert twice == checksum.crc32c_extend_zeros(value, first + second)
    assert register == checksum.cksum_extend_zeros(value, first + second)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 4095, 65536, 70_000])
def test_against_cksum_program(size: int) -> None:
    """cksum(1) prints the same number and size."""
    need_programs("cksum")
    printed = subprocess.run(["cksum"], input=NOISE[:size], capture_output=True, check=True).stdout.split()

    assert [int(word) for word in printed] == [checksum.cksum(NOISE[:size]), size]


def test_buffers_of_items() -> None:
    """A buffer counts in bytes, whatever its items are; one that is not contiguous is refused."""
    words = np.frombuffer(NOISE[:4096], dtype=np.uint64)

    assert checksum.crc32c(words) == oracle_crc32c(NOISE[:4096])
    assert checksum.cksum(words) == oracle_finished(NOISE[:4096])
    with pytest.raises((BufferError, ValueError)):
        checksum.crc32c(words[::2])
