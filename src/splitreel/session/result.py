"""result is what a session tells of itself: its phases in their order, and what came of them. It runs none."""

from dataclasses import dataclass, field

from splitreel.backup import Result

_BEFORE = ("quiesce", "discover", "prepare")


def phase_order(order: str, unquiesce: str) -> tuple[str, ...]:
    """The ten phases in the order in which they run."""
    released = ("unquiesce", "check") if unquiesce == "after-split" else ("check", "unquiesce")
    if order == "conventional":
        middle: tuple[str, ...] = (*_BEFORE, "map", "split", *released)
    elif order == "postsplit":
        late = ("unquiesce", "map", "check") if unquiesce == "after-split" else ("map", "check", "unquiesce")
        middle = (*_BEFORE, "split", *late)
    else:
        middle = ("map", *_BEFORE, "split", *released)
    return ("establish", *middle, "backup", "cleanup")


@dataclass(frozen=True)
class Phase:
    """A phase that ended; ``start`` in seconds since the session began."""

    name: str
    start: float
    seconds: float


@dataclass
class SessionResult:
    """What a session did. ``window_ns`` is CLOCK_MONOTONIC, comparable with other processes of this boot.

    ``predicted_ms``: what past runs said that a window of this one would be at most; None when they were too few.
    """

    job: str
    started: float
    phases: list[Phase] = field(default_factory=list)
    window_ms: float = 0.0
    window_ns: tuple[int, int] = (0, 0)
    split_ms: float = 0.0
    second_window_ms: float = 0.0
    predicted_ms: float | None = None
    hot_backup_ms: float = 0.0
    files: int = 0
    extents: int = 0
    problems: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    dirty_bytes: int | None = None
    resynced_bytes: int | None = None
    backup: Result | None = None

    @property
    def backup_id(self) -> str:
        """The UUID of the backup that was written, or ""."""
        return self.backup.id if self.backup is not None else ""
