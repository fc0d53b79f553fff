"""Allocation groups of XFS: what is wrong with one costs its own inodes alone, or what is known to be shared."""

import struct

import numpy
import pytest

from tests import oracle
from tests.xfs_scene import map_image, texts
from tests.xfs_surgery import SHORT_CRC, Surgeon

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("offset", "value", "text"),
    [
        (0, b"Y", "a header without its magic number"),
        (8, b"\x01", "a header that is of another group or length"),
        (12, b"\x01", "a header that is of another group or length"),
        (20, b"\xff", "the root of a B+tree is out of range"),
        (24, b"\x01", "the root of a B+tree is out of range"),
        (296, b"\xff\xfe", "a header of another file system"),
    ],
)
def test_a_group_that_is_bad_costs_its_own_inodes_alone(
    surgeon: Surgeon, xfs_truth: dict[bytes, oracle.Entry], offset: int, value: bytes, text: str
) -> None:
    """The inodes of the other group are all there; the group and its first inode are told."""
    first_of_group_1 = 1 << surgeon.ag_block_log + surgeon.inode_per_block_log
    surgeon.write(surgeon.header(1, 2) + offset, value)
    surgeon.fix_header(1, 2)
    extent_map = map_image(surgeon.image)
    found = {extent_map.path_of(i) for i in range(extent_map.name_count)}

    assert extent_map.problems[0][0] == first_of_group_1
    assert extent_map.problems[0][2].startswith("allocation group 1: " + text)
    assert found == {
        path
        for path, entry in xfs_truth.items()
        if entry.inode < first_of_group_1 and all(e.inode < first_of_group_1 for e in parents(xfs_truth, path))
    }


def parents(truth: dict[bytes, oracle.Entry], path: bytes) -> list[oracle.Entry]:
    parts = path.split(b"/")
    return [truth[b"/".join(parts[:i])] for i in range(1, len(parts))]


def test_a_bad_inode_tree_is_named_with_its_offset(surgeon: Surgeon) -> None:
    tree = surgeon.inode_tree(1)
    surgeon.write(tree + 60, b"\x55")
    extent_map = map_image(surgeon.image)

    assert extent_map.problems[0][1:] == (tree, "allocation group 1: a B+tree block's checksum does not match")


def test_inodes_listed_twice_are_read_once(surgeon: Surgeon, xfs_truth: dict[bytes, oracle.Entry]) -> None:
    """A record of the inode tree that overlaps the one before it, checksum and all."""
    tree = surgeon.inode_tree(0)
    first = struct.unpack(">I", surgeon.read(tree + 56, 4))[0]
    surgeon.write(tree + 56 + 16, struct.pack(">I", first))
    surgeon.fix_block(tree, SHORT_CRC)
    extent_map = map_image(surgeon.image)

    assert "inodes that are listed twice" in texts(extent_map)
    assert len(set(numpy.asarray(extent_map.files)["inode"])) == extent_map.file_count


def test_a_bad_agf_leaves_only_sharing_unknown(surgeon: Surgeon, xfs_truth: dict[bytes, oracle.Entry]) -> None:
    surgeon.write(surgeon.header(0, 1) + 4, b"\x55")
    extent_map = map_image(surgeon.image)
    entries = oracle.map_entries(extent_map)

    assert texts(extent_map) == ["allocation group 0: a bad AGF: which of its blocks are shared is not known"]
    assert entries.keys() == xfs_truth.keys()
    assert {flag for *_, flag in entries[b"copy"].extents or []} <= {0, 0x2000}


def test_a_bad_refcount_record_is_told(surgeon: Surgeon) -> None:
    """Shared blocks beyond the end of their group, checksum and all."""
    group = next(g for g in (0, 1) if surgeon.count(surgeon.refcount_tree(g)) > 0)
    tree = surgeon.refcount_tree(group)
    surgeon.write(tree + 56, struct.pack(">III", 20, 0x7FFFFFFF, 2))
    surgeon.fix_block(tree, SHORT_CRC)

    assert texts(map_image(surgeon.image)) == [
        f"allocation group {group}: shared blocks that lie outside the group",
    ]


def test_inodes_outside_their_group_are_told(surgeon: Surgeon) -> None:
    tree = surgeon.inode_tree(1)
    last = 56 + 16 * (surgeon.count(tree) - 1)
    surgeon.write(tree + last, struct.pack(">I", 0xFFFFFFC0))
    surgeon.fix_block(tree, SHORT_CRC)

    assert "allocation group 1: inodes that lie outside the group" in texts(map_image(surgeon.image))
