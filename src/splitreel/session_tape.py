"""session_tape is what a session needs of a tape: everything checked before the window, the backup run after it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from splitreel import config
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.errors import Misuse

Confirmed = Callable[[Mapping[str, Any]], None]


class Outcome(Protocol):
    """What the session keeps of a backup's result."""

    @property
    def id(self) -> str:
        """The backup's UUID."""
        ...

    @property
    def files(self) -> int:
        """How many files are on tape."""
        ...

    @property
    def bytes(self) -> int:
        """Their content, in bytes."""
        ...

    @property
    def mb_per_s(self) -> float:
        """10^6 bytes a second, from the first block to the last synchronise."""
        ...


class Tape:
    """The drive and the tape of one job. ``check`` opens the drive and keeps it until ``close``."""

    def __init__(self, job: config.Job, state: Path) -> None:
        self._job = job
        self._state = state

    def check(self) -> None:
        """The drive is ready and its tape may be written."""

    def still_ready(self) -> None:
        """Right before the window: nobody took the tape out."""

    def run(
        self,
        device: BlockDevice,
        source: ExtentMap,
        paths: Sequence[bytes],
        redo: Mapping[str, bytes],
        window_ms: float,
        confirmed: Confirmed,
    ) -> Outcome:
        """Write the files at ``paths``, or all without any; ``confirmed`` is told what a synchronise has kept."""
        raise Misuse("backup", "this build has none")

    def remember(self, phases: Sequence[tuple[str, float, float]], window_start: float, window_ms: float) -> None:
        """Complete the catalog with the session's phases and window."""

    def close(self) -> None:
        """Let the drive go; harmless twice."""
