"""Whatever becomes of a session, it leaves no descriptor and no process behind, and its exit code is right."""

import gc
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from splitreel import journal
from splitreel.__main__ import main
from splitreel.catalog import Catalog
from splitreel.drive import open_drive
from splitreel.errors import SplitreelError
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.reading.verify import verify
from splitreel.session import phase_order
from splitreel.session.resume import resume
from tests import ext4_images
from tests.session.parts import KeepingSession, job_of
from tests.volumes import writes_within

pytestmark = pytest.mark.root


def held() -> tuple[list[str], set[str]]:
    """What this process has open, and its children."""
    gc.collect()
    opened = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(str(entry.readlink()))
    children = set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return sorted(path.partition(":[")[0] for path in opened), children


@pytest.mark.parametrize("phase", [*phase_order("premapped", "after-split"), "none"])
def test_no_descriptor_and_no_process_is_left(embedded: EmbeddedMirror, state: Path, phase: str) -> None:
    class Failing(KeepingSession):
        def enter(self, name: str) -> None:
            if name == phase:
                raise SplitreelError("told to fail")

    job = job_of(embedded, "null:")
    KeepingSession(job, state, lambda event: None).run()
    before = held()
    if phase == "none":
        KeepingSession(job, state, lambda event: None).run()
    else:
        with pytest.raises(SplitreelError, match="told to fail"):
            Failing(job, state, lambda event: None).run()
    assert held() == before


def test_a_tape_that_fills_under_a_session_is_exit_code_4_and_the_mirror_is_put_back(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mount, tape = embedded.mount_point, f"file:{tmp_path}/tape?size=12M&ew=1M"
    for number in range(24):
        (Path(mount) / f"blob{number:02}").write_bytes(os.urandom(1 << 20))
    mirror = ", ".join(f'{key} = "{value}"' for key, value in embedded.settings().items())
    (tmp_path / "job.toml").write_text(
        f"""
        [job.nightly]
        tape = "{tape}"
        block_size = 65536
        segment_size = 2097152
        mirror = {{ {mirror} }}
        quiesce = [ {{ type = "sqlite", database = "{mount}/app.db" }}, {{ type = "fsfreeze", mount = "{mount}" }} ]
        """
    )
    assert main(["--state", str(state), "backup", str(tmp_path / "job.toml")]) == 4
    assert "tape" in capsys.readouterr().err
    assert writes_within(Path(mount), 5)
    assert journal.histories(state)[0].finished
    there = embedded.mirror()
    assert there.is_in_sync()
    there.close()
    with Catalog(state) as catalog:
        kept = catalog.backups()[-1]
        segments = catalog.segments(catalog.volume(kept.id)[0])
    with open_drive(tape) as drive:
        verdict = verify(drive)
    assert (kept.state, verdict.segments) == ("incomplete", len(segments))
    assert len(segments) > 1
    assert {number for number, _, _ in verdict.findings} == {0}


DIE_AT_THE_END = """
import json, os, signal, sys
from pathlib import Path
from splitreel.backup import closing
from splitreel.config import Job
from splitreel.session import Session

closing.write = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
Session(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]), lambda event: None).run()
"""


def test_killed_behind_the_last_segment_is_gone_on_with_too(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    job = job_of(embedded, f"file:{tmp_path}/tape")
    root = Path(__file__).parents[2]
    died = subprocess.run(
        [sys.executable, "-c", DIE_AT_THE_END, json.dumps(job.record()), str(state)],
        check=False,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        capture_output=True,
        text=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    (done,) = resume(state)
    assert any("the backup is complete" in line for line in done.lines), done.lines
    with open_drive(job.tape) as drive:
        assert verify(drive).sound
    with Catalog(state) as catalog:
        assert catalog.backup().state == "complete"


def test_a_truncated_image_is_refused_before_the_tape_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ext4_images.need_ext4()
    image = ext4_images.make_image(tmp_path / "disk.img", 32)
    with ext4_images.mounted(image) as point:
        (point / "file").write_bytes(os.urandom(1 << 20))
    os.truncate(image, 20 << 20)
    state, tape = tmp_path / "state", tmp_path / "tape"
    assert main(["--state", str(state), "backup", "--device", str(image), "--tape", f"file:{tape}"]) == 1
    assert "shorter than the file system" in capsys.readouterr().err
    assert not tape.exists() or tape.stat().st_size == 0
    loops = subprocess.run(["losetup", "-j", image], capture_output=True, text=True, check=True)
    assert loops.stdout == ""
