"""fragmented makes seeded ext4 images through a loop mount: a fragmented database, or many small files. Needs root."""

import contextlib
import ctypes
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

CHUNK = 8192
NOISE = 1 << 20


@contextlib.contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """A loop device that reads its image directly, with the read-ahead of a plain SCSI disk (128 KiB)."""
    show = ["losetup", "-f", "--show", "--direct-io=on", os.fspath(image)]
    name = subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()
    try:
        subprocess.run(["blockdev", "--setra", "256", name], check=True)
        yield name
    finally:
        subprocess.run(["losetup", "-d", name], check=True)


@contextlib.contextmanager
def mounted(device: str, where: Path) -> Iterator[Path]:
    """The device's file system, mounted at ``where``."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "nodiscard", device, os.fspath(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", os.fspath(where)], check=True)


def make_image(image: Path, size: int, inodes: int) -> None:
    """An empty ext4 file system of ``size`` bytes in an image that was written all over.

    In a merely preallocated one dd would read what no file uses without any input or output below.
    """
    noise = random.Random(size).randbytes(NOISE)
    with image.open("wb") as out:
        for _ in range(size // NOISE):
            out.write(noise)
        os.fsync(out.fileno())
    options = ["-q", "-F", "-b", "4096", "-m", "0", "-N", str(inodes), "-E", "nodiscard,lazy_itable_init=0"]
    subprocess.run(["mkfs.ext4", *options, os.fspath(image)], check=True)


def punch(handle: int, offset: int, size: int) -> None:
    """Give a range of a file back to the file system: fallocate(2) with FALLOC_FL_PUNCH_HOLE and KEEP_SIZE."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(handle, 3, ctypes.c_long(offset), ctypes.c_long(size)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def fill_database(root: Path, total: int, seed: int, files: int = 6) -> None:
    """Files that grow in turn by up to 900 KB where holes of that size are free, then holes here and there in them."""
    rng = random.Random(seed)
    noise = rng.randbytes(NOISE * 2)
    spacer = os.open(root / "spacer", os.O_RDWR | os.O_CREAT, 0o600)
    room = os.statvfs(root).f_bavail * 4096 * 98 // 100
    os.posix_fallocate(spacer, 0, room)
    at = 0
    while at < room:
        hole = rng.randrange(4, 100) * CHUNK
        punch(spacer, at, hole)
        at += hole + rng.randrange(4, 100) * CHUNK
    lengths = [0] * files
    while sum(lengths) < total:
        if spacer >= 0 and sum(lengths) > total // 3:
            os.close(spacer)
            (root / "spacer").unlink()
            spacer = -1
        append(root / f"base{rng.randrange(files)}", lengths, noise, rng)
    for which in range(files):
        with (root / f"base{which}").open("r+b") as file:
            for _ in range(10):
                punch(file.fileno(), rng.randrange(lengths[which] // CHUNK - 64) * CHUNK, 64 * CHUNK)


def append(path: Path, lengths: list[int], noise: bytes, rng: random.Random) -> None:
    """Grow a file by one piece and close it: what ext4 had preallocated behind it is gone then."""
    which = int(path.name[-1])
    count = rng.randrange(1, 112) * CHUNK
    at = rng.randrange(NOISE)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(handle, noise[at : at + count], lengths[which])
    os.fdatasync(handle)
    os.close(handle)
    lengths[which] += count


def fill_small(root: Path, count: int, seed: int) -> None:
    """Files of up to 27 KB, 300 in a directory."""
    rng = random.Random(seed)
    noise = rng.randbytes(NOISE)
    for i in range(count):
        home = root / f"d{i // 300:04}"
        if i % 300 == 0:
            home.mkdir()
        at = rng.randrange(NOISE - 32768)
        (home / f"f{i:06}").write_bytes(noise[at : at + rng.randrange(27_000)])


def database_image(image: Path, total: int, seed: int = 1) -> Path:
    """An image with a fragmented database of about ``total`` bytes."""
    make_image(image, (total + total // 8 + (64 << 20)) // NOISE * NOISE, 1024)
    with loop_device(image) as device, mounted(device, image.with_suffix(".mnt")) as root:
        fill_database(root, total, seed)
    return image


def small_image(image: Path, count: int, seed: int = 1) -> Path:
    """An image with ``count`` small files."""
    make_image(image, (count * 16_400 + (96 << 20)) // NOISE * NOISE, count + 2000)
    with loop_device(image) as device, mounted(device, image.with_suffix(".mnt")) as root:
        fill_small(root, count, seed)
    return image
