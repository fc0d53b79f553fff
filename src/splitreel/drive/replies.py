"""replies decodes what a drive returns: position, limits, mode, logs, attributes, density. It sends nothing.

Lengths that a drive gives are checked against what it sent; what lies beyond is not read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from splitreel import errors


class Condition(IntEnum):
    """What a drive said beside its success; the values are those of core's status_t."""

    DONE = 0
    EARLY_WARNING = 1
    PROGRAMMABLE_EARLY_WARNING = 2
    FILEMARK = 3
    END_OF_DATA = 4
    BEGINNING_OF_PARTITION = 5
    INCORRECT_LENGTH = 6


@dataclass(frozen=True)
class DriveIdentity:
    """From INQUIRY and its unit serial number page."""

    vendor: str
    product: str
    revision: str
    serial: str


@dataclass(frozen=True)
class BlockLimits:
    """READ BLOCK LIMITS: bytes; ``granularity`` is the exponent of two that block lengths must be a multiple of."""

    granularity: int
    maximum: int
    minimum: int


@dataclass(frozen=True)
class TapePosition:
    """Where the next object is read or written. ``known``: the drive says so; else it is our own count.

    ``object_id`` counts blocks and filemarks from the beginning of the partition, ``file_id`` filemarks; -1 where
    nobody knows.
    """

    partition: int
    object_id: int
    file_id: int
    at_bop: bool
    at_eop: bool
    known: bool


@dataclass(frozen=True)
class ModeHeader:
    """Mode parameter header and block descriptor, and the pages behind them."""

    write_protected: bool
    buffered_mode: int
    density: int
    block_length: int
    pages: bytes


@dataclass(frozen=True)
class Density:
    """One density support descriptor."""

    code: int
    writable: bool
    default: bool
    capacity_mb: int
    organization: str
    name: str
    description: str


@dataclass(frozen=True)
class Attribute:
    """One attribute of the medium auxiliary memory. Format: 0 binary, 1 ASCII, 2 text."""

    identifier: int
    format: int
    read_only: bool
    value: bytes

    def text(self) -> str | int:
        """The value for people: text without its padding, else a number or hexadecimal digits."""
        if self.format in (1, 2):
            return self.value.decode("utf-8", "replace").rstrip(" \0")
        return int.from_bytes(self.value) if len(self.value) <= 8 else self.value.hex()


ATTRIBUTE_NAMES = {
    0x0000: "remaining_capacity_mib",
    0x0001: "maximum_capacity_mib",
    0x0002: "tape_alert_flags",
    0x0003: "load_count",
    0x0009: "change_reference",
    0x0400: "medium_manufacturer",
    0x0401: "medium_serial",
    0x0408: "medium_type",
    0x0800: "application_vendor",
    0x0801: "application_name",
    0x0802: "application_version",
    0x0803: "user_label",
    0x0804: "last_written",
    0x0805: "text_localization",
    0x0806: "barcode",
    0x0807: "host",
    0x0808: "media_pool",
    0x080B: "format_version",
    0x080C: "volume_coherency",
    0x0820: "medium_guid",
    0x0821: "media_pool_guid",
}

TEXT_ATTRIBUTES = {0x0803, 0x0808}  # user label and media pool may hold more than ASCII

# SSC-4 annex A; what an operator can act on.
TAPE_ALERTS = {
    0x01: "read warning",
    0x02: "write warning",
    0x03: "hard error",
    0x04: "medium: stop using this cartridge",
    0x05: "read failure",
    0x06: "write failure",
    0x07: "medium has reached the end of its life",
    0x08: "not data grade",
    0x09: "write protected",
    0x0A: "medium removal is prevented",
    0x0B: "cleaning cartridge in the drive",
    0x0C: "unsupported format",
    0x0F: "memory chip in cartridge failed",
    0x10: "forced eject",
    0x11: "read-only format",
    0x12: "tape directory corrupted on load",
    0x13: "medium is nearing the end of its life",
    0x14: "clean the drive now",
    0x15: "clean the drive soon",
    0x16: "expired cleaning cartridge",
    0x1E: "hardware A",
    0x1F: "hardware B",
    0x20: "interface",
    0x21: "eject the medium",
    0x24: "drive temperature",
    0x31: "diminished native capacity",
    0x37: "loading failure",
    0x3B: "WORM medium integrity check failed",
    0x3C: "WORM medium overwrite attempted",
}


def _need(data: bytes, size: int, what: str) -> None:
    if len(data) < size:
        raise errors.TapeError(f"decoding {what}", f"{len(data)} bytes where {size} are the least")


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").strip(" \0")


def identity(standard: bytes, serial_page: bytes) -> DriveIdentity:
    """From standard INQUIRY data and VPD page 80h (empty when the drive has none)."""
    _need(standard, 36, "INQUIRY data")
    serial = _text(serial_page[4 : 4 + int.from_bytes(serial_page[2:4])]) if len(serial_page) >= 4 else ""
    return DriveIdentity(_text(standard[8:16]), _text(standard[16:32]), _text(standard[32:36]), serial)


def block_limits(data: bytes) -> BlockLimits:
    """SSC-4 table 61."""
    _need(data, 6, "READ BLOCK LIMITS data")
    return BlockLimits(data[0] & 0x1F, int.from_bytes(data[1:4]), int.from_bytes(data[4:6]))


