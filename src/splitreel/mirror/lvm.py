"""lvm mirrors by a RAID1 logical volume of LVM. It creates, converts and activates none.

To split is ``lvconvert --splitmirrors 1 --trackchanges``: the leg gets a device of its own, which lvs calls read-only
and the kernel does not: it is made read-only here, never mounted, and read raw. The write-intent bitmap beside the
other legs notes what is written meanwhile; ``lvconvert --merge`` copies that and no more. Both are on disk, so a power
loss in between loses none of it; but where the power went, the kernel may find the bitmap older than the superblock
beside it, and forgets what it marks. So after any restart all of the leg is copied; a tag of the volume tells. While it
is split the volume has one leg less.

Source: lvmraid(7). LVM suspends the volume for the moment of each change: its programs are asked to end, and never
killed, since a killed one would leave it suspended.
"""

import fcntl
import os
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from splitreel.core.device import BlockDevice
from splitreel.errors import MirrorError
from splitreel.mirror import Hold, SplitImage, dmraid, inuse, lvmreport, mdbitmap
from splitreel.mirror.lvmreport import Leg, LogicalVolume

BLKROSET = 0x125D  # _IO(0x12, 93), linux/fs.h
SECTOR = 512
BITMAP_PLACE = 4096  # bytes into a leg's metadata volume: one block behind dm-raid's superblock, drivers/md/dm-raid.c
WRITTEN = 6  # field of /sys/block/*/stat: sectors written, Documentation/block/stat.rst
SPLIT_SECONDS = 4.0
GRACE_SECONDS = 2.0
NODE_SECONDS = 1.0
REJOIN_SECONDS = 24 * 3600.0
POLL_SECONDS = 0.1
SPLIT = "splitreel_split_"  # tag of a volume: under the kernel of this boot a leg is split off
OWED = "splitreel_rebuild"  # tag of a volume whose leg was merged, and is not yet copied as a whole
SEARCHED = "/usr/sbin:/sbin"  # besides the PATH, which a plain user's shell has without
PROGRAMS = ("lvs", "pvs", "lvconvert", "lvchange", "lvmconfig")
_NAME = "[A-Za-z0-9+_.][A-Za-z0-9+_.-]*"  # lvm(8), VALID NAMES
VOLUME = re.compile(f"{_NAME}/{_NAME}")


