"""The whole map of 100 000 files (names, attributes, extents) against find with stat on the mounted image, cold."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pairs import compare, drop_caches, say
from splitreel.mapping import map_device
from tests.support import need_programs, need_root

FILES = 100_000
FILES_IN_DIRECTORY = 200


def fill(top: Path, files: int) -> None:
    """``files`` small files, sizes 0..7 KiB, in directories of 200."""
    block = bytes(range(256)) * 28
    for start in range(0, files, FILES_IN_DIRECTORY):
        directory = top / f"d{start // FILES_IN_DIRECTORY:04d}"
        directory.mkdir()
        for number in range(start, min(files, start + FILES_IN_DIRECTORY)):
            fd = os.open(directory / f"file-{number:06d}", os.O_CREAT | os.O_WRONLY, 0o644)
            os.write(fd, block[: number % 7168])
            os.close(fd)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """An ext4 image with FILES files, mounted read-only: (image, mount point)."""
    need_root()
    need_programs("mkfs.ext4", "mount", "umount", "find")
    scratch = tmp_path_factory.mktemp("map")
    path, mount_point = scratch / "image", scratch / "mnt"
    mount_point.mkdir()
    with path.open("wb") as file:
        file.truncate(2 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-N", str(2 * FILES), path], check=True)
    subprocess.run(["mount", "-o", "loop", path, mount_point], check=True)
    try:
        fill(mount_point, FILES)
    finally:
        subprocess.run(["umount", mount_point], check=True)
    subprocess.run(["mount", "-o", "loop,ro", path, mount_point], check=True)
    try:
        yield path, mount_point
    finally:
        subprocess.run(["umount", mount_point], check=True)
        path.unlink()


def test_map_against_find(image: tuple[Path, Path], benchmark: BenchmarkFixture) -> None:
    """Prints the ratio; the map must hold every file and extent that it claims to have found so quickly."""
    path, mount_point = image

    def find() -> None:
        subprocess.run(["find", mount_point, "-printf", "%s %m %n\\n"], check=True, stdout=subprocess.DEVNULL)

    extents = map_device(path)
    ratio, ours, peer = compare(lambda: map_device(path), find)
    say("map of 100 000 files against find + stat, cold", ratio, ours, peer)
    benchmark.extra_info["times_find"] = ratio
    benchmark.pedantic(map_device, args=(path,), setup=drop_caches, rounds=3)

    assert extents.name_count == FILES + FILES // FILES_IN_DIRECTORY + 2  # the root and lost+found
    assert extents.extent_count >= FILES - FILES // 7168 - 1
