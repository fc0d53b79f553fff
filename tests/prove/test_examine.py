"""The examiner finds the one instant that a copy of a writer's files is of, and names whatever is of another.

No mirror: the writer runs here, a copy of its directory is the copy, the log's own times make the window.
"""

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from splitreel.prove import operations, styles
from splitreel.prove.examine import Examined, Examiner
from splitreel.prove.operations import FILES, Kind, Operation
from splitreel.prove.stamp import SECTOR
from splitreel.prove.writer import Writer

RUN, WRITER = 77, 1
DIRECT, BUFFERED, APPEND = (FILES.index(name) for name in ("direct", "buffered", "append"))


@dataclass
class Scene:
    """A writer, and where it writes."""

    folder: Path
    log_path: Path
    writer: Writer
    groups: Iterator[styles.Group]

    def go_on(self, groups: int) -> None:
        for group in itertools.islice(self.groups, groups):
            self.writer.perform(group)

    def copy(self, name: str = "copy") -> Path:
        return Path(shutil.copytree(self.folder, self.folder.parent / name))

    @property
    def log(self) -> NDArray[np.void]:
        return operations.read_log(self.log_path).copy()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    folder, log = tmp_path / "files", tmp_path / "log"
    writer = Writer([folder], log, RUN, WRITER)
    made = Scene(folder, log, writer, styles.mixed(random.Random(4)))
    made.go_on(150)
    yield made
    writer.close()


def around(log: NDArray[np.void], number: int) -> tuple[int, int]:
    """A window between that operation's acknowledgement and the next one's begin."""
    return int(log["acknowledged_ns"][number - 1]), int(log["begun_ns"][number]) - 1


def examined(scene: Scene, copy: Path, number: int, whole: bool = True) -> Examined:
    return Examiner(RUN, WRITER, whole).examine([copy], scene.log, around(scene.log, number))


def kinds(found: Examined) -> set[str]:
    return {finding.kind for finding in found.findings}


def test_every_copy_between_groups_is_right_session_after_session(scene: Scene) -> None:
    """One examiner goes through the whole log; holes, unwritten extents, cut and replaced files are all met."""
    examiner, copies = Examiner(RUN, WRITER, True), []
    for number in range(6):
        copies.append((scene.copy(f"copy{number}"), scene.writer.number))
        scene.go_on(120)
    log = scene.log

    assert set(log["kind"]) == set(Kind)
    for copy, number in copies:
        found = examiner.examine([copy], log, around(log, number))
        assert (found.findings, found.instant) == ([], number)
        assert found.stamps > 2000
        assert found.zeros > 0


def test_what_was_in_flight_may_be_there_or_not(scene: Scene) -> None:
    """Of three operations that the window met, none, one, two or all are on the disk, in their order."""
    number = scene.writer.number
    copies = [scene.copy("copy0")]
    for first in (0, 64, 128):
        scene.writer.perform([Operation(Kind.WRITE, BUFFERED, first, 40)])
        copies.append(scene.copy(f"copy{first + 1}"))
    scene.go_on(1)
    log = scene.log
    window = int(log["acknowledged_ns"][number - 1]), int(log["begun_ns"][number + 3]) - 1
    seen = [Examiner(RUN, WRITER, True).examine([copy], log, window) for copy in copies]

    assert [(found.findings, found.instant) for found in seen] == [([], number + more) for more in range(4)]
    shutil.copy(copies[3] / "buffered", copies[0] / "buffered")
    data = bytearray((copies[0] / "buffered").read_bytes())
    data[: 40 * SECTOR] = (copies[1].parent / "files" / "buffered").read_bytes()[: 40 * SECTOR]
    assert Examiner(RUN, WRITER, True).examine([copies[0]], log, window).findings == []


def test_a_later_operation_without_an_earlier_one_is_disordered(scene: Scene) -> None:
    number, before = scene.writer.number, scene.copy("before")
    scene.writer.perform([Operation(Kind.WRITE, BUFFERED, 0, 8)])
    scene.writer.perform([Operation(Kind.WRITE, DIRECT, 64, 8)])
    shutil.copy(scene.folder / "direct", before / "direct")
    scene.go_on(1)
    log = scene.log
    window = int(log["acknowledged_ns"][number - 1]), int(log["begun_ns"][number + 2]) - 1

    assert kinds(Examiner(RUN, WRITER, True).examine([before], log, window)) == {"disordered"}
    assert kinds(Examiner(RUN, WRITER, False).examine([before], log, window)) == {"stale"}


