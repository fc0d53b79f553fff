"""Damaged XFS: never a crash, a hang or a silent difference; the damaged object is reported and the others go on."""

import fcntl
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.xfs import Xfs
from tests import ext4_images as images
from tests import oracle
from tests.images import fillers
from tests.support import need_programs, need_root
from tests.xfs_surgery import (
    ATTRIBUTE_CRC,
    DIRECTORY_CRC,
    LONG_CRC,
    SHORT_CRC,
    Surgeon,
    make_image,
)

pytestmark = pytest.mark.root

FICLONE = 0x40049409
FILE_DAMAGED = 1
LONGEST_MAP_S = 5.0
BLOCK = 1024


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image with trees of two levels, shared blocks, a directory of many blocks, xattrs and symlinks."""
    need_root()
    need_programs("mkfs.xfs", "xfs_db", "mount")
    image = make_image(tmp_path_factory.mktemp("good") / "image", 34, "-b", f"size={BLOCK}", "-d", "agcount=2")
    with images.mounted(image) as point:
        images.write_alternate(point / "deep", 3000, BLOCK)
        images.write_alternate(point / "wide", 160, BLOCK)
        (point / "many").mkdir()
        for number in range(200):
            (point / "many" / f"name{number:03}").write_bytes(b"m" * number)
        (point / "one").mkdir()
        (point / "one" / "file").write_bytes(b"o" * 5000)
        (point / "short").symlink_to("target")
        (point / "long").symlink_to("target" * 100)
        fillers.big_xattrs(point, BLOCK)
        (point / "original").write_bytes(fillers.pattern(20_000))
        with open(point / "original", "rb") as original, open(point / "copy", "wb") as copy:
            fcntl.ioctl(copy, FICLONE, original.fileno())
    return image


@pytest.fixture(scope="module")
def truth(good: Path) -> dict[bytes, oracle.Entry]:
    with images.mounted(good, "ro,norecovery") as point:
        return oracle.walk(point)


@pytest.fixture
def surgeon(good: Path, tmp_path: Path) -> Surgeon:
    return Surgeon(images.copy_sparse(good, tmp_path / "image"))


def map_image(image: Path) -> ExtentMap:
    with BlockDevice(image) as device:
        return Xfs(device).map()


def try_map(image: Path) -> ExtentMap | None:
    begun = time.monotonic()
    try:
        return map_image(image)
    except errors.SplitreelError:
        return None
    finally:
        assert time.monotonic() - begun < LONGEST_MAP_S


def damaged_paths(extent_map: ExtentMap) -> set[bytes]:
    flags = numpy.asarray(extent_map.files)["flags"]
    files = numpy.asarray(extent_map.names)["file"]
    return {extent_map.path_of(i) for i in range(extent_map.name_count) if flags[files[i]] & FILE_DAMAGED}


def texts(extent_map: ExtentMap) -> list[str]:
    return [text for _, _, text in extent_map.problems]


Target = tuple[int, int, Callable[[], None]]


def targets(surgeon: Surgeon) -> dict[str, Target]:
    """Every kind of record: where it is, its size, and what makes its checksum right again."""
    found: dict[str, Target] = {"superblock": (0, 304, surgeon.fix_superblock)}
    for group in (0, 1):
        for sector in (1, 2):
            place = surgeon.header(group, sector)
            found[f"header {sector} of {group}"] = (
                place,
                344,
                lambda g=group, s=sector: surgeon.fix_header(g, s),
            )
    blocks = {"inode tree": (surgeon.inode_tree(0), SHORT_CRC)}
    for path in ("/deep", "/wide"):
        for index, node in enumerate(surgeon.nodes(surgeon.number(path))[:3]):
            blocks[f"node {index} of {path}"] = (node, LONG_CRC)
    for path, at in (("/many", DIRECTORY_CRC), ("/big_xattrs/several", ATTRIBUTE_CRC)):
        number = surgeon.number(path)
        fork = surgeon.fork(number) if at == DIRECTORY_CRC else surgeon.attribute_fork(number)
        blocks[f"block of {path}"] = (surgeon.block(surgeon.records(fork, 1)[0][1]), at)
    for name, (place, at) in blocks.items():
        found[name] = (place, BLOCK, lambda p=place, a=at: surgeon.fix_block(p, a))
    for path in ("/", "/deep", "/many", "/one", "/one/file", "/short", "/long", "/copy", "/big_xattrs/several"):
        number = surgeon.number(path)
        found[f"inode of {path}"] = (surgeon.inode(number), 512, lambda n=number: surgeon.fix_inode(n))
    return found


def mutations(record: bytes, seed: str, count: int) -> Iterator[bytes]:
    """The record with one to four of its bytes changed, mostly near its beginning, where the structure is."""
    chance = random.Random(seed)
    for _ in range(count):
        changed = bytearray(record)
        for _ in range(chance.randint(1, 4)):
            place = min(int(chance.expovariate(6 / len(record))), len(record) - 1)
            changed[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256), changed[place] ^ 1))
        if changed != record:
            yield bytes(changed)


def test_what_passes_for_good_is_good(surgeon: Surgeon, truth: dict[bytes, oracle.Entry]) -> None:
    """Flipped bytes anywhere: every path that is neither damaged nor named by a problem equals the truth."""
    refused = reported = 0
    for name, (offset, size, _) in targets(surgeon).items():
        record = surgeon.read(offset, size)
        for changed in mutations(record, name, 12):
            surgeon.write(offset, changed)
            extent_map = try_map(surgeon.image)
            if extent_map is None:
                refused += 1
                continue
            entries = oracle.map_entries(extent_map)
            named = {inode for inode, _, _ in extent_map.problems}
            doubtful = damaged_paths(extent_map) | {path for path, entry in entries.items() if entry.inode in named}
            sure = {path: entry for path, entry in entries.items() if path not in doubtful}
            if any("blocks are shared is not known" in text for text in texts(extent_map)):
                continue
            assert oracle.differences({path: truth[path] for path in sure}, sure) == [], name
            assert extent_map.problem_count > 0 or len(sure) == len(truth), name
            reported += extent_map.problem_count > 0
        surgeon.write(offset, record)
    assert refused > 20
    assert reported > 100


def test_checksums_do_not_have_to_help(surgeon: Surgeon) -> None:
    """The same with right checksums, as an attacker would have them: the map ends, in time, as a map or a refusal."""
    ended = 0
    for name, (offset, size, fix) in targets(surgeon).items():
        record = surgeon.read(offset, size)
        for changed in mutations(record, name + " again", 30):
            surgeon.write(offset, changed)
            fix()
            extent_map = try_map(surgeon.image)
            ended += 1 if extent_map is None else len(extent_map.paths()) > 0
            surgeon.write(offset, record)
            fix()
    assert ended > 500


def test_a_bad_inode_is_the_only_one_damaged(surgeon: Surgeon, truth: dict[bytes, oracle.Entry]) -> None:
    number = surgeon.number("/one/file")
    place = surgeon.inode(number)
    surgeon.write(place + 8, b"\x55")
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == [(number, place, "the inode's checksum does not match")]
    assert damaged_paths(extent_map) == {b"one/file"}
    assert {extent_map.path_of(i) for i in range(extent_map.name_count)} == truth.keys()


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
    surgeon: Surgeon, truth: dict[bytes, oracle.Entry], offset: int, value: bytes, text: str
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
        for path, entry in truth.items()
        if entry.inode < first_of_group_1 and all(e.inode < first_of_group_1 for e in parents(truth, path))
    }


def parents(truth: dict[bytes, oracle.Entry], path: bytes) -> list[oracle.Entry]:
    parts = path.split(b"/")
    return [truth[b"/".join(parts[:i])] for i in range(1, len(parts))]


def test_a_bad_inode_tree_is_named_with_its_offset(surgeon: Surgeon) -> None:
    tree = surgeon.inode_tree(1)
    surgeon.write(tree + 60, b"\x55")
    extent_map = map_image(surgeon.image)

    assert extent_map.problems[0][1:] == (tree, "allocation group 1: a B+tree block's checksum does not match")


def test_inodes_listed_twice_are_read_once(surgeon: Surgeon, truth: dict[bytes, oracle.Entry]) -> None:
    """A record of the inode tree that overlaps the one before it, checksum and all."""
    tree = surgeon.inode_tree(0)
    first = struct.unpack(">I", surgeon.read(tree + 56, 4))[0]
    surgeon.write(tree + 56 + 16, struct.pack(">I", first))
    surgeon.fix_block(tree, SHORT_CRC)
    extent_map = map_image(surgeon.image)

    assert "inodes that are listed twice" in texts(extent_map)
    assert len(set(numpy.asarray(extent_map.files)["inode"])) == extent_map.file_count


def test_without_a_root_directory_nothing_is_read(surgeon: Surgeon) -> None:
    number = surgeon.number("/")
    surgeon.write(surgeon.inode(number) + 2, struct.pack(">H", 0o100644))
    surgeon.fix_inode(number)
    with pytest.raises(errors.Corrupt, match="root inode is no directory"):
        map_image(surgeon.image)


@pytest.mark.parametrize("path", ["/deep", "/copy", "/big_xattrs/several", "/many", "/long"])
def test_a_fingerprint_covers_every_block_of_its_file(surgeon: Surgeon, path: str) -> None:
    """A time of creation or log sequence number, which no column shows, in an inode or a block of any kind."""
    number = surgeon.number(path)
    before = fingerprints(map_image(surgeon.image))
    if path == "/copy":
        surgeon.write(surgeon.inode(number) + 144 + 7, b"\x77")
        surgeon.fix_inode(number)
    else:
        place, sequence, at = unseen_place(surgeon, number, path)
        surgeon.write(place + sequence, b"\x00\x77")
        surgeon.fix_block(place, at)
    extent_map = map_image(surgeon.image)
    after = fingerprints(extent_map)

    assert extent_map.problems == []
    assert {inode for inode in before if before[inode] != after[inode]} == {number}


def unseen_place(surgeon: Surgeon, number: int, path: str) -> tuple[int, int, int]:
    """A block that belongs to a file; where its log sequence number and its checksum stand."""
    if path == "/deep":
        return surgeon.nodes(number)[-1], 32, LONG_CRC
    if path == "/big_xattrs/several":
        return surgeon.block(surgeon.records(surgeon.attribute_fork(number), 1)[0][1]), 24, ATTRIBUTE_CRC
    block = surgeon.block(surgeon.records(surgeon.fork(number), 1)[0][1])
    return (block, 16, DIRECTORY_CRC) if path == "/many" else (block, 48, ATTRIBUTE_CRC)


def fingerprints(extent_map: ExtentMap) -> dict[int, int]:
    files = numpy.asarray(extent_map.files)
    return dict(zip(files["inode"].tolist(), files["fingerprint"].tolist(), strict=True))
