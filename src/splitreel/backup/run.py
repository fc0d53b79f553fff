"""run is one backup under way: label, stream, catalog, closing tape file, and what to do when it ends early."""

import builtins
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from splitreel import volume
from splitreel.backup import closing
from splitreel.backup.layout import Layout
from splitreel.catalog import Catalog
from splitreel.core import checksum
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.plan import Plan
from splitreel.core.stream import FINISHED, STOPPED_EARLY_WARNING, StreamWriter
from splitreel.drive import Drive, redacted
from splitreel.errors import Cancelled, CatalogError, EndOfMedium, SplitreelError, TapeError
from splitreel.pages import Checks, Damage
from splitreel.volume import Label

RING_BYTES = 64 << 20
LABEL_OBJECTS = 3  # label, README block, filemark
POLL_SECONDS = 0.5

Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How a backup is to be written; 0 and "" mean the default. Sizes in bytes."""

    tape: str
    order: str = "path"
    block_size: int = 0
    segment_size: int = 0
    sync_segments: int = 0
    volume: str = ""
    overwrite: bool = False
    force: bool = False
    strict: bool = False
    job: str = ""
    engine: Literal["auto", "io_uring", "threads"] = "auto"


@dataclass(slots=True)
class Result:
    """What was written.

    ``left_out`` names what is not on tape and why; ``bytes`` is what is stored of files, without their holes;
    ``crc32c`` that of the segments' checksums as the catalog has them, 4 bytes each, little-endian.
    """

    id: str
    volume: str
    state: str = "running"
    reason: str = ""
    files: int = 0
    bytes: int = 0
    segments: int = 0
    tape_blocks: int = 0
    seconds: float = 0.0
    window_ms: float | None = None
    underruns: int = 0
    crc32c: int = 0
    block_size: int = 0
    engine: str = ""
    position_known: bool = False
    left_out: list[tuple[builtins.bytes, str]] = field(default_factory=list)
    problems: int = 0
    pages: Mapping[str, int] = field(default_factory=dict)  # counts of core.pages; empty: none were checked
    damaged_pages: list[Damage] = field(default_factory=list)
    catalog_error: SplitreelError | None = None

    @property
    def complete(self) -> bool:
        """True when the backup ran to its end."""
        return self.state == "complete"

    @property
    def sound(self) -> bool:
        """True when nothing is damaged or left out; a backup that is not is none the less kept whole."""
        return not (self.left_out or self.problems or self.damaged_pages or self.pages.get("damaged"))

    @property
    def mb_per_s(self) -> float:
        """10^6 bytes of content a second."""
        return self.bytes / 1e6 / self.seconds if self.seconds > 0 else 0.0

    def record(self) -> dict[str, Any]:
        """The last line of ``splitreel backup --json``."""
        return {
            "kind": "backup",
            "id": self.id,
            "state": self.state,
            "reason": self.reason,
            "volume": self.volume,
            "files": self.files,
            "bytes": self.bytes,
            "segments": self.segments,
            "tape_blocks": self.tape_blocks,
            "block_size": self.block_size,
            "seconds": round(self.seconds, 3),
            "mb_per_s": round(self.mb_per_s, 1),
            "window_ms": self.window_ms,
            "underruns": self.underruns,
            "crc32c": f"{self.crc32c:08x}",
            "engine": self.engine,
            "left_out": len(self.left_out),
            "damaged": self.problems,
            **({"pages": dict(self.pages)} if self.pages else {}),
        }

    def page_records(self) -> Iterator[dict[str, Any]]:
        """A line for each damaged page that was listed, for the same output."""
        for one in self.damaged_pages:
            path = one.path.decode("utf-8", "surrogateescape")
            yield {"kind": "page", "path": path, "page": one.page, "offset": one.offset, "why": one.why}


class Incomplete(EndOfMedium):
    """The tape was full before the backup was on it; ``result`` says what it holds."""

    default_advice = "What is listed as written can be restored. Back up again to a larger or an empty tape."
    result: Result


class Run:
    """One run under way: stream, catalog, and what to do when it ends early."""

    def __init__(
        self,
        drive: Drive,
        catalog: Catalog | None,
        device: BlockDevice,
        source: ExtentMap,
        made: Plan,
        label: Label,
        redo: dict[str, closing.Content],
        options: Options,
        checks: Checks | None = None,
    ) -> None:
        self.drive = drive
        self.catalog = catalog
        self.device = device
        self.source = source
        self.plan = made
        self.label = label
        self.redo = redo
        self.options = options
        self.checks = checks
        self.layout = self.lay_out(made)
        self.result = Result(label.backup, label.volume, block_size=made.block_size)
        self.confirmed: Progress | None = None
        self.progress: Progress | None = None
        self.verify: Callable[[], None] | None = None
        self._backup_row = self._volume_row = 0
        self._recorded = 0  # segments in the catalog
        self.first = 0  # index of the segment that this run begins with
        self._began = time.monotonic()
        self.writer: StreamWriter | None = None

    def lay_out(self, made: Plan) -> Layout:
        """The layout of a plan of this run."""
        return Layout(made, self.checks)

    def execute(self, name: str) -> Result:
        """Write all of it; the catalog and the result are right whatever happens."""
        result = self.result
        result.left_out = self.plan.skipped
        ring = max(4, RING_BYTES // self.plan.block_size)
        with StreamWriter(
            self.source,
            self.device,
            self.plan,
            self.drive.tape,
            ring_blocks=ring,
            engine=self.options.engine,
            pages=self.checks.checker if self.checks is not None else None,
        ) as self.writer:
            result.engine = self.writer.engine
            self._begin(name)
            try:
                self._write_label()
                self._write()
            except BaseException as error:
                self._fail(error)
                raise
        return result

    def _page_checks(self) -> dict[str, int]:
        return self.checks.checker.counts if self.checks is not None else {}

    def damage(self) -> list[Damage]:
        """The damaged pages found so far."""
        return self.checks.damage() if self.checks is not None else []

    # The catalog: what it cannot take does not stop the tape.

    def _keep(self, action: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        if self.catalog is None or self.result.catalog_error is not None:
            return None
        try:
            return action(*args, **keywords)
        except CatalogError as error:
            self.result.catalog_error = error
            return None

    def _begin(self, name: str) -> None:
        if self.catalog is not None:
            label = self.label
            self.catalog.overwrite(label.volume_uuid)
            self._backup_row = self.catalog.begin_backup(
                label.backup, name, created=label.created, host=label.host, job=self.options.job
            )
            self._volume_row = self.catalog.add_volume(self._backup_row, label, redacted(self.options.tape))

    def _record(self, segments: int) -> None:
        """Segments up to this index are confirmed: into the catalog with them."""
        for index in range(self._recorded, segments):
            segment = self.layout.segment(index)
            if self.catalog is not None:
                self._keep(self.catalog.add_segments, self._volume_row, [segment], self.layout.members(index))
            if self.confirmed is not None:
                self.confirmed({"segment": segment.number, "object": segment.object + segment.blocks + 1})
        self._recorded = max(self._recorded, segments)

    def _end(self, state: str, reason: str) -> None:
        result = self.result
        result.state, result.reason = state, reason
        result.seconds = time.monotonic() - self._began
        counted = self.layout.totals(self._recorded)
        result.files, result.bytes, result.tape_blocks = counted.files, counted.bytes, counted.blocks
        result.segments = self._recorded
        result.pages, result.damaged_pages = self._page_checks(), self.damage()
        digests = [self.layout.segment(index).crc32c for index in range(self._recorded)]
        result.crc32c = checksum.crc32c(b"".join(digest.to_bytes(4, "little") for digest in digests))
        if self.catalog is not None:
            totals = {"files": result.files, "bytes": result.bytes, "tape_blocks": result.tape_blocks}
            times = {"seconds": result.seconds, "window_ms": result.window_ms, "crc32c": result.crc32c}
            self._keep(self.catalog.add_page_checks, self._volume_row, result.pages)
            self._keep(self.catalog.finish_backup, self._backup_row, state, reason, **totals, **times)

    # The tape.

    def _write_label(self) -> None:
        volume.write(self.drive, self.label)
        if self.drive.position().known:
            self.drive.expect_position(LABEL_OBJECTS)

    def _write(self) -> None:
        assert self.writer is not None
        done = self.plan.segment_count
        outcome = FINISHED
        # A run that goes on with another one may have nothing left but the closing tape file.
        if self.first < done:
            if self.checks is not None:
                self.checks.go_on(self.plan, self.first, self.device)
            with _Poller(self):
                outcome = self.writer.run(self.first)
        self.result.underruns = self.writer.progress()["underruns"]
        if outcome == STOPPED_EARLY_WARNING:
            done = self._close_early()
        self.drive.expect_position(self.layout.end_object())
        self._record(done)
        if self.verify is not None:
            self.verify()
        if done < self.plan.segment_count or self.layout.plan is not self.plan:
            self._full()
        try:
            self._write_closing("complete")
        except EndOfMedium:
            self._end("incomplete", "the tape has no room for its catalog")
            raise self._incomplete("all files are on the tape, its own catalog is not") from None
        self._end("complete", "")

    def _close_early(self) -> int:
        """End of medium is near: end the segment behind the last whole member; returns how many segments there are."""
        assert self.writer is not None
        at = self.writer.stopped_at
        assert at is not None
        if at["complete"]:
            return int(at["segment"]) + 1
        short = self.plan.truncated(at["segment"], at["members"])
        self.layout = self.lay_out(short)
        if at["members"] == 0:
            # the filemarks before this segment may have been immediate ones
            self.drive.synchronize()
            self.drive.locate(self.layout.end_object())
            return int(at["segment"])
        self.drive.locate(at["object"])
        with StreamWriter(self.source, self.device, short, self.drive.tape, engine=self.options.engine) as rest:
            rest.run(at["segment"], at["rewrite_block"], past_early_warning=True)
        return int(at["segment"]) + 1

    def _full(self) -> None:
        with suppress(EndOfMedium):
            self._write_closing("incomplete")
        self._end("incomplete", "the tape is full")
        raise self._incomplete("it is full before all files are on it")

    def _incomplete(self, why: str) -> Incomplete:
        error = Incomplete(f"tape {self.label.volume}", why)
        error.result = self.result
        return error

    def _write_closing(self, state: str) -> None:
        self.drive.expect_position(self.layout.end_object())
        segments = [self.layout.segment(index) for index in range(self._recorded)]
        redo = self.redo if state == "complete" else {}
        stated = closing.redo_members(redo)
        chunks = closing.archive(
            self.label,
            segments,
            lambda: self.layout.all_members(self._recorded),
            redo,
            stated,
            state,
            self.plan.created,
            self._page_checks(),
        )
        closing.write(self.drive.tape, chunks, self.plan.block_size)
        self.result.position_known = self.drive.expect_position(self.drive.tape.object_id).known
        if self.catalog is not None:
            for path, size, crc in stated:
                self._keep(self.catalog.add_redo, self._volume_row, path, size, crc)

    def _fail(self, error: BaseException) -> None:
        """The run ends early: leave the tape readable where the drive still works, and the catalog true."""
        if self.result.state != "running":
            return
        reason = str(error) or type(error).__name__
        if not isinstance(error, TapeError):
            with suppress(TapeError):
                self._close_after_failure()
        with suppress(CatalogError):
            self._end("incomplete", reason)

    def _close_after_failure(self) -> None:
        """Nothing is wrong with the drive: keep the segments that are whole, end the tape behind them."""
        assert self.writer is not None
        written = self.writer.progress()
        if written["objects_written"] <= LABEL_OBJECTS:
            return
        self.drive.synchronize()
        # What the catalog lists stays: the stream's own count is of the segment it was last in.
        whole = max(int(written["segment"]), self._recorded)
        if whole < self.layout.plan.segment_count:
            self.layout = self.lay_out(self.plan.truncated(whole, 0))
        self.drive.locate(self.layout.end_object())
        self.drive.expect_position(self.layout.end_object())
        self._record(whole)
        self._write_closing("incomplete")


class _Poller:
    """A thread that keeps catalog and display up with the stream; leaving it takes the last look.

    Where the stream came to its end, what it wrote last is not recorded here: the position is compared before that.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="splitreel-progress", daemon=True)
        self._error: BaseException | None = None
        self._failed = False

    def __enter__(self) -> "_Poller":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._failed = exception[0] is not None
        self._done.set()
        self._thread.join()
        # The stream it cancelled says no more than that it was cancelled.
        if self._error is not None and (exception[0] is None or isinstance(exception[1], Cancelled)):
            raise self._error

    def _poll(self) -> None:
        writer = self.run.writer
        assert writer is not None
        try:
            while not self._done.wait(POLL_SECONDS):
                self._look(writer.progress(), record=True)
            self._look(writer.progress(), record=self._failed)
        except BaseException as error:
            self._error = error
            writer.cancel()

    def _look(self, seen: dict[str, Any], *, record: bool) -> None:
        # past early warning the last segment may still be cut: it is recorded when it is closed
        if record and not seen["early_warning"]:
            self.run._record(int(seen["segments_confirmed"]))
        if self.run.progress is not None:
            self.run.progress(seen)
