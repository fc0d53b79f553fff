"""diff and check: every kind of change by its class, on made maps and on what the kernel does to a real file system."""

import mmap
import os
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.mapping import MapChanges, check, diff, map_device
from tests import ext4_images as images
from tests import oracle, xfs_images
from tests.support import need_programs

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


# With the kernel: a file system is mounted, split (frozen and copied), changed, and split again.

BLOCK = 4096


class Primary:
    """A mounted file system on an image, and its split mirrors."""

    def __init__(self, image: Path, root: Path) -> None:
        self.image, self.root, self.splits = image, root, 0

    def split(self) -> Path:
        """A copy taken while the file system is frozen."""
        self.splits += 1
        with images.frozen(self.root):
            return images.copy_sparse(self.image, self.image.with_name(f"split{self.splits}"))


@pytest.fixture
def ext4_primary(tmp_path: Path) -> Iterator[Primary]:
    images.need_ext4()
    image = images.make_image(tmp_path / "primary", 48, "-b", str(BLOCK))
    with images.mounted(image) as point:
        yield Primary(image, point)


@pytest.fixture
def ext3_primary(tmp_path: Path) -> Iterator[Primary]:
    """Small blocks: what is written stands behind indirect ones."""
    images.need_ext4()
    image = images.make_image(tmp_path / "primary", 48, "-b", "1024", kind="ext3")
    with images.mounted(image) as point:
        yield Primary(image, point)


@pytest.fixture
def xfs_primary(tmp_path: Path) -> Iterator[Primary]:
    image = xfs_images.make_image(tmp_path / "primary")
    with images.mounted(image) as point:
        yield Primary(image, point)


@pytest.fixture(params=["ext4_primary", "ext3_primary", "xfs_primary"])
def primary(request: pytest.FixtureRequest) -> Primary:
    made: Primary = request.getfixturevalue(request.param)
    return made


def kernel_shows(path: Path) -> oracle.Entry:
    return oracle.look_at(bytes(path))


