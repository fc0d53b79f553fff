"""What is read, what is refused and in what words, from the superblock and the group descriptors alone."""

import re
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests.ext4_surgery import SUPERBLOCK, Surgeon
from tests.support import need_programs

COMPAT, INCOMPAT, RO_COMPAT = 0x5C, 0x60, 0x64


@pytest.fixture
def image(tmp_path: Path) -> Path:
    need_programs("mke2fs", "debugfs")
    return images.make_image(tmp_path / "image", 16)


def patch(image: Path, offset: int, form: str, value: int, *, fix: bool = True) -> None:
    """Set one field of the superblock; a value of flags is or'ed in by the caller."""
    surgeon = Surgeon(image)
    surgeon.write(SUPERBLOCK + offset, struct.pack(form, value))
    if fix:
        surgeon.fix_superblock()


def set_bit(image: Path, offset: int, bit: int) -> None:
    before = struct.unpack("<I", Surgeon(image).read(SUPERBLOCK + offset, 4))[0]
    patch(image, offset, "<I", before | bit)


def open_image(image: Path, *, is_frozen: bool = False, is_live: bool = False) -> Ext4:
    return Ext4(BlockDevice(image), frozen=is_frozen, live=is_live)


def test_a_new_file_system_opens_without_warnings(image: Path) -> None:
    """Block size, UUID and features are what dumpe2fs says."""
    text = subprocess.run(["dumpe2fs", "-h", image], capture_output=True, text=True, check=True).stdout
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    filesystem = open_image(image)

    assert filesystem.warnings == []
    assert filesystem.block_size == int(fields["Block size"])
    assert filesystem.uuid.hex() == fields["Filesystem UUID"].strip().replace("-", "")
    found = [name for names in filesystem.features.values() for name in names]
    assert found == fields["Filesystem features"].replace("extent ", "extents ").split()


@pytest.mark.parametrize(
    ("offset", "bit", "words"),
    [
        (INCOMPAT, 0x1, "incompat feature compression (0x1)"),
        (
            INCOMPAT,
            0x8,
            "incompat feature journal_dev (0x8): this is an external journal, not the file system it is for",
        ),
        (INCOMPAT, 0x1000, "incompat feature dirdata (0x1000)"),
        (INCOMPAT, 0x80000, "incompat feature unknown (0x80000)"),
    ],
)
def test_unsupported_features_are_refused_by_name_and_bit(image: Path, offset: int, bit: int, words: str) -> None:
    set_bit(image, offset, bit)
    with pytest.raises(errors.Unsupported) as caught:
        open_image(image)
    assert words in str(caught.value)


def refusals() -> dict[str, str]:
    """What DESIGN.md says of refused features."""
    text = (Path(__file__).resolve().parents[2] / "DESIGN.md").read_text()
    return dict(re.findall(r"^\| ((?:incompat|ro_compat)[^|]*) \| ([^|]*) \|$", text, re.MULTILINE))


@pytest.mark.parametrize(("word", "offset"), [("incompat", INCOMPAT), ("ro_compat", RO_COMPAT)])
def test_the_table_of_refused_features_is_what_is_refused(image: Path, word: str, offset: int) -> None:
    """Bit by bit: what is refused stands in DESIGN.md with its message, and nothing else does."""
    table = refusals()
    before = Surgeon(image).read(SUPERBLOCK + offset, 4)
    for bit in (1 << number for number in range(32)):
        set_bit(image, offset, bit)
        said = ""
        try:
            open_image(image)
        except errors.Unsupported as error:
            said = str(error)
        except errors.SplitreelError:  # read, but this image has not what goes with it
            said = ""
        Surgeon(image).write(SUPERBLOCK + offset, before)
        row = table.get(f"{word} 0x{bit:x}")
        if row is None and said:
            row = table[f"{word}, any other"].replace("…", f"0x{bit:x}")
        assert (row or "") in said and bool(row) == bool(said), hex(bit)


