"""The mirror `lvm` on real device mapper: its whole life, under load, onto a tape of the Linux drivers."""

import errno
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

from splitreel import config, mirror, session
from splitreel.errors import MirrorError, UsageError
from splitreel.quiesce.fsfreeze import FsFreeze

from ... import postgres
from . import linux_tape, lvm_volume, parts, writing
from .lvm_volume import Volume

MOUNT = Path("/srv/db")
BLOCK = 4096


@pytest.fixture(scope="module")
def volume() -> Iterator[Volume]:
    """Two legs, and a disk that has none."""
    with lvm_volume.mirrored(MOUNT, parts.disks(3)) as made:
        yield made


def frozen_split(one: mirror.Mirror) -> mirror.SplitImage:
    """A split as a session does it, without the rest."""
    freeze = FsFreeze(str(MOUNT))
    freeze.prepare()
    one.flush()
    try:
        freeze.quiesce()
        return one.split()
    finally:
        freeze.unquiesce()
        freeze.close()


def refused(volume: Volume, **changes: str) -> str:
    """Why a mirror with these settings is refused."""
    with pytest.raises(MirrorError) as failure:
        mirror.create(volume.settings(**changes)).check()
    return str(failure.value)


def test_a_cycle_copies_back_what_changed_and_no_more(volume: Volume) -> None:
    """The leg holds the instant of the split and takes no writes; a rejoin copies a small part; the legs are equal."""
    one = mirror.create(volume.settings())
    one.check()
    one.check_primary(volume.device)
    one.establish()
    one.wait_in_sync(60)
    (MOUNT / "kept").write_bytes(b"before" * 100_000)
    image = frozen_split(one)
    assert one.state() == "split" and image == mirror.SplitImage("/dev/mapper/guest-data_rimage_1")
    with pytest.raises(OSError) as failure, open(image.path, "r+b", buffering=0) as leg:
        leg.write(bytes(BLOCK))
    assert failure.value.errno in (errno.EPERM, errno.EACCES)
    (MOUNT / "later").write_bytes(os.urandom(3 << 20))
    os.sync()
    dirty = one.dirty_bytes()
    assert dirty is not None and 3 << 20 <= dirty <= 24 << 20
    assert subprocess.run(["cmp", "-s", image.path, volume.device], check=False).returncode == 1
    one.rejoin(nullcontext)
    copied = one.resynced_bytes()
    print(f"{dirty} bytes marked, {copied} copied of {volume.report().size}")
    assert one.state() == "in-sync"
    assert copied is not None and 3 << 20 <= copied <= dirty + (8 << 20) < volume.report().size // 4
    assert volume.mismatches() == 0
    one.rejoin(nullcontext)  # harmless when nothing is split


def test_the_disk_says_which_leg_goes(volume: Volume) -> None:
    """The first leg as well as the last; the volume lives on the other one."""
    one = mirror.create(volume.settings(disk=volume.disks[0]))
    assert frozen_split(one).path == "/dev/mapper/guest-data_rimage_0"
    one.rejoin(nullcontext)
    assert one.is_in_sync() and volume.mismatches() == 0


def test_what_changed_is_copied_whatever_the_superblocks_say(volume: Volume, tmp_path: Path) -> None:
    """Merged by lvconvert alone, a leg split under load was taken for current: nothing was copied to it."""
    one = mirror.create(volume.settings())
    with writing.committing(MOUNT / "busy.db", tmp_path / "log"):
        for _ in range(3):
            frozen_split(one)
            writing.wait_for_more(tmp_path / "log")
            due = one.dirty_bytes()
            one.rejoin(nullcontext)
            copied = one.resynced_bytes()
            print(f"{due} bytes marked, {copied} copied")
            assert due and copied and due <= copied < volume.report().size // 4
    os.sync()
    assert volume.mismatches() == 0


def test_unsafe_set_ups_are_refused_by_name(volume: Volume) -> None:
    """Not raid1, no such volume or disk, another volume than the mounted one, a leg split off or in use."""
    parts.run("lvcreate", "-y", "-q", "-n", "plain", "-L", "4M", lvm_volume.GROUP)
    try:
        assert "its segment type is linear" in refused(volume, lv="guest/plain")
        assert "no such logical volume" in refused(volume, lv="guest/other")
        assert "named group/volume" in refused(volume, lv="/dev/guest/data")
        assert "no leg lies on /dev/nowhere" in refused(volume, disk="/dev/nowhere")
        with pytest.raises(MirrorError, match="does not lie on it"):
            mirror.create(volume.settings()).check_primary("/dev/mapper/guest-plain")
    finally:
        parts.run("lvremove", "-y", "-q", "guest/plain")
    one = mirror.create(volume.settings())
    image = frozen_split(one)
    assert "split off already" in refused(volume)
    with open(image.path, "rb"), pytest.raises(MirrorError, match="in use: a program has it open"):
        one.rejoin(nullcontext)
    parts.run("mount", "-o", "ro,norecovery", image.path, "/mnt")
    with pytest.raises(MirrorError, match="mounted at /mnt"):
        one.rejoin(nullcontext)
    parts.run("umount", "/mnt")
    one.rejoin(nullcontext)
    assert volume.mismatches() == 0


