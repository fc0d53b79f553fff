"""lvmmap turns a logical volume into stretches of physical volumes. It reads only what says which mirror leg is good.

Segment types: linear and striped, raid0, one leg of raid1 and mirror, zero. Every other one is refused by its name.
Sources: lvm2's lib/format_text/import_vsn1.c, lib/striped, lib/raid and lib/mirror.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from splitreel.core.spans import Linear, Span, Striped, Zero
from splitreel.errors import Corrupt, NotFound, SplitreelError, Unsupported
from splitreel.stack import lvmtext, raidmeta
from splitreel.stack.lvm import ADVICE, SECTOR, VolumeGroup
from splitreel.stack.lvmtext import Section
from splitreel.stack.medium import Area, Medium, common_sector_size, made

DEEPEST = 4  # logical volumes in logical volumes; LVM stacks three
MOST_SEGMENTS = 1 << 20
STORES = ("cow_store", "merging_store")  # of a snapshot
PVMOVE_ADVICE = "Let pvmove end (or pvmove --abort) on the machine it belongs to, then make the mirror again."

Warn = Callable[[str], None]


@dataclass(frozen=True)
class _Physical:
    """A physical volume as the group's metadata name it; sizes in bytes."""

    uuid: str
    start: int
    extents: int
    hint: str
    missing: bool