def test_unknown_ro_compat_is_warned_of_and_unknown_compat_ignored(image: Path) -> None:
    set_bit(image, RO_COMPAT, 0x400000)
    set_bit(image, COMPAT, 0x400000)
    filesystem = open_image(image)

    assert filesystem.warnings == ["unknown ro_compat features 0x400000: read as if they were not there"]
    assert "unknown 0x400000" in filesystem.features["compat"]
    assert filesystem.map().file_count == 2


def test_a_real_journal_device_is_refused_as_one(tmp_path: Path) -> None:
    need_programs("mke2fs", "debugfs")
    journal = images.make_image(tmp_path / "journal", 16, "-O", "journal_dev", "-b", "4096")
    with pytest.raises(errors.Unsupported, match="external journal, not the file system"):
        open_image(journal)


@pytest.mark.parametrize(
    ("offset", "bit", "name"),
    [(COMPAT, 0x2, "imagic_inodes"), (COMPAT, 0x80, "exclude_inode"), (RO_COMPAT, 0x800, "replica")],
)
def test_features_of_other_systems_are_warned_of(image: Path, offset: int, bit: int, name: str) -> None:
    set_bit(image, offset, bit)
    filesystem = open_image(image)

    assert filesystem.warnings == [f"feature {name}: read as if it were not there"]
    assert filesystem.map().problem_count == 0


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        ("ext2", (), "ext2"),
        ("ext2", ("-r", "0"), "ext2"),
        ("ext2", ("-O", "extents"), "ext4"),
        ("ext3", (), "ext3"),
        ("ext3", ("-O", "meta_bg,^resize_inode"), "ext3"),
        ("ext4", (), "ext4"),
        ("ext4", ("-O", "^has_journal"), "ext4"),
    ],
)
def test_the_family_is_told_apart_as_blkid_does(
    tmp_path: Path, kind: str, options: tuple[str, ...], found: str
) -> None:
    """A map says ext4 for all of them: one reader, one name."""
    need_programs("mke2fs", "blkid")
    image = images.make_image(tmp_path / "image", 16, *options, kind=kind)
    filesystem = open_image(image)
    said = subprocess.run(
        ["blkid", "-p", "-s", "TYPE", "-o", "value", image], capture_output=True, text=True, check=True
    )

    assert filesystem.kind == said.stdout.strip() == found
    assert filesystem.fs_type == "ext4"


def test_revision_0_with_features_is_read_with_them_and_warned_of(tmp_path: Path) -> None:
    """The kernel sets ext_attr without a word of the revision; and no kernel looks at the revision first."""
    need_programs("mke2fs", "debugfs")
    image = images.make_image(tmp_path / "image", 16, "-r", "0", kind="ext2")
    assert open_image(image).warnings == []
    set_bit(image, COMPAT, 0x8)
    assert open_image(image).warnings == [
        "revision 0 with features, which it should not have: read with them, as the kernel does"
    ]


def test_multiple_mount_protection_says_who_has_it(tmp_path: Path) -> None:
    """A mirror split while mounted says in use, which is to be expected; a clean one says nothing."""
    need_programs("mke2fs", "debugfs")
    image = images.make_image(tmp_path / "image", 16, "-O", "mmp")
    assert open_image(image).warnings == []
    block = struct.unpack("<Q", Surgeon(image).read(SUPERBLOCK + 0x168, 8))[0] * Surgeon(image).block_size
    for sequence, warning in (
        (17, "multiple mount protection: in use by 'some\\nnode' when the mirror was split"),
        (0xE24D4D50, "multiple mount protection: e2fsck was at work on it"),
    ):
        Surgeon(image).write(block, struct.pack("<IIQ64s", 0x4D4D50, sequence, 0, b"some\nnode"))
        filesystem = open_image(image)
        assert filesystem.warnings == [warning]
        assert filesystem.map().problem_count == 0
    Surgeon(image).write(block, bytes(4))
    assert "something else" in open_image(image).warnings[0]
    patch(image, 0x168, "<Q", 1 << 20)
    with pytest.raises(errors.Corrupt, match="s_mmp_block"):
        open_image(image)


