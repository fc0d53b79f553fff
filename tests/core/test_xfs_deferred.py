"""Targets and attribute forks in blocks of their own: what does not read or cannot be costs its own file alone."""

import os
import struct
from pathlib import Path

import pytest

from tests import oracle
from tests.faulty import unreadable
from tests.xfs_scene import damaged_paths, map_image, texts
from tests.xfs_surgery import Surgeon

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("path", "text", "is_damaged"),
    [
        ("/deep", "a block of its extent tree does not read", True),
        ("/one/file", None, False),
        ("/many", "a directory block does not read", True),
        ("/long", "a block of its extended attributes or its target does not read", True),
        ("/big_xattrs/several", "a block of its extended attributes or its target does not read", False),
    ],
)
def test_a_block_that_does_not_read_costs_its_own_file_alone(
    xfs_good: Path, xfs_truth: dict[bytes, oracle.Entry], path: str, text: str | None, is_damaged: bool
) -> None:
    """Of attributes only, the file remains; blocks of data are not read at all."""
    surgeon = Surgeon(xfs_good)
    number = surgeon.number(path)
    if path == "/deep":
        offset = surgeon.nodes(number)[-1]
    else:
        fork = surgeon.attribute_fork(number) if "xattrs" in path else surgeon.fork(number)
        offset = surgeon.block(surgeon.records(fork, 1)[0][1])
    with unreadable(xfs_good, offset) as faulty:
        extent_map = map_image(faulty)
    entries = oracle.map_entries(extent_map)
    name = os.fsencode(path[1:])
    touched = {other for other in xfs_truth if other == name or other.startswith(name + b"/")}
    sure = {other: entry for other, entry in xfs_truth.items() if other not in touched}

    assert oracle.differences(sure, {p: entry for p, entry in entries.items() if p not in touched}) == []
    assert {inode for inode, _, _ in extent_map.problems} == ({number} if text else set())
    assert text is None or text in texts(extent_map)
    assert damaged_paths(extent_map) == ({name} if is_damaged else set())


def test_inodes_that_do_not_read_cost_themselves_alone(xfs_good: Path, xfs_truth: dict[bytes, oracle.Entry]) -> None:
    """Two inodes of 512 bytes stand in a block of 1024; the names that lead to them are reported."""
    surgeon = Surgeon(xfs_good)
    number = surgeon.number("/one/file")
    offset = surgeon.inode(number) // 1024 * 1024
    with unreadable(xfs_good, offset) as faulty:
        extent_map = map_image(faulty)
    lost = {number & ~1, number | 1}
    found = {extent_map.path_of(i) for i in range(extent_map.name_count)}

    assert (number & ~1, offset, "a block of inodes does not read: inodes from this one on are lost") in [
        problem for problem in extent_map.problems if problem[1] == offset
    ]
    assert found == {path for path, entry in xfs_truth.items() if entry.inode not in lost}


def test_headers_that_do_not_read_cost_their_group_alone(xfs_good: Path) -> None:
    surgeon = Surgeon(xfs_good)
    with unreadable(xfs_good, surgeon.header(1, 2)) as faulty:
        extent_map = map_image(faulty)

    assert texts(extent_map)[0] == "allocation group 1: its headers do not read: its inodes are lost"
    assert extent_map.find_file(surgeon.number("/")) >= 0


@pytest.mark.parametrize(
    ("count", "unwritten", "text"),
    [
        (2, 1, "a symlink whose target is in no block, or in too many"),
        (2000, 0, "a symlink whose target is in no block, or in too many"),
    ],
)
def test_a_target_that_cannot_be_is_not_read(surgeon: Surgeon, count: int, unwritten: int, text: str) -> None:
    number = surgeon.number("/long")
    block = surgeon.records(surgeon.fork(number), 1)[0][1]
    surgeon.put_record(surgeon.fork(number), 0, block, count, unwritten)
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)

    assert texts(extent_map) == [text]
    assert damaged_paths(extent_map) == {b"long"}


def test_attribute_forks_are_no_larger_than_the_file_system(surgeon: Surgeon) -> None:
    """Three forks that each lay claim to half of the file system: what is there once is not read twice."""
    paths = [f"/big_xattrs/size{size}" for size in (3000, 4000, 5000)]
    for path in paths:
        number = surgeon.number(path)
        fork = surgeon.attribute_fork(number)
        surgeon.put_record(fork, 0, 100, 16_000)
        surgeon.write(surgeon.inode(number) + 80, b"\x00\x01")
        surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)
    told = [text for text in texts(extent_map) if "larger than 64 MiB" in text]

    assert len(told) == 1
    assert damaged_paths(extent_map) == set()


def test_what_stands_in_the_inode_beside_blocks_is_kept(surgeon: Surgeon) -> None:
    """A target in the inode with attributes in blocks: both are in the record."""
    number = surgeon.number("/long")
    fork = surgeon.fork(number)
    surgeon.write(surgeon.inode(number) + 5, b"\x01")
    surgeon.write(surgeon.inode(number) + 56, struct.pack(">Q", 6))
    surgeon.write(surgeon.inode(number) + 76, bytes(4))
    surgeon.write(fork, b"target")
    surgeon.fix_inode(number)
    entry = oracle.map_entries(map_image(surgeon.image))[b"long"]

    assert entry.target == b"target"
