"""crash records every write to an ext image in use, and makes what a crash at any moment would have left of it.

qemu-storage-daemon shows the image over FUSE and logs writes and flushes, as dm-log-writes does; the kernel mounts a
loop device on that. A crash keeps what was flushed, and of what was written since then any part.

``python -m tests.crash [--count 200] [--seed 1] [NAME...]`` compares that many crashes with the kernel's recovery.
"""

import argparse
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from splitreel import errors
from splitreel.cli import inspect
from splitreel.core.device import BlockDevice
from splitreel.mapping import open_filesystem
from tests import oracle
from tests.busy import Work
from tests.support import need_programs, need_root, unmount

SECTOR = 512
LOG_MAGIC = 0x6A736677736872  # Documentation/admin-guide/device-mapper/log-writes.rst
FLAG_FLUSH, FLAG_FUA, FLAG_DISCARD = 1, 2, 4
MEGABYTE = 1 << 20
SETTLED = 3_000_000_000  # nanoseconds: recovery stamps what it changes with its own time


def need_crashes() -> None:
    """Skip or fail unless crashes can be recorded here."""
    need_root()
    need_programs("qemu-storage-daemon", "mke2fs", "losetup", "mount", "umount")


# Recording.


@dataclass(frozen=True)
class Write:
    """One request: where it wrote what, or a flush, with ``data`` None; and where the log ends behind it."""

    offset: int
    data: bytes | None
    log_end: int


@dataclass
class Recorded:
    """The image as it was before, and all requests since; for each of its devices."""

    images: list[Path]
    writes: list[list[Write]] = field(default_factory=list)
    moments: list[tuple[int, ...]] = field(default_factory=list)  # sizes of all logs after each change


def read_log(path: Path, size: int) -> list[Write]:
    """The requests in the first ``size`` bytes of a log."""
    found: list[Write] = []
    with open(path, "rb") as log:
        magic, _, _, sector = struct.unpack("<QQQI", log.read(28))
        assert (magic, sector) == (LOG_MAGIC, SECTOR)
        at = SECTOR
        while at + SECTOR <= size:
            log.seek(at)
            first, count, flags, _ = struct.unpack("<QQQQ", log.read(32))
            at += SECTOR
            if flags & FLAG_FLUSH:
                found.append(Write(0, None, at))
            elif flags & FLAG_DISCARD:
                found.append(Write(first * SECTOR, bytes(count * SECTOR), at))
            else:
                log.seek(at)
                at += count * SECTOR
                found.append(Write(first * SECTOR, log.read(count * SECTOR), at))
    return found