def map_shows(extent_map: ExtentMap, inode: int) -> oracle.Entry:
    return oracle.described(extent_map, extent_map.find_file(inode))


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def write(path: Path, size: int, offset: int = 0, direct: bool = False) -> None:
    """Write size bytes that are not zero, and force their blocks to be allocated."""
    memory = mmap.mmap(-1, size)
    memory.write(b"splitreel" * (size // 9) + b"x" * (size % 9))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | (os.O_DIRECT if direct else 0), 0o644)
    try:
        assert os.pwrite(fd, memory, offset) == size
        os.fdatasync(fd)
    finally:
        os.close(fd)
        memory.close()


def fallocate(path: Path, *options: str) -> None:
    run("fallocate", *options, path)


def fragmented(path: Path, pieces: int) -> None:
    """An unwritten file of that many extents of one block each, holes between them: a tree of depth 1 above four."""
    fallocate(path, "-l", str(2 * pieces * BLOCK))
    for i in range(pieces):
        fallocate(path, "-p", "-o", str((2 * i + 1) * BLOCK), "-l", str(BLOCK))


def grow_file(path: Path) -> None:
    write(path, 40960, 65536)


def truncate_file(path: Path) -> None:
    os.truncate(path, 5000)


def punch_hole(path: Path) -> None:
    fallocate(path, "-p", "-o", "8192", "-l", "8192")


def rename_file(path: Path) -> None:
    path.rename(path.parent / "directory" / "renamed")


def touch_only(path: Path) -> None:
    os.utime(path, (1, 1))


def overwrite_in_place(path: Path) -> None:
    write(path, 4096, 4096, direct=True)


KERNEL_CHANGES: list[tuple[Callable[[Path], None], dict[str, str]]] = [
    (grow_file, {"file": "extents_revised"}),
    (truncate_file, {"file": "extents_revised"}),
    (punch_hole, {"file": "extents_revised"}),
    (touch_only, {"file": "attributes_revised"}),
    (overwrite_in_place, {"file": "attributes_revised"}),
    (rename_file, {"file": "attributes_revised", "directory": "attributes_revised", "": "attributes_revised"}),
]


@pytest.mark.root
@pytest.mark.parametrize(("change", "expected"), KERNEL_CHANGES)
def test_a_change_on_the_primary_is_seen_on_the_mirror(
    primary: Primary, change: Callable[[Path], None], expected: dict[str, str]
) -> None:
    path = primary.root / "file"
    (primary.root / "directory").mkdir()
    write(path, 65536)
    write(primary.root / "bystander", 65536)
    old = map_device(primary.split())
    inodes = {name: (primary.root / name).stat().st_ino for name in expected}
    change(path)
    if change is rename_file:
        path = primary.root / "directory" / "renamed"
    truth = kernel_shows(path)

    with BlockDevice(primary.split()) as mirror:
        new, changes = check(old, mirror)

    found = classes(changes)
    renamed = found.pop("renamed", [])
    assert {inode: name for name, inodes_of in found.items() for inode in inodes_of} == {
        inodes[name]: kind for name, kind in expected.items()
    }
    assert renamed == ([inodes["file"]] if change is rename_file else [])
    assert map_shows(new, path.stat().st_ino) == truth
    assert new.find(bytes(path.relative_to(primary.root))) >= 0


@pytest.mark.root
def test_a_map_of_the_mounted_primary_is_put_right_by_check(primary: Primary) -> None:
    """Such a map is taken while files change: it may lack what was not written back, and check must not trust it."""
    write(primary.root / "kept", 65536)
    run("sync", "-f", primary.root)
    live = map_device(run("findmnt", "-n", "-o", "SOURCE", primary.root).strip(), live=True)
    for number in range(50):
        write(primary.root / f"late{number}", 65536)
    (primary.root / "kept").unlink()
    with BlockDevice(primary.split()) as mirror:
        new, changes = check(live, mirror)

    truth = oracle.walk(primary.root)
    assert oracle.differences(truth, oracle.map_entries(new)) == []
    names = {entry.inode for path, entry in truth.items() if path.startswith(b"late")}
    assert names <= {*changes.new.tolist(), *changes.extents_revised.tolist()}


@pytest.mark.root
def test_a_removed_file_is_gone_and_its_directory_revised(primary: Primary) -> None:
    write(primary.root / "file", 65536)
    write(primary.root / "bystander", 65536)
    inode = (primary.root / "file").stat().st_ino
    old = map_device(primary.split())
    (primary.root / "file").unlink()
    with BlockDevice(primary.split()) as mirror:
        _, changes = check(old, mirror)

    assert classes(changes) == {"gone": [inode], "attributes_revised": [primary.root.stat().st_ino]}


@pytest.mark.root
def test_nothing_changed_is_all_the_same(primary: Primary) -> None:
    write(primary.root / "file", 65536)
    old = map_device(primary.split())
    with BlockDevice(primary.split()) as mirror:
        new, changes = check(old, mirror)

    assert classes(changes) == {}
    assert new.digest() == old.digest()


@pytest.mark.root
def test_a_file_recreated_under_its_inode_number_is_gone_and_new(primary: Primary) -> None:
    path = primary.root / "file"
    write(path, 65536)
    inode = path.stat().st_ino
    old = map_device(primary.split())
    path.unlink()
    for number in range(200):  # XFS frees inodes in the background: until then others are taken
        write(path, 65536)
        if path.stat().st_ino == inode:
            break
        path.rename(primary.root / f"other{number}")
    else:
        pytest.fail("the inode number never came again")
    for other in primary.root.glob("other*"):
        other.unlink()
    truth = kernel_shows(path)

    with BlockDevice(primary.split()) as mirror:
        new, changes = check(old, mirror)

    assert changes.gone.tolist() == changes.new.tolist() == [inode]
    assert changes.extents_revised.tolist() == []
    assert map_shows(new, inode) == truth


@pytest.mark.root
def test_defragmentation_revises_extents(ext4_primary: Primary) -> None:
    need_programs("e4defrag")
    path, other = ext4_primary.root / "file", ext4_primary.root / "other"
    for i in range(40):
        write(path, BLOCK, i * BLOCK, direct=True)
        write(other, BLOCK, i * BLOCK, direct=True)
    other.unlink()
    before = kernel_shows(path)
    assert before.extents is not None and len(before.extents) > 4
    old = map_device(ext4_primary.split())
    run("e4defrag", path)
    truth = kernel_shows(path)
    assert truth.extents != before.extents

    with BlockDevice(ext4_primary.split()) as mirror:
        new, changes = check(old, mirror)

    assert path.stat().st_ino in changes.extents_revised
    assert map_shows(new, path.stat().st_ino) == truth


def raw_inode(image: Path, inode: int) -> bytes:
    found = re.search(r"block (\d+), offset 0x([0-9a-f]+)", run("debugfs", "-R", f"imap <{inode}>", image))
    assert found is not None
    with image.open("rb") as file:
        return os.pread(file.fileno(), 256, int(found[1]) * BLOCK + int(found[2], 16))


# What the kernel changes in an inode when a write into unwritten space leaves its i_block alone: i_version, the three
# times of a write and their extra parts, and the checksum.
TOUCHED = {*range(0x24, 0x28), *range(0x0C, 0x14), *range(0x7C, 0x7E), *range(0x82, 0x8C), *range(0x98, 0x9C)}
UNTOUCH = {"ctime": 0x0C, "mtime": 0x10, "version": 0x24, "ctime_extra": 0x84, "mtime_extra": 0x88}


@pytest.mark.root
@pytest.mark.parametrize("pieces", [1, 60])
def test_unwritten_that_became_written_is_seen_without_timestamps(ext4_primary: Primary, pieces: int) -> None:
    """With 60 extents the tree has depth 1: the kernel changes the leaf, and of the inode only times and version.

    These are then put back in the mirror, so that nothing but the extent record itself can tell.
    """
    path = ext4_primary.root / "file"
    fragmented(path, pieces)
    inode, first = path.stat().st_ino, ext4_primary.split()
    old = map_device(first)
    write(path, BLOCK, 0, direct=True)
    truth = kernel_shows(path)
    assert truth.extents is not None and truth.extents[0][3] == 0

    second = ext4_primary.split()
    before, after = raw_inode(first, inode), raw_inode(second, inode)
    changed = {i for i in range(256) if before[i] != after[i]}
    assert (changed <= TOUCHED) == (pieces > 4)
    for name, offset in UNTOUCH.items():
        value = struct.unpack_from("<I", before, offset)[0]
        run("debugfs", "-w", "-R", f"set_inode_field <{inode}> {name} {value:#x}", second)
    assert (raw_inode(second, inode) == before) == (pieces > 4)
    with BlockDevice(second) as mirror:
        new, changes = check(old, mirror)

    assert classes(changes) == {"extents_revised": [inode]}
    assert map_shows(new, inode).extents == truth.extents
