"""What stands in inodes: files, directories and symlinks, as the kernel reads them, and when they are damaged."""

import os
import struct
import subprocess
from pathlib import Path

import numpy
import pytest

from splitreel.__main__ import main
from splitreel.cli import inspect
from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests import oracle
from tests.ext4_surgery import Surgeon, debugfs

pytestmark = pytest.mark.root

FILE_DAMAGED, FILE_INLINE = 1, 8
EXTENT_INLINE = 0x200
SIZE, FLAGS, BLOCK = 0x04, 0x20, 0x28
INLINE_DATA_FL, EXTENTS_FL, CASEFOLD_FL = 0x10000000, 0x80000, 0x40000000
DATA = bytes(range(1, 121))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each kind of inode with its data in it, beside attributes that need a block."""
    images.need_ext4()
    image = images.make_image(tmp_path_factory.mktemp("good") / "image", 16, "-b", "4096", "-O", "inline_data")
    with images.mounted(image) as point:
        (point / "file").write_bytes(DATA)
        (point / "short").write_bytes(DATA[:20])
        (point / "beside").write_bytes(DATA[:90])
        os.setxattr(point / "beside", "user.large", b"L" * 2000)
        (point / "empty").touch()
        (point / "folder").mkdir()
        for number in range(5):
            (point / "folder" / f"entry{number}").write_bytes(b"%d" % number)
        (point / "folder" / "below").mkdir()
    for size in (5, 59, 60, 61, 100, 130):
        debugfs_write(image, f"symlink long{size} {'t' * size}")
    return image


def debugfs_write(image: Path, request: str) -> None:
    """The kernel makes no symlinks in the room of attributes; debugfs and mke2fs -d do."""
    subprocess.run(["debugfs", "-w", "-R", request, os.fspath(image)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def truth(good: Path) -> dict[bytes, oracle.Entry]:
    with images.mounted(good, "ro") as point:
        return oracle.walk(point)


@pytest.fixture
def surgeon(good: Path, tmp_path: Path) -> Surgeon:
    return Surgeon(images.copy_sparse(good, tmp_path / "image"))


def map_image(image: Path) -> ExtentMap:
    with BlockDevice(image) as device:
        return Ext4(device).map()


def content(image: Path, path: bytes) -> bytes:
    with BlockDevice(image) as device:
        extent_map = Ext4(device).map()
        return b"".join(inspect.file_pieces(extent_map, inspect.find_file(extent_map, path), device))


def change_inode(surgeon: Surgeon, path: str, field: int, data: bytes) -> int:
    number = surgeon.number(path)
    surgeon.write(surgeon.inode(number) + field, data)
    surgeon.fix_inode(number)
    return number


def flags_of(extent_map: ExtentMap, number: int) -> int:
    return int(numpy.asarray(extent_map.files)["flags"][extent_map.find_file(number)])


def test_everything_is_as_the_kernel_reads_it(good: Path, truth: dict[bytes, oracle.Entry]) -> None:
    """Symlinks of debugfs reach into the room of attributes; a file's attributes may stand in a block all the same."""
    extent_map = map_image(good)

    assert extent_map.problems == []
    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert truth[b"long130"].target == b"t" * 130
    assert content(good, b"file") == DATA
    assert content(good, b"beside") == DATA[:90]
    assert content(good, b"empty") == b""


