"""raidmeta chooses the leg of an LVM raid1 that is good, by the superblocks of dm-raid. It reads no data.

Source: struct dm_raid_superblock of the kernel's drivers/md/dm-raid.c; it bears no checksum, so all is verified.
"""

import struct
from dataclasses import dataclass

from splitreel.errors import Corrupt, Unsupported
from splitreel.stack.medium import Medium

MAGIC = b"DmRd"
IN_SYNC = (1 << 64) - 1
ADVICE = "Wait on the machine it belongs to until lvs shows 100 % in Cpy%Sync, then make the mirror again."

# Magic, compatible features, devices, position, events, failed devices, recovery offset of this device, resync offset
# of the array, level, layout, stripe size
_SUPERBLOCK = struct.Struct("<4sIIIQQQQiII")


@dataclass(frozen=True)
class Leg:
    """An image of the array with its metadata volume."""

    index: int
    name: str
    medium: Medium
    meta: Medium


@dataclass(frozen=True)
class _State:
    devices: int
    position: int
    events: int
    failed: int
    recovery: int
    resync: int
    level: int


def choose(what: str, legs: list[Leg]) -> Leg:
    """The first leg that the newest superblocks call whole.

    Raises:
        Unsupported: none is whole.
        Corrupt: a superblock is another leg's, or there is no leg.
    """
    if not legs:
        raise Corrupt(what, "it has no legs")
    states = {leg.index: _state(leg) for leg in legs}
    known = {index: state for index, state in states.items() if state is not None}
    newest = max((state.events for state in known.values()), default=0)
    failed = 0
    resyncing = False
    for state in known.values():
        if state.events == newest:
            failed |= state.failed
            resyncing = resyncing or state.resync != IN_SYNC
    reasons = []
    for leg in legs:
        why = _refusal(leg, known.get(leg.index), newest, failed, resyncing)
        if not why:
            return leg
        reasons.append(f"{leg.name} {why}")
    raise Unsupported(what, "no leg of it is known to be in sync: " + ", ".join(reasons), ADVICE)


def _state(leg: Leg) -> _State | None:
    head = leg.meta.read(0, _SUPERBLOCK.size)
    if len(head) < _SUPERBLOCK.size or head[:4] != MAGIC:
        return None
    _, _, devices, position, events, failed, recovery, resync, level, _, _ = _SUPERBLOCK.unpack(head)
    if level != 1 or position != leg.index:
        raise Corrupt(f"superblock of {leg.name}", f"it is of level {level}, position {position}")
    return _State(devices, position, events, failed, recovery, resync, level)


def _refusal(leg: Leg, state: _State | None, newest: int, failed: int, resyncing: bool) -> str:
    """Why a leg is not to be read; "" when it is."""
    if state is None:
        return "has no superblock"
    if state.events < newest:
        return f"is stale (event {state.events}, newest {newest})"
    if failed >> leg.index & 1:
        return "is marked as failed"
    if state.recovery != IN_SYNC:
        return "is being rebuilt"
    # While an array is synchronised the first time, the kernel reads from the first leg.
    if resyncing and leg.index:
        return "is being synchronised"
    return ""
