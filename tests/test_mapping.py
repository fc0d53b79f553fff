"""diff: every kind of change by its class, and fingerprints that contradict the columns."""

from collections.abc import Callable

import pytest

from splitreel import errors
from splitreel.core.extent import ExtentMap
from splitreel.mapping import MapChanges, diff

DIR, REG = 0o040755, 0o100644


class File:
    """A file of a map to be built; every field can be changed before it is."""

    def __init__(self, inode: int) -> None:
        self.inode, self.mode, self.fingerprint, self.generation = inode, REG, 1000 + inode, 7
        self.size, self.extents = 8192, [(0, 10 * inode, 2)]
        self.xattrs: dict[str, bytes] = {"user.a": b"1"}
        self.names = [b"name%d" % inode]


def built(change: Callable[[dict[int, File]], None] = lambda files: None, uuid: bytes = bytes(16)) -> ExtentMap:
    """A map of a root and the files 11..15, after a change."""
    files = {inode: File(inode) for inode in range(11, 16)}
    change(files)
    m = ExtentMap("ext4", uuid, 4096, 4096 * 1000)
    m.add_file(2, DIR, fingerprint=1)
    m.add_name(0, 0, b"")
    for f in files.values():
        index = m.add_file(
            f.inode, f.mode, size=f.size, fingerprint=f.fingerprint, generation=f.generation, xattrs=f.xattrs
        )
        for extent in f.extents:
            m.add_extent(*extent)
        for name in f.names:
            m.add_name(0, index, name)
    m.finish()
    return m


def classes(changes: MapChanges) -> dict[str, list[int]]:
    """The classes that are not empty, ``same`` left out."""
    found = {name: getattr(changes, name).tolist() for name in changes.counts() if name != "same"}
    return {name: inodes for name, inodes in found.items() if inodes}


def grow(files: dict[int, File]) -> None:
    files[12].extents.append((2, 500, 1))
    files[12].size, files[12].fingerprint = 12288, 1


def chmod(files: dict[int, File]) -> None:
    files[13].mode, files[13].fingerprint = 0o100600, 1


def set_xattr(files: dict[int, File]) -> None:
    files[13].xattrs["user.a"], files[13].fingerprint = b"2", 1


def change_unmapped_record(files: dict[int, File]) -> None:
    files[13].fingerprint = 1


def recreate(files: dict[int, File]) -> None:
    files[14].generation, files[14].fingerprint = 8, 1


def delete(files: dict[int, File]) -> None:
    del files[11]


def create(files: dict[int, File]) -> None:
    files[9] = File(9)


def rename(files: dict[int, File]) -> None:
    files[15].names = [b"other"]


def rename_and_link(files: dict[int, File]) -> None:
    files[15].names = [b"name15", b"second"]
    files[11].extents, files[11].fingerprint = [], 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda files: None, {}),
        (grow, {"extents_revised": [12]}),
        (chmod, {"attributes_revised": [13]}),
        (set_xattr, {"attributes_revised": [13]}),
        (change_unmapped_record, {"attributes_revised": [13]}),
        (recreate, {"new": [14], "gone": [14]}),
        (delete, {"gone": [11]}),
        (create, {"new": [9]}),
        (rename, {"renamed": [15]}),
        (rename_and_link, {"renamed": [15], "extents_revised": [11]}),
    ],
)
def test_each_change_has_its_class(change: Callable[[dict[int, File]], None], expected: dict[str, list[int]]) -> None:
    changes = diff(built(), built(change))

    assert classes(changes) == expected
    assert changes.any == bool(expected)
    changed = {inode for inodes in expected.values() for inode in inodes} - set(expected.get("renamed", []))
    assert set(changes.same.tolist()) == {2, 11, 12, 13, 14, 15} - changed


def lie_about_extents(files: dict[int, File]) -> None:
    files[12].extents = [(0, 77, 2)]


def lie_about_size(files: dict[int, File]) -> None:
    files[12].size = 1


def lie_about_xattrs(files: dict[int, File]) -> None:
    files[12].xattrs = {}


@pytest.mark.parametrize("change", [lie_about_extents, lie_about_size, lie_about_xattrs])
def test_columns_that_change_under_an_unchanged_fingerprint_are_an_error(
    change: Callable[[dict[int, File]], None],
) -> None:
    with pytest.raises(errors.IntegrityError, match="object 12"):
        diff(built(), built(change))


def test_maps_of_different_file_systems_are_not_compared() -> None:
    with pytest.raises(errors.Stale, match="uuid"):
        diff(built(), built(uuid=bytes(15) + b"1"))
