"""partitions reads a device's partition table, GPT or MBR, as the kernel numbers it. It decides on no partition.

Source for MBR: the IBM PC's master boot record as block/partitions/msdos.c reads it: four primary entries, and a chain
of extended boot records whose partitions are numbered from 5.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from splitreel.errors import Corrupt, Unsupported
from splitreel.probe import probe
from splitreel.stack import gpt
from splitreel.stack.medium import Medium

SECTOR_SIZES = (512, 4096)
BOOT_SIGNATURE = b"\x55\xaa"
FIRST_ENTRY = 446
EXTENDED = (0x05, 0x0F, 0x85)
PROTECTIVE = 0xEE
LARGEST_CHAIN = 256  # extended boot records: the kernel numbers at most 255 partitions
_ENTRY = struct.Struct("<B3xB3xII")  # boot indicator, type, first sector, sectors

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Partition:
    """A partition: its number, where it begins and its size in bytes; ``extended`` when it only holds others."""

    number: int
    start: int
    size: int
    extended: bool = False


@dataclass(frozen=True)
class Table:
    """A partition table; ``kind`` is GPT or MBR."""

    kind: str
    sector_size: int
    partitions: list[Partition]


@dataclass(frozen=True)
class _Slot:
    """An entry of a boot record, in sectors."""

    boot: int
    type: int
    start: int
    size: int


def read(medium: Medium, warn: Warn) -> Table | None:
    """The partition table of ``medium``, or None when there is none.

    Raises:
        Corrupt: it fails its checks.
        Unsupported: a GPT of another revision, or an image of which the table does not tell the sector size.
    """
    slots = _slots(medium.read(0, 512))
    if slots is None:
        return None
    if any(slot.type == PROTECTIVE for slot in slots):
        sector_size = _gpt_sector_size(medium)
        if sector_size:
            entries = gpt.read(medium, sector_size, warn)
            return Table("GPT", sector_size, [Partition(entry.number, entry.start, entry.size) for entry in entries])
        if all(slot.type in (0, PROTECTIVE) for slot in slots):
            raise Corrupt(
                f"partition table of {medium.name}", "a protective MBR, but no GPT behind it nor at the end", gpt.ADVICE
            )
    if not any(slot.size for slot in slots):
        return None
    return _read_mbr(medium, slots, warn)


def pick(medium: Medium, table: Table, number: int) -> Medium:
    """One partition as a medium of its own.

    Raises:
        KeyError: there is no such number.
        Corrupt: it does not lie on the device, or overlaps another one.
        Unsupported: it is an extended partition, which only holds others.
    """
    chosen = next((entry for entry in table.partitions if entry.number == number), None)
    if chosen is None:
        raise KeyError(number)
    what = f"partition {number} of {medium.name}"
    if chosen.extended:
        raise Unsupported(what, "it is an extended partition, which only holds others", "Name one of those, from 5 on.")
    if chosen.start + chosen.size > medium.size:
        why = f"it ends at byte {chosen.start + chosen.size}, the device has {medium.size}"
        raise Corrupt(what, why, "A mirror shorter than what it mirrors is no copy: make it again.")
    for other in table.partitions:
        if other is not chosen and not other.extended and _overlap(chosen, other):
            raise Corrupt(what, f"it overlaps partition {other.number}", "Correct the partition table on a copy.")
    return Medium(medium.device, medium.name, table.sector_size).part(chosen.start, chosen.size, str(number))


def _overlap(one: Partition, other: Partition) -> bool:
    return one.start < other.start + other.size and other.start < one.start + one.size


def _slots(sector: bytes) -> list[_Slot] | None:
    """The four entries of a boot record, or None when it is none: other boot sectors have code in their place."""
    if len(sector) < 512 or sector[510:512] != BOOT_SIGNATURE:
        return None
    slots = [_Slot(*_ENTRY.unpack_from(sector, FIRST_ENTRY + 16 * index)) for index in range(4)]
    return slots if all(slot.boot in (0, 0x80) for slot in slots) else None


def _gpt_sector_size(medium: Medium) -> int:
    """The sector size of a GPT: the device's own if it tells, else where a header stands; 0 without a header."""
    sizes = dict.fromkeys((medium.sector_size, *SECTOR_SIZES) if medium.sector_size else SECTOR_SIZES)
    for size in sizes:
        if medium.read(size, 8) == gpt.SIGNATURE:
            return size
    for size in sizes:
        if medium.read((medium.size // size - 1) * size, 8) == gpt.SIGNATURE:
            return size
    return 0


# MBR


def _read_mbr(medium: Medium, slots: list[_Slot], warn: Warn) -> Table:
    sizes = (medium.sector_size,) if medium.sector_size else SECTOR_SIZES
    chains = [_Chain(medium, size, slots) for size in sizes]
    fitting = [chain for chain in chains if not chain.broken and chain.fits()] or chains[:1]
    chosen = fitting[0] if len(fitting) == 1 else _choose_sector_size(medium, fitting)
    if chosen.broken:
        warn(f"{medium.name}: {chosen.broken}: logical partitions behind it are not seen")
    return Table("MBR", chosen.sector_size, chosen.partitions)


def _choose_sector_size(medium: Medium, chains: "list[_Chain]") -> "_Chain":
    """Of an image that fits either sector size, the one whose partitions hold something known."""
    known = [chain for chain in chains if chain.holds_something()]
    if len(known) == 1:
        return known[0]
    raise Unsupported(
        f"MBR partition table of {medium.name}",
        "an image file does not tell its sector size, and this table is possible with 512 and with 4096 bytes",
        "Attach it with losetup --read-only --sector-size SIZE, and name the loop device.",
    )


class _Chain:
    """All partitions of an MBR; the kernel's numbers: 1 to 4 by slot, logical ones from 5 in their chain's order.

    ``broken`` says where the chain of extended boot records could not be followed; what was found before is right.
    """

    def __init__(self, medium: Medium, sector_size: int, slots: list[_Slot]) -> None:
        self.medium = medium
        self.sector_size = sector_size
        self.partitions: list[Partition] = []
        self.broken = ""
        extended = []
        for number, slot in enumerate(slots, 1):
            if slot.size:
                self._add(number, slot.start, slot)
                extended += [slot] if slot.type in EXTENDED else []
        logical = ((start, slot) for chain in extended for start, slot in self._logical(chain))
        for number, (start, slot) in enumerate(logical, 5):
            self._add(number, start, slot)

    def _add(self, number: int, start: int, slot: _Slot) -> None:
        unit = self.sector_size
        self.partitions.append(Partition(number, start * unit, slot.size * unit, slot.type in EXTENDED))

    def fits(self) -> bool:
        """No partition ends behind the device."""
        return all(part.start + part.size <= self.medium.size for part in self.partitions)

    def holds_something(self) -> bool:
        """A partition holds something that probe knows."""
        data = [part for part in self.partitions if not part.extended]
        return any(probe(self.medium.part(part.start, part.size, "").device) is not None for part in data)

    def _logical(self, extended: _Slot) -> Iterator[tuple[int, _Slot]]:
        """First sector and entry of each logical partition of one extended one."""
        at = extended.start
        seen: set[int] = set()
        while at not in seen and len(seen) < LARGEST_CHAIN:
            seen.add(at)
            slots = _slots(self.medium.read(at * self.sector_size, 512))
            if slots is None:
                self.broken = f"no extended boot record in sector {at}"
                return
            # Any of the four may be data, the last two only inside the extended one: tools left junk in them.
            for index, slot in enumerate(slots):
                start, end = at + slot.start, at + slot.start + slot.size
                inside = extended.start <= start and end <= extended.start + extended.size
                if slot.size and slot.type not in EXTENDED and (index < 2 or inside):
                    yield start, slot
            link = next((slot for slot in slots if slot.size and slot.type in EXTENDED), None)
            if link is None:
                return
            at = extended.start + link.start
        self.broken = f"the chain of extended boot records in sector {extended.start} has no end"
