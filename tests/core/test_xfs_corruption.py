"""Damaged XFS: never a crash, a hang or a silent difference; the damaged object is reported and the others go on."""

import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest

from splitreel import errors
from splitreel.core.extent import ExtentMap
from tests import oracle
from tests.xfs_scene import BLOCK, damaged_paths, map_image, texts
from tests.xfs_surgery import ATTRIBUTE_CRC, DIRECTORY_CRC, LONG_CRC, SHORT_CRC, Surgeon

pytestmark = pytest.mark.root

LONGEST_MAP_S = 5.0


def try_map(image: Path) -> ExtentMap | None:
    begun = time.monotonic()
    try:
        return map_image(image)
    except errors.SplitreelError:
        return None
    finally:
        assert time.monotonic() - begun < LONGEST_MAP_S


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


def test_what_passes_for_good_is_good(surgeon: Surgeon, xfs_truth: dict[bytes, oracle.Entry]) -> None:
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
            assert oracle.differences({path: xfs_truth[path] for path in sure}, sure) == [], name
            assert extent_map.problem_count > 0 or len(sure) == len(xfs_truth), name
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
