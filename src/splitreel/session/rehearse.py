"""rehearse runs a session without its tape: the window as it would be, and nothing written. It needs no drive."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from splitreel import config
from splitreel.session.phases import Report, Session
from splitreel.session.result import SessionResult
from splitreel.session.tape import Span, Tape


class NoTape(Tape):
    """No drive and no tape: nothing is opened, asked or written."""

    def __init__(self) -> None:
        """Nothing is kept."""

    @property
    def backup_id(self) -> str:
        """None."""
        return ""

    @property
    def waiting(self) -> str:
        """Nothing."""
        return ""

    def check(self) -> None:
        """Nothing."""

    def still_ready(self) -> None:
        """Nothing."""

    def remember(self, phases: Sequence[Span], windows: Sequence[Span]) -> None:
        """Nothing: there is no backup that they belong to."""

    def close(self) -> None:
        """Nothing is open."""


class Rehearsal(Session):
    """A session of all phases but ``backup``."""

    rehearsal: ClassVar[bool] = True

    def __init__(self, job: config.Job, state: Path, report: Report, *, explain: bool = False) -> None:
        super().__init__(job, state, report, explain=explain)
        del self._steps["backup"]

    def tape(self) -> Tape:
        """None."""
        return NoTape()


def rehearse(
    job: config.Job,
    *,
    state: str | os.PathLike[str],
    report: Callable[[Mapping[str, Any]], None] | None = None,
    explain: bool = False,
) -> SessionResult:
    """Rehearse one session of ``job``; as ``run``, but for the backup, and whatever the job's budget.

    Raises:
        SplitreelError: as ``run``.
    """
    return Rehearsal(job, Path(state), report or (lambda _: None), explain=explain).run()
