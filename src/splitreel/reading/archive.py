"""archive reads one segment as pax archive members, from whatever hands out its tape blocks. It writes nothing.

Bytes are hostile until checked: every header's checksum, every length, depth and range, every record is verified
before use, and memory is bounded by MAX_PAX plus one sparse map and one block, whatever the archive says.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from splitreel.core import checksum
from splitreel.errors import IntegrityError

RECORD = 512
MAX_PAX = 16 << 20  # bytes of one extended header: ext4 and XFS hold 64 KiB an attribute, and lists of 64 KiB
MAX_PATH = 64 << 10
MAX_PIECES = 1 << 22  # of a sparse file; 16 bytes each
MAX_SIZE = 1 << 62
TYPES = {
    b"0": "file",
    b"\0": "file",
    b"1": "link",
    b"2": "symlink",
    b"3": "chr",
    b"4": "blk",
    b"5": "dir",
    b"6": "fifo",
    b"7": "file",
}
ZEROS = bytes(RECORD)


class BlockSource(Protocol):
    """Hands out the blocks of one tape file; the view is valid until the next call; None at its end."""

    def next_block(self) -> memoryview | bytes | None:
        """The next tape block, or None at the filemark or end of data."""
        ...


class Blocks:
    """A BlockSource over bytes: for tests and for what is already in memory."""

    def __init__(self, data: bytes | memoryview, block_size: int) -> None:
        self.data = memoryview(data)
        self.block_size = block_size

    def next_block(self) -> memoryview | None:
        """The next block_size bytes, fewer at the end, None after it."""
        block, self.data = self.data[: self.block_size], self.data[self.block_size :]
        return block if len(block) else None


@dataclass(slots=True)
class Entry:
    """One member's headers, decoded and verified; its data are read with ``SegmentReader.pieces``.

    ``size`` is the file's logical size, ``stored`` the archive data's, ``pieces`` offsets and lengths (alternating) of
    a sparse file's data; ``block`` and ``offset`` say where its first header begins, counted in the segment.
    """

    path: bytes
    type: str
    block: int
    offset: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    stored: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    kind: str = ""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    acls: dict[str, bytes] = field(default_factory=dict)
    pieces: "array[int] | None" = None

    @property
    def control(self) -> bool:
        """True for the archive's own members (manifest, checksums, catalog)."""
        return self.path.startswith(b".splitreel/") and self.kind != ""


class Torn(IntegrityError):
    """The segment ends, or stops making sense, before its end."""

    default_advice = "What was verified before this point is good; the rest of this segment is not on this tape."


