"""walk hands out a tape's files as segments to walk: positions the drive, reads ahead. It knows no target directory.

A block that the drive cannot read ends its tape file, not the run: the next one is tried. A path that fails ends all.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from splitreel import volume
from splitreel.core.stream_reader import StreamReader
from splitreel.drive import Condition, Drive
from splitreel.errors import CheckCondition, LimitReached, WrongTape
from splitreel.reading.archive import SegmentReader, Torn
from splitreel.reading.segment import CATALOG, REDO, Receiver, Report, Walk
from splitreel.records import Segment, member_record, segment, segment_record, verified
from splitreel.volume import Label

MEDIUM_ERROR = 0x03
RING = 8  # blocks read ahead


class TapeFile:
    """The tape file at the drive's position, as a BlockSource. A context manager: leaving it stops reading ahead."""

    def __init__(self, drive: Drive, block_size: int, ahead: int = RING) -> None:
        self.block_size = block_size
        self.reader = StreamReader(drive.tape, block_size, ahead)
        self.drive = drive
        self.reader.next_file()

    def __enter__(self) -> "TapeFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.reader.close()

    def next_block(self) -> bytes | None:
        """The next block, or None at the filemark or end of data.

        Raises:
            Torn: the medium has a damaged block here, or one that is not ours.
        """
        try:
            return self.reader.read(self.block_size) or None
        except CheckCondition as error:
            if error.sense[0] != MEDIUM_ERROR:
                raise
            raise Torn("reading a segment", str(error)) from error
        except LimitReached as error:
            raise Torn("reading a segment", str(error)) from error

    def at_end_of_tape(self) -> bool:
        """True when there is nothing here but the end of data."""
        try:
            return self.reader.at_end_of_data
        except (CheckCondition, LimitReached):
            return False

    def leave(self, report: Report) -> bool:
        """Go behind this tape file's filemark, wherever the archive ended; False at the end of data."""
        extra = 0
        try:
            while self.reader.read(self.block_size):
                extra += 1
            marked = self.reader.at_filemark
        except (CheckCondition, LimitReached):
            self.reader.stop()
            return self.drive.space_filemarks(1) == Condition.DONE
        if extra and not report.torn:
            report.found(b"", f"{extra} tape blocks follow the archive's end")
        if not marked:
            report.found(b"", "no filemark ends it")
        return marked


def walk_tape(
    drive: Drive, label: Label, receiver: Receiver | None = None, *, cksums: bool = False, keep: bool = False
) -> Iterator[Report]:
    """Walk every tape file behind the label in order; yields the report on each.

    Raises:
        TapeError: the drive or the path to it failed; damaged blocks are in the reports.
    """
    drive.rewind()
    more = drive.space_filemarks(1) == Condition.DONE
    while more:
        first = drive.tape.object_id
        with TapeFile(drive, label.block_size) as source:
            if source.at_end_of_tape():
                return
            walk = Walk(SegmentReader(source, label.block_size), receiver, cksums=cksums, keep=keep)
            report = walk.run()
            report.object = first
            more = source.leave(report)
        yield report


def compare(reports: Iterable[Report], lines: list[dict[str, Any]] | None, label: Label) -> list[str]:
    """What the segments read say differently from the closing catalog: its ``lines`` without members, None if missing.

    The catalog's checksum of a segment covers every block of it, those of the manifest included.
    """
    if lines is None:
        return ["the tape ends without its catalog: the backup did not run to its end"]
    wrong = []
    head = lines[0] if lines else {}
    if head.get("backup") != label.backup:
        wrong.append(f"the catalog is that of backup {head.get('backup')!r:.60}, the label's is {label.backup}")
    if head.get("state", "complete") != "complete":
        wrong.append("the backup did not run to its end: it holds the segments listed, and no more")
    stated = {s.number: s for s in map(segment, (r for r in lines if r["kind"] == "segment"))}
    for report in reports:
        known = stated.pop(report.number, None)
        if known is None:
            wrong.append(f"segment {report.number} is not in the catalog")
        elif (known.blocks, known.crc32c) != (report.blocks, report.crc32c):
            wrong.append(f"segment {report.number} differs from the catalog in its {report.blocks} tape blocks")
    wrong += [f"segment {number} is in the catalog, not on the tape" for number in sorted(stated)]
    return wrong


