"""dmraid understands the superblocks of device mapper's RAID target, and can age one. It runs no program.

Source: struct dm_raid_superblock, analyse_superblocks and super_init_validation in the kernel's drivers/md/dm-raid.c.
When a table is loaded, the superblock of most events is believed, the first of equals; a member that it records as
failed is recovered by the bitmap, any other is taken for current.

Of a leg that was split off with its changes tracked this goes wrong. The table without it is loaded, and reads the
events, before the old table is stopped, which counts them on: the leg then has as many as what goes on without it, or
more. And what goes on writes its superblock, with the failure in it, only when it is idle for a moment or stopped: so
under a steady load the table that merges is loaded before. Then the leg is taken for current, nothing is recovered, and
old data are read from it. Seen on Linux 6.1 in three of three merges under load. So before a merge the array is made to
write its superblock, and the leg's count is set back.
"""

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from splitreel.errors import Corrupt, DeviceError

MAGIC = b"DmRd"
SIZE = 4096  # what is read and written of it: one block of any disk
EVENTS = 16  # byte offset in the superblock
_HEAD = struct.Struct("<4sIIIQQ")


@dataclass(frozen=True)
class Superblock:
    """What a leg knows of its array: ``failed`` has a bit for each member that was missing when it was written."""

    position: int
    events: int
    failed: int


def parse(block: bytes, name: str) -> Superblock:
    """The superblock at the start of ``block``.

    Raises:
        Corrupt: it is none.
    """
    if len(block) < _HEAD.size or block[:4] != MAGIC:
        raise Corrupt(f"RAID superblock of {name}", "it has no magic number", "See lvs -a -o +devices.")
    _, _, members, position, events, failed = _HEAD.unpack_from(block)
    if position >= members:
        raise Corrupt(f"RAID superblock of {name}", f"member {position} of {members}")
    return Superblock(position, events, failed)


def is_missed(kept: Sequence[Superblock], leg: Superblock) -> bool:
    """Whether what goes on without the leg has written down that it is missing."""
    return bool(max(kept, key=_belief).failed >> leg.position & 1)


def recovers(kept: Sequence[Superblock], leg: Superblock) -> bool:
    """Whether a table of all of these has the leg recovered from the others."""
    return max((*kept, leg), key=_belief) is not leg and is_missed(kept, leg)


def _belief(one: Superblock) -> tuple[int, int]:
    return one.events, -one.position


def read(path: str, place: int) -> bytes:
    """The block of a superblock at byte ``place`` of a device, past the page cache.

    Raises:
        DeviceError: it cannot be read.
    """
    with mmap.mmap(-1, SIZE) as block:
        _transfer(path, place, block, os.O_RDONLY)
        return bytes(block)


def age(path: str, place: int) -> None:
    """Set the events of the superblock there to none: of a leg that is split off, never of one in use.

    Raises:
        Corrupt: there is none.
        DeviceError: it cannot be read or written.
    """
    with mmap.mmap(-1, SIZE) as block:
        _transfer(path, place, block, os.O_RDONLY)
        parse(bytes(block), path)
        struct.pack_into("<Q", block, EVENTS, 0)
        _transfer(path, place, block, os.O_WRONLY | os.O_DSYNC)


def _transfer(path: str, place: int, block: mmap.mmap, mode: int) -> None:
    what = f"RAID superblock at byte {place} of {path}"
    try:
        descriptor = os.open(path, mode | os.O_DIRECT | os.O_CLOEXEC)
        try:
            move = os.preadv if mode == os.O_RDONLY else os.pwritev
            if move(descriptor, [block], place) != SIZE:
                raise DeviceError(what, "the device is shorter")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeviceError(what, str(error.strerror)) from error
