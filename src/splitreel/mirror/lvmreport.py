"""lvmreport understands what lvs and lvmconfig print about a mirrored logical volume. It runs no program.

Sources: lvs(8), lvmraid(7), lvmreport(7), LVM 2.03. With all volumes of a group asked for, a RAID's own parts are rows
too: their names are in brackets, but for an image that was split off with its changes tracked.
"""

import json
import re
from dataclasses import dataclass

from splitreel.errors import MirrorError

FIELDS = (
    "vg_name",
    "lv_name",
    "lv_attr",
    "lv_size",
    "lv_active",
    "lv_device_open",
    "lv_dm_path",
    "lv_kernel_minor",
    "lv_health_status",
    "lv_image_synced",
    "segtype",
    "devices",
    "metadata_devices",
    "region_size",
    "copy_percent",
    "raid_sync_action",
    "raid_mismatch_count",
)
DISK_FIELDS = ("pv_name", "pe_start", "vg_extent_size")
COPYING = ("resync", "recover", "reshape")
_AREA = re.compile(r"(.+)\((\d+)\)")

Row = dict[str, str]


@dataclass(frozen=True)
class Leg:
    """One image of a RAID1: ``path`` is its device, ``metadata`` that of its superblock and write-intent bitmap.

    That lies on ``metadata_disk`` from the physical extent ``metadata_extent`` on, also when it has no device.
    """

    name: str
    path: str
    metadata: str
    metadata_disk: str
    metadata_extent: int
    minor: int
    disks: frozenset[str]
    is_split: bool
    is_open: bool
    is_synced: bool


@dataclass(frozen=True)
class LogicalVolume:
    """A logical volume as lvs shows it; sizes in bytes, ``percent`` what is in sync, ``legs`` empty without RAID1."""

    kind: str
    attributes: str
    path: str
    minor: int
    size: int
    region: int
    is_active: bool
    health: str
    percent: str
    action: str
    mismatches: int
    legs: tuple[Leg, ...]

    @property
    def split_leg(self) -> Leg | None:
        """The leg that is split off, its changes tracked; or None."""
        return next((leg for leg in self.legs if leg.is_split), None)

    @property
    def state(self) -> str:
        """One of mirror.STATES."""
        if self.split_leg is not None:
            return "split"
        if self.kind != "raid1" or self.health or len(self.legs) < 2:
            return "none"
        if self.action == "recover":
            return "rejoining"
        return "in-sync" if self._is_complete else "copying"

    @property
    def is_in_sync(self) -> bool:
        """Every leg holds what the others hold, and nothing reads or writes them but their users."""
        return self.state == "in-sync" and self.action == "idle"

    @property
    def _is_complete(self) -> bool:
        return self.action not in COPYING and all(leg.is_synced for leg in self.legs)


