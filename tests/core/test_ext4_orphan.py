"""Truncations that a crash cut short: the extents that are read equal those that the kernel leaves, all of them."""

import os
import struct
import subprocess
from pathlib import Path

import numpy
import pytest

from splitreel.core.device import BlockDevice
from splitreel.mapping import open_filesystem
from tests import crash, oracle
from tests import ext4_images as images
from tests.ext4_surgery import Surgeon, debugfs, raw_crc

pytestmark = pytest.mark.root

NEEDS_RECOVERY = 4
ORPHAN_PRESENT = 0x10000
ORPHAN_MAGIC = 0x0B10CA04
EVERYTHING = 1 << 62
NO_EXTENTS = "^extents,^64bit,^metadata_csum,^flex_bg"
KINDS = {
    "extents": ("-b", "4096"),
    "extents-1k": ("-b", "1024"),
    "plain": ("-b", "1024", "-O", "^metadata_csum,^64bit"),
    "indirect": ("-b", "1024", "-O", NO_EXTENTS),
    "orphan-file": ("-b", "1024", "-O", "orphan_file"),
}


@pytest.fixture(autouse=True)
def _parts() -> None:
    images.need_ext4()


def filled(path: Path, options: tuple[str, ...]) -> Path:
    """An image with files of one extent, of some, and of more than a node holds; one of space beyond its end."""
    image = images.make_image(path, 64, *options)
    with images.mounted(image) as point:
        (point / "short").write_bytes(b"s" * 300_000)
        for name, blocks in (("some", 40), ("many", 1600)):
            images.write_alternate(point / name, blocks, 4096)
        if NO_EXTENTS not in options:
            with open(point / "beyond", "wb") as file:
                images.fallocate(file.fileno(), images.FALLOC_KEEP_SIZE, 0, 500_000)
        (point / "other").write_bytes(b"o" * 100_000)
    return image


def set_features(image: Path, name: str, offset: int, bit: int) -> None:
    """A feature bit, with the superblock's checksum made right."""
    with open(image, "rb") as file:
        file.seek(1024 + offset)
        value = struct.unpack("<I", file.read(4))[0] | bit
    subprocess.run(["debugfs", "-w", "-R", f"ssv {name} {value}", image], check=True, capture_output=True)


def chain(image: Path, numbers: list[int]) -> None:
    """The list of orphans: the superblock names the first, the time of deletion of each the next."""
    surgeon = Surgeon(image)
    for number, following in zip(numbers, [*numbers[1:], 0], strict=True):
        surgeon.write(surgeon.inode(number) + 0x14, struct.pack("<I", following))
        if b"metadata_csum" in subprocess.run(["dumpe2fs", "-h", image], capture_output=True, check=True).stdout:
            surgeon.fix_inode(number)
    subprocess.run(["debugfs", "-w", "-R", f"ssv last_orphan {numbers[0]}", image], check=True, capture_output=True)


def list_in_file(image: Path, numbers: list[int]) -> None:
    """The same in the orphan file, some words apart."""
    with open(image, "rb") as file:
        file.seek(1024 + 0x280)
        inode = struct.unpack("<I", file.read(4))[0]
    surgeon = Surgeon(image)
    place = surgeon.block(inode, 1)
    words = bytearray(surgeon.block_size - 8)
    for index, number in enumerate(numbers):
        struct.pack_into("<I", words, 40 * index, number)
    crc = raw_crc(surgeon.inode_seed(inode), struct.pack("<Q", place // surgeon.block_size) + words)
    surgeon.write(place, bytes(words) + struct.pack("<II", ORPHAN_MAGIC, crc))
    set_features(image, "feature_ro_compat", 0x64, ORPHAN_PRESENT)


def shorten(image: Path, sizes: dict[str, int]) -> None:
    """New sizes that nothing has followed yet."""
    for name, size in sizes.items():
        subprocess.run(["debugfs", "-w", "-R", f"sif /{name} size {size}", image], check=True, capture_output=True)
    set_features(image, "feature_incompat", 0x60, NEEDS_RECOVERY)


def kernel_extents(image: Path) -> dict[str, list[oracle.Extent] | None]:
    with crash.attached(image) as loop:
        point = image.with_suffix(".mnt")
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "ext4", loop, point], check=True)
        found = {}
        try:
            for path in sorted(point.iterdir()):
                descriptor = os.open(path, os.O_RDONLY)
                found[path.name] = oracle.fiemap(descriptor, EVERYTHING)
                os.close(descriptor)
        finally:
            images.unmount(point)
    return found


def our_extents(image: Path) -> dict[str, list[oracle.Extent]]:
    found = {}
    with BlockDevice(image) as device:
        extent_map = open_filesystem(device).map()
        assert extent_map.problems == []
        block = extent_map.block_size
        files, rows = numpy.asarray(extent_map.files), numpy.asarray(extent_map.extents)
        for index, name in enumerate(numpy.asarray(extent_map.names)):
            file = files[int(name["file"])]
            some = rows[int(file["first_extent"]) :][: int(file["extent_count"])].tolist()
            extents = [(a * block, b * block, count * block, flags) for a, b, count, flags in some]
            found[os.fsdecode(extent_map.path_of(index))] = oracle.merged(extents, EVERYTHING)
    del found[""]
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 20_000, 60_000, 3_000_000])
def test_what_lies_behind_the_end_is_cut(tmp_path: Path, kind: str, size: int) -> None:
    """Also in the middle of a tree, or of a block of pointers; what is not listed keeps all it has."""
    image = filled(tmp_path / "image", KINDS[kind])
    names = [name for name in ("short", "some", "many", "beyond") if not (kind == "indirect" and name == "beyond")]
    numbers = [Surgeon(image).number(f"/{name}") for name in names]
    shorten(image, {name: min(size, 0 if name == "beyond" else size) for name in names})
    (list_in_file if kind == "orphan-file" else chain)(image, numbers)
    before = image.read_bytes()
    found = our_extents(image)

    assert image.read_bytes() == before
    assert found == kernel_extents(image)


def test_orphans_of_a_file_system_with_errors_stay(tmp_path: Path) -> None:
    """The kernel leaves them to e2fsck then, and so they are read as they are."""
    image = filled(tmp_path / "image", KINDS["extents"])
    shorten(image, {"many": 20_000})
    chain(image, [Surgeon(image).number("/many")])
    subprocess.run(["debugfs", "-w", "-R", "ssv state 2", image], check=True, capture_output=True)
    before = len(our_extents(image)["many"])

    assert before > 500
    assert our_extents(image) == kernel_extents(image)


def test_a_chain_that_goes_round_ends(tmp_path: Path) -> None:
    """Each file is taken once; a number that no inode has ends the chain."""
    image = filled(tmp_path / "image", KINDS["extents"])
    surgeon = Surgeon(image)
    numbers = [surgeon.number("/some"), surgeon.number("/short")]
    shorten(image, {"some": 10_000, "short": 10_000})
    chain(image, numbers)
    surgeon.write(surgeon.inode(numbers[1]) + 0x14, struct.pack("<I", numbers[0]))
    surgeon.fix_inode(numbers[1])

    assert all(extent[0] < 12_288 for name in ("some", "short") for extent in our_extents(image)[name])
    assert debugfs(image, "stat /some")