def test_recorded_errors_are_warned_of(image: Path) -> None:
    patch(image, 0x194, "<I", 3)
    assert open_image(image).warnings == ["the kernel has recorded errors in this file system (3): run e2fsck"]


@pytest.mark.parametrize(
    ("offset", "form", "value", "words"),
    [
        (0x38, "<H", 0xEF54, "no magic number"),
        (0x4C, "<I", 2, "s_rev_level"),
        (0x175, "<B", 2, "s_checksum_type"),
        (0x18, "<I", 7, "s_log_block_size"),
        (0x58, "<H", 0, "s_inode_size"),
        (0x58, "<H", 257, "s_inode_size"),
        (0x58, "<H", 32768, "s_inode_size"),
        (0xFE, "<H", 32, "s_desc_size"),
        (0xFE, "<H", 96, "s_desc_size"),
        (0x14, "<I", 5, "s_first_data_block"),
        (0x20, "<I", 0, "s_blocks_per_group"),
        (0x20, "<I", 0xFFFFFFFF, "s_blocks_per_group"),
        (0x28, "<I", 0, "s_inodes_per_group"),
        (0x28, "<I", 0xFFFFFFF8, "s_inodes_per_group"),
        (0x00, "<I", 1, "s_inodes_count"),
        (0x04, "<I", 0, "s_blocks_count"),
        (0x54, "<I", 0, "s_first_ino"),
    ],
)
def test_a_superblock_out_of_bounds_is_refused(image: Path, offset: int, form: str, value: int, words: str) -> None:
    patch(image, offset, form, value)
    with pytest.raises(errors.FilesystemError, match=words):
        open_image(image)


def test_a_superblock_with_a_wrong_checksum_is_refused(image: Path) -> None:
    patch(image, 0x30, "<I", 12345, fix=False)
    with pytest.raises(errors.Corrupt, match="checksum"):
        open_image(image)


def test_a_device_shorter_than_its_file_system_is_refused(image: Path) -> None:
    with open(image, "r+b") as file:
        file.truncate(15 << 20)
    with pytest.raises(errors.DeviceError, match="shorter than the file system"):
        open_image(image)


def test_a_device_without_a_superblock_is_refused(tmp_path: Path) -> None:
    for size in (0, 512, 1 << 20):
        empty = tmp_path / f"empty{size}"
        empty.write_bytes(bytes(size))
        with pytest.raises(errors.SplitreelError):
            open_image(empty)


def test_a_journal_without_a_log_is_as_good_as_emptied(image: Path) -> None:
    """needs_recovery is set from the mount on, before anything stands in the log."""
    set_bit(image, INCOMPAT, 0x4)

    assert open_image(image).map().file_count == 2
    assert open_image(image, is_live=True).map().file_count == 2


def test_without_a_journal_an_unclean_state_needs_the_word_that_it_was_frozen(tmp_path: Path) -> None:
    need_programs("mke2fs", "debugfs")
    bare = images.make_image(tmp_path / "bare", 16, "-O", "^has_journal")
    patch(bare, 0x3A, "<H", 0)
    with pytest.raises(errors.NeedsRecovery, match="say that it was frozen"):
        open_image(bare)
    assert open_image(bare, is_frozen=True).map().file_count == 2


@pytest.mark.parametrize(("offset", "form", "value"), [(8, "<I", 0), (8, "<I", 0xFFFFFFF0), (0x1C, "<H", 0xFFFF)])
def test_a_group_descriptor_out_of_bounds_is_refused(image: Path, offset: int, form: str, value: int) -> None:
    surgeon = Surgeon(image)
    surgeon.write(surgeon.group(1) + offset, struct.pack(form, value))
    surgeon.fix_group(1)
    with pytest.raises(errors.Corrupt, match="group descriptor"):
        open_image(image).map()


