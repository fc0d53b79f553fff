"""resolve finds a volume inside the devices given: what is in what, which selector names it, and what there is instead.

It reads tables and metadata only, nothing but the devices given, and each once. Nothing is chosen that was not asked
for: a container without a selector is refused with a list of what is in it. An array is no container: its member
stands for it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from splitreel.core.device import BlockDevice
from splitreel.errors import Corrupt, NotFound, SplitreelError, Unsupported, UsageError
from splitreel.probe import probe
from splitreel.stack import lvm, md, mdarray, partitions
from splitreel.stack.lvmmap import Mapper
from splitreel.stack.medium import Medium, given

DEEPEST = 8  # containers in containers
MOST_LISTED = 100
TABLES = ("GPT partition table", "DOS partition table")
PHYSICAL = "LVM2 member"
MEMBER = "Linux RAID member"
# Their boot sectors look like partition tables.
BOOTABLE = ("vfat", "ntfs", "exfat", "iso9660")
WHOLE = "0"
ADVICE = "Give one of these options, or --raw for all of the device as one file."
MEMBER_ADVICE = " To read the device as it is, give --volume 0."

Warn = Callable[[str], None]


@dataclass
class Node:
    """A medium and what was found in it; ``selector`` names it from the first device on, None where nothing does.

    ``array`` is what it is a member of; ``problem`` why what is in it could not be looked at.
    """

    medium: Medium
    selector: str | None
    kind: str | None = None
    table: partitions.Table | None = None
    children: "list[Node]" = field(default_factory=list)
    superblock: md.Superblock | None = None
    array: "Node | None" = None
    physical: lvm.PhysicalVolume | None = None
    problem: SplitreelError | None = None

    def inner(self, part: str) -> str | None:
        """The selector of something inside it."""
        return None if self.selector is None else f"{self.selector}:{part}".lstrip(":")

    def through(self) -> "Node":
        """Itself, or the array that it stands for. Raises what keeps it from being looked into."""
        if self.problem is not None:
            raise self.problem
        return self if self.array is None else self.array.through()

    def below(self) -> "Iterator[Node]":
        """It and all that is in it."""
        yield self
        for child in self.children:
            yield from child.below()
        if self.array is not None:
            yield from self.array.below()


@dataclass(frozen=True)
class Choice:
    """A line of the list of what there is; ``size`` in bytes, None when it is not known."""

    selector: str
    size: int | None
    holds: str

    def line(self, width: int) -> str:
        """The option to give, the size, what it holds."""
        size = _size(self.size) if self.size is not None else "-"
        return f"--volume {self.selector:<{width}}  {size:>10}  {self.holds}"


class Stack:
    """All that is in the media given, the first of which selectors begin from. One thread.

    ``prefix`` is the selector of the first one, when it is itself inside something.
    """

    def __init__(self, media: Sequence[Medium], warn: Warn, prefix: str = "") -> None:
        self._warn = warn
        self._members: dict[bytes, list[Node]] = {}
        self.roots = [Node(medium, prefix if index == 0 else None) for index, medium in enumerate(media)]
        for root in self.roots:
            self._scan(root, 0)
        while self._members:
            self._assemble(*self._members.popitem())
        nodes = [node for root in self.roots for node in root.below()]
        # an array is below each of its members
        physical = {id(node.physical): node.physical for node in nodes if node.physical is not None}
        self.groups = lvm.groups(physical.values(), warn)

    # Looking.

    def _scan(self, node: Node, depth: int) -> None:
        """What a medium holds, and what that holds."""
        node.kind = probe(node.medium.device)
        if depth >= DEEPEST:
            return
        try:
            self._look(node)
        except SplitreelError as error:
            node.problem = error
        if node.superblock is not None:
            node.kind = MEMBER
            self._members.setdefault(node.superblock.uuid, []).append(node)
        elif node.table is not None:
            self._scan_partitions(node, node.table, depth)

    def _look(self, node: Node) -> None:
        """An array's member is that before all else: a raid0's first one begins like the file system on the array."""
        superblock = md.find(node.medium)
        # The table of a partitioned array stands on its members too: it is looked for on the array.
        if superblock is None or superblock.version == "0.90":
            node.table = self._table(node)
        if superblock is not None and not _belongs_to_partition(node, superblock):
            node.superblock, node.table = superblock, None
        elif (name := md.foreign(node.medium)) is not None:
            advice = f"Give the array itself, as its own driver presents it.{MEMBER_ADVICE}"
            raise Unsupported(f"reading {node.medium.name}", f"it is a member of {name}", advice)
        elif node.kind == PHYSICAL:
            node.physical = lvm.read(node.medium)
            if node.physical is None:
                raise Corrupt(f"LVM label of {node.medium.name}", "none passes its checks", lvm.ADVICE)

    def _table(self, node: Node) -> partitions.Table | None:
        if node.kind in BOOTABLE:
            return None
        try:
            return partitions.read(node.medium, self._warn)
        except SplitreelError:
            if node.kind in (None, *TABLES):
                raise
            return None  # before a file system, a leftover

    def _scan_partitions(self, node: Node, table: partitions.Table, depth: int) -> None:
        for partition in table.partitions:
            try:
                medium = partitions.pick(node.medium, table, partition.number)
            except SplitreelError:
                continue  # told when it is asked for
            child = Node(medium, node.inner(str(partition.number)))
            node.children.append(child)
            self._scan(child, depth + 1)

    def _assemble(self, uuid: bytes, nodes: list[Node]) -> None:
        """An array of all its members found; it may hold members of another one."""
        members = [mdarray.Member(node.medium, node.superblock) for node in nodes if node.superblock is not None]
        try:
            medium = mdarray.assemble(members, self._warn)
        except SplitreelError as error:
            error.advice += MEMBER_ADVICE
            for node in nodes:
                node.problem = error
            return
        array = Node(medium, next((node.selector for node in nodes if node.selector is not None), None))
        for node in nodes:
            node.array = array
        self._scan(array, min((array.selector or "").count(":") + 1, DEEPEST))

    # Choosing.

    def open(self, volume: str | None, raw: bool) -> Medium:
        """What a selector names, or the first medium; see open_volume."""
        node = self.roots[0]
        if volume == WHOLE:
            return node.medium
        parts = volume.split(":") if volume is not None else []
        for index, part in enumerate(parts):
            node = node.through()
            if "/" in part:
                medium = self._logical(node, part, volume or "")
                inside = Stack([medium], self._warn, node.inner(part) or part)
                return inside.open(":".join(parts[index + 1 :]) or None, raw)
            node = self._partition(node, part, volume or "")
        node = node.through()
        if not raw:
            self._refuse_container(node)
        return node.medium

    def _partition(self, node: Node, part: str, volume: str) -> Node:
        if not part.isascii() or not part.isdigit():
            raise self._absent(volume, f"{part!r} is neither a partition's number nor VG/LV")
        if node.table is None:
            raise self._absent(volume, f"{node.medium.name} holds no partition table")
        try:
            medium = partitions.pick(node.medium, node.table, int(part))
        except KeyError:
            raise self._absent(volume, f"{node.medium.name} has no partition {part}") from None
        return next(child for child in node.children if child.medium.name == medium.name)

    def _logical(self, node: Node, part: str, volume: str) -> Medium:
        """A logical volume: of any group from the first device, below it of those that have a part there."""
        group_name, name = part.split("/", 1)
        groups = [group for group in self.groups if group_name in (group.name, group.uuid)]
        if node is not self.roots[0].through():
            media = [below.medium for below in node.below()]
            groups = [group for group in groups if any(medium in media for medium in group.media.values())]
        if not groups:
            self._raise_unread(node)
            raise self._absent(volume, f"no volume group {group_name} there")
        if len(groups) > 1:
            uuids = ", ".join(group.uuid for group in groups)
            raise UsageError(
                f"volume {volume}", f"{len(groups)} groups bear that name: {uuids}", "Name it by its UUID."
            )
        try:
            return Mapper(groups[0], self.roots[0].medium.name, self._warn).open(name)
        except KeyError:
            raise self._absent(volume, f"volume group {group_name} has no logical volume {name}") from None

    def _raise_unread(self, node: Node) -> None:
        """Metadata that could not be read say more than that a name is not there."""
        for below in node.below():
            if below.problem is not None:
                raise below.problem
            if below.physical is not None and below.physical.problems and not below.physical.copies:
                raise below.physical.problems[0]

    def _absent(self, volume: str, why: str) -> NotFound:
        return NotFound(f"volume {volume} of {self.roots[0].medium.name}", why + self._listed(self.roots[0]), ADVICE)

    def _refuse_container(self, node: Node) -> None:
        """Never guess: what holds volumes is not read as if it were one."""
        if node.physical is None and node.table is None and node.kind not in TABLES:
            return
        listed = self._listed(node)
        if not listed:
            self._raise_unread(node)
        raise UsageError(f"reading {node.medium.name}", f"it holds volumes: {_called(node)}{listed}", ADVICE)

    # What there is.

    def _listed(self, node: Node) -> str:
        choices = [*self._partition_choices(node), *self._logical_choices(node)]
        if not choices:
            return ""
        width = max(len(choice.selector) for choice in choices)
        lines = [choice.line(width) for choice in choices[:MOST_LISTED]]
        if len(choices) > MOST_LISTED:
            lines.append(f"and {len(choices) - MOST_LISTED} more")
        return "; there is:" + "".join(f"\n       {line}" for line in lines)

    def _partition_choices(self, node: Node) -> Iterator[Choice]:
        """Every partition in a node that a selector names."""
        node = _inside(node)
        found = {child.selector: child for child in node.children}
        for partition in node.table.partitions if node.table is not None else ():
            selector = node.inner(str(partition.number))
            if selector is None or partition.extended:
                continue
            child = found.get(selector)
            yield Choice(selector, partition.size, "cannot be read" if child is None else _holds(child))
            if child is not None:
                yield from self._partition_choices(child)
        if node.table is not None and node.kind not in (None, *TABLES) and node.selector == "":
            yield Choice(WHOLE, node.medium.size, f"{node.kind}, if the partition table is a leftover")

    def _logical_choices(self, node: Node) -> Iterator[Choice]:
        """Every logical volume of the groups that have a part in a node; of all groups from the first device."""
        media = [below.medium for below in node.below()]
        for group in self.groups:
            from_here = [medium for medium in group.media.values() if medium in media]
            if not from_here and node is not _inside(self.roots[0]):
                continue
            mapper = Mapper(group, self.roots[0].medium.name, lambda _: None)
            for name in mapper.visible():
                selector = f"{group.name}/{name}" if self._is_only(group) else f"{group.uuid}/{name}"
                prefix = self.roots[0].selector
                yield _logical_choice(mapper, name, f"{prefix}:{selector}" if prefix else selector)

    def _is_only(self, group: lvm.VolumeGroup) -> bool:
        return sum(other.name == group.name for other in self.groups) == 1


def _belongs_to_partition(node: Node, superblock: md.Superblock) -> bool:
    """Version 0.90 does not say where it stands: at the end of a disk it may be that of the last partition."""
    if superblock.version != "0.90" or node.table is None:
        return False
    at = (node.medium.size & ~0xFFFF) - 0x10000
    return any(partition.start <= at < partition.start + partition.size for partition in node.table.partitions)


def _inside(node: Node) -> Node:
    """What a node stands for, or itself where that cannot be looked into."""
    try:
        return node.through()
    except SplitreelError:
        return node


def _called(node: Node) -> str:
    if node.table is None or node.kind in TABLES:
        return node.kind or "nothing known"
    return f"{node.table.kind} partition table" + (f" and {node.kind}" if node.kind else "")


def _holds(node: Node) -> str:
    """In a few words, what is in a node."""
    if node.problem is not None:
        return f"{node.kind or 'nothing known'}: {node.problem.why}"
    if node.array is not None and node.superblock is not None:
        return f"{node.superblock.level_name} array: {_holds(node.array)}"
    if node.physical is not None and node.physical.copies:
        return f"{PHYSICAL} of {node.physical.copies[0].vg_name}"
    return node.kind or "nothing known"


def _logical_choice(mapper: Mapper, name: str, selector: str) -> Choice:
    try:
        medium = mapper.open(name)
        return Choice(selector, medium.size, probe(medium.device) or "nothing known")
    except SplitreelError as error:
        return Choice(selector, None, error.why)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def open_volume(
    devices: Sequence[BlockDevice], volume: str | None = None, *, raw: bool = False, warn: Warn | None = None
) -> BlockDevice:
    """The volume that a selector names inside the first of ``devices``, or that device itself.

    Args:
        devices: the device to read, then what else belongs to it. They must stay open as long as the result is used.
        volume: ``2`` (a partition), ``vg0/data``, chains such as ``3:vg0/data``; ``0`` for the device as it is; None
            when the device, or the array that it is a member of, is the volume.
        raw: what is named may be a container: it is wanted byte by byte.
        warn: told what is worth knowing; a line each.

    Raises:
        UsageError: it is a container and no volume was named; the reason lists them.
        NotFound: there is no such volume, or a device of it is missing; the reason says what there is.
        SplitreelError: a table or metadata on the way to it are damaged, or not supported.
    """
    return Stack([given(device) for device in devices], warn or (lambda _: None)).open(volume, raw).device


def file_name(volume: BlockDevice, base: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> bytes:
    """What a volume of the device ``base`` is called as one file: ``sdb``, ``sdb-2`` or ``vg0-data``."""
    whole = os.fsencode(base)
    parts = os.fsencode(volume.path).removeprefix(whole).lstrip(b":").split(b":")
    if b"/" in parts[-1]:
        return parts[-1].replace(b"/", b"-")
    return b"-".join(part for part in (whole.rstrip(b"/").rsplit(b"/", 1)[-1], *parts) if part)
