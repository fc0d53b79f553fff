"""The window on a volume with many files against one with few, sessions in turn in one process; and the order of old.

SPLITREEL_MANY_FILES sets how many files the full one has (default: 20 000; the claim is made of 200 000).
"""

import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.test_map import fill
from splitreel import config, session
from splitreel.mirror.embedded import EmbeddedMirror
from tests.session.parts import make_database, transactions
from tests.support import keep_mounts_private
from tests.volumes import mirrored_volume

FEW = 200
MANY = int(os.environ.get("SPLITREEL_MANY_FILES", "20000"))
ROUNDS = int(os.environ.get("SPLITREEL_ROUNDS", "11"))
ALLOWED = 1.3
SIZE = 4 << 30  # bytes, sparse: ext4 makes an inode for each 16 KiB
PAUSE_SECONDS = 0.002


def volume(folder: Path, files: int) -> Any:
    """A mirrored volume with a database and ``files`` others."""
    folder.mkdir()
    return mirrored_volume(folder, SIZE)


def job_of(embedded: EmbeddedMirror, order: str = "premapped") -> config.Job:
    """A rehearsal of SQLite and the freeze of its volume."""
    mount = embedded.mount_point
    quiesce = [{"type": "sqlite", "database": f"{mount}/app.db"}, {"type": "fsfreeze", "mount": mount}]
    job = {"tape": "null:", "mirror": embedded.settings(), "quiesce": quiesce, "order": order, "deadline_ms": 60_000}
    return config.parse({"job": {"window": job}}).job()


def test_the_window_does_not_grow_with_the_number_of_files(benchmark: BenchmarkFixture) -> None:
    """Both volumes are written to all the time; what the window's median is compared with is the other volume's."""
    keep_mounts_private()
    windows: dict[int, list[float]] = {FEW: [], MANY: []}
    held: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="splitreel-window-") as made, ExitStack() as open_:
        folder = Path(made)
        (folder / "state").mkdir()
        volumes = {}
        for files in (FEW, MANY):
            volumes[files] = open_.enter_context(volume(folder / str(files), files))
            make_database(Path(volumes[files].mount_point) / "app.db")
            fill(Path(volumes[files].mount_point), files)
            open_.enter_context(transactions(volumes[files].mount_point, PAUSE_SECONDS))

        def turn() -> None:
            for files, embedded in volumes.items():
                windows[files].append(session.rehearse(job_of(embedded), state=folder / "state").window_ms)

        turn()
        for each in windows.values():
            each.clear()
        benchmark.pedantic(turn, rounds=ROUNDS)
        for files, embedded in volumes.items():
            held[files] = session.rehearse(job_of(embedded, "conventional"), state=folder / "state").window_ms
    few, many = (statistics.median(windows[files]) for files in (FEW, MANY))
    print(f"\nwindow with {MANY} files against one with {FEW}: {many / few:.2f} x")
    print(f"  medians {many:.1f} and {few:.1f} ms of {ROUNDS}")
    print(f"  longest {max(windows[MANY]):.1f} and {max(windows[FEW]):.1f} ms")
    print(f"  mapped inside the window: {held[MANY]:.0f} and {held[FEW]:.0f} ms")
    benchmark.extra_info.update(times_few=many / few)
    assert many / few <= ALLOWED
