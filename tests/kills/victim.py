"""victim is a session that stops at one point of its way and waits there to be hit. It is started as a process.

``python -m tests.kills.victim CONFIG STATE POINT TOLD GO``: TOLD and GO are descriptors of pipes; a byte is written to
the one when the point is reached, and one from the other lets it go on. Inside the window it does nothing else.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from splitreel.__main__ import main
from splitreel.session.mirrored import MirroredVolume
from splitreel.session.phases import Session, phase_order

# Besides the phases, as each begins: the mirror is parted and the journal does not know it; a segment is confirmed on
# tape; the journal says that the mirror rejoins, and it has not begun.
POINTS = (*phase_order("premapped", "after-split"), "split-done", "confirmed", "rejoin-begun")


def stop_at(point: str, told: int, go: int) -> None:
    """Have every session of this process wait at ``point``, once."""
    left = [point]

    def pause(name: str) -> None:
        if left == [name]:
            left.clear()
            os.write(told, b"x")
            os.read(go, 1)

    def around(kind: type, name: str, before: str = "", after: str = "") -> None:
        real: Callable[..., Any] = getattr(kind, name)

        def paused(*arguments: Any) -> Any:
            pause(before)
            result = real(*arguments)
            pause(after)
            return result

        setattr(kind, name, paused)

    Session.enter = lambda self, phase: pause(phase)  # type: ignore[method-assign]
    around(MirroredVolume, "split", after="split-done")
    around(Session, "_confirmed", after="confirmed")
    around(MirroredVolume, "put_back", before="rejoin-begun")


if __name__ == "__main__":
    stop_at(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    sys.exit(main(["--state", sys.argv[2], "backup", sys.argv[1]]))
