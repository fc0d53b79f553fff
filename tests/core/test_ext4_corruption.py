"""Damaged images: never a crash, a hang or a silent difference; the damaged object is reported and the others go on."""

import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests import oracle
from tests.ext4_surgery import Surgeon, debugfs
from tests.support import need_programs

pytestmark = pytest.mark.root

FILE_DAMAGED = 1
LONGEST_MAP_S = 5.0


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image with trees of depth 2, a hash tree, xattrs in inodes and blocks, symlinks of both kinds."""
    images.need_ext4()
    image = images.make_image(tmp_path_factory.mktemp("good") / "image", 12, "-b", "1024", "-N", "600")
    with images.mounted(image) as point:
        images.write_alternate(point / "deep", 1000, 1024)
        images.write_alternate(point / "deep too", 300, 1024)
        (point / "many").mkdir()
        for number in range(200):
            (point / "many" / f"a name that fills a block soon {number:04}").touch()
        (point / "folder" / "below").mkdir(parents=True)
        (point / "folder" / "below" / "file").write_bytes(b"f" * 5000)
        (point / "folder" / "other").write_bytes(b"o" * 100)
        (point / "fast").symlink_to("target")
        (point / "slow").symlink_to("target" * 30)
        images.fill_xattrs(point / "xattrs")
    return image


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


def try_map(image: Path) -> ExtentMap | None:
    """A map, or None where the whole was refused; anything else than our own errors passes through."""
    begun = time.monotonic()
    try:
        return map_image(image)
    except errors.SplitreelError:
        return None
    finally:
        assert time.monotonic() - begun < LONGEST_MAP_S


def damaged_paths(extent_map: ExtentMap) -> set[bytes]:
    flags = numpy.asarray(extent_map.files)["flags"]
    names = numpy.asarray(extent_map.names)
    return {extent_map.path_of(i) for i in range(extent_map.name_count) if flags[names[i]["file"]] & FILE_DAMAGED}


def texts(extent_map: ExtentMap) -> list[str]:
    return [text for _, _, text in extent_map.problems]


Target = tuple[int, int, Callable[[], None]]


def targets(surgeon: Surgeon) -> dict[str, Target]:
    """Every kind of record: where it is, its size, and what makes its checksum right again."""
    size, inode_size = surgeon.block_size, surgeon.inode_size
    found: dict[str, Target] = {
        "superblock": (1024, 1024, surgeon.fix_superblock),
        "group 0": (surgeon.group(0), surgeon.desc_size, lambda: surgeon.fix_group(0)),
        "group 1": (surgeon.group(1), surgeon.desc_size, lambda: surgeon.fix_group(1)),
    }
    for path in ("/", "/deep", "/many", "/folder/other", "/fast", "/slow", "/xattrs/both", "/xattrs/acl"):
        number = surgeon.number(path)
        found[f"inode of {path}"] = (surgeon.inode(number), inode_size, lambda n=number: surgeon.fix_inode(n))
    deep = surgeon.number("/deep")
    for index, offset in enumerate(surgeon.nodes(deep)[:4]):
        found[f"node {index}"] = (offset, size, lambda o=offset: surgeon.fix_node(deep, o))
    for path, block in (("/", 0), ("/folder", 0), ("/many", 0), ("/many", 1)):
        number = surgeon.number(path)
        offset = surgeon.block(number, block)
        found[f"block {block} of {path}"] = (
            offset,
            size,
            lambda n=number, o=offset: surgeon.fix_directory_block(n, o),
        )
    for path in ("/xattrs/large", "/xattrs/both"):
        offset = surgeon.xattr_block(surgeon.number(path))
        found[f"xattr block of {path}"] = (offset, size, lambda o=offset: surgeon.fix_xattr_block(o))
    return found


def mutations(record: bytes, seed: str, count: int) -> Iterator[bytes]:
    """The record with one to four of its bytes changed, mostly near its beginning, where the structure is."""
    chance = random.Random(seed)
    for _ in range(count):
        changed = bytearray(record)
        for _ in range(chance.randint(1, 4)):
            place = min(int(chance.expovariate(8 / len(record))), len(record) - 1)
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
            assert oracle.differences({path: truth[path] for path in sure}, sure) == [], name
            assert extent_map.problem_count > 0 or len(sure) == len(truth), name
            reported += extent_map.problem_count > 0
        surgeon.write(offset, record)
    assert refused > 10
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
    assert ended > 600


def test_a_bad_inode_is_the_only_one_damaged(surgeon: Surgeon, truth: dict[bytes, oracle.Entry]) -> None:
    number = surgeon.number("/folder/other")
    surgeon.write(surgeon.inode(number) + 0x1C, b"\x55")
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == [(number, 0, "the inode's checksum does not match")]
    assert damaged_paths(extent_map) == {b"folder/other"}
    assert {extent_map.path_of(i) for i in range(extent_map.name_count)} == truth.keys()


def test_a_bad_tree_block_is_named_with_its_offset(surgeon: Surgeon) -> None:
    number = surgeon.number("/deep")
    node = surgeon.nodes(number)[-1]
    surgeon.write(node + 20, b"\x55")
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == [(number, node, "an extent node's checksum does not match")]
    assert damaged_paths(extent_map) == {b"deep"}


def test_a_tree_block_used_by_two_files_is_refused_once(surgeon: Surgeon) -> None:
    """A node whose index points at itself, checksum and all, ends the walk."""
    number = surgeon.number("/deep")
    root = surgeon.inode(number) + 0x28
    leaf = struct.unpack("<I", surgeon.read(root + 12 + 4, 4))[0]
    second = struct.pack("<III", 5000, leaf, 0)
    surgeon.write(root + 24, second)
    surgeon.write(root + 2, struct.pack("<H", 2))
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)

    assert "a block of its extent tree is used twice" in texts(extent_map)
    assert damaged_paths(extent_map) == {b"deep"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (struct.pack("<HH", 0, 0x0202), "rec_len is out of range"),
        (struct.pack("<HH", 18, 0x0202), "rec_len is out of range"),
        (struct.pack("<HH", 8000, 0x0202), "rec_len is out of range"),
        (struct.pack("<HH", 12, 0x02FF), "name does not fit its rec_len"),
    ],
)
def test_a_bad_directory_entry_ends_its_block_alone(surgeon: Surgeon, change: bytes, text: str) -> None:
    number = surgeon.number("/folder")
    block = surgeon.block(number, 0)
    surgeon.write(block + 24 + 4, change)
    surgeon.fix_directory_block(number, block)
    extent_map = map_image(surgeon.image)

    assert any(text in found for found in texts(extent_map))
    assert damaged_paths(extent_map) == {b"folder"}
    assert extent_map.find(b"many") >= 0


@pytest.mark.parametrize("name", [b"be/ow", b"be\0ow", b"/etc/"])
def test_names_that_would_leave_the_directory_are_refused(surgeon: Surgeon, name: bytes) -> None:
    number = surgeon.number("/folder")
    block = surgeon.block(number, 0)
    surgeon.write(block + 24 + 8, name)
    surgeon.fix_directory_block(number, block)
    extent_map = map_image(surgeon.image)

    assert "an entry's name holds a slash or a null byte" in texts(extent_map)
    assert all(b"\0" not in path for path in extent_map.paths())
    assert sum(path.startswith(b"folder") for path in extent_map.paths()) == 2


def test_dots_out_of_their_place_are_refused(surgeon: Surgeon) -> None:
    number = surgeon.number("/folder")
    block = surgeon.block(number, 0)
    surgeon.write(block + 24 + 6, b"\x02\x02..")
    surgeon.fix_directory_block(number, block)
    assert "an entry named . or .. out of its place" in texts(map_image(surgeon.image))


def test_a_directory_cycle_ends(surgeon: Surgeon) -> None:
    """folder/below is made to lead to folder itself, then to the root."""
    number = surgeon.number("/folder")
    block = surgeon.block(number, 0)
    for inode in (number, 2):
        surgeon.write(block + 24, struct.pack("<I", inode))
        surgeon.fix_directory_block(number, block)
        extent_map = map_image(surgeon.image)

        assert "an entry leads to a directory that has another name already" in texts(extent_map)
        assert extent_map.find(b"folder/below") == -1
        assert extent_map.find(b"folder/other") >= 0


@pytest.mark.parametrize("inode", [1, 7, 8, 400, 600, 0xFFFFFFFF])
def test_entries_to_no_file_are_reported(surgeon: Surgeon, inode: int) -> None:
    """Reserved, free and out-of-range inodes."""
    number = surgeon.number("/folder")
    block = surgeon.block(number, 0)
    surgeon.write(block + 24, struct.pack("<I", inode))
    surgeon.fix_directory_block(number, block)
    assert "an entry leads to an inode that is not in use" in texts(map_image(surgeon.image))


def test_files_without_a_name_are_left_out(surgeon: Surgeon, truth: dict[bytes, oracle.Entry]) -> None:
    """What follows them in the map keeps its own extents and attributes."""
    number = surgeon.number("/folder")
    block = surgeon.block(number, 0)
    surgeon.write(block + 24, bytes(4))
    surgeon.fix_directory_block(number, block)
    with BlockDevice(surgeon.image) as device:
        filesystem = Ext4(device)
        extent_map = filesystem.map()
    left = {path: entry for path, entry in truth.items() if not path.startswith(b"folder/below")}

    assert filesystem.statistics["unnamed"] == 2
    assert oracle.differences(left, oracle.map_entries(extent_map)) == []


def test_a_bad_xattr_block_drops_the_xattrs_and_keeps_the_file(surgeon: Surgeon) -> None:
    number = surgeon.number("/xattrs/large")
    offset = surgeon.xattr_block(number)
    surgeon.write(offset + 40, b"\x55")
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == [(number, offset, "an extended attribute block's checksum does not match")]
    assert damaged_paths(extent_map) == set()
    assert extent_map.xattrs(extent_map.find_file(number)) == {}


@pytest.mark.parametrize(
    ("offset", "value", "text"),
    [(2, 0xFFF0, "value does not fit"), (8, 0x7FFFFFFF, "value does not fit"), (0, 0x01FF, "name does not fit")],
)
def test_xattr_entries_out_of_bounds_are_reported(surgeon: Surgeon, offset: int, value: int, text: str) -> None:
    number = surgeon.number("/xattrs/small")
    entry = surgeon.inode(number) + 128 + 32 + 4
    surgeon.write(entry + offset, struct.pack("<I" if offset == 8 else "<H", value))
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)

    assert any(text in found for found in texts(extent_map))
    assert damaged_paths(extent_map) == set()


def test_an_extent_tree_taken_for_pointers_damages_its_file(surgeon: Surgeon) -> None:
    """Without its extents flag the root's first word, magic number and all, is a block pointer out of range."""
    number = surgeon.number("/folder/other")
    flags = struct.unpack("<I", surgeon.read(surgeon.inode(number) + 0x20, 4))[0]
    surgeon.write(surgeon.inode(number) + 0x20, struct.pack("<I", flags & ~0x80000))
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == [(number, 0x1F30A * 1024, "a block pointer leads outside the file system")]
    assert damaged_paths(extent_map) == {b"folder/other"}
    assert "other" in debugfs(surgeon.image, "ls /folder")


