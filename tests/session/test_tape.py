"""Whole sessions onto a software drive: what comes back from the tape is the database as it was at the split."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from splitreel import session
from splitreel.__main__ import main
from splitreel.backup.run import Result
from splitreel.catalog import Catalog
from splitreel.config import Job
from splitreel.drive import open_drive
from splitreel.errors import Cancelled, SplitreelError, TransportError, WrongTape
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.reading.verify import verify
from splitreel.restore import restore
from splitreel.session.resume import resume
from splitreel.session.tape import Tape
from tests.session.parts import job_of, sound
from tests.support import unmount
from tests.volumes import writes_within

ROOT = Path(__file__).parents[2]

DIE_WHILE_WRITING = """
import json, os, signal, sys
from pathlib import Path
from splitreel.config import Job
from splitreel.session import Session

class Dying(Session):
    def _confirmed(self, facts):
        super()._confirmed(facts)
        if facts["segment"] >= 2:
            os.kill(os.getpid(), signal.SIGKILL)

Dying(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]), lambda event: None).run()
"""


class PulledTape(Tape):
    """A drive whose cable is pulled when two segments are confirmed."""

    def run(self, *given: Any) -> Any:
        *most, confirmed, progress, verify, checks = given

        def told(facts: Any) -> None:
            confirmed(facts)
            if facts["segment"] == 2:
                raise TransportError("pulled")

        try:
            return super().run(*most, told, progress, verify, checks)
        except Cancelled:
            raise TransportError("drive", "the cable was pulled") from None


class PulledSession(session.Session):
    """A session onto such a drive."""

    def tape(self) -> Tape:
        return PulledTape(self.job, self.state)


def small(embedded: EmbeddedMirror, tape: Path, **changes: Any) -> Job:
    """A job whose tape has small segments, each of them synchronised, with 24 MiB to write beside the database."""
    for number in range(24):
        (Path(embedded.mount_point) / f"blob{number:02}").write_bytes(os.urandom(1 << 20))
    sizes = {"block_size": 65536, "segment_size": 2 << 20, "sync_segments": 1}
    return job_of(embedded, f"file:{tape}", **sizes, **changes)


def restored(tape: Path, to: Path) -> Path:
    with open_drive(f"file:{tape}") as drive:
        restore(drive, to)
    with open_drive(f"file:{tape}") as drive:
        assert verify(drive).sound
    return to


def same_tree(mount: Path, copy: Path, pattern: str) -> int:
    found = sorted(mount.glob(pattern))
    for path in found:
        assert (copy / path.relative_to(mount)).read_bytes() == path.read_bytes(), path
    return len(found)


def database_in(folder: Path) -> dict[bytes, bytes]:
    return {path.name.encode(): path.read_bytes() for path in folder.glob("app.db*") if not path.name.endswith("-shm")}


def test_from_live_database_to_tape_and_back(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path, writing: Any
) -> None:
    job = small(embedded, tmp_path / "tape")
    with writing(embedded) as count:
        done = session.run(job, state=state)
        at_end = count()
    assert isinstance(done.backup, Result)
    assert done.backup.complete
    to = restored(tmp_path / "tape", tmp_path / "to")
    assert same_tree(Path(embedded.mount_point), to, "blob*") == 24
    assert same_tree(Path(embedded.mount_point), to, "other/*") == 20
    assert 0 < sound(database_in(to), tmp_path / "db") <= at_end
    with Catalog(state) as catalog:
        backup = catalog.backup()
        assert backup.uuid == done.backup.id
        assert backup.job == "nightly"
        assert backup.window_ms == done.window_ms
        assert [name for name, _, _ in catalog.phases(backup.id)] == [phase.name for phase in done.phases]
        ((name, started, seconds),) = catalog.windows(backup.id)
        assert name == "window"
        assert seconds == pytest.approx(done.window_ms / 1000)
        assert done.started < started < done.started + 600


def test_a_tape_that_must_not_be_overwritten_stops_the_session_before_it_begins(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    job = small(embedded, tmp_path / "tape")
    session.run(job, state=state)
    mirror = embedded.mirror()
    mirror.forget()
    mirror.close()
    with pytest.raises(WrongTape):
        session.run(job, state=state)
    assert mirror.state() == "none"
    mirror.close()
    session.run(Job(**{**job.record(), "overwrite": True}), state=state)


@pytest.mark.parametrize("tail", ["", "torn"])
def test_killed_while_writing_is_gone_on_with_from_the_last_synchronised_segment(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path, tail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = small(embedded, tmp_path / "tape")
    died = subprocess.run(
        [sys.executable, "-c", DIE_WHILE_WRITING, json.dumps(job.record()), str(state)],
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    mount = Path(embedded.mount_point)
    before = {path.name: path.read_bytes() for path in mount.glob("blob*")}
    for path in mount.glob("blob*"):
        path.write_bytes(b"changed after the split")
    if tail:
        with open_drive(job.tape) as drive:
            drive.space_eod()
            drive.tape.write(b"written by nobody" * 100)
            drive.synchronize()
    assert main(["--state", str(state), "resume", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert any("backup is complete" in line for line in told["lines"]), told
    to = restored(tmp_path / "tape", tmp_path / "to")
    assert {path.name: path.read_bytes() for path in to.glob("blob*")} == before
    sound(database_in(to), tmp_path / "db")
    with Catalog(state) as catalog:
        backup = catalog.backup()
        assert backup.state == "complete"
        assert backup.job == "nightly"
    mirror = embedded.mirror()
    assert mirror.is_in_sync()
    mirror.close()


def test_killed_while_writing_with_another_tape_loaded_says_what_is_lost(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    job = small(embedded, tmp_path / "tape")
    command = [sys.executable, "-c", DIE_WHILE_WRITING, json.dumps(job.record()), str(state)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    died = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    (tmp_path / "tape").rename(tmp_path / "other tape")
    (done,) = resume(state)
    assert any("cannot be gone on with" in line for line in done.lines), done.lines
    assert any("are confirmed" in line for line in done.lines), done.lines
    assert done.failures == []
    with Catalog(state) as catalog:
        assert catalog.backups()[-1].state == "incomplete"
    session.run(job, state=state)


def test_a_drive_that_fails_while_writing_leaves_the_mirror_split_to_go_on(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    job = small(embedded, tmp_path / "tape")
    before = {path.name: path.read_bytes() for path in Path(embedded.mount_point).glob("blob*")}
    with pytest.raises(TransportError, match="pulled") as caught:
        PulledSession(job, state, print).run()
    assert "splitreel resume" in caught.value.advice
    mirror = embedded.mirror()
    assert mirror.state() == "split"
    mirror.close()
    for path in Path(embedded.mount_point).glob("blob*"):
        path.write_bytes(b"changed since")
    (done,) = resume(state)
    assert any("backup is complete" in line for line in done.lines), done.lines
    to = restored(tmp_path / "tape", tmp_path / "to")
    assert {path.name: path.read_bytes() for path in to.glob("blob*")} == before


def test_the_verb_backup_runs_a_session_and_prints_its_last_line(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mount = embedded.mount_point
    mirror = ", ".join(f'{key} = "{value}"' for key, value in embedded.settings().items())
    (tmp_path / "job.toml").write_text(
        f"""
        [job.nightly]
        tape = "file:{tmp_path}/tape"
        mirror = {{ {mirror} }}
        quiesce = [ {{ type = "sqlite", database = "{mount}/app.db" }}, {{ type = "fsfreeze", mount = "{mount}" }} ]
        """
    )
    assert main(["--state", str(state), "backup", str(tmp_path / "job.toml"), "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["kind"], last["state"]) == ("backup", "complete")
    assert 0 < last["window_ms"] < 5000
    assert last["files"] == 23  # 20 others, the database, its -wal and -shm
    sound(database_in(restored(tmp_path / "tape", tmp_path / "to")), tmp_path / "db")


class Filling(session.Session):
    """A session whose state directory runs full when the first segment is confirmed."""

    def _confirmed(self, facts: Any) -> None:
        if not (self.state / "filler").exists():
            with suppress(OSError), (self.state / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        super()._confirmed(facts)


def test_a_state_directory_that_runs_full_costs_neither_tape_nor_mirror(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    """The tape is written to its end; what cannot be recorded is told, and put right by a resume."""
    job = small(embedded, tmp_path / "tape")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", state], check=True)
    try:
        with pytest.raises(SplitreelError, match=r"No space left|disk is full") as caught:
            Filling(job, state, lambda event: None).run()
        # the journal's last page may have room for all the rest: then only the catalog lacks something
        advice = caught.value.advice
        assert "splitreel resume" in advice or "catalog rebuild" in advice
        assert writes_within(Path(embedded.mount_point), 5)
        to = restored(tmp_path / "tape", tmp_path / "to")
        assert same_tree(Path(embedded.mount_point), to, "blob*") == 24
        (state / "filler").unlink()
        ended = resume(state)
        assert [done.failures for done in ended] == ([[]] if "splitreel resume" in advice else [])
        # where the journal met the full directory decides whether the resume can go on; else the catalog cannot know
        went_on = any("the backup is complete" in line for done in ended for line in done.lines)
        with Catalog(state) as catalog:
            assert catalog.backups()[-1].state == ("complete" if went_on else "incomplete")
    finally:
        unmount(state)
    mirror = embedded.mirror()
    assert mirror.is_in_sync()
    mirror.close()
    restored(tmp_path / "tape", tmp_path / "again")
