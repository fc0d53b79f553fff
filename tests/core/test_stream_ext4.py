"""An ext4 file system with all that the kernel can put there, raw to tape, back through GNU tar: nothing is lost."""

import hashlib
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from splitreel.core.device import BlockDevice
from splitreel.core.plan import Plan
from splitreel.core.softdrive import SoftDrive
from splitreel.core.stream import FINISHED, StreamWriter
from splitreel.mapping import map_device
from tests import ext4_images as images
from tests.core.test_stream import tape_files
from tests.core.test_stream_reader import tape_of
from tests.support import need_programs

pytestmark = pytest.mark.root
HASHED = 16 << 20


def digest(name: str, folder: int) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(name: str, folder: int, path: str) -> dict[str, Any]:
    """What must survive of one name; times of symbolic links and sizes of directories do not."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    place = f"/proc/self/fd/{folder}/{name}"
    found: dict[str, Any] = {
        "mode": status.st_mode,
        "owner": (status.st_uid, status.st_gid),
        "xattrs": {n: os.getxattr(place, n, follow_symlinks=False) for n in os.listxattr(place, follow_symlinks=False)},
    }
    if stat.S_ISREG(status.st_mode):
        found |= {"size": status.st_size, "links": status.st_nlink, "mtime": status.st_mtime_ns}
        found["content"] = digest(name, folder) if status.st_size < HASHED else status.st_blocks < 10_000
    elif stat.S_ISLNK(status.st_mode):
        found["target"] = os.readlink(name, dir_fd=folder)
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        found["rdev"] = status.st_rdev
    return found


def tree(root: Path) -> dict[str, dict[str, Any]]:
    """Every name but sockets, which no tar holds, and paths that stock tools cannot reach."""
    found = {}
    for folder, directories, files, descriptor in os.fwalk(root):
        relative = os.path.relpath(folder, root)
        if len(os.fsencode(relative)) > 3500:
            directories.clear()
            continue
        for name in [*directories, *files]:
            path = f"{relative}/{name}".removeprefix("./")
            one = describe(name, descriptor, path)
            if not stat.S_ISSOCK(one["mode"]) and path != "lost+found":
                found[path] = one
    return found


def to_tape(image: Path, tape: Path, **options: Any) -> Plan:
    plan = Plan.build(map_device(image, frozen=True), **{"block_size": 65536, **options})
    assert plan.skipped == []
    with SoftDrive(tape) as drive, BlockDevice(image) as device:
        handle = tape_of(drive)
        for _ in range(2):
            handle.write(b"label")
        handle.filemarks(1)
        with StreamWriter(plan.map, device, plan, handle, ring_blocks=16) as stream:
            assert stream.run() == FINISHED
    return plan


@pytest.mark.parametrize(
    ("block_size", "options"),
    [(4096, {}), (1024, {"order": "inode"}), (4096, {"order": "physical", "segment_size": 2 << 20})],
)
def test_gnu_tar_brings_back_what_the_kernel_put_there(
    block_size: int, options: dict[str, Any], tmp_path: Path
) -> None:
    images.need_ext4()
    need_programs("tar")
    image = images.make_image(tmp_path / "image", 96, "-b", str(block_size), "-I", "256")
    target = images.make_image(tmp_path / "target", 96, "-b", "4096", "-I", "256")
    with images.mounted(image) as point:
        images.fill(point)
        expected = tree(point)
    plan = to_tape(image, tmp_path / "tape", **options)
    command = ["tar", "-xpf", "-", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*"]
    # A selective restore by stock tools; what lies deeper than PATH_MAX only splitreel can bring back.
    command += ["--wildcards", "--exclude=*ddd/0[0-9][0-9]ddd*"]
    with images.mounted(target) as point:
        for blocks in tape_files(tmp_path / "tape"):
            run = subprocess.run(command, input=b"".join(blocks), cwd=point, capture_output=True, check=False)
            assert run.returncode == 0, run.stderr.decode()[-3000:]
        got = tree(point)
        got = {path: one for path, one in got.items() if not path.startswith(".splitreel")}

    deep = {path for path in expected if path.count("ddd/0")}
    assert set(got) == set(expected) - deep
    assert {path: one for path, one in got.items() if one != expected[path]} == {}
    assert plan.totals["segments"] == len(tape_files(tmp_path / "tape"))


def test_a_device_of_4096_byte_blocks_is_read_through_the_bounce(tmp_path: Path) -> None:
    """Places on tape are multiples of 512: what the device cannot read to there goes the longer way."""
    images.need_ext4()
    need_programs("losetup")
    image = images.make_image(tmp_path / "image", 48, "-b", "4096", "-I", "256")
    with images.mounted(image) as point:
        for i in range(200):
            (point / f"f{i:03}").write_bytes(os.urandom(i * 97))
        (point / "large").write_bytes(os.urandom(3_000_001))
        expected = tree(point)
    command = ["losetup", "-f", "--show", "--sector-size", "4096", "--direct-io=on", os.fspath(image)]
    device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        with BlockDevice(device) as opened:
            assert opened.logical_block_size == 4096
        to_tape(Path(device), tmp_path / "tape")
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    out = tmp_path / "out"
    out.mkdir()
    for blocks in tape_files(tmp_path / "tape"):
        subprocess.run(["tar", "-xpf", "-"], input=b"".join(blocks), cwd=out, check=True, stderr=subprocess.DEVNULL)

    got = tree(out)
    assert {path: got[path]["content"] for path in expected} == {p: one["content"] for p, one in expected.items()}
