"""What a tape puts into a PostgreSQL data directory is not believed while it is laid out."""

from pathlib import Path
from typing import Any

import pytest

from splitreel import errors
from splitreel.recovery import Layout, create
from tests.recovery.parts import names


def hostile(folder: Path) -> tuple[Layout, Path]:
    """A data directory whose links lead out of it, to things that must stay as they are."""
    outside, data = folder / "outside", folder / "there/data"
    for name in ("wal", "slots", "tmp", "dir"):
        (outside / name).mkdir(parents=True)
        (outside / name / "kept").write_bytes(b"kept")
    for name in ("base/5", "pg_tblspc", "global"):
        (data / name).mkdir(parents=True)
    (data / "PG_VERSION").write_bytes(b"15\n")
    for name, target in {
        "pg_wal": "wal",
        "pg_replslot": "slots",
        "base/pgsql_tmp": "tmp",
        "backup_label": "wal/kept",
        "postmaster.pid": "wal/kept",
        "postgresql.conf": "dir/kept",
        "pg_tblspc/16400": "dir",
        "pg_tblspc/17000": "dir",
        "base/5/pg_internal.init": "wal/kept",
    }.items():
        (data / name).symlink_to(outside / target)
    (data / "base/5/t3_16401").write_bytes(b"a temporary table")
    (data / "base/5/16401").write_bytes(b"a table")
    redo = folder / "redo"
    (redo / "pg_wal").mkdir(parents=True)
    (redo / "backup_label").write_bytes(b"START WAL LOCATION")
    (redo / "pg_wal" / ("0" * 24)).write_bytes(b"wal")
    (redo / "pg_wal" / "not wal").symlink_to(outside / "wal/kept")
    (redo / "pg_wal" / ("1" * 24)).symlink_to(outside / "wal/kept")
    return Layout(folder / "there", {"/db/pg": data}, redo, None), outside


FACTS = {"engine": "postgresql", "version": "15.1", "mode": "hot-backup", "data": "/db/pg", "wal": "/db/pg/pg_wal"}


def test_links_in_what_came_from_tape_are_replaced_and_never_followed(tmp_path: Path) -> None:
    layout, outside = hostile(tmp_path)
    data = layout.places["/db/pg"]

    create(FACTS | {"tablespaces": {"16400": "/db/pg/inner"}}).lay_out(layout)

    assert sorted(str(path.relative_to(outside)) for path in outside.rglob("kept")) == [
        *("dir/kept", "slots/kept", "tmp/kept", "wal/kept")
    ]
    assert all(path.read_bytes() == b"kept" for path in outside.rglob("kept"))
    links = [path for path in data.rglob("*") if path.is_symlink()]
    assert [str(path.relative_to(data)) for path in links] == ["pg_tblspc/16400"]
    assert (data / "pg_tblspc/16400").readlink() == data / "inner"
    assert names(data / "pg_wal") == ["0" * 24, "archive_status"]
    assert (data / "backup_label").read_bytes() == b"START WAL LOCATION"
    assert names(data / "base/5") == ["16401"]
    assert "postmaster.pid" not in names(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tablespaces": {"../../x": "/ts"}},
        {"tablespaces": {"16400": "ts"}},
        {"tablespaces": ["/ts"]},
        {"version": "1; rm"},
        {"data": "pg"},
        {"mode": None},
        {"configuration": {"a": 1}},
        {"configuration": {"/": ""}},
        {"configuration": {"/etc/a": "", "/etc/a/b": ""}},
    ],
)
def test_facts_that_are_malformed_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    layout, _ = hostile(tmp_path)
    with pytest.raises(errors.IntegrityError):
        create(FACTS | wrong).lay_out(layout)


def test_configuration_of_elsewhere_stays_below_the_directory(tmp_path: Path) -> None:
    layout, _ = hostile(tmp_path)

    notes = create(FACTS | {"configuration": {"/etc/pg/../../../x.conf": "port = 1", "y": "z"}}).lay_out(layout)

    assert (tmp_path / "there/configuration/x.conf").read_text() == "port = 1"
    assert (tmp_path / "there/configuration/y").read_text() == "z"
    assert any("stood elsewhere" in note for note in notes)
    assert names(tmp_path) == ["outside", "redo", "there"]
