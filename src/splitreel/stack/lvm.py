"""lvm reads LVM2 physical volumes: label, areas, and the newest metadata of each volume group. It maps no volume.

Sources: lvm2's lib/label/label.h, lib/format_text/layout.h and format-text.c.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from splitreel.errors import Corrupt, SplitreelError
from splitreel.stack import lvmtext
from splitreel.stack.lvmtext import LARGEST_TEXT, Section
from splitreel.stack.medium import Medium

SECTOR = 512
LABEL_SECTORS = 4
INITIAL_CRC = 0xF597A6CF
MDA_MAGIC = b" LVM2 x[5A%r0N*>"
MDA_HEADER_SIZE = 512
RAW_LOCN_IGNORED = 1
UUID_GROUPS = (6, 4, 4, 4, 4, 4, 6)
ADVICE = "Check the volume group with vgck on the machine it belongs to, then make the mirror again."

_LABEL = struct.Struct("<8sQII8s")  # LABELONE, sector, CRC, offset of the contents, type
_PV_HEADER = struct.Struct("<32sQ")  # UUID, device size
_LOCATION = struct.Struct("<QQ")  # offset, size
_MDA_HEADER = struct.Struct("<I16sIQQ")  # CRC, magic, version, start, size
_RAW_LOCATION = struct.Struct("<QQII")  # offset, size, CRC, flags

Warn = Callable[[str], None]


@dataclass
class PhysicalVolume:
    """A labelled medium. ``copies`` are the committed metadata on it, ``problems`` what is wrong with the others."""

    medium: Medium
    uuid: str
    copies: "list[Metadata]" = field(default_factory=list)
    problems: list[SplitreelError] = field(default_factory=list)


@dataclass(frozen=True)
class Metadata:
    """One copy of a volume group's metadata."""

    vg_name: str
    vg_uuid: str
    seqno: int
    crc: int
    tree: Section


@dataclass
class VolumeGroup:
    """A volume group as its newest metadata describe it; ``media`` are its physical volumes by UUID."""

    name: str
    uuid: str
    seqno: int
    tree: Section
    media: dict[str, Medium] = field(default_factory=dict)
    duplicates: dict[str, list[str]] = field(default_factory=dict)
    problem: SplitreelError | None = None


