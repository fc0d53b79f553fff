"""A mirror that is not the primary at one instant is found out, and what is wrong with it is named; a right one is not.

Whole sessions, through a software drive and back, under writers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitreel import config
from splitreel.prove.proof import Options, Proof
from splitreel.prove.run import prove
from tests.prove import mirrors
from tests.volumes import ext4_volume


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with ext4_volume(tmp_path_factory.mktemp("prove")) as mount:
        yield mount


def proof(volume: Path, folder: Path, fault: str, **changes: Any) -> Proof:
    """One session on the tests' own mirror."""
    settings = {"type": "snapshot", "primary": mirrors.loop_file(volume), "image": str(folder / "image")}
    if fault:
        settings["fault"] = fault
    quiescers = [{"type": "pause"}, {"type": "fsfreeze", "mount": str(volume)}]
    table = {"tape": f"file:{folder}/t.tap", "mirror": settings, "quiesce": quiescers, "mount": str(volume), **changes}
    job = config.parse({"job": {"proof": table}}).job()
    (folder / "scratch").mkdir()
    return prove(job, Options(seconds=0.1, writers=2), state=folder, scratch=folder / "scratch")


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
