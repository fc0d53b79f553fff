"""proof is what a run of proving is told and what it showed, as plain data. It runs nothing."""

import dataclasses
import statistics
from dataclasses import dataclass, field
from typing import Any

from splitreel.errors import EXIT_DATA, EXIT_DONE, SplitreelError
from splitreel.prove.finding import Finding, totals

KEPT_FINDINGS = 1000


@dataclass(frozen=True)
class Options:
    """How to prove: for so many seconds, and so many sessions at least.

    ``tape`` takes the place of the job's own; ``rows``: stamp the job's databases too.
    """

    seconds: float = 60.0
    writers: int = 4
    tape: str = ""
    rows: bool = True
    sessions: int = 1


@dataclass
class Proved:
    """What one session showed."""

    session: int
    window_ms: float
    split_ms: float
    stamps: int = 0
    rows: int = 0
    before: int = 0
    in_flight: int = 0
    bytes: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As a JSON line."""
        facts = {key: value for key, value in dataclasses.asdict(self).items() if key != "findings"}
        return {"kind": "proved", **facts, "violations": totals(self.findings)}


@dataclass
class Proof:
    """What all sessions showed. ``error`` is what ended it early."""

    job: str
    frozen: bool
    databases: list[str] = field(default_factory=list)  # in which rows were stamped
    seconds: float = 0.0
    stamps_written: int = 0
    rows_written: int = 0
    sessions: list[Proved] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: str = ""
    error: SplitreelError | None = None

    @property
    def violations(self) -> dict[str, int]:
        """How many stamps and rows were wrong, by kind."""
        return totals(finding for one in self.sessions for finding in one.findings)

    @property
    def exit_code(self) -> int:
        """0 nothing was wrong, 3 something was, else that of the error."""
        if self.violations:
            return EXIT_DATA
        return EXIT_DONE if self.error is None else self.error.exit_code

    def record(self) -> dict[str, Any]:
        """The last JSON line."""
        windows = [one.window_ms for one in self.sessions] or [0.0]
        listed = [str(finding) for one in self.sessions for finding in one.findings]
        return {
            "kind": "prove",
            "job": self.job,
            "proved": not self.violations and self.error is None and bool(self.sessions),
            "seconds": round(self.seconds, 1),
            "sessions": len(self.sessions),
            "stamps_written": self.stamps_written,
            "stamps_examined": sum(one.stamps for one in self.sessions),
            "rows_written": self.rows_written,
            "rows_examined": sum(one.rows for one in self.sessions),
            "in_flight": sum(one.in_flight for one in self.sessions),
            "violations": sum(self.violations.values()),
            "by_kind": self.violations,
            "findings": listed[:KEPT_FINDINGS],
            "window_ms_median": round(statistics.median(windows), 3),
            "window_ms_max": round(max(windows), 3),
            "frozen": self.frozen,
            "databases": self.databases,
            "notes": self.notes,
            "kept": self.kept,
            "error": str(self.error) if self.error else "",
        }
