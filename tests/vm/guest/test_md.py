"""The md mirror on a real RAID1 array: a split is the array at one instant, a rejoin copies what changed, no more."""

import fcntl
import os
import random
import re
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from splitreel.config import Job, parse
from splitreel.errors import MirrorError
from splitreel.mirror import create
from splitreel.mirror.md import MdMirror
from splitreel.quiesce.fsfreeze import FsFreeze
from splitreel.session.resume import resume
from tests.session.parts import KeepingSession, Kept, make_database, sound, transactions
from tests.session.test_resume import die_in

from .parts import disks, run, wait_until

ARRAY, MOUNT, MD = "/dev/md0", Path("/mnt/md"), Path("/sys/block/md0/md")
SIZE = 64 << 20
BLKROGET = 0x125E  # _IO(0x12, 94), linux/fs.h


@pytest.fixture(scope="module")
def members() -> Iterator[list[str]]:
    """An array of two of three disks with an ext4, mounted; its bitmap is cleared every second, the least there is."""
    run("modprobe", "-a", "raid1", "ext4")
    found = disks(3)
    options = ("--level=1", "--raid-devices=2", "--metadata=1.2", "--bitmap=internal", "--bitmap-chunk=64K")
    run("mdadm", "--create", ARRAY, "--run", f"--size={SIZE >> 10}", *options, *found[:2])
    (MD / "bitmap/time_base").write_text("1")
    run("mkfs.ext4", "-q", "-F", ARRAY)
    MOUNT.mkdir(exist_ok=True)
    run("mount", ARRAY, str(MOUNT))
    yield found
    run("umount", str(MOUNT))
    run("mdadm", "--stop", ARRAY)


def of(members: list[str]) -> MdMirror:
    mirror = create({"type": "md", "array": ARRAY, "member": members[1]})
    assert isinstance(mirror, MdMirror)
    return mirror


def in_sync(members: list[str]) -> MdMirror:
    mirror = of(members)
    mirror.check()
    mirror.check_primary(ARRAY)
    mirror.establish()
    mirror.wait_in_sync(60)
    assert mirror.state() == "in-sync"
    return mirror


@contextmanager
def frozen() -> Iterator[None]:
    quiescer = FsFreeze(str(MOUNT))
    quiescer.prepare()
    try:
        quiescer.quiesce()
        yield
    finally:
        quiescer.unquiesce()
        quiescer.close()


@contextmanager
def load() -> Iterator[Callable[[], int]]:
    """A writer of 8 KiB pieces at random places of 512 KiB, synced now and then; yields its count."""
    stop, count = threading.Event(), [0]

    def write() -> None:
        places = random.Random(1)
        descriptor = os.open(MOUNT / "load", os.O_RDWR | os.O_CREAT)
        while not stop.is_set():
            os.pwrite(descriptor, os.urandom(8192), places.randrange(0, 64) * 8192)
            count[0] += 1
            if count[0] % 8 == 0:
                os.fdatasync(descriptor)
        os.close(descriptor)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield lambda: count[0]
    finally:
        stop.set()
        thread.join(20)


def hold_unused() -> AbstractContextManager[None]:
    raise AssertionError("this rejoin must not hold the database")


def content(path: str, offset: int) -> bytes:
    """All of the array's size, past the page cache."""
    options = ("iflag=direct,skip_bytes,count_bytes", "bs=1M", "status=none")
    command = ["dd", f"if={path}", f"skip={offset}", f"count={SIZE}", *options]
    return subprocess.run(command, check=True, capture_output=True).stdout


def marked_as_mdadm_says(member: str) -> int:
    found = re.search(r"Bitmap : \d+ bits \(chunks\), (\d+) dirty", run("mdadm", "--examine-bitmap", member))
    assert found is not None
    return int(found[1]) * 65536


def differing_chunks() -> int:
    """What a scrub of the kernel's finds to differ, in sectors."""
    wait_until(lambda: (MD / "sync_action").read_text() == "idle\n", "idle")
    (MD / "sync_action").write_text("check")
    wait_until(lambda: (MD / "sync_action").read_text() == "idle\n", "the end of the scrub")
    return int((MD / "mismatch_cnt").read_text())


def test_cycles_under_load(members: list[str]) -> None:
    """Each split equals the frozen array byte for byte; what rejoins is a fraction of the array, and all of it."""
    mirror = in_sync(members)
    with load() as count:
        for _ in range(2):
            mirror.wait_in_sync(60)
            mirror.flush()
            assert mirror.is_in_sync()
            with frozen():
                image = mirror.split()
                assert (image.path, image.offset) == (members[1], 1 << 20)
                assert content(image.path, image.offset) == content(ARRAY, 0)
            assert mirror.state() == "split"
            before = count()
            wait_until(lambda before=before: count() > before + 50, "the writer goes on")
            mirror.rejoin(hold_unused)
            resynced = mirror.resynced_bytes()
            assert resynced is not None
            assert 8192 < resynced < SIZE // 2
            assert mirror.is_in_sync()
    assert differing_chunks() == 0
    mirror.close()


