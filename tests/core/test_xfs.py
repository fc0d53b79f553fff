"""Whole maps of XFS images, compared path by path and field by field with what the kernel says of the same image.

Every kind of image stands in tests/images; here is what those do not hold: layouts made on purpose, states of the
log, maps of version 4, which this kernel may not mount.
"""

import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.xfs import Xfs
from splitreel.mapping import diff
from tests import ext4_images as images
from tests import oracle
from tests.images import fillers
from tests.support import need_programs, need_root
from tests.xfs_images import make_image
from tests.xfs_surgery import Surgeon, xfs_db

FICLONE, FICLONERANGE = 0x40049409, 0x4020940D
UNWRITTEN, SHARED = 0x800, 0x2000
FILE_DAMAGED = 1


@pytest.fixture(autouse=True)
def _parts() -> None:
    need_root()
    need_programs("mkfs.xfs", "xfs_db", "mount")


def map_image(path: Path, *, is_frozen: bool = False, is_live: bool = False) -> ExtentMap:
    with BlockDevice(path) as device:
        return Xfs(device, frozen=is_frozen, live=is_live).map()


@contextmanager
def filled(image: Path) -> Iterator[Path]:
    """The image mounted for writing."""
    with images.mounted(image) as point:
        yield point


def truth_of(image: Path) -> dict[bytes, oracle.Entry]:
    with images.mounted(image, "ro,norecovery") as point:
        return oracle.walk(point)


def level(image: Path, path: str) -> int:
    """Of the root of a file's extent tree; 0 when there is none."""
    found = re.search(r"u3\.bmbt\.level = (\d+)", xfs_db(image, f"path {path}", "print u3"))
    return int(found[1]) if found else 0


def test_extent_trees_of_every_depth(tmp_path: Path) -> None:
    """Trees of depth 0 to 2, of holes and of unwritten space at every other block, have the extents of FIEMAP."""
    image = make_image(tmp_path / "image", 200, "-b", "size=1024")
    with filled(image) as point:
        for depth, blocks in enumerate((6, 60, 3000)):
            images.write_alternate(point / f"sparse{depth}", blocks * 2, 1024)
            images.punch_alternate(point / f"punched{depth}", blocks * 2, 1024)
    extent_map = map_image(image)

    assert oracle.differences(truth_of(image), oracle.map_entries(extent_map)) == []
    assert extent_map.problems == []
    assert [level(image, f"/sparse{depth}") for depth in range(3)] == [0, 1, 2]


def test_shared_blocks_are_flagged_as_fiemap_flags_them(tmp_path: Path) -> None:
    """Copies of parts, of copies, of unwritten space, and what is left when a copy is written to or goes."""
    image = make_image(tmp_path / "image", 64, "-d", "agcount=4")
    block = 4096
    with filled(image) as point:
        source = point / "source"
        source.write_bytes(fillers.pattern(200 * block))
        with open(source, "rb") as original:
            for number, (start, count) in enumerate(((0, 200), (10, 50), (30, 20), (190, 10), (55, 1))):
                with open(point / f"copy{number}", "wb") as copy:
                    span = struct.pack("<qQQQ", original.fileno(), start * block, count * block, 0)
                    fcntl.ioctl(copy, FICLONERANGE, span)
        with open(point / "copy0", "r+b") as copy:
            for start in (0, 40, 100, 199):
                copy.seek(start * block)
                copy.write(fillers.pattern(block, 7))
        (point / "copy3").unlink()
        with open(point / "prealloc", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 50 * block)
            file.write(fillers.pattern(7 * block))
        with open(point / "prealloc", "rb") as original, open(point / "prealloc2", "wb") as copy:
            fcntl.ioctl(copy, FICLONE, original.fileno())
    extent_map = map_image(image)
    entries = oracle.map_entries(extent_map)

    assert oracle.differences(truth_of(image), entries) == []
    flags = {flag for entry in entries.values() for *_, flag in entry.extents or []}
    assert flags == {0, UNWRITTEN, SHARED}


