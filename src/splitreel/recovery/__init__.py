"""recovery is the interface to databases that a tape is restored to, and the list of their kinds. It reads no tape.

A kind knows two things: how what came from tape becomes a data directory that starts (``lay_out``), and how to show
that it does (``drill``). What it is told of the database is its entry of the tape's ``session.json``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from splitreel import kinds
from splitreel.recovery.files import Owner

__all__ = ["Check", "Drill", "Layout", "Owner", "Piece", "Recovery", "create"]


@dataclass(frozen=True)
class Piece:
    """A file or directory that a database consists of.

    ``source``: its absolute path on the primary, by which it is found on tape. ``target``: where it goes, relative to
    the directory restored into. ``optional``: the tape need not hold it. ``movable``: the user may name another
    directory for it (a tablespace).
    """

    source: str
    target: str
    optional: bool = False
    movable: bool = False


@dataclass(frozen=True)
class Layout:
    """A database as it came from tape, for its kind to complete.

    ``directory``: all that may be written, but for ``places`` that the user put elsewhere. ``places``: where each piece
    is now, by its ``source``; an optional one that the tape did not hold is missing. ``redo``: a directory that holds
    this database's redo members as files, under the names that ``Quiescer.redo`` gave them; it is removed afterwards.
    ``owner``: whom everything that is made belongs to; None when this process may not give files away.

    Nothing in it can be trusted to be what its name says: links that lie in it lead wherever the tape says. Nothing may
    be followed (recovery.files has what is needed).
    """

    directory: Path
    places: Mapping[str, Path]
    redo: Path
    owner: Owner | None = None


@dataclass(frozen=True)
class Check:
    """One check of a drill: ``problems`` is empty when nothing was found."""

    name: str
    seconds: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drill:
    """A drill that came to its end. ``seconds``: from the server's start until it answered, recovered."""

    version: str
    seconds: float
    checks: tuple[Check, ...] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """True when no check found anything."""
        return not any(check.problems for check in self.checks)

    def record(self) -> dict[str, Any]:
        """As one JSON line."""
        checks = [{"name": c.name, "seconds": round(c.seconds, 3), "problems": list(c.problems)} for c in self.checks]
        return {"kind": "drill", "ok": self.ok, "version": self.version, "seconds": round(self.seconds, 3)} | {
            "checks": checks
        }


class Recovery(Protocol):
    """One database of a tape. Methods in this order; ``drill`` only if asked for.

    An implementation's constructor takes the database's facts, which come from a tape: it raises IntegrityError when
    one that it needs is missing or malformed, and never builds a target path of anything but what it verified.
    """

    def pieces(self) -> tuple[Piece, ...]:
        """What has to come from tape; the first one is the data directory, or the only file."""

    def lay_out(self, layout: Layout) -> list[str]:
        """Make it a data directory that starts: redo in place, stale files gone; returns notes for the user.

        Raises:
            IntegrityError: the tape lacks something that it cannot start without.
        """

    def drill(self, layout: Layout, logs: Path) -> Drill:
        """Start a throw-away server on it, wait until it has recovered, check it, stop it.

        ``logs``: a directory to keep the server's log and its like in; the caller removes it when the drill is good.

        Raises:
            IntegrityError: it does not start or does not recover; the message holds the server's own words.
            SplitreelError: a program is missing, or not permitted.
        """


# engine -> (module, class); the class is made with the facts of one database
KINDS: dict[str, tuple[str, str]] = {
    "postgresql": ("splitreel.recovery.postgresql", "PostgresqlRecovery"),
    "mariadb": ("splitreel.recovery.mariadb", "MariadbRecovery"),
    "mysql": ("splitreel.recovery.mariadb", "MariadbRecovery"),
    "sqlite": ("splitreel.recovery.sqlite", "SqliteRecovery"),
}


def create(facts: Mapping[str, Any]) -> Recovery:
    """The recovery of a database by its facts.

    Raises:
        UsageError: nothing here knows its engine.
        IntegrityError: the facts are incomplete.
    """
    return cast(Recovery, kinds.make("database engine", KINDS, {"type": facts.get("engine"), "facts": facts}))
