"""Every kind of change between map and split is told, and what comes back from the tape is what the mirror held."""

import mmap
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitreel import mapping, session
from splitreel.backup.run import Result
from splitreel.core.extent import ExtentMap
from splitreel.mirror.embedded import EmbeddedMirror
from tests import ext4_images, trees
from tests.session.parts import job_of
from tests.session.test_tape import restored
from tests.support import need_programs

pytestmark = pytest.mark.root

BLOCK = 4096
PIECES = 60  # extents: more than an inode holds, so that a change in the tree leaves the inode's own record alone


def write(path: Path, size: int, offset: int = 0) -> None:
    """Random bytes, past the page cache, so that their blocks are allocated at once."""
    memory = mmap.mmap(-1, size)
    memory.write(os.urandom(size))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    try:
        assert os.pwrite(descriptor, memory, offset) == size
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        memory.close()


def fallocate(path: Path, *options: str) -> None:
    subprocess.run(["fallocate", *options, path], check=True)


def prepare(root: Path) -> dict[str, int]:
    """Files as they are when the map is made; their inode numbers."""
    (root / "directory").mkdir()
    for name in ("grown", "truncated", "punched", "renamed", "recreated", "deleted", "bystander"):
        write(root / name, 100 * BLOCK)
    for i in range(40):
        write(root / "defragmented", BLOCK, i * BLOCK)
        write(root / "spacer", BLOCK, i * BLOCK)
    (root / "spacer").unlink()
    fallocate(root / "unwritten", "-l", str(2 * PIECES * BLOCK))
    for i in range(PIECES):
        fallocate(root / "unwritten", "-p", "-o", str((2 * i + 1) * BLOCK), "-l", str(BLOCK))
    with ext4_images.frozen(root):
        pass
    return {path.name: path.stat().st_ino for path in root.iterdir()}


def change(root: Path, inodes: dict[str, int]) -> None:
    """What happens between map and split."""
    write(root / "grown", 50 * BLOCK, 120 * BLOCK)
    os.truncate(root / "truncated", 5000)
    fallocate(root / "punched", "-p", "-o", str(3 * BLOCK), "-l", str(20 * BLOCK))
    (root / "renamed").rename(root / "directory" / "other name")
    (root / "deleted").unlink()
    subprocess.run(["e4defrag", root / "defragmented"], check=True, capture_output=True)
    write(root / "unwritten", BLOCK, 2 * BLOCK)
    for number in range(200):
        (root / "recreated").rename(root / "directory" / "spare") if number == 0 else (root / "recreated").unlink()
        (root / "directory" / "spare").unlink(missing_ok=True)
        write(root / "recreated", 70 * BLOCK)
        if (root / "recreated").stat().st_ino == inodes["recreated"]:
            return
    pytest.fail("the inode number never came again")


class Changing(session.Session):
    """A session under which files change after the map; it keeps a copy of the split mirror and what the check said."""

    copy: Path
    inodes: dict[str, int]
    changes: mapping.MapChanges

    def enter(self, phase: str) -> None:
        if phase == "quiesce":
            change(Path(self.job.mount), self.inodes)
        if phase == "backup":
            ext4_images.copy_sparse(Path(self.job.mirror["image"]), self.copy)

    def _compare(self, before: ExtentMap, after: ExtentMap) -> None:
        self.changes = mapping.diff(before, after)
        super()._compare(before, after)


def classes(changes: mapping.MapChanges, inode: int) -> set[str]:
    names = ("same", "extents_revised", "attributes_revised", "new", "gone", "renamed")
    return {name for name in names if np.isin(inode, getattr(changes, name))}


def test_each_change_between_map_and_split_is_told_and_right_on_tape(
    embedded: EmbeddedMirror, state: Path, tmp_path: Path
) -> None:
    need_programs("e4defrag", "fallocate")
    inodes = prepare(Path(embedded.mount_point))
    running = Changing(job_of(embedded, f"file:{tmp_path}/tape"), state, lambda event: None)
    running.copy, running.inodes = tmp_path / "copy.img", inodes

    done = running.run()

    assert isinstance(done.backup, Result) and done.backup.complete
    said = {name: classes(running.changes, inode) for name, inode in inodes.items()}
    for name in ("grown", "truncated", "punched", "defragmented", "unwritten"):
        assert said[name] == {"extents_revised"}, name
    assert said["renamed"] == {"attributes_revised", "renamed"}
    assert said["recreated"] == {"gone", "new"}
    assert "same" not in said["deleted"] and "gone" in said["deleted"]
    assert said["bystander"] == {"same"}
    to = restored(tmp_path / "tape", tmp_path / "to")
    with ext4_images.mounted(running.copy, "ro") as mirror:
        truth: dict[str, dict[str, Any]] = trees.tree(mirror)
    assert {"directory/other name", "recreated", "grown"} <= truth.keys()
    assert "deleted" not in truth and "renamed" not in truth
    assert trees.differences(truth, trees.tree(to, (".splitreel",))) == []
