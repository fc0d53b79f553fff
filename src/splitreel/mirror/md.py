"""md mirrors by a RAID1 array of Linux software RAID with a write-intent bitmap. It creates and assembles no array.

To split is to fail the configured member and to take it out, by two writes to sysfs: no program runs in the window. The
member is made read-only, never assembled nor mounted, and read from the byte where its superblock says that data begin.
The array's bitmap notes what is written meanwhile; ``mdadm --re-add`` copies that and no more. While it is split the
array has one member less. The bitmap stands on the other members, so a reboot in between loses nothing.

Sources: Documentation/admin-guide/md.rst, drivers/md/md.c (state_store) of the kernel; mdadm(8).
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import struct
import time
from pathlib import Path
from typing import ClassVar

from splitreel import script
from splitreel.core.device import BlockDevice
from splitreel.errors import Corrupt, MirrorError, SplitreelError
from splitreel.mirror import Hold, SplitImage, inuse, mdarray, mdbitmap
from splitreel.mirror.mdarray import Array
from splitreel.stack import md as superblocks
from splitreel.stack.medium import given

BLKROSET = 0x125D  # _IO(0x12, 93), linux/fs.h
SECTOR = 512
RUNNING = ("clean", "active", "write-pending", "active-idle")
SPLIT_SECONDS = 4.0
RETRY_SECONDS = 0.002  # a member is taken out when its last requests have ended
POLL_SECONDS = 0.1
REJOIN_SECONDS = 24 * 3600.0
FEW_MARKED = 100  # a hundredth of the array: so much may be marked at a split without waiting for bits to be cleared
WRITTEN = 6  # field of /sys/block/*/stat: sectors written, Documentation/block/stat.rst

Fault = tuple[bool, str, str]  # whether it is there, why that is wrong, what to do


class MdMirror:
    """The member ``member`` of the RAID1 array ``array``. Use from one thread."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "array": ("path", True),
        "member": ("path", True),
        "timeout_s": ("number", False),
    }

    def __init__(self, array: str, member: str, timeout_s: float = 30.0) -> None:
        """``timeout_s`` bounds each run of mdadm. Names below /dev/disk and /dev/md outlive a reboot."""
        self.name = f"md {array}"
        self.waiting = ""
        self._path = array
        self._leg = member
        self._timeout_s = timeout_s
        self._offset = 0
        self._resynced: int | None = None
        self._forgotten = False
        self._control = self._degraded = self._descriptor = -1

    def check(self) -> None:
        """The array is whole and has a bitmap, the member is one of it and has no other user."""
        if _mdadm() is None:
            raise MirrorError(self.name, "mdadm is not installed", "apt-get install mdadm")
        array, node = self._array(), self._node()
        if array.member(node) is None and self.state() == "none":
            advice = "Correct `array` and `member`; `mdadm --add` makes a new member, which is copied in full."
            raise MirrorError(self.name, f"{self._leg} does not belong to this array", advice)
        why, advice = unsafe(array, node)
        if why:
            raise MirrorError(self.name, why, advice)
        if others := inuse.users(self._leg, but=self._array_node()):
            raise MirrorError(self.name, f"{self._leg} is in use: {', '.join(others)}", "End that use of it.")
        if self._data_offset() != next(one.offset for one in array.members if one.node == node):
            raise MirrorError(self.name, f"{self._leg}: its superblock and the kernel differ in where data begin")

    def check_primary(self, device: str) -> None:
        """What is mounted lies on this array."""
        if self._array_node() not in inuse.beneath(device):
            why = f"{device}, which is to be backed up, does not lie on it"
            raise MirrorError(self.name, why, "Correct `array`, or `mount`.")

    def cost(self) -> str:
        """What a split and a rejoin take."""
        array, bitmap = self._array(), self._bitmap()
        return (
            f"a rejoin copies the chunks of {bitmap.chunk >> 10} KiB written since the split, and those marked at it"
            f" (now {self.dirty_bytes()} of {array.size} bytes); while it is split"
            f" {array.devices - array.degraded - 1} of {array.devices} members hold the data"
        )

    def files(self) -> list[str]:
        """None: members are devices."""
        return []

    def state(self) -> str:
        """As sysfs says of the member; of one that is not in the array, as its superblock says."""
        array = self._array()
        member = array.member(self._node())
        if member is None:
            return "split" if self._is_of_array(array) else "none"
        if "faulty" in member.states:
            return "split"
        if not member.in_sync:
            return "rejoining"
        return "in-sync" if array.action == "idle" else "copying"

    def establish(self) -> None:
        """Nothing, for a member; one that ``forget`` has made blank is added, and copied in full."""
        state = self.state()
        if state == "split":
            raise MirrorError(self.name, f"{self._leg} is split from it", "Run `splitreel resume`.")
        if state == "none" and not self._forgotten:
            raise MirrorError(self.name, f"{self._leg} does not belong to it", f"mdadm {self._path} --add {self._leg}")
        if state == "none":
            self._run_mdadm(self._path, "--add", self._leg)
            self._forgotten = False

    def wait_in_sync(self, timeout_s: float) -> None:
        """Until nothing is copied and no member missing; then until the bitmap is clear of what was copied last."""
        until = time.monotonic() + timeout_s
        self._await_whole(until, f"not in sync within {timeout_s:g} s", "Raise `sync_timeout_s`.")
        self._await_clear(until)

    def is_in_sync(self) -> bool:
        """The array is idle, no member is missing, and ours holds what it holds."""
        array = self._array()
        member = array.member(self._node())
        return array.is_whole and member is not None and member.in_sync and _good(array) > 1

    def flush(self) -> None:
        """Open what the split writes to, and read where the member's data begin."""
        self.close()
        self._offset = self._data_offset()
        folder = self._md()
        self._control = os.open(folder / f"dev-{self._node()}" / "state", os.O_RDWR | os.O_CLOEXEC)
        self._degraded = os.open(folder / "degraded", os.O_RDONLY | os.O_CLOEXEC)
        self._descriptor = os.open(self._leg, os.O_RDONLY | os.O_CLOEXEC)

    def split(self) -> SplitImage:
        """Fail the member, take it out, make it read-only. What was under way to it has ended then."""
        if os.pread(self._degraded, 16, 0).strip() != b"0":
            raise MirrorError(self.name, "it is degraded: a member failed", "See /proc/mdstat.")
        try:
            os.pwrite(self._control, b"faulty", 0)
            self._take_out(self._control)
            fcntl.ioctl(self._descriptor, BLKROSET, struct.pack("i", 1))
        except OSError as error:
            last = "it is the last member that works" if error.errno == errno.EBUSY else error.strerror
            raise MirrorError(f"{self.name}: split", f"{self._leg}: {last}") from error
        return SplitImage(self._leg, self._offset)

    def dirty_bytes(self) -> int | None:
        """What the bitmap marks; bits are cleared some seconds after a write, and not while a member is missing."""
        path, place = self._bitmap_place()
        with BlockDevice(path) as device:
            return mdbitmap.dirty_bytes(device, place, path)

    def resynced_bytes(self) -> int | None:
        """What was written to the member while it rejoined, by the kernel's own count; new writes are among it."""
        return self._resynced

    def rejoin(self, hold: Hold) -> None:
        """Re-add the member; nothing is held meanwhile."""
        array, node = self._array(), self._node()
        state = self.state()
        if state == "none":
            raise MirrorError(self.name, f"{self._leg} does not belong to it", f"mdadm {self._path} --add {self._leg}")
        if state == "split" and array.member(node) is not None:
            self._take_out_now()
        before = self._sectors_written()
        if state == "split":
            self._re_add()
        self._await_whole(time.monotonic() + REJOIN_SECONDS, "it does not come in sync", "See /proc/mdstat.")
        self._resynced = (self._sectors_written() - before) * SECTOR

    def forget(self) -> None:
        """Wipe the split member's superblock: with it, mdadm would re-add the member instead of copying all of it."""
        if self.state() != "split":
            return
        if self._array().member(self._node()) is not None:
            self._take_out_now()
        self._set_read_only(False)
        self._run_mdadm("--zero-superblock", self._leg)
        self._forgotten = True

    def close(self) -> None:
        """Close what ``flush`` opened."""
        for descriptor in (self._control, self._degraded, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._control = self._degraded = self._descriptor = -1

    # Waiting.

    def _await_whole(self, until: float, late: str, advice: str) -> None:
        while not (array := self._array()).is_whole:
            member = array.member(self._node())
            if array.action == "idle" and member is not None and member.in_sync:
                raise MirrorError(self.name, "it is degraded: another member is missing", "See /proc/mdstat.")
            if array.action == "idle" and (member is None or "faulty" in member.states):
                raise MirrorError(self.name, f"{self._leg} is missing or has failed", "See the kernel's log.")
            if time.monotonic() > until:
                raise MirrorError(self.name, late, advice)
            self.waiting = f"the array's {array.action}, see /proc/mdstat"
            time.sleep(POLL_SECONDS)
        self.waiting = ""

    def _await_clear(self, until: float) -> None:
        """A resync leaves its bits set for two to three rounds of clearing; split before, all of it is copied again."""
        array = self._array()
        patience = 3 * array.clearing_s + 1
        marked, since = self.dirty_bytes() or 0, time.monotonic()
        while marked * FEW_MARKED > array.size and time.monotonic() < min(until, since + patience):
            time.sleep(POLL_SECONDS)
            now = self.dirty_bytes() or 0
            if now < marked:
                marked, since = now, time.monotonic()

    # Taking out, and putting back.

    def _take_out(self, control: int) -> None:
        until = time.monotonic() + SPLIT_SECONDS
        while True:
            try:
                os.pwrite(control, b"remove", 0)
                return
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > until:
                    raise
            time.sleep(RETRY_SECONDS)

    def _take_out_now(self) -> None:
        """After a split that stopped half-way: the member has failed, and is still held by the array."""
        control = os.open(self._md() / f"dev-{self._node()}" / "state", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._take_out(control)
        except OSError as error:
            raise MirrorError(self.name, f"{self._leg} cannot be taken out: {error.strerror}") from error
        finally:
            os.close(control)

    def _re_add(self) -> None:
        self._set_read_only(False)
        try:
            self._run_mdadm(self._path, "--re-add", self._leg)
        except MirrorError as error:
            self._set_read_only(True)
            error.advice = f"See the kernel's log; `mdadm {self._path} --add {self._leg}` copies all of it."
            raise

    def _set_read_only(self, wanted: bool) -> None:
        descriptor = os.open(self._leg, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, BLKROSET, struct.pack("i", wanted))
        except OSError as error:
            raise MirrorError(self.name, f"{self._leg}: {error.strerror}", "Run as root.") from error
        finally:
            os.close(descriptor)

    def _run_mdadm(self, *arguments: str) -> None:
        script.output([_mdadm() or "mdadm", *arguments], self._timeout_s, MirrorError, f"{self.name}: {arguments[-2]}")

    def _sectors_written(self) -> int:
        return int(Path(f"/sys/class/block/{self._node()}/stat").read_text().split()[WRITTEN])

    # Looking.

    def _array(self) -> Array:
        return mdarray.read(self._md(), self.name)

    def _md(self) -> Path:
        return _sysfs(self._path, self.name) / "md"

    def _array_node(self) -> str:
        return _sysfs(self._path, self.name).name

    def _node(self) -> str:
        return _sysfs(self._leg, self.name).name

    def _data_offset(self) -> int:
        found = self._superblock(self._leg)
        if found is None:
            raise MirrorError(self.name, f"{self._leg} has no RAID superblock", "Correct `member`.")
        return found.data_offset

    def _superblock(self, path: str) -> superblocks.Superblock | None:
        """The kernel may be writing it: a checksum that does not match is looked at again."""
        with BlockDevice(path) as device:
            for _ in range(3):
                with contextlib.suppress(Corrupt):
                    return superblocks.find(given(device))
                time.sleep(POLL_SECONDS)
            return superblocks.find(given(device))

    def _is_of_array(self, array: Array) -> bool:
        """A member that is not in the array now, by the UUID of one that is."""
        try:
            ours, other = self._superblock(self._leg), self._superblock(self._other(array))
        except SplitreelError:
            return False
        return ours is not None and other is not None and ours.uuid == other.uuid

    def _other(self, array: Array) -> str:
        """The device of another member that holds the data."""
        for member in array.members:
            if member.in_sync and member.node != self._node():
                return "/dev/" + member.node.replace("!", "/")
        raise MirrorError(self.name, "it has no other member that holds the data", "See /proc/mdstat.")

    def _bitmap_place(self) -> tuple[str, int]:
        """A device with the array's bitmap, and the byte where it begins."""
        array = self._array()
        path = self._other(array)
        superblock = self._superblock(path)
        if superblock is None or not array.bitmap.lstrip("+-").isdecimal():
            raise MirrorError(self.name, f"its write-intent bitmap is not found on {path}")
        return path, superblock.place + int(array.bitmap) * SECTOR

    def _bitmap(self) -> mdbitmap.Bitmap:
        path, place = self._bitmap_place()
        with BlockDevice(path) as device:
            return mdbitmap.parse(device.pread(place, mdbitmap.SUPERBLOCK_SIZE), path)


def unsafe(array: Array, node: str) -> tuple[str, str]:
    """Why no session may use this array with the member of that kernel name, and what to do; "" when it may."""
    faults = _array_faults(array)
    member = array.member(node)
    if member is None:
        advice = "Run `splitreel resume`, or mdadm ARRAY --re-add MEMBER."
        faults.append((True, f"{node} is not in the array now, which is degraded", advice))
    else:
        faults += _member_faults(array, member)
    return next(((why, advice) for applies, why, advice in faults if applies), ("", ""))


def _array_faults(array: Array) -> list[Fault]:
    foreign = array.metadata.startswith("external") or array.bitmap_kind == "clustered"
    mdstat, grow = "See /proc/mdstat.", "mdadm --grow ARRAY --bitmap=internal"
    own = "Use an array with metadata 1.x and a bitmap of its own."
    without = "it has no write-intent bitmap: each rejoin would copy all of it"
    return [
        (
            array.level != "raid1",
            f"its level is {array.level}: only a raid1's member holds whole files",
            "Use a raid1.",
        ),
        (foreign, "its metadata are another maker's, or a cluster's", own),
        (array.bitmap == "none", without, grow),
        (not array.bitmap.lstrip("+-").isdecimal(), f"its bitmap is not on its members but in {array.bitmap}", grow),
        (array.state not in RUNNING, f"it is {array.state}", mdstat),
        (array.action == "reshape", "it is being reshaped", mdstat),
    ]


def _member_faults(array: Array, member: mdarray.Member) -> list[Fault]:
    node, idle = member.node, array.action == "idle"
    spare = idle and any("spare" in one.states for one in array.members)
    behind = bool(array.write_behind) and "write_mostly" in member.states
    mdstat = "See /proc/mdstat."
    enlarge = "Take it out, or make it a member: mdadm --grow ARRAY --raid-devices=3"
    resume = "See the kernel's log; run `splitreel resume` if a session failed it."
    anew = "mdadm --grow ARRAY --bitmap=none, then --bitmap=internal without --write-behind"
    missing = f"it is degraded: {array.degraded} of {array.devices} members are missing"
    return [
        ("faulty" in member.states, f"{node} has failed", resume),
        (idle and array.degraded > 0, missing, mdstat),
        (idle and _good(array) < 2, f"{node} is its only member in sync", mdstat),
        (spare, f"it has a spare, which would take the place of {node} at the split and be copied in full", enlarge),
        (behind, f"{node} has write-behind: writes are acknowledged before they are on it", anew),
        (member.has_bad_blocks, f"{node} records bad blocks, which hold old data", "Replace the disk."),
    ]


def _good(array: Array) -> int:
    return sum(member.in_sync for member in array.members)


def _mdadm() -> str | None:
    return shutil.which("mdadm", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _sysfs(path: str, name: str) -> Path:
    """A block device's directory in sysfs."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise MirrorError(name, f"{path}: {error.strerror}", "Correct the configuration.") from error
    if not stat.S_ISBLK(status.st_mode):
        raise MirrorError(name, f"{path} is no block device", "Correct the configuration.")
    return Path(f"/sys/dev/block/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}").resolve()