class LvmMirror:
    """The leg of the RAID1 volume ``lv`` ("group/volume") that lies on ``disk``, else its last. Use from one thread."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "lv": ("text", True),
        "disk": ("path", False),
        "split_timeout_s": ("number", False),
        "timeout_s": ("number", False),
    }

    def __init__(
        self, lv: str, disk: str = "", split_timeout_s: float = SPLIT_SECONDS, timeout_s: float = 60.0
    ) -> None:
        """``split_timeout_s`` bounds the split, ``timeout_s`` each other run of a program."""
        self.name = f"lvm {lv}"
        self.waiting = ""
        self._lv = lv
        self._disk = disk
        self._split_timeout_s = split_timeout_s
        self._timeout_s = timeout_s
        self._leg: Leg | None = None
        self._resynced: int | None = None
        self._unended: list[subprocess.Popen[str]] = []

    def check(self) -> None:
        """The volume is a whole raid1 of its own, nothing of it is split, and its legs lie on different disks."""
        for program in PROGRAMS:
            if _program(program) is None:
                raise MirrorError(self.name, f"{program} is not installed", "apt-get install lvm2")
        why, advice = lvmreport.unsafe(self._volume(), self._disk)
        if why:
            raise MirrorError(self.name, why, advice.replace("LV", self._lv))

    def check_primary(self, device: str) -> None:
        """What is mounted lies on this volume."""
        if f"dm-{self._volume().minor}" not in inuse.beneath(device):
            why = f"{device}, which is to be backed up, does not lie on it"
            raise MirrorError(self.name, why, "Correct `lv`, or `mount`.")

    def cost(self) -> str:
        """What a split and a rejoin take."""
        volume = self._volume()
        return (
            f"a rejoin copies the regions of {volume.region >> 10} KiB written since the split, of {volume.size} bytes;"
            f" while it is split {len(volume.legs) - 1} of {len(volume.legs)} legs hold the data"
        )

    def files(self) -> list[str]:
        """Where LVM keeps its locks, and copies of its metadata unless it is told not to."""
        text = self._run("lvmconfig", "--type", "full", "backup", "global/locking_dir", seconds=self._timeout_s)
        found = lvmreport.settings(text)
        wanted = [
            ("1", "locking_dir"),
            (found.get("backup", "1"), "backup_dir"),
            (found.get("archive", "1"), "archive_dir"),
        ]
        return [found[name] for used, name in wanted if used == "1" and name in found]

    def state(self) -> str:
        """As lvs says; an inactive volume is an error."""
        volume = self._volume()
        if not volume.is_active:
            raise MirrorError(self.name, "it is not active", f"lvchange -ay {self._lv}")
        return "rejoining" if volume.split_leg is None and self._is_owed() else volume.state

    def establish(self) -> None:
        """Nothing: LVM copies to a leg as soon as it is one. But what a crash kept from being copied is."""
        if self._volume().split_leg is None and self._is_owed():
            self._rebuild()
        why, advice = lvmreport.unsafe(self._volume(), self._disk)
        if why:
            raise MirrorError(self.name, why, advice.replace("LV", self._lv))

    def wait_in_sync(self, timeout_s: float) -> None:
        """Until nothing is copied, checked or missing."""
        self._await_in_sync(timeout_s, f"not in sync within {timeout_s:g} s", "Raise `sync_timeout_s`.")

    def is_in_sync(self) -> bool:
        """All legs hold the same and LVM does nothing with them."""
        return self._volume().is_in_sync

    def flush(self) -> None:
        """Choose the leg, and note by a tag under which kernel it will be split off."""
        self._leg = lvmreport.chosen(self._volume(), self._disk)
        if not self._is_noted():
            self._forget_split()
            self._change("--addtag", _split_tag())

    def split(self) -> SplitImage:
        """Split the leg off and make it read-only."""
        leg = self._leg
        if leg is None:
            raise MirrorError(f"{self.name}: split", "no leg was chosen", "Call flush() first.")
        disk = min(leg.disks)
        self._run(
            *("lvconvert", "--yes", "--splitmirrors", "1", "--trackchanges", self._lv, disk),
            seconds=self._split_timeout_s,
        )
        self._make_read_only(leg.path)
        return SplitImage(leg.path)

    def dirty_bytes(self) -> int | None:
        """What the write-intent bitmap marks while a leg is split off."""
        volume = self._volume()
        if volume.split_leg is None:
            return None
        kept = next(leg for leg in volume.legs if not leg.is_split)
        with BlockDevice(kept.metadata) as device:
            return mdbitmap.dirty_bytes(device, BITMAP_PLACE, kept.metadata)

    def resynced_bytes(self) -> int | None:
        """What was written to the leg while it rejoined, by the kernel's own count; new writes are among it."""
        return self._resynced

    def rejoin(self, hold: Hold) -> None:
        """Merge the leg; the volume is not held meanwhile. An error when somebody has the leg open."""
        volume = self._volume()
        leg = volume.split_leg
        if leg is None:
            if self._is_owed():
                self._rebuild()
            self._await_joined()
            return
        if not self._is_noted():
            self._rejoin_whole(volume, leg)
            return
        due, before = self.dirty_bytes() or 0, _written(leg)
        self._merge(volume, leg)
        self._await_joined()
        self._resynced = self._copied(leg.name, before)
        if self._resynced < due:
            why = f"of {due} bytes that had changed {self._resynced} were copied: old data may be read from {leg.name}"
            raise MirrorError(self.name, why, f"lvchange --rebuild {min(leg.disks)} {self._lv}")

    def forget(self) -> None:
        """Merge a leg that is split off, and have all of it copied anew whatever the bitmap says."""
        volume = self._volume()
        leg = volume.split_leg
        if leg is not None:
            self._rejoin_whole(volume, leg)

    def close(self) -> None:
        """Nothing is open."""

    def _volume(self) -> LogicalVolume:
        if not VOLUME.fullmatch(self._lv):
            raise MirrorError(self.name, "a volume is named group/volume", "Correct `lv`.")
        group, volume = self._lv.split("/")
        options = ["--all", "--reportformat", "json", "--units", "b", "--nosuffix", "--options"]
        text = self._run("lvs", *options, ",".join(lvmreport.FIELDS), group, seconds=self._timeout_s)
        return lvmreport.parse(text, group, volume)

    def _merge(self, volume: LogicalVolume, leg: Leg) -> None:
        self._refuse_users(leg)
        self._make_old(volume, leg)
        self._run("lvconvert", "--yes", "--merge", f"{self._lv.split('/')[0]}/{leg.name}", seconds=self._timeout_s)

    def _is_noted(self) -> bool:
        """Whether the bitmap knows all that was written since the leg left: no other kernel has started since.

        Nothing is cleared while a leg is missing. But a bitmap that is older than the superblock beside it (the power
        went) is marked as a whole, and as cleared now: the kernel then takes what it marks for old news and drops it.
        Seen on Linux 6.1: 768 sectors differed after the merge, though all of the volume had been marked.
        """
        return _split_tag() in self._tags()

    def _rejoin_whole(self, volume: LogicalVolume, leg: Leg) -> None:
        """Merge the leg and copy all of it. Until then it is marked write-mostly: nothing is read from it."""
        self._change("--addtag", OWED)
        self._change("--writemostly", f"{min(leg.disks)}:y")
        self._merge(volume, leg)
        self._rebuild()

    def _rebuild(self) -> None:
        self._await_joined()
        volume = self._volume()
        leg = lvmreport.chosen(volume, self._disk)
        if leg is None:
            raise MirrorError(self.name, f"no leg is on {self._disk}", "Correct `disk`.")
        disk = min(leg.disks)
        self._change("--writemostly", f"{disk}:y")
        self._change("--rebuild", disk)
        self._await_joined()
        self._change("--writemostly", f"{disk}:n")
        self._change("--deltag", OWED)
        self._forget_split()
        self._resynced = volume.size

    def _change(self, *options: str) -> None:
        self._run("lvchange", "--yes", *options, self._lv, seconds=self._timeout_s)

    def _is_owed(self) -> bool:
        return OWED in self._tags()

    def _tags(self) -> list[str]:
        printed = self._run("lvs", "--noheadings", "--options", "lv_tags", self._lv, seconds=self._timeout_s)
        return printed.strip().split(",")

    def _forget_split(self) -> None:
        for tag in self._tags():
            if tag.startswith(SPLIT):
                self._change("--deltag", tag)

    def _make_old(self, volume: LogicalVolume, leg: Leg) -> None:
        """See that dm-raid takes the leg for what it is, older than the others; why that needs care, see dmraid."""
        others = [one for one in volume.legs if one != leg]
        kept, ours = [self._superblock(one) for one in others], self._superblock(leg)
        if not dmraid.is_missed(kept, ours):
            self._run("lvchange", "--refresh", self._lv, seconds=self._timeout_s)
            kept = [self._superblock(one) for one in others]
        if not dmraid.recovers(kept, ours):
            dmraid.age(*self._superblock_place(leg))
            ours = self._superblock(leg)
        if not dmraid.recovers(kept, ours):
            why = f"dm-raid does not know that {leg.name} is missing: merged, old data would be read from it"
            raise MirrorError(self.name, why, f"lvchange --refresh {self._lv}, then run `splitreel resume`.")

    def _superblock(self, leg: Leg) -> dmraid.Superblock:
        return dmraid.parse(dmraid.read(*self._superblock_place(leg)), leg.name)

    def _superblock_place(self, leg: Leg) -> tuple[str, int]:
        """A disk, and the byte on it where the leg's superblock is: once split off it may have no device for it."""
        disk = leg.metadata_disk
        options = ["--reportformat", "json", "--units", "b", "--nosuffix", "--options", ",".join(lvmreport.DISK_FIELDS)]
        first, size = lvmreport.extents_of(self._run("pvs", *options, disk, seconds=self._timeout_s), disk)
        return disk, first + leg.metadata_extent * size

    def _await_joined(self) -> None:
        self._await_in_sync(REJOIN_SECONDS, "it does not come in sync", "See the kernel's log.")

    def _await_in_sync(self, timeout_s: float, late: str, advice: str) -> None:
        until = time.monotonic() + timeout_s
        while not (volume := self._volume()).is_in_sync:
            if volume.state == "none":
                raise MirrorError(self.name, f"it is degraded: {volume.health or volume.kind}", "See lvmraid(7).")
            self.waiting = f"{volume.action}, {volume.percent} % in sync"
            if time.monotonic() > until:
                raise MirrorError(self.name, f"{late} ({volume.action} at {volume.percent} %)", advice)
            time.sleep(POLL_SECONDS)
        self.waiting = ""

    def _refuse_users(self, leg: Leg) -> None:
        """Whoever has it open may have written to it, and LVM would not know."""
        users = inuse.users(leg.path)
        if users or leg.is_open:
            why = ", ".join(users) or "a program has it open"
            raise MirrorError(self.name, f"the split leg {leg.path} is in use: {why}", "End that use of it.")

    def _make_read_only(self, path: str) -> None:
        until = time.monotonic() + NODE_SECONDS
        while not Path(path).exists() and time.monotonic() < until:
            time.sleep(0.001)  # without udev's synchronisation the node may come later than lvconvert returns
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MirrorError(f"{self.name}: split", f"{path}: {error.strerror}") from error
        try:
            fcntl.ioctl(descriptor, BLKROSET, struct.pack("i", 1))
        except OSError as error:
            raise MirrorError(
                f"{self.name}: split", f"{path} stays writable: {error.strerror}", "Run as root."
            ) from error
        finally:
            os.close(descriptor)

    def _copied(self, name: str, before: tuple[int, int]) -> int:
        """What was written to the leg since; a merge may give it a device of its own, with counts of its own."""
        sequence, written = _written(next(leg for leg in self._volume().legs if leg.name == name))
        return written - before[1] if sequence == before[0] else written

    def _run(self, *command: str, seconds: float) -> str:
        """What a program printed; one that takes longer is asked to end."""
        what = f"{self.name}: {' '.join(command[:1])}"
        environment = {**os.environ, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
        try:
            process = subprocess.Popen(
                [_program(command[0]) or command[0], *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                cwd="/",
                env=environment,
            )
        except OSError as error:
            raise MirrorError(what, f"{error.strerror}", "apt-get install lvm2") from error
        try:
            printed, complaint = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._ask_to_end(process)
            raise MirrorError(
                what, f"it took longer than {seconds:g} s", "See whether another program locks LVM."
            ) from None
        if process.returncode != 0:
            lines = [line.strip() for line in complaint.splitlines() if "WARNING" not in line and line.strip()]
            raise MirrorError(what, f"it ended with status {process.returncode}: {' '.join(lines)[:500]}")
        return printed

    def _ask_to_end(self, process: "subprocess.Popen[str]") -> None:
        process.terminate()
        try:
            process.communicate(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._unended.append(process)


def _split_tag() -> str:
    return SPLIT + Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SEARCHED}")


def _written(leg: Leg) -> tuple[int, int]:
    """The number of this incarnation of the leg's device, and how many bytes were written to it."""
    node = Path(f"/sys/block/dm-{leg.minor}")
    sequence = node / "diskseq"
    number = int(sequence.read_text()) if sequence.exists() else 0
    return number, int((node / "stat").read_text().split()[WRITTEN]) * SECTOR