def test_what_is_marked_is_what_mdadm_counts(members: list[str]) -> None:
    mirror = in_sync(members)
    mirror.flush()
    with frozen():
        mirror.split()
    before = mirror.dirty_bytes()
    (MOUNT / "more").write_bytes(os.urandom(5 << 20))
    os.sync()
    dirty = mirror.dirty_bytes()
    assert dirty == marked_as_mdadm_says(members[0])
    assert before is not None and dirty is not None
    assert dirty - before >= 4 << 20
    assert f"now {dirty} of {SIZE} bytes" in mirror.cost()
    assert "1 of 2 members" not in mirror.cost()
    mirror.rejoin(hold_unused)
    assert mirror.resynced_bytes() <= dirty + (1 << 20)
    mirror.close()


def test_a_split_member_cannot_be_written_and_survives_a_reassembly(members: list[str]) -> None:
    """As after a power loss: the array comes up with what is fresh, and the member is still split."""
    mirror = in_sync(members)
    mirror.flush()
    with frozen():
        mirror.split()
    with open(members[1], "rb") as leg:
        (read_only,) = struct.unpack("i", fcntl.ioctl(leg, BLKROGET, bytes(4)))
    assert read_only == 1
    with pytest.raises(OSError), open(members[1], "r+b", buffering=0) as leg:
        leg.write(bytes(4096))
    mirror.close()
    run("umount", str(MOUNT))
    run("mdadm", "--stop", ARRAY)
    run("blockdev", "--setrw", members[1])
    wait_until(lambda: not MD.exists(), "the array is gone")
    run("mdadm", "--assemble", "--run", ARRAY, *members[:2])
    run("mount", ARRAY, str(MOUNT))
    assert mirror.state() == "split"
    with pytest.raises(MirrorError, match="split from it"):
        mirror.establish()
    mirror.rejoin(hold_unused)
    assert mirror.resynced_bytes() < SIZE // 2
    assert mirror.state() == "in-sync"


def test_a_split_that_died_half_way_is_taken_up(members: list[str]) -> None:
    mirror = in_sync(members)
    (MD / f"dev-{Path(members[1]).name}" / "state").write_text("faulty")
    assert mirror.state() == "split"
    with pytest.raises(MirrorError, match="has failed"):
        mirror.check()
    mirror.rejoin(hold_unused)
    assert mirror.is_in_sync()


def test_a_forgotten_member_is_copied_in_full(members: list[str]) -> None:
    mirror = in_sync(members)
    mirror.flush()
    with frozen():
        mirror.split()
    mirror.forget()
    assert mirror.state() == "none"
    with pytest.raises(MirrorError, match="does not belong"):
        of(members).establish()
    mirror.establish()
    assert mirror.state() in ("rejoining", "in-sync")
    mirror.wait_in_sync(60)
    assert differing_chunks() == 0
    mirror.close()


def test_unsafe_arrays_are_refused_by_name(members: list[str]) -> None:
    mirror = in_sync(members)
    with pytest.raises(MirrorError, match="does not lie on it"):
        mirror.check_primary(members[2])
    with pytest.raises(MirrorError, match="does not belong"):
        of([members[0], members[2]]).check()
    with pytest.raises(MirrorError, match="no running software RAID"):
        create({"type": "md", "array": members[0], "member": members[1]}).check()
    run("mdadm", "--grow", ARRAY, "--bitmap=none")
    with pytest.raises(MirrorError, match="no write-intent bitmap"):
        mirror.check()
    run("mdadm", "--grow", ARRAY, "--bitmap=internal", "--bitmap-chunk=64K")
    mirror.check()
    run("mdadm", ARRAY, "--fail", members[0])
    with pytest.raises(MirrorError, match="degraded"):
        mirror.check()
    run("mdadm", ARRAY, "--remove", members[0])
    run("mdadm", ARRAY, "--re-add", members[0])
    run("mdadm", ARRAY, "--add", members[2])
    mirror._await_whole(1e18, "", "")
    with pytest.raises(MirrorError, match="has a spare"):
        mirror.check()
    run("mdadm", ARRAY, "--remove", members[2])
    mirror.check()


def job() -> Job:
    """A job onto a database of the array's file system."""
    table = {
        "tape": "null:",
        "mirror": {"type": "md", "array": ARRAY, "member": "/dev/vdb"},
        "quiesce": [{"type": "sqlite", "database": f"{MOUNT}/app.db"}, {"type": "fsfreeze", "mount": str(MOUNT)}],
    }
    return parse({"job": {"nightly": table}}).job()


def test_sessions_under_load_and_one_that_dies(members: list[str], tmp_path: Path) -> None:
    """Backup, a session killed while split, resume, next backup: each copy of the database is sound."""
    make_database(MOUNT / "app.db")
    state = tmp_path / "state"
    state.mkdir()
    copies = []
    with transactions(str(MOUNT), pause_s=0.02):
        for number in range(2):
            if number == 1:
                die_in(job(), state, "check")
                (resumed,) = resume(state)
                assert any("it has rejoined" in line for line in resumed.lines)
            result = KeepingSession(job(), state, lambda _: None).run()
            assert isinstance(result.backup, Kept)
            copies.append(sound(result.backup.files, tmp_path / f"copy{number}"))
    assert copies == sorted(copies)
    assert differing_chunks() == 0
