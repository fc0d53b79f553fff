"""writer is a process that stamps files in a directory of its own until its standard input closes. It judges nothing.

Before each operation it notes it in its log, which is on another file system, and after the fsync that it was
acknowledged. The log goes to the page cache only: what is proved is what becomes of the volume, not of this host.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import random
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splitreel.prove import styles
from splitreel.prove.operations import FILES, LOG, TEMPORARY, Kind, Operation, folder_of
from splitreel.prove.stamp import SECTOR, Owner, encode

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE = 0x01, 0x02, 0x10  # linux/falloc.h
DIRECT_BYTES = 64 << 10
LIBC = ctypes.CDLL(None, use_errno=True)


class Writer:
    """One writer's files and log. ``perform`` does a group of operations and notes them."""

    def __init__(self, folders: Sequence[Path], log: Path, run: int, writer: int) -> None:
        """``folders``, one for each volume, are made; ``log`` must lie on a file system that is not frozen."""
        self.number = 0
        self._run, self._writer = run, writer
        self._folders: list[int] = []
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            self._folders.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._files: dict[int, int] = {}
        self._aligned = mmap.mmap(-1, DIRECT_BYTES)

    def close(self) -> None:
        """Close every file."""
        for descriptor in (*self._files.values(), *self._folders, self._log):
            os.close(descriptor)

    def perform(self, group: styles.Group) -> None:
        """Do it, synchronise, note that it was acknowledged."""
        first = self.number + 1
        for operation in group:
            self._begin(operation, first)
        self._synchronise(group[-1])
        now = time.monotonic_ns().to_bytes(8, "little", signed=True)
        for number in range(first, self.number + 1):
            os.pwrite(self._log, now, number * LOG.itemsize - len(now))

    def _begin(self, operation: Operation, group: int) -> None:
        self.number += 1
        begun = time.monotonic_ns()
        stamps = b""
        if operation.kind in (Kind.WRITE, Kind.REPLACE):
            owner = Owner(self._run, self._writer, operation.file)
            stamps = encode(owner, operation.first, operation.count, self.number, begun).tobytes()
        record = np.array([(operation.kind, operation.file, operation.first, operation.count, group, begun, 0)], LOG)
        os.pwrite(self._log, record.tobytes(), (self.number - 1) * LOG.itemsize)
        if operation.kind == Kind.REPLACE:
            self._replace(operation, stamps)
        elif operation.kind == Kind.UNLINK:
            self._forget(operation.file)
            os.unlink(FILES[operation.file], dir_fd=self._folder(operation.file))
        else:
            self._change(operation, stamps)

    def _change(self, operation: Operation, stamps: bytes) -> None:
        descriptor = self._open(operation.file)
        at, size = operation.first * SECTOR, operation.count * SECTOR
        if operation.kind == Kind.WRITE:
            self._write(descriptor, operation.file, stamps, at)
        elif operation.kind == Kind.TRUNCATE:
            os.ftruncate(descriptor, at)
        elif operation.kind == Kind.ALLOCATE:
            os.posix_fallocate(descriptor, at, size)
        else:
            hole = FALLOC_FL_PUNCH_HOLE if operation.kind == Kind.PUNCH else FALLOC_FL_ZERO_RANGE
            _fallocate(descriptor, hole | FALLOC_FL_KEEP_SIZE, at, size)

    def _write(self, descriptor: int, file: int, stamps: bytes, at: int) -> None:
        """One system call: it is all there or not at all when the file system is frozen."""
        data: bytes | memoryview = stamps
        if FILES[file] == "direct":
            self._aligned[: len(stamps)] = stamps
            data = memoryview(self._aligned)[: len(stamps)]
        done = os.write(descriptor, data) if FILES[file] == "append" else os.pwrite(descriptor, data, at)
        if done != len(stamps):
            raise OSError(f"{FILES[file]}: only {done} of {len(stamps)} bytes were written")

    def _replace(self, operation: Operation, stamps: bytes) -> None:
        flags, folder = os.O_WRONLY | os.O_CREAT | os.O_TRUNC, self._folder(operation.file)
        descriptor = os.open(TEMPORARY, flags, 0o600, dir_fd=folder)
        try:
            os.write(descriptor, stamps)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(TEMPORARY, FILES[operation.file], src_dir_fd=folder, dst_dir_fd=folder)

    def _synchronise(self, last: Operation) -> None:
        if last.kind in (Kind.REPLACE, Kind.UNLINK):
            os.fsync(self._folder(last.file))
        elif FILES[last.file] == "buffered":
            os.fdatasync(self._files[last.file])
        elif FILES[last.file] != "direct":
            os.fsync(self._files[last.file])

    def _open(self, file: int) -> int:
        if file not in self._files:
            extra = {"direct": os.O_DIRECT | os.O_DSYNC, "append": os.O_APPEND}.get(FILES[file], 0)
            flags = os.O_WRONLY | os.O_CREAT | extra
            self._files[file] = os.open(FILES[file], flags, 0o600, dir_fd=self._folder(file))
            os.fsync(self._folder(file))
        return self._files[file]

    def _folder(self, file: int) -> int:
        return self._folders[folder_of(file, len(self._folders))]

    def _forget(self, file: int) -> None:
        if file in self._files:
            os.close(self._files.pop(file))


def _fallocate(descriptor: int, mode: int, at: int, size: int) -> None:
    """fallocate(2), which os has only without a mode."""
    if LIBC.fallocate(descriptor, mode, ctypes.c_int64(at), ctypes.c_int64(size)) != 0:
        error = ctypes.get_errno()
        if error == errno.EOPNOTSUPP and mode & FALLOC_FL_ZERO_RANGE:  # tmpfs has holes, but no zeroed ranges
            _fallocate(descriptor, mode & ~FALLOC_FL_ZERO_RANGE | FALLOC_FL_PUNCH_HOLE, at, size)
            return
        raise OSError(error, os.strerror(error), "fallocate")


def main(arguments: list[str]) -> int:
    """``writer LOG RUN NUMBER PAUSE_S FOLDER...``: stamp until standard input is closed or readable."""
    log, run, number, pause, *folders = arguments
    with contextlib.closing(Writer([Path(folder) for folder in folders], Path(log), int(run), int(number))) as writer:
        for group in styles.mixed(random.Random(f"{run}.{number}")):
            writer.perform(group)
            if select.select([sys.stdin], [], [], float(pause))[0]:
                return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
