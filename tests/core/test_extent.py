"""ExtentMap: what seal arranges and refuses, and how Python sees it."""

import gc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.core.extent import ExtentMap, pack_nanoseconds, unpack_nanoseconds

UUID = bytes(range(16))
DIR, REG, LINK = 0o040755, 0o100644, 0o120777
UNWRITTEN = 0x800


def new_map(blocks: int = 1000) -> ExtentMap:
    return ExtentMap("ext4", UUID, 4096, blocks * 4096)


def small_map() -> ExtentMap:
    """Root, a directory with a file of three extents, a symlink; appended out of inode order."""
    m = new_map()
    m.add_file(30, REG, size=40960, uid=7, fingerprint=99, xattrs={"user.b": b"2", "user.a": b"1" * 300})
    m.add_extent(0, 100, 2)
    m.add_extent(2, 102, 3)
    m.add_extent(8, 50, 1, UNWRITTEN)
    m.add_file(2, DIR, link_count=3)
    m.add_extent(0, 10, 1)
    m.add_file(20, DIR)
    m.add_file(25, LINK, size=6, target=b"a/file")
    m.add_name(1, 0, b"file")
    m.add_name(2, 2, b"a")
    m.add_name(2, 1, b"")
    m.add_name(2, 3, b"a-link")
    m.finish()
    return m


def test_seal_sorts_files_and_keeps_what_belongs_to_each() -> None:
    m = small_map()
    files, extents = np.asarray(m.files), np.asarray(m.extents)

    assert files["inode"].tolist() == [2, 20, 25, 30]
    assert files["first_extent"].tolist() == [0, 1, 1, 1]
    assert files["extent_count"].tolist() == [1, 0, 0, 2]
    assert extents.tolist() == [(0, 10, 1, 0), (0, 100, 5, 0), (8, 50, 1, UNWRITTEN)]
    assert m.xattrs(3) == {"user.a": b"1" * 300, "user.b": b"2"}
    assert m.target(2) == b"a/file"
    assert m.target(3) is None
    assert m.xattrs(0) == {}


def test_paths_and_their_order() -> None:
    m = small_map()
    paths = m.paths()

    assert sorted(paths) == [b"", b"a", b"a-link", b"a/file"]
    assert [paths[i] for i in np.asarray(m.path_order())] == sorted(paths)
    assert paths[0] == b""
    assert [m.find(p) for p in paths] == [0, 1, 2, 3]
    assert m.find(b"a/nothing") == -1


def test_columns_are_views_of_the_map_itself() -> None:
    m = small_map()
    first, second = np.asarray(m.files), np.asarray(m.files)

    assert np.shares_memory(first, second)
    assert not first.flags.writeable
    assert first.dtype.itemsize == 88
    assert np.asarray(m.extents).dtype.itemsize == 24
    assert np.asarray(m.names).dtype.itemsize == 16
    del m
    assert first["inode"].tolist() == [2, 20, 25, 30]


def test_an_unsealed_map_shows_nothing() -> None:
    with pytest.raises(errors.Misuse, match="not sealed"):
        _ = new_map().files


def test_an_inode_twice_is_corrupt() -> None:
    m = new_map()
    m.add_file(5, REG)
    m.add_file(4, REG)
    m.add_file(5, REG)

    with pytest.raises(errors.Corrupt, match="twice"):
        m.finish()


@pytest.mark.parametrize(
    "time", [0, -(2**31) * 10**9, 1, -1, 1_700_000_000_123_456_789, 15032385535 * 10**9 + 999999999]
)
def test_packed_times_hold_1901_to_2446(time: int) -> None:
    assert unpack_nanoseconds(pack_nanoseconds(time)) == time


def chained(parents: list[int], names: list[bytes]) -> ExtentMap:
    """A map of directories; parents and names are those of the names after the root."""
    m = new_map()
    for inode in range(len(parents) + 1):
        m.add_file(inode + 2, DIR)
    m.add_name(0, 0, b"")
    for i, (parent, name) in enumerate(zip(parents, names, strict=True)):
        m.add_name(parent, i + 1, name)
    return m


@pytest.mark.parametrize("extents", [
    [(0, 999, 2, 0)],
    [(0, 2**63, 1, 0)],
    [(5, 1, 3, 0), (7, 100, 1, 0)],
    [(5, 1, 3, 0), (0, 100, 1, 0)],
    [(2**60, 1, 1, 0)],
    [(0, 1, 0, 0)],
    [(0, 1, 1, 1)],
])  # fmt: skip
def test_extents_that_overlap_or_leave_the_device_are_corrupt(extents: list[tuple[int, int, int, int]]) -> None:
    m = new_map(1000)
    m.add_file(2, REG)
    for extent in extents:
        m.add_extent(*extent)

    with pytest.raises(errors.Corrupt):
        m.finish()


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_names_that_could_lead_out_of_a_directory_are_corrupt(name: bytes) -> None:
    with pytest.raises(errors.Corrupt):
        chained([0], [name]).finish()


