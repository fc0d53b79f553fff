"""The verb on the embedded mirror, as a user runs it: through the software drive and back, files and rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from splitreel.__main__ import main
from splitreel.mirror.embedded import EmbeddedMirror
from tests.prove.__main__ import configure, fill
from tests.volumes import mirrored_volume


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def verb(tmp_path: Path, embedded: EmbeddedMirror, tape: str, *more: str) -> int:
    config = configure(tmp_path, embedded, tape)
    return main(["prove", str(config), "--state", str(tmp_path / "state"), "--scratch", str(tmp_path), *more])


@pytest.mark.slow
def test_the_embedded_mirror_is_the_primary_at_one_instant(tmp_path: Path, lines: Any) -> None:
    """Files and rows, session after session on one tape; nothing of it is left on the volume."""
    with mirrored_volume(tmp_path) as embedded:
        mount = Path(embedded.mount_point)
        fill(mount, 5)
        code = verb(tmp_path, embedded, f"file:{tmp_path}/t.tap", "--seconds", "4", "--writers", "2", "--json")
        left = sorted(path.name for path in mount.iterdir())
    *sessions, last = lines()

    assert (code, last["kind"], last["proved"], last["violations"], last["error"]) == (0, "prove", True, 0, "")
    assert len(sessions) == last["sessions"] >= 1
    assert all(one["stamps"] > 2 * 2048 and one["rows"] > 0 and one["window_ms"] > 0 for one in sessions)
    assert last["stamps_written"] > 0
    assert not [name for name in left if name.startswith("splitreel")]
    assert not list(tmp_path.glob("splitreel-prove-*"))


def test_a_tape_that_gives_nothing_back_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mirrored_volume(tmp_path, 64 << 20) as embedded:
        fill(Path(embedded.mount_point), 0)
        code = verb(tmp_path, embedded, "null:")

    assert code == 2
    assert "gives nothing back" in capsys.readouterr().err


def test_a_volume_without_room_ends_it_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The writers' own words, and no verdict of having proved anything."""
    with mirrored_volume(tmp_path, 16 << 20) as embedded:
        fill(Path(embedded.mount_point), 0)
        code = verb(tmp_path, embedded, f"file:{tmp_path}/t.tap", "--seconds", "1", "--no-rows")
    shown = capsys.readouterr()

    assert code == 1
    assert "No space left on device" in shown.err
    assert "PROVED" not in shown.out
