"""segment walks one tape file: sums every member, then compares all with the manifest. It opens no tape, no file.

What it reads goes to a receiver (restore); without one it is only verified. What cannot be verified is said to be so.
"""

from array import array
from dataclasses import dataclass, field
from typing import Any, Protocol

from splitreel import records
from splitreel.core import checksum
from splitreel.errors import IntegrityError
from splitreel.reading.archive import Entry, SegmentReader, Torn

MAX_FINDINGS = 100_000  # kept one by one; beyond that only counted
CATALOG = b".splitreel/catalog.jsonl"
REDO = b".splitreel/redo/"


class Writer(Protocol):
    """Takes one member's content."""

    def write(self, offset: int, data: memoryview) -> None:
        """Put ``data`` at ``offset`` of the member; what is never put is zeros."""
        ...

    def finish(self) -> None:
        """All content was put."""
        ...

    def abandon(self, why: str) -> None:
        """The content ended early."""
        ...


class Receiver(Protocol):
    """Takes the members of a tape file in order, then the verdict on them."""

    def begin(self, entry: Entry) -> Writer | None:
        """A member begins; None when its content is not wanted."""
        ...

    def settle(self, report: "Report") -> None:
        """The tape file is over."""
        ...


@dataclass(slots=True)
class Report:
    """What one tape file held and what is wrong with it.

    ``bad`` maps paths to why they are damaged; ``parts`` maps part members to (file, n, of how many, offset); ``paths``
    are the members in archive order; ``verified`` says that a whole manifest vouched for them. ``stated`` are the
    manifest's members, when the walk was told to keep them; ``object`` is the number of the first tape block.
    """

    number: int = 0
    kind: str = "segment"
    members: int = 0
    files: int = 0
    content_bytes: int = 0
    blocks: int = 0
    verified: bool = False
    torn: str = ""
    findings: list[tuple[bytes, str]] = field(default_factory=list)
    finding_count: int = 0
    bad: dict[bytes, str] = field(default_factory=dict)
    parts: dict[bytes, records.Member] = field(default_factory=dict)
    paths: list[bytes] = field(default_factory=list)
    catalog: "list[dict[str, Any]] | None" = None
    stated: "list[records.Member] | None" = None
    object: int = 0
    sockets: int = 0
    cksums: int = 0
    crc32c: int = 0

    def found(self, path: bytes, why: str) -> None:
        """Record what is wrong with ``path`` (empty: the segment itself)."""
        self.finding_count += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append((path, why))

    @property
    def sound(self) -> bool:
        """True when the tape file is whole and everything in it verified."""
        return self.verified and not self.torn and not self.finding_count


def identity(path: bytes, kind: str, size: int, block: int, offset: int, stored: int, target: bytes) -> int:
    """A 64-bit hash of what header and manifest must agree on; it finds damage, not forgery."""
    return hash((normal(path), kind, size if kind == "file" else 0, block, offset, stored, target))


def normal(path: bytes) -> bytes:
    """A member's path without leading ``./`` and trailing ``/``; the root is empty."""
    stripped = path.removeprefix(b"./").rstrip(b"/")
    return b"" if stripped == b"." else stripped