@pytest.mark.parametrize("kind", ["node", "directory", "hash tree leaf", "xattr", "symlink"])
def test_a_fingerprint_covers_every_block_of_its_file(surgeon: Surgeon, kind: str) -> None:
    """A byte without a meaning changes in one block, and nothing in the inode: one fingerprint changes."""
    many = surgeon.number("/many")
    places: dict[str, tuple[str, int, int]] = {
        "node": ("/deep", surgeon.nodes(surgeon.number("/deep"))[-1], 8),
        "directory": ("/folder", surgeon.block(surgeon.number("/folder"), 0), 900),
        "hash tree leaf": ("/many", surgeon.block(many, 1), 1000),
        "xattr": ("/xattrs/both", surgeon.xattr_block(surgeon.number("/xattrs/both")), 12),
        "symlink": ("/slow", surgeon.block(surgeon.number("/slow"), 0), 1000),
    }
    path, block, offset = places[kind]
    number = surgeon.number(path)
    before = numpy.asarray(map_image(surgeon.image).files).copy()
    surgeon.write(block + offset, bytes([surgeon.read(block + offset, 1)[0] ^ 0x55]))
    if kind == "node":
        surgeon.fix_node(number, block)
    elif kind == "xattr":
        surgeon.fix_xattr_block(block)
    elif kind != "symlink":
        surgeon.fix_directory_block(number, block)
    extent_map = map_image(surgeon.image)
    after = numpy.asarray(extent_map.files)

    assert extent_map.problems == []
    assert after["inode"][after["fingerprint"] != before["fingerprint"]].tolist() == [number]


