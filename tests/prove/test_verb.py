"""The verb on the embedded mirror, as a user runs it: through the software drive and back, files and rows."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from splitreel.__main__ import main
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.prove.rows import Row, payload
from splitreel.prove.run import session
from splitreel.prove.sqliterows import SqliteTable
from tests.prove.__main__ import configure, database, fill, format_volume
from tests.support import need_programs
from tests.volumes import mirrored_volume


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def verb(tmp_path: Path, embedded: EmbeddedMirror, tape: str, *more: str) -> int:
    with database("sqlite", "", tmp_path, Path(embedded.mount_point)) as settings:
        config = configure(tmp_path, embedded, tape, settings)
        return main(["prove", str(config), "--state", str(tmp_path / "state"), "--scratch", str(tmp_path), *more])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_the_embedded_mirror_is_the_primary_at_one_instant(tmp_path: Path, lines: Any, kind: str) -> None:
    """Files and rows, session after session on one tape; nothing of it is left on the volume."""
    need_programs(f"mkfs.{kind}")
    with mirrored_volume(tmp_path, 320 << 20) as embedded:
        mount = Path(embedded.mount_point)
        embedded.unmount()
        format_volume(embedded, kind)
        embedded.mount(mount)
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


def test_an_interrupt_gives_the_verdict_so_far(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C in the second session does; an older proof's directory is told, the table left in the database is not
    in the way."""
    run, calls = session.run, iter([None, KeyboardInterrupt()])

    def interrupted(*given: Any, **named: Any) -> Any:
        if failure := next(calls):
            raise failure
        return run(*given, **named)

    monkeypatch.setattr(session, "run", interrupted)
    with mirrored_volume(tmp_path) as embedded:
        mount = Path(embedded.mount_point)
        (mount / "splitreel-prove-0").mkdir()
        leave_rows(mount / "app.db")
        code = verb(tmp_path, embedded, f"file:{tmp_path}/t.tap", "--writers", "1")
        left = {path.name for path in mount.iterdir() if path.name.startswith("splitreel")}
    shown = capsys.readouterr()

    assert code == 130
    assert "ENDED EARLY, after 1 session without a violation" in shown.out
    assert "of an interrupted proof" in shown.out
    assert left == {"splitreel-prove-0"}


def leave_rows(database: Path) -> None:
    """A table of ours with a row, as a proof that was killed leaves it."""
    table = SqliteTable(database)
    table.create()
    with closing(table.connect()) as client:
        client.commit(Row(0, 5, 1, payload(0, 5), 0), 5)


def test_a_tape_that_gives_nothing_back_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mirrored_volume(tmp_path, 64 << 20) as embedded:
        code = verb(tmp_path, embedded, "null:")

    assert code == 2
    assert "gives nothing back" in capsys.readouterr().err


def test_a_volume_without_room_ends_it_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The writers' own words, and no verdict of having proved anything."""
    with mirrored_volume(tmp_path, 16 << 20) as embedded:
        code = verb(tmp_path, embedded, f"file:{tmp_path}/t.tap", "--seconds", "1", "--no-rows")
    shown = capsys.readouterr()

    assert code == 1
    assert "No space left on device" in shown.err
    assert "PROVED" not in shown.out
    assert "VIOLATED" not in shown.out
