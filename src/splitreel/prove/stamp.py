"""stamp is what a sector bears that proves where and when it was written. It reads and writes no file.

A stamp fills one sector of 512 bytes, little-endian: a magic, the CRC32C of all that follows, who wrote it (run,
writer, file), its own offset in that file, the number of the operation that wrote it, when that operation was begun
(CLOCK_MONOTONIC, ns), and a filling made of these, so that a sector put together of two generations fails its CRC.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitreel.core import checksum

SECTOR = 512
MAGIC = int.from_bytes(b"SPLTSTMP", "little")
STAMP = np.dtype(
    [
        ("magic", "<u8"),
        ("crc32c", "<u4"),
        ("writer", "<u2"),
        ("file", "<u2"),
        ("run", "<u8"),
        ("offset", "<u8"),
        ("number", "<u8"),
        ("begun_ns", "<i8"),
        ("filling", "<u8", (58,)),
    ]
)
assert STAMP.itemsize == SECTOR
CRC_FROM = 12  # behind magic and CRC
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it is a bijection modulo 2^64
_STEPS = np.arange(1, 59, dtype=np.uint64) * _SPREAD

# What a sector that was read can be.
GOOD, ZERO, TORN, FOREIGN, MISPLACED = range(5)


@dataclass(frozen=True)
class Owner:
    """Who stamps: the run (a random number), the writer, and the number of its file."""

    run: int
    writer: int
    file: int


@dataclass(frozen=True)
class Sectors:
    """The sectors of one file as read, a column each: what it is, the operation's number, when that was begun."""

    kind: NDArray[np.uint8]
    number: NDArray[np.int64]
    begun_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kind)


def encode(owner: Owner, first: int, count: int, number: int, begun_ns: int) -> NDArray[np.void]:
    """The stamps of ``count`` sectors from sector ``first`` on."""
    stamps = np.zeros(count, STAMP)
    stamps["magic"] = MAGIC
    stamps["run"], stamps["writer"], stamps["file"] = owner.run, owner.writer, owner.file
    stamps["offset"] = np.arange(first, first + count, dtype=np.uint64) * SECTOR
    stamps["number"], stamps["begun_ns"] = number, begun_ns
    stamps["filling"] = _filling(stamps)
    stamps["crc32c"] = _sums(stamps)
    return stamps


def decode(owner: Owner, data: bytes) -> Sectors:
    """Judge every sector of a file's content; a last piece shorter than a sector counts as torn."""
    whole = len(data) // SECTOR
    stamps = np.frombuffer(data, STAMP, whole)
    kind = np.full(whole + (len(data) % SECTOR > 0), TORN, np.uint8)
    number, begun = np.zeros(len(kind), np.int64), np.zeros(len(kind), np.int64)
    zero = ~np.frombuffer(data, np.uint64, whole * (SECTOR // 8)).reshape(whole, SECTOR // 8).any(axis=1)
    ours = stamps["magic"] == MAGIC
    sound, remains = np.zeros(whole, bool), np.zeros(whole, bool)
    sound[ours] = _sums(stamps[ours]) == stamps["crc32c"][ours]
    remains[~ours] = _has_remains(stamps[~ours])
    places = np.arange(whole, dtype=np.uint64) * SECTOR
    placed = (stamps["offset"] == places) & (stamps["writer"] == owner.writer) & (stamps["file"] == owner.file)
    mine = stamps["run"] == owner.run
    cases = [(zero, ZERO), (remains, TORN), (~ours, FOREIGN), (~sound, TORN), (~mine, FOREIGN), (~placed, MISPLACED)]
    kind[:whole] = np.select([case for case, _ in cases], [name for _, name in cases], GOOD)
    number[:whole] = np.where(sound, stamps["number"].astype(np.int64), 0)
    begun[:whole] = np.where(sound, stamps["begun_ns"], 0)
    return Sectors(kind, number, begun)


def _filling(stamps: NDArray[np.void]) -> NDArray[np.uint64]:
    base = stamps["number"] * _SPREAD ^ stamps["offset"] ^ stamps["run"]
    return np.asarray(base[:, np.newaxis] + _STEPS[np.newaxis, :], np.uint64)


def _has_remains(stamps: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether the second half of a sector is that of a stamp: its words then rise by one step."""
    words = stamps["filling"][:, 29:]
    return np.asarray((np.diff(words, axis=1) == _SPREAD).any(axis=1), bool)


def _sums(stamps: NDArray[np.void]) -> NDArray[np.uint32]:
    view = memoryview(stamps.tobytes())
    starts = range(0, len(stamps) * SECTOR, SECTOR)
    return np.fromiter((checksum.crc32c(view[at + CRC_FROM : at + SECTOR]) for at in starts), np.uint32, len(stamps))
