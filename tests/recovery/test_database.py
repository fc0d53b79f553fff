"""A database is restored from what its tape says of it, into its directory and nowhere else; SQLite's as an example."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from splitreel import errors
from splitreel.__main__ import main
from splitreel.restore.sessionfile import SessionFile
from tests.recovery.parts import names, session_json, split, to_tape
from tests.volumes import ext4_volume


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    with ext4_volume(tmp_path) as point:
        yield point


def make(path: Path, rows: int) -> sqlite3.Connection:
    """A database in WAL mode whose rows are in -wal alone, as long as the connection is open."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma wal_autocheckpoint=0")
    connection.execute("create table t (n int)")
    connection.executemany("insert into t values (?)", [(n,) for n in range(rows)])
    return connection


def facts(path: Path, **more: Any) -> dict[str, Any]:
    return {"engine": "sqlite", "name": path.stem, "data": str(path)} | more


def taped(mount: Path, tmp_path: Path, *databases: dict[str, Any]) -> str:
    split(mount, tmp_path / "volume.img", tmp_path / "split.img")
    return to_tape(tmp_path / "split.img", tmp_path / "tape", {"session.json": session_json(mount, *databases)})


def restored(target: Path, url: str, *more: str) -> int:
    return main(["restore", "--database", str(target), "--tape", url, *more])


def test_a_database_comes_with_its_wal_without_its_shm_and_alone(
    mount: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mount / "srv").mkdir()
    (mount / "srv/app.db-other").write_bytes(b"not of it")
    with closing(make(mount / "srv/app.db", 7)), closing(make(mount / "other.db", 3)):
        url = taped(mount, tmp_path, facts(mount / "srv/app.db"), facts(mount / "other.db"))
    target = tmp_path / "there"

    assert restored(target, url) == errors.EXIT_USAGE
    assert "app, other" in capsys.readouterr().err
    assert restored(target, url, "--name", "app", "--json") == errors.EXIT_DONE

    assert names(target) == ["app.db", "app.db-wal"]
    (line,) = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line["kind"] == "database"]
    assert (line["engine"], line["name"], line["data"], line["files"]) == ("sqlite", "app", f"{target}/app.db", 2)
    with closing(sqlite3.connect(target / "app.db")) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (7,)


def test_a_drill_finds_what_integrity_check_finds(
    mount: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logs of a drill that found something are kept, of no other."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with closing(make(mount / "good.db", 50)):
        pass
    with closing(make(mount / "bad.db", 50)) as connection:
        connection.execute("create index i on t (n)")
        connection.execute("pragma writable_schema=on")
        connection.execute("update sqlite_master set sql = 'create unique index i on t (n % 2)' where name = 'i'")
    url = taped(mount, tmp_path, facts(mount / "good.db"), facts(mount / "bad.db"))

    assert restored(tmp_path / "good", url, "--name", "good", "--drill", "--json") == errors.EXIT_DONE
    assert restored(tmp_path / "bad", url, "--name", "bad", "--drill", "--json") == errors.EXIT_DATA

    good, bad = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line["kind"] == "drill"]
    assert (good["ok"], good["checks"][0]["problems"]) == (True, [])
    assert not bad["ok"]
    assert bad["checks"][0]["problems"]
    assert [str(path) for path in tmp_path.glob("splitreel-drill-log-*")] == [bad["logs"]]


def test_a_tape_without_databases_says_so(mount: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mount / "file").write_bytes(b"x")
    split(mount, tmp_path / "volume.img", tmp_path / "split.img")
    url = to_tape(tmp_path / "split.img", tmp_path / "tape", {})

    assert restored(tmp_path / "there", url) == errors.EXIT_FAILED
    assert "session.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"engine": "oracle", "name": "x", "data": "/x"}, errors.EXIT_USAGE),
        ({"engine": "sqlite", "name": "x"}, errors.EXIT_DATA),
        ({"engine": "sqlite", "name": "x", "data": "relative"}, errors.EXIT_DATA),
        ({"engine": "sqlite", "name": "x", "data": "/elsewhere/x.db"}, errors.EXIT_DATA),
        ({"engine": "sqlite", "name": "x", "data": "{mount}/absent.db"}, errors.EXIT_FAILED),
        ({"engine": "sqlite", "name": "x", "data": "{mount}/link/passwd"}, errors.EXIT_FAILED),
    ],
)
def test_what_a_tape_says_is_not_believed(mount: Path, tmp_path: Path, entry: dict[str, Any], code: int) -> None:
    """Nothing is written outside of the directory, and nothing in it is left half-done."""
    (mount / "link").symlink_to("/etc")
    entry = {key: value.replace("{mount}", str(mount)) for key, value in entry.items()}
    url = taped(mount, tmp_path, entry)
    before = Path("/etc/passwd").read_bytes()

    assert restored(tmp_path / "there", url) == code

    assert list((tmp_path / "there").iterdir()) == []
    assert Path("/etc/passwd").read_bytes() == before


def test_the_longest_mount_point_holds_a_path() -> None:
    volumes = [
        {"mount": "/", "prefix": "root"},
        {"mount": "/db", "prefix": "data"},
        {"mount": "/db/wal", "prefix": "w"},
    ]
    session = SessionFile.parse(json.dumps({"version": 1, "volumes": volumes, "databases": []}).encode())

    assert session.on_tape("/db/pg/15") == b"data/pg/15"
    assert session.on_tape("/db/wal") == b"w"
    assert session.on_tape("/db/walnut") == b"data/walnut"
    assert session.on_tape("/etc") == b"root/etc"


OUTSIDE = b'{"version":1,"volumes":[{"mount":"/m","prefix":"../x"}],"databases":[]}'


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"version":2}', b'{"version":1,"volumes":[3],"databases":[]}', OUTSIDE]
)
def test_a_session_file_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(errors.IntegrityError, match=r"session\.json"):
        SessionFile.parse(content)


def test_options_that_do_not_go_together_are_usage_errors(tmp_path: Path) -> None:
    for arguments in (
        ["--database", "x", "--to", "y"],
        [],
        ["--to", "y", "--drill"],
        ["--database", "x", "path"],
        ["--database", "x", "--force"],
    ):
        assert main(["restore", "--tape", f"file:{tmp_path}/none", *arguments]) == errors.EXIT_USAGE
