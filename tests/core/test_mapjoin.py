"""One map of several volumes: every file keeps its content, names, links and attributes, and lies below its volume."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.mapjoin import INODE_STEP, join_maps
from splitreel.core.spans import Linear, SpannedDevice, Zero
from splitreel.errors import LimitReached, Misuse, SplitreelError
from tests.core.source import UNWRITTEN, Source

DIR, REG = 0o040755, 0o100644
INLINE_FILE, INLINE_EXTENT = 8, 0x200
MEGABYTE = 1 << 20


def a_map(block_size: int = 4096, device_size: int = 1 << 44, inode: int = 12) -> ExtentMap:
    """A root, and a file of no extents that tests add to before they finish it."""
    made = ExtentMap("ext4", bytes(range(16)), block_size, device_size)
    made.add_file(2, DIR, mtime=5)
    made.add_name(0, 0, b"")
    made.add_file(inode, REG, size=1 << 50)
    made.add_name(0, 1, b"file")
    return made


def flat(devices: Sequence[BlockDevice]) -> tuple[SpannedDevice, list[int]]:
    """Devices one behind the other, each from a multiple of 1 MiB on; where each begins."""
    spans: list[Linear | Zero] = []
    starts, at = [], 0
    for index, device in enumerate(devices):
        gap = -device.size % MEGABYTE
        spans += [Linear(device.size, index, 0), *([Zero(gap)] if gap else [])]
        starts.append(at)
        at += device.size + gap
    return SpannedDevice(devices, spans, path="flat"), starts


def contents(extent_map: ExtentMap, device: BlockDevice) -> dict[bytes, bytes]:
    """What each file of the map reads as, by Python alone."""
    files, extents, names = (np.asarray(c) for c in (extent_map.files, extent_map.extents, extent_map.names))
    block, found = extent_map.block_size, {}
    for path, name in zip(extent_map.paths(), names, strict=True):
        file = files[name["file"]]
        if int(file["mode"]) & 0o170000 != 0o100000:
            continue
        data = bytearray(int(file["size"]))
        first = int(file["first_extent"])
        for logical, physical, count, flags in extents[first : first + int(file["extent_count"])].tolist():
            if not flags & UNWRITTEN:
                piece = device.pread(physical * block, count * block)[: max(0, len(data) - logical * block)]
                data[logical * block : logical * block + len(piece)] = piece
        found[path] = bytes(data)
    return found


LAYOUT = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6), st.sampled_from([0, 0, UNWRITTEN])), max_size=5)


def spread(layout: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The same extents where none overlaps."""
    done, end = [], 0
    for gap, count, flags in layout:
        done.append((end + gap, count, flags))
        end += gap + count
    return done


