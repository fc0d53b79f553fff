"""The method's claims (US patent 6,934,725, expired), each with a test that bears its number. Real parts throughout."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splitreel import journal
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.quiesce.fsfreeze import FsFreeze
from splitreel.session import SessionResult
from tests.session.parts import KeepingSession, Kept, job_of, sound
from tests.volumes import writer_waits, writes_within


class Watched(KeepingSession):
    """A session that calls ``actions[phase]`` as that phase begins, and notes when."""

    def __init__(self, job: Any, state: Path, actions: dict[str, Callable[[], object]]) -> None:
        super().__init__(job, state, lambda _: None)
        self.actions = actions
        self.entered_ns: dict[str, int] = {}
        self.answers: dict[str, object] = {}

    def enter(self, phase: str) -> None:
        self.entered_ns[phase] = time.monotonic_ns()
        if phase in self.actions:
            self.answers[phase] = self.actions[phase]()


def watch(
    embedded: EmbeddedMirror, state: Path, actions: dict[str, Callable[[], object]], **changes: Any
) -> tuple[Watched, SessionResult]:
    session = Watched(job_of(embedded, "null:", **changes), state, actions)
    return session, session.run()


def files_of(result: SessionResult) -> dict[bytes, bytes]:
    assert isinstance(result.backup, Kept)
    return result.backup.files


def test_claim_1_sync_map_quiesce_discover_prepare_split_backup_cleanup(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    """A mirror synchronised when the backup starts, then the quiesce with discovery and preparation in it; extents are
    mapped before the split, the split is before any file is read, the identified files come from the mirror alone."""
    mount = Path(embedded.mount_point)
    observer = embedded.mirror()
    assert observer.state() == "none"
    observer.close()
    before = (mount / "other/file7").read_bytes()

    def spoil_primary() -> None:
        (mount / "other/file7").write_bytes(b"written after the split")
        os.sync()

    _, result = watch(embedded, state, {"check": spoil_primary}, paths=["other"])
    order = [phase.name for phase in result.phases]
    for earlier, later in (
        ("establish", "map"),
        ("establish", "quiesce"),
        ("map", "split"),
        ("quiesce", "discover"),
        ("discover", "prepare"),
        ("prepare", "split"),
        ("split", "backup"),
        ("backup", "cleanup"),
    ):
        assert order.index(earlier) < order.index(later)
    assert files_of(result)[b"other/file7"] == before
    assert (mount / "other/file7").read_bytes() != before
    assert b"other/file7" in files_of(result)
    assert not any(path.startswith(b"lost+found") for path in files_of(result))
    sound(files_of(result), tmp_path / "copy")


def test_claim_4_the_database_is_frozen_at_the_split(embedded: EmbeddedMirror, state: Path) -> None:
    """Quiesce by a freeze: at the split a writer waits, and after the release it goes on."""
    mount = Path(embedded.mount_point)
    actions = {"split": lambda: writer_waits(mount, 0.2), "check": lambda: writes_within(mount, 5)}
    session, _ = watch(embedded, state, actions)
    assert session.answers == {"split": True, "check": True}


def test_claim_6_changed_extents_are_found_after_the_split_and_revised(embedded: EmbeddedMirror, state: Path) -> None:
    """A file that grew and one that moved between mapping and split are told, and written as they were at the split."""
    mount = Path(embedded.mount_point)
    (mount / "grows").write_bytes(b"a" * 9000)
    (mount / "moves").write_bytes(b"b" * 9000)
    # Checkpointed to its place, so that the live map holds them as they are now.
    with Settled(mount):
        pass
    grown, moved = b"a" * 300_000, b"c" * 9000

    def change() -> None:
        (mount / "grows").write_bytes(grown)
        (mount / "moves.new").write_bytes(moved)
        (mount / "moves.new").rename(mount / "moves")

    _, result = watch(embedded, state, {"quiesce": change}, paths=["grows", "moves"])
    assert result.changes["extents_revised"] + result.changes["new"] + result.changes["gone"] >= 2
    assert files_of(result)[b"grows"] == grown
    assert files_of(result)[b"moves"] == moved


class Settled:
    """Freeze and thaw: the journal is then in place."""

    def __init__(self, mount: Path) -> None:
        self.quiescer = FsFreeze(str(mount))

    def __enter__(self) -> None:
        self.quiescer.prepare()
        self.quiescer.quiesce()

    def __exit__(self, *error: object) -> None:
        self.quiescer.unquiesce()
        self.quiescer.close()


def test_claim_7_mapping_is_done_before_the_quiesce(embedded: EmbeddedMirror, state: Path) -> None:
    """In the default order the map is finished before the first writer can have waited."""
    _, result = watch(embedded, state, {})
    mapped = next(phase for phase in result.phases if phase.name == "map")
    quiesced = next(phase for phase in result.phases if phase.name == "quiesce")
    assert mapped.start + mapped.seconds <= quiesced.start
    assert mapped.seconds > 0


def test_claim_8_the_mirror_is_in_the_primarys_storage_platform(embedded: EmbeddedMirror, state: Path) -> None:
    """One platform serves the primary and mirrors it: at the split both hold the same bytes."""

    def compare() -> bool:
        return embedded.primary_image.read_bytes() == embedded.mirror_image.read_bytes()

    session, _ = watch(embedded, state, {"unquiesce": compare}, deadline_ms=60_000)
    assert session.answers["unquiesce"] is True


def test_claim_9_released_right_after_the_split(embedded: EmbeddedMirror, state: Path) -> None:
    """By default writers go on before the map is checked."""
    mount = Path(embedded.mount_point)
    session, result = watch(embedded, state, {"check": lambda: writes_within(mount, 5)})
    assert session.answers["check"] is True
    assert result.window_ns[1] < session.entered_ns["check"]


def test_claim_10_released_only_after_the_check(embedded: EmbeddedMirror, state: Path) -> None:
    """With "after-check" writers wait until the map has been checked and updated."""
    mount = Path(embedded.mount_point)
    session, result = watch(
        embedded,
        state,
        {"unquiesce": lambda: writer_waits(mount, 0.2), "backup": lambda: writes_within(mount, 5)},
        unquiesce="after-check",
    )
    assert session.answers == {"unquiesce": True, "backup": True}
    assert session.entered_ns["check"] < result.window_ns[1] < session.entered_ns["backup"]


def test_claim_11_backup_and_cleanup_in_one_session(embedded: EmbeddedMirror, state: Path) -> None:
    """The session that backs up also puts the mirror back: when it ends, the mirror is in sync again."""
    watch(embedded, state, {})
    (history,) = journal.histories(state)
    events = [record["event"] for record in history.records]
    assert events.index("backup") < events.index("rejoined") < events.index("end")
    assert len({record["pid"] for record in history.records if "pid" in record}) == 1
    mirror = embedded.mirror()
    assert mirror.is_in_sync()
    mirror.close()


def test_the_window_does_not_grow_with_the_number_of_files(embedded: EmbeddedMirror, state: Path) -> None:
    """With 20 000 files, mapping before the quiesce makes the window at least five times shorter than mapping in it."""
    mount = Path(embedded.mount_point)
    for number in range(20_000):
        if number % 500 == 0:
            (mount / f"d{number}").mkdir()
        (mount / f"d{number - number % 500}" / f"f{number}").write_bytes(b"x" * 100)
    windows: dict[str, list[float]] = {"conventional": [], "premapped": []}
    for order in ("conventional", "premapped") * 3:
        # Mounted anew: the files of a database of any size are not all in the inode cache.
        embedded.unmount()
        embedded.mount(mount)
        _, result = watch(embedded, state, {}, order=order, deadline_ms=120_000, paths=["app.db"])
        assert result.files > 20_000
        windows[order].append(result.window_ms)
    print(windows)
    assert min(windows["premapped"]) < min(windows["conventional"]) / 5
