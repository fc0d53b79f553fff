"""Symlink targets in blocks, made by an independent encoder."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel.core.xfs_fork import join_target
from tests.xfs_encoder import Fork, Form, superblock, symlink_blocks

OWNER = 0x83


def join(fork: Fork, size: int) -> tuple[bytes | None, str | None]:
    return join_target(superblock(fork.form), OWNER, fork.extents, fork.bytes, size)


@given(
    st.sampled_from([Form(5, 1024), Form(5, 4096), Form(4, 512), Form(4, 1024), Form(4, 4096)]),
    st.sampled_from([1, 2, 3, 1 << 20]),
    st.binary(min_size=1, max_size=1024).filter(lambda target: b"\0" not in target),
)
@settings(max_examples=100, deadline=None)
def test_targets_come_back(form: Form, run: int, target: bytes) -> None:
    """In one extent or several, each with a header of its own in version 5."""
    fork = Fork(form, OWNER, run)
    symlink_blocks(fork, target)

    assert join(fork, len(target)) == (target, None)


@pytest.mark.parametrize("size", [967, 968, 969, 1023, 1024])
@pytest.mark.parametrize("run", [1, 2])
def test_targets_round_the_end_of_a_block(size: int, run: int) -> None:
    """968 bytes fit a block of 1 KiB; two blocks in one extent have one header, in two extents two."""
    fork = Fork(Form(5, 1024), OWNER, run)
    symlink_blocks(fork, b"t" * size)

    assert join(fork, size) == (b"t" * size, None)


def test_a_target_of_no_size_or_above_the_limit_is_refused() -> None:
    fork = Fork(Form(5, 4096), OWNER)
    symlink_blocks(fork, b"t" * 1000)

    for size in (0, 1025, 1 << 31):
        assert join(fork, size)[0] is None


@pytest.mark.parametrize(
    ("offset", "word"), [(4, "part"), (8, "part"), (0, "magic"), (56, "checksum"), (2000, "checksum")]
)
def test_a_changed_byte_is_seen(offset: int, word: str) -> None:
    """Of the header, of the target, and behind it: the checksum covers the extent."""
    fork = Fork(Form(5, 4096), OWNER)
    symlink_blocks(fork, b"t" * 1000)
    block = bytearray(fork.blocks[0])
    block[offset] ^= 0x40
    fork.blocks[0] = bytes(block)
    target, text = join(fork, 1000)

    assert target is None
    assert text is not None
    assert word in text


def test_blocks_that_are_not_mapped_and_null_bytes_are_told() -> None:
    """Version 4, which has neither header nor checksum."""
    fork = Fork(Form(4, 512), OWNER, 1)
    symlink_blocks(fork, b"t" * 700)
    assert join(fork, 800) == (None, "a symlink whose target holds a null byte")
    assert join(fork, 1024 - 323) == (None, "a symlink whose target holds a null byte")

    del fork.blocks[1]
    assert join(fork, 700) == (None, "a symlink's blocks are not all mapped")
    del fork.blocks[0]
    assert join(fork, 700) == (None, "a symlink's blocks are not all mapped")
