"""resume goes on with a backup that a crash interrupted, behind the last confirmed segment. It begins none.

The split mirror has not changed, so mapping and planning it again give the same layout, block for block. What had been
written behind the last synchronise is written again over itself; what came before is known from the local catalog.
"""

import calendar
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from splitreel import plan, volume
from splitreel.backup.closing import Content
from splitreel.backup.layout import Layout
from splitreel.backup.run import LABEL_OBJECTS, Progress, Result, Run
from splitreel.backup.tapebackup import SEGMENT_SIZE, SYNC_SEGMENTS, TapeBackup
from splitreel.catalog import Backup
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.plan import Plan
from splitreel.drive import open_drive
from splitreel.errors import CatalogError, PositionLost, Stale, WrongTape
from splitreel.pages import Checks, Damage
from splitreel.records import Member, Segment
from splitreel.volume import Label


class ContinuedLayout(Layout):
    """A layout whose first segments were written in another run: their checksums are the catalog's."""

    def __init__(
        self, made: Plan, kept: Sequence[Segment], members: Sequence[Member], checks: Checks | None = None
    ) -> None:
        super().__init__(made, checks)
        self._kept = list(kept)
        self._kept_members = list(members)

    def segment(self, index: int) -> Segment:
        """One segment as the catalog states it."""
        return self._kept[index] if index < len(self._kept) else super().segment(index)

    def members(self, index: int) -> Iterator[Member]:
        """The members of one segment, in archive order."""
        if index < len(self._kept):
            number = self._kept[index].number
            return (member for member in self._kept_members if member.segment == number)
        return super().members(index)


class ContinuedRun(Run):
    """A run that begins behind segments which are on the tape."""

    kept: Sequence[Segment] = ()
    kept_members: Sequence[Member] = ()

    def continue_from(self, backup: Backup, row: int, kept: Sequence[Segment], members: Sequence[Member]) -> None:
        """Believe these segments, and go on in the catalog's rows."""
        self.kept, self.kept_members = kept, members
        self._backup_row, self._volume_row, self._recorded = backup.id, row, len(kept)
        self.first = len(kept)
        self.layout = self.lay_out(self.plan)

    def lay_out(self, made: Plan) -> Layout:
        """The layout of a plan, the first segments as they are kept."""
        return ContinuedLayout(made, self.kept, self.kept_members, self.checks)

    def damage(self) -> list[Damage]:
        """The damaged pages of the segments that are kept, then those found since."""
        kept = [
            Damage(member.of or member.path, *page) for member in self.kept_members for page in member.damaged_pages
        ]
        return [*kept, *(one for one in super().damage() if one not in kept)]

    def _begin(self, name: str) -> None:
        """It has begun."""

    def _write_label(self) -> None:
        """The label stands; go to where the first segment of this run begins."""
        at = (
            self.layout.segment(self.first).object if self.first < self.plan.segment_count else self.layout.end_object()
        )
        self.drive.locate(at)
        found = self.drive.position()
        if found.known and found.object_id != at:
            raise PositionLost(f"drive {self.drive.name}", f"object {at} was looked for, {found.object_id} found")


class ResumedBackup(TapeBackup):
    """The drive, tape and catalog of a backup to go on with; otherwise as TapeBackup."""

    backup: Backup | None = None
    _row = 0
    _known: Label | None = None
    _kept: Sequence[Segment] = ()

    def __enter__(self) -> "ResumedBackup":
        return self

    def find(self, backup: str) -> int:
        """Open catalog, drive and tape, and see that they are this backup's; returns how many segments are kept.

        Raises:
            NotFound, CatalogError: the catalog does not know it.
            WrongTape: another tape is in the drive.
            TapeError: the drive fails.
        """
        if self.state is None:
            raise CatalogError("resuming a backup", "it has no catalog")
        self._open_catalog()
        assert self._catalog is not None
        self.backup = self._catalog.backup(backup)
        self._row, self._known, _ = self._catalog.volume(self.backup.id)
        self._kept = self._catalog.segments(self._row)
        drive = self._drive = self._held.enter_context(open_drive(self.options.tape))
        drive.wait_ready()
        self._block_size = self._known.block_size
        found = volume.recognise(drive).label
        if found is None or (found.backup, found.volume_uuid) != (backup, self._known.volume_uuid):
            raise WrongTape(
                f"drive {drive.name}", f"the tape in it does not bear backup {backup}", f"Load {self._known.volume}."
            )
        return len(self._kept)

    def resume(
        self,
        device: BlockDevice,
        source: ExtentMap,
        paths: Sequence[bytes],
        confirmed: Progress | None = None,
        verify: Callable[[], None] | None = None,
        redo: Mapping[str, Content] | None = None,
        checks: Checks | None = None,
    ) -> Result:
        """Write the rest, after ``find``; ``paths``, ``redo`` and ``checks`` as for the run that was interrupted.

        Raises:
            Stale: the plan made now is not the one that the tape follows.
            SplitreelError: as TapeBackup.run.
        """
        assert self._drive is not None
        assert self._catalog is not None
        assert self.backup is not None
        assert self._known is not None
        made = self._plan_again(source, paths, self._known)
        members = list(self._catalog.members(self._row))
        run = ContinuedRun(
            self._drive, self._catalog, device, source, made, self._known, dict(redo or {}), self.options, checks
        )
        self._compare(run.layout, made)
        run.continue_from(self.backup, self._row, self._kept, members)
        self.result = run.result
        run.result.window_ms = self.backup.window_ms
        run.result.problems = source.problem_count
        run.confirmed, run.verify = confirmed, verify
        return run.execute(os.fsdecode(device.path))

    def _plan_again(self, source: ExtentMap, paths: Sequence[bytes], label: Label) -> Plan:
        return Plan.build(
            source,
            order=self.options.order,
            selection=plan.select(source, paths),
            block_size=label.block_size,
            segment_size=label.segment_size or SEGMENT_SIZE,
            sync_segments=self.options.sync_segments or SYNC_SEGMENTS,
            backup=label.backup,
            first_object=LABEL_OBJECTS,
            created=calendar.timegm(time.strptime(label.created, "%Y-%m-%dT%H:%M:%SZ")),
        )

    def _compare(self, layout: Layout, made: Plan) -> None:
        for index, kept in enumerate(self._kept):
            now = layout.segment(index) if index < made.segment_count else None
            if now is None or (now.object, now.blocks, now.members) != (kept.object, kept.blocks, kept.members):
                raise Stale(
                    f"backup {made.backup.decode()}", f"segment {kept.number} would be laid out differently now"
                )
