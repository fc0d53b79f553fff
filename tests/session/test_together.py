"""Several volumes in one session: their mirrors are of one instant, and each is put back whatever becomes of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitreel import config, journal, session
from splitreel.__main__ import main
from splitreel.backup import Result
from splitreel.config import Job
from splitreel.errors import MirrorError, QuiesceError, SplitreelError, TransportError
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.session.mirrored import MirroredVolume
from splitreel.session.resume import resume
from tests import ext4_images, trees
from tests.session.alternate import last_of, writer
from tests.session.parts import KeepingSession, Kept
from tests.session.test_described import Described
from tests.session.test_resume import ROOT, die_in
from tests.session.test_tape import PulledSession, restored
from tests.volumes import mirrored_volume, writes_within

pytestmark = pytest.mark.root
NAMES = ("data", "wal")
BETWEEN = 0.2  # seconds from one split to the next, in which a writer that is not held writes much


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[EmbeddedMirror]]:
    """Two mirrored volumes."""
    for name in NAMES:
        (tmp_path / name).mkdir()
    with mirrored_volume(tmp_path / "data", 128 << 20) as one, mirrored_volume(tmp_path / "wal", 128 << 20) as other:
        yield [one, other]


def mounts(pair: list[EmbeddedMirror]) -> list[Path]:
    return [Path(volume.mount_point) for volume in pair]


def job_of(pair: list[EmbeddedMirror], tape: str, **changes: Any) -> Job:
    """A job over both volumes, each of them frozen."""
    volumes = [
        {"name": name, "mirror": volume.settings(), "mount": volume.mount_point}
        for name, volume in zip(NAMES, pair, strict=True)
    ]
    frozen = [{"type": "fsfreeze", "mount": volume.mount_point} for volume in pair]
    table = {"tape": tape, "volumes": volumes, "quiesce": frozen, **changes}
    return config.parse({"job": {"nightly": table}}).job()


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between one split and the next there is time."""
    split = MirroredVolume.split

    def slow(volume: MirroredVolume) -> float:
        took = split(volume)
        time.sleep(BETWEEN)
        return took

    monkeypatch.setattr(MirroredVolume, "split", slow)


def states(pair: list[EmbeddedMirror]) -> list[str]:
    found = []
    for volume in pair:
        mirror = volume.mirror()
        found.append(mirror.state())
        mirror.close()
    return found


@pytest.mark.usefixtures("slowly")
def test_what_is_restored_of_two_volumes_is_of_one_instant(
    pair: list[EmbeddedMirror], state: Path, tmp_path: Path
) -> None:
    """Over several sessions, a writer going on: no number on one volume without the one before it on the other."""
    first, second = (mount / "log" for mount in mounts(pair))
    seen = []
    with writer(first, second):
        for number in range(4):
            done = session.run(job_of(pair, f"file:{tmp_path}/tape", overwrite=True), state=state)
            assert isinstance(done.backup, Result) and done.backup.complete
            assert done.window_ms >= 2 * BETWEEN * 1000
            to = restored(tmp_path / "tape", tmp_path / f"to{number}")
            ahead, behind = last_of(to / "data/log"), last_of(to / "wal/log")
            assert behind in (ahead, ahead - 1)
            seen.append(behind)
    assert sorted(set(seen)) == seen  # each session has its own instant


@pytest.mark.usefixtures("slowly")
def test_without_a_freeze_it_is_not_which_this_would_tell(
    pair: list[EmbeddedMirror], state: Path, tmp_path: Path
) -> None:
    first, second = (mount / "log" for mount in mounts(pair))
    with writer(first, second):
        session.run(job_of(pair, f"file:{tmp_path}/tape", quiesce=[]), state=state)
    to = restored(tmp_path / "tape", tmp_path / "to")

    assert last_of(to / "wal/log") > last_of(to / "data/log") + 1


