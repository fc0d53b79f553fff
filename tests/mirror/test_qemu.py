"""The QEMU mirror, on a real qemu-storage-daemon: a split is the primary at one instant, a rejoin loses no write."""

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from splitreel.errors import MirrorError
from splitreel.mirror import create
from splitreel.mirror.embedded import EmbeddedMirror
from splitreel.mirror.qemu import MARKER, MIRROR_JOB, QemuMirror
from splitreel.quiesce.fsfreeze import FsFreeze
from tests.volumes import writes_within

pytestmark = pytest.mark.root


@contextmanager
def frozen(embedded: EmbeddedMirror) -> Iterator[None]:
    quiescer = FsFreeze(embedded.mount_point)
    quiescer.prepare()
    try:
        quiescer.quiesce()
        yield
    finally:
        quiescer.unquiesce()
        quiescer.close()


@contextmanager
def load(embedded: EmbeddedMirror) -> Iterator[Callable[[], int]]:
    """A writer of 8 KiB pieces at random places, synced now and then; yields its count."""
    stop, count = threading.Event(), [0]

    def write() -> None:
        places = random.Random(1)
        descriptor = os.open(Path(embedded.mount_point) / "load", os.O_RDWR | os.O_CREAT)
        os.ftruncate(descriptor, 32 << 20)
        while not stop.is_set():
            os.pwrite(descriptor, os.urandom(8192), places.randrange(0, 4096) * 8192)
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


def identical(embedded: EmbeddedMirror) -> bool:
    return subprocess.run(["cmp", embedded.primary_image, embedded.mirror_image], check=False).returncode == 0


def hold_unused() -> AbstractContextManager[None]:
    raise AssertionError("this rejoin must not hold the database")


def in_sync(embedded: EmbeddedMirror, **changes: str) -> QemuMirror:
    mirror = create({**embedded.settings(), **changes})
    assert isinstance(mirror, QemuMirror)
    mirror.check()
    mirror.establish()
    mirror.wait_in_sync(60)
    return mirror


def split_and_compare(embedded: EmbeddedMirror, mirror: QemuMirror) -> None:
    mirror.flush()
    with frozen(embedded):
        image = mirror.split()
        assert image.path == str(embedded.mirror_image)
        assert identical(embedded)
    assert mirror.state() == "split"


def test_split_and_rejoin_under_load_without_a_second_hold(embedded: EmbeddedMirror) -> None:
    mirror = in_sync(embedded)
    with load(embedded) as count:
        for _ in range(4):
            split_and_compare(embedded, mirror)
            before = count()
            time.sleep(0.3)
            assert count() > before
            dirty = mirror.dirty_bytes()
            assert dirty is not None
            assert dirty > 0
            mirror.rejoin(hold_unused)
            assert mirror.is_in_sync()
            assert mirror.dirty_bytes() is None
            resynced = mirror.resynced_bytes()
            assert resynced is not None
            assert dirty <= resynced < 256 << 20
        split_and_compare(embedded, mirror)
    mirror.close()


def test_rejoin_of_a_single_node_under_a_short_hold(embedded: EmbeddedMirror) -> None:
    mirror = in_sync(embedded, lower="")
    held = []

    @contextmanager
    def hold() -> Iterator[None]:
        held.append(True)
        with frozen(embedded):
            yield

    with load(embedded):
        for _ in range(2):
            split_and_compare(embedded, mirror)
            time.sleep(0.3)
            mirror.rejoin(hold)
        split_and_compare(embedded, mirror)
    assert held == [True, True]
    mirror.close()


@pytest.mark.parametrize("stage", ["marked", "started", "paused", "copied"])
def test_a_rejoin_that_died_anywhere_is_taken_up(embedded: EmbeddedMirror, stage: str) -> None:
    mirror = in_sync(embedded)
    with load(embedded):
        split_and_compare(embedded, mirror)
        time.sleep(0.2)
        mirror._add_bitmap(MARKER)
        if stage != "marked":
            mirror._start("none")
        if stage in ("paused", "copied"):
            mirror._qmp.command("block-job-pause", device=MIRROR_JOB)
        if stage == "copied":
            mirror._until(lambda: not (mirror._job(MIRROR_JOB) or {}).get("busy"), "busy")
            mirror._pass(mirror._lower, mirror._second_target())
        mirror.close()
        again = embedded.mirror()
        assert again.state() == "rejoining"
        with pytest.raises(MirrorError, match="interrupted"):
            again.establish()
        again.rejoin(hold_unused)
        assert again.state() == "in-sync"
        split_and_compare(embedded, again)
        again.close()


