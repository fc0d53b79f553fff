"""medium is one thing in a stack that can be read: a device given, a partition, an array, a logical volume.

It knows no format: what is in it is found by the modules beside this one.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from splitreel.core.device import BlockDevice
from splitreel.core.spans import Linear, Span, SpannedDevice, Striped

Area = tuple["Medium", int]  # a medium and the byte in it where something begins


@dataclass(frozen=True)
class Medium:
    """A device with its name for messages. ``sector_size`` in bytes; 0 for an image file, which does not tell it."""

    device: BlockDevice
    name: str
    sector_size: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self.device.size

    def read(self, offset: int, size: int) -> bytes:
        """What there is of ``size`` bytes at ``offset``: less, or nothing, where the medium ends before."""
        if offset < 0 or offset >= self.size:
            return b""
        return self.device.pread(offset, min(size, self.size - offset))

    def part(self, offset: int, size: int, suffix: str) -> "Medium":
        """A stretch of it, which the caller knows to lie inside."""
        return made([(self, offset)], [Linear(size, 0, offset)], f"{self.name}:{suffix}", self.sector_size)


def given(device: BlockDevice) -> Medium:
    """The medium of a device that the user named."""
    number = device.fileno()
    is_block = number >= 0 and stat.S_ISBLK(os.fstat(number).st_mode)
    return Medium(device, os.fsdecode(device.path), device.logical_block_size if is_block else 0)


def made(areas: Sequence[Area], spans: Sequence[Span], name: str, sector_size: int) -> Medium:
    """A medium of stretches of others: the sources of ``spans`` are indexes of ``areas``."""
    sources: list[BlockDevice] = []
    found: dict[int, int] = {}  # a volume of thousands of segments lies on a handful of devices
    for medium, _ in areas:
        if found.setdefault(id(medium.device), len(sources)) == len(sources):
            sources.append(medium.device)
    at = [found[id(medium.device)] for medium, _ in areas]
    return Medium(SpannedDevice(sources, [_renumbered(span, at) for span in spans], path=name), name, sector_size)


def _renumbered(span: Span, at: list[int]) -> Span:
    if isinstance(span, Linear):
        return span._replace(source=at[span.source])
    if isinstance(span, Striped):
        return span._replace(legs=[(at[source], physical) for source, physical in span.legs])
    return span


def common_sector_size(media: Iterator[Medium]) -> int:
    """The sector size of what is made of ``media``: the largest; 0 when none of them tells it."""
    return max((medium.sector_size for medium in media), default=0)