def crc(data: bytes) -> int:
    """LVM's checksum: CRC-32 without the inversion at its end, begun with a value of its own."""
    return zlib.crc32(data, INITIAL_CRC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def dashed(uuid: bytes) -> str:
    """A UUID as LVM prints it."""
    text = uuid.decode("ascii", "backslashreplace")
    parts = []
    for size in UUID_GROUPS:
        parts.append(text[:size])
        text = text[size:]
    return "-".join(parts)


# Physical volumes


def read(medium: Medium) -> PhysicalVolume | None:
    """The physical volume on ``medium``, with all copies of metadata that are sound; None without a valid label."""
    head = medium.read(0, LABEL_SECTORS * SECTOR)
    for sector in range(len(head) // SECTOR):
        label = head[sector * SECTOR : (sector + 1) * SECTOR]
        offset = _label_contents(label, sector)
        if offset:
            return _physical_volume(medium, label[offset:])
    return None


def _label_contents(label: bytes, sector: int) -> int:
    """Where in a sector the label's contents begin; 0 when it is no label, or one that fails its checks."""
    name, number, checksum, offset, kind = _LABEL.unpack_from(label)
    if (name, kind, number) != (b"LABELONE", b"LVM2 001", sector) or crc(label[20:]) != checksum:
        return 0
    return int(offset) if _LABEL.size <= offset <= SECTOR - _PV_HEADER.size else 0


def _physical_volume(medium: Medium, header: bytes) -> PhysicalVolume:
    uuid, _ = _PV_HEADER.unpack_from(header)
    found = PhysicalVolume(medium, dashed(uuid))
    locations = _locations(header)
    for _ in locations:  # data areas, up to their end mark: the volume group's metadata say where extents begin
        pass
    for offset, size in locations:
        try:
            found.copies += _metadata(medium, offset, size)
        except SplitreelError as error:
            found.problems.append(error)
    return found


def _locations(header: bytes) -> "_Locations":
    return _Locations(header[_PV_HEADER.size :])


class _Locations:
    """Lists of (offset, size), each ended by an offset of 0: one ``for`` takes one list."""

    def __init__(self, rest: bytes) -> None:
        self._rest = rest

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while len(self._rest) >= _LOCATION.size:
            offset, size = _LOCATION.unpack_from(self._rest)
            self._rest = self._rest[_LOCATION.size :]
            if offset == 0:
                return
            yield offset, size


# Metadata


def _bad(medium: Medium, offset: int, why: str) -> Corrupt:
    return Corrupt(f"LVM metadata area of {medium.name} at byte {offset}", why, ADVICE)


def _metadata(medium: Medium, offset: int, area_size: int) -> list[Metadata]:
    """The committed metadata of one area: none while it is unused or ignored; what is precommitted does not count."""
    header = medium.read(offset, MDA_HEADER_SIZE)
    if len(header) < MDA_HEADER_SIZE or crc(header[4:]) != _MDA_HEADER.unpack_from(header)[0]:
        raise _bad(medium, offset, "its header fails its checksum")
    _, magic, version, start, size = _MDA_HEADER.unpack_from(header)
    if magic != MDA_MAGIC or version != 1 or start != offset:
        raise _bad(medium, offset, f"its header is none: magic {magic!r}, version {version}, start {start}")
    if not MDA_HEADER_SIZE < size <= area_size or offset + size > medium.size:
        raise _bad(medium, offset, f"its header says {size} bytes, the label {area_size}")
    at, length, checksum, flags = _RAW_LOCATION.unpack_from(header, _MDA_HEADER.size)
    if at == 0 or flags & RAW_LOCN_IGNORED:
        return []
    text = _ring(medium, offset, size, at, length)
    if crc(text) != checksum:
        raise _bad(medium, offset, "the metadata fail their checksum")
    return [_parsed(medium, text, checksum)]


def _ring(medium: Medium, offset: int, size: int, at: int, length: int) -> bytes:
    """The text, which goes on behind the header where the area ends."""
    if not MDA_HEADER_SIZE <= at < size or not 0 < length <= min(size - MDA_HEADER_SIZE, LARGEST_TEXT):
        raise _bad(medium, offset, f"metadata of {length} bytes at {at} do not fit into {size}")
    before_end = min(length, size - at)
    return medium.read(offset + at, before_end) + medium.read(offset + MDA_HEADER_SIZE, length - before_end)


def _parsed(medium: Medium, text: bytes, checksum: int) -> Metadata:
    what = f"LVM metadata of {medium.name}"
    top = lvmtext.parse(text, what)
    groups = list(lvmtext.sections(top))
    if len(groups) != 1 or top.get("contents") != "Text Format Volume Group" or top.get("version") != 1:
        raise Corrupt(what, f"they describe {len(groups)} volume groups in format {top.get('version')!r}", ADVICE)
    name, tree = groups[0]
    return Metadata(name, lvmtext.text(tree, "id", what), lvmtext.number(tree, "seqno", what), checksum, tree)


# Volume groups


def groups(volumes: Iterable[PhysicalVolume], warn: Warn) -> list[VolumeGroup]:
    """The volume groups of all physical volumes given: of each the metadata with the highest sequence number."""
    volumes = list(volumes)
    newest: dict[str, Metadata] = {}
    conflicts: set[str] = set()
    for copy in (copy for volume in volumes for copy in volume.copies):
        known = newest.setdefault(copy.vg_uuid, copy)
        if copy.seqno > known.seqno:
            newest[copy.vg_uuid] = copy
            conflicts.discard(copy.vg_uuid)
        elif copy.seqno == known.seqno and copy.crc != known.crc:
            conflicts.add(copy.vg_uuid)
    found = []
    for copy in newest.values():
        group = VolumeGroup(copy.vg_name, copy.vg_uuid, copy.seqno, copy.tree)
        if copy.vg_uuid in conflicts:
            why = f"two different metadata bear sequence number {copy.seqno}"
            group.problem = Corrupt(f"volume group {copy.vg_name}", why, ADVICE)
        _collect(group, volumes, warn)
        found.append(group)
    return found


def _collect(group: VolumeGroup, volumes: list[PhysicalVolume], warn: Warn) -> None:
    """The physical volumes given that the newest metadata name."""
    members = {section.get("id") for _, section in lvmtext.sections(_physical_section(group))}
    for volume in volumes:
        if volume.uuid in members:
            group.duplicates.setdefault(volume.uuid, []).append(volume.medium.name)
            group.media[volume.uuid] = volume.medium
            for problem in volume.problems:
                warn(f"{problem}: another copy is used")
            for seqno in {copy.seqno for copy in volume.copies if copy.vg_uuid == group.uuid} - {group.seqno}:
                warn(f"{volume.medium.name}: its metadata of {group.name} are old ({seqno}, newest {group.seqno})")
        elif any(copy.vg_uuid == group.uuid for copy in volume.copies):
            warn(f"{volume.medium.name}: it was taken out of volume group {group.name} and is not used")


def _physical_section(group: VolumeGroup) -> Section:
    found = group.tree.get("physical_volumes", {})
    return found if isinstance(found, dict) else {}