class SegmentReader:
    """Iterates over the members of one segment. One thread at a time; data not asked for are passed over.

    ``block_size`` None takes the first block's. ``start`` is the index in the segment of the source's first block and
    ``offset`` the byte in it where a member begins, for a source that was positioned in mid-segment. ``block_crcs``
    holds the CRC32C of each block read so far. Raises Torn where the archive cannot be followed further.
    """

    def __init__(self, source: BlockSource, block_size: int | None = None, start: int = 0, offset: int = 0) -> None:
        self.source = source
        self.block_size = block_size
        self.start = start
        self.block_crcs: array[int] = array("I")
        self._view = memoryview(b"")
        self._at = 0
        self._left = 0  # bytes of the current member's data not read yet
        self._padding = 0
        self._entry: Entry | None = None
        self.ended = False
        if offset:
            self._load()
            if offset >= len(self._view) or offset % RECORD:
                raise Torn("reading a segment", f"no member can begin at byte {offset} of a block")
            self._at = offset

    @property
    def blocks(self) -> int:
        """How many tape blocks were read."""
        return len(self.block_crcs)

    def _load(self) -> None:
        block = self.source.next_block()
        if block is None:
            raise Torn("reading a segment", f"it ends after {self.blocks} blocks without the archive's end")
        if self.block_size is None:
            self.block_size = len(block)
        if len(block) != self.block_size or not block:
            raise Torn("reading a segment", f"block {self.blocks} has {len(block)} bytes, not {self.block_size}")
        self.block_crcs.append(checksum.crc32c(block))
        self._view = memoryview(block)
        self._at = 0

    def _chunks(self, count: int) -> Iterator[memoryview]:
        while count:
            if self._at == len(self._view):
                self._load()
            chunk = self._view[self._at : self._at + count]
            self._at += len(chunk)
            count -= len(chunk)
            yield chunk

    def _take(self, count: int) -> bytes:
        return b"".join(bytes(chunk) for chunk in self._chunks(count))

    def _skip(self, count: int) -> None:
        for _ in self._chunks(count):
            pass

    def __iter__(self) -> Iterator[Entry]:
        """Yield each member; before the next one the rest of its data is passed over."""
        while (entry := self.next_entry()) is not None:
            yield entry

    def next_entry(self) -> Entry | None:
        """The next member, or None at the archive's end.

        Raises:
            Torn: the blocks end, or a header fails its checks.
        """
        self._skip(self._left + self._padding)
        self._left = self._padding = 0
        if self._at == len(self._view):
            self._load()
        block, offset = self.start + self.blocks - 1, self._at
        header = self._take(RECORD)
        if header == ZEROS:
            self._end()
            return None
        try:
            entry = self._decode(header, block, offset)
        except (ValueError, OverflowError) as error:
            raise self._torn(block, offset, str(error)) from error
        self._entry = entry
        return entry

    def _torn(self, block: int, offset: int, why: str) -> Torn:
        return Torn(f"reading a member's header (block {block}, byte {offset})", why)

    def _end(self) -> None:
        if self._take(RECORD) != ZEROS:
            raise Torn("reading a segment", "one zero record, not two, where the archive should end")
        self._at = len(self._view)
        self.ended = True

    def _decode(self, header: bytes, block: int, offset: int) -> Entry:
        pax: dict[bytes, bytes] = {}
        verify_header(header)
        if header[156:157] == b"x":
            size = number(header[124:136])
            if size > MAX_PAX:
                raise ValueError(f"an extended header of {size} bytes")
            pax = pax_records(self._take(size))
            self._skip(-size % RECORD)
            header = self._take(RECORD)
            verify_header(header)
        entry = decode_entry(header, pax, block, offset)
        self._left, self._padding = entry.stored, -entry.stored % RECORD
        if pax.get(b"GNU.sparse.major") == b"1":
            self._sparse_map(entry, number_text(pax.get(b"GNU.sparse.realsize", b"")))
        return entry

    def _sparse_map(self, entry: Entry, size: int) -> None:
        """GNU sparse 1.0: the data begin with the map, a number on each line, padded to whole records."""
        entry.size = size
        text = self._map_text(entry)
        count = number_text(text[: text.index(b"\n")])
        fields = text.split(b"\n", 2 * count + 1)[1:-1]
        pieces = array("Q", map(number_text, fields))
        end = total = 0
        for i in range(0, 2 * count, 2):
            if pieces[i] < end or pieces[i] + pieces[i + 1] > size:
                raise ValueError("a sparse map out of order or beyond the file's size")
            end = pieces[i] + pieces[i + 1]
            total += pieces[i + 1]
        if total != self._left:
            raise ValueError(f"a sparse map of {total} bytes over {self._left} stored")
        entry.pieces = pieces

    def _map_text(self, entry: Entry) -> bytes:
        text = bytearray()
        wanted = newlines = -1
        while wanted < 0 or newlines < wanted:
            if self._left < RECORD:
                raise ValueError("a sparse map longer than its member")
            text += self._take(RECORD)
            self._left -= RECORD
            if wanted < 0:
                count = number_text(bytes(text[: text.index(b"\n")]))
                if count > MAX_PIECES or 4 * count > entry.stored:
                    raise ValueError(f"a sparse map of {count} pieces")
                wanted, newlines = 2 * count + 1, text.count(b"\n")
            else:
                newlines += text.count(b"\n", len(text) - RECORD)
        return bytes(text)

    def pieces(self) -> Iterator[tuple[int, memoryview]]:
        """Yield (offset in the file, bytes) of the current member's data, holes left out; each view until the next.

        Raises:
            Torn: the blocks end first.
        """
        entry = self._entry
        if entry is None:
            return
        runs = entry.pieces if entry.pieces is not None else array("Q", (0, self._left))
        for i in range(0, len(runs), 2):
            at = runs[i]
            for chunk in self._chunks(runs[i + 1]):
                self._left -= len(chunk)
                yield at, chunk
                at += len(chunk)

    def content(self, limit: int) -> bytes:
        """The current member's stored data, whole.

        Raises:
            Torn: the blocks end first, or it is longer than ``limit``.
        """
        if self._left > limit:
            raise Torn("reading a control member", f"{self._left} bytes where at most {limit} are expected")
        return b"".join(bytes(chunk) for _, chunk in self.pieces())


def verify_header(header: bytes) -> None:
    """Check a ustar header's checksum and magic.

    Raises:
        ValueError: either is wrong.
    """
    stated = number(header[148:156])
    actual = sum(header[:148]) + 8 * 32 + sum(header[156:])
    if stated != actual:
        raise ValueError(f"header checksum {actual}, stated {stated}")
    if header[257:263] != b"ustar\0":
        raise ValueError(f"magic {header[257:263]!r}")


