"""Restore and verify from tapes in a software drive: whole, in part, damaged; and how much tape is read for it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitreel import catalog, errors, reading, records, volume
from splitreel.drive import open_drive
from splitreel.reading.verify import verify
from splitreel.records import Member, Segment
from splitreel.restore import restore
from splitreel.restore.run import GAP
from splitreel.volume import Label
from tests import tapes

BACKUP = "11111111-2222-4333-8444-555555555555"
LABEL = Label("SR0001", backup=BACKUP, block_size=tapes.BLOCK)


def member_of(record: dict[str, Any]) -> Member:
    """What an honest catalog says of a member, whatever its manifest claims to be a part of."""
    try:
        return records.member(record)
    except errors.IntegrityError:
        return records.member({key: value for key, value in record.items() if key not in ("part", "of", "at")})


class Tape:
    """A tape under construction in a software drive, and what its catalog must say."""

    def __init__(self, path: Path, label: Label = LABEL) -> None:
        self.path = path
        self.label = label
        self.drive = open_drive(f"file:{path}")
        self.members: list[Member] = []
        self.segments: list[Segment] = []
        volume.write(self.drive, label)

    def add(self, made: tapes.Segment, data: bytes | None = None, *, mark: bool = True) -> None:
        """Write a segment; ``data`` when it is to differ from what the catalog will say."""
        whole = made.close() if data is None else data
        first = self.drive.tape.object_id
        blocks = [whole[i : i + tapes.BLOCK] for i in range(0, len(whole), tapes.BLOCK)]
        crcs = b"".join(tapes.crc32c(block).to_bytes(4, "little") for block in blocks)
        for block in blocks:
            self.drive.tape.write(block)
        if mark:
            self.drive.tape.filemarks(1)
        self.segments.append(Segment(made.number, first, len(blocks), tapes.crc32c(crcs), len(made.members)))
        for record in made.members:
            member = member_of(record)
            member.segment, member.object = made.number, first + member.block
            self.members.append(member)

    def close(self, redo: dict[str, bytes] | None = None, state: str = "complete") -> None:
        """Write the closing tape file."""
        closing = tapes.Segment()
        stated = []
        for name, data in (redo or {}).items():
            closing.control(f".splitreel/redo/{name}", data, "redo")
            stated.append((f".splitreel/redo/{name}".encode(), len(data), tapes.crc32c(data)))
        text = b"".join(catalog.lines(self.label, self.segments, self.members, stated, state))
        closing.control(".splitreel/catalog.jsonl", text, "catalog")
        data = closing.close(with_manifest=False)
        for i in range(0, len(data), tapes.BLOCK):
            self.drive.tape.write(data[i : i + tapes.BLOCK])
        self.drive.tape.filemarks(1)


def segment(number: int, count: int = 12, size: int = 9000) -> tapes.Segment:
    made = tapes.Segment(number, backup=BACKUP)
    made.add(b"s%d" % number, kind="dir", mode=0o755, uid=os.geteuid(), gid=os.getegid())
    for i in range(count):
        content = bytes([number, i]) * (size // 2)
        made.add(b"s%d/f%02d" % (number, i), content, uid=os.geteuid(), gid=os.getegid())
    return made


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    made = Tape(tmp_path / "tape.tap")
    yield made
    made.drive.close()


def whole(tape: Tape) -> Tape:
    for number in (1, 2, 3):
        tape.add(segment(number))
    tape.close({"backup_label": b"START WAL"})
    return tape


def contents(to: Path) -> dict[str, bytes]:
    return {str(p.relative_to(to)): p.read_bytes() for p in sorted(to.rglob("*")) if p.is_file()}


def expected(*numbers: int) -> dict[str, bytes]:
    return {f"s{n}/f{i:02}": bytes([n, i]) * 4500 for n in numbers for i in range(12)}


def test_a_whole_tape_comes_back_and_verifies(tape: Tape, tmp_path: Path) -> None:
    whole(tape)

    outcome = restore(tape.drive, tmp_path / "to")
    verdict = verify(tape.drive)

    assert contents(tmp_path / "to") == expected(1, 2, 3) | {".splitreel/redo/backup_label": b"START WAL"}
    assert outcome.complete
    assert (outcome.segments, outcome.files) == (3, 37)
    assert verdict.sound, verdict.findings
    assert (verdict.segments, verdict.files, verdict.cksums) == (3, 37, 36)


def test_one_path_is_restored_with_one_locate_and_only_its_blocks(tape: Tape, tmp_path: Path) -> None:
    whole(tape)
    located: list[int] = []
    locate = tape.drive.locate
    tape.drive.locate = lambda number: (located.append(number), locate(number))[1]  # type: ignore[method-assign]

    outcome = restore(tape.drive, tmp_path / "to", ["s2/f05"])

    member = next(m for m in tape.members if m.path == b"s2/f05")
    assert contents(tmp_path / "to") == {"s2/f05": bytes([2, 5]) * 4500}
    above = next(m for m in tape.members if m.path == b"s2")
    assert located == [above.object]
    assert member.object - above.object < GAP
    assert outcome.complete
    assert outcome.members == 1
    assert outcome.blocks <= member.object - above.object + 4


def in_directories(*, closing: bool, tape: Tape) -> Tape:
    """Files two directories down, each directory with attributes of its own; the second segment holds one of them."""
    ids = {"uid": os.geteuid(), "gid": os.getegid()}
    first, second = tapes.Segment(1, backup=BACKUP), tapes.Segment(2, backup=BACKUP)
    first.add(b"top", kind="dir", mode=0o751, mtime=1_500_000_001, **ids)
    first.add(b"top/other", kind="dir", mode=0o700, mtime=1_500_000_002, **ids)
    for i in range(GAP * 2):
        first.add(b"top/other/f%d" % i, bytes(tapes.BLOCK), **ids)
    second.add(b"top/low", kind="dir", mode=0o2775, mtime=1_500_000_003, **ids)
    second.add(b"top/low/file", b"content", mtime=1_500_000_004, **ids)
    tape.add(first)
    tape.add(second)
    if closing:
        tape.close()
    return tape


@pytest.mark.parametrize("closing", [True, False])
def test_directories_above_a_selected_path_get_their_attributes(tape: Tape, tmp_path: Path, closing: bool) -> None:
    in_directories(closing=closing, tape=tape)

    restore(tape.drive, tmp_path / "to", ["top/low/file"])

    found = {name: (tmp_path / "to" / name).stat() for name in ("top", "top/low")}
    set_id = 0o2000 if os.geteuid() == 0 else 0
    assert {name: (stat.S_IMODE(at.st_mode), at.st_mtime) for name, at in found.items()} == {
        "top": (0o751, 1_500_000_001),
        "top/low": (0o775 | set_id, 1_500_000_003),
    }
    assert contents(tmp_path / "to") == {"top/low/file": b"content"}
    assert not (tmp_path / "to/top/other").exists()


def test_a_directory_above_that_cannot_be_read_is_told_and_costs_nothing_else(tape: Tape, tmp_path: Path) -> None:
    made = in_directories(closing=False, tape=tape)
    next(m for m in made.members if m.path == b"top").object += 1
    made.close()

    outcome = restore(tape.drive, tmp_path / "to", ["top/low/file"])

    assert [path for path, _ in outcome.problems.listed] == [b"top"]
    assert "attributes not restored" in outcome.problems.listed[0][1]
    assert stat.S_IMODE((tmp_path / "to/top").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "to/top/low").stat().st_mode) & 0o777 == 0o775
    assert contents(tmp_path / "to") == {"top/low/file": b"content"}


@pytest.mark.parametrize("closing", [True, False])
def test_a_directory_that_was_there_keeps_its_attributes(tape: Tape, tmp_path: Path, closing: bool) -> None:
    in_directories(closing=closing, tape=tape)
    (tmp_path / "to/top").mkdir(parents=True)
    (tmp_path / "to/top").chmod(0o711)

    restore(tape.drive, tmp_path / "to", ["top/low/file"], force=True)

    assert stat.S_IMODE((tmp_path / "to/top").stat().st_mode) == 0o711
    assert stat.S_IMODE((tmp_path / "to/top/low").stat().st_mode) & 0o777 == 0o775


def test_contiguous_members_are_read_in_one_go(tape: Tape, tmp_path: Path) -> None:
    whole(tape)
    located: list[int] = []
    locate = tape.drive.locate
    tape.drive.locate = lambda number: (located.append(number), locate(number))[1]  # type: ignore[method-assign]

    outcome = restore(tape.drive, tmp_path / "to", ["s2", "s3/f0[0-3]"])

    assert len(located) == 2
    assert contents(tmp_path / "to") == expected(2) | {f"s3/f{i:02}": bytes([3, i]) * 4500 for i in range(4)}
    assert outcome.complete


def test_a_path_that_is_not_there_is_an_error_before_anything_is_written(tape: Tape, tmp_path: Path) -> None:
    whole(tape)

    with pytest.raises(errors.NotFound, match="s9"):
        restore(tape.drive, tmp_path / "to", ["s1", "s9"])
    assert contents(tmp_path / "to") == {}


def test_a_hard_link_alone_brings_its_content(tape: Tape, tmp_path: Path) -> None:
    first = segment(1)
    second = segment(2)
    second.add(b"s2/link", kind="link", target=b"s1/f03")
    second.add(b"s2/link2", kind="link", target=b"s1/f03")
    tape.add(first)
    tape.add(second)
    tape.close()

    outcome = restore(tape.drive, tmp_path / "to", ["s2/link*"])

    assert contents(tmp_path / "to") == dict.fromkeys(("s2/link", "s2/link2"), bytes([1, 3]) * 4500)
    assert (tmp_path / "to/s2/link").stat().st_nlink == 2
    assert outcome.complete


def test_without_a_closing_catalog_a_selection_is_found_by_reading_through(tape: Tape, tmp_path: Path) -> None:
    second = segment(2)
    second.add(b"s2/link", kind="link", target=b"s1/f03")
    tape.add(segment(1))
    tape.add(second)

    outcome = restore(tape.drive, tmp_path / "to", ["s2/link", "s2/f01"])

    assert contents(tmp_path / "to") == {"s2/link": bytes([1, 3]) * 4500, "s2/f01": bytes([2, 1]) * 4500}
    assert not outcome.complete
    assert "without its catalog" in outcome.problems.listed[0][1]


def in_parts(tape: Tape, content: bytes) -> None:
    for i in range(3):
        made = tapes.Segment(i + 1, backup=BACKUP)
        piece = content[i * 12_288 : (i + 1) * 12_288]
        made.add(b"big.splitreel-part-%04d-of-0003" % (i + 1), piece, part=[i + 1, 3], of="big", at=i * 12_288)
        made.add(b"other%d" % i, b"x")
        if i == 2:
            made.add(b"big2", kind="link", target=b"big")
        tape.add(made)
    tape.close()


@pytest.mark.parametrize("patterns", [(), ("big",), ("b*",), ("big2",)])
def test_parts_are_joined_whatever_way_they_are_asked_for(
    tape: Tape, tmp_path: Path, patterns: tuple[str, ...]
) -> None:
    content = os.urandom(30_000)
    in_parts(tape, content)

    outcome = restore(tape.drive, tmp_path / "to", patterns)

    assert not outcome.problems.listed
    assert (tmp_path / "to/big").read_bytes() == content
    assert not list((tmp_path / "to").glob("*splitreel-*"))
    if patterns != ("big",):
        assert (tmp_path / "to/big2").samefile(tmp_path / "to/big")


def damaged(made: tapes.Segment, path: str, at: int = 2000) -> bytes:
    data = bytearray(made.close())
    record = next(m for m in made.members if m["path"] == path)
    data[record["block"] * tapes.BLOCK + record["offset"] + at] ^= 1
    return bytes(data)


@pytest.mark.parametrize("patterns", [(), ("s2",)])
def test_a_damaged_file_costs_itself_alone(tape: Tape, tmp_path: Path, patterns: tuple[str, ...]) -> None:
    made = segment(2)
    data = damaged(made, "s2/f04")
    tape.add(segment(1))
    tape.add(made, data)
    tape.close()

    outcome = restore(tape.drive, tmp_path / "to", patterns)

    found = contents(tmp_path / "to")
    assert not outcome.complete
    assert found.pop("s2/f04.splitreel-damaged")
    want = expected(2) if patterns else expected(1, 2)
    assert found == {name: data for name, data in want.items() if name != "s2/f04"}
    assert b"s2/f04" in {path for path, _ in outcome.problems.listed}


def test_verify_names_the_damaged_file_and_its_block(tape: Tape) -> None:
    made = segment(2)
    data = damaged(made, "s2/f04")
    tape.add(segment(1))
    tape.add(made, data)
    tape.close()

    verdict = verify(tape.drive)

    assert not verdict.sound
    assert (2, b"s2/f04", "its bytes do not match their CRC32C") in verdict.findings
    assert any("tape block" in why for _, _, why in verdict.findings)


@pytest.mark.parametrize("patterns", [(), ("s[123]",)])
def test_a_damaged_header_costs_its_member_alone_where_there_is_a_catalog(
    tape: Tape, tmp_path: Path, patterns: tuple[str, ...]
) -> None:
    made = segment(2)
    third = segment(3)
    third.add(b"s3/link", kind="link", target=b"s2/f07")
    data = damaged(made, "s2/f04", at=3)
    tape.add(segment(1))
    tape.add(made, data)
    tape.add(third)
    tape.close()

    outcome = restore(tape.drive, tmp_path / "to", patterns)

    want = expected(1, 2, 3) | {"s3/link": bytes([2, 7]) * 4500}
    del want["s2/f04"]
    assert contents(tmp_path / "to") == want
    assert (tmp_path / "to/s3/link").samefile(tmp_path / "to/s2/f07")
    assert not outcome.complete
    assert [path for path, _ in outcome.problems.listed if path] == [b"s2/f04"]


def test_a_damaged_member_between_two_wanted_ones_costs_neither(tape: Tape, tmp_path: Path) -> None:
    made = segment(2)
    data = damaged(made, "s2/f04", at=3)
    tape.add(made, data)
    tape.close()

    outcome = restore(tape.drive, tmp_path / "to", ["s2/f03", "s2/f05"])

    assert sorted(contents(tmp_path / "to")) == ["s2/f03", "s2/f05"]
    assert outcome.complete


def test_without_a_catalog_a_damaged_header_leaves_its_segment_unverified(tape: Tape, tmp_path: Path) -> None:
    made = segment(2)
    tape.add(segment(1))
    tape.add(made, damaged(made, "s2/f04", at=3))
    tape.add(segment(3))

    outcome = restore(tape.drive, tmp_path / "to")

    found = contents(tmp_path / "to")
    assert {n: d for n, d in found.items() if "unverified" not in n} == expected(1, 3)
    assert {n for n in found if "unverified" in n} == {f"s2/f{i:02}.splitreel-unverified" for i in range(4)}
    assert not outcome.complete


@pytest.mark.parametrize("torn", [1, 2, 3])
def test_a_file_in_parts_with_a_torn_segment_is_put_together_from_the_catalog(
    tape: Tape, tmp_path: Path, torn: int
) -> None:
    content = os.urandom(30_000)
    for i in range(3):
        made = tapes.Segment(i + 1, backup=BACKUP)
        made.add(b"before%d" % i, b"b" * 5000)
        piece = content[i * 12_288 : (i + 1) * 12_288]
        made.add(b"big.splitreel-part-%04d-of-0003" % (i + 1), piece, part=[i + 1, 3], of="big", at=i * 12_288)
        tape.add(made, damaged(made, f"before{i}", at=3) if i + 1 == torn else None)
    tape.close()

    outcome = restore(tape.drive, tmp_path / "to")

    assert sorted(contents(tmp_path / "to")) == [f"before{i}" for i in range(3) if i + 1 != torn] + ["big"]
    assert (tmp_path / "to/big").read_bytes() == content
    assert [path for path, _ in outcome.problems.listed if path] == [b"before%d" % (torn - 1)]


def test_a_tape_that_ends_in_a_segment_gives_what_verified_and_says_what_is_missing(tape: Tape, tmp_path: Path) -> None:
    cut = segment(2)
    tape.add(segment(1))
    tape.add(cut, cut.close()[: 5 * tapes.BLOCK], mark=False)

    outcome = restore(tape.drive, tmp_path / "to")
    verdict = verify(tape.drive)

    found = contents(tmp_path / "to")
    assert {n: d for n, d in found.items() if n.startswith("s1/")} == expected(1)
    assert all("unverified" in n or "damaged" in n for n in found if n.startswith("s2/"))
    assert not outcome.complete
    assert not verdict.sound


def test_a_block_the_drive_cannot_read_ends_its_segment_not_the_run(tape: Tape, tmp_path: Path) -> None:
    whole(tape)
    tape.drive.transport.inject("read-error", 2 + 30)  # type: ignore[attr-defined]

    outcome = restore(tape.drive, tmp_path / "to")

    found = contents(tmp_path / "to")
    assert not outcome.complete
    assert {n: d for n, d in found.items() if n.startswith("s3/")} == expected(3)
    assert all(found[n] == d for n, d in expected(1, 2).items() if n in found)


def test_a_path_that_fails_leaves_nothing_unverified_under_its_name(tape: Tape, tmp_path: Path) -> None:
    whole(tape)
    tape.drive.transport.inject("transport-after", 50)  # type: ignore[attr-defined]

    with pytest.raises(errors.TransportError):
        restore(tape.drive, tmp_path / "to")

    found = contents(tmp_path / "to")
    assert all(data == expected(1, 2, 3)[name] for name, data in found.items() if "splitreel" not in name)
    assert any(name.endswith(".splitreel-unverified") for name in found)


def test_a_segment_that_is_missing_or_exchanged_is_told_by_the_catalog(tape: Tape, tmp_path: Path) -> None:
    whole(tape)
    other = Tape(tmp_path / "other.tap")
    other.segments, other.members = tape.segments, tape.members
    for number in (1, 3):
        keep = list(other.segments), list(other.members)
        other.add(segment(number))
        other.segments, other.members = keep
    other.close()

    verdict = verify(other.drive)

    assert "segment 2 is in the catalog, not on the tape" in [why for _, _, why in verdict.findings]
    other.drive.close()


def test_the_wrong_tape_is_refused(tape: Tape, tmp_path: Path) -> None:
    whole(tape)
    blank = open_drive(f"file:{tmp_path / 'blank.tap'}")

    with pytest.raises(errors.WrongTape, match="blank"):
        restore(blank, tmp_path / "to")
    with pytest.raises(errors.WrongTape, match="SR0001"):
        restore(tape.drive, tmp_path / "to", wanted=Label("OTHER1"))
    blank.close()


def test_the_closing_catalog_is_read_without_reading_the_tape(tape: Tape) -> None:
    whole(tape)

    stated = reading.closing_records(tape.drive, LABEL)
    assert stated is not None
    found: list[dict[str, Any]] = list(stated)

    assert found[0]["backup"] == BACKUP
    assert [r["segment"] for r in found if r["kind"] == "segment"] == [1, 2, 3]
    assert [records.member(r) for r in found if r["kind"] == "member"] == tape.members


def test_a_full_target_stops_the_restore_with_a_clear_error(tape: Tape, tmp_path: Path) -> None:
    whole(tape)

    with pytest.MonkeyPatch.context() as patched:

        def pwrite(descriptor: int, data: bytes, at: int) -> int:
            raise OSError(28, "No space left on device")

        patched.setattr(os, "pwrite", pwrite)
        with pytest.raises(errors.SplitreelError, match="No space left") as raised:
            restore(tape.drive, tmp_path / "to")
    assert "room" in raised.value.advice
