"""run brings a backup, or part of it, from a tape into a directory. It decides what to read; others read and write.

Everything is read in tape order, and needs nothing but the tape. A selection is looked up in a catalog, the tape's own
or the state directory's, and read with one LOCATE for each run of members; without a catalog all of the tape is read.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from splitreel import records
from splitreel.drive import Drive
from splitreel.errors import IntegrityError, NotFound, PositionLost
from splitreel.reading import TapeFile, check_identity, closing_records, compare, label_of, walk_tape
from splitreel.reading.archive import Entry, SegmentReader, Torn
from splitreel.reading.segment import Report, content, normal
from splitreel.records import Member
from splitreel.restore.destination import Destination, Problems
from splitreel.restore.restorer import Restorer
from splitreel.selection import Selection
from splitreel.volume import Label

GAP = 32  # tape blocks that are read over rather than located over

# a catalog's members, from the start at each call
Members = Callable[[], Iterator[Member]]


@dataclass(slots=True)
class Outcome:
    """What a restore did; ``problems`` lists what is not as it was, each path with its reason."""

    label: Label
    segments: int = 0
    blocks: int = 0
    members: int = 0
    files: int = 0
    content_bytes: int = 0
    sockets: int = 0
    problems: Problems = field(default_factory=Problems)

    @property
    def complete(self) -> bool:
        """True when everything asked for is there as it was."""
        return self.problems.count == 0


def restore(
    drive: Drive,
    to: str | os.PathLike[str],
    patterns: Iterable[str | bytes] = (),
    *,
    force: bool = False,
    optional: Iterable[bytes] = (),
    wanted: Label | None = None,
    members: Members | None = None,
    on_segment: Callable[[Report], None] | None = None,
) -> Outcome:
    """Restore everything, or what ``patterns`` mean, into the directory ``to``; ``optional`` ones may be missing.

    ``wanted`` and ``members`` are what a catalog says of the tape; without them the tape is taken at its own word.

    Raises:
        WrongTape: the tape is not ours, or not the one ``wanted``.
        NotFound: the catalog holds nothing that a pattern means.
        UsageError: the directory is not empty, or a pattern is none.
        TapeError: the drive or the path to it failed; what had verified until then is restored.
    """
    spare = list(optional)
    selection = Selection([*patterns, *spare])
    selection.unmatched -= set(spare)
    with Destination(to, overwrite=force) as destination:
        label = label_of(drive)
        if wanted is not None:
            check_identity(label, wanted)
        known = members or _on_tape(drive, label)
        chosen = None if selection.everything else _choose(known, selection)
        run = _Run(drive, label, Restorer(destination, selection), selection, on_segment, known)
        try:
            if chosen is not None:
                run.indexed(*chosen)
            else:
                run.sequential()
        except BaseException:
            run.restorer.abandon()
            raise
        return run.finish()


def _on_tape(drive: Drive, label: Label) -> Members:
    """The members as the tape's own catalog has them; calling it raises IntegrityError when there is none."""

    def members() -> Iterator[Member]:
        stated = closing_records(drive, label)
        if stated is None:
            raise IntegrityError("reading the tape's catalog", "it has none")
        return (records.member(record) for record in stated if record["kind"] == "member")

    return members


def _choose(members: Members, selection: Selection) -> tuple[list[Member], dict[bytes, list[bytes]]] | None:
    """The members that a selection needs, and under which names; None when no catalog can be read."""
    try:
        chosen = _look_up(members, selection)
    except IntegrityError:
        return None
    if selection.unmatched:
        shown = ", ".join(sorted(p.decode("utf-8", "backslashreplace") for p in selection.unmatched))
        raise NotFound(f"path {shown}", "the backup holds no such path", "'splitreel list' shows what it holds.")
    return chosen


