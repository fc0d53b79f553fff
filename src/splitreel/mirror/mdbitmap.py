"""mdbitmap reads the write-intent bitmap of Linux software RAID: which chunks were written. It changes no array.

Source: bitmap_super_s in the kernel's drivers/md/md-bitmap.h. A superblock of 256 bytes, then one bit a chunk of the
members' data, the lowest bit of a byte first. While a member is missing no bit is cleared: what is set then is what a
re-added member lacks, and a little more.
"""

import struct
from dataclasses import dataclass

from splitreel.core.device import BlockDevice
from splitreel.errors import Corrupt, Unsupported

MAGIC = 0x6D746962  # "bitm"
SUPERBLOCK_SIZE = 256
SECTOR = 512
VERSIONS = (3, 4)  # 3 was in the host's byte order, which is this one wherever splitreel runs; 5 is of clusters
STALE, WRITE_ERROR = 1, 2  # numbers of bits in state
LEAST_CHUNK, LARGEST_CHUNK = 4096, 1 << 31
LARGEST_BITMAP = 128 << 20  # bytes; the kernel's bitmaps have a fraction of it
PIECE = 1 << 20
ADVICE = "Look at it with: mdadm --examine-bitmap MEMBER"

_HEAD = struct.Struct("<II16sQQQIIIIII")


@dataclass(frozen=True)
class Bitmap:
    """A bitmap's superblock; ``size`` and ``chunk`` in bytes. ``events_cleared``: a member older than it lacks more."""

    uuid: bytes
    events: int
    events_cleared: int
    size: int
    chunk: int
    state: int
    write_behind: int

    @property
    def chunks(self) -> int:
        """How many bits there are."""
        return -(-self.size // self.chunk)


def parse(block: bytes, name: str) -> Bitmap:
    """The superblock at the start of ``block``; ``name`` is for messages.

    Raises:
        Unsupported: a version that is not read.
        Corrupt: it is none, or its values cannot be.
    """
    what = f"write-intent bitmap of {name}"
    if len(block) < SUPERBLOCK_SIZE or struct.unpack_from("<I", block)[0] != MAGIC:
        raise Corrupt(what, "it has no magic number", ADVICE)
    _, version, uuid, events, cleared, sectors, state, chunk, _, behind, _, nodes = _HEAD.unpack_from(block)
    if version not in VERSIONS or nodes:
        raise Unsupported(what, f"version {version}{' of a cluster' if nodes else ''} is not read by this version")
    if not LEAST_CHUNK <= chunk <= LARGEST_CHUNK or chunk & (chunk - 1):
        raise Corrupt(what, f"chunks of {chunk} bytes", ADVICE)
    if not 0 < sectors <= LARGEST_BITMAP * 8 * (chunk // SECTOR):
        raise Corrupt(what, f"{sectors} sectors in chunks of {chunk} bytes", ADVICE)
    return Bitmap(uuid, events, cleared, sectors * SECTOR, chunk, state, behind)


def dirty_bytes(device: BlockDevice, place: int, name: str) -> int:
    """How many bytes the bitmap at byte ``place`` of a member marks as written; all of them when it is out of date.

    Raises:
        Corrupt, Unsupported: see ``parse``.
        DeviceError: it cannot be read.
    """
    bitmap = parse(device.pread(place, SUPERBLOCK_SIZE), name)
    if bitmap.state >> STALE & 1:
        return bitmap.size
    at, left, count = place + SUPERBLOCK_SIZE, bitmap.chunks, 0
    while left:
        piece = device.pread(at, min(PIECE, -(-left // 8)))
        bits = int.from_bytes(piece, "little") & ((1 << min(left, 8 * len(piece))) - 1)
        count += bits.bit_count()
        at += len(piece)
        left -= min(left, 8 * len(piece))
    return min(count * bitmap.chunk, bitmap.size)
