"""The method's claims that show on the tape, or need a server: 2, 3, 5 and 12. Real parts throughout."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from splitreel import config, session
from splitreel.backup.run import Result
from splitreel.catalog import Catalog
from splitreel.drive import open_drive
from splitreel.mapping import map_device
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.restore import restore
from tests.postgres import inserting, recover, running
from tests.session.parts import job_of
from tests.volumes import mirrored_volume


def test_claims_2_and_3_the_media_is_sequential_a_tape_drive(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    """What is written to is a SCSI device of type 1, sequential access; what is there is read from begin to end."""
    done = session.run(job_of(embedded, f"file:{tmp_path}/tape"), state=state)
    assert isinstance(done.backup, Result)
    with open_drive(f"file:{tmp_path}/tape") as drive:
        assert drive.scsi.inquiry().result["peripheral_device_type"] == 1
        drive.space_eod()
        assert drive.position().object_id > done.backup.tape_blocks
        drive.rewind()
        assert restore(drive, tmp_path / "to").complete


def test_claim_12_logical_order_whatever_the_physical_one(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    """Files go to tape by the host's own names for them, and each from its first byte to its last, wherever it lies."""
    mount = Path(embedded.mount_point)
    (mount / "ordered").mkdir()
    for name in ("d", "a", "c", "b"):  # laid out on disk in this order
        (mount / "ordered" / name).write_bytes(name.encode() * 500_000)
    job = job_of(embedded, f"file:{tmp_path}/tape", paths=["ordered"])
    session.run(job, state=state)
    with Catalog(state) as catalog:
        row, _, _ = catalog.volume(catalog.backup().id)
        written = [member.path for member in catalog.members(row) if member.path.startswith(b"ordered/")]
    assert written == [b"ordered/a", b"ordered/b", b"ordered/c", b"ordered/d"]
    extents = map_device(embedded.mirror_image, live=True)
    files, names = np.asarray(extents.files), np.asarray(extents.names)
    places = [
        int(np.asarray(extents.extents)[int(files[int(names[extents.find(path)]["file"])]["first_extent"])]["physical"])
        for path in written
    ]
    assert places != sorted(places)


@pytest.fixture
def roomy() -> Iterator[EmbeddedMirror]:
    """A mirrored volume that another system user may enter."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    with mirrored_volume(folder, 1 << 30) as volume:
        (folder / "mirrored").chmod(0o755)
        yield volume
    shutil.rmtree(folder)


def test_claim_5_hot_backup_a_redo_log_kept_while_reads_and_writes_go_on(
    roomy: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    """PostgreSQL in its hot backup state: writers commit meanwhile; copy and redo make a server with every commit."""
    mount = Path(roomy.mount_point)
    during: dict[str, int] = {}

    class Counting(session.Session):
        def enter(self, phase: str) -> None:
            during[phase] = count()
            if phase == "check":
                time.sleep(0.3)

    with running(mount / "data", mount.parent / "run") as server, inserting(server) as count:
        table = {
            "tape": f"file:{tmp_path}/tape",
            "mirror": roomy.settings(),
            "quiesce": [
                {"type": "postgresql", "conninfo": server.conninfo, "run_as": "postgres"},
                {"type": "fsfreeze", "mount": str(mount)},
            ],
        }
        job = config.parse({"job": {"pg": table}}).job()
        done = Counting(job, state, lambda _: None).run()
        at_end = count() + 1
    assert during["quiesce"] < during["discover"]
    assert during["check"] < during["backup"]
    assert done.hot_backup_ms > done.window_ms > 0
    with Catalog(state) as catalog:
        assert [name for name, _, _ in catalog.windows(catalog.backup().id)] == ["hot-backup", "window"]
    to = Path(tempfile.mkdtemp(dir="/tmp"))
    to.chmod(0o755)
    with open_drive(job.tape) as drive:
        restore(drive, to / "restored")
    (to / "restored").chmod(0o755)
    folder = to / "restored/.splitreel/redo"
    redo = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "backup_label" in redo
    assert any(name.startswith("pg_wal/") for name in redo)
    recover(to / "restored/data", redo)
    with running(to / "restored/data", to / "run", new=False) as copy:
        rows, last = map(int, copy.query("select count(*), max(n) from marker").split("|"))
    assert rows == last
    assert during["split"] <= rows <= at_end
    shutil.rmtree(to)
