"""What is read, what is refused and in what words, from the superblock of XFS alone."""

import re
import struct
import threading
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.xfs import Xfs
from tests.xfs_images import format_image
from tests.xfs_surgery import Surgeon

VERSION, FEATURES2, RO_COMPAT, INCOMPAT = 100, 200, 212, 216


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return format_image(tmp_path / "image", 32)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Of version 4."""
    return format_image(tmp_path / "old", 32, "-m", "crc=0")


def patch(image: Path, offset: int, form: str, value: int, *, fix: bool = True) -> None:
    """Set one field of the superblock."""
    surgeon = Surgeon(image)
    surgeon.write(offset, struct.pack(form, value))
    if fix and surgeon.crc:
        surgeon.fix_superblock()


def field(image: Path, offset: int, form: str) -> int:
    value: int = struct.unpack(form, Surgeon(image).read(offset, struct.calcsize(form)))[0]
    return value


def open_image(image: Path, *, is_live: bool = False) -> Xfs:
    return Xfs(BlockDevice(image), live=is_live)


def test_new_file_systems_open_without_warnings(image: Path, old: Path) -> None:
    filesystem = open_image(image)

    assert filesystem.warnings == []
    assert filesystem.block_size == 4096
    assert filesystem.features["incompat"] == ["ftype", "sparse", "bigtime"]
    assert filesystem.features["ro_compat"] == ["finobt", "reflink", "inobtcount"]
    assert filesystem.features["version"] == []
    assert {"attr2", "dirv2", "projid32"} < set(open_image(old).features["version"])
    assert open_image(image).map().file_count == open_image(old).map().file_count == 1


@pytest.mark.parametrize(
    ("bit", "words"),
    [
        (0x100, "incompat feature metadir (0x100)"),
        (0x200, "incompat feature zoned (0x200)"),
        (0x400, "incompat feature zone_gaps (0x400)"),
        (0x800, "incompat feature unknown (0x800)"),
        (0x80000000, "incompat feature unknown (0x80000000)"),
        (0x10, "needsrepair (0x10)"),
    ],
)
def test_unsupported_features_are_refused_by_name_and_bit(image: Path, bit: int, words: str) -> None:
    patch(image, INCOMPAT, ">I", field(image, INCOMPAT, ">I") | bit)
    with pytest.raises(errors.Unsupported) as caught:
        open_image(image)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "form", "bits", "words"),
    [
        (VERSION, ">H", 0x0200, "version 4 feature shared (0x200)"),
        (FEATURES2, ">I", 0x10, "version 4 feature parent (0x100000)"),
        (FEATURES2, ">I", 0x400, "version 4 feature unknown (0x4000000)"),
        (FEATURES2, ">I", 0x10000, "unknown bits in sb_features2"),
    ],
)
def test_unsupported_bits_of_version_4_are_refused(old: Path, offset: int, form: str, bits: int, words: str) -> None:
    patch(old, offset, form, field(old, offset, form) | bits)
    with pytest.raises(errors.Unsupported) as caught:
        open_image(old)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("version", "words"), [(1, "version 1 to 3"), (3, "version 1 to 3"), (6, "above 5"), (0x9004, "directories of ver")]
)
def test_other_versions_are_refused(old: Path, version: int, words: str) -> None:
    patch(old, VERSION, ">H", version)
    with pytest.raises(errors.Unsupported, match=words):
        open_image(old)


def refusals() -> dict[str, str]:
    """What DESIGN.md says of refused features."""
    text = (Path(__file__).resolve().parents[2] / "DESIGN.md").read_text()
    return dict(
        re.findall(r"^\| XFS ((?:version|features2|ro_compat|incompat)[^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    )


def expected(word: str, bit: int, said: str) -> str:
    """The table's row of a bit, where something was said of it at all."""
    table = refusals()
    if f"{word} 0x{bit:x}" in table or not said:
        return table.get(f"{word} 0x{bit:x}", "")
    if word == "features2":
        return table["features2, high half"] if bit >> 16 else table[f"{word}, any other"].replace("…", hex(bit << 16))
    return table[f"{word}, any other"].replace("…", hex(bit))


@pytest.mark.parametrize(
    ("word", "offset", "form", "is_old"),
    [
        ("incompat", INCOMPAT, ">I", False),
        ("ro_compat", RO_COMPAT, ">I", False),
        ("version", VERSION, ">H", True),
        ("features2", FEATURES2, ">I", True),
    ],
)
def test_the_table_of_refused_features_is_what_is_refused(
    image: Path, old: Path, word: str, offset: int, form: str, is_old: bool
) -> None:
    """Bit by bit: what is refused stands in DESIGN.md with its message, and nothing else does."""
    path = old if is_old else image
    before = field(path, offset, form)
    first = 4 if word == "version" else 0  # the low bits are the version itself
    for bit in (1 << number for number in range(first, 8 * struct.calcsize(form))):
        patch(path, offset, form, before | bit)
        said = ""
        try:
            open_image(path)
        except errors.Unsupported as error:
            said = str(error)
        except errors.SplitreelError:  # read, but this image has not what goes with it
            said = ""
        row = expected(word, bit, said)
        assert row in said and bool(row) == bool(said), hex(bit)


