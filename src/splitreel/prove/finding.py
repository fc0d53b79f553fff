"""finding is what a proof found wrong, by name. It looks at nothing."""

from collections.abc import Iterable
from dataclasses import dataclass

KINDS = {
    "late": "written after the split",
    "lost": "acknowledged before the quiesce, and not there",
    "stale": "an older generation than the one acknowledged before the quiesce",
    "torn": "parts of two generations in one stamped unit",
    "misplaced": "a stamp that belongs at another place",
    "disordered": "a later operation is there and an earlier one of the same writer is not",
    "foreign": "something that was never written there",
    "damaged": "the copy cannot be read as a whole",
}


@dataclass(frozen=True)
class Finding:
    """One violation: its kind, the file or table it is in, what was seen there, and how many stamps it spans."""

    kind: str
    where: str
    what: str
    count: int = 1

    def __post_init__(self) -> None:
        assert self.kind in KINDS

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.what}"


def totals(findings: Iterable[Finding]) -> dict[str, int]:
    """How many stamps are wrong in which way."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.kind] = counts.get(finding.kind, 0) + finding.count
    return counts
