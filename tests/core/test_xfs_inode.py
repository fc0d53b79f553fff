"""Inodes of XFS: every field that cannot be is told by its own words, every field that can be is told right."""

import struct

import pytest

from tests import oracle
from tests.xfs_scene import damaged_paths, map_image, texts
from tests.xfs_surgery import Surgeon

pytestmark = pytest.mark.root


def test_a_bad_inode_is_the_only_one_damaged(surgeon: Surgeon, xfs_truth: dict[bytes, oracle.Entry]) -> None:
    number = surgeon.number("/one/file")
    place = surgeon.inode(number)
    surgeon.write(place + 8, b"\x55")
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == [(number, place, "the inode's checksum does not match")]
    assert damaged_paths(extent_map) == {b"one/file"}
    assert {extent_map.path_of(i) for i in range(extent_map.name_count)} == xfs_truth.keys()


@pytest.mark.parametrize(
    ("path", "offset", "value", "text"),
    [
        ("/one/file", 0, b"XX", "an inode without its magic number"),
        ("/one/file", 2, b"\x0f\xff", "the inode's type is none that exists"),
        ("/one/file", 4, b"\x02", "the inode's version is not 3"),
        ("/one/file", 5, b"\x01", "a regular file in local format"),
        ("/one/file", 5, b"\x00", "its data fork has an unknown format"),
        ("/one/file", 5, b"\x03", "the root of an extent tree"),
        ("/one/file", 56, b"\x80", "the inode's size is negative"),
        ("/one/file", 76, b"\xff", "more extents than its inode has room for"),
        ("/one/file", 82, b"\xff", "its attribute fork begins outside the inode"),
        ("/one/file", 83, b"\x07", "its attribute fork has an unknown format"),
        ("/one/file", 91, b"\x01", "a file of the realtime section"),
        ("/one/file", 152, b"\x01", "the inode is another one than its place says"),
        ("/one/file", 160, b"\xff\xfe", "the inode is of another file system"),
        ("/short", 56, bytes(6) + b"\x7f\xff", "its size is more than its inode has room for"),
        ("/short", 56, bytes(8), "a symlink without a target"),
        ("/short", 180, b"\x00", "one that holds a null byte"),
        ("/long", 56, bytes(6) + b"\x04\x01", "a symlink's size is above 1024"),
        ("/long", 76, bytes(4), "a symlink whose target is in no block"),
    ],
)
def test_what_is_wrong_with_an_inode_is_said(surgeon: Surgeon, path: str, offset: int, value: bytes, text: str) -> None:
    """Each field that cannot be, checksum and all, by its own words; the file is not taken for good."""
    number = surgeon.number(path)
    if offset == 83:
        surgeon.write(surgeon.inode(number) + 82, b"\x20")
    surgeon.write(surgeon.inode(number) + offset, value)
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)
    sure = {extent_map.path_of(i) for i in range(extent_map.name_count)} - damaged_paths(extent_map)

    assert [inode for inode, _, said in extent_map.problems if text in said] == [number], texts(extent_map)
    assert path.strip("/").encode() not in sure or offset == 83
    assert b"many/name199" in sure


@pytest.mark.parametrize(
    ("flags2", "raw", "nanoseconds"),
    [
        (0x18, 0, -(2**31) * 10**9),
        (0x18, 2**31 * 10**9 + 1, 1),
        (0x18, 2**64 - 1, 2**64 - 1 - 2**31 * 10**9),
        (0x10, 0, 0),
        (0x10, 0xFFFFFFFF << 32 | 5, -(10**9) + 5),
        (0x10, 0x80000000 << 32, -(2**31) * 10**9),
        (0x10, 0x7FFFFFFF << 32 | 999_999_999, 2**31 * 10**9 - 1),
    ],
)
def test_times_are_decided_inode_by_inode(surgeon: Surgeon, flags2: int, raw: int, nanoseconds: int) -> None:
    """A file system that got bigtime later has inodes of both kinds. A map's times end in 2446, as ext4's do."""
    number = surgeon.number("/one/file")
    place = surgeon.inode(number)
    surgeon.write(place + 120, struct.pack(">Q", flags2 & ~0x10))
    surgeon.write(place + 40, struct.pack(">QQ", raw, raw))
    surgeon.fix_inode(number)
    entry = oracle.map_entries(map_image(surgeon.image))[b"one/file"]
    latest = (2**34 - 2**31) * 10**9 - 1

    assert entry.mtime_ns == entry.ctime_ns
    assert entry.mtime_ns == nanoseconds if nanoseconds < latest else entry.mtime_ns // 10**9 == latest // 10**9


def test_hidden_inodes_are_no_files(surgeon: Surgeon) -> None:
    """A quota inode is named by the superblock alone; here it is made of a file, whose entry then leads nowhere."""
    number = surgeon.number("/one/file")
    surgeon.write(160, struct.pack(">Q", number))
    surgeon.fix_superblock()
    extent_map = map_image(surgeon.image)

    assert extent_map.find_file(number) == -1
    assert texts(extent_map) == ["an entry leads to an inode that is not in use"]


def test_inodes_without_links_are_no_files(surgeon: Surgeon) -> None:
    number = surgeon.number("/one/file")
    surgeon.write(surgeon.inode(number) + 16, bytes(4))
    surgeon.fix_inode(number)

    assert map_image(surgeon.image).find_file(number) == -1
