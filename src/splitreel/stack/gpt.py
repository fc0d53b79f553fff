"""gpt reads a GUID partition table: both copies of its header, and the entries that their checksums vouch for.

Source: UEFI specification 2.10, sections 5.3.2 and 5.3.3. It decides on no partition.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from splitreel.errors import Corrupt, SplitreelError, Unsupported
from splitreel.stack.medium import Medium

SIGNATURE = b"EFI PART"
REVISION = 0x00010000
SMALLEST_HEADER = 92
SMALLEST_ENTRY = 128
LARGEST_ARRAY = 1 << 18  # bytes of entries: the specification's 16 KiB hold 128, the kernel knows 256
NO_TYPE = bytes(16)
ADVICE = (
    "Check the device with: sgdisk --verify DEVICE (on a copy of the mirror: --backup and --load-backup repair it)."
)

# Signature, revision, header size, header CRC32, reserved, my LBA, alternate LBA, first and last usable LBA, disk GUID,
# entries' LBA, count of entries, size of an entry, entries' CRC32
_HEADER = struct.Struct("<8sIII4xQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ")  # type GUID, unique GUID, first and last LBA, attributes


@dataclass(frozen=True)
class Entry:
    """A used entry: its number from 1, and its place in bytes."""

    number: int
    start: int
    size: int


@dataclass(frozen=True)
class _Header:
    lba: int
    alternate: int
    first_usable: int
    last_usable: int
    guid: bytes
    entries_lba: int
    count: int
    entry_size: int
    entries_crc: int


def read(medium: Medium, sector_size: int, warn: Callable[[str], None]) -> list[Entry]:
    """The used entries of the table on ``medium``; of a bad primary copy the backup is read instead, with a warning.

    Raises:
        Corrupt: both copies fail their checks; the reason is the primary's.
        Unsupported: another revision.
    """
    last = medium.size // sector_size - 1
    try:
        return _entries(medium, sector_size, _header(medium, sector_size, 1))
    except SplitreelError as error:
        primary = error
    for lba in dict.fromkeys((last, _alternate(medium, sector_size))):
        try:
            found = _entries(medium, sector_size, _header(medium, sector_size, lba))
        except SplitreelError:
            continue
        warn(f"{medium.name}: the GPT's primary copy is bad ({primary.why}); its backup in sector {lba} is used")
        return found
    primary.why += "; its backup is not usable either"
    raise primary


def _alternate(medium: Medium, sector_size: int) -> int:
    """Where a primary header with bad entries says the backup is: not at the end of a device that has grown."""
    try:
        return _header(medium, sector_size, 1).alternate
    except SplitreelError:
        return medium.size // sector_size - 1


def _bad(medium: Medium, why: str) -> Corrupt:
    return Corrupt(f"GPT partition table of {medium.name}", why, ADVICE)


def _header(medium: Medium, sector_size: int, lba: int) -> _Header:
    """The header in sector ``lba``, verified."""
    sector = medium.read(lba * sector_size, sector_size)
    if len(sector) < sector_size or sector[:8] != SIGNATURE:
        raise _bad(medium, f"no header in sector {lba}")
    _, revision, size, crc, my_lba, *fields = _HEADER.unpack_from(sector)
    if not SMALLEST_HEADER <= size <= sector_size:
        raise _bad(medium, f"header in sector {lba}: its size is {size} bytes")
    if zlib.crc32(sector[:16] + bytes(4) + sector[20:size]) != crc:
        raise _bad(medium, f"header in sector {lba}: checksum mismatch")
    if revision != REVISION:
        version = f"{revision >> 16}.{revision & 0xFFFF}"
        raise Unsupported(f"GPT partition table of {medium.name}", f"revision {version} is not read by this version")
    header = _Header(my_lba, *fields)
    _verify_header(medium, sector_size, lba, header)
    return header


def _verify_header(medium: Medium, sector_size: int, lba: int, header: _Header) -> None:
    where = f"header in sector {lba}"
    if header.lba != lba:
        raise _bad(medium, f"{where}: it says that it belongs into sector {header.lba}")
    if header.first_usable > header.last_usable:
        raise _bad(medium, f"{where}: usable sectors {header.first_usable} to {header.last_usable}")
    if header.entry_size % SMALLEST_ENTRY or not _is_power_of_two(header.entry_size // SMALLEST_ENTRY):
        raise _bad(medium, f"{where}: entries of {header.entry_size} bytes")
    if header.count * header.entry_size > LARGEST_ARRAY:
        raise _bad(medium, f"{where}: {header.count} entries of {header.entry_size} bytes")


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _entries(medium: Medium, sector_size: int, header: _Header) -> list[Entry]:
    """The used entries, after their checksum."""
    size = header.count * header.entry_size
    array = medium.read(header.entries_lba * sector_size, size)
    if len(array) < size or zlib.crc32(array) != header.entries_crc:
        raise _bad(medium, f"entries in sector {header.entries_lba}: checksum mismatch")
    found = []
    for index in range(header.count):
        kind, _, first, last, _ = _ENTRY.unpack_from(array, index * header.entry_size)
        if kind == NO_TYPE:
            continue
        if not header.first_usable <= first <= last <= header.last_usable:
            raise _bad(medium, f"entry {index + 1}: sectors {first} to {last} are not within the usable ones")
        found.append(Entry(index + 1, first * sector_size, (last - first + 1) * sector_size))
    return found
