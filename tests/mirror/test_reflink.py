"""The reflink mirror on XFS and btrfs, on loop devices: a clone is the image at one instant; unsafe set-ups refused."""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from splitreel.errors import MirrorError, UsageError
from splitreel.mirror import create
from splitreel.mirror.reflink import ReflinkMirror
from splitreel.quiesce.fsfreeze import FsFreeze
from splitreel.session import examine
from tests.session.parts import KeepingSession, Kept, make_database, sound, transactions
from tests.support import need_programs, need_root, unmount
from tests.volumes import thaw

EAGER = "lazy_itable_init=0,lazy_journal_init=0"  # else the kernel writes behind the test's back

pytestmark = pytest.mark.root


@contextmanager
def mounted(folder: Path, name: str, size: int, *mkfs: str) -> Iterator[Path]:
    """A file system in ``folder/name.img``, on a loop device, mounted at ``folder/name``."""
    image, mount = folder / f"{name}.img", folder / name
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*mkfs, image], check=True, capture_output=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        yield mount
    finally:
        thaw(mount)
        unmount(mount)


@pytest.fixture(params=[("mkfs.xfs", "-q", "-m", "reflink=1"), ("mkfs.btrfs", "-q")], ids=["xfs", "btrfs"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An ext4 in volume.img, which lies on a file system that shares blocks; yields its mount point."""
    need_root()
    need_programs(request.param[0], "mkfs.ext4", "e2fsck")
    with (
        mounted(tmp_path, "host", 600 << 20, *request.param) as host,
        mounted(host, "volume", 64 << 20, "mkfs.ext4", "-q", "-F", "-E", EAGER) as volume,
    ):
        yield volume


def of(mount: Path, **changes: object) -> ReflinkMirror:
    source = mount.parent / "volume.img"
    settings = {"type": "reflink", "source": str(source), "image": str(mount.parent / "clone.img"), **changes}
    mirror = create(settings)
    assert isinstance(mirror, ReflinkMirror)
    return mirror


def device_of(mount: Path) -> str:
    command = ["findmnt", "-n", "-o", "SOURCE", str(mount)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_clone_is_the_image_at_one_instant(inner: Path) -> None:
    """It equals the frozen image byte for byte, is consistent, and counts what was written since."""
    (inner / "file").write_bytes(os.urandom(8 << 20))
    mirror = of(inner)
    mirror.check()
    mirror.check_primary(device_of(inner))
    mirror.establish()
    mirror.flush()
    assert mirror.is_in_sync()
    quiescer = FsFreeze(str(inner))
    quiescer.prepare()
    quiescer.quiesce()
    try:
        image = mirror.split()
        source = inner.parent / "volume.img"
        assert subprocess.run(["cmp", source, image.path], check=False).returncode == 0
    finally:
        quiescer.unquiesce()
        quiescer.close()
    assert mirror.state() == "split"
    assert mirror.dirty_bytes() < 1 << 20
    (inner / "file").write_bytes(random.Random(1).randbytes(8 << 20))
    os.sync()
    (inner / "file").unlink()
    assert subprocess.run(["e2fsck", "-fn", image.path], check=False, capture_output=True).returncode == 0
    with pytest.raises(MirrorError, match="exists"):
        of(inner).establish()
    assert "on the primary's own disk" in mirror.cost()
    mirror.rejoin(nullcontext)
    assert (mirror.state(), mirror.resynced_bytes(), mirror.dirty_bytes()) == ("in-sync", 0, 0)
    assert not Path(image.path).exists()


def test_what_is_written_anew_is_counted(inner: Path) -> None:
    file = inner / "file"
    file.write_bytes(bytes(8 << 20))
    os.sync()
    mirror = of(inner)
    mirror.flush()
    mirror.split()
    before = mirror.dirty_bytes()
    with file.open("r+b") as writer:
        writer.write(b"x" * (3 << 20))
        os.fsync(writer.fileno())
    os.sync()
    after = mirror.dirty_bytes()
    assert before is not None and after is not None
    assert 3 << 20 <= after - before < 6 << 20
    mirror.rejoin(nullcontext)


def job(inner: Path, **mirror: object) -> "object":
    """A session's job over the inner volume."""
    from splitreel.config import parse  # noqa: PLC0415

    table = {
        "tape": "null:",
        "mirror": {
            "type": "reflink",
            "source": str(inner.parent / "volume.img"),
            "image": str(inner.parent / "clone.img"),
            **mirror,
        },
        "quiesce": [{"type": "sqlite", "database": f"{inner}/app.db"}, {"type": "fsfreeze", "mount": str(inner)}],
    }
    return parse({"job": {"nightly": table}}).job()


def test_sessions_under_load(inner: Path, tmp_path: Path) -> None:
    make_database(inner / "app.db")
    state = tmp_path / "state"
    state.mkdir()
    with transactions(str(inner), pause_s=0.001):
        for number in range(2):
            result = KeepingSession(job(inner), state, lambda _: None).run()
            assert isinstance(result.backup, Kept)
            sound(result.backup.files, tmp_path / f"copy{number}")
            assert result.resynced_bytes == 0
    assert not (inner.parent / "clone.img").exists()


def test_a_clone_on_what_will_be_frozen_is_refused(inner: Path, tmp_path: Path) -> None:
    make_database(inner / "app.db")
    state = tmp_path / "state"
    state.mkdir()
    with pytest.raises(MirrorError, match="another file system"):
        examine(job(inner, image=str(inner / "clone.img")), state)
    frozen = job(inner)
    frozen.quiesce[1]["mount"] = str(inner.parent)
    with pytest.raises(UsageError, match="which will be frozen"):
        examine(frozen, state)


def test_unsafe_set_ups_are_refused_by_name(inner: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="another file system"):
        of(inner, image=str(tmp_path / "clone.img")).check()
    with pytest.raises(MirrorError, match="may be written anew"):
        of(inner, room=1 << 40).check()
    with pytest.raises(MirrorError, match="no image file"):
        of(inner, source=device_of(inner)).check()
    with pytest.raises(MirrorError, match="No such file"):
        of(inner, source=str(tmp_path / "nothing")).check()
    with pytest.raises(MirrorError, match="does not lie in it"):
        of(inner).check_primary(device_of(inner.parent))
    clone = inner.parent / "clone.img"
    subprocess.run(["cp", "--reflink=always", inner.parent / "volume.img", clone], check=True)
    loop = subprocess.run(["losetup", "--show", "-r", "-f", clone], check=True, capture_output=True, text=True)
    try:
        with pytest.raises(MirrorError, match="is in use: attached to /dev/loop"):
            of(inner).check()
    finally:
        subprocess.run(["losetup", "-d", loop.stdout.strip()], check=True)


def test_a_file_system_that_shares_no_blocks_is_refused(tmp_path: Path) -> None:
    need_root()
    need_programs("mkfs.xfs", "mkfs.ext4")
    kinds = (("ext", 64 << 20, ("mkfs.ext4", "-q", "-F")), ("xfs", 320 << 20, ("mkfs.xfs", "-q", "-m", "reflink=0")))
    for name, size, mkfs in kinds:
        with mounted(tmp_path, name, size, *mkfs) as host:
            (host / "volume.img").write_bytes(bytes(1 << 20))
            with pytest.raises(MirrorError, match="cannot share blocks") as caught:
                of(host / "volume").check()
            assert "reflink=1" in caught.value.advice