def test_what_lvm_writes_must_not_lie_on_what_is_frozen(volume: Volume, tmp_path: Path) -> None:
    """LVM keeps a copy of its metadata at every change: on the frozen file system it would wait for itself."""
    settings = Path("/etc/lvm/lvmlocal.conf")
    before = settings.read_text()
    settings.write_text(f'{before}\nbackup {{ backup=1 archive=1 archive_dir="{MOUNT}/archive" }}\n')
    try:
        assert f"{MOUNT}/archive" in mirror.create(volume.settings()).files()
        writing.create(MOUNT / "app.db")
        with pytest.raises(UsageError, match="which will be frozen"):
            session.examine(job(volume, f"file:{tmp_path}/t.tap"), tmp_path)
    finally:
        settings.write_text(before)


def test_a_copy_that_nobody_vouches_for_is_made_anew(volume: Volume) -> None:
    """A block that differs without LVM's knowledge stays wrong after a rejoin, and is right after ``forget``."""
    one = mirror.create(volume.settings())
    image = frozen_split(one)
    parts.run("blockdev", "--setrw", image.path)
    parts.run("dd", "if=/dev/urandom", f"of={image.path}", "bs=4096", "seek=20000", "count=1", "oflag=direct")
    one.rejoin(nullcontext)
    assert volume.mismatches() > 0
    assert "damaged: mismatches exist" in refused(volume)
    parts.run("lvchange", "--syncaction", "repair", volume.name)
    parts.wait_until(lambda: volume.report().action == "idle", "the repair does not end")
    volume.mismatches()
    image = frozen_split(one)
    parts.run("blockdev", "--setrw", image.path)
    parts.run("dd", "if=/dev/urandom", f"of={image.path}", "bs=4096", "seek=20000", "count=1", "oflag=direct")
    one.forget()
    one.establish()
    one.wait_in_sync(120)
    assert volume.mismatches() == 0


SQLITE = {"type": "sqlite", "database": f"{MOUNT}/app.db"}


def job(volume: Volume, tape: str, database: Mapping[str, str] = SQLITE) -> config.Job:
    """A job over the volume and one database on it."""
    table = {
        "tape": tape,
        "overwrite": True,
        "deadline_ms": lvm_volume.PATIENCE_S * 1000,
        "mirror": volume.settings(),
        "quiesce": [dict(database), {"type": "fsfreeze", "mount": str(MOUNT)}],
    }
    return config.parse({"job": {"nightly": table}}).job()


def test_sessions_under_load_onto_a_linux_tape(volume: Volume, tmp_path: Path) -> None:
    """Two backups one after the other while rows are committed: each restored and right, little copied back."""
    log, database = tmp_path / "log", MOUNT / "app.db"
    state = tmp_path / "state"
    state.mkdir()
    with linux_tape.attached(tmp_path / "tape") as drive, writing.committing(database, log):
        for number in (1, 2):
            since = time.monotonic_ns()
            result = session.run(job(volume, drive), state=state)
            print(
                f"session {number}: window {result.window_ms:.0f} ms, split {result.split_ms:.0f} ms, dirty"
                f" {result.dirty_bytes}, longest stall {writing.longest_stall(log, since) * 1000:.0f} ms"
            )
            assert result.problems == 0 and result.dirty_bytes is not None
            assert result.dirty_bytes < volume.report().size // 4
            restored = tmp_path / f"restored{number}"
            parts.run(*parts.SPLITREEL, "restore", "--state", str(state), "--tape", drive, "--to", str(restored))
            writing.wait_for_more(log)
            writing.prove(restored / "app.db", log, result.window_ns)
    assert volume.report().is_in_sync and volume.mismatches() == 0


def test_postgresql_under_load(volume: Volume, tmp_path: Path) -> None:
    """A hot backup while rows are inserted; what is restored starts, is whole, and has all that was acknowledged."""
    tape, restored = f"file:{tmp_path}/tape", Path("/srv/restored")
    with postgres.running(MOUNT / "pg", Path("/srv/run")) as server, postgres.inserting(server) as count:
        parts.wait_until(lambda: count() > 20, "no rows are inserted")
        before = count()
        database = {"type": "postgresql", "conninfo": server.conninfo, "run_as": postgres.USER}
        result = session.run(job(volume, tape, database), state=tmp_path)
        parts.wait_until(lambda: count() > before + 20, "no more rows are inserted")
    print(f"window {result.window_ms:.0f} ms, {result.dirty_bytes} bytes marked, {result.resynced_bytes} copied")
    told = parts.run(*parts.SPLITREEL, "restore", "--tape", tape, "--database", str(restored), "--drill", "--json")
    (drill,) = [line for line in map(json.loads, told.splitlines()) if line["kind"] == "drill"]
    assert drill["ok"], drill
    with postgres.running(restored / "data", Path("/srv/run2"), new=False) as server:
        rows, last = server.query("select count(*), max(n) from marker").split("|")
    assert rows == last and int(rows) >= before
    os.sync()
    assert volume.report().is_in_sync and volume.mismatches() == 0
