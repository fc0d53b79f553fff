"""mirror is the interface to whatever can be split, and the list of its kinds. It knows no database.

States: "none" (no copy, or one nobody vouches for), "copying", "in-sync", "split", "rejoining", "unknown" (not told).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from splitreel import kinds

STATES = ("none", "copying", "in-sync", "split", "rejoining", "unknown")

# Enter to hold the primary's file system still for a moment, leave to let it go: for mirrors that need it to rejoin.
Hold = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class SplitImage:
    """A mirror as it was at one instant: where to read it. ``offset`` is the byte where the volume begins."""

    path: str
    offset: int = 0


class Mirror(Protocol):
    """A second copy in the same storage platform.

    It may have an attribute ``waiting``, a text that says what its own thread waits for at the moment, "" for nothing:
    "copying 34 %, 1.2 GiB to go". Another thread reads it.
    """

    name: str

    def check(self) -> None:
        """Verify everything that can be verified without an effect. Raises MirrorError."""

    def check_primary(self, device: str) -> None:
        """Verify, as far as can be told, that this is a mirror of ``device``, the primary's. Raises MirrorError."""

    def cost(self) -> str:
        """What a rejoin copies, and what being split costs, in a sentence. Raises MirrorError."""

    def files(self) -> list[str]:
        """Local files that the mirror needs while the primary's file system is frozen: they must lie elsewhere."""

    def state(self) -> str:
        """One of STATES. Raises MirrorError when the platform does not answer."""

    def establish(self) -> None:
        """Begin the first full copy, or do nothing when there is one. Raises MirrorError."""

    def wait_in_sync(self, timeout_s: float) -> None:
        """Wait until the copy has caught up. Raises MirrorError."""

    def is_in_sync(self) -> bool:
        """True when a split would give a copy of this instant without waiting. Raises MirrorError."""

    def flush(self) -> None:
        """Right before the window: put what the mirror has on its medium, and start to track changes."""

    def split(self) -> SplitImage:
        """Within the window: part the mirror from the primary as both are now. Raises MirrorError."""

    def dirty_bytes(self) -> int | None:
        """How many bytes differ by now, or None when the platform does not tell."""

    def resynced_bytes(self) -> int | None:
        """How many bytes the last ``rejoin`` of this object copied, or None when the platform does not tell."""

    def rejoin(self, hold: Hold) -> None:
        """Copy back what changed, and mirror again. Returns when in sync. Raises MirrorError."""

    def forget(self) -> None:
        """Believe nothing of the copy any more: the next ``establish`` copies in full."""

    def close(self) -> None:
        """Drop connections; the mirror stays as it is. Harmless twice."""


# type -> (module, class); the class has KEYS: key -> (kind, required), kinds as in splitreel.config
TYPES: dict[str, tuple[str, str]] = {
    "qemu": ("splitreel.mirror.qemu", "QemuMirror"),
    "command": ("splitreel.mirror.command", "CommandMirror"),
    "md": ("splitreel.mirror.md", "MdMirror"),
    "reflink": ("splitreel.mirror.reflink", "ReflinkMirror"),
    "lvm": ("splitreel.mirror.lvm", "LvmMirror"),
    "static": ("splitreel.mirror.static", "StaticMirror"),
}


def keys(kind: str) -> dict[str, tuple[str, bool]]:
    """The configuration keys of one kind: key -> (value kind, required). Raises KeyError."""
    return kinds.keys_of(TYPES, kind)


def create(settings: Mapping[str, Any]) -> Mirror:
    """The mirror that a validated table of the configuration describes; it touches nothing yet.

    Raises:
        UsageError: there is no such type.
    """
    return cast(Mirror, kinds.make("mirror", TYPES, settings))
