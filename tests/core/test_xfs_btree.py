"""Extents of XFS and the blocks of their trees: each rule that one can break, checksum and all."""

import struct

import pytest

from tests.xfs_scene import damaged_paths, map_image, texts
from tests.xfs_surgery import LONG_CRC, Surgeon

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ((0, None, 0, 0), "an extent of length 0"),
        ((0, 0, 5, 0), "outside its allocation group"),
        ((0, 1 << 40, 5, 0), "outside its allocation group"),
        ((0, None, (1 << 21) - 1, 0), "outside its allocation group"),
        (((1 << 54) - 1, None, 5, 0), "past what a file can map"),
        ((0, "log", 5, 0), "an extent lies in the log"),
    ],
)
def test_an_extent_that_cannot_be_damages_its_file(
    surgeon: Surgeon, record: tuple[int, int | str | None, int, int], text: str
) -> None:
    number = surgeon.number("/one/file")
    fork = surgeon.fork(number)
    logical, block, count, unwritten = record
    if block is None:
        block = surgeon.records(fork, 1)[0][1]
    surgeon.put_record(fork, logical, surgeon.log_start if block == "log" else int(block), count, unwritten)
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)

    assert [(inode, text in said) for inode, _, said in extent_map.problems] == [(number, True)]
    assert damaged_paths(extent_map) == {b"one/file"}


def test_extents_that_overlap_damage_their_file(surgeon: Surgeon) -> None:
    number = surgeon.number("/one/file")
    fork = surgeon.fork(number)
    _, block, count, _ = surgeon.records(fork, 1)[0]
    surgeon.put_record(fork + 16, count - 1, block, 1)
    surgeon.write(surgeon.inode(number) + 76, struct.pack(">I", 2))
    surgeon.fix_inode(number)

    assert texts(map_image(surgeon.image)) == ["extents overlap or are out of order"]


@pytest.mark.parametrize(
    ("offset", "value", "text"),
    [
        (0, b"X", "an extent tree block without its magic number"),
        (4, b"\x00\x05", "an extent tree block of the wrong level"),
        (6, b"\xff\xff", "an extent tree block with no records, or more than fit"),
        (6, b"\x00\x00", "an extent tree block with no records, or more than fit"),
        (24, b"\x01", "an extent tree block that belongs elsewhere"),
        (40, b"\xff\xfe", "an extent tree block of another file system"),
        (56, b"\x01", "an extent tree block of another inode"),
        (72, b"\x00\x00\x7f", "an extent tree block does not start where its parent says"),
    ],
)
def test_what_is_wrong_with_a_tree_block_is_said(surgeon: Surgeon, offset: int, value: bytes, text: str) -> None:
    """Checksum and all; with the place of the block. Another file of the same kind is not touched."""
    number = surgeon.number("/deep")
    node = surgeon.nodes(number)[-1]
    surgeon.write(node + offset, value)
    surgeon.fix_block(node, LONG_CRC)
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == [(number, node, text)]
    assert damaged_paths(extent_map) == {b"deep"}


def test_a_tree_block_used_twice_is_refused_once(surgeon: Surgeon) -> None:
    """A root whose second pointer is its first, checksum and all."""
    number = surgeon.number("/deep")
    fork = surgeon.fork(number)
    room = 8 * surgeon.read(surgeon.inode(number) + 82, 1)[0] or 512 - 176
    keys, pointers = fork + 4, fork + 4 + 8 * ((room - 4) // 16)
    surgeon.write(fork + 2, struct.pack(">H", 2))
    surgeon.write(keys + 8, struct.pack(">Q", 1 << 40))
    surgeon.write(pointers + 8, surgeon.read(pointers, 8))
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)

    assert texts(extent_map) == ["a block of its extent tree is used twice"]
    assert damaged_paths(extent_map) == {b"deep"}
