"""Sessions over a volume inside the mirror: a partition of it, or one that is backed up as one file."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from splitreel import session
from splitreel.__main__ import main
from splitreel.config import ConfigError, Job, parse
from splitreel.drive import open_drive
from splitreel.errors import NotFound
from splitreel.restore import restore
from splitreel.session.resume import resume
from tests.session.test_tape import DIE_WHILE_WRITING
from tests.stack.fixture import unpack
from tests.stack.parts import MEGABYTE, content, partitioned, run
from tests.support import need_programs

ROOT = Path(__file__).parents[2]
SIZES = {"block_size": 65536, "segment_size": 2 * MEGABYTE, "sync_segments": 1}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk whose second partition holds an ext4 with eight files of a megabyte."""
    need_programs("fdisk", "mke2fs")
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(8):
        (tree / f"file{number}").write_bytes(os.urandom(MEGABYTE))
    made = tmp_path / "ext4"
    run("mke2fs", "-q", "-t", "ext4", "-d", tree, made, "24M")
    path = partitioned(tmp_path / "disk", "label: gpt\nstart=2048, size=2048\nstart=8192, size=49152\n")
    with path.open("r+b") as file:
        file.seek(8192 * 512)
        file.write(made.read_bytes())
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def job_of(image: Path, tape: Path, **more: Any) -> Job:
    table = {"tape": f"file:{tape}", "mirror": {"type": "static", "image": str(image)}, **SIZES, **more}
    return parse({"job": {"nightly": table}}).job()


def restored(tape: Path, to: Path) -> dict[str, bytes]:
    with open_drive(f"file:{tape}") as drive:
        assert restore(drive, to).complete
    return {path.name: path.read_bytes() for path in to.iterdir() if path.is_file()}


@pytest.mark.parametrize("order", ["premapped", "conventional", "postsplit"])
def test_a_partition_is_backed_up_in_every_order(disk: Path, state: Path, tmp_path: Path, order: str) -> None:
    done = session.run(job_of(disk, tmp_path / "tape", volume="2", order=order), state=state)
    tree = {path.name: path.read_bytes() for path in (tmp_path / "tree").iterdir()}

    assert done.backup is not None and done.backup.state == "complete"
    assert restored(tmp_path / "tape", tmp_path / "to") == tree


@pytest.mark.parametrize("raw", [False, True])
def test_a_session_that_was_killed_finds_the_same_volume_again(
    disk: Path, state: Path, tmp_path: Path, raw: bool
) -> None:
    job = job_of(disk, tmp_path / "tape", volume="2", raw=raw)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", DIE_WHILE_WRITING, json.dumps(job.record()), str(state)]
    died = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    lines = [line for done in resume(state) for line in done.lines]

    assert any("the backup is complete" in line for line in lines), lines
    found = restored(tmp_path / "tape", tmp_path / "to")
    if raw:
        assert found == {"disk-2": content([disk], "2")}
    else:
        assert found == {path.name: path.read_bytes() for path in (tmp_path / "tree").iterdir()}


def damage_inode(disk: Path, name: str) -> None:
    """One byte of a file's inode on the second partition, whose checksum does not match then."""
    told = subprocess.run(
        ["debugfs", "-R", f"imap /{name}", f"{disk}?offset={8192 * 512}"], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"block (\d+), offset 0x([0-9a-f]+)", told)
    assert found is not None, told
    with disk.open("r+b") as file:
        file.seek(8192 * 512 + 1024 + 0x18)
        size = 1024 << int.from_bytes(file.read(4), "little")
        file.seek(8192 * 512 + int(found[1]) * size + int(found[2], 16) + 0x10)
        file.write(b"\xa5")


def test_what_is_damaged_is_named_and_exit_code_3_also_of_a_resume(
    disk: Path, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tape lacks a file: neither the session nor the resume that ends it may pass for whole."""
    damage_inode(disk, "file7")
    job = job_of(disk, tmp_path / "tape", volume="2")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", DIE_WHILE_WRITING, json.dumps(job.record()), str(state)]
    died = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr

    assert main(["--state", str(state), "resume"]) == 3
    told = capsys.readouterr().out
    assert "backup is complete" in told
    assert "damaged: inode" in told
    assert "left out: file7" in told

    again = session.run(job_of(disk, tmp_path / "tape", volume="2", overwrite=True), state=state)
    assert any(note.startswith("damaged: inode") for note in again.notes), again.notes


def test_a_raw_volume_group_over_three_disks(state: Path, tmp_path: Path) -> None:
    disks = unpack("lvm", tmp_path / "disks")
    others = [str(path) for path in disks[1:]]
    done = session.run(
        job_of(disks[0], tmp_path / "tape", volume="vg0/str", raw=True, label="RAW001", **{"with": others}), state=state
    )

    assert done.backup is not None and done.backup.volume == "RAW001"
    assert restored(tmp_path / "tape", tmp_path / "to") == {"vg0-str": content(disks, "vg0/str")}


def test_a_volume_that_is_not_there_stops_before_anything_is_begun(disk: Path, state: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has no partition 7"):
        session.run(job_of(disk, tmp_path / "tape", volume="7"), state=state)
    assert not (tmp_path / "tape").exists()


def test_paths_in_a_raw_volume_are_a_mistake(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are no paths in it"):
        job_of(disk, tmp_path / "tape", raw=True, paths=["x"])


def test_further_devices_are_found_from_the_configurations_directory(tmp_path: Path) -> None:
    table = {"tape": "null:", "mirror": {"type": "static", "image": "a"}, "with": ["b", "/c"]}
    job = parse({"job": {"nightly": table}}, str(tmp_path / "job.toml")).job()

    assert job.others == [str(tmp_path / "b"), "/c"]
    with pytest.raises(ConfigError, match="is not a list of paths"):
        parse({"job": {"nightly": {**table, "with": "b"}}})
