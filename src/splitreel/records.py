"""records is the JSON lines of manifests and catalogs: encoded, decoded, verified. It reads no tape and no database.

A line is never believed: every field's type and range is checked, and whatever is wrong is an IntegrityError.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from splitreel.core import checksum
from splitreel.errors import IntegrityError

MAX_LINE = 1 << 20  # bytes; a path is at most 64 KiB here, and a non-UTF-8 byte takes 6 in JSON
MAX_COUNTS = 64
MAX_INTEGER = (1 << 63) - 1
TYPES = frozenset(("file", "dir", "symlink", "link", "chr", "blk", "fifo", "sock"))


DamagedPage = tuple[int, int, int, str]  # number in relation or tablespace, byte of the file (no part), size, why


@dataclass(slots=True)
class Member:
    """One archive member as the manifest states it; sizes and offsets in bytes.

    ``block`` is the index in the segment of the tape block that holds its first header byte, ``offset`` the byte in it;
    ``stored`` the length of its archive data. ``segment`` (from 1), ``object`` and ``damaged_pages`` (of a database:
    damaged on the mirror, and on tape as they were there) are known in catalogs only.
    """

    path: bytes
    type: str
    size: int = 0
    mode: int = 0
    block: int = 0
    offset: int = 0
    stored: int = 0
    extents: int = 0
    crc32c: int | None = None
    target: bytes | None = None
    part: tuple[int, int] | None = None
    of: bytes | None = None
    at: int = 0
    segment: int = 0
    object: int = 0
    damaged_pages: tuple[DamagedPage, ...] = ()


@dataclass(slots=True)
class Segment:
    """One segment as a catalog states it; ``object`` is the object number of its first block."""

    number: int
    object: int
    blocks: int
    crc32c: int
    members: int = 0


def text(path: bytes) -> str:
    """A path as JSON holds it: UTF-8, other bytes as lone surrogates (surrogateescape)."""
    return path.decode("utf-8", "surrogateescape")


def encode(record: dict[str, Any]) -> bytes:
    """One JSON line, newline included, ASCII only."""
    return json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The object on one line.

    Raises:
        IntegrityError: it is too long, or not one JSON object with a ``kind``.
    """
    if len(line) > MAX_LINE:
        raise IntegrityError("reading a record", f"a line of {len(line)} bytes")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise IntegrityError("reading a record", f"not JSON: {text(line[:60])!r}") from error
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise IntegrityError("reading a record", f"no kind: {text(line[:60])!r}")
    return record


def integer(record: dict[str, Any], key: str, default: int | None = None) -> int:
    """A whole number of 0 or more.

    Raises:
        IntegrityError: it is missing (without a default), negative, too large or no integer.
    """
    value = record.get(key, default)
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise IntegrityError("reading a record", f"{key} is {value!r}")
    return value


def counts(record: dict[str, Any], key: str) -> dict[str, int]:
    """Named whole numbers; none when the key is missing.

    Raises:
        IntegrityError: it is anything else, or more than a few.
    """
    value = record.get(key, {})
    if not isinstance(value, dict) or len(value) > MAX_COUNTS:
        raise IntegrityError("reading a record", f"{key} is {value!r:.80}")
    return {name: integer(value, name) for name in value}


def crc(value: Any) -> int:
    """The value of 8 hex digits.

    Raises:
        IntegrityError: it is anything else.
    """
    try:
        if isinstance(value, str) and len(value) == 8 and value.isalnum():
            return int(value, 16)
    except ValueError:
        pass
    raise IntegrityError("reading a record", f"checksum is {value!r}")


def path_of(record: dict[str, Any], key: str) -> bytes:
    """A path's bytes.

    Raises:
        IntegrityError: no string, or one that no byte string decodes to.
    """
    value = record.get(key)
    try:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        pass
    raise IntegrityError("reading a record", f"{key} is {value!r:.80}")


def member(record: dict[str, Any]) -> Member:
    """The member on a decoded line of kind "member".

    Raises:
        IntegrityError: a field is missing or wrong.
    """
    kind = record.get("type")
    if kind not in TYPES:
        raise IntegrityError("reading a record", f"member type {kind!r:.40}")
    found = Member(
        path_of(record, "path"),
        kind,
        integer(record, "size", 0),
        integer(record, "mode", 0),
        integer(record, "block", 0),
        integer(record, "offset", 0),
        integer(record, "stored", 0),
        integer(record, "extents", 0),
        crc(record["crc32c"]) if "crc32c" in record else None,
        path_of(record, "target") if "target" in record else None,
    )
    if "part" in record:
        found.part = _part(record["part"])
        found.of = path_of(record, "of")
        found.at = integer(record, "at")
        if found.path != part_name(found.of, *found.part):
            raise IntegrityError("reading a record", f"{found.path!r:.80} is not the name of the part that it says")
    found.segment = integer(record, "segment", 0)
    found.object = integer(record, "object", 0)
    found.damaged_pages = tuple(map(_damaged_page, _list(record, "damaged_pages")))
    return found