@given(
    st.lists(st.sampled_from([512, 1024, 4096, 65536]), min_size=1, max_size=3),
    st.lists(LAYOUT, min_size=1, max_size=4),
    st.integers(0, 2**32),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_file_reads_as_on_its_own_volume(
    tmp_path: Path, sizes: list[int], layouts: list[list[tuple[int, int, int]]], seed: int
) -> None:
    """Whatever the block sizes: the volumes' inode numbers and names are the same, their contents are not."""
    sources, maps, devices = [Source(size, seed + i) for i, size in enumerate(sizes)], [], []
    for number, source in enumerate(sources):
        source.add(b"dir", DIR)
        for index, layout in enumerate(layouts):
            source.file(b"dir/%d" % index, spread(layout))
        source.add(b"link", REG, file=2)
        maps.append(source.finish(tmp_path / f"{number}.img"))
        devices.append(BlockDevice(tmp_path / f"{number}.img"))
        source.content[b"link"] = source.content[b"dir/0"]
    device, starts = flat(devices)
    names = [b"volume%d" % number for number in range(len(sizes))]

    joined = join_maps(list(zip(names, maps, starts, strict=True)), device.size)

    expected = {
        name + b"/" + path: data for name, s in zip(names, sources, strict=True) for path, data in s.content.items()
    }
    assert contents(joined, device) == expected
    for each in (device, *devices):
        each.close()


def test_hard_links_stay_within_their_volume() -> None:
    """Two volumes give out the same inode numbers: none of one's names may lead to the other's file."""
    maps = []
    for _ in range(2):
        made = a_map(inode=12)
        made.add_name(0, 1, b"other")
        made.finish()
        maps.append(made)
    joined = join_maps([(b"a", maps[0], 0), (b"b", maps[1], 1 << 44)], 1 << 45)
    names = np.asarray(joined.names)
    of = {joined.path_of(i): int(np.asarray(joined.files)["inode"][names["file"][i]]) for i in range(joined.name_count)}

    assert of[b"a/file"] == of[b"a/other"] == INODE_STEP + 12
    assert of[b"b/file"] == of[b"b/other"] == 2 * INODE_STEP + 12
    assert (of[b"a"], of[b"b"], of[b""]) == (INODE_STEP + 2, 2 * INODE_STEP + 2, 0)
    assert joined.find_file(2 * INODE_STEP + 12) == names["file"][joined.find(b"b/file")]


def test_the_root_of_all_is_as_old_as_the_youngest_volume() -> None:
    """It must come out the same when a resume makes the map again."""
    maps = [a_map(), a_map()]
    for made in maps:
        made.finish()
    joined = join_maps([(b"a", maps[0], 0), (b"b", maps[1], 1 << 44)], 1 << 45)
    root = np.asarray(joined.files)[0]

    assert (int(root["mtime"]), int(root["mode"]), int(root["uid"])) == (5, DIR, 0)
    assert (joined.fs_type, joined.uuid) == ("volumes", bytes(16))


@pytest.mark.parametrize("count", [0xFFFFFFFF, 0x10000001, 0x10000000, 0x0FFFFFFF])
def test_an_extent_of_more_blocks_than_can_be_counted_is_cut(count: int) -> None:
    """2^32 - 1 blocks of 64 KiB, beside a volume of blocks of 4 KiB: 16 times as many."""
    size = (count + 100) << 16
    large, small = a_map(65536, size), a_map(4096, 1 << 20)
    large.add_extent(7, 9, count)
    for made in (large, small):
        made.finish()
    joined = join_maps([(b"s", small, 0), (b"l", large, 1 << 20)], (1 << 20) + size)
    extents = np.asarray(joined.extents).tolist()

    assert extents[0][:2] == (7 * 16, 256 + 9 * 16)
    assert sum(extent[2] for extent in extents) == count * 16
    for one, other in pairwise(extents):
        assert (one[0] + one[2], one[1] + one[2]) == other[:2]


def test_targets_attributes_and_data_in_inodes_stay_with_their_files() -> None:
    maps = []
    for letter in (b"a", b"b"):
        made = a_map(1024 if letter == b"b" else 4096)
        made.add_file(13, 0o120777, size=1, target=letter, xattrs={"user.x": letter * 70})
        made.add_name(0, 2, b"symlink")
        made.add_file(14, REG, size=1, flags=INLINE_FILE, target=letter)
        made.add_extent(0, 3, 1, INLINE_EXTENT)
        made.add_name(0, 3, b"inline")
        made.finish()
        maps.append(made)
    joined = join_maps([(b"a", maps[0], 0), (b"b", maps[1], 1 << 44)], 1 << 45)
    names = np.asarray(joined.names)["file"]

    for letter in (b"a", b"b"):
        symlink, inline = (int(names[joined.find(letter + name)]) for name in (b"/symlink", b"/inline"))
        assert joined.target(symlink) == joined.target(inline) == letter
        assert joined.xattrs(symlink) == {"user.x": letter * 70}
    assert [extent[2:] for extent in np.asarray(joined.extents).tolist()] == [(1, INLINE_EXTENT)] * 2


def test_problems_say_which_volume_they_are_of() -> None:
    maps = [a_map(), a_map()]
    maps[1].add_problem(12, 4096, "x" * 111)
    for _ in range(5000):
        maps[0].add_problem(7, 0, "a tree block does not read")
    for made in maps:
        made.finish()
    joined = join_maps([(b"data", maps[0], 0), (b"wal", maps[1], 1 << 44)], 1 << 45)

    assert joined.problem_count == 5001
    assert joined.problems[0] == (7, 0, "data: a tree block does not read")
    other = join_maps([(b"wal", maps[1], 0)], 1 << 44)
    assert other.problems == [(12, 4096, "wal: " + "x" * 106)]


@pytest.mark.parametrize(
    ("parts", "refused"),
    [
        ([], LimitReached),
        ([(b"", 4096, 12, 0)], Misuse),
        ([(b"n" * 65, 4096, 12, 0)], Misuse),
        ([(b"a", 4096, 12, 1024)], Misuse),
        ([(b"a", 4096, 12, 0), (b"b", 3000, 12, 3000)], Misuse),
        ([(b"a", 4096, INODE_STEP, 0)], LimitReached),
        ([(b"a/b", 4096, 12, 0)], SplitreelError),
        ([(b"..", 4096, 12, 0)], SplitreelError),
    ],
)
def test_what_cannot_be_joined_is_refused(parts: list[tuple[bytes, int, int, int]], refused: type[Exception]) -> None:
    maps = []
    for name, block_size, inode, start in parts:
        made = a_map(block_size, inode=inode)
        made.finish()
        maps.append((name, made, start))
    with pytest.raises(refused):
        join_maps(maps, 1 << 60)
    with pytest.raises(Misuse, match="sealed"):
        join_maps([(b"a", a_map(), 0)], 1 << 44)