class Walk:
    """One walk over one tape file.

    ``cksums`` also verifies the file that stock tools check (more CPU); ``keep`` keeps the manifest's members.
    """

    def __init__(
        self, reader: SegmentReader, receiver: Receiver | None = None, *, cksums: bool = False, keep: bool = False
    ) -> None:
        self.reader = reader
        self.receiver = receiver
        self.want_cksums = cksums
        self.report = Report(stated=[] if keep else None)
        self._identities: array[int] = array("q")
        self._crcs: array[int] = array("I")
        self._cksums: list[tuple[bytes, int, int]] = []

    def run(self) -> Report:
        """Walk to the end of the tape file; damage is in the report, faults of the drive are raised."""
        report = self.report
        try:
            for entry in self.reader:
                self._entry(entry)
        except Torn as error:
            report.torn = str(error)
        report.files -= sum((part.part or (1, 1))[0] > 1 for part in report.parts.values())
        report.blocks = self.reader.blocks
        report.crc32c = blocks_crc32c(self.reader.block_crcs)
        if not report.torn and not report.verified and not report.finding_count:
            report.found(b"", "it has no manifest")
        if self.receiver is not None:
            self.receiver.settle(report)
        return report

    def _entry(self, entry: Entry) -> None:
        if entry.control and entry.path.endswith(b".manifest"):
            self._manifest(entry)
        elif entry.control and entry.path.endswith(b".cksums"):
            self._check_cksums()
        elif entry.control and entry.path == CATALOG:
            self._catalog()
        else:
            if entry.control and entry.path.startswith(REDO):
                self.report.kind = "closing"
            self._member(entry)

    def _member(self, entry: Entry) -> None:
        report = self.report
        report.members += 1
        report.files += entry.type == "file"
        report.content_bytes += entry.size if entry.type == "file" else 0
        writer = self.receiver.begin(entry) if self.receiver is not None else None
        try:
            crc, register = content(self.reader, entry, writer, self.want_cksums)
        except Torn as error:
            report.bad[normal(entry.path)] = f"its data are cut off: {error.why}"
            report.found(entry.path, "its data are cut off")
            if writer is not None:
                writer.abandon(str(error))
            raise
        if writer is not None:
            writer.finish()
        if self.want_cksums and entry.type == "file":
            self._cksums.append((entry.path, register, entry.size))
        report.paths.append(normal(entry.path))
        self._crcs.append(crc)
        args = entry.size, entry.block, entry.offset, entry.stored
        self._identities.append(identity(entry.path, entry.type, *args, entry.target))

    def _manifest(self, entry: Entry) -> None:
        judge = Judge(self.report, self._identities, self._crcs, self.reader.block_crcs, entry.block)
        try:
            for record in records.verified(chunk for _, chunk in self.reader.pieces()):
                judge.record(record)
        except Torn:
            raise
        except IntegrityError as error:
            self.report.found(entry.path, f"the manifest is damaged: {error}")
            return
        judge.conclude()

    def _catalog(self) -> None:
        self.report.kind = "closing"
        lines: list[dict[str, Any]] = []
        try:
            for record in records.verified(chunk for _, chunk in self.reader.pieces()):
                if record["kind"] == "segment":
                    records.segment(record)
                if record["kind"] != "member":
                    lines.append(record)
        except Torn:
            raise
        except IntegrityError as error:
            self.report.found(CATALOG, f"the catalog is damaged: {error}")
            return
        self.report.catalog = lines
        self.report.verified = True
        self._judge_redo(lines)

    def _judge_redo(self, lines: list[dict[str, Any]]) -> None:
        try:
            stated = {records.path_of(r, "path"): records.crc(r.get("crc32c")) for r in lines if r["kind"] == "redo"}
        except IntegrityError as error:
            self.report.found(CATALOG, str(error))
            return
        for path, crc in zip(self.report.paths, self._crcs, strict=True):
            if stated.pop(path, None) != crc:
                self.report.bad[path] = "its bytes do not match the catalog"
                self.report.found(path, "its bytes do not match the catalog")
        for path in stated:
            self.report.found(path, "it is missing")

    def _check_cksums(self) -> None:
        if not self.want_cksums:
            return
        expected = iter([item for item in self._cksums if b"\n" not in item[0]])
        lines = records.Lines()
        for _, chunk in self.reader.pieces():
            for line in lines.feed(chunk):
                if not line:  # decimal checksums differ in length: empty lines fill what was planned
                    continue
                path, register, size = next(expected, (b"", 0, 0))
                if line != b"%d %d %s" % (checksum.cksum_value(register, size), size, path) or not path:
                    self.report.found(path, f"the line {records.text(line[:80])!r} of the checksum file does not match")
                    return
                self.report.cksums += 1
        if next(expected, None) is not None or lines.rest:
            self.report.found(b"", "the checksum file ends early")


