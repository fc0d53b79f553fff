"""Files mapped by direct and indirect blocks (ext2, ext3, old files in ext4): as the kernel maps them, or damaged."""

import random
import struct
import subprocess
import time
from pathlib import Path

import numpy
import pytest

from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests import oracle
from tests.ext4_surgery import Surgeon, debugfs

pytestmark = pytest.mark.root

FILE_DAMAGED = 1
LONGEST_S = 60.0
I_BLOCK = 0x28


@pytest.fixture(autouse=True)
def _parts() -> None:
    images.need_ext4()


def map_image(path: Path) -> ExtentMap:
    with BlockDevice(path) as device:
        return Ext4(device).map()


def boundaries(block_size: int) -> list[int]:
    """The first logical block that single, double and triple pointers reach, and the first beyond."""
    per_node = block_size // 4
    ends = [12]
    for level in (1, 2, 3):
        ends.append(ends[-1] + per_node**level)
    return ends


def fill_sparse(folder: Path, block_size: int) -> None:
    """Data on both sides of each boundary, alone and together; holes of every level; sizes round a block."""
    folder.mkdir()
    single, double, triple, beyond = boundaries(block_size)
    for boundary in (single, double, triple):
        for block in (boundary - 1, boundary):
            images.write_blocks(folder / f"at{block}", block_size, [block])
        images.write_blocks(folder / f"round{boundary}", block_size, range(boundary - 3, boundary + 3))
    images.write_blocks(folder / "everywhere", block_size, [0, 11, 12, double - 1, double, triple - 1, triple])
    images.write_blocks(folder / "hole at the end", block_size, [3, 20], (triple + 5) * block_size + 1)
    images.write_blocks(folder / "all hole", block_size, [], triple * block_size)
    images.write_alternate(folder / "alternate", 3 * block_size // 4, block_size)
    if block_size < 4096:  # beyond, the kernel's own limit comes first
        images.write_blocks(folder / "last", block_size, [beyond - 1])
    for size in (0, 1, block_size - 1, block_size, block_size + 1, 13 * block_size):
        (folder / f"size{size}").write_bytes(b"i" * size)
    (folder / "cut").write_bytes(b"c" * (20 * block_size))
    with open(folder / "cut", "r+b") as file:
        file.truncate(13 * block_size + 1)


@pytest.mark.parametrize(
    ("kind", "block_size", "options"),
    [
        ("ext2", 1024, ("-I", "128")),
        ("ext2", 1024, ("-r", "0")),
        ("ext2", 2048, ("-O", "none")),
        ("ext3", 2048, ()),
        ("ext3", 4096, ("-I", "256")),
        ("ext4", 4096, ("-O", "^extents,^64bit,^flex_bg")),
        ("ext4", 1024, ("-O", "^extents,^64bit,metadata_csum")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_every_file_is_mapped_as_the_kernel_maps_it(
    tmp_path: Path, kind: str, block_size: int, options: tuple[str, ...]
) -> None:
    """Attributes, names, symlinks of both kinds, and extents of files with holes at every level."""
    image = images.make_image(tmp_path / "image", 96, "-b", str(block_size), *options, kind=kind)
    with images.mounted(image) as point:
        images.fill(point)
        fill_sparse(point / "sparse", block_size)
    extent_map = map_image(image)
    with images.mounted(image, "ro") as point:
        truth = oracle.walk(point)

    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert extent_map.problems == []
    assert len(truth) > 1600


def test_extents_and_indirect_blocks_in_one_file_system(tmp_path: Path) -> None:
    """An ext3 that was given extents: old files keep their indirect blocks, new ones have trees."""
    image = images.make_image(tmp_path / "image", 64, "-b", "1024", kind="ext3")
    with images.mounted(image) as point:
        for number in range(20):
            images.write_alternate(point / f"old{number:02}", 600 + number, 1024)
    subprocess.run(["tune2fs", "-O", "extents", image], check=True, capture_output=True)
    with images.mounted(image) as point:
        for number in range(20):
            if number % 3 == 0:
                (point / f"old{number:02}").unlink()
            images.write_alternate(point / f"new{number:02}", 600 + number, 1024)
    extent_map = map_image(image)
    with images.mounted(image, "ro") as point:
        truth = oracle.walk(point)

    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert extent_map.problems == []
    flags = [debugfs(image, f"stat {name}") for name in ("old01", "new01")]
    assert ["ETB" in text for text in flags] == [False, True]


def test_a_journal_that_is_a_file_by_name(tmp_path: Path) -> None:
    """tune2fs -j puts .journal into a mounted ext2: a file like others to the kernel, and so to a map."""
    image = images.make_image(tmp_path / "image", 32, "-b", "1024", kind="ext2")
    with images.mounted(image) as point:
        found = subprocess.run(["findmnt", "-n", "-o", "SOURCE", point], capture_output=True, text=True, check=True)
        subprocess.run(["tune2fs", "-j", found.stdout.strip()], check=True, capture_output=True)
    extent_map = map_image(image)
    with images.mounted(image, "ro") as point:
        truth = oracle.walk(point)

    assert oracle.differences(truth, oracle.map_entries(extent_map)) == []
    assert extent_map.problems == []
    assert truth[b".journal"].size > 1 << 20


def test_a_short_symlink_with_a_block_of_its_own(tmp_path: Path) -> None:
    """As kernels before 2.0 made them: by i_blocks, not by its length, a short target stands in a block."""
    image = images.make_image(tmp_path / "image", 16, "-b", "1024", kind="ext2")
    with images.mounted(image) as point:
        (point / "link").symlink_to("t" * 100)
    surgeon = Surgeon(image)
    surgeon.write(surgeon.inode(surgeon.number("/link")) + 4, struct.pack("<I", 7))
    extent_map = map_image(image)
    with images.mounted(image, "ro") as point:
        assert (point / "link").readlink() == Path("t" * 7)

    assert extent_map.target(extent_map.find_file(surgeon.number("/link"))) == b"t" * 7
    assert extent_map.problems == []


@pytest.fixture
def damaged(tmp_path: Path) -> Surgeon:
    """An ext2 of 1 KiB blocks with a file of three levels, and another to be left alone."""
    image = images.make_image(tmp_path / "image", 16, "-b", "1024", kind="ext2")
    single, double, triple, _ = boundaries(1024)
    with images.mounted(image) as point:
        images.write_blocks(
            point / "file", 1024, [0, 1, *range(single, single + 9), double, triple], triple * 1024 + 9000
        )
        images.write_blocks(point / "other", 1024, [0, 1, *range(single, single + 9), double, triple])
    return Surgeon(image)


def pointers(surgeon: Surgeon, number: int) -> int:
    return surgeon.inode(number) + I_BLOCK


def pointer(surgeon: Surgeon, offset: int) -> int:
    return int(struct.unpack("<I", surgeon.read(offset, 4))[0])


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ("direct", 20_000, "a block pointer leads outside the file system"),
        ("direct", 0xFFFFFFFF, "a block pointer leads outside the file system"),
        ("direct", 1, "a block pointer leads outside the file system"),
        ("direct", 2, "a block pointer leads into the file system's own metadata"),
        ("direct", "inode table", "a block pointer leads into the file system's own metadata"),
        ("single", 16_384, "an indirect block lies outside the file system"),
        ("single", "inode table", "an indirect block lies in the file system's own metadata"),
        ("single", "itself", "an indirect block is used twice"),
        ("double", "other's", "an indirect block is used twice"),
        ("in single", 0x20202020, "a block pointer leads outside the file system"),
        ("in double", 0x20202020, "an indirect block lies outside the file system"),
        ("in double", "itself", "an indirect block is used twice"),
        ("in triple", "itself", "an indirect block is used twice"),
    ],
)
def test_a_bad_pointer_damages_its_file_alone(damaged: Surgeon, place: str, value: int | str, text: str) -> None:
    """Wherever it stands: a problem with inode and offset; every other path is as the kernel shows it."""
    with images.mounted(damaged.image, "ro") as point:
        truth = oracle.walk(point)
    number = damaged.number("/file")
    root = pointers(damaged, number)
    offset = {"direct": root + 4, "single": root + 48, "double": root + 52}.get(place)
    if offset is None:
        above = root + {"in single": 48, "in double": 52, "in triple": 56}[place]
        offset = pointer(damaged, above) * 1024 + (0 if place == "in triple" else 8)
    if value == "inode table":
        value = pointer(damaged, damaged.group(0) + 8) + 3
    elif value == "itself":
        value = pointer(damaged, root + {"single": 52, "in double": 52, "in triple": 56}[place])
    elif value == "other's":
        value = pointer(damaged, pointers(damaged, damaged.number("/other")) + 52)
    damaged.write(offset, struct.pack("<I", value))
    extent_map = map_image(damaged.image)
    entries = oracle.map_entries(extent_map)
    flags = numpy.asarray(extent_map.files)["flags"]
    hurt = {int(row["inode"]) for row in numpy.asarray(extent_map.files)[flags & FILE_DAMAGED != 0]}

    victims = hurt & {number, damaged.number("/other")}
    assert len(victims) == len(hurt) == 1
    assert [(inode, said) for inode, _, said in extent_map.problems] == [(victims.pop(), text)]
    kept = {path for path in truth if entries[path].inode not in hurt | {number}}
    assert oracle.differences({path: truth[path] for path in kept}, {path: entries[path] for path in kept}) == []


def test_any_pointers_end_in_a_map(damaged: Surgeon) -> None:
    """Random words in i_block and in blocks of pointers of all levels: a map in time, and no extent out of place."""
    chance = random.Random(11)
    number = damaged.number("/file")
    root = pointers(damaged, number)
    nodes = [root, *(pointer(damaged, root + 4 * i) * 1024 for i in (12, 13, 14))]
    nodes += [pointer(damaged, node) * 1024 for node in nodes[2:]]
    before = [damaged.read(node, 60) for node in nodes]
    words = [0, 1, 2, 16_383, 16_384, 0xFFFFFFFF, *(node // 1024 for node in nodes)]
    begun = time.monotonic()
    for _ in range(300):
        for _ in range(chance.randint(1, 4)):
            node = chance.choice(nodes)
            word = chance.choice([*words, chance.randrange(20_000)])
            damaged.write(node + 4 * chance.randrange(15), struct.pack("<I", word))
        extents = numpy.asarray(map_image(damaged.image).extents)
        assert extents["physical"].min() > 1
        assert (extents["physical"] + extents["count"]).max() <= 16_384
        for node, data in zip(nodes, before, strict=True):
            if chance.random() < 0.3:
                damaged.write(node, data)
    assert time.monotonic() - begun < LONGEST_S


@pytest.mark.parametrize("path", [(12,), (13,), (13, 0), (14,), (14, 0), (14, 0, 0)], ids=str)
def test_a_fingerprint_covers_every_indirect_block(damaged: Surgeon, path: tuple[int, ...]) -> None:
    """A pointer becomes another without any change to the inode: that file's fingerprint changes and no other."""
    before = map_image(damaged.image)
    number = damaged.number("/file")
    offset = pointers(damaged, number) + 4 * path[0]
    for index in path[1:]:
        offset = pointer(damaged, offset) * 1024 + 4 * index
    damaged.write(pointer(damaged, offset) * 1024 + 4 * 200, struct.pack("<I", 16_000))
    after = map_image(damaged.image)
    files, others = (numpy.asarray(made.files) for made in (before, after))
    changed = [
        int(old["inode"]) for old, new in zip(files, others, strict=True) if old["fingerprint"] != new["fingerprint"]
    ]

    assert changed == [number]
    assert after.problems == []


def test_pointers_behind_the_end_of_a_file_are_not_followed(damaged: Surgeon) -> None:
    """What a size cuts off, an old kernel may have left: it is neither data nor damage."""
    number = damaged.number("/file")
    damaged.write(damaged.inode(number) + 4, struct.pack("<I", 3000))
    damaged.write(pointers(damaged, number) + 48, struct.pack("<I", 0xFFFFFFFF))
    damaged.write(pointers(damaged, number) + 16, struct.pack("<I", 0xFFFFFFFF))
    extent_map = map_image(damaged.image)

    assert extent_map.problems == []
    assert oracle.map_entries(extent_map)[b"file"].size == 3000


def test_a_size_beyond_the_triple_pointers_is_damage(damaged: Surgeon) -> None:
    """With blocks of 1 KiB a file has 16 GiB at most; the last block within is still mapped."""
    number = damaged.number("/file")
    reach = boundaries(1024)[3] * 1024
    for size, problems in ((reach, 0), (reach + 1, 1)):
        damaged.write(damaged.inode(number) + 4, struct.pack("<I", size & 0xFFFFFFFF))
        damaged.write(damaged.inode(number) + 0x6C, struct.pack("<I", size >> 32))
        assert map_image(damaged.image).problem_count == problems