def test_a_directory_of_the_same_blocks_over_and_over_ends(surgeon: Surgeon) -> None:
    """Four extents over the same half of the file system: no more is read than there is."""
    number = surgeon.number("/folder")
    inode = surgeon.inode(number)
    surgeon.write(inode + 0x28 + 2, struct.pack("<H", 4))
    for index in range(4):
        extent = struct.pack("<IHHI", 6500 * index, 6500, 0, 1400)
        surgeon.write(inode + 0x28 + 12 + 12 * index, extent)
    surgeon.write(inode + 4, struct.pack("<I", 26_000 * 1024))
    surgeon.fix_inode(number)
    begun = time.monotonic()
    extent_map = map_image(surgeon.image)

    assert time.monotonic() - begun < LONGEST_MAP_S
    assert damaged_paths(extent_map) == {b"folder"}
    assert "more directory blocks than the file system has: some are used twice" in texts(extent_map)


def test_an_entry_of_the_wrong_type_is_reported_and_kept(surgeon: Surgeon) -> None:
    """The type comes from the inode; one that the entry does not know is nothing to report."""
    number = surgeon.number("/folder")
    block = surgeon.block(number, 0)
    for kind, found in ((1, ["an entry's file type is not that of its inode"]), (0, [])):
        surgeon.write(block + 24 + 7, bytes([kind]))
        surgeon.fix_directory_block(number, block)
        extent_map = map_image(surgeon.image)

        assert texts(extent_map) == found
        assert damaged_paths(extent_map) == set()
        assert extent_map.find(b"folder/below/file") >= 0


