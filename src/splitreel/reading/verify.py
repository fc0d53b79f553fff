"""verify reads a whole tape back and compares every checksum with every statement about it. It writes nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from splitreel.drive import Drive
from splitreel.reading import check_identity, compare, label_of, walk_tape
from splitreel.reading.segment import Report
from splitreel.volume import Label


@dataclass(slots=True)
class Verdict:
    """What verifying found: ``findings`` are (segment, path, why), an empty path meaning the segment or tape itself."""

    label: Label
    segments: int = 0
    members: int = 0
    files: int = 0
    content_bytes: int = 0
    blocks: int = 0
    cksums: int = 0
    findings: list[tuple[int, bytes, str]] = field(default_factory=list)
    finding_count: int = 0

    @property
    def sound(self) -> bool:
        """True when nothing was found."""
        return self.finding_count == 0

    def add(self, report: Report) -> None:
        """Count one tape file in."""
        self.segments += report.kind == "segment"
        self.members += report.members
        self.files += report.files
        self.content_bytes += report.content_bytes
        self.blocks += report.blocks
        self.cksums += report.cksums
        self.finding_count += report.finding_count + bool(report.torn)
        if report.torn:
            self.findings.append((report.number, b"", report.torn))
        self.findings += [(report.number, path, why) for path, why in report.findings]


def verify(drive: Drive, *, wanted: Label | None = None, on_segment: Callable[[Report], None] | None = None) -> Verdict:
    """Read the tape in the drive from end to end.

    Raises:
        WrongTape: it is not ours, or not the one ``wanted``.
        TapeError: the drive or the path to it failed.
    """
    label = label_of(drive)
    if wanted is not None:
        check_identity(label, wanted)
    verdict = Verdict(label)
    lines: list[dict[str, Any]] | None = None
    reports: list[Report] = []
    for number, report in enumerate(walk_tape(drive, label, cksums=True), 1):
        if report.kind == "closing":
            lines = report.catalog
        else:
            report.number = report.number or number
            reports.append(report)
        verdict.add(report)
        report.paths, report.parts = [], {}
        if on_segment is not None:
            on_segment(report)
    for why in compare(reports, lines, label):
        verdict.finding_count += 1
        verdict.findings.append((0, b"", why))
    return verdict