def test_a_session_that_died_before_its_split_leaves_nothing_to_repair(embedded: EmbeddedMirror) -> None:
    mirror = in_sync(embedded)
    mirror.flush()
    mirror.close()
    again = in_sync(embedded)
    assert again.state() == "in-sync"
    assert again.dirty_bytes() is None
    split_and_compare(embedded, again)
    again.close()


def test_a_forgotten_mirror_is_copied_in_full(embedded: EmbeddedMirror) -> None:
    mirror = in_sync(embedded)
    split_and_compare(embedded, mirror)
    mirror.forget()
    assert mirror.state() == "none"
    with pytest.raises(MirrorError, match="no record"):
        mirror.rejoin(hold_unused)
    (Path(embedded.mount_point) / "more").write_bytes(os.urandom(1 << 20))
    mirror.establish()
    mirror.wait_in_sync(60)
    split_and_compare(embedded, mirror)
    mirror.close()


def test_establish_of_a_split_mirror_is_refused(embedded: EmbeddedMirror) -> None:
    mirror = in_sync(embedded)
    split_and_compare(embedded, mirror)
    with pytest.raises(MirrorError, match="is split"):
        mirror.establish()
    mirror.close()


def test_a_split_of_a_job_that_failed_is_no_copy(embedded: EmbeddedMirror) -> None:
    mirror = in_sync(embedded)
    mirror.flush()
    mirror._qmp.command("block-job-cancel", device=MIRROR_JOB, force=True)
    mirror._ended(MIRROR_JOB, 10)
    with pytest.raises(MirrorError):
        mirror.split()
    mirror.close()


def test_wrong_nodes_and_images_are_refused_before_anything_is_done(embedded: EmbeddedMirror) -> None:
    for changes, reason in (
        ({"primary": "nope"}, "no block node 'nope'"),
        ({"image": "/nonexistent.img"}, "cannot be read"),
        ({"qmp": "/nonexistent.sock"}, "No such file"),
    ):
        mirror = create({**embedded.settings(), **changes})
        with pytest.raises(MirrorError, match=reason):
            mirror.check()
        mirror.close()
    mirror = embedded.mirror()
    assert mirror.state() == "none"
    mirror.close()


def test_another_volume_than_the_primary_s_is_refused(embedded: EmbeddedMirror, tmp_path: Path) -> None:
    """By the UUIDs of both file systems, before anything is held; and an image that is itself the primary."""
    mirror = in_sync(embedded)
    mirror.check_primary(embedded.device)
    other = tmp_path / "other.img"
    with other.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", other], check=True)
    with pytest.raises(MirrorError, match="holds another file system"):
        mirror.check_primary(str(other))
    with pytest.raises(MirrorError, match="is the primary itself"):
        mirror.check_primary(str(embedded.mirror_image))
    mirror.close()


def test_an_image_that_somebody_else_has_is_refused(embedded: EmbeddedMirror) -> None:
    attach = ["losetup", "--show", "-r", "-f", str(embedded.mirror_image)]
    loop = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    mirror = embedded.mirror()
    try:
        with pytest.raises(MirrorError, match=f"in use: attached to {loop}"):
            mirror.check()
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
        mirror.close()


def test_what_a_rejoin_costs_is_told(embedded: EmbeddedMirror) -> None:
    for changes, word in (({}, "nothing is held"), ({"lower": ""}, "frozen once more")):
        mirror = create({**embedded.settings(), **changes})
        assert word in mirror.cost()
        assert str(256 << 20) in mirror.cost()
        mirror.close()


def test_another_process_can_take_the_volume_down(embedded: EmbeddedMirror) -> None:
    assert writes_within(Path(embedded.mount_point), 5)
    found = EmbeddedMirror.attach(embedded.directory)
    pids = list(found._pids.values())
    assert len(pids) == 2
    found.stop()
    assert not Path(embedded.mount_point).joinpath("lost+found").exists()
    for process in embedded._processes:
        assert process.wait(5) is not None
    with pytest.raises(MirrorError, match="no embedded"):
        EmbeddedMirror.attach(embedded.directory)
    embedded.device = ""