class Mapper:
    """The logical volumes of one group. ``base`` is what their names in messages begin with."""

    def __init__(self, group: VolumeGroup, base: str, warn: Warn) -> None:
        self.group = group
        self._base = base
        self._warn = warn
        self._what = f"volume group {group.name}"
        self.volumes = dict(lvmtext.sections(_optional(group.tree, "logical_volumes")))
        self._open: list[str] = []
        self._made: dict[str, Medium] = {}

    @property
    def _extent(self) -> int:
        return lvmtext.number(self.group.tree, "extent_size", self._what, 1) * SECTOR

    # What there is.

    def visible(self) -> list[str]:
        """The names of logical volumes that are there for use; a snapshot's is that of its store."""
        found = []
        for name, volume in self.volumes.items():
            store = next((part for part in self._segments(name) if part.get("type") == "snapshot"), None)
            if store is not None:
                found += [text for key in STORES if isinstance(text := store.get(key), str)]
            elif "VISIBLE" in lvmtext.texts(volume, "status"):
                found.append(name)
        return found

    def size(self, name: str) -> int:
        """Bytes. Raises Corrupt."""
        return sum(lvmtext.number(part, "extent_count", name, 1) for part in self._segments(name)) * self._extent

    # One volume.

    def open(self, name: str) -> Medium:
        """A logical volume that is there for use.

        Raises:
            KeyError: there is none of this name.
            Unsupported: it cannot be read, by name of its segment type or state.
            NotFound: a physical volume of it was not given.
            Corrupt: the metadata contradict themselves.
        """
        if name not in self.volumes or not (name in self.visible() or self._is_leg(name)):
            raise KeyError(name)
        self._refuse_group()
        self._refuse_snapshot(name)
        return self._medium(name)

    def _is_leg(self, name: str) -> bool:
        return any(part in name for part in ("_rimage_", "_mimage_"))

    def _refuse_group(self) -> None:
        if self.group.problem is not None:
            raise self.group.problem
        if "EXPORTED" in lvmtext.texts(self.group.tree, "status"):
            raise Unsupported(self._what, "it is exported", "Split the mirror before vgexport, or after vgimport.")
        for uuid, names in self.group.duplicates.items():
            if len(names) > 1:
                why = f"physical volume {uuid} was given {len(names)} times: {', '.join(names)}"
                raise Corrupt(self._what, why, "Give one copy of each physical volume.")

    def _refuse_snapshot(self, name: str) -> None:
        """A snapshot's own volume holds exceptions, not data; an origin that is merged into is neither old nor new."""
        for part in (part for volume in self.volumes for part in self._segments(volume)):
            if part.get("type") != "snapshot":
                continue
            merging = part.get("merging_store")
            if name in (part.get(key) for key in STORES):
                raise self._unsupported(name, "segment type snapshot: it holds only what changed in its origin")
            if merging is not None and name == part.get("origin"):
                raise self._unsupported(name, f"snapshot {merging} is being merged into it")

    def _unsupported(self, name: str, why: str) -> Unsupported:
        return Unsupported(
            f"logical volume {self.group.name}/{name}", why, "Back it up as the machine it belongs to presents it."
        )

    def _medium(self, name: str) -> Medium:
        """Any logical volume, also one that is part of another; each is looked at once, however often it is named."""
        if name in self._made:
            return self._made[name]
        if name in self._open or len(self._open) >= DEEPEST:
            why = "is part of itself" if name in self._open else f"lies in {len(self._open)} others"
            raise Corrupt(self._what, f"logical volume {name} {why}", ADVICE)
        self._open.append(name)
        try:
            areas: list[Area] = []
            spans: list[Span] = []
            for part in self._ordered(name):
                self._add(name, part, areas, spans)
        finally:
            self._open.pop()
        sector_size = common_sector_size(medium for medium, _ in areas)
        self._made[name] = made(areas, spans, f"{self._base}:{self.group.name}/{name}", sector_size)
        return self._made[name]

    def _segments(self, name: str) -> Iterator[Section]:
        volume = self.volumes.get(name)
        if volume is None:
            raise Corrupt(self._what, f"a segment names {name}, which is neither physical nor logical volume", ADVICE)
        return (part for key, part in lvmtext.sections(volume) if key.startswith("segment"))

    def _ordered(self, name: str) -> list[Section]:
        """The segments of a volume, which must follow one another from its beginning."""
        what = f"logical volume {self.group.name}/{name}"
        parts = sorted(self._segments(name), key=lambda part: lvmtext.number(part, "start_extent", what))
        if len(parts) != self.volumes[name].get("segment_count") or not 0 < len(parts) <= MOST_SEGMENTS:
            raise Corrupt(what, f"{len(parts)} segments, {self.volumes[name].get('segment_count')!r} announced", ADVICE)
        at = 0
        for part in parts:
            if part["start_extent"] != at:
                raise Corrupt(what, f"no segment for extent {at}", ADVICE)
            at += lvmtext.number(part, "extent_count", what, 1)
        if at * self._extent >= 1 << 63:
            raise Corrupt(what, f"{at} extents", ADVICE)
        return parts

    def _add(self, name: str, part: Section, areas: list[Area], spans: list[Span]) -> None:
        """The stretches of one segment."""
        kind = lvmtext.text(part, "type", self._what)
        size = lvmtext.number(part, "extent_count", name, 1) * self._extent
        if part.get("reshape_count"):
            raise self._unsupported(name, f"segment type {kind} in the middle of a reshape")
        if kind in ("striped", "linear"):
            self._stripe(name, part, size, self._areas(name, part, "stripes", size), areas, spans)
        elif kind == "raid0":
            self._stripe(name, part, size, self._images(name, part, "raid0_lvs"), areas, spans)
        elif kind == "raid0_meta":
            self._stripe(name, part, size, [image for image, _ in self._pairs(name, part)], areas, spans)
        elif kind in ("raid1", "mirror"):
            leg = self._raid1_leg(name, part) if kind == "raid1" else self._mirror_leg(name, part, size)
            if leg[0].size - leg[1] < size:
                raise Corrupt(f"logical volume {self.group.name}/{name}", "a leg is shorter than the volume", ADVICE)
            spans.append(Linear(size, len(areas), leg[1]))
            areas.append(leg)
        elif kind == "zero":
            spans.append(Zero(size))
        else:
            raise self._unsupported(name, f"segment type {kind} is not read by this version")

    # Linear and striped.

    def _stripe(
        self, name: str, part: Section, size: int, legs: list[Area], areas: list[Area], spans: list[Span]
    ) -> None:
        what = f"logical volume {self.group.name}/{name}"
        count = lvmtext.number(part, "stripe_count", what, 1)
        if count != len(legs) or size % count:
            raise Corrupt(what, f"{count} stripes announced, {len(legs)} there, {size} bytes", ADVICE)
        for medium, start in legs:
            if start + size // count > medium.size:
                raise Corrupt(what, f"it ends behind the end of {medium.name}", "A mirror cut short is no copy.")
        first = len(areas)
        areas += legs
        if count == 1:
            spans.append(Linear(size, first, legs[0][1]))
            return
        stripe = lvmtext.number(part, "stripe_size", what, 1) * SECTOR
        if size // count % stripe:
            raise Corrupt(what, f"stripes of {stripe} bytes do not fill {size // count}", ADVICE)
        spans.append(Striped(size, stripe, [(first + index, start) for index, (_, start) in enumerate(legs)]))

    def _areas(self, name: str, part: Section, key: str, size: int) -> list[Area]:
        """The physical or logical volumes that a list of names and extents gives, and the byte in each."""
        found = part.get(key)
        if not isinstance(found, list) or len(found) % 2 or not found:
            raise Corrupt(f"logical volume {self.group.name}/{name}", f"{key} = {found!r}", ADVICE)
        pairs = list(zip(found[::2], found[1::2], strict=True))
        return [self._area(name, medium, extent, size // len(pairs)) for medium, extent in pairs]

    def _area(self, name: str, medium: int | str, extent: int | str, size: int) -> Area:
        if not isinstance(medium, str) or not isinstance(extent, int) or not 0 <= extent < 1 << 32:
            raise Corrupt(f"logical volume {self.group.name}/{name}", f"an area {medium!r}, {extent!r}", ADVICE)
        physical = self._physical(medium)
        if physical is not None:
            return self._given(name, physical, extent, size)
        if "PVMOVE" in lvmtext.texts(self.volumes.get(medium, {}), "status"):
            raise Unsupported(f"logical volume {self.group.name}/{name}", "pvmove is under way", PVMOVE_ADVICE)
        return self._medium(medium), extent * self._extent

    def _physical(self, name: str) -> _Physical | None:
        found = _optional(self.group.tree, "physical_volumes").get(name)
        if not isinstance(found, dict):
            return None
        what = f"physical volume {name} of {self._what}"
        hint = found.get("device")
        missing = "MISSING" in lvmtext.texts(found, "status") + lvmtext.texts(found, "flags")
        return _Physical(
            lvmtext.text(found, "id", what),
            lvmtext.number(found, "pe_start", what) * SECTOR,
            lvmtext.number(found, "pe_count", what),
            hint if isinstance(hint, str) else "unknown",
            missing,
        )

    def _given(self, name: str, physical: _Physical, extent: int, size: int) -> Area:
        """An extent of a physical volume that was given."""
        what = f"logical volume {self.group.name}/{name}"
        if physical.missing:
            raise Unsupported(what, f"physical volume {physical.uuid} is marked as missing: what it holds is old")
        medium = self.group.media.get(physical.uuid)
        if medium is None:
            why = f"physical volume {physical.uuid}, last seen as {physical.hint}, is not among the devices given"
            raise NotFound(what, why, "Give the mirror of that device too: --with DEVICE")
        if (extent * self._extent + size) > physical.extents * self._extent:
            raise Corrupt(what, f"extent {extent} lies behind the end of physical volume {physical.uuid}", ADVICE)
        return medium, physical.start + extent * self._extent

    # Mirrors.

    def _images(self, name: str, part: Section, key: str) -> list[Area]:
        """Logical volumes that are parts of this one."""
        return [(self._medium(image), 0) for image in lvmtext.texts(part, key)]

    def _names(self, name: str, part: Section) -> list[tuple[str, str]]:
        """(metadata volume, image) of each device of a RAID."""
        found = lvmtext.texts(part, "raids")
        if not found or len(found) % 2:
            raise Corrupt(f"logical volume {self.group.name}/{name}", f"raids = {found!r}", ADVICE)
        return list(zip(found[::2], found[1::2], strict=True))

    def _pairs(self, name: str, part: Section) -> list[tuple[Area, str]]:
        return [((self._medium(image), 0), meta) for meta, image in self._names(name, part)]

    def _raid1_leg(self, name: str, part: Section) -> Area:
        """The image that every superblock vouches for; with the first of several equals."""
        legs = []
        refused = []
        for index, (meta, image) in enumerate(self._names(name, part)):
            try:
                legs.append(raidmeta.Leg(index, image, self._medium(image), self._medium(meta)))
            except SplitreelError as error:
                refused.append(error)
                self._warn(f"{self.group.name}/{name}: leg {image} cannot be read: {error}")
        if not legs and refused:
            raise next((error for error in refused if not isinstance(error, NotFound)), refused[0])
        chosen = raidmeta.choose(f"logical volume {self.group.name}/{name}", legs)
        self._warn(f"{self.group.name}/{name}: read from leg {chosen.name}, which is in sync")
        return chosen.medium, 0

    def _mirror_leg(self, name: str, part: Section, size: int) -> Area:
        """The first image: the others are copied from it, and which regions of them are good only the kernel knows."""
        if "extents_moved" in part:
            raise Unsupported(f"logical volume {self.group.name}/{name}", "pvmove is under way", PVMOVE_ADVICE)
        found = part.get("mirrors")
        if not isinstance(found, list) or len(found) % 2 or not found:
            raise Corrupt(f"logical volume {self.group.name}/{name}", f"mirrors = {found!r}", ADVICE)
        area = self._area(name, found[0], found[1], size)
        self._warn(f"{self.group.name}/{name}: read from leg {found[0]}, from which the others are copied")
        return area


def _optional(inside: Section, name: str) -> Section:
    found = inside.get(name)
    return found if isinstance(found, dict) else {}
