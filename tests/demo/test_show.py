"""The demo proves what it claims, on both kinds of drive, through the command line as a user runs it."""

import json
from pathlib import Path

import pytest

from splitreel.__main__ import main
from splitreel.demo.scene import Scene
from tests.support import need_programs, need_root


@pytest.fixture(autouse=True)
def parts() -> None:
    need_root()
    need_programs("qemu-storage-daemon", "nbdfuse", "mkfs.ext4", "losetup")


@pytest.mark.slow
@pytest.mark.parametrize("drive", ["file", "iscsi"])
def test_the_restored_database_proves_the_window(
    drive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row acknowledged before the window is restored, none begun after it; writers went on; nothing is left."""
    if drive == "iscsi":
        need_programs("tgtd", "tgtimg")
    code = main(["demo", "--json", "--drive", drive, "--files", "3000", "--scratch", str(tmp_path)])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert (code, last["restored_ok"], last["integrity"], last["failures"]) == (0, True, "ok", [])
    assert last["files"] >= 3001
    assert last["acknowledged_before"] <= last["rows"]
    assert last["committed_after"] > 0
    assert last["window_ms"] > 0
    assert last["conventional_window_ms"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_lost_row_is_not_proved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that claims a commit which was never made must fail the demo with exit code 3 and keep the evidence."""
    honest = Scene.wait_for_commits

    def lie(scene: Scene, more: int) -> None:
        honest(scene, more)
        with scene.logs[0].open("a") as log:
            log.write("999999 1 2\n")

    monkeypatch.setattr(Scene, "wait_for_commits", lie)
    code = main(["demo", "--files", "50", "--scratch", str(tmp_path)])
    shown = capsys.readouterr().out

    assert code == 3
    assert "lost: writer 0, rows" in shown
    assert "NOT PROVED" in shown
    assert [path.name.startswith("splitreel-demo-") for path in tmp_path.iterdir()] == [True]
