"""volume is tape file 0: the VOL1 label and the README block, built, written, recognised. It moves no data.

A tape is recognised whatever block size is set, and what is not ours is named as well as its first bytes allow.
"""

import datetime
import json
import re
import socket
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from splitreel import __version__, records
from splitreel.errors import IntegrityError, SplitreelError, UsageError, WrongTape

FORMAT = "splitreel-pax-segments"
VERSION = 1
LABEL_SIZE = 80
README_LIMIT = 64 << 10
IMPLEMENTATION = b"SPLITREEL    "
JSON_MARK = "--- JSON ---"
PROBE = 1 << 20  # bytes asked for when the block size is unknown; twice any block of ours in tape file 0 and more
CONDITIONS_FILEMARK, CONDITIONS_END_OF_DATA = 3, 4  # fault.pxd: status_t
VOLUME_NAME = re.compile(r"[A-Z0-9][A-Z0-9!%&'()*+,./:;<=>?_-]{0,5}")


class TapeLike(Protocol):
    """Blocks and filemarks, as core's Tape has them."""

    max_block: int

    def read(self, capacity: int) -> bytes | int:
        """One block, or the condition met (filemark, end of data)."""
        ...

    def write(self, block: bytes) -> int:
        """One block."""
        ...

    def filemarks(self, count: int, immediate: bool = False) -> int:
        """Filemarks; waited for unless immediate."""
        ...


