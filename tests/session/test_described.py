"""What a session tells a restore: names that no two databases share, and a ``session.json`` on the tape."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from splitreel import quiesce, session
from splitreel.errors import TapeError, TransportError
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.quiesce import Discovery
from splitreel.quiesce.command import Command
from splitreel.session.described import Databases, session_json
from splitreel.session.resume import resume
from tests.session.parts import job_of
from tests.session.test_tape import PulledSession, restored, small


class Given:
    """A quiescer that is discovered as told, and gives what it is told to."""

    name = "given"

    def __init__(self, facts: dict[str, Any], redo: dict[str, bytes | Path] | None = None) -> None:
        self.discovered, self.given = Discovery(("/srv/db",), facts), redo or {}

    def discover(self) -> Discovery:
        return self.discovered

    def redo(self) -> dict[str, bytes | Path]:
        return self.given

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is no part of describing")


def discovered(*quiescers: Given) -> Databases:
    databases = Databases(quiescers, ["postgresql"] * len(quiescers))  # type: ignore[arg-type]
    databases.discover()
    return databases


def test_names_are_one_path_component_and_no_two_are_alike() -> None:
    """A name becomes a directory of the tape's last file, and what --name takes."""
    engine = {"engine": "postgresql"}
    wanted: list[dict[str, Any]] = [
        {**engine, "name": name} for name in ("a/../b", "main", "main", "..", "session.json")
    ]
    names = [entry["name"] for entry in discovered(*map(Given, [*wanted, engine])).entries()]

    assert names == ["a-..-b", "main", "main-2", "database", "session.json-2", "postgresql"]


def test_what_describes_no_database_is_not_listed() -> None:
    assert discovered(Given({}), Given({"position": 7})).entries() == []
    assert session_json([], []) is None


def test_redo_is_in_a_directory_of_its_database_only_where_two_give_some() -> None:
    one, two = Given({"engine": "x", "name": "one"}, {"label": b"1"}), Given({"engine": "x"}, {"label": b"2"})
    none = Given({"engine": "x", "name": "none"})

    assert discovered(one, none).redo() == {"label": b"1"}
    assert discovered(one, none, two).redo() == {"one/label": b"1", "x/label": b"2"}


class Described(Command):
    """Held by commands; says what it is, and gives a file at stop."""

    redo_file: Path | None = None

    def discover(self) -> Discovery:
        facts = {"engine": "other", "version": 7, "data": self.data, "places": {"16384": "/elsewhere"}}
        return Discovery(super().discover().files, facts)

    def redo(self) -> dict[str, bytes | Path]:  # type: ignore[override]
        return {"log/1": self.redo_file} if self.redo_file else {}

    data = ""


@pytest.fixture
def described(embedded: EmbeddedMirror, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The quiescers of a job over the volume: a database that describes itself, and the freeze."""
    mount = embedded.mount_point
    monkeypatch.setattr(Described, "data", f"{mount}/other")
    monkeypatch.setitem(quiesce.TYPES, "command", (__name__, "Described"))
    held = {"type": "command", "quiesce": "true", "unquiesce": "true", "discover": f"echo {mount}/other"}
    return [held, {"type": "fsfreeze", "mount": mount}]


def stated(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / ".splitreel/redo/session.json").read_text())
    return loaded


@pytest.mark.root
def test_the_tape_says_where_its_databases_were(
    embedded: EmbeddedMirror,
    state: Path,
    tmp_path: Path,
    described: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also through a mount point that was named by a link: data directories are told without any."""
    log = tmp_path / "log"
    log.write_bytes(os.urandom(3_000_000))
    monkeypatch.setattr(Described, "redo_file", log)
    (tmp_path / "link").symlink_to(embedded.mount_point)
    described[1]["mount"] = str(tmp_path / "link")
    session.run(job_of(embedded, f"file:{tmp_path}/tape", quiesce=described), state=state)

    to = restored(tmp_path / "tape", tmp_path / "to")
    kernel = subprocess.run(
        ["findmnt", "-no", "UUID", embedded.mount_point], capture_output=True, text=True, check=True
    )
    assert stated(to) == {
        "version": 1,
        "volumes": [{"name": "", "mount": embedded.mount_point, "prefix": "", "uuid": kernel.stdout.strip()}],
        "databases": [
            {
                "engine": "other",
                "name": "other",
                "version": 7,
                "data": f"{embedded.mount_point}/other",
                "places": {"16384": "/elsewhere"},
            }
        ],
    }
    assert (to / ".splitreel/redo/log/1").read_bytes() == log.read_bytes()


@pytest.mark.root
def test_a_backup_that_was_gone_on_with_says_so_too(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path, described: list[dict[str, Any]]
) -> None:
    job = small(embedded, tmp_path / "tape", quiesce=described)
    with pytest.raises(TransportError, match="pulled"):
        PulledSession(job, state, print).run()
    (done,) = resume(state)

    assert any("backup is complete" in line for line in done.lines), done.lines
    to = restored(tmp_path / "tape", tmp_path / "to")
    assert stated(to)["databases"][0]["engine"] == "other"


@pytest.mark.root
def test_what_a_database_gave_at_its_end_is_not_given_twice(
    embedded: EmbeddedMirror,
    state: Path,
    tmp_path: Path,
    described: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It died with the session: a resume must not call a backup without it complete."""
    (tmp_path / "log").write_bytes(b"redo")
    monkeypatch.setattr(Described, "redo_file", tmp_path / "log")
    job = small(embedded, tmp_path / "tape", quiesce=described)
    with pytest.raises(TapeError):
        PulledSession(job, state, print).run()
    (done,) = resume(state)

    assert done.is_partial
    assert any("died with the session" in line for line in done.lines), done.lines
