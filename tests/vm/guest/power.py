"""power is a session that a power loss ends, and the next start after it: two boots on the same disks.

tests/vm/test_power.py runs one test of it in each boot, and pulls the plug when the first says that its backup begins.
"""

import os
import time
from pathlib import Path

from splitreel import config, mirror, session

from . import lvm_volume, parts, writing

MOUNT, KEPT = Path("/srv/db"), Path("/srv/kept")
STATE, TAPE, LOG = KEPT / "state", KEPT / "tape", KEPT / "log"
SIGNAL = Path("/run/host/split")


class Interrupted(session.Session):
    """A session that stops where the mirror is split and nothing is on tape yet."""

    def enter(self, phase: str) -> None:
        """Say so, and wait for the end, while the database is written to."""
        if phase == "backup":
            writing.wait_for_more(LOG)
            SIGNAL.touch()
            time.sleep(600)


def job() -> config.Job:
    """SQLite on the mirrored volume; the tape on a disk of its own, as the catalog."""
    table = {
        "tape": f"file:{TAPE}",
        "deadline_ms": lvm_volume.PATIENCE_S * 1000,
        "mirror": lvm_volume.opened("guest/data", MOUNT).settings(),
        "quiesce": [
            {"type": "sqlite", "database": f"{MOUNT}/app.db"},
            {"type": "fsfreeze", "mount": str(MOUNT)},
        ],
    }
    return config.parse({"job": {"nightly": table}}).job()


def test_until_the_power_goes() -> None:
    """It does not return."""
    *legs, kept = parts.disks(3)
    parts.run("mkfs.ext4", "-q", kept)
    KEPT.mkdir(parents=True)
    parts.run("mount", "-o", "sync", kept, str(KEPT))
    STATE.mkdir()
    with lvm_volume.mirrored(MOUNT, legs), writing.committing(MOUNT / "app.db", LOG):
        os.sync()
        Interrupted(job(), STATE, lambda _: None).run()


def test_after_the_power_is_back() -> None:
    """Resume merges the leg; nothing acknowledged is lost; the legs are equal; the next session is a whole one."""
    lvm_volume.prepare()
    kept = parts.own_disks()[2]
    KEPT.mkdir(parents=True)
    MOUNT.mkdir(parents=True)
    parts.run("mount", kept, str(KEPT))
    parts.run("vgchange", "-q", "-ay", "guest")
    parts.run("mount", "/dev/mapper/guest-data", str(MOUNT))
    one = mirror.create({"type": "lvm", "lv": "guest/data"})
    assert one.state() == "split"
    told = parts.run(*parts.SPLITREEL, "resume", "--state", str(STATE))
    assert "the mirror was split; it has rejoined" in told and "nothing was written to tape" in told
    assert one.state() == "in-sync"
    assert lvm_volume.opened("guest/data", MOUNT).mismatches() == 0
    acknowledged = {commit.number for commit in writing.read_log(LOG)}
    assert acknowledged and acknowledged <= writing.numbers(MOUNT / "app.db")
    result = session.run(job(), state=STATE)
    restored = Path("/srv/restored")
    parts.run(*parts.SPLITREEL, "restore", "--state", str(STATE), "--tape", f"file:{TAPE}", "--to", str(restored))
    assert result.problems == 0 and acknowledged <= writing.numbers(restored / "app.db")
    os.sync()
    assert lvm_volume.opened("guest/data", MOUNT).mismatches() == 0
