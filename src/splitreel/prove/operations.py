"""operations are what a writer does to its files, one system call each, and what a file holds after them.

A writer notes each operation in its log before it begins, and when it was acknowledged; the examiner replays the log.
It performs nothing itself.
"""

import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SECTORS = 2048  # of a file: 1 MiB
FILES = (
    "direct",
    "buffered",
    "append",
    "unwritten",
    "punched",
    *(f"replaced-{number}" for number in range(8)),
)
TEMPORARY = "replacement"  # of a file that is about to be replaced

# One record an operation, number 1 first. ``acknowledged_ns`` is 0 until its fsync has returned.
LOG = np.dtype(
    [
        ("kind", "u1"),
        ("file", "u1"),
        ("first", "<u2"),
        ("count", "<u4"),
        ("group", "<u8"),
        ("begun_ns", "<i8"),
        ("acknowledged_ns", "<i8"),
    ]
)


class Kind(enum.IntEnum):
    """What an operation does to sectors ``first`` to ``first + count`` of its file."""

    WRITE = 1  # write(2) or pwrite(2) of stamps
    TRUNCATE = 2  # ftruncate(2) to ``first`` sectors
    ALLOCATE = 3  # fallocate(2): unwritten extents, which read as zeros
    PUNCH = 4  # fallocate(2) FALLOC_FL_PUNCH_HOLE
    ZERO = 5  # fallocate(2) FALLOC_FL_ZERO_RANGE
    REPLACE = 6  # rename(2) of a new file of ``count`` sectors, synchronised, over this one
    UNLINK = 7  # unlink(2)


@dataclass(frozen=True)
class Operation:
    """One system call that changes a file."""

    kind: Kind
    file: int
    first: int = 0
    count: int = 0


@dataclass
class Content:
    """What a file is to hold: the number of the operation that last wrote each sector, 0 for zeros."""

    size: int = -1  # sectors; -1: there is no such file
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SECTORS, np.int64))

    def apply(self, number: int, kind: int, first: int, count: int) -> None:
        """Do to it what the operation does to the file."""
        end = first + count
        if kind in (Kind.REPLACE, Kind.UNLINK):
            self.numbers[:] = 0
            self.size = -1
        if kind in (Kind.WRITE, Kind.REPLACE):
            self.numbers[first:end] = number
            self.size = max(self.size, end)
        elif kind == Kind.TRUNCATE:
            self.numbers[first:] = 0
            self.size = first
        elif kind == Kind.ALLOCATE:
            self.size = max(self.size, end)
        elif kind in (Kind.PUNCH, Kind.ZERO):
            self.numbers[first:end] = 0

    def copy(self) -> "Content":
        """One that goes its own way."""
        return Content(self.size, self.numbers.copy())


class Model:
    """All of a writer's files after the first ``number`` operations of its log."""

    def __init__(self) -> None:
        self.number = 0
        self.files = [Content() for _ in FILES]

    def apply(self, number: int, operation: np.void) -> None:
        """The next operation."""
        assert number == self.number + 1
        kind, file, first, count = (int(operation[key]) for key in ("kind", "file", "first", "count"))
        self.files[file].apply(number, kind, first, count)
        self.number = number

    def advance(self, log: NDArray[np.void], number: int) -> None:
        """All operations up to ``number``."""
        for at in range(self.number, number):
            self.apply(at + 1, log[at])

    def copy(self) -> "Model":
        """One that goes its own way."""
        other = Model()
        other.number, other.files = self.number, [content.copy() for content in self.files]
        return other


def folder_of(file: int, folders: int) -> int:
    """In which of a writer's directories that file is: on several volumes it writes to one after the other."""
    return file % folders


def read_log(path: Path, tail: int = 0) -> NDArray[np.void]:
    """The operations that a writer has begun, in order, or the last ``tail`` of them.

    A last record that is not whole is left out.
    """
    with path.open("rb") as file:
        whole = os.fstat(file.fileno()).st_size // LOG.itemsize
        first = max(0, whole - tail) if tail else 0
        file.seek(first * LOG.itemsize)
        data = file.read((whole - first) * LOG.itemsize)
    return np.frombuffer(data, LOG)


def stamps_of(log: NDArray[np.void]) -> int:
    """How many stamps the acknowledged operations wrote."""
    wrote = np.isin(log["kind"], (Kind.WRITE, Kind.REPLACE)) & (log["acknowledged_ns"] > 0)
    return int(log["count"][wrote].sum())


def blocks(first: int, count: int) -> Iterator[tuple[int, int]]:
    """A range of sectors in pieces that one direct write carries: first sector and count."""
    for at in range(first, first + count, 128):
        yield at, min(128, first + count - at)
