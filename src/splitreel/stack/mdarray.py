"""mdarray puts Linux software RAID together from the members given: raid1, raid0 and linear. It reads no superblock.

Every member that is needed must be there and up to date; what is not is named by its role. Sources: drivers/md/raid1.c,
raid0.c (create_strip_zones, map_sector) and md-linear.c of the kernel.
"""

from collections.abc import Callable
from dataclasses import dataclass

from splitreel.core.spans import Linear, Span, Striped
from splitreel.errors import Corrupt, NeedsRecovery, NotFound, SplitreelError, Unsupported
from splitreel.stack.md import FAULTY, SPARE, Superblock
from splitreel.stack.medium import Area, Medium, common_sector_size, made

READ = ("raid1", "raid0", "linear")
ORIGINAL, ALTERNATE = 1, 2
EVENT_MARGIN = 1  # superblocks are not written at one instant: the kernel allows as much

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Member:
    """A medium with its superblock."""

    medium: Medium
    superblock: Superblock


def assemble(members: list[Member], warn: Warn) -> Medium:
    """The array that the members, all of one UUID, make up.

    Raises:
        Unsupported: its level or state is not read; it is named.
        NotFound: a member is missing; its role is named.
        NeedsRecovery: a member is stale or was being rebuilt.
        Corrupt: members contradict one another.
    """
    first = members[0].superblock
    what = f"{first.level_name} array {first.name or first.uuid.hex()} on {members[0].medium.name}"
    if first.level_name not in READ:
        raise Unsupported(what, f"level {first.level_name} is not read by this version")
    for member in members:
        _refuse_member(what, member)
        _refuse_stranger(what, first, member.superblock)
    current = _current(what, members)
    name = members[0].medium.name
    if first.level_name == "raid1":
        return _mirror(what, current, name, warn)
    return _whole(what, current, name)


def _refuse_member(what: str, member: Member) -> None:
    superblock, name = member.superblock, member.medium.name
    if superblock.problem:
        raise Unsupported(what, f"{name}: {superblock.problem}", "Let mdadm finish, then make the mirror again.")
    if superblock.recovery is not None:
        why = f"{name} was being rebuilt: it is whole only up to sector {superblock.recovery}"
        raise NeedsRecovery(what, why, "Leave it out, or wait until it is in sync and make the mirror again.")
    if superblock.role == SPARE:
        raise Unsupported(what, f"{name} is a spare: it holds no data", "Leave it out.")
    if superblock.role >= superblock.devices:
        state = "failed" if superblock.role == FAULTY else f"role {superblock.role}"
        raise Unsupported(what, f"{name} is no active member ({state})", "Leave it out.")
    if superblock.bad_blocks:
        why = f"{name} records {superblock.bad_blocks} ranges of bad blocks: they hold old data"
        raise Unsupported(what, why, "Give another member alone, or mirror the array itself.")


def _refuse_stranger(what: str, first: Superblock, other: Superblock) -> None:
    for field in ("version", "level", "chunk", "devices", "layout"):
        if getattr(first, field) != getattr(other, field):
            raise Corrupt(what, f"its members differ in {field}: {getattr(first, field)}, {getattr(other, field)}")


def _current(what: str, members: list[Member]) -> dict[int, Member]:
    """The members by role, after all that the freshest superblock says against them."""
    freshest = max((member.superblock for member in members), key=lambda superblock: superblock.events)
    by_role: dict[int, Member] = {}
    for member in members:
        superblock, name = member.superblock, member.medium.name
        if superblock.events + EVENT_MARGIN < freshest.events:
            why = f"{name} is stale: event {superblock.events}, the newest member has {freshest.events}"
            raise NeedsRecovery(what, why, "Leave it out, or make the mirror again from a member in sync.")
        role = freshest.roles[superblock.number] if superblock.number < len(freshest.roles) else SPARE
        if role != superblock.role:
            why = f"{name}: a newer superblock says that it failed or was taken out"
            raise NeedsRecovery(what, why, "Leave it out, or make the mirror again from a member in sync.")
        if role in by_role:
            why = f"{name} and {by_role[role].medium.name} both have role {role}"
            raise Corrupt(what, why, "Give one copy of each member.")
        by_role[role] = member
    return by_role