@pytest.mark.parametrize("flag", [0x10000000, 0x800], ids=["inline", "encrypted"])
def test_a_refused_file_takes_no_extents_from_the_next_one(
    surgeon: Surgeon, truth: dict[bytes, oracle.Entry], flag: int
) -> None:
    """Its tree blocks were read together with those of the files behind it."""
    number = surgeon.number("/deep")
    flags = struct.unpack("<I", surgeon.read(surgeon.inode(number) + 0x20, 4))[0]
    surgeon.write(surgeon.inode(number) + 0x20, struct.pack("<I", flags | flag))
    surgeon.fix_inode(number)
    entries = oracle.map_entries(map_image(surgeon.image))
    del entries[b"deep"]

    assert len(truth[b"deep too"].extents) == 150
    assert oracle.differences({path: truth[path] for path in entries}, entries) == []


def test_two_acls_of_one_kind_are_one(surgeon: Surgeon) -> None:
    """A name behind the index of an ACL means nothing: it must not make two attributes of one name."""
    number = surgeon.number("/xattrs/acl")
    area = surgeon.inode(number) + 128 + 32 + 4
    room = surgeon.inode_size - 128 - 32 - 4
    value = struct.pack("<I" + "HH" * 3, 1, 1, 7, 4, 5, 32, 5)
    entry = struct.Struct("<BBHIII4s")
    entries = b"".join(entry.pack(1, 2, room - 16, 0, 16, 0, name) for name in (b"a", b"b"))
    surgeon.write(area, (entries + bytes(4)).ljust(room - 16, b"\0") + value)
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == []
    assert extent_map.xattrs(extent_map.find_file(number)) == {"system.posix_acl_access": images.ACL_MINIMAL}


@pytest.mark.parametrize(
    ("path", "offset", "value", "text"),
    [
        ("/fast", 0x04, 0, "a symlink without a target"),
        ("/slow", 0x04, 0, "a symlink without a target"),
        ("/xattrs/fast_link", 0x04, 0, "a symlink without a target"),
        ("/folder/other", 0x6C, 0x401, "the inode's size is above 2^32 blocks"),
    ],
)
def test_sizes_that_cannot_be_are_damage(surgeon: Surgeon, path: str, offset: int, value: int, text: str) -> None:
    number = surgeon.number(path)
    surgeon.write(surgeon.inode(number) + offset, struct.pack("<I", value))
    surgeon.fix_inode(number)
    extent_map = map_image(surgeon.image)

    assert extent_map.problems == [(number, 0, text)]
    assert damaged_paths(extent_map) == {path[1:].encode()}


def test_a_symlink_longer_than_any_path_is_cut_off_as_the_kernel_does(tmp_path: Path) -> None:
    """Only damage makes one: its target then ends where the kernel's does, and a problem says so."""
    images.need_ext4()
    image = images.make_image(tmp_path / "image", 16, "-b", "4096")
    with images.mounted(image) as point:
        (point / "long").symlink_to("t" * 4000)
    surgeon = Surgeon(image)
    number = surgeon.number("/long")
    surgeon.write(surgeon.block(number, 0), b"t" * 4096)
    surgeon.write(surgeon.inode(number) + 0x04, struct.pack("<I", 4096))
    surgeon.fix_inode(number)
    with images.mounted(image, "ro") as point:
        truth = oracle.walk(point)
    extent_map = map_image(image)

    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert texts(extent_map) == ["a symlink longer than any path: cut off, as the kernel does"]
    assert damaged_paths(extent_map) == set()


def test_directories_nested_too_deep_are_left_out(tmp_path: Path) -> None:
    """The directory of depth 65536 is there, what is in it is not; all else is."""
    need_programs("mke2fs", "debugfs")
    options = "-b 1024 -I 128 -N 81920 -g 8192 -O ^metadata_csum,^uninit_bg,^has_journal,^flex_bg,^resize_inode"
    image = images.make_image(tmp_path / "image", 96, *options.split())
    inodes = images.nest(Surgeon(image), 65_540)
    with BlockDevice(image) as device:
        filesystem = Ext4(device)
        extent_map = filesystem.map()
    text = "directories nested 65536 deep: what is in this one is left out"

    assert extent_map.problems == [(inodes[65_534], 0, text)]
    assert filesystem.statistics["unnamed"] == 5 + 1  # what is too deep, and lost+found, whose name was overwritten
    assert extent_map.name_count == 65_536