def test_unknown_ro_compat_and_a_realtime_section_are_warned_of(image: Path) -> None:
    patch(image, RO_COMPAT, ">I", field(image, RO_COMPAT, ">I") | 0x4000)
    patch(image, 16, ">Q", 5000)
    filesystem = open_image(image)

    assert [("0x4000" in text, "realtime" in text) for text in filesystem.warnings] == [(True, False), (False, True)]
    assert filesystem.map().file_count == 1


@pytest.mark.parametrize(
    ("offset", "form", "value", "words"),
    [
        (4, ">I", 0, "sb_blocksize"),
        (4, ">I", 8192, "sb_blocksize"),
        (120, "B", 17, "sb_blocksize"),
        (8, ">Q", 0, "sb_dblocks"),
        (8, ">Q", 1, "sb_dblocks"),
        (8, ">Q", 2**63, "sb_dblocks"),
        (56, ">Q", 0, "sb_rootino"),
        (56, ">Q", 2**40, "sb_rootino"),
        (56, ">Q", 2**64 - 1, "sb_rootino"),
        (84, ">I", 0, "sb_agblocks"),
        (84, ">I", 64, "sb_agblocks"),
        (84, ">I", 0xFFFFFFFF, "sb_agblocks"),
        (88, ">I", 0, "sb_dblocks"),
        (88, ">I", 0xFFFFFFFF, "sb_dblocks"),
        (102, ">H", 256, "sb_sectsize"),
        (102, ">H", 0xFFFF, "sb_sectsize"),
        (104, ">H", 0, "sb_inodesize"),
        (104, ">H", 256, "sb_inodesize"),
        (104, ">H", 4096, "sb_inodesize"),
        (106, ">H", 3, "sb_inopblock"),
        (121, "B", 16, "sb_sectsize"),
        (122, "B", 40, "sb_inodesize"),
        (123, "B", 9, "sb_inopblock"),
        (124, "B", 33, "sb_agblklog"),
        (126, "B", 1, "sb_inprogress"),
        (192, "B", 5, "sb_dirblklog"),
        (192, "B", 255, "sb_dirblklog"),
        (48, ">Q", 2**50, "the log"),
        (96, ">I", 0, "the log"),
        (96, ">I", 0xFFFFFFFF, "the log"),
    ],
)
def test_a_superblock_out_of_bounds_is_refused(image: Path, offset: int, form: str, value: int, words: str) -> None:
    patch(image, offset, form, value)
    with pytest.raises(errors.Corrupt, match=words):
        open_image(image)


def test_sectors_larger_than_blocks_are_refused(old: Path) -> None:
    """Headers of groups are counted in sectors and stand in whole blocks."""
    patch(old, 102, ">H", 8192)
    patch(old, 121, "B", 13)
    with pytest.raises(errors.Corrupt, match="sb_sectsize is above sb_blocksize"):
        open_image(old)


def test_a_superblock_with_a_wrong_checksum_is_refused(image: Path) -> None:
    patch(image, 108, ">I", 0x58585858, fix=False)
    with pytest.raises(errors.Corrupt, match="checksum does not match"):
        open_image(image)


def test_a_device_shorter_than_its_file_system_is_refused(image: Path) -> None:
    with open(image, "r+b") as file:
        file.truncate(20 << 20)
    with pytest.raises(errors.DeviceError, match="shorter than the file system"):
        open_image(image)


def test_a_device_without_a_superblock_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(1 << 20))
    with pytest.raises(errors.Corrupt, match="no XFS file system"):
        open_image(empty)


def test_another_file_system_behind_an_open_reader_is_stale(image: Path, tmp_path: Path) -> None:
    with BlockDevice(image) as device:
        filesystem = Xfs(device)
        image.write_bytes(format_image(tmp_path / "other", 32).read_bytes())
        with pytest.raises(errors.Stale, match="another file system"):
            filesystem.map()


def test_a_superblock_that_changes_while_it_is_mapped_is_stale(old: Path) -> None:
    """Somebody writes to the mirror: sb_fdblocks goes up while the map is made; of a live device that is expected."""
    done = threading.Event()

    def write_on() -> None:
        blocks = 1
        while not done.is_set():
            patch(old, 144, ">Q", blocks)
            blocks += 1

    writer = threading.Thread(target=write_on)
    writer.start()
    seen = set()
    try:
        for _ in range(500):
            assert open_image(old, is_live=True).map().file_count == 1
            try:
                open_image(old).map()
            except errors.Stale as error:
                seen.add(type(error))
                break
    finally:
        done.set()
        writer.join()
    assert seen == {errors.Stale}