def wait_for(ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@contextmanager
def logged(image: Path) -> Iterator[tuple[str, Path]]:
    """A loop device on the image, and the log of what is written to it."""
    log, shown = image.with_suffix(".log"), image.with_suffix(".shown")
    log.write_bytes(b"")
    shown.touch()
    command = ["qemu-storage-daemon"]
    for node in (f"file,node-name=image,filename={image}", f"file,node-name=log,filename={log}"):
        command += ["--blockdev", f"driver={node}"]
    command += ["--blockdev", "driver=blklogwrites,node-name=logged,file=image,log=log,log-sector-size=512"]
    command += ["--export", f"fuse,id=shown,node-name=logged,mountpoint={shown},writable=on"]
    with subprocess.Popen(command) as daemon:
        try:
            wait_for(lambda: shown.stat().st_size > 0, "qemu-storage-daemon does not show its image")
            loop = subprocess.run(
                ["losetup", "--show", "-f", os.fspath(shown)], check=True, capture_output=True, text=True
            ).stdout.strip()
            try:
                yield loop, log
            finally:
                subprocess.run(["losetup", "-d", loop], check=True)
        finally:
            daemon.terminate()


@dataclass(frozen=True)
class Kind:
    """How an image is made and mounted."""

    name: str
    mkfs: tuple[str, ...]
    mount: str = ""
    megabytes: int = 48
    prepare: tuple[str, ...] = ()  # debugfs commands
    external: tuple[str, ...] = ()  # mke2fs's options for a journal device of its own


def format_image(kind: Kind, folder: Path) -> list[Path]:
    """A fresh image of a kind, and its journal's device if it has one of its own."""
    images = [folder / "image"]
    if kind.external:
        images.append(folder / "journal")
    for image in images:
        with open(image, "wb") as file:
            file.truncate((kind.megabytes if image.name == "image" else 8) * MEGABYTE)
    options = list(kind.mkfs)
    with ExitStack() as stack:
        if kind.external:
            subprocess.run(["mke2fs", "-q", "-F", *kind.external, images[1]], check=True, capture_output=True)
            loop = stack.enter_context(attached(images[1]))
            options += ["-J", f"device={loop}"]
        subprocess.run(["mke2fs", "-q", "-F", *options, images[0]], check=True, capture_output=True)
    for command in kind.prepare:
        subprocess.run(["debugfs", "-w", "-R", command, images[0]], check=True, capture_output=True)
    return images


@contextmanager
def attached(image: Path) -> Iterator[str]:
    """A writable loop device on an image."""
    done = subprocess.run(["losetup", "--show", "-f", image], check=True, capture_output=True, text=True)
    try:
        yield done.stdout.strip()
    finally:
        subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


def record(kind: Kind, folder: Path, seed: int, steps: int) -> Recorded:
    """Mount a fresh image of a kind, work on it, and keep every write; the end of the log is a crash, too."""
    images = format_image(kind, folder)
    before = [shutil.copy(image, image.with_suffix(".before")) for image in images]
    recorded = Recorded([Path(path) for path in before])
    point = folder / "point"
    point.mkdir(exist_ok=True)
    with ExitStack() as stack:
        devices = [stack.enter_context(logged(image)) for image in images]
        options = [kind.mount] if kind.mount else []
        options += [f"journal_path={devices[1][0]}"] if kind.external else []
        command = ["mount", "-t", "ext4", *(["-o", ",".join(options)] if options else [])]
        subprocess.run([*command, devices[0][0], point], check=True)
        try:
            logs = [log for _, log in devices]
            Work(point, random.Random(seed)).run(
                steps, lambda: recorded.moments.append(tuple(log.stat().st_size for log in logs))
            )
        finally:
            unmount(point)
    recorded.writes = [read_log(log, size) for log, size in zip(logs, recorded.moments[-1], strict=True)]
    return recorded


# Crashing.


def cuts(recorded: Recorded, rng: random.Random, earliest: float) -> list[int]:
    """How many requests of each device a crash lets through: any number, or of two devices as many as at one moment."""
    if len(recorded.writes) == 1:
        return [int(len(recorded.writes[0]) * rng.uniform(earliest, 1))]
    ends = recorded.moments[int(len(recorded.moments) * rng.uniform(earliest, 1))]
    return [sum(write.log_end <= end for write in writes) for writes, end in zip(recorded.writes, ends, strict=True)]


def crash(recorded: Recorded, rng: random.Random, folder: Path, earliest: float = 0.0) -> list[Path]:
    """The devices as one crash left them, at some time after the earliest share of the work."""
    images = []
    for number, cut in enumerate(cuts(recorded, rng, earliest)):
        image, writes = folder / f"crashed{number}", recorded.writes[number]
        shutil.copy(recorded.images[number], image)
        flushed = max((i for i in range(cut) if writes[i].data is None), default=-1)
        with open(image, "r+b") as file:
            for index in range(cut):
                data = writes[index].data
                if data is not None and (index < flushed or rng.random() < 0.7):
                    file.seek(writes[index].offset)
                    file.write(data)
        images.append(image)
    return images


# Comparing.


def content(extent_map: Any, index: int, device: BlockDevice) -> str:
    """The oracle's digest of a file's bytes, read where the map says."""
    result, at = oracle.Digest(), 0
    data = bytearray()
    for piece in inspect.file_pieces(extent_map, index, device):
        data += piece
        whole = len(data) // oracle.PIECE * oracle.PIECE
        result.update(at, bytes(data[:whole]))
        at += whole
        del data[:whole]
    result.update(at, bytes(data))
    return result.hexdigest()


def read_raw(images: Sequence[Path]) -> tuple[dict[bytes, oracle.Entry], list[str]]:
    """What splitreel says of an image, in the oracle's words, with contents; and what it calls damaged."""
    with ExitStack() as stack:
        device, *others = [stack.enter_context(BlockDevice(image)) for image in images]
        filesystem = open_filesystem(device, others=others)
        extent_map = filesystem.map()
        entries = oracle.map_entries(extent_map)
        for number, index in enumerate(numpy.asarray(extent_map.names)["file"]):
            entry = entries[extent_map.path_of(number)]
            if stat.S_ISREG(entry.mode) and entry.content is None:
                entry.content = content(extent_map, int(index), filesystem.device)
        return entries, [f"inode {inode}, offset {offset}: {text}" for inode, offset, text in extent_map.problems]


def recover(images: Sequence[Path]) -> dict[bytes, oracle.Entry] | None:
    """What the kernel recovers on copies of the images; None where it refuses."""
    copies = [Path(shutil.copy(image, image.with_suffix(".copy"))) for image in images]
    point = copies[0].with_suffix(".point")
    point.mkdir(exist_ok=True)
    with ExitStack() as stack:
        loops = [stack.enter_context(attached(copy)) for copy in copies]
        # not read-only: Linux 6.18 then refuses every fast commit that adds a name
        options = ["noatime", *(f"journal_path={loop}" for loop in loops[1:])]
        command = ["mount", "-t", "ext4", "-o", ",".join(options), loops[0], os.fspath(point)]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            return None
        try:
            return oracle.walk(point, with_content=True)
        finally:
            unmount(point)


def compare(images: Sequence[Path]) -> list[str]:
    """What differs between the kernel's recovery and ours, but for the traces of recovery: its own time, new blocks."""
    begun = time.time_ns() - SETTLED
    try:
        got, damaged = read_raw(images)
    except (errors.Corrupt, errors.Unsupported, errors.NeedsRecovery) as error:
        return [] if recover(images) is None else [f"refused: {error}"]
    want = recover(images)
    if want is None:
        return ["the kernel refuses it"]
    for path, entry in want.items():
        if entry.ctime_ns >= begun and path in got:
            entry.ctime_ns, entry.mtime_ns = got[path].ctime_ns, got[path].mtime_ns
            if stat.S_ISDIR(entry.mode):  # to which fast commits added names: the kernel may make a hash tree of it
                entry.size, entry.extents = got[path].size, None
    return damaged + oracle.differences(want, got)


def is_dirty(image: Path) -> bool:
    """Whether the journal of an image was not emptied."""
    with open(image, "rb") as file:
        file.seek(1024 + 0x60)
        return struct.unpack("<I", file.read(4))[0] & 4 != 0


KINDS = [
    Kind("defaults", ("-t", "ext4")),
    Kind("current", ("-t", "ext4", "-O", "metadata_csum_seed,orphan_file")),
    Kind("1k", ("-t", "ext4", "-b", "1024")),
    Kind("journal-data", ("-t", "ext4", "-b", "4096"), "data=journal"),
    Kind("journal-data-1k", ("-t", "ext4", "-b", "1024", "-O", "^64bit"), "data=journal"),
    Kind("writeback", ("-t", "ext4", "-O", "^metadata_csum,uninit_bg"), "data=writeback"),
    Kind("no-checksums", ("-t", "ext4", "-O", "^metadata_csum,^64bit,^uninit_bg"), "nodelalloc"),
    Kind("checksum-v1", ("-t", "ext4", "-O", "^metadata_csum,^64bit"), "journal_checksum"),
    Kind("async-commit", ("-t", "ext4"), "journal_async_commit,data=writeback"),
    Kind("ext3", ("-t", "ext3", "-b", "1024"), "data=ordered"),
    Kind("ext3-journal", ("-t", "ext3", "-b", "4096", "-I", "128"), "data=journal"),
    Kind("wraps", ("-t", "ext4", "-b", "1024", "-J", "size=1"), "data=journal"),
    Kind("fast-commit", ("-t", "ext4", "-b", "4096", "-O", "fast_commit")),
    Kind("fast-commit-1k", ("-t", "ext4", "-b", "1024", "-O", "fast_commit,metadata_csum_seed,orphan_file")),
    Kind(
        "fast-commit-plain",
        ("-t", "ext4", "-b", "4096", "-O", "fast_commit,^metadata_csum,^64bit,^dir_index,^uninit_bg"),
    ),
    Kind("external", ("-t", "ext4", "-b", "4096"), external=("-O", "journal_dev", "-b", "4096")),
    Kind("external-1k", ("-t", "ext4", "-b", "1024"), "data=journal", external=("-O", "journal_dev", "-b", "1024")),
]


def compare_many(kind: Kind, count: int, seed: int, steps: int) -> tuple[int, list[str]]:
    """Compare crashes of one kind: how many had an unclean journal, and what differed."""
    dirty, lines = 0, []
    with tempfile.TemporaryDirectory(prefix="splitreel-crash-") as made:
        folder = Path(made)
        rng = random.Random(f"{seed} {kind.name}")
        recorded = record(kind, folder, rng.randrange(2**32), steps)
        for number in range(count):
            images = crash(recorded, rng, folder)
            dirty += is_dirty(images[0])
            lines += [f"crash {number}: {line}" for line in compare(images)]
    return dirty, lines


def main(arguments: Sequence[str]) -> int:
    """Compare crashes of every kind, about the same number of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(kind.name for kind in KINDS))
    args = parser.parse_args(arguments)
    if unknown := set(args.names) - {kind.name for kind in KINDS}:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    kinds = [kind for kind in KINDS if not args.names or kind.name in args.names]
    all_dirty = all_failed = 0
    for number, kind in enumerate(kinds):
        count = args.count * (number + 1) // len(kinds) - args.count * number // len(kinds)
        dirty, lines = compare_many(kind, count, args.seed, args.steps)
        failed = len({line.partition(":")[0] for line in lines})
        print(*(f"  {line[:300]}" for line in lines[:10]), sep="\n", end="\n" if lines else "")
        print(f"{kind.name}: {count} crashes, {dirty} with an unclean journal, {failed} differ", flush=True)
        all_dirty, all_failed = all_dirty + dirty, all_failed + failed
    print(f"{args.count} crashes, {all_dirty} with an unclean journal, {all_failed} differ from the kernel's recovery")
    return 1 if all_failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
