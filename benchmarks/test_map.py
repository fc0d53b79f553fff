"""The map of 500 000 files against find with stat, e2fsck and a bare read of the inode tables, cold; and XFS's."""

import mmap
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pairs import compare, drop_caches, say
from splitreel.core.device import BlockDevice
from splitreel.core.ext4 import Ext4
from splitreel.mapping import map_device
from tests.support import keep_mounts_private, need_programs, need_root

FILES = 500_000
FILES_IN_DIRECTORY = 1000
PIECE = 8 << 20  # bytes: one read of an inode table
MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-N", str(2 * FILES), "-E", "lazy_itable_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
MAP_BUDGET = (24, 116)  # bytes an extent, bytes a file with a name of 11 bytes


def fill(top: Path, files: int) -> None:
    """``files`` small files, sizes 0..4 KiB, in directories of a thousand."""
    block = bytes(range(256)) * 16
    for start in range(0, files, FILES_IN_DIRECTORY):
        directory = top / f"d{start // FILES_IN_DIRECTORY:04d}"
        directory.mkdir()
        place = os.open(directory, os.O_RDONLY)
        for number in range(start, min(files, start + FILES_IN_DIRECTORY)):
            fd = os.open(f"file-{number:06d}", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=place)
            os.write(fd, block[: number * 7919 % 4096])
            os.close(fd)
        os.close(place)


@contextmanager
def mounted(image: Path, options: str) -> Iterator[Path]:
    """The image, mounted beside itself."""
    point = image.with_suffix(".mnt")
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", f"loop{options}", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def make(kind: str, folder: Path) -> Path:
    """An image of FILES files, unmounted."""
    need_root()
    keep_mounts_private()  # or a process that copies its namespace meanwhile keeps the image mounted
    need_programs(MKFS[kind][0], "mount", "umount", "find", "e2fsck", "dumpe2fs")
    image = folder / kind
    with image.open("wb") as file:
        file.truncate(8 << 30)
    subprocess.run([*MKFS[kind], image], check=True)
    with mounted(image, "") as point:
        fill(point, FILES)
    return image


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ext4 image."""
    path = make("ext4", tmp_path_factory.mktemp("map"))
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same files on XFS."""
    path = make("xfs", tmp_path_factory.mktemp("map"))
    yield path
    path.unlink()


def inode_tables(image: Path) -> list[tuple[int, int]]:
    """(offset, size) in bytes of what is used of the inode tables, adjacent ones joined; by dumpe2fs."""
    told = subprocess.run(["dumpe2fs", image], capture_output=True, text=True, check=True).stdout
    number = {key: int(value) for key, value in re.findall(r"^(.*?):\s+(\d+)$", told, re.MULTILINE)}
    block, inode, in_group = number["Block size"], number["Inode size"], number["Inodes per group"]
    runs: list[tuple[int, int]] = []
    for group in re.split(r"\nGroup (?=\d)", told)[1:]:
        table = re.search(r"Inode table at (\d+)", group)
        unused = re.search(r"(\d+) unused inodes", group)
        used = in_group - (int(unused[1]) if unused else 0)
        size = -(-used * inode // block) * block
        assert table
        start = int(table[1]) * block
        if runs and sum(runs[-1]) == start:
            runs[-1] = (runs[-1][0], runs[-1][1] + size)
        elif size:
            runs.append((start, size))
    return runs


def read_bare(image: Path, runs: list[tuple[int, int]]) -> None:
    """O_DIRECT, one request after the other: the least that a map can take with reads this large."""
    memory = mmap.mmap(-1, PIECE)
    fd = os.open(image, os.O_RDONLY | os.O_DIRECT)
    for start, size in runs:
        for at in range(start, start + size, PIECE):
            os.preadv(fd, [memoryview(memory)[: min(PIECE, start + size - at)]], at)
    os.close(fd)


def test_map_against_find(ext4: Path, benchmark: BenchmarkFixture) -> None:
    """Prints the ratio; the map must hold every file and extent that it claims to have found so quickly."""

    def find() -> None:
        with mounted(ext4, ",ro") as point:
            drop_caches()
            subprocess.run(["find", point, "-printf", "%s %m %n\\n"], check=True, stdout=subprocess.DEVNULL)

    extents = map_device(ext4)
    ratio, ours, peer = compare(lambda: map_device(ext4), find, rounds=3)
    say("map of 500 000 files against find + stat, cold", ratio, ours, peer)
    benchmark.extra_info["times_find"] = ratio
    benchmark.pedantic(map_device, args=(ext4,), setup=drop_caches, rounds=3)

    assert extents.name_count == FILES + FILES // FILES_IN_DIRECTORY + 2  # the root and lost+found
    assert extents.extent_count >= FILES - FILES // 4096 - 1


def test_map_against_e2fsck(ext4: Path) -> None:
    """The checker reads the same metadata, and says in the end that they are right."""

    def check() -> None:
        subprocess.run(["e2fsck", "-fn", ext4], check=True, capture_output=True)

    say("map of 500 000 files against e2fsck -fn, cold", *compare(lambda: map_device(ext4), check))


def test_inodes_against_a_bare_read_of_their_tables(ext4: Path) -> None:
    """Inodes and extents, without names: the pass that reads what the bare read reads."""
    runs = inode_tables(ext4)
    ratios = []
    with BlockDevice(ext4) as device:
        for _ in range(7):
            begun = time.perf_counter()
            read_bare(ext4, runs)
            bare = time.perf_counter() - begun
            reader = Ext4(device)
            reader.map()
            seconds = reader.statistics["seconds"]
            ratios.append((seconds["groups"] + seconds["inodes"]) / bare)
    print(f"\ninodes and extents of 500 000 files: {sorted(ratios)[3]:.2f} x a bare O_DIRECT read of the inode tables")

    assert sum(size for _, size in runs) > FILES * 128


def test_xfs_against_ext4(ext4: Path, xfs: Path) -> None:
    """The same files; XFS's inodes are twice as large."""
    ratio, ours, peer = compare(lambda: map_device(xfs), lambda: map_device(ext4))
    say("map of 500 000 files on ext4 against XFS, cold", ratio, ours, peer)
    print(f"XFS takes {1 / ratio:.2f} x as long as ext4")

    assert map_device(xfs).name_count == map_device(ext4).name_count - 1  # lost+found


def test_bytes_of_a_map(ext4: Path, tmp_path: Path) -> None:
    """A saved map is its columns in memory and a page of headers."""
    extents = map_device(ext4)
    extents.save(tmp_path / "map")
    an_extent, a_file = MAP_BUDGET
    size = (tmp_path / "map").stat().st_size
    print(f"\n{size} bytes for {extents.file_count} files with names and {extents.extent_count} extents")

    assert size <= an_extent * extents.extent_count + a_file * extents.file_count + (1 << 16)