# raid1


def _mirror(what: str, members: dict[int, Member], name: str, warn: Warn) -> Medium:
    """One member holds it all: the newest, of several the first, from which the kernel synchronises the others."""
    newest = max(member.superblock.events for member in members.values())
    role = min(role for role, member in members.items() if member.superblock.events == newest)
    chosen = members[role]
    superblock = chosen.superblock
    if superblock.size > superblock.data_size:
        raise Corrupt(what, f"{chosen.medium.name}: {superblock.data_size} bytes of data, {superblock.size} of array")
    if role and superblock.resync:
        why = f"{chosen.medium.name} was being synchronised from another member, up to sector {superblock.resync}"
        raise NeedsRecovery(what, why, "Give the member with role 0, or wait until the array is in sync.")
    if role and superblock.resync is not None:
        warn(f"{chosen.medium.name}: the array was being written when it was split: right only if that was in sync")
    area = (chosen.medium, superblock.data_offset)
    return made([area], [Linear(superblock.size, 0, superblock.data_offset)], name, chosen.medium.sector_size)


# raid0 and linear


def _whole(what: str, members: dict[int, Member], name: str) -> Medium:
    """An array that needs every member."""
    count = next(iter(members.values())).superblock.devices
    missing = [str(role) for role in range(count) if role not in members]
    if missing:
        why = f"the members with role {', '.join(missing)} of {count} are not among the devices given"
        raise NotFound(what, why, "Give them too: --with DEVICE")
    ordered = [members[role] for role in range(count)]
    superblock = ordered[0].superblock
    areas: list[Area] = [(member.medium, member.superblock.data_offset) for member in ordered]
    sizes = [member.superblock.data_size for member in ordered]
    if superblock.level_name == "linear":
        spans = _concatenated(areas, sizes, superblock.chunk)
    else:
        spans = _zones(what, areas, sizes, superblock)
    return made(areas, spans, name, common_sector_size(medium for medium, _ in areas))


def _concatenated(areas: list[Area], sizes: list[int], chunk: int) -> list[Span]:
    rounded = [size - size % chunk if chunk else size for size in sizes]
    return [Linear(size, index, areas[index][1]) for index, size in enumerate(rounded) if size]


def _zones(what: str, areas: list[Area], sizes: list[int], superblock: Superblock) -> list[Span]:
    """A raid0's zones: the first over all members up to the smallest one's end, the next over those that go on.

    The original layout counts chunks from the array's beginning to choose the member, so that a zone may begin with
    any of its members; the alternate one, of kernels 3.14 to 5.3, counts from the zone's.
    """
    chunk = superblock.chunk
    if chunk <= 0 or chunk % 512:
        raise Corrupt(what, f"chunks of {chunk} bytes")
    rounded = [size - size % chunk for size in sizes]
    ends = sorted(set(rounded) - {0})
    if not ends:
        raise Corrupt(what, "its members are smaller than a chunk")
    if len(ends) > 1 and superblock.layout not in (ORIGINAL, ALTERNATE):
        raise _unknown_layout(what, superblock)
    spans: list[Span] = []
    begin = at = 0
    for end in ends:
        legs = [index for index, size in enumerate(rounded) if size > begin]
        if superblock.layout != ALTERNATE:
            turn = at // chunk % len(legs)
            legs = legs[turn:] + legs[:turn]
        size = (end - begin) * len(legs)
        spans.append(Striped(size, chunk, [(leg, areas[leg][1] + begin) for leg in legs]))
        begin, at = end, at + size
    return spans


def _unknown_layout(what: str, superblock: Superblock) -> SplitreelError:
    why = "its members differ in size, and the superblock does not say by which of two layouts (kernels differ)"
    if superblock.layout is not None:
        why = f"its members differ in size, and its layout {superblock.layout} is not known"
    return Unsupported(what, why, "Record it with mdadm --assemble --update=layout-original (or -alternate), if known.")
