from types import TracebackType
from typing import Self

from typing_extensions import Buffer

from splitreel.core.tape import Tape

class StreamReader:
    """Reads tape files as byte streams; a thread of its own reads blocks ahead, up to ``ring_blocks`` of them.

    The drive must stand where a tape file begins (LOCATE first, with the reader stopped), then::

        with StreamReader(tape, block_size) as reader:
            reader.next_file()
            header = reader.read(512)
            crc = reader.copy_to(fd, offset, size)
            ...

    One thread uses it. The GIL is released in every call that waits or copies. What the reading thread met (a medium
    error, a block longer than ``block_size``) is raised by the call that reaches the place, after all that precedes it.

    Raises:
        LimitReached: no memory for the ring.
    """

    tape: Tape
    block_size: int
    position: int  # bytes from the start of the tape file to what is read next
    def __init__(self, tape: Tape, block_size: int, ring_blocks: int = 16) -> None: ...
    def next_file(self) -> None:
        """Start on the tape file at the drive's position.

        Behind a filemark that was reached this is the following tape file. Called before, it abandons what was read
        ahead: the drive then stands anywhere up to ``ring_blocks`` blocks farther, so LOCATE between stop() and this.
        """

    def stop(self) -> None:
        """End reading ahead and wait for the thread; then the drive may be given other commands. Idempotent."""

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a writable buffer; returns how many bytes: fewer than its length only where the tape file ends."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes: fewer only where the tape file ends."""

    def skip(self, size: int, crc: int = 0) -> int:
        """Pass over ``size`` bytes; returns their CRC32C, continued from ``crc``.

        Raises:
            IntegrityError: the tape file ends before.
        """

    def copy_to(self, fd: int, offset: int, size: int, crc: int = 0) -> int:
        """Write the next ``size`` bytes to file descriptor ``fd`` at ``offset`` (pwrite from the ring).

        Returns their CRC32C, continued from ``crc``.

        Raises:
            OSError: the file could not be written.
            IntegrityError: the tape file ends before.
        """

    @property
    def block_crcs(self) -> memoryview:
        """CRC32C of each block of this tape file read so far (ahead included), a buffer of uint32: a copy.

        All blocks of the tape file, once the end of it was reached.
        """

    @property
    def blocks(self) -> int:
        """Tape blocks of this tape file that were passed, the one in hand not counted."""

    @property
    def at_filemark(self) -> bool:
        """True when all of the tape file was read and a filemark ended it. Waits for the next block."""

    @property
    def at_end_of_data(self) -> bool:
        """True when all was read and end of data, without a filemark, ended it. Waits for the next block."""

    def close(self) -> None:
        """stop(), and free the ring. Idempotent."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
