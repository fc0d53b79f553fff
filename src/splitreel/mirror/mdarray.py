"""mdarray reads the state of a running array of Linux software RAID from sysfs. It changes nothing.

Source: Documentation/admin-guide/md.rst of the kernel. One attribute is read after the other, the action first: a
recovery that ends in between then shows as still running, and never as an idle array that lacks a member.
"""

from dataclasses import dataclass
from pathlib import Path

from splitreel.errors import MirrorError

SECTOR = 512


@dataclass(frozen=True)
class Member:
    """One device of an array; ``node`` is its kernel name, ``offset`` the byte where the array's data begin."""

    node: str
    states: frozenset[str]
    offset: int
    has_bad_blocks: bool

    @property
    def in_sync(self) -> bool:
        """It holds what the array holds."""
        return "in_sync" in self.states and "faulty" not in self.states


@dataclass(frozen=True)
class Array:
    """An array as sysfs shows it; ``bitmap`` is its place in sectors from the superblock, "none" or "file"."""

    level: str
    devices: int
    degraded: int
    state: str
    action: str
    metadata: str
    size: int
    bitmap: str
    bitmap_kind: str
    write_behind: int
    clearing_s: float
    members: tuple[Member, ...]

    def member(self, node: str) -> Member | None:
        """The member of that kernel name, or None."""
        return next((member for member in self.members if member.node == node), None)

    @property
    def is_whole(self) -> bool:
        """Every member is there and nothing is being copied: idle alone is also what a split array is."""
        return self.action == "idle" and self.degraded == 0


def read(md: Path, name: str) -> Array:
    """The array whose directory ``md`` (/sys/block/mdN/md) is; ``name`` is for messages.

    Raises:
        MirrorError: there is no such array, or it does not run.
    """
    if not (md / "level").exists():
        raise MirrorError(name, "it is no running software RAID array", "Correct `array`; see /proc/mdstat.")
    try:
        action = _text(md / "sync_action", "idle")
        return Array(
            action=action,
            level=_text(md / "level"),
            devices=_number(md / "raid_disks"),
            degraded=_number(md / "degraded"),
            state=_text(md / "array_state"),
            metadata=_text(md / "metadata_version"),
            size=_number(md / "component_size") * 1024,
            bitmap=_text(md / "bitmap/location", "none"),
            bitmap_kind=_text(md / "bitmap/metadata", "internal"),
            write_behind=_number(md / "bitmap/backlog"),
            clearing_s=float(_text(md / "bitmap/time_base", "5")),
            members=tuple(found for entry in sorted(md.glob("dev-*")) if (found := _member(entry)) is not None),
        )
    except (OSError, ValueError) as error:
        raise MirrorError(name, f"its state in sysfs cannot be read: {error}") from error


def _member(entry: Path) -> Member | None:
    """A member; None for one that went away while it was read."""
    try:
        return Member(
            node=entry.name.removeprefix("dev-"),
            states=frozenset(_text(entry / "state").split(",")),
            offset=int(_text(entry / "offset")) * SECTOR,
            has_bad_blocks=bool(_text(entry / "bad_blocks", "")),
        )
    except OSError:
        return None


def _text(path: Path, default: str | None = None) -> str:
    """What an attribute says; ``default`` when this array or kernel has no such attribute."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        if default is None:
            raise
        return default


def _number(path: Path) -> int:
    """A number, 0 where there is no such attribute or no such value: a raid0 has nothing to be degraded."""
    text = _text(path, "0")
    return int(text) if text.isdecimal() else 0