def test_cycles_and_parents_that_are_no_directory_are_refused() -> None:
    with pytest.raises(errors.LimitReached, match="cycle"):
        chained([2, 1], [b"a", b"b"]).finish()
    m = new_map()
    m.add_file(2, DIR)
    m.add_file(3, REG)
    m.add_name(0, 0, b"")
    m.add_name(0, 1, b"file")
    m.add_name(1, 1, b"below")
    with pytest.raises(errors.Corrupt, match="not a directory"):
        m.finish()


def test_paths_far_beyond_path_max() -> None:
    depth = 60000
    m = chained(list(range(depth)), [b"d%05d" % i for i in range(depth)])
    m.finish()

    assert len(m.path_of(depth)) == depth * 7 - 1
    assert m.path_of(depth).endswith(b"/d59998/d59999")
    assert np.asarray(m.path_order()).tolist() == list(range(depth + 1))


@pytest.mark.parametrize("depth", [60000, 65535, 65536])
def test_directories_may_be_named_before_those_above_them(depth: int) -> None:
    """Each name's parent comes after it; nesting is bounded."""
    m = chained([*range(2, depth + 1), 0], [b"d%05d" % i for i in range(depth)])
    if depth > 65535:
        with pytest.raises(errors.LimitReached, match="65536 deep"):
            m.finish()
        return
    m.finish()

    assert len(m.path_of(1)) == depth * 7 - 1
    assert np.asarray(m.path_order()).tolist() == [0, *range(depth, 0, -1)]


def test_adjacent_extents_merge_unless_the_count_would_not_fit() -> None:
    m = ExtentMap("xfs", UUID, 4096, 2**50)
    m.add_file(2, REG)
    m.add_extent(0, 10, 2**32 - 2)
    m.add_extent(2**32 - 2, 2**32 + 8, 1)
    m.add_extent(2**32 - 1, 2**32 + 9, 1)
    m.add_extent(2**32, 2**32 + 10, 1, UNWRITTEN)
    m.finish()

    assert np.asarray(m.extents).tolist() == [
        (0, 10, 2**32 - 1, 0),
        (2**32 - 1, 2**32 + 9, 1, 0),
        (2**32, 2**32 + 10, 1, UNWRITTEN),
    ]


def test_problems_are_counted_beyond_those_kept() -> None:
    m = new_map()
    for i in range(5000):
        m.add_problem(i, i * 4096, "x" * 200)

    assert m.problem_count == 5000
    assert len(m.problems) == 4096
    assert m.problems[17] == (17, 17 * 4096, "x" * 111)


# Names that try the order: bytes just below and above the slash, prefixes of one another.
NAME = st.text(alphabet="a-./0\xff\x01", min_size=1, max_size=4).map(lambda s: s.encode("latin-1").replace(b"/", b"~"))
TREES = st.lists(
    st.tuples(st.integers(0, 40), NAME.filter(lambda n: n not in (b".", b"..")), st.booleans()), max_size=40
)


@given(TREES)
@settings(max_examples=100, deadline=None)
def test_path_order_is_that_of_full_path_bytes(tree: list[tuple[int, bytes, bool]]) -> None:
    m = new_map()
    m.add_file(2, DIR)
    m.add_name(0, 0, b"")
    directories, taken = [0], set()
    for number, name, is_directory in tree:
        parent = directories[number % len(directories)]
        if (parent, name) in taken:
            continue
        taken.add((parent, name))
        index = m.add_name(parent, m.add_file(m.file_count + 2, DIR if is_directory else REG), name)
        if is_directory:
            directories.append(index)
    m.finish()
    paths = m.paths()

    assert [paths[i] for i in np.asarray(m.path_order())] == sorted(paths)
    assert all(m.find(path) == index for index, path in enumerate(paths))


def collect_in_a_cycle(held: list[object]) -> None:
    """Leave one object to the cycle collector, which clears it before it clears what keeps it."""
    holder: dict[str, object] = {"held": held.pop()}
    holder["self"] = holder
    del holder
    gc.collect()


def test_a_loaded_map_may_be_garbage_in_a_cycle(tmp_path: Path) -> None:
    """Its columns are the mapping's: freeing them would end the process."""
    small_map().save(tmp_path / "map")
    held: list[object] = [ExtentMap.load(tmp_path / "map")]
    collect_in_a_cycle(held)
    loaded = ExtentMap.load(tmp_path / "map")

    assert loaded.digest() == small_map().digest()


def test_a_column_may_be_garbage_in_a_cycle() -> None:
    """Its memory is the map's, which lives on."""
    m = small_map()
    digest = m.digest()
    held: list[object] = [m.files]
    collect_in_a_cycle(held)

    assert m.digest() == digest
