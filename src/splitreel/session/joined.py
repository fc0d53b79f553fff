"""joined lays the split mirrors of a session one behind the other: one device, one map, one backup. It splits none.

On tape the files of each volume lie below a directory of its name. A session of one volume has none of that.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from splitreel.core.mapjoin import join_maps
from splitreel.core.spans import Linear, SpannedDevice, Zero
from splitreel.mapping import Mapped

ALIGNMENT = 1 << 20  # where a volume may begin: a multiple of every file system's and every disk's blocks


Part = tuple[str, Mapped]  # the beginning of its files' paths on tape, and the volume


def verify_unchanged(parts: Sequence[Part]) -> None:
    """Nobody wrote to any of them while it was streamed. Raises Stale."""
    for _, part in parts:
        part.verify_unchanged()


@contextmanager
def joined(parts: Sequence[Part]) -> Iterator[Mapped]:
    """The volumes as one, open as long as the block runs.

    Raises:
        LimitReached: there are more files than a map can hold.
    """
    if len(parts) == 1:
        yield parts[0][1]
        return
    spans: list[Linear | Zero] = []
    starts, at = [], 0
    for index, (_, part) in enumerate(parts):
        gap = -part.device.size % ALIGNMENT
        spans += [Linear(part.device.size, index, 0), *([Zero(gap)] if gap else [])]
        starts.append(at)
        at += part.device.size + gap
    path = b" + ".join(os.fsencode(part.device.path) for _, part in parts)
    with SpannedDevice([part.device for _, part in parts], spans, path=path) as device:
        maps = [(prefix.encode(), part.map, start) for (prefix, part), start in zip(parts, starts, strict=True)]
        yield Mapped(device, join_maps(maps, device.size))