def paths(extent_map: ExtentMap) -> list[bytes]:
    return [extent_map.path_of(index) for index in range(extent_map.name_count)]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Directories and files in both groups of two: the first has room for five inodes of them."""
    need_programs("mke2fs", "debugfs")
    image = images.make_image(tmp_path / "filled", 16, "-b", "1024", "-N", "32")
    requests = [f"mkdir d{number}" for number in range(8)]
    requests += [f"symlink d{number}/link target" for number in range(8)]
    script = image.with_suffix(".requests")
    script.write_text("\n".join(requests))
    subprocess.run(["debugfs", "-w", "-f", script, image], capture_output=True, check=True)
    return image


@pytest.mark.parametrize("group", [0, 1])
def test_a_group_whose_descriptor_fails_its_checksum_is_read_whole_and_reported(filled: Path, group: int) -> None:
    """As by a kernel that mounts it read-only: all is found, and a backup does not pass for a good one."""
    expected = paths(open_image(filled).map())
    surgeon = Surgeon(filled)
    surgeon.write(surgeon.group(group) + 0x12, b"\x01\x00")  # bg_flags: as if no inode had ever been used
    offset = surgeon.group(group)
    extent_map = open_image(filled).map()
    assert paths(extent_map) == expected
    text = "the checksum of its group's descriptor does not match: the whole table is read"
    first = group * inodes_per_group(filled) + 1
    assert (first, offset, text) in extent_map.problems


@pytest.mark.parametrize("form", ["flag", "count"])
def test_names_that_lead_to_inodes_counted_as_never_used_are_followed(filled: Path, form: str) -> None:
    """The descriptor's checksum is right, its count is not: without a second look every file there would be lost."""
    expected = paths(open_image(filled).map())
    surgeon = Surgeon(filled)
    per_group = inodes_per_group(filled)
    used = [n for n in (surgeon.number(f"/d{i}") for i in range(8)) if n > per_group]
    assert used, "no directory landed in the second group"
    if form == "flag":
        surgeon.write(surgeon.group(1) + 0x12, b"\x01\x00")
    else:
        surgeon.write(surgeon.group(1) + 0x12, bytes(2))
        surgeon.write(surgeon.group(1) + 0x1C, struct.pack("<H", per_group))  # bg_itable_unused_lo
    surgeon.fix_group(1)
    extent_map = open_image(filled).map()
    assert paths(extent_map) == expected
    text = "its group counts inodes from this one on as never used, but names lead to some"
    assert [problem[2] for problem in extent_map.problems] == [text]
    assert extent_map.problems[0][0] == per_group + 1
    again = open_image(filled)
    again.map()
    assert paths(again.map()) == expected, "a second map with the same reader knows nothing of the first"


def inodes_per_group(image: Path) -> int:
    """Inodes in a group."""
    return int(struct.unpack("<I", Surgeon(image).read(SUPERBLOCK + 0x28, 4))[0])


def test_another_file_system_behind_an_open_reader_is_stale(image: Path, tmp_path: Path) -> None:
    with BlockDevice(image) as device:
        filesystem = Ext4(device)
        image.write_bytes(images.make_image(tmp_path / "other", 16).read_bytes())
        with pytest.raises(errors.Stale, match="another file system"):
            filesystem.map()


def test_a_superblock_that_changes_while_it_is_mapped_is_stale(image: Path) -> None:
    """Somebody writes to the mirror: s_wtime goes up while the map is made."""
    done = threading.Event()

    def write_on() -> None:
        time = 1
        while not done.is_set():
            patch(image, 0x30, "<I", time)
            time += 1

    writer = threading.Thread(target=write_on)
    writer.start()
    seen = set()
    try:
        for _ in range(500):
            try:
                open_image(image).map()
            except errors.SplitreelError as error:  # a torn superblock is corrupt, and no less refused
                seen.add(type(error))
            if errors.Stale in seen:
                break
    finally:
        done.set()
        writer.join()
    assert errors.Stale in seen