def _look_up(members: Members, selection: Selection) -> tuple[list[Member], dict[bytes, list[bytes]]]:
    """The wanted members and the directories above them.

    Where a hard link is wanted and its first name is not, that one comes under the link's name.
    """
    chosen = [m for m in members() if selection(m.path) or (m.of is not None and selection(m.of))]
    there = {m.path for m in chosen} | {m.of for m in chosen if m.of is not None}
    links = [m for m in chosen if m.type == "link" and m.target is not None and m.target not in there]
    if not links:
        return chosen + _above(members, chosen), {}
    targets = {m.target for m in links}
    firsts = [m for m in members() if m.path in targets or m.of in targets]
    aliases: dict[bytes, list[bytes]] = {}
    for first in firsts:
        # a file in parts is joined under its own name, and stays there beside the link
        if first.of is None:
            aliases[first.path] = [m.path for m in links if m.target == first.path]
    renamed = {path for paths in aliases.values() for path in paths}
    above = _above(members, chosen + [m for m in firsts if m.of is not None])
    there = {m.path for m in chosen}
    firsts += [m for m in above if m.path not in there]
    return [m for m in chosen if m.path not in renamed] + firsts, aliases


def _above(members: Members, chosen: Iterable[Member]) -> list[Member]:
    """The directories on the way to the chosen members, where these are not chosen themselves."""
    ways: set[bytes] = set()
    there = set()
    for m in chosen:
        there.add(m.path)
        way = m.path.rpartition(b"/")[0]
        while way and way not in ways:
            ways.add(way)
            way = way.rpartition(b"/")[0]
    ways -= there
    return [m for m in members() if m.type == "dir" and m.path in ways] if ways else []