def long_position(data: bytes) -> TapePosition | None:
    """SSC-4 table 73; None when the drive does not know, or contradicts itself.

    tgtd answers with a reserved bit and zeros: object 0 that is not at the beginning of the partition.
    """
    _need(data, 32, "READ POSITION data")
    flags, object_id = data[0], int.from_bytes(data[8:16])
    if flags & 0x04 or bool(flags & 0x80) != (object_id == 0):
        return None
    file_id = -1 if flags & 0x08 else int.from_bytes(data[16:24])
    return TapePosition(
        int.from_bytes(data[4:8]), object_id, file_id, bool(flags & 0x80), bool(flags & 0x40), known=True
    )


def short_position(data: bytes) -> TapePosition | None:
    """SSC-4 table 71; None when the drive does not know, the field is too small, or it contradicts itself."""
    _need(data, 20, "READ POSITION data")
    flags, object_id = data[0], int.from_bytes(data[4:8])
    if flags & 0x06 or bool(flags & 0x80) != (object_id == 0):
        return None
    return TapePosition(
        data[1], object_id, 0 if object_id == 0 else -1, bool(flags & 0x80), bool(flags & 0x40), known=True
    )


def mode_header(data: bytes, ten: bool) -> ModeHeader:
    """MODE SENSE(6) or (10) data."""
    start = 8 if ten else 4
    _need(data, start, "MODE SENSE data")
    end = 2 + int.from_bytes(data[:2]) if ten else 1 + data[0]
    specific = data[3 if ten else 2]
    descriptors = int.from_bytes(data[6:8]) if ten else data[3]
    block = data[start : start + descriptors]
    pages = data[start + descriptors : end]
    density, length = (block[0], int.from_bytes(block[5:8])) if len(block) >= 8 else (0, 0)
    return ModeHeader(bool(specific & 0x80), specific >> 4 & 0x07, density, length, bytes(pages))


def encode_mode_6(buffered_mode: int, density: int, block_length: int) -> bytes:
    """Parameter list of MODE SELECT(6): header and block descriptor, no pages."""
    header = bytes([0, 0, buffered_mode << 4, 8])
    return header + bytes([density, 0, 0, 0, 0]) + block_length.to_bytes(3)


def encode_mode_10(header: ModeHeader, page: bytes) -> bytes:
    """Parameter list of MODE SELECT(10): header, the block descriptor as it was, one page with its PS bit clear."""
    block = bytes([header.density, 0, 0, 0, 0]) + header.block_length.to_bytes(3)
    return bytes([0, 0, 0, header.buffered_mode << 4, 0, 0, 0, 8]) + block + bytes([page[0] & 0x7F]) + page[1:]


def log_parameters(data: bytes) -> dict[int, int]:
    """Parameter code to value of a LOG SENSE page, numbers big-endian."""
    _need(data, 4, "LOG SENSE data")
    end = min(4 + int.from_bytes(data[2:4]), len(data))
    at, found = 4, {}
    while at + 4 <= end and at + 4 + data[at + 3] <= end:
        size = data[at + 3]
        found[int.from_bytes(data[at : at + 2])] = int.from_bytes(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def attributes(data: bytes) -> Iterator[Attribute]:
    """READ ATTRIBUTE values, SPC-4 7.4.1."""
    _need(data, 4, "READ ATTRIBUTE data")
    end = min(4 + int.from_bytes(data[:4]), len(data))
    at = 4
    while at + 5 <= end:
        size = int.from_bytes(data[at + 3 : at + 5])
        if at + 5 + size > end:
            return
        value = bytes(data[at + 5 : at + 5 + size])
        yield Attribute(int.from_bytes(data[at : at + 2]), data[at + 2] & 0x03, bool(data[at + 2] & 0x80), value)
        at += 5 + size


def host_attribute(identifier: int, value: bytes | str) -> Attribute:
    """An attribute to be written: text in the format that the standard gives this one, bytes as binary."""
    if isinstance(value, bytes):
        return Attribute(identifier, 0, False, value)
    return Attribute(identifier, 2 if identifier in TEXT_ATTRIBUTES else 1, False, value.encode())


def encode_attributes(items: list[Attribute]) -> bytes:
    """Parameter list of WRITE ATTRIBUTE."""
    body = b"".join(
        item.identifier.to_bytes(2) + bytes([item.format]) + len(item.value).to_bytes(2) + item.value for item in items
    )
    return len(body).to_bytes(4) + body


def densities(data: bytes) -> list[Density]:
    """REPORT DENSITY SUPPORT descriptors of 52 bytes."""
    _need(data, 4, "REPORT DENSITY SUPPORT data")
    end = min(2 + int.from_bytes(data[:2]), len(data))
    return [
        Density(
            code=item[0],
            writable=bool(item[2] & 0x80),
            default=bool(item[2] & 0x20),
            capacity_mb=int.from_bytes(item[12:16]),
            organization=_text(item[16:24]),
            name=_text(item[24:32]),
            description=_text(item[32:52]),
        )
        for item in (data[at : at + 52] for at in range(4, end - 51, 52))
    ]
