"""parts makes partitioned images with the tools of util-linux and gdisk, and says where those see partitions."""

import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from splitreel import stack
from splitreel.core.device import BlockDevice
from splitreel.stack import partitions
from splitreel.stack.medium import given

MEGABYTE = 1 << 20
FILE = b"what an ext2 of a megabyte holds\n"


def blank(path: Path, size: int) -> Path:
    """A sparse image."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def partitioned(path: Path, script: str, size: int = 64 * MEGABYTE, sector_size: int = 512) -> Path:
    """An image with the table that an sfdisk script describes."""
    blank(path, size)
    path.with_suffix(".script").write_text(script)
    commands = f"I\n{path.with_suffix('.script')}\nw\n"
    run("fdisk", "--wipe", "never", "--sector-size", str(sector_size), path, given=commands)
    return path


def run(*command: str | Path, given: str = "") -> str:
    """A tool's output."""
    return subprocess.run(list(map(str, command)), input=given, check=True, capture_output=True, text=True).stdout


def seen_by_fdisk(path: Path, sector_size: int = 512) -> dict[int, tuple[int, int]]:
    """Number, start and size in bytes of each partition."""
    listed = run("fdisk", "--sector-size", str(sector_size), "--list", "-o", "Device,Start,Sectors", path)
    found = {}
    for line in listed.splitlines():
        if line.startswith(str(path)):
            device, start, sectors = line.split()
            number = int(device.removeprefix(str(path)).lstrip("p"))
            found[number] = (int(start) * sector_size, int(sectors) * sector_size)
    return found


def read(path: Path) -> tuple[partitions.Table | None, list[str]]:
    """The table as we read it, and the warnings."""
    warnings: list[str] = []
    with BlockDevice(path) as device:
        return partitions.read(given(device), warnings.append), warnings


def places(table: partitions.Table | None) -> dict[int, tuple[int, int]]:
    """Number, start and size in bytes of each partition."""
    assert table is not None
    return {entry.number: (entry.start, entry.size) for entry in table.partitions}


def content(paths: Sequence[Path], volume: str | None, *, raw: bool = True, warnings: list[str] | None = None) -> bytes:
    """All bytes of a volume."""
    with ExitStack() as held:
        devices = [held.enter_context(BlockDevice(path)) for path in paths]
        told = warnings if warnings is not None else []
        device = stack.open_volume(devices, volume, raw=raw, warn=told.append)
        return device.pread(0, device.size)


def put_ext2(path: Path, offset: int, tree: Path) -> bytes:
    """Put an ext2 of a megabyte with one file at an offset of an image; returns its bytes."""
    tree.mkdir(exist_ok=True)
    (tree / "file").write_bytes(FILE)
    made = blank(path.with_suffix(".ext2"), MEGABYTE)
    run("mke2fs", "-q", "-t", "ext2", "-d", tree, made)
    data = made.read_bytes()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return data