def test_the_longest_file_there_can_be(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 64)
    with filled(image) as point, open(point / "longest", "wb") as file:
        file.truncate(2**63 - 1)
        os.pwrite(file.fileno(), b"end", 2**63 - 4)
    extent_map = map_image(image)

    assert oracle.differences(truth_of(image), oracle.map_entries(extent_map)) == []
    assert [int(size) for size in numpy.asarray(extent_map.files)["size"]][-1] == 2**63 - 1


def test_sparse_inode_chunks_are_read_where_they_are(tmp_path: Path) -> None:
    """A full and fragmented file system makes chunks with holes; the blocks in the holes belong to files."""
    image = make_image(tmp_path / "image", 34, "-d", "agcount=1", "-i", "sparse=1,maxpct=100")
    with filled(image) as point:
        images.write_alternate(point / "fill", 1, 4096)
        free = os.statvfs(point).f_bavail * 4096
        with open(point / "fill", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - (3 << 20))
            for start in range(0, free - (4 << 20), 8 * 4096):
                images.fallocate(file.fileno(), 3, start, 4 * 4096)
        (point / "many").mkdir()
        for number in range(3000):
            try:
                (point / "many" / f"{number}").write_bytes(b"m" * 5000)
            except OSError:
                break
    holes = re.findall(r"holemask|0x[0-9a-f]+", xfs_db(image, "agi 0", "addr root", "print recs"))
    extent_map = map_image(image)

    assert any(hole not in ("0x0", "0", "0000") for hole in holes), "no chunk with a hole came to be"
    assert oracle.differences(truth_of(image), oracle.map_entries(extent_map)) == []
    assert extent_map.problems == []


def test_a_frozen_copy_equals_the_frozen_tree(tmp_path: Path) -> None:
    """Split after a freeze: a file just written is there, one unlinked while open is not, and no word is needed."""
    image = make_image(tmp_path / "image", 64)
    with images.mounted(image, "noatime") as point:
        (point / "file").write_bytes(b"f" * 50_000)
        (point / "gone").write_bytes(b"g" * 50_000)
        with open(point / "gone", "rb"):
            (point / "gone").unlink()
            with images.frozen(point):
                copy = images.copy_sparse(image, tmp_path / "copy")
                truth = oracle.walk(point)
    with BlockDevice(copy) as device:
        filesystem = Xfs(device)
        extent_map = filesystem.map()

    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert filesystem.statistics["unnamed"] == 0
    assert extent_map.problems == []


def test_a_copy_without_a_freeze_needs_recovery(tmp_path: Path) -> None:
    """Not even the word that it was frozen helps; of a live device the map is a hint."""
    image = make_image(tmp_path / "image", 64)
    with filled(image) as point:
        for number in range(50):
            descriptor = os.open(point / f"{number}", os.O_CREAT | os.O_WRONLY)
            os.write(descriptor, b"x" * 5000)
            os.fsync(descriptor)
            os.close(descriptor)
        copy = images.copy_sparse(image, tmp_path / "copy")
    for is_frozen in (False, True):
        with pytest.raises(errors.NeedsRecovery, match="freeze it before the mirror is split"):
            map_image(copy, is_frozen=is_frozen)
    assert map_image(copy, is_live=True).file_count >= 1


