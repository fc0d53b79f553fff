"""A mirror that is not the primary at one instant is found out, and what is wrong with it is named; a right one is not.

Whole sessions, through a software drive and back, under writers.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitreel import config
from splitreel.errors import NotFound
from splitreel.prove.proof import Options, Proof
from splitreel.prove.run import prove
from tests.prove import mirrors
from tests.volumes import ext4_volume

PATIENT = {"deadline_ms": 60_000}  # of a machine that is busy with other tests


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with ext4_volume(tmp_path_factory.mktemp("prove")) as mount:
        yield mount


def proof(volume: Path, folder: Path, fault: str, sessions: int = 1, **changes: Any) -> Proof:
    """One session on the tests' own mirror, or several."""
    settings = {"type": "snapshot", "primary": mirrors.loop_file(volume), "image": str(folder / "image")}
    if fault:
        settings["fault"] = fault
    quiescers = [{"type": "pause"}, {"type": "fsfreeze", "mount": str(volume)}]
    table = {
        "tape": f"file:{folder}/t.tap",
        "mirror": settings,
        "quiesce": quiescers,
        "mount": str(volume),
        **PATIENT,
        **changes,
    }
    job = config.parse({"job": {"proof": table}}).job()
    (folder / "scratch").mkdir(exist_ok=True)
    return prove(job, Options(seconds=0, writers=2, sessions=sessions), state=folder, scratch=folder / "scratch")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with ext4_volume(tmp_path_factory.mktemp("prove")) as mount:
        yield mount


def proof_of_two(mounts: list[Path], folder: Path, faults: list[str], frozen: bool = True) -> Proof:
    """One session on a volume and another, each with its fault."""
    volumes = []
    for number, (mount, fault) in enumerate(zip(mounts, faults, strict=True)):
        settings = {"type": "snapshot", "primary": mirrors.loop_file(mount), "image": str(folder / f"image{number}")}
        mirror = settings | ({"fault": fault} if fault else {})
        volumes.append({"name": f"vol{number}", "mirror": mirror, "mount": str(mount)})
    freezes = [{"type": "fsfreeze", "mount": str(mount)} for mount in mounts if frozen]
    table = {"tape": f"file:{folder}/t.tap", "volumes": volumes, "quiesce": [{"type": "pause"}, *freezes], **PATIENT}
    job = config.parse({"job": {"proof": table}}).job()
    (folder / "scratch").mkdir()
    return prove(job, Options(seconds=0, writers=2), state=folder, scratch=folder / "scratch")


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    mirrors.register(monkeypatch)


def test_a_mirror_split_at_one_instant_violates_nothing(volume: Path, tmp_path: Path) -> None:
    seen = proof(volume, tmp_path, "")

    assert (seen.error, seen.violations, seen.exit_code) == (None, {}, 0)
    assert seen.sessions[0].stamps > 2 * 2048
    assert not list(volume.glob("splitreel-prove*"))
    assert not list((tmp_path / "scratch").glob("restored*"))


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("lingering", {"late"}),
        ("ignoring", {"stale", "lost"}),
        ("halving", {"stale", "lost", "torn"}),
        ("swapping", {"misplaced"}),
        ("tearing-sectors", {"torn"}),
        ("tearing-calls", {"torn"}),
    ],
)
def test_a_mirror_of_several_instants_is_named(volume: Path, tmp_path: Path, fault: str, kinds: set[str]) -> None:
    seen = proof(volume, tmp_path, fault)

    assert seen.error is None
    assert seen.violations.keys() & kinds
    assert seen.exit_code == 3
    assert seen.record()["proved"] is False
    assert Path(seen.kept).is_dir()


def test_a_mirror_split_long_ago_has_lost_all(volume: Path, tmp_path: Path) -> None:
    """Of before the proof began, it does not even hold the directory."""
    os.sync()
    shutil.copy(mirrors.loop_file(volume), tmp_path / "image")
    seen = proof(volume, tmp_path, "standing")

    assert isinstance(seen.error, NotFound)
    assert (seen.violations, seen.exit_code) == ({"lost": 1}, 3)


def test_a_tape_is_written_over_only_when_it_holds_the_proofs_own(volume: Path, tmp_path: Path) -> None:
    """Session after session on a tape that was blank, and not one on a tape that holds a backup."""
    first = proof(volume, tmp_path, "", sessions=2)
    again = proof(volume, tmp_path, "")

    assert (first.error, first.violations) == (None, {})
    assert len(first.sessions) == 2
    assert again.sessions == []
    assert again.error is not None and again.exit_code == 4


def test_two_volumes_held_together_violate_nothing(volume: Path, second: Path, tmp_path: Path) -> None:
    """However long the second split comes after the first: what a writer does goes from volume to volume in order."""
    seen = proof_of_two([volume, second], tmp_path, ["hesitating", ""])

    assert (seen.error, seen.violations) == (None, {})
    assert seen.sessions[0].stamps > 2 * 2048


def test_one_volume_of_two_that_is_of_another_instant_is_named(volume: Path, second: Path, tmp_path: Path) -> None:
    seen = proof_of_two([volume, second], tmp_path, ["", "ignoring"])

    assert seen.error is None
    assert seen.violations.keys() & {"stale", "lost"}


def test_two_volumes_that_are_not_held_are_of_two_instants(volume: Path, second: Path, tmp_path: Path) -> None:
    """No stamp is late or torn then: it is the order over both that tells."""
    seen = proof_of_two([volume, second], tmp_path, ["hesitating", ""], frozen=False)

    assert seen.error is None
    assert not seen.frozen
    assert seen.violations
