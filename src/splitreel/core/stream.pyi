from types import TracebackType
from typing import Any, Literal, Self

from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.pages import PageChecker
from splitreel.core.plan import Plan
from splitreel.core.tape import Tape

FINISHED: int
STOPPED_EARLY_WARNING: int

class StreamWriter:
    """Carries the segments of ``plan`` from ``device`` to ``tape``: many reads in flight, blocks written in order.

    ``ring_blocks`` tape blocks of memory stand between the reading thread (the caller of run()) and the writing one;
    ``depth`` reads are in flight. The writer starts, and after an underrun starts again, when ``high_water`` blocks are
    ready (default: half the ring). All memory is taken here. ``map`` must be the plan's. ``pages`` verifies database
    pages on their way; what it finds stops nothing.

    Raises:
        Misuse: the parts do not fit one another. LimitReached: no memory. DeviceError: no such engine here.
    """

    plan: Plan
    device: BlockDevice
    tape: Tape
    high_water: int
    def __init__(
        self,
        map: ExtentMap,
        device: BlockDevice,
        plan: Plan,
        tape: Tape,
        *,
        ring_blocks: int = 64,
        depth: int = 128,
        engine: Literal["auto", "io_uring", "threads"] = "auto",
        high_water: int | None = None,
        pages: PageChecker | None = None,
    ) -> None: ...
    def run(self, first_segment: int = 0, first_block: int = 0, *, past_early_warning: bool = False) -> int:
        """Write the plan's segments from index ``first_segment`` on, the first one from block ``first_block`` on.

        The drive must stand at object ``segments[first_segment].first_object + first_block``, and ``tape.object_id``
        say so. Blocks before first_block are made again, since what follows holds their checksums, but not written.
        Each segment ends with a filemark, a synchronise where the plan says so. Afterwards ``plan.crc32c`` and
        ``plan.segments["digest"]`` are filled in, and ``crc32c`` sums the checksums of all blocks of the run.

        Returns FINISHED, or STOPPED_EARLY_WARNING: the drive accepted a block and said that the end of the medium is
        near; ``stopped_at`` says where. With ``past_early_warning`` it goes on instead. May be called again.

        Raises:
            DeviceError: the mirror does not read, also when asked again for one file system block (``object_id`` is the
                inode, ``offset`` the byte on the device).
            TapeError: a block was not accepted, or lost. PositionLost: the drive's object number is not the plan's.
            IntegrityError: bytes in and bytes out differ, or the layout did not come out as planned.
            Cancelled: cancel() was called. KeyboardInterrupt and what other signal handlers raise, within a second.
        """

    def cancel(self) -> None:
        """End the run at the next block; from any thread. A stream that was cancelled stays so."""

    def progress(self) -> dict[str, Any]:
        """Counts so far; from any thread.

        bytes_read (file content), bytes_written, blocks, objects_written and objects_confirmed (object numbers: of the
        next object, and of the first that no completed synchronise covers), segments_confirmed (index behind the last
        one that a synchronise covers), segment (index), segment_blocks, members (laid out), underruns, ring_fill and
        ring_blocks, reader_wait and writer_wait (seconds each side waited for the other), reads_retried, early_warning,
        programmable_early_warning, seconds.
        """

    @property
    def crc32c(self) -> int:
        """CRC32C of the checksums of all blocks of the last run, in tape order, 4 bytes each, little-endian."""

    @property
    def engine(self) -> str:
        """io_uring or threads."""

    @property
    def stopped_at(self) -> dict[str, Any] | None:
        """Where early warning ended the run; None when it did not.

        segment (index), blocks (of it, accepted), complete (the segment is whole, its filemark synchronised), members
        (of it, wholly on tape), rewrite_block and object: the block in which the first incomplete member begins, where
        ``plan.truncated(segment, members)`` is written on from: run(segment, rewrite_block, past_early_warning=True).
        """

    def close(self) -> None:
        """Wait for reads in flight and free the engine. Idempotent."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