def test_an_external_log_is_read_from_its_own_device_or_taken_on_trust(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with open(log, "wb") as file:
        file.truncate(32 << 20)
    image = make_image(tmp_path / "image", 64, "-l", f"logdev={log},size=16m")
    with pytest.raises(errors.NeedsRecovery):
        map_image(image)
    assert map_image(image, is_frozen=True).file_count == 1
    with BlockDevice(image) as device, BlockDevice(log) as other:
        assert Xfs(device, others=[other]).map().file_count == 1
        with pytest.raises(errors.Corrupt):
            Xfs(device, others=[device])


def test_a_blank_device_is_not_taken_for_an_empty_external_log(tmp_path: Path) -> None:
    """As the first sector of an LVM member is: of the log that was not given nothing is known."""
    log, blank = tmp_path / "log", tmp_path / "blank"
    for path in (log, blank):
        with open(path, "wb") as file:
            file.truncate(32 << 20)
    image = make_image(tmp_path / "image", 64, "-l", f"logdev={log},size=16m")
    with BlockDevice(image) as device, BlockDevice(log) as right, BlockDevice(blank) as wrong:
        with pytest.raises(errors.Corrupt, match="another one"):
            Xfs(device, others=[wrong])
        assert Xfs(device, others=[wrong, right]).map().file_count == 1


def test_a_log_that_goes_on_while_it_is_mapped_is_noticed(tmp_path: Path) -> None:
    """The superblock stays as it is while files come and go: the log says that the device is the live one."""
    image = make_image(tmp_path / "image", 64)
    with filled(image) as point:
        (point / "file").write_bytes(b"a")
    later = images.copy_sparse(image, tmp_path / "later")
    with filled(later) as point:
        (point / "file").write_bytes(b"b" * 5000)
    words = dict(re.findall(r"(\w+) = (\d+)", xfs_db(image, "sb 0", "print logstart logblocks agblocks agblklog")))
    start, count, blocks, shift = (int(words[name]) for name in ("logstart", "logblocks", "agblocks", "agblklog"))
    offset = ((start >> shift) * blocks + (start & ((1 << shift) - 1))) * 4096
    with BlockDevice(image) as device, open(image, "r+b") as file, open(later, "rb") as other:
        filesystem = Xfs(device)
        assert filesystem.map().problems == []
        file.seek(offset)
        other.seek(offset)
        file.write(other.read(count * 4096))
        file.flush()

        with pytest.raises(errors.Stale):
            filesystem.map()


def test_fingerprints_change_with_what_they_stand_for_and_not_with_atime(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 64)
    with filled(image) as point:
        for name in ("read", "written", "same"):
            (point / name).write_bytes(b"a" * 5000)
    before = map_image(image)
    with images.mounted(image, "strictatime") as point:
        (point / "read").read_bytes()
        with open(point / "written", "r+b") as file:
            file.write(b"b")
    after = map_image(image)
    changes = diff(before, after)
    names = {path: oracle.map_entries(after)[path].inode for path in (b"read", b"written", b"same")}

    assert list(changes.attributes_revised) == [names[b"written"]]
    assert {names[b"read"], names[b"same"]} <= set(changes.same.tolist())


# Version 4, from mkfs.xfs's own protofile: no kernel has to mount it.


def protofile(folder: Path) -> tuple[Path, dict[bytes, bytes]]:
    """A tree for mkfs.xfs -p, and the contents of its files."""
    contents = {f"file{size}".encode(): fillers.pattern(size, size) for size in (0, 1, 511, 512, 5000, 300_000)}
    lines = ["/", "0 0", "d--755 0 0"]
    for name, data in contents.items():
        (folder / os.fsdecode(name)).write_bytes(data)
        lines.append(f"{os.fsdecode(name)} ---640 7 8 {folder / os.fsdecode(name)}")
    lines += ["link l--777 1 2 a/target", "pipe p--600 3 4", "chr c--600 0 0 300 70000", "blk bu-600 0 0 8 1"]
    lines.append("sub d-g755 5 6")
    lines += [f"n{number:03} ---644 0 0 /dev/null" for number in range(300)]
    lines += ["$", "$"]
    path = folder / "proto"
    path.write_text("\n".join(lines) + "\n")
    return path, contents


@pytest.mark.parametrize(
    "options",
    [
        ("-m", "crc=0"),
        ("-m", "crc=0", "-b", "size=512", "-i", "size=256", "-n", "ftype=0"),
        ("-m", "crc=0", "-b", "size=1024", "-i", "attr=1,projid32bit=0", "-l", "version=1", "-n", "version=ci"),
        ("-m", "crc=0", "-b", "size=65536", "-i", "size=2048"),
        ("-m", "crc=0", "-b", "size=2048", "-i", "size=1024"),
    ],
    ids=" ".join,
)
def test_version_4_is_read_as_it_was_made(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Kinds, owners, modes, device numbers, targets and bytes are those of the protofile."""
    proto, contents = protofile(tmp_path)
    image = make_image(tmp_path / "image", 300, *options, "-p", str(proto))
    with BlockDevice(image) as device:
        extent_map = Xfs(device).map()
        entries = oracle.map_entries(extent_map)
        read = {name: bytes_of(entries[name], device) for name in contents}

    assert extent_map.problems == []
    assert read == contents
    assert len(entries) == 1 + len(contents) + 5 + 300
    assert (entries[b"file5000"].uid, entries[b"file5000"].gid, entries[b"file5000"].mode) == (7, 8, 0o100640)
    assert entries[b"link"].target == b"a/target"
    assert entries[b"chr"].rdev == (300, 70000)
    assert stat.S_ISFIFO(entries[b"pipe"].mode)
    assert entries[b"blk"].mode == stat.S_IFBLK | 0o4600
    assert entries[b"sub/n299"].size == 0
    assert entries[b"sub"].link_count == 2


def bytes_of(entry: oracle.Entry, device: BlockDevice) -> bytes:
    data = bytearray(entry.size)
    for logical, physical, size, _ in entry.extents or []:
        data[logical : logical + size] = device.pread(physical, size)
    return bytes(data)


def test_inodes_of_version_1_count_links_in_16_bits(tmp_path: Path) -> None:
    """The layout of IRIX and of Linux before 2.6: no project, the link count at offset 6."""
    proto, contents = protofile(tmp_path)
    image = make_image(tmp_path / "image", 300, "-m", "crc=0", "-p", str(proto))
    surgeon = Surgeon(image)
    number = surgeon.number("/file5000")
    place = surgeon.inode(number)
    surgeon.write(place + 4, b"\x01")
    surgeon.write(place + 6, struct.pack(">H", 1))
    surgeon.write(place + 16, bytes(4))
    with BlockDevice(image) as device:
        entry = oracle.map_entries(Xfs(device).map())[b"file5000"]

        assert entry.link_count == 1
        assert bytes_of(entry, device) == contents[b"file5000"]


def test_a_realtime_file_is_damaged_and_its_neighbours_are_not(tmp_path: Path) -> None:
    """The realtime section was not given. No file of the protofile stands in it, so two are flagged as if they did.

    Of these, the empty one has nothing there.
    """
    proto, contents = protofile(tmp_path)
    section = tmp_path / "realtime"
    with open(section, "wb") as file:
        file.truncate(64 << 20)
    image = make_image(tmp_path / "image", 300, "-r", f"rtdev={section}", "-m", "reflink=0", "-p", str(proto))
    surgeon = Surgeon(image)
    for path in ("/file0", "/file5000"):
        number = surgeon.number(path)
        surgeon.write(surgeon.inode(number) + 90, b"\x00\x01")
        surgeon.fix_inode(number)
    with BlockDevice(image) as device:
        filesystem = Xfs(device)
        extent_map = filesystem.map()
        entries = oracle.map_entries(extent_map)

        assert [(inode, "realtime section" in text) for inode, _, text in extent_map.problems] == [(number, True)]
        assert bytes_of(entries[b"file300000"], device) == contents[b"file300000"]
    assert ["realtime" in warning for warning in filesystem.warnings] == [True]
    flags = dict(zip(numpy.asarray(extent_map.files)["inode"], numpy.asarray(extent_map.files)["flags"], strict=True))
    assert [inode for inode, flag in flags.items() if flag & FILE_DAMAGED] == [number]


def test_secondary_superblocks_do_not_matter(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 64, "-d", "agcount=2")
    surgeon = Surgeon(image)
    surgeon.write(surgeon.header(1, 0), bytes(512))

    assert map_image(image).problems == []