def test_an_extent_says_where_the_inode_stands(good: Path) -> None:
    """One extent of one block, flagged, and nothing where there are no data; the attribute of the data is no user's."""
    surgeon = Surgeon(good)
    number = surgeon.number("/file")
    extent_map = map_image(good)
    row = numpy.asarray(extent_map.files)[extent_map.find_file(number)]
    extents = numpy.asarray(extent_map.extents)[int(row["first_extent"]) :][: int(row["extent_count"])]

    assert extents.tolist() == [(0, surgeon.inode(number) // 4096, 1, EXTENT_INLINE)]
    assert int(row["flags"]) == FILE_INLINE
    assert flags_of(extent_map, surgeon.number("/empty")) == 0
    assert "system.data" in debugfs(good, "stat /file")
    assert extent_map.xattrs(extent_map.find_file(number)) == {}


@pytest.mark.parametrize("size", [30, 61, 121, 160, 3000, 4096])
def test_the_size_says_how_much_and_zeros_follow(surgeon: Surgeon, size: int) -> None:
    """Less than stands there, or more: read(2) gives the same bytes."""
    change_inode(surgeon, "/file", SIZE, struct.pack("<I", size))
    with images.mounted(surgeon.image, "ro") as point:
        wanted = (point / "file").read_bytes()

    assert len(wanted) == size
    assert content(surgeon.image, b"file") == wanted
    assert map_image(surgeon.image).problems == []


@pytest.mark.parametrize(
    ("path", "field", "data", "text"),
    [
        ("/file", SIZE, struct.pack("<I", 4097), "inline data larger than a block"),
        ("/file", SIZE + 0x68, struct.pack("<I", 1), "inline data larger than a block"),
        ("/file", FLAGS, struct.pack("<I", INLINE_DATA_FL | EXTENTS_FL), "both inline data and extents"),
        ("/folder", FLAGS, struct.pack("<I", INLINE_DATA_FL | EXTENTS_FL), "both inline data and extents"),
        ("/file", 160, bytes(4), "inline data without the attribute that holds the rest of them"),
        ("/short", 160, bytes(4), "inline data without the attribute that holds the rest of them"),
        ("/folder", 160, bytes(4), "inline data without the attribute that holds the rest of them"),
        ("/file", 166, b"\xf0\xff", "an extended attribute's value does not fit"),
        ("/file", 168, struct.pack("<I", 77), "inline data in another inode"),
        ("/long5", 0x2D, b"t", "a symlink whose target is longer than its size"),
        ("/long5", 0x2A, b"\0", "a symlink whose target holds a null byte"),
        ("/long100", 0x28, b"\0", "a symlink whose target holds a null byte"),
    ],
)
def test_what_cannot_be_is_damage(surgeon: Surgeon, path: str, field: int, data: bytes, text: str) -> None:
    number = change_inode(surgeon, path, field, data)
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == [(number, 0, text)]
    assert flags_of(extent_map, number) & FILE_DAMAGED


def test_a_targets_end_is_a_null_byte(surgeon: Surgeon) -> None:
    """In the room of attributes as in a block: readlink(2) gives what stands before it."""
    number = change_inode(surgeon, "/long100", BLOCK + 17, b"\0")
    with images.mounted(surgeon.image, "ro") as point:
        wanted = os.fspath((point / "long100").readlink())
    extent_map = map_image(surgeon.image)

    assert wanted == "t" * 17
    assert extent_map.target(extent_map.find_file(number)) == wanted.encode()
    assert extent_map.problems == [(number, 0, "a symlink whose target ends at a null byte before its size")]


def test_a_bad_entry_costs_its_area_alone(surgeon: Surgeon, truth: dict[bytes, oracle.Entry]) -> None:
    """Entries stand in 56 bytes of i_block and in the attribute; one that is bad ends its own area."""
    listed = [name for name in truth if name.startswith(b"folder/")]
    number = change_inode(surgeon, "/folder", BLOCK + 4 + 4, b"\x03\x00")
    extent_map = map_image(surgeon.image)
    left = [name for name in oracle.map_entries(extent_map) if name.startswith(b"folder/")]

    assert (number, 0, "a directory entry's rec_len is out of range") in extent_map.problems
    assert 0 < len(left) < len(listed)
    assert set(left) < set(listed)
    assert flags_of(extent_map, number) & FILE_DAMAGED


def test_of_two_entries_with_one_name_the_first_is_kept(surgeon: Surgeon) -> None:
    """Also where both stand in an inode."""
    raw = surgeon.read(surgeon.inode(surgeon.number("/folder")), 256)
    wanted = surgeon.number("/folder/entry0")
    number = change_inode(surgeon, "/folder", raw.find(b"entry1"), b"entry0")
    extent_map = map_image(surgeon.image)
    name = extent_map.find(b"folder/entry0")

    assert extent_map.problems == [(number, 0, "an entry whose name another one in its directory has: left out")]
    assert int(numpy.asarray(extent_map.files)["inode"][numpy.asarray(extent_map.names)["file"][name]]) == wanted
    assert extent_map.find(b"folder/entry1") == -1


def test_a_backup_of_inline_files_restores_them(good: Path, truth: dict[bytes, oracle.Entry], tmp_path: Path) -> None:
    """Through plan, stream, a software drive, verify and restore."""
    state, tape, target = tmp_path / "state", tmp_path / "tape", tmp_path / "restored"
    arguments = ["--state", os.fspath(state)]
    assert main([*arguments, "backup", "--device", os.fspath(good), "--tape", f"file:{tape}"]) == 0
    assert main([*arguments, "verify", "--tape", f"file:{tape}"]) == 0
    assert main([*arguments, "restore", "--tape", f"file:{tape}", "--to", os.fspath(target)]) == 0
    for path, entry in truth.items():
        restored = target / os.fsdecode(path)
        if entry.target is not None:
            assert os.fsencode(restored.readlink()) == entry.target
        elif restored.is_file():
            with images.mounted(good, "ro") as point:
                assert restored.read_bytes() == (point / os.fsdecode(path)).read_bytes()
    assert os.getxattr(target / "beside", "user.large") == b"L" * 2000
    assert len(list(target.rglob("*"))) == len(truth) - 1


def test_casefolded_directories_have_the_names_they_were_given(tmp_path: Path) -> None:
    """Filled by mke2fs -d, since few kernels mount it; the flag on the directories does not change their blocks."""
    source = tmp_path / "source"
    names = ["Straße", "STRASSE", "\u00e9", "e\u0301", *(f"Name {number:04} {'n' * 50}" for number in range(300))]
    for name in ("folder/below", "other"):
        (source / name).mkdir(parents=True)
    for name in names:
        (source / "folder" / name).touch()
    options = ("-O", "casefold", "-E", "encoding=utf8", "-d", os.fspath(source))
    image = images.make_image(tmp_path / "image", 32, "-b", "1024", *options)
    for folder in ("folder", "folder/below", "other"):
        debugfs_write(image, f"set_inode_field {folder} flags 0x{EXTENTS_FL | CASEFOLD_FL:x}")
    extent_map = map_image(image)
    with BlockDevice(image) as device:
        assert "casefold" in Ext4(device).features["incompat"]

    assert "Flags: 0x40080000" in debugfs(image, "stat folder")
    assert extent_map.problems == []
    assert set(extent_map.paths()) == {
        b"",
        b"lost+found",
        *(os.fsencode(p.relative_to(source)) for p in source.rglob("*")),
    }
