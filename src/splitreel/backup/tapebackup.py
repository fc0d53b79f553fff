"""tapebackup writes one backup from a device to a drive: everything is checked first, then the tape is written.

It quiesces nothing. What the catalog lists as written was confirmed by a synchronise; whatever ends a run early, the
tape is left readable as far as it goes, with a catalog of its own where there is room for one.
"""

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from splitreel import plan, volume
from splitreel.backup import closing
from splitreel.backup.run import LABEL_OBJECTS, Incomplete, Options, Progress, Result, Run
from splitreel.catalog import Catalog
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.plan import Plan
from splitreel.drive import Drive, open_drive
from splitreel.errors import FilesystemError, NotReady, UsageError, WriteProtected
from splitreel.pages import Checks
from splitreel.volume import Found, Label

__all__ = ["Incomplete", "Options", "Progress", "Result", "TapeBackup", "back_up"]

BLOCK_SIZE = 1 << 20
BLOCK_UNIT = 4096
SEGMENT_SIZE = 16 << 30
SYNC_SEGMENTS = 4


class TapeBackup:
    """One backup's drive, tape and catalog: ``check``, then ``run``, then ``close``; a context manager.

    ``state`` is the state directory; without one no catalog is kept. One thread.
    """

    def __init__(self, options: Options, state: str | os.PathLike[str] | None = None) -> None:
        self.options = options
        self.state = state
        self.result: Result | None = None
        self._held = ExitStack()
        self._drive: Drive | None = None
        self._catalog: Catalog | None = None
        self._found: Found | None = None
        self._block_size = 0

    def __enter__(self) -> "TapeBackup":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let drive and catalog go; harmless twice."""
        self._held.close()
        self._drive = self._catalog = None

    @property
    def waiting(self) -> str:
        """What the drive is waited for, or ""; from any thread."""
        drive = self._drive
        return f"drive {drive.name}: {drive.waiting}" if drive is not None and drive.waiting else ""

    # Before anything is touched.

    def check(self) -> None:
        """Open the drive and see that its tape may be written; open the catalog. Nothing is written.

        Raises:
            NotReady, WriteProtected, WrongTape: an operator is needed.
            UsageError: the block size is not possible on this path.
            TapeError, CatalogError: drive or catalog cannot be used.
        """
        if self._drive is not None:
            return
        try:
            drive = self._drive = self._held.enter_context(open_drive(self.options.tape))
            drive.wait_ready()
            if drive.mode().write_protected:
                raise WriteProtected(f"the tape in drive {drive.name}", "it is write-protected")
            self._block_size = self._choose_block_size(drive)
            self._found = volume.recognise(drive)
            volume.require_writable(self._found, overwrite=self.options.overwrite, force=self.options.force)
            if self.options.volume:
                Label(self.options.volume)
            self._open_catalog()
        except BaseException:
            self.close()
            raise

    def _open_catalog(self) -> None:
        if self.state is not None:
            self._catalog = self._held.enter_context(Catalog(self.state))

    def _choose_block_size(self, drive: Drive) -> int:
        most = drive.tape.max_block
        wanted = self.options.block_size
        if wanted and (wanted > most or wanted % BLOCK_UNIT or wanted < BLOCK_UNIT):
            why = f"drive {drive.name} and the path to it carry blocks of up to {most} bytes, multiples of {BLOCK_UNIT}"
            raise UsageError(f"tape block size {wanted}", why, "Choose another one, or leave it out.")
        chosen = wanted or BLOCK_SIZE
        while chosen > most:
            chosen //= 2
        if chosen < BLOCK_UNIT:
            raise UsageError(f"drive {drive.name}", f"the path to it carries blocks of {most} bytes at most")
        return chosen

    def still_ready(self) -> None:
        """The tape is still in the drive.

        Raises:
            NotReady: it is not.
        """
        assert self._drive is not None
        if not self._drive.test_unit_ready():
            raise NotReady(f"drive {self._drive.name}", "its tape was taken out")

    # Writing.

    def run(
        self,
        device: BlockDevice,
        source: ExtentMap,
        paths: Sequence[bytes] = (),
        redo: Mapping[str, closing.Content] | None = None,
        window_ms: float | None = None,
        confirmed: Progress | None = None,
        progress: Progress | None = None,
        verify: Callable[[], None] | None = None,
        checks: Checks | None = None,
    ) -> Result:
        """Write the files at ``paths`` (all without any) of the file system that ``source`` maps on ``device``.

        ``redo`` (name to content, or to a file that holds it) goes into the closing tape file. ``confirmed`` is told
        what a synchronise has kept, ``progress`` about twice a second what StreamWriter.progress says; both in another
        thread. ``verify`` is called when all is on tape, before that is said: what it raises makes it incomplete.
        ``checks`` says which database pages are verified on their way; what they find is in the result.

        Raises:
            NotFound: a path is not in the map.
            Corrupt: something is damaged and ``strict`` was asked for; nothing was written.
            Incomplete: the tape is full; what is on it can be restored.
            TapeError, DeviceError, IntegrityError: the run failed; ``result`` says how far it came.
        """
        self.check()
        assert self._drive is not None
        assert self._found is not None
        self._refuse_damage(source)
        made = self._plan(source, paths)
        label = self._label(made)
        run = Run(self._drive, self._catalog, device, source, made, label, dict(redo or {}), self.options, checks)
        self.result = run.result
        run.result.window_ms = window_ms
        run.result.problems = source.problem_count
        run.confirmed, run.progress, run.verify = confirmed, progress, verify
        closing.check_names(run.redo)
        return run.execute(os.fsdecode(device.path))

    def _refuse_damage(self, source: ExtentMap) -> None:
        if self.options.strict and source.problem_count:
            inode, offset, text = source.problems[0]
            raise FilesystemError(f"inode {inode}, offset {offset}", text, "Leave out --strict to back up the rest.")

    def _plan(self, source: ExtentMap, paths: Sequence[bytes]) -> Plan:
        made = Plan.build(
            source,
            order=self.options.order,
            selection=plan.select(source, paths),
            block_size=self._block_size,
            segment_size=self.options.segment_size or SEGMENT_SIZE,
            sync_segments=self.options.sync_segments or SYNC_SEGMENTS,
            backup=str(uuid.uuid4()),
            first_object=LABEL_OBJECTS,
            created=int(time.time()),
        )
        if self.options.strict and made.skipped_count:
            path, why = made.skipped[0]
            raise FilesystemError(f"path {os.fsdecode(path)}", why, "Leave out --strict to back up the rest.")
        return made

    def _label(self, made: Plan) -> Label:
        """A tape that has a name keeps it; a blank one is given one."""
        known = self._found.label if self._found is not None else None
        label = Label(
            self.options.volume or (known.volume if known is not None else volume.new_name()),
            backup=made.backup.decode("ascii"),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made.created)),
            block_size=made.block_size,
            segment_size=made.segment_size,
        )
        return replace(label, volume_uuid=known.volume_uuid) if known is not None else label

    def remember(
        self, phases: Sequence[tuple[str, float, float]], windows: Sequence[tuple[str, float, float]] = ()
    ) -> None:
        """Complete the catalog with a session's phases and windows: name, start (seconds since 1970), seconds."""
        if self._catalog is None or self.result is None:
            return
        row = self._catalog.backup(self.result.id).id
        for phase in phases:
            self._catalog.add_phase(row, *phase)
        for window in windows:
            self._catalog.add_window(row, *window)


def back_up(
    device: BlockDevice,
    source: ExtentMap,
    options: Options,
    *,
    paths: Sequence[bytes] = (),
    redo: Mapping[str, closing.Content] | None = None,
    state: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    verify: Callable[[], None] | None = None,
    checks: Checks | None = None,
) -> Result:
    """One backup from a device that nobody writes to: an image or a mirror already split. See TapeBackup.run."""
    with TapeBackup(options, state) as tape:
        tape.check()
        return tape.run(device, source, paths, redo, progress=progress, verify=verify, checks=checks)