def parse(text: str, group: str, volume: str) -> LogicalVolume:
    """The volume in the JSON report of its group.

    Raises:
        MirrorError: it is not there, or this is no such report.
    """
    name = f"lvm {group}/{volume}"
    try:
        rows: list[Row] = [row for report in json.loads(text)["report"] for row in report["lv"]]
        ours = [row for row in rows if row["vg_name"] == group and row["lv_name"].strip("[]") == volume]
        if ours:
            return _volume(ours[0], rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MirrorError(name, f"the report of lvs is not understood: {error!r}") from error
    raise MirrorError(name, "there is no such logical volume", "Correct `lv`; see lvs.")


def unsafe(volume: LogicalVolume, disk: str) -> tuple[str, str]:
    """Why no session may split a leg off this volume, that on ``disk`` if given, and what to do; "" when it may."""
    leg = volume.split_leg
    faults = [
        (not volume.is_active, "it is not active", "lvchange -ay LV"),
        (
            volume.kind != "raid1",
            f"its segment type is {volume.kind}: only a leg of raid1 holds whole files and can be merged back",
            "lvconvert --type raid1 -m1 LV",
        ),
        (
            volume.attributes[:1] not in ("r", "R"),
            f"it is part of something else, or the origin of a snapshot (attributes {volume.attributes})",
            "Use a raid1 of its own.",
        ),
        (len(volume.legs) < 2, "it has one leg", "lvconvert -m1 LV"),
        (leg is not None, f"{leg.name if leg else ''} is split off already", "Run `splitreel resume`."),
        (bool(volume.health), f"it is degraded or damaged: {volume.health}", "See lvmraid(7); lvconvert --repair LV"),
        (volume.mismatches > 0, f"its legs differ in {volume.mismatches} sectors", "lvchange --syncaction repair LV"),
    ]
    found = next(((why, advice) for applies, why, advice in faults if applies), ("", ""))
    return found if found[0] else _unsafe_leg(volume, disk)


def _unsafe_leg(volume: LogicalVolume, disk: str) -> tuple[str, str]:
    leg = chosen(volume, disk)
    if leg is None:
        return f"no leg lies on {disk}", "Correct `disk`; see lvs -a -o name,devices"
    if any(leg.disks & other.disks for other in volume.legs if other is not leg):
        return "two of its legs lie on one disk", "pvmove one of them to another."
    return "", ""


def chosen(volume: LogicalVolume, disk: str) -> Leg | None:
    """The leg to split off: the one on ``disk``, else the last one, as lvconvert does it."""
    legs = [leg for leg in volume.legs if not disk or disk in leg.disks]
    return legs[-1] if legs else None


def settings(text: str) -> dict[str, str]:
    """What ``lvmconfig`` printed: name -> value, without quotation marks."""
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#")]
    return {name.strip(): value.strip().strip('"') for name, _, value in pairs}


def extents_of(text: str, disk: str) -> tuple[int, int]:
    """Where the physical extents of a disk begin, and the size of one, in the JSON report of ``pvs``; bytes.

    Raises:
        MirrorError: this is no such report.
    """
    try:
        rows: list[Row] = [row for report in json.loads(text)["report"] for row in report["pv"]]
        (row,) = (row for row in rows if row["pv_name"] == disk)
        return int(row["pe_start"]), int(row["vg_extent_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise MirrorError(f"lvm: {disk}", f"the report of pvs is not understood: {error!r}") from error


def _volume(row: Row, rows: list[Row]) -> LogicalVolume:
    parts: dict[str, list[Row]] = {}
    for each in rows:
        if each["vg_name"] == row["vg_name"]:
            parts.setdefault(each["lv_name"].strip("[]"), []).append(each)
    legs = []
    if row["segtype"] == "raid1":
        pairs = zip(_areas(row["devices"]), _areas(row["metadata_devices"]), strict=True)
        legs = [_leg(parts[image], parts[metadata][0]) for (image, _), (metadata, _) in pairs]
    return LogicalVolume(
        kind=row["segtype"],
        attributes=row["lv_attr"],
        path=row["lv_dm_path"],
        minor=int(row["lv_kernel_minor"]),
        size=int(row["lv_size"]),
        region=_number(row["region_size"]),
        is_active=row["lv_active"].startswith("active"),
        health=row["lv_health_status"],
        percent=row["copy_percent"],
        action=row["raid_sync_action"],
        mismatches=_number(row["raid_mismatch_count"]),
        legs=tuple(legs),
    )


def _leg(rows: list[Row], metadata: Row) -> Leg:
    """A leg of several segments has several rows."""
    first = rows[0]
    ((disk, extent),) = _areas(metadata["devices"])
    return Leg(
        name=first["lv_name"].strip("[]"),
        path=first["lv_dm_path"],
        metadata=metadata["lv_dm_path"],
        metadata_disk=disk,
        metadata_extent=extent,
        minor=int(first["lv_kernel_minor"]),
        disks=frozenset(disk for row in rows for disk, _ in _areas(row["devices"])),
        is_split=not first["lv_name"].startswith("["),
        is_open=first["lv_device_open"] == "open",
        is_synced=first["lv_image_synced"] == "image synced",
    )


def _areas(text: str) -> list[tuple[str, int]]:
    """``/dev/sda(0),/dev/sdb(5)``: names and extents."""
    return [
        (found[1], int(found[2])) for area in text.split(",") if (found := _AREA.fullmatch(area.strip())) is not None
    ]


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
