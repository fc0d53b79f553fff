"""tape is what a session needs of a tape: everything checked before the window, the backup run after it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from splitreel import config
from splitreel.backup import Options, Result, TapeBackup
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.pages import Checks

Span = tuple[str, float, float]  # name, start (seconds since 1970), seconds
Told = Callable[[Mapping[str, Any]], None]


def options_of(job: config.Job) -> Options:
    """How a job's backup is to be written."""
    return Options(
        tape=job.tape,
        order=job.file_order,
        block_size=job.block_size,
        segment_size=job.segment_size,
        sync_segments=job.sync_segments,
        volume=job.label,
        overwrite=job.overwrite,
        strict=job.strict,
        job=job.name,
    )


class Tape:
    """The drive and the tape of one job. ``check`` opens the drive and keeps it until ``close``."""

    def __init__(self, job: config.Job, state: Path) -> None:
        # What goes to null: is nowhere: the catalog does not list it.
        self._backup = TapeBackup(options_of(job), None if job.tape == "null:" else state)

    @property
    def backup_id(self) -> str:
        """The UUID of the backup that is being written, or ""."""
        return self._backup.result.id if self._backup.result is not None else ""

    @property
    def waiting(self) -> str:
        """What the drive is waited for, or ""; from any thread."""
        return self._backup.waiting

    def check(self) -> None:
        """The drive is ready and its tape may be written. Raises TapeError, UsageError, CatalogError."""
        self._backup.check()

    def still_ready(self) -> None:
        """Right before the window: nobody took the tape out. Raises TapeError."""
        self._backup.still_ready()

    def run(
        self,
        device: BlockDevice,
        source: ExtentMap,
        paths: Sequence[bytes],
        redo: Mapping[str, bytes | Path],
        window_ms: float,
        confirmed: Told,
        progress: Told | None = None,
        verify: Callable[[], None] | None = None,
        checks: Checks | None = None,
    ) -> Result:
        """Write the files at ``paths``, or all without any; the rest as TapeBackup.run takes it.

        Raises:
            SplitreelError: as TapeBackup.run.
        """
        return self._backup.run(device, source, paths, redo, window_ms, confirmed, progress, verify, checks)

    def remember(self, phases: Sequence[Span], windows: Sequence[Span]) -> None:
        """Complete the catalog with the session's phases and windows."""
        self._backup.remember(phases, windows)

    def close(self) -> None:
        """Let the drive go; harmless twice."""
        self._backup.close()