def runs(members: Iterable[Member], block_size: int) -> Iterator[list[Member]]:
    """Members in tape order, cut where locating is quicker than reading on; never across segments."""
    run: list[Member] = []
    end = 0
    for member in sorted((m for m in members if m.type != "sock"), key=lambda m: (m.object, m.offset)):
        if run and (member.segment != run[-1].segment or member.object > end + GAP):
            yield run
            run = []
        run.append(member)
        end = max(end, member.object + (member.offset + member.stored) // block_size + 1)
    if run:
        yield run


class _Run:
    """One restore under way."""

    def __init__(
        self,
        drive: Drive,
        label: Label,
        restorer: Restorer,
        selection: Selection,
        on_segment: Callable[[Report], None] | None,
        members: Members,
    ) -> None:
        self.drive = drive
        self.label = label
        self.restorer = restorer
        self.selection = selection
        self.on_segment = on_segment
        self.outcome = Outcome(label, problems=restorer.problems)
        self._members = members
        self._begun = False

    def _problem(self, path: bytes, why: str) -> None:
        self.restorer.problems.add(path, why)

    # Everything, or a selection from a tape without a catalog.

    def sequential(self) -> None:
        reports, lines = self._pass()
        for why in compare(reports, lines, self.label):
            self._problem(b"", why)
        self._salvage({report.number for report in reports if report.torn or not report.verified})
        if self.restorer.unresolved:
            # hard links were wanted, their first names were not: once more, for those
            for path, first in self.restorer.unresolved:
                self.restorer.aliases.setdefault(first, []).append(path)
            self.restorer.unresolved.clear()
            self.restorer.wanted = lambda path: False
            self._pass()
        if self.selection.unmatched:
            for pattern in sorted(self.selection.unmatched):
                self._problem(pattern, "not restored: what could be read of the tape holds no such path")

    def _salvage(self, segments: set[int]) -> None:
        """Members of segments that could not be followed to their end, one by one from where the catalog has them."""
        if not segments:
            return
        try:
            there = [
                m for m in self._members() if self.selection(m.path) or (m.of is not None and self.selection(m.of))
            ]
        except IntegrityError:
            return
        cut = {m.of for m in there if m.segment in segments and m.of is not None}
        chosen = [m for m in there if (m.segment in segments and m.of is None) or (m.of is not None and m.of in cut)]
        problems, before, wanted = self.restorer.problems, Problems(), self.restorer.wanted
        before.listed, before.count = problems.listed, problems.count
        problems.listed, problems.count = [], 0
        links = self.restorer.take_back({normal(m.path) for m in chosen} | {normal(of) for of in cut})
        self.indexed(chosen + [m for m in _above(self._members, there) if m.segment in segments], {})
        self.restorer.link(links)
        self.restorer.wanted = wanted
        again = {m.path for m in chosen} | cut | {path for path, _ in links}
        kept = [(path, why) for path, why in before.listed if path not in again]
        problems.count += before.count - len(before.listed) + len(kept)
        problems.listed = kept + problems.listed

    def _pass(self) -> tuple[list[Report], list[dict[str, Any]] | None]:
        reports: list[Report] = []
        lines: list[dict[str, Any]] | None = None
        for number, report in enumerate(walk_tape(self.drive, self.label, self.restorer), 1):
            report.number = report.number or number
            if report.kind == "closing":
                lines = report.catalog
            else:
                reports.append(report)
            self._account(report)
        return reports, lines

    def _account(self, report: Report) -> None:
        name = f"segment {report.number}" if report.kind == "segment" else "the last tape file"
        if report.torn:
            self._problem(b"", f"{name}: {report.torn}")
        for path, why in report.findings:
            if not path:
                self._problem(b"", f"{name}: {why}")
            elif path not in report.bad and self.selection(path):
                self._problem(path, why)
        self.outcome.segments += report.kind == "segment"
        self.outcome.blocks += report.blocks
        self.outcome.sockets += report.sockets
        if self.on_segment is not None:
            self.on_segment(report)
        report.paths, report.parts, report.bad = [], {}, {}

    # A selection whose place is known.

    def indexed(self, members: list[Member], aliases: dict[bytes, list[bytes]]) -> None:
        self.restorer.aliases = aliases
        # a part is asked for by its own name, whole files were chosen above; a directory may only be on the way
        names = {m.path for m in members if m.type != "dir" or self.selection(m.path)}
        self.restorer.wanted = lambda path: path in names
        self.outcome.sockets = sum(m.type == "sock" for m in members)
        todo = list(runs(members, self.label.block_size))
        while todo:
            left = self._read_run(todo.pop(0))
            if left:
                todo.insert(0, left)

    def _read_run(self, run: list[Member]) -> list[Member]:
        """Restore one run; returns what of it is still to be tried when its archive cannot be followed further."""
        report = Report(run[0].segment, verified=True)
        done = 0
        self._begun = False
        try:
            self.drive.locate(run[0].object)
            with TapeFile(self.drive, self.label.block_size) as source:
                reader = SegmentReader(source, self.label.block_size, run[0].block, run[0].offset)
                for entry in reader:
                    done += self._take(reader, entry, run[done], report)
                    report.blocks = reader.blocks
                    if done == len(run):
                        break
                else:
                    raise Torn("reading a segment", "the archive ends before the member that its catalog names")
        except (Torn, PositionLost) as error:
            # What stands between two wanted members may be damaged: the second is located by itself before it is lost.
            if done == 0 or self._begun:
                report.bad[normal(run[done].path)] = f"it cannot be read: {error}"
                done += 1
        self.outcome.blocks += report.blocks
        self.restorer.settle(report)
        return run[done:]

    def _take(self, reader: SegmentReader, entry: Entry, member: Member, report: Report) -> bool:
        """Restore ``entry`` when it is ``member``; False when it is one between two that are wanted."""
        place = (entry.block, entry.offset)
        if place < (member.block, member.offset):
            return False
        if place != (member.block, member.offset) or normal(entry.path) != normal(member.path):
            raise Torn("reading a member", f"{entry.path!r:.80} stands where the catalog has {member.path!r:.80}")
        writer = self.restorer.begin(entry)
        self._begun = True
        try:
            crc, _ = content(reader, entry, writer)
        except Torn as error:
            if writer is not None:
                writer.abandon(str(error))
            raise
        if writer is not None:
            writer.finish()
        self._begun = False
        if entry.type == "file" and crc != member.crc32c:
            report.bad[normal(entry.path)] = "its bytes do not match their CRC32C"
        elif member.part is not None:
            report.parts[normal(entry.path)] = member
        return True

    def finish(self) -> Outcome:
        """Finish the directory and say what became of it."""
        self.restorer.finish()
        self.outcome.members = self.restorer.members
        self.outcome.files = self.restorer.files
        self.outcome.content_bytes = self.restorer.bytes
        return self.outcome