def test_files_lie_below_their_volumes_name_as_they_were(
    pair: list[EmbeddedMirror], state: Path, tmp_path: Path
) -> None:
    """Inode numbers of the two are equal: links, names and attributes of one must not become the other's."""
    for number, mount in enumerate(mounts(pair)):
        ext4_images.fill_attributes(mount / "attributes")
        (mount / "file").write_bytes(bytes([number]) * 700_000)
        os.link(mount / "file", mount / "other name")
        (mount / "link").symlink_to(NAMES[number])
    before = [trees.tree(mount, ("lost+found",)) for mount in mounts(pair)]
    assert (mounts(pair)[0] / "file").stat().st_ino == (mounts(pair)[1] / "file").stat().st_ino
    done = session.run(job_of(pair, f"file:{tmp_path}/tape"), state=state)

    assert isinstance(done.backup, Result) and done.backup.complete
    assert done.problems == 0
    assert set(done.changes) and not done.changes["extents_revised"]
    to = restored(tmp_path / "tape", tmp_path / "to")
    for name, truth in zip(NAMES, before, strict=True):
        assert trees.differences(truth, trees.tree(to / name, ("lost+found",))) == []
    assert sorted(path.name for path in to.iterdir()) == ["data", "wal"]


def described_job(pair: list[EmbeddedMirror], monkeypatch: pytest.MonkeyPatch, tape: str, **changes: Any) -> Job:
    """A job whose database has a directory on either volume and says so."""
    data, wal = mounts(pair)
    for place in (data / "base", wal / "segments"):
        place.mkdir(exist_ok=True)
        (place / "file").write_bytes(os.urandom(3 << 20))
    monkeypatch.setattr(Described, "data", str(data / "base"))
    monkeypatch.setitem(session.phases.quiesce.TYPES, "command", ("tests.session.test_described", "Described"))
    listing = f"echo {data}/base; echo {wal}/segments"
    held = {"type": "command", "quiesce": "true", "unquiesce": "true", "discover": ["sh", "-c", listing]}
    frozen = [{"type": "fsfreeze", "mount": str(mount)} for mount in (data, wal)]
    return job_of(pair, tape, quiesce=[held, *frozen], **changes)


def test_what_is_discovered_is_found_on_its_volume_and_session_json_says_where(
    pair: list[EmbeddedMirror], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `paths`, which name little: the database's files come along from both volumes."""
    (mounts(pair)[1] / "not wanted").write_bytes(b"x")
    (mounts(pair)[0] / "wanted").write_bytes(b"y")
    job = described_job(pair, monkeypatch, f"file:{tmp_path}/tape", paths=["data/wanted"])
    session.run(job, state=state)

    to = restored(tmp_path / "tape", tmp_path / "to")
    assert {
        str(path.relative_to(to)) for path in to.rglob("*") if path.is_file() and ".splitreel" not in path.parts
    } == {
        "data/base/file",
        "data/wanted",
        "wal/segments/file",
    }
    stated = json.loads((to / ".splitreel/redo/session.json").read_text())
    assert [(entry["name"], entry["mount"], entry["prefix"]) for entry in stated["volumes"]] == [
        (name, str(mount), name) for name, mount in zip(NAMES, mounts(pair), strict=True)
    ]
    assert len({entry["uuid"] for entry in stated["volumes"]}) == 2


def test_a_file_on_neither_volume_is_refused_and_both_mirrors_are_put_back(
    pair: list[EmbeddedMirror], state: Path, tmp_path: Path
) -> None:
    held = {"type": "command", "quiesce": "true", "unquiesce": "true", "discover": f"echo {tmp_path}"}
    frozen = [{"type": "fsfreeze", "mount": str(mount)} for mount in mounts(pair)]
    with pytest.raises(QuiesceError, match="on none of the mirrored volumes"):
        session.run(job_of(pair, "null:", quiesce=[held, *frozen]), state=state)
    assert states(pair) == ["in-sync", "in-sync"]
    assert all(writes_within(mount, 5) for mount in mounts(pair))


def test_a_volume_mounted_inside_the_databases_directory_belongs_to_it(
    pair: list[EmbeddedMirror], state: Path, tmp_path: Path
) -> None:
    """And what else is mounted there would be missing from the backup: that is refused."""
    data, wal = mounts(pair)
    inner = data / "base/wal"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "--move", wal, inner], check=True)
    pair[1].mount_point = str(inner)
    try:
        (inner / "segment").write_bytes(b"x" * 5000)
        held = {"type": "command", "quiesce": "true", "unquiesce": "true", "discover": f"echo {data}/base"}
        frozen = [{"type": "fsfreeze", "mount": str(mount)} for mount in (data, inner)]
        job = job_of(pair, "null:", quiesce=[held, *frozen], paths=["data/base"])
        kept = KeepingSession(job, state, lambda event: None).run().backup
        assert isinstance(kept, Kept)
        assert kept.files[b"wal/segment"] == b"x" * 5000
        (data / "base/tmp").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", data / "base/tmp"], check=True)
        with pytest.raises(QuiesceError, match="base/tmp: it is on none of the mirrored volumes"):
            KeepingSession(job, state, lambda event: None).run()
    finally:
        subprocess.run(["umount", data / "base/tmp"], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["mount", "--move", inner, wal], check=True)
        pair[1].mount_point = str(wal)


