"""build makes an image of the table, fills it through the kernel, and asks the kernel what it holds."""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests import ext4_images, oracle
from tests.images import fillers
from tests.images.table import SMALL_XFS, Image
from tests.support import need_programs, need_root

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Made:
    """An image, and every path that the kernel shows in it when mounted read-only."""

    image: Image
    path: Path
    truth: dict[bytes, oracle.Entry]


def format_image(image: Image, path: Path) -> None:
    """A new sparse file with the image's file system, still empty."""
    with open(path, "wb") as file:
        file.truncate(image.megabytes * MEGABYTE)
    environment = {**os.environ, **image.environment}
    command = [*image.command, os.fspath(path)]
    subprocess.run(command, check=True, capture_output=True, env=environment)


def fill(image: Image, point: Path) -> None:
    for filler in image.fillers:
        filler(point, image.block_size)


def run(commands: tuple[str, ...], path: Path) -> None:
    """Each command with the image's path behind it."""
    for command in commands:
        done = subprocess.run([*command.split(), os.fspath(path)], capture_output=True, text=True, check=False)
        # e2fsck says 1 when it changed something
        assert done.returncode <= (command.startswith("e2fsck")), f"{command}: {done.stderr}"


def make(image: Image, folder: Path) -> Made:
    """Make and fill the image in a folder of its own, then look at it mounted read-only without replay."""
    need_root()
    need_programs("mount", "umount", image.command[0])
    folder.mkdir(exist_ok=True)
    path = folder / "image"
    format_image(image, path)
    with ext4_images.mounted(path, image.mount) as point:
        fill(image, point)
    if image.then:
        run(image.then, path)
        with ext4_images.mounted(path, image.mount) as point:
            fillers.few(point, image.block_size)
    with ext4_images.mounted(path, image.read_only) as point:
        truth = oracle.walk(point, with_content=True)
    run(image.afterwards, path)
    return Made(image, path, truth)


def make_frozen(image: Image, folder: Path) -> Made:
    """The same as a split mirror has it: copied while frozen, with files that are open and have no name."""
    need_root()
    need_programs("mount", "umount", image.command[0])
    folder.mkdir(exist_ok=True)
    path = folder / "image"
    format_image(image, path)
    with ext4_images.mounted(path, f"{image.mount},noatime".lstrip(",")) as point, ExitStack() as open_files:
        fill(image, point)
        for number in range(20):
            unnamed = point / f"unnamed{number}"
            unnamed.write_bytes(b"u" * 10_000)
            open_files.enter_context(open(unnamed, "rb"))
            unnamed.unlink()
        with ext4_images.frozen(point):
            copy = ext4_images.copy_sparse(path, folder / "copy")
            truth = oracle.walk(point, with_content=True)
    return Made(image, copy, truth)


@contextmanager
def attached(path: Path) -> Iterator[str]:
    """A loop device over a file, for as long as the block runs."""
    made = subprocess.run(["losetup", "-f", "--show", os.fspath(path)], check=True, capture_output=True, text=True)
    try:
        yield made.stdout.strip()
    finally:
        subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


def make_ext4_and_journal(folder: Path, fill_image: Callable[[Path], None]) -> tuple[Made, Path]:
    """An ext4 image frozen in use, and the other device that its journal is on."""
    image = Image("ext4_external_journal", ("mke2fs",), 4096, ())
    format_image(
        replace(image, megabytes=16, command=("mke2fs", "-q", "-O", "journal_dev", "-b", "4096")), folder / "j"
    )
    with attached(folder / "j") as journal:
        format_image(
            replace(image, command=("mke2fs", "-q", "-t", "ext4", "-J", f"device={journal}")), folder / "image"
        )
        return copy_both(image, folder, folder / "j", f"journal_path={journal}", fill_image)


def make_xfs_and_log(folder: Path, fill_image: Callable[[Path], None]) -> tuple[Made, Path]:
    """An XFS image frozen in use, and the other device that its log is on."""
    with open(folder / "log", "wb") as file:
        file.truncate(32 * MEGABYTE)
    with attached(folder / "log") as log:
        command = ("mkfs.xfs", "-q", "-f", "-l", f"logdev={log},size=16m")
        image = Image("xfs_external_log", command, 4096, (), megabytes=200, environment=SMALL_XFS)
        format_image(image, folder / "image")
        return copy_both(image, folder, folder / "log", f"logdev={log}", fill_image)


def copy_both(
    image: Image, folder: Path, other: Path, options: str, fill_image: Callable[[Path], None]
) -> tuple[Made, Path]:
    """Copies of both devices made during one freeze, and what the kernel showed then."""
    with ext4_images.mounted(folder / "image", f"{options},noatime") as point:
        fill_image(point)
        with ext4_images.frozen(point):
            copies = [ext4_images.copy_sparse(path, path.with_suffix(".copy")) for path in (folder / "image", other)]
            truth = oracle.walk(point, with_content=True)
    return Made(image, copies[0], truth), copies[1]


def make_unmounted(image: Image, source: Path, folder: Path) -> Made:
    """The same by mke2fs -d, from what the kernel shows of a folder; what mke2fs does not take over is left out."""
    need_programs("mke2fs")
    path = folder / "image"
    format_image(replace(image, command=(*image.command, "-d", os.fspath(source))), path)
    return Made(image, path, taken_over(oracle.walk(source, with_content=True)))


def taken_over(entries: dict[bytes, oracle.Entry]) -> dict[bytes, oracle.Entry]:
    """What mke2fs -d copies."""
    made_itself = (b"", b"lost+found")
    return {path: _taken_over(entry) for path, entry in entries.items() if path not in made_itself}


def _taken_over(entry: oracle.Entry) -> oracle.Entry:
    # No inode numbers, no places, times in 32 bits of seconds.
    seconds = ((entry.mtime_ns // 10**9 + 2**31) % 2**32 - 2**31) * 10**9
    size = 0 if stat.S_ISDIR(entry.mode) else entry.size
    links = 0 if stat.S_ISDIR(entry.mode) else entry.link_count
    return replace(
        entry, inode=0, size=size, link_count=links, mtime_ns=seconds, ctime_ns=0, generation=None, extents=None
    )
