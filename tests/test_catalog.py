"""The catalog: what is put in comes out, all or nothing; its own file is private; a full disk says what to do."""

import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel import catalog, errors, records
from splitreel.catalog import Catalog
from splitreel.records import Member, Segment
from splitreel.volume import Label
from tests import support

LABEL = Label("SR0001", backup="11111111-2222-4333-8444-555555555555")
MEMBERS = [
    Member(b"d", "dir", mode=0o755, segment=1, object=3),
    Member(b"d/\xff\n", "file", 5, 0o644, 0, 512, 5, 1, 0xFFFFFFFF, segment=1, object=3),
    Member(b"d/l", "link", target=b"d/\xff\n", segment=1, object=3),
    Member(b"big.splitreel-part-0001-of-0002", "file", 9, part=(1, 2), of=b"big", crc32c=1, segment=2, object=9),
]
SEGMENTS = [Segment(1, 3, 5, 0xDEADBEEF, 3), Segment(2, 9, 1, 7, 1)]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path) as made:
        yield made


def fill(made: Catalog, label: Label = LABEL, state: str = "complete") -> tuple[int, int]:
    backup = made.begin_backup(label.backup, "/dev/x", created=label.created, host=label.host, job="j")
    volume = made.add_volume(backup, label, "file:t")
    made.add_segments(volume, SEGMENTS, MEMBERS)
    made.add_redo(volume, b".splitreel/redo/backup_label", 10, 99)
    made.finish_backup(backup, state, files=3, bytes=14, seconds=1.5)
    return backup, volume


def test_what_is_put_in_comes_out(opened: Catalog) -> None:
    backup, volume = fill(opened)

    assert list(opened.members(volume)) == MEMBERS
    assert opened.segments(volume) == SEGMENTS
    assert opened.volume(backup) == (volume, LABEL, "file:t")
    found = opened.backup("1111")
    assert (found.files, found.bytes, found.state, found.job, found.window_ms) == (3, 14, "complete", "j", None)


def test_phases_and_windows_keep_their_order(opened: Catalog) -> None:
    backup, _ = fill(opened)
    for name in ("establish", "map", "quiesce"):
        opened.add_phase(backup, name, 1.0, 0.5)
    opened.add_window(backup, "freeze", 2.0, 0.003)

    assert [name for name, _, _ in opened.phases(backup)] == ["establish", "map", "quiesce"]
    assert opened.windows(backup) == [("freeze", 2.0, 0.003)]


def test_only_its_owner_may_read_it(opened: Catalog) -> None:
    fill(opened)

    assert {p.stat().st_mode & 0o777 for p in opened.path.parent.glob("catalog.sqlite*")} == {0o600}


def test_export_and_load_are_inverse(opened: Catalog, tmp_path: Path) -> None:
    fill(opened)
    exported = b"".join(opened.export(opened.backup()))
    (tmp_path / "other").mkdir()

    with Catalog(tmp_path / "other") as other:
        assert other.load([exported]) == LABEL.backup
        assert b"".join(other.export(other.backup())) == exported
        assert other.backup().files == 2
        with pytest.raises(errors.CatalogError, match="already"):
            other.load([exported])
        other.load([exported], replace=True)
        assert len(other.backups()) == 1


def test_a_damaged_export_leaves_the_catalog_as_it_was(opened: Catalog) -> None:
    fill(opened)
    exported = bytearray(b"".join(opened.export(opened.backup())))
    exported[exported.index(b"deadbeef")] ^= 1

    with pytest.raises(errors.IntegrityError):
        opened.load([bytes(exported)], replace=True)

    assert b"deadbeef" in b"".join(opened.export(opened.backup()))
    assert not opened.connection.in_transaction


def test_segments_are_added_whole_or_not_at_all(opened: Catalog) -> None:
    _, volume = fill(opened)

    def members() -> Iterator[Member]:
        yield MEMBERS[0]
        raise errors.IntegrityError("reading", "broken")

    with pytest.raises(errors.IntegrityError):
        opened.add_segments(volume, [Segment(3, 20, 1, 1, 1)], members())

    assert [s.number for s in opened.segments(volume)] == [1, 2]


def test_a_backup_is_forgotten_with_all_that_hangs_on_it(opened: Catalog) -> None:
    backup, _ = fill(opened)
    opened.add_phase(backup, "map", 1.0, 1.0)

    assert opened.forget(LABEL.backup)
    for table in ("backups", "volumes", "segments", "members", "redo", "phases"):
        assert opened.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_the_newest_complete_backup_is_the_default(opened: Catalog) -> None:
    for i, (created, state) in enumerate(
        [("2026-01-02", "complete"), ("2026-01-01", "complete"), ("2026-01-03", "incomplete")]
    ):
        fill(opened, Label(f"V{i}", backup=f"b{i}", created=created), state)

    assert opened.backup().uuid == "b0"
    assert opened.backup("b2").state == "incomplete"
    with pytest.raises(errors.NotFound, match="more than one"):
        opened.backup("b")


def test_a_catalog_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    Catalog(tmp_path).close()
    connection = sqlite3.connect(tmp_path / catalog.FILE_NAME)
    connection.execute(f"PRAGMA user_version = {catalog.SCHEMA_VERSION + 1}")
    connection.close()

    with pytest.raises(errors.CatalogError, match="schema version"):
        Catalog(tmp_path)


def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path) -> None:
    (tmp_path / catalog.FILE_NAME).write_bytes(b"not a database, but long enough to look at" * 100)

    with pytest.raises(errors.CatalogError) as raised:
        Catalog(tmp_path)
    assert "rebuild" in raised.value.advice


@pytest.mark.root
def test_a_full_disk_says_what_to_do_and_leaves_the_catalog_readable(tmp_path: Path) -> None:
    support.need_root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with Catalog(tmp_path) as full:
            _, volume = fill(full)
            many = (Member(b"x" * 200 + b"%d" % i, "file", segment=3) for i in range(100_000))
            with pytest.raises(errors.CatalogError, match="full") as raised:
                full.add_segments(volume, [Segment(3, 20, 1, 1, 100_000)], many)
            assert "rebuild" in raised.value.advice
            assert [s.number for s in full.segments(volume)] == [1, 2]
    finally:
        support.unmount(tmp_path)


def test_catalog_lines_state_a_member_for_each_that_their_segments_hold() -> None:
    data = b"".join(catalog.lines(LABEL, SEGMENTS, MEMBERS))
    short = b"".join(catalog.lines(LABEL, SEGMENTS, MEMBERS[:-1]))

    assert catalog.read_lines([data]) == (LABEL, SEGMENTS, MEMBERS)
    with pytest.raises(errors.IntegrityError, match="as many members"):
        catalog.read_lines([short])
    assert records.decode(data.splitlines()[0])["format"] == "splitreel-pax-segments"