def test_a_second_split_that_fails_undoes_the_first(
    pair: list[EmbeddedMirror], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, done = MirroredVolume.split, []

    def once(volume: MirroredVolume) -> float:
        if done:
            raise MirrorError(volume.name, "told to fail")
        done.append(volume)
        return split(volume)

    monkeypatch.setattr(MirroredVolume, "split", once)
    with pytest.raises(MirrorError, match="told to fail"):
        session.run(job_of(pair, "null:"), state=state)
    assert states(pair) == ["in-sync", "in-sync"]
    assert all(writes_within(mount, 5) for mount in mounts(pair))
    assert journal.histories(state)[0].finished


def test_one_that_cannot_be_put_back_keeps_no_other_from_it(
    pair: list[EmbeddedMirror], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal stays open for a resume, which then has the one left to do."""
    put_back = MirroredVolume.put_back

    def fail(volume: MirroredVolume, hold: Any) -> None:
        if volume.settings.name == "data":
            raise MirrorError(volume.name, "told to fail")
        put_back(volume, hold)

    with monkeypatch.context() as patched:
        patched.setattr(MirroredVolume, "put_back", fail)
        with pytest.raises(MirrorError, match="told to fail"):
            session.run(job_of(pair, "null:"), state=state)
    assert states(pair) == ["split", "in-sync"]
    (done,) = resume(state)
    assert not done.failures
    assert next(line for line in done.lines if "rejoined" in line).startswith("data: ")
    assert not any(line.startswith("wal: ") for line in done.lines)
    assert states(pair) == ["in-sync", "in-sync"]


def test_a_drive_that_fails_leaves_both_split_and_resume_goes_on(
    pair: list[EmbeddedMirror], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        for mount in mounts(pair):
            (mount / f"blob{number:02}").write_bytes(os.urandom(1 << 20))
    sizes = {"block_size": 65536, "segment_size": 2 << 20, "sync_segments": 1}
    job = described_job(pair, monkeypatch, f"file:{tmp_path}/tape", **sizes)
    before = [trees.tree(mount, ("lost+found",)) for mount in mounts(pair)]
    with pytest.raises(TransportError, match="pulled"):
        PulledSession(job, state, print).run()
    assert states(pair) == ["split", "split"]
    for mount in mounts(pair):
        for path in mount.glob("blob*"):
            path.write_bytes(b"changed since")
    (done,) = resume(state)

    assert any("the backup is complete" in line for line in done.lines), done.lines
    assert states(pair) == ["in-sync", "in-sync"]
    to = restored(tmp_path / "tape", tmp_path / "to")
    for name, truth in zip(NAMES, before, strict=True):
        assert trees.differences(truth, trees.tree(to / name, ("lost+found",))) == []
    assert len(json.loads((to / ".splitreel/redo/session.json").read_text())["volumes"]) == 2


@pytest.mark.parametrize("phase", ["unquiesce", "cleanup"])
def test_killed_while_both_are_split(pair: list[EmbeddedMirror], state: Path, phase: str) -> None:
    """Writers of both go on, and both mirrors are put back."""
    die_in(job_of(pair, "null:"), state, phase)
    assert all(writes_within(mount, 5) for mount in mounts(pair))
    with pytest.raises(SplitreelError, match="interrupted"):
        session.run(job_of(pair, "null:"), state=state)
    (done,) = resume(state)

    assert not done.failures
    assert [line.partition(":")[0] for line in done.lines[-2:]] == list(NAMES)
    assert isinstance(KeepingSession(job_of(pair, "null:"), state, lambda _: None).run().backup, Kept)


DIE_BETWEEN = """
import json, os, signal, sys
from pathlib import Path
from splitreel.config import Job
from splitreel.session.mirrored import MirroredVolume
from tests.session.parts import KeepingSession

split = MirroredVolume.split
MirroredVolume.split = lambda volume: (split(volume), os.kill(os.getpid(), signal.SIGKILL))
KeepingSession(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]), lambda event: None).run()
"""


def test_killed_between_the_two_splits(pair: list[EmbeddedMirror], state: Path) -> None:
    """Both are frozen, one is split: both are thawed, and what nobody vouches for is copied in full."""
    command = [sys.executable, "-c", DIE_BETWEEN, json.dumps(job_of(pair, "null:").record()), str(state)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    died = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert all(writes_within(mount, 10) for mount in mounts(pair))
    assert states(pair) == ["split", "in-sync"]
    (done,) = resume(state)

    assert not done.failures
    told = dict(line.split(": ", 1) for line in done.lines[-2:])
    assert "copied in full" in told["data"] and "was not split" in told["wal"]


def test_doctor_looks_at_every_volume_of_a_job(
    pair: list[EmbeddedMirror], state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also the one that is last: a mirror whose platform does not answer stops a session, so doctor says so."""
    job = job_of(pair, f"file:{tmp_path}/tape")
    tables = "".join(
        f'[[job.nightly.volumes]]\nname = "{entry["name"]}"\nmount = "{entry["mount"]}"\n[job.nightly.volumes.mirror]\n'
        + "".join(f'{key} = "{value}"\n' for key, value in entry["mirror"].items())
        for entry in job.volumes
    )
    frozen = ", ".join(f'{{ type = "fsfreeze", mount = "{mount}" }}' for mount in mounts(pair))
    toml = tmp_path / "job.toml"
    toml.write_text(f'[job.nightly]\ntape = "{job.tape}"\nquiesce = [ {frozen} ]\n{tables}')
    command = ["--state", str(state), "doctor", str(toml)]

    main(command)
    assert "drive, tape, 2 mirrors and database are ready" in capsys.readouterr().out
    toml.write_text(toml.read_text().replace(str(pair[1].qmp), f"{tmp_path}/nobody"))
    assert main(command) == 1
    assert "nobody" in capsys.readouterr().out


def test_two_mirrors_of_one_device_are_refused(pair: list[EmbeddedMirror], state: Path) -> None:
    """Before anything is touched, so that doctor tells, too."""
    job = job_of(pair, "null:", quiesce=[])
    twice = [{**entry, "mount": "", "device": pair[0].device} for entry in job.volumes]
    with pytest.raises(MirrorError, match=r"its primary .* too"):
        session.examine(Job(**{**job.record(), "volumes": twice}), state)
