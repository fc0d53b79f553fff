"""quiesce is the interface to whatever can be held still, and the list of its kinds. It splits no mirror.

Quiescers nest: the database first, the file system innermost; they are released in the opposite order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from splitreel import kinds

# Plain data for the watchdog: ("kill", pidfd), ("group", fd of a file with the number of a process group to kill, 8
# bytes, 0 for none), ("zero", fd of a switch to set to 0), ("thaw", directory fd), ("guest", fd of a connection to a
# guest agent), ("run", (program, argument...)).
Release = tuple[str, int | tuple[str, ...]]


@dataclass(frozen=True)
class Discovery:
    """Which files make up the database: absolute paths, and facts worth keeping, which JSON can hold.

    Facts with an ``engine`` describe a database: they become its entry in the tape's ``session.json``, by which it is
    restored. They are read when ``redo`` has been called: what is known only then (the stop position) may come late.
    ``together``: nothing but one instant makes these files a copy; they are on one file system, or all are frozen.
    """

    files: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    together: bool = False


class Quiescer(Protocol):
    """Something that can be held still. Methods are called in this order, each once, but for ``unquiesce``.

    Between ``quiesce`` and ``unquiesce`` nothing may be logged, imported, allocated in bulk or created on disk.
    It may have an attribute ``waiting``, a text that says what its own thread waits for outside the window, "" for
    nothing: "checkpoint". Another thread reads it.
    """

    name: str

    def check(self) -> None:
        """Verify everything that can be verified without an effect. Raises QuiesceError."""

    def prepare(self) -> None:
        """Open what the window needs, and do what is slow and blocks nobody: checkpoint, flush. Raises QuiesceError."""

    def releases(self) -> list[Release]:
        """What undoes ``quiesce`` when this process cannot; valid from ``prepare`` to ``close``."""

    def frozen(self) -> list[str]:
        """Mount points of the file systems whose writers will wait."""

    def quiesce(self) -> int:
        """Hold it; returns the monotonic time in ns from which a writer may have waited, 0 if none has to.

        Raises QuiesceError.
        """

    def discover(self) -> Discovery:
        """Which files make up the database, now that they do not change. Raises QuiesceError."""

    def unquiesce(self) -> None:
        """Let go; harmless when nothing is held, after a half-done ``quiesce``, and twice. Raises QuiesceError."""

    def recover(self) -> str:
        """After the death of a session that held it: let go; returns what was found, or "". Raises QuiesceError."""

    def redo(self) -> Mapping[str, bytes | Path]:
        """What the database gives only after the release, by name; it goes to the end of the tape.

        Called once, right after ``unquiesce``; a hot backup state ends with it. What is large is a file, which must
        neither change nor go away before ``close``. Raises QuiesceError.
        """

    def close(self) -> None:
        """Free what ``prepare`` opened; harmless twice."""


# type -> (module, class); the class has KEYS: key -> (kind, required), kinds as in splitreel.config
TYPES: dict[str, tuple[str, str]] = {
    "sqlite": ("splitreel.quiesce.sqlite", "Sqlite"),
    "postgresql": ("splitreel.quiesce.postgresql", "Postgresql"),
    "mariadb": ("splitreel.quiesce.mariadb", "Mariadb"),
    "mysql": ("splitreel.quiesce.mariadb", "Mysql"),
    "fsfreeze": ("splitreel.quiesce.fsfreeze", "FsFreeze"),
    "guest-agent": ("splitreel.quiesce.guestagent", "GuestAgent"),
    "command": ("splitreel.quiesce.command", "Command"),
}


def holds_volumes(quiescer: Quiescer) -> bool:
    """Whether it freezes whole file systems: of this machine, or of a guest."""
    return bool(quiescer.frozen()) or bool(getattr(quiescer, "freezes_guest", False))


def keys(kind: str) -> dict[str, tuple[str, bool]]:
    """The configuration keys of one kind: key -> (value kind, required). Raises KeyError."""
    return kinds.keys_of(TYPES, kind)


def create(settings: Mapping[str, Any]) -> Quiescer:
    """The quiescer that a validated table of the configuration describes; it touches nothing yet.

    Raises:
        UsageError: there is no such type.
    """
    return cast(Quiescer, kinds.make("quiesce", TYPES, settings))