def _list(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key, [])
    if not isinstance(value, list):
        raise IntegrityError("reading a record", f"{key} is {value!r:.80}")
    return value


def _damaged_page(value: Any) -> DamagedPage:
    whole = isinstance(value, list) and len(value) == 4 and isinstance(value[3], str)
    if not whole or not all(type(v) is int and 0 <= v <= MAX_INTEGER for v in value[:3]):
        raise IntegrityError("reading a record", f"damaged page {value!r:.80}")
    return value[0], value[1], value[2], value[3]


def part_name(path: bytes, number: int, count: int) -> bytes:
    """The member name of a part of a file."""
    return b"%s.splitreel-part-%04d-of-%04d" % (path, number, count)


def _part(value: Any) -> tuple[int, int]:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)
    if not numbers or not 1 <= value[0] <= value[1] <= MAX_INTEGER:
        raise IntegrityError("reading a record", f"part {value!r:.40}")
    return value[0], value[1]


def member_record(found: Member, *, in_catalog: bool = True) -> dict[str, Any]:
    """The JSON object of a member, keys in the order of the tape format."""
    record: dict[str, Any] = {"kind": "member", "path": text(found.path), "type": found.type}
    for key in ("size", "mode", "block", "offset", "stored", "extents"):
        record[key] = getattr(found, key)
    if found.crc32c is not None:
        record["crc32c"] = f"{found.crc32c:08x}"
    if found.target is not None:
        record["target"] = text(found.target)
    if found.part is not None and found.of is not None:
        record |= {"part": list(found.part), "of": text(found.of), "at": found.at}
    if in_catalog:
        record |= {"segment": found.segment, "object": found.object}
        if found.damaged_pages:
            record["damaged_pages"] = list(map(list, found.damaged_pages))
    return record


def segment_record(found: Segment) -> dict[str, Any]:
    """The JSON object of a segment in a catalog."""
    return {
        "kind": "segment",
        "segment": found.number,
        "object": found.object,
        "blocks": found.blocks,
        "crc32c": f"{found.crc32c:08x}",
        "members": found.members,
    }


def segment(record: dict[str, Any]) -> Segment:
    """The segment on a decoded catalog line of kind "segment".

    Raises:
        IntegrityError: a field is missing or wrong.
    """
    return Segment(
        integer(record, "segment"),
        integer(record, "object"),
        integer(record, "blocks"),
        crc(record.get("crc32c")),
        integer(record, "members", 0),
    )


class Lines:
    """Cuts a byte stream into lines and sums it, so that the last line can vouch for those before it.

    ``crc32c`` is that of all whole lines handed out so far. Memory: one line.
    """

    def __init__(self) -> None:
        self.rest = b""
        self.crc32c = 0

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield each line that ``data`` completes, without its newline.

        Raises:
            IntegrityError: a line is longer than MAX_LINE.
        """
        pieces = (self.rest + bytes(data)).split(b"\n")
        self.rest = pieces.pop()
        if len(self.rest) > MAX_LINE:
            raise IntegrityError("reading a record", f"a line of more than {MAX_LINE} bytes")
        for line in pieces:
            yield line
            self.crc32c = checksum.crc32c(line + b"\n", self.crc32c)


def summed(records: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """The records as lines, then the line that vouches for them: ``{"kind":"end","crc32c":…}``."""
    total = 0
    for record in records:
        line = encode(record)
        total = checksum.crc32c(line, total)
        yield line
    yield encode({"kind": "end", "crc32c": f"{total:08x}"})


def verified(chunks: Iterable[bytes | memoryview]) -> Iterator[dict[str, Any]]:
    """The records of a byte stream up to its ``end`` line, which is checked and not yielded.

    Raises:
        IntegrityError: a line is wrong, the end line is missing, or its CRC32C differs. Records yielded before that
            are to be dropped.
    """
    lines = Lines()
    for chunk in chunks:
        for line in lines.feed(chunk):
            record = decode(line)
            if record["kind"] != "end":
                yield record
            elif crc(record.get("crc32c")) == lines.crc32c:
                return
            else:
                raise IntegrityError("reading records", "the checksum of the lines differs from the last one's")
    raise IntegrityError("reading records", "they end before their last line")