def spoil(path: Path, at: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def late(scene: Scene, copy: Path, old: Path) -> None:
    scene.writer.perform([Operation(Kind.WRITE, DIRECT, 8, 8)])
    shutil.copy(scene.folder / "direct", copy / "direct")


def stale(scene: Scene, copy: Path, old: Path) -> None:
    shutil.copy(old / "direct", copy / "direct")


def lost(scene: Scene, copy: Path, old: Path) -> None:
    spoil(copy / "direct", 16 * SECTOR, bytes(1024 * SECTOR))


def lost_file(scene: Scene, copy: Path, old: Path) -> None:
    (copy / "buffered").unlink()


def torn_sector(scene: Scene, copy: Path, old: Path) -> None:
    spoil(copy / "direct", 100, bytes(200))


def torn_call(scene: Scene, copy: Path, old: Path) -> None:
    spoil(copy / "direct", 0, (old / "direct").read_bytes()[: 4 * SECTOR])


def misplaced(scene: Scene, copy: Path, old: Path) -> None:
    spoil(copy / "direct", 0, (copy / "direct").read_bytes()[-8 * SECTOR :])


def foreign(scene: Scene, copy: Path, old: Path) -> None:
    spoil(copy / "direct", 8 * SECTOR, b"\xa5" * SECTOR)


def came_back(scene: Scene, copy: Path, old: Path) -> None:
    """What had been punched, cut off or unlinked is there again."""
    shutil.copy(old / "append", copy / "append")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (late, "late"),
        (stale, "stale"),
        (lost, "lost"),
        (lost_file, "lost"),
        (torn_sector, "torn"),
        (torn_call, "torn"),
        (misplaced, "misplaced"),
        (foreign, "foreign"),
        (came_back, "stale"),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["frozen", "not-frozen"])
def test_what_is_wrong_is_named(
    scene: Scene, change: Callable[[Scene, Path, Path], None], kind: str, whole: bool
) -> None:
    old = scene.copy("old")
    scene.writer.perform([Operation(Kind.WRITE, DIRECT, 0, 16)])
    scene.writer.perform([Operation(Kind.TRUNCATE, APPEND)])
    number, copy = scene.writer.number, scene.copy()
    scene.go_on(3)
    change(scene, copy, old)
    scene.go_on(1)

    assert kind in kinds(examined(scene, copy, number, whole))


def test_without_a_freeze_a_call_in_flight_may_be_there_in_part(scene: Scene) -> None:
    """Only sectors are whole then; of what was acknowledged nothing is forgiven, and no sector may be torn."""
    old, number = scene.copy("old"), scene.writer.number
    scene.writer.perform([Operation(Kind.WRITE, DIRECT, 0, 16)])
    copy = scene.copy()
    scene.go_on(1)
    torn_call(scene, copy, old)
    log = scene.log
    window = int(log["acknowledged_ns"][number - 1]), int(log["begun_ns"][number + 1]) - 1

    assert Examiner(RUN, WRITER, False).examine([copy], log, window).findings == []
    assert kinds(Examiner(RUN, WRITER, True).examine([copy], log, window)) == {"torn"}
    torn_sector(scene, copy, old)
    assert kinds(Examiner(RUN, WRITER, False).examine([copy], log, window)) == {"torn"}


def test_an_unfinished_replacement_may_be_there_but_nothing_later_in_it(scene: Scene) -> None:
    number, copy = scene.writer.number, scene.copy()
    log = scene.log
    shutil.copy(scene.folder / "direct", copy / operations.TEMPORARY)
    scene.go_on(1)

    assert examined(scene, copy, number).findings == []
    window = int(log["acknowledged_ns"][9]), int(log["acknowledged_ns"][9])
    assert "late" in kinds(Examiner(RUN, WRITER, True).examine([copy], scene.log, window))


def test_very_many_findings_are_counted(scene: Scene) -> None:
    number, copy = scene.writer.number, scene.copy()
    scene.go_on(1)
    for at in range(0, 2000, 2):
        spoil(copy / "direct", at * SECTOR, b"\xa5" * SECTOR)
    found = examined(scene, copy, number)

    assert sum(finding.count for finding in found.findings) == 1000
    assert len(found.findings) < 60
