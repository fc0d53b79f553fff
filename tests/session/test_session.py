"""A whole session over real parts: phases in order, a window that is measured, a copy that recovers."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from splitreel import journal
from splitreel.errors import MirrorError, QuiesceError, SplitreelError, UsageError
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.session import phase_order
from tests.session.parts import KeepingSession, Kept, job_of, sound
from tests.volumes import writes_within

PHASES = ("establish", "map", "quiesce", "discover", "prepare", "split", "unquiesce", "check", "backup", "cleanup")


@pytest.mark.parametrize("unquiesce", ["after-split", "after-check"])
@pytest.mark.parametrize("order", ["premapped", "conventional", "postsplit"])
def test_every_order_gives_a_sound_copy(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path, writing: Any, order: str, unquiesce: str
) -> None:
    events: list[Any] = []
    job = job_of(embedded, f"file:{tmp_path}/tape", order=order, unquiesce=unquiesce)
    with writing(embedded) as count:
        result = KeepingSession(job, state, events.append).run()
        at_end = count()
    print(result)
    assert tuple(phase.name for phase in result.phases) == phase_order(order, unquiesce)
    assert sorted(phase_order(order, unquiesce)) == sorted(PHASES)
    begun = [event["phase"] for event in events if event.get("state") == "begin"]
    assert tuple(begun) == phase_order(order, unquiesce)
    assert isinstance(result.backup, Kept)
    assert b"app.db" in result.backup.files
    assert 0 < sound(result.backup.files, tmp_path / "copy") <= at_end
    assert result.window_ms > 0
    assert result.window_ns[0] < result.window_ns[1]
    assert result.problems == 0
    (history,) = journal.histories(state)
    assert history.finished


def test_phase_order_is_the_designs() -> None:
    assert phase_order("premapped", "after-split") == PHASES


def test_two_sessions_in_a_row(embedded: EmbeddedMirror, state: Path, tmp_path: Path, writing: Any) -> None:
    with writing(embedded):
        for number in range(2):
            result = KeepingSession(job_of(embedded, "null:"), state, print).run()
            assert isinstance(result.backup, Kept)
            sound(result.backup.files, tmp_path / f"copy{number}")


def test_state_on_the_frozen_file_system_is_refused(embedded: EmbeddedMirror) -> None:
    state = Path(embedded.mount_point) / "state"
    state.mkdir()
    with pytest.raises(UsageError, match="will be frozen"):
        KeepingSession(job_of(embedded, "null:"), state, print).run()
    mirror = embedded.mirror()
    assert mirror.state() == "none"
    mirror.close()


def test_deadline_thaws_fails_and_puts_the_mirror_back(embedded: EmbeddedMirror, state: Path) -> None:
    class Slow(KeepingSession):
        def enter(self, phase: str) -> None:
            if phase == "split":
                assert writes_within(Path(embedded.mount_point), 10)

    with pytest.raises(QuiesceError, match="deadline passed") as caught:
        Slow(job_of(embedded, "null:", deadline_ms=2500), state, print).run()
    assert caught.value.exit_code == 1
    assert writes_within(Path(embedded.mount_point), 5)
    mirror = embedded.mirror()
    assert mirror.is_in_sync()
    mirror.close()
    KeepingSession(job_of(embedded, "null:"), state, print).run()


@pytest.mark.parametrize("phase", PHASES)
def test_a_failure_in_any_phase_lets_go_and_puts_back(embedded: EmbeddedMirror, state: Path, phase: str) -> None:
    class Failing(KeepingSession):
        def enter(self, name: str) -> None:
            if name == phase:
                raise SplitreelError("told to fail")

    with pytest.raises(SplitreelError, match="told to fail"):
        Failing(job_of(embedded, "null:"), state, print).run()
    assert writes_within(Path(embedded.mount_point), 5)
    (history,) = journal.histories(state)
    assert history.finished
    KeepingSession(job_of(embedded, "null:"), state, print).run()


def test_ctrl_c_inside_the_window_lets_go(embedded: EmbeddedMirror, state: Path) -> None:
    class Interrupted(KeepingSession):
        def enter(self, phase: str) -> None:
            if phase == "split":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted(job_of(embedded, "null:"), state, print).run()
    assert writes_within(Path(embedded.mount_point), 5)
    assert journal.histories(state)[0].finished


def test_a_listener_that_goes_away_leaves_nothing_half_done(embedded: EmbeddedMirror, state: Path) -> None:
    def gone(event: Any) -> None:
        if event.get("phase") not in ("establish", "map"):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        KeepingSession(job_of(embedded, "null:"), state, gone).run()
    assert writes_within(Path(embedded.mount_point), 5)
    assert journal.histories(state)[0].finished


def test_a_file_outside_the_mirrored_volume_is_refused_and_let_go(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").touch()
    command = {"type": "command", "quiesce": "true", "unquiesce": "true", "discover": f"echo {tmp_path}/elsewhere"}
    job = job_of(embedded, "null:", quiesce=[command, {"type": "fsfreeze", "mount": embedded.mount_point}])
    with pytest.raises(QuiesceError, match="not on the mirrored volume"):
        KeepingSession(job, state, print).run()
    assert writes_within(Path(embedded.mount_point), 5)


def test_a_mirror_of_another_file_system_is_noticed(embedded: EmbeddedMirror, state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    with other.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", other], check=True, capture_output=True)
    job = job_of(embedded, "null:", mirror={"type": "static", "image": str(other)})
    with pytest.raises(MirrorError, match="another file system"):
        KeepingSession(job, state, print).run()


def test_commands_alone_make_a_session(embedded: EmbeddedMirror, state: Path, tmp_path: Path) -> None:
    """A site's scripts for both: here they freeze by fsfreeze(8) and copy the image as the split."""
    mount, copy, log = embedded.mount_point, tmp_path / "copy.img", tmp_path / "log"
    job = job_of(
        embedded,
        "null:",
        mount=mount,
        paths=["app.db"],
        quiesce=[
            {
                "type": "command",
                "quiesce": f"sh -c 'echo hold >>{log}; fsfreeze -f {mount}'",
                "unquiesce": f"sh -c 'echo release >>{log}; fsfreeze -u {mount} 2>/dev/null; echo \"#INFO released\"'",
                "discover": f"find {mount}/other -type f",
            }
        ],
        mirror={
            "type": "command",
            "image": str(copy),
            "split": f"sh -c 'echo split >>{log}; cp {embedded.primary_image} {{image}}'",
            "rejoin": f"sh -c 'echo rejoin >>{log}; rm {{image}}'",
        },
    )
    result = KeepingSession(job, state, print).run()
    assert isinstance(result.backup, Kept)
    assert len(result.backup.files) == 21
    assert result.backup.files[b"other/file3"] == b"\3" * 5000
    assert log.read_text().split() == ["hold", "split", "release", "rejoin"]
    assert not copy.exists()

    class Failing(KeepingSession):
        def enter(self, phase: str) -> None:
            if phase == "prepare":
                raise SplitreelError("told to fail")

    log.unlink()
    with pytest.raises(SplitreelError, match="told to fail"):
        Failing(job, state, print).run()
    assert log.read_text().split() == ["hold", "release"]


def test_a_quiesce_command_that_hangs_ends_with_its_time_limit(embedded: EmbeddedMirror, state: Path) -> None:
    command = {"type": "command", "quiesce": "sleep 60", "unquiesce": "true", "timeout_s": 0.3}
    job = job_of(embedded, "null:", quiesce=[command, {"type": "fsfreeze", "mount": embedded.mount_point}])
    with pytest.raises(QuiesceError, match="longer than"):
        KeepingSession(job, state, print).run()
    assert writes_within(Path(embedded.mount_point), 5)
    mirror = embedded.mirror()
    assert mirror.is_in_sync()
    mirror.close()