class Judge:
    """Compares a manifest's records with what was read. Nothing is concluded before the manifest itself verified."""

    def __init__(
        self, report: Report, identities: "array[int]", crcs: "array[int]", blocks: "array[int]", first: int
    ) -> None:
        self.report = report
        self.identities = identities
        self.crcs = crcs
        self.blocks = blocks
        self.whole_blocks = first
        self.blocks_seen = 0
        self.at = 0
        self.bad: list[tuple[bytes, str]] = []
        self.bad_count = 0

    def _bad(self, path: bytes, why: str, read: bool = False) -> None:
        # What was read is always kept, to be renamed: there are no more of these than members. The rest is bounded.
        self.bad_count += 1
        if read or self.bad_count <= MAX_FINDINGS:
            self.bad.append((path, why))

    def record(self, record: dict[str, Any]) -> None:
        """Take one record of the manifest."""
        kind = record["kind"]
        if kind == "segment":
            self.report.number = records.integer(record, "segment")
        elif kind == "member":
            self._member(records.member(record))
        elif kind == "blocks":
            self._blocks(records.integer(record, "first"), record.get("crc32c"))

    def _member(self, stated: records.Member) -> None:
        if self.report.stated is not None:
            self.report.stated.append(stated)
        if stated.type == "sock":
            self.report.sockets += 1
            return
        i, self.at = self.at, self.at + 1
        path = normal(stated.path)
        if i >= len(self.crcs):
            self._bad(path, "the manifest names it, the archive does not hold it")
            return
        target = stated.target or b""
        args = stated.size, stated.block, stated.offset, stated.stored
        if identity(path, stated.type, *args, target) != self.identities[i]:
            self._bad(self.report.paths[i], f"its header differs from the manifest's entry for {path!r:.80}", True)
        elif stated.type == "file" and stated.crc32c != self.crcs[i]:
            self._bad(path, "its bytes do not match their CRC32C", True)
        elif stated.part is not None:
            self.report.parts[path] = stated

    def _blocks(self, first: int, digits: Any) -> None:
        if not isinstance(digits, str) or len(digits) % 8 or first != self.blocks_seen:
            raise IntegrityError("reading a manifest", "a line of block checksums is malformed")
        for i in range(0, len(digits), 8):
            index = self.blocks_seen
            self.blocks_seen += 1
            if index >= self.whole_blocks or records.crc(digits[i : i + 8]) != self.blocks[index]:
                self._bad(b"", f"tape block {index} of the segment does not match its CRC32C")

    def conclude(self) -> None:
        """The manifest verified: what differed from it is a finding now."""
        for i in range(self.at, len(self.crcs)):
            self._bad(self.report.paths[i], "the archive holds it, the manifest does not name it", True)
        if self.blocks_seen != self.whole_blocks:
            self._bad(b"", f"the manifest sums {self.blocks_seen} blocks before itself, {self.whole_blocks} were read")
        self.report.verified = True
        for path, why in self.bad:
            self.report.found(path, why)
            if path:
                self.report.bad[path] = why
        self.report.finding_count += self.bad_count - len(self.bad)


def blocks_crc32c(crcs: "array[int]") -> int:
    """The CRC32C of block checksums in order, each as 4 little-endian bytes."""
    return checksum.crc32c(array("I", crcs).tobytes())


def content(reader: SegmentReader, entry: Entry, writer: Writer | None, cksums: bool = False) -> tuple[int, int]:
    """CRC32C and cksum register (0 unless wanted) of the current member's content, holes as zeros; writes it too.

    Raises:
        Torn: the blocks end first.
    """
    if entry.type != "file":
        return 0, 0
    crc = register = at = 0
    for offset, data in reader.pieces():
        if offset > at:
            crc = checksum.crc32c_extend_zeros(crc, offset - at)
            register = checksum.cksum_extend_zeros(register, offset - at) if cksums else 0
        crc = checksum.crc32c(data, crc)
        if cksums:
            register = checksum.cksum_register(data, register)
        at = offset + len(data)
        if writer is not None:
            writer.write(offset, data)
    if entry.size > at:
        crc = checksum.crc32c_extend_zeros(crc, entry.size - at)
        register = checksum.cksum_extend_zeros(register, entry.size - at) if cksums else 0
    return crc, register
