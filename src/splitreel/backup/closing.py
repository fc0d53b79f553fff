"""closing writes the last tape file: what the database gives only at stop, and the tape's own catalog. It reads none.

Its lines are made twice, once to be measured and once to be written: a catalog of a million files is never in memory,
nor is redo that stands in files.
"""

import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from splitreel import catalog
from splitreel.core import checksum
from splitreel.errors import DeviceError, IntegrityError, Misuse
from splitreel.reading.segment import CATALOG, REDO
from splitreel.records import Member, Segment
from splitreel.volume import Label, TapeLike

RECORD = 512
MAX_NAME = 4096
PIECE = 1 << 20  # bytes of a file read at a time

Content = bytes | Path  # of a redo member: as it is, or a file that does not change any more


def check_names(redo: Iterable[str]) -> None:
    """Refuse names that no member can have.

    Raises:
        Misuse: a name is no plain relative path.
        DeviceError: a file cannot be read.
    """
    for name in redo:
        parts = name.split("/")
        if len(name) > MAX_NAME or any(part in ("", ".", "..") for part in parts) or "\0" in name:
            raise Misuse("writing the closing tape file", f"redo name {name!r:.80}")


def redo_members(redo: Mapping[str, Content]) -> list[tuple[bytes, int, int]]:
    """Path, size and CRC32C of the redo members that ``redo`` (name to content) makes, in their order.

    Raises:
        Misuse: a name is no plain relative path.
        DeviceError: a file cannot be read.
    """
    check_names(redo)
    found = []
    for name, content in sorted(redo.items()):
        size = crc = 0
        for piece in _pieces(content):
            size, crc = size + len(piece), checksum.crc32c(piece, crc)
        found.append((REDO + name.encode("utf-8", "surrogateescape"), size, crc))
    return found


def _pieces(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    try:
        with content.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise DeviceError(f"redo file {content}", error.strerror or str(error), "Run the session again.") from error


def _content(content: Content, size: int, crc: int) -> Iterator[bytes]:
    """The content as it was measured: never a byte more, which would be taken for the next member's header."""
    written, seen = 0, 0
    for piece in _pieces(content):
        written, seen = written + len(piece), checksum.crc32c(piece, seen)
        if written > size:
            break
        yield piece
    if (written, seen) != (size, crc):
        raise IntegrityError(f"redo file {content!s:.200}", "it changed while it was read", "Run the session again.")


def _header(path: bytes, size: int, kind: str, created: int) -> bytes:
    info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
    info.size, info.mode, info.mtime = size, 0o600, created
    info.pax_headers = {"SPLITREEL.kind": kind}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def archive(
    label: Label,
    segments: list[Segment],
    members: Callable[[], Iterator[Member]],
    redo: Mapping[str, Content],
    stated: Sequence[tuple[bytes, int, int]],
    state: str,
    created: int,
    pages: Mapping[str, int] | None = None,
) -> Iterator[bytes]:
    """The bytes of the closing tape file, not padded to blocks; ``members`` is called twice.

    ``stated`` is what redo_members said of ``redo``, ``pages`` what the checks of database pages counted.
    """
    for (path, size, crc), name in zip(stated, sorted(redo), strict=True):
        yield _header(path, size, "redo", created)
        yield from _content(redo[name], size, crc)
        yield bytes(-size % RECORD)

    def lines() -> Iterator[bytes]:
        return catalog.lines(label, segments, members(), list(stated), state, pages)

    size = sum(map(len, lines()))
    yield _header(CATALOG, size, "catalog", created)
    yield from lines()
    yield bytes(-size % RECORD) + bytes(2 * RECORD)


def write(tape: TapeLike, chunks: Iterable[bytes], block_size: int) -> int:
    """Write a byte stream as tape blocks, the last padded with zeros, and a filemark that is a synchronise.

    Returns how many blocks. Early warning is no reason to stop: this is what the room behind it is for.

    Raises:
        EndOfMedium: not even that room suffices.
        TapeError: the drive failed.
    """
    block = bytearray()
    count = 0
    for chunk in chunks:
        block += chunk
        while len(block) >= block_size:
            tape.write(bytes(block[:block_size]))
            del block[:block_size]
            count += 1
    if block:
        tape.write(bytes(block.ljust(block_size, b"\0")))
        count += 1
    tape.filemarks(1)
    return count