def number(text: bytes) -> int:
    """A ustar number: octal digits, then blanks or NUL; empty is 0.

    Raises:
        ValueError: anything else.
    """
    digits = text.split(b"\0", 1)[0].strip(b" ")
    if not digits.isdigit() and digits:
        raise ValueError(f"octal field {text!r}")
    return int(digits or b"0", 8)


def number_text(digits: bytes) -> int:
    """A decimal number as pax records and sparse maps hold it.

    Raises:
        ValueError: not 1 to 19 digits, or beyond MAX_SIZE.
    """
    if not digits.isdigit() or len(digits) > 19 or int(digits) > MAX_SIZE:
        raise ValueError(f"number {digits[:30]!r}")
    return int(digits)


def pax_records(data: bytes) -> dict[bytes, bytes]:
    """The records of an extended header (IEEE 1003.1 pax): ``length keyword=value newline``.

    Raises:
        ValueError: a length, separator or newline is not where it must be.
    """
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 9)
        length = number_text(data[at:blank]) if blank > at else 0
        end = at + length
        equals = data.find(b"=", blank, end)
        if length < 5 or end > len(data) or equals < 0 or data[end - 1 : end] != b"\n":
            raise ValueError(f"extended header record at byte {at}")
        records[data[blank + 1 : equals]] = data[equals + 1 : end - 1]
        at = end
    return records


def time_ns(value: bytes) -> int:
    """A pax time, seconds with an optional sign and fraction, in nanoseconds since 1970.

    Raises:
        ValueError: anything else.
    """
    whole, _, fraction = value.partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    seconds = number_text(whole.removeprefix(b"-"))
    if seconds > 1 << 40:
        raise ValueError(f"time {value[:30]!r}")
    nanoseconds = number_text(fraction[:9].ljust(9, b"0")) if fraction else 0
    return sign * (seconds * 1_000_000_000 + nanoseconds)


def decode_entry(header: bytes, pax: dict[bytes, bytes], block: int, offset: int) -> Entry:
    """The member that a ustar header and its pax records describe.

    Raises:
        ValueError: an unknown type, a field out of range, a path too long or with a NUL.
    """
    if header[156:157] not in TYPES:
        raise ValueError(f"member type {header[156:157]!r}")
    kind = TYPES[header[156:157]]
    entry = Entry(_path(header, pax), kind, block, offset)
    entry.mode = number(header[100:108]) & 0o7777
    entry.uid = _field(pax, b"uid", header[108:116])
    entry.gid = _field(pax, b"gid", header[116:124])
    entry.stored = entry.size = _field(pax, b"size", header[124:136])
    if entry.stored and kind != "file":
        raise ValueError(f"a {kind} with {entry.stored} bytes of data")
    if max(entry.uid, entry.gid) >= (1 << 32) - 1:
        raise ValueError(f"owner {entry.uid}:{entry.gid}")
    entry.mtime_ns = time_ns(pax[b"mtime"]) if b"mtime" in pax else number(header[136:148]) * 1_000_000_000
    entry.target = _verified_path(pax.get(b"linkpath", header[157:257].split(b"\0", 1)[0]))
    entry.device = number(header[329:337]), number(header[337:345])
    entry.kind = pax.get(b"SPLITREEL.kind", b"").decode("ascii", "replace")
    # GNU tar, xheader.c: = would end a keyword, so it travels as %3D, and % as %25
    entry.xattrs = {
        k[13:].replace(b"%3D", b"=").replace(b"%25", b"%"): v for k, v in pax.items() if k.startswith(b"SCHILY.xattr.")
    }
    for acl in ("access", "default"):
        if (value := pax.get(b"SCHILY.acl." + acl.encode())) is not None:
            entry.acls[acl] = value
    return entry


def _field(pax: dict[bytes, bytes], key: bytes, octal: bytes) -> int:
    return number_text(pax[key]) if key in pax else number(octal)


def _path(header: bytes, pax: dict[bytes, bytes]) -> bytes:
    name, prefix = header[:100].split(b"\0", 1)[0], header[345:500].split(b"\0", 1)[0]
    plain = prefix + b"/" + name if prefix else name
    path = pax.get(b"GNU.sparse.name", pax.get(b"path", plain))
    return _verified_path(path)


def _verified_path(path: bytes) -> bytes:
    if len(path) > MAX_PATH or b"\0" in path:
        raise ValueError(f"a path of {len(path)} bytes" if len(path) > MAX_PATH else "a path with a NUL")
    return path