def seek_closing(drive: Drive) -> bool:
    """Go to the beginning of the last tape file; False when the tape holds fewer than two."""
    drive.space_eod()
    if drive.position().known:
        if drive.space_filemarks(-2) != Condition.DONE:
            return False
        return drive.space_filemarks(1) == Condition.DONE
    # A drive that tells no position cannot be trusted to space backward (tgtd lands a block off): count from the front.
    drive.rewind()
    count = 0
    while drive.space_filemarks(1) == Condition.DONE:
        count += 1
    drive.rewind()
    return count > 1 and drive.space_filemarks(count - 1) == Condition.DONE


def closing_records(drive: Drive, label: Label) -> Iterator[dict[str, Any]] | None:
    """The records of the tape's own catalog, verified at the end of the iteration; None when it has none.

    Raises (while iterating):
        IntegrityError: the catalog is damaged; what came before is to be dropped.
    """
    if not seek_closing(drive):
        return None
    source = TapeFile(drive, label.block_size)
    reader = SegmentReader(source, label.block_size)
    try:
        entry = reader.next_entry()
        while entry is not None and entry.control and entry.path.startswith(REDO):
            entry = reader.next_entry()
    except Torn:
        entry = None
    if entry is None or entry.path != CATALOG or not entry.control:
        source.reader.close()
        return None
    return _records(source, reader)


def _records(source: TapeFile, reader: SegmentReader) -> Iterator[dict[str, Any]]:
    with source:
        yield from verified(chunk for _, chunk in reader.pieces())


def walk_closing(drive: Drive, label: Label, receiver: Receiver) -> Report | None:
    """Walk the closing tape file alone: its redo members and its catalog; None when the tape has none.

    Raises:
        TapeError: the drive or the path to it failed; damaged blocks are in the report.
    """
    if not seek_closing(drive):
        return None
    with TapeFile(drive, label.block_size) as source:
        report = Walk(SegmentReader(source, label.block_size), receiver).run()
    return report if report.kind == "closing" else None


def scanned_records(drive: Drive, label: Label) -> Iterator[dict[str, Any]]:
    """The records that a tape's catalog would hold, from the manifests of its segments: for a tape without one.

    Segments whose manifest does not verify are left out.
    """
    yield {"kind": "catalog", **label.record(), "state": "incomplete"}
    for report in walk_tape(drive, label, keep=True):
        if report.kind == "segment" and report.verified and report.stated is not None:
            members = len(report.stated)
            yield segment_record(Segment(report.number, report.object, report.blocks, report.crc32c, members))
            for member in report.stated:
                member.segment, member.object = report.number, report.object + member.block
                yield member_record(member)


def all_records(drive: Drive, label: Label) -> Iterator[dict[str, Any]]:
    """The records of the tape's own catalog, else those of its manifests."""
    stated = closing_records(drive, label)
    return stated if stated is not None else scanned_records(drive, label)


def label_of(drive: Drive) -> Label:
    """The label of the tape in the drive.

    Raises:
        WrongTape: it is blank or not ours.
    """
    return volume.require_ours(volume.recognise(drive))


def check_identity(found: Label, wanted: Label) -> None:
    """The tape in the drive must be the one that the catalog means.

    Raises:
        WrongTape: it is another.
    """
    if (found.volume_uuid, found.backup) != (wanted.volume_uuid, wanted.backup):
        raise WrongTape(
            "the tape in the drive",
            f"it is volume {found.volume} with backup {found.backup or 'none'}",
            f"Load volume {wanted.volume} (UUID {wanted.volume_uuid}), which holds backup {wanted.backup}.",
        )