class DriveLike(Protocol):
    """What recognising and labelling need of a drive."""

    @property
    def tape(self) -> TapeLike:
        """Where blocks are moved."""
        ...

    def rewind(self) -> None:
        """Go to the beginning."""
        ...


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Label:
    """What tape file 0 says; the README block's JSON keys. ``backup`` is empty on a tape that was labelled only."""

    volume: str
    volume_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    set_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    sequence: int = 1
    backup: str = ""
    created: str = field(default_factory=_now)
    block_size: int = 1 << 20
    segment_size: int = 16 << 30
    host: str = field(default_factory=socket.gethostname)
    software: str = f"splitreel {__version__}"

    def __post_init__(self) -> None:
        if not VOLUME_NAME.fullmatch(self.volume):
            raise UsageError(
                f"volume name {self.volume!r}",
                "a VOL1 label holds 1 to 6 capital letters, digits and marks",
                "Name the volume as on the cartridge's barcode, without the media type at its end.",
            )

    def record(self) -> dict[str, Any]:
        """The JSON object of the README block."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def new_name() -> str:
    """A volume name for a cartridge that has none."""
    return "S" + uuid.uuid4().hex[:5].upper()


def build_label(label: Label) -> bytes:
    """The VOL1 block of 80 bytes (ECMA-13)."""
    block = b"VOL1" + label.volume.encode("ascii").ljust(6) + b" " * 14 + IMPLEMENTATION + b" " * 42 + b"4"
    assert len(block) == LABEL_SIZE
    return block


def build_readme(label: Label) -> bytes:
    """The README block: text, JSON, newlines up to whole records of 512 bytes."""
    text = README.format(
        **asdict(label), version=VERSION, segment_gib=label.segment_size / 2**30, join=JOIN, check=CHECK
    )
    body = f"{text}{JSON_MARK}\n{json.dumps(label.record(), separators=(',', ':'))}\n".encode()
    body += b"\n" * (-len(body) % 512)
    assert len(body) <= README_LIMIT
    return body


def parse_readme(block: bytes) -> Label:
    """The label that a README block states.

    Raises:
        IntegrityError: it is damaged, or of a format version this program does not read.
    """
    what = "reading the README block"
    _, mark, rest = block.partition(f"\n{JSON_MARK}\n".encode())
    if not mark:
        raise IntegrityError(what, "it holds no JSON")
    try:
        stated = json.loads(rest.split(b"\n", 1)[0])
    except (ValueError, RecursionError) as error:
        raise IntegrityError(what, f"its JSON does not parse: {error}") from error
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise IntegrityError(what, f"its format is not {FORMAT}")
    return _label(stated, what)


def _label(stated: dict[str, Any], what: str) -> Label:
    if stated.get("version") != VERSION:
        advice = "Read it with the version of splitreel that wrote it, or with tar as its README says."
        raise IntegrityError(what, f"format version {stated.get('version')!r:.20}", advice)
    texts = ("volume", "volume_uuid", "set_uuid", "backup", "created", "host", "software")
    for key in texts:
        if not isinstance(stated.get(key), str) or len(stated[key]) > 1024:
            raise IntegrityError(what, f"{key} is {stated.get(key)!r:.60}")
    # these reach terminals: nothing in them may be more than text
    if not re.fullmatch(r"[0-9A-Za-z-]{0,64}", stated["backup"]):
        raise IntegrityError(what, f"backup is {stated['backup']!r:.60}")
    if not all(stated[key].isprintable() for key in texts):
        raise IntegrityError(what, "a text in it is not printable")
    numbers = ("sequence", "block_size", "segment_size")
    for key in numbers:
        records.integer(stated, key)
    if not 512 <= stated["block_size"] <= (1 << 24) or stated["block_size"] % 512:
        raise IntegrityError(what, f"block_size is {stated['block_size']}")
    try:
        return Label(**{key: stated[key] for key in (*texts, *numbers)})
    except UsageError as error:
        raise IntegrityError(what, str(error)) from error


def from_record(stated: dict[str, Any]) -> Label:
    """The label of a catalog's first line, which repeats the README block's JSON.

    Raises:
        IntegrityError: a key is missing or wrong.
    """
    return _label(stated, "reading a catalog's first line")


@dataclass(frozen=True, slots=True)
class Found:
    """What is on a tape: ours with its label, blank, or foreign and ``description`` says what it looks like."""

    kind: Literal["ours", "blank", "foreign"]
    description: str
    label: Label | None = None
    has_data: bool = False


def recognise(drive: DriveLike) -> Found:
    """Rewind and say what the tape is; the position afterwards is in or behind tape file 0.

    Raises:
        TapeError: the drive fails. A block too long to read, or a damaged one, makes the tape foreign, not a fault.
    """
    drive.rewind()
    first = _probe(drive)
    if first == CONDITIONS_END_OF_DATA:
        return Found("blank", "a blank tape")
    if isinstance(first, int):
        return Found("foreign", "a tape that begins with a filemark", has_data=True)
    if isinstance(first, str):
        return Found("foreign", first, has_data=True)
    if len(first) != LABEL_SIZE or first[:4] != b"VOL1" or first[24:37] != IMPLEMENTATION:
        return Found("foreign", describe(first), has_data=True)
    return _ours(drive, first)


def _ours(drive: DriveLike, first: bytes) -> Found:
    second = _probe(drive)
    if not isinstance(second, bytes):
        return Found("foreign", "a splitreel label without its README block", has_data=True)
    try:
        label = parse_readme(second)
    except IntegrityError as error:
        return Found("foreign", f"a splitreel label whose README block is damaged ({error.why})", has_data=True)
    if label.volume.encode() != first[4:10].rstrip():
        return Found("foreign", "a splitreel label and a README block that name different volumes", has_data=True)
    marked = _probe(drive)
    has_data = marked != CONDITIONS_FILEMARK or _probe(drive) != CONDITIONS_END_OF_DATA
    held = f"backup {label.backup} of {label.created}" if label.backup else "no backup"
    return Found("ours", f"splitreel volume {label.volume} with {held}", label, has_data)


def _probe(drive: DriveLike) -> bytes | int | str:
    # The drive reads on: a block longer than the probe, or one that cannot be read, is still an answer.
    try:
        return drive.tape.read(min(PROBE, drive.tape.max_block))
    except SplitreelError as error:
        if type(error).__name__ in ("LimitReached", "CheckCondition"):
            return f"blocks that do not read ({error})"
        raise


SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (257, b"ustar", "a tar archive"),
    (0, b"070701", "a cpio archive"),
    (0, b"070707", "a cpio archive"),
    (0, b"AMANDA: TAPESTART", "an Amanda tape"),
    (12, b"BB02", "a Bacula or Bareos tape"),
    (12, b"BB01", "a Bacula tape"),
    (0, b"\x1f\x8b", "gzip-compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (0, b"\xfd7zXZ", "xz-compressed data"),
    (0, b"TAPE", "a Microsoft tape format (MTF) tape"),
    (24, b"\x6c\xea\x00\x00", "a dump tape"),
    (24, b"\x60\xea\x00\x00", "a dump tape"),
)


def describe(block: bytes) -> str:
    """What a first block that is not ours looks like."""
    if block[:4] == b"VOL1":
        if block[24:28] == b"LTFS":
            return "an LTFS volume"
        name = block[24:37].strip().decode("ascii", "backslashreplace")
        return f"another program's VOL1 label (volume {block[4:10].decode('ascii', 'backslashreplace')!r}, by {name!r})"
    for offset, magic, name in SIGNATURES:
        if block[offset : offset + len(magic)] == magic:
            return name
    return f"data of an unknown kind (first block {len(block)} bytes, beginning {block[:8].hex()})"


def require_ours(found: Found) -> Label:
    """The label of a tape that is ours.

    Raises:
        WrongTape: it is blank or foreign.
    """
    if found.label is None:
        raise WrongTape("the tape in the drive", f"it is {found.description}", "Load a tape that splitreel wrote.")
    return found.label


def require_writable(found: Found, *, overwrite: bool = False, force: bool = False) -> None:
    """A blank tape and one that was only labelled may be written; ours with data needs ``overwrite``, others ``force``.

    Raises:
        WrongTape: it may not be overwritten.
    """
    if found.kind == "foreign" and not force:
        advice = "Load another tape; if this one's contents may be lost, say so with --force."
        raise WrongTape("the tape in the drive may not be overwritten", f"it holds {found.description}", advice)
    if found.kind == "ours" and found.has_data and not (overwrite or force):
        advice = "Load another tape; if this backup may be lost, say so with --overwrite."
        raise WrongTape("the tape in the drive may not be overwritten", f"it is {found.description}", advice)


def write(drive: DriveLike, label: Label) -> None:
    """Write tape file 0 at the beginning and wait until it is on the medium."""
    drive.rewind()
    drive.tape.write(build_label(label))
    drive.tape.write(build_readme(label))
    drive.tape.filemarks(1, immediate=False)


JOIN = """\
find . -name '*.splitreel-part-0001-of-*' | while IFS= read -r first; do
        file=${first%.splitreel-part-0001-of-*}
        cat "$file".splitreel-part-* >"$file" &&
        chown --reference="$first" "$file" && chmod --reference="$first" "$file" &&
        touch --reference="$first" "$file" && rm "$file".splitreel-part-*
    done"""
CHECK = """\
for sums in .splitreel/*.cksums; do
        tr -s '\\n' <"$sums" | cut -d ' ' -f 3- | tr '\\n' '\\0' | xargs -0 -r cksum -- | diff -aB - "$sums" &&
        echo "$sums: good"
    done"""
README = """\
This is a backup tape, written by {software}. It can be restored without that program.

Volume {volume} (UUID {volume_uuid}), number {sequence} of volume set {set_uuid}.
Backup {backup}, begun {created} on host {host}.

What is on it
    Tape file 0: a volume label of 80 bytes (VOL1, ECMA-13), and this text.
    Tape files 1, 2, ...: segments. Each is a complete archive in the pax format of IEEE 1003.1 (POSIX), of about
    {segment_gib:.3g} GiB at most, in tape blocks of {block_size} bytes. In each, .splitreel/segment-NNNN.manifest (JSON
    lines) says what the segment holds and the CRC32C of every file and tape block; .splitreel/segment-NNNN.cksums
    holds what the POSIX program cksum prints for every file.
    The last tape file: .splitreel/redo/ (what the database needs to recover) and .splitreel/catalog.jsonl.
    A file larger than a segment is stored in parts, named NAME.splitreel-part-0001-of-0003 and so on.

To restore everything: as root, with GNU tar, in an empty directory
    TAPE=/dev/nst0
    mt -f $TAPE rewind
    mt -f $TAPE setblk 0
    mt -f $TAPE fsf 1
    until LC_ALL=C dd if=$TAPE bs={block_size} 2>dd.log |
        tar --xattrs --xattrs-include='*' --acls --numeric-owner --warning=no-unknown-keyword -xpf -
        grep -q '^0+0 records in' dd.log
    do :; done
The loop ends at the end of the tape, where tar says that what it was given does not look like an archive.
To restore segment N only:  mt -f $TAPE rewind; mt -f $TAPE fsf N; dd if=$TAPE bs={block_size} | tar ... as above.

To check every file, before anything else is done with them
    {check}

To join files that were stored in parts
    {join}
Where tar said "Cannot hard link to" such a file: run the loop once more, with --skip-old-files, then this again.
"""
