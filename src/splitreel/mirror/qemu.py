"""qemu mirrors a block node of a running QEMU, or of a qemu-storage-daemon, by its jobs. It freezes nothing itself.

The copy is a blockdev-mirror job; to split is to cancel the READY job, which completes it: the target then is the
source as it was at that instant. A dirty bitmap, added before the window, notes what changes from then on; being older
than the split it marks a little too much and never too little, so a crash at the split loses nothing.

Two ways to rejoin, since QEMU has no "mirror what this bitmap says":

- with ``lower``, the node under ``primary``, and a local ``image``: start the mirror job again for new writes only and
  pause it; copy the bitmap's blocks with a backup job from ``lower``; resume. What is written meanwhile the paused job
  has noted, and copies again afterwards. Nothing is frozen.
- else: backup jobs until little differs, and the last one together with the start of the mirror job under a short hold.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from splitreel.core.device import BlockDevice
from splitreel.errors import MirrorError
from splitreel.mirror import Hold, SplitImage, inuse
from splitreel.mirror.qmp import Event, Qmp

MIRROR_JOB = "splitreel-mirror"
REJOIN_JOB = "splitreel-rejoin"
BITMAP = "splitreel"
MARKER = "splitreel-rejoining"  # a bitmap whose presence alone says that a rejoin has begun and not ended
SECOND_TARGET = "splitreel-second"
GRANULARITY = 65536
BEHIND_ENOUGH = 8 << 20  # bytes: less than this is copied within a hold
PASSES = 8
SPLIT_SECONDS = 30.0
REJOIN_SECONDS = 24 * 3600.0
POLL_SECONDS = 0.02
HEAD_SIZE = 4096


class QemuMirror:
    """Block node ``primary`` of the QEMU behind ``qmp``, mirrored to its node ``target``, whose file is ``image``."""

    KEYS: ClassVar[dict[str, tuple[str, bool]]] = {
        "qmp": ("path", True),
        "primary": ("text", True),
        "target": ("text", True),
        "image": ("path", True),
        "lower": ("text", False),
        "offset": ("integer", False),
        "timeout_s": ("number", False),
    }

    def __init__(
        self, qmp: str, primary: str, target: str, image: str, lower: str = "", offset: int = 0, timeout_s: float = 10.0
    ) -> None:
        """``timeout_s`` bounds each QMP command. ``target`` must be opened with locking=off when ``lower`` is given."""
        self.name = f"qemu {primary}"
        self.waiting = ""
        self._path = qmp
        self._primary = primary
        self._target = target
        self._image = image
        self._lower = lower
        self._offset = offset
        self._timeout_s = timeout_s
        self._connection: Qmp | None = None
        self._resynced: int | None = None

    @property
    def _qmp(self) -> Qmp:
        if self._connection is None:
            self._connection = Qmp(self._path, self._timeout_s)
        return self._connection

    @property
    def _tracked(self) -> str:
        return self._lower or self._primary

    def check(self) -> None:
        """The monitor answers, the nodes exist and are of one size, the image can be read."""
        sizes = {}
        for node in (self._primary, self._target, self._tracked):
            found = self._node(node)
            if found is None:
                raise MirrorError(self.name, f"QEMU has no block node {node!r}", "See query-named-block-nodes.")
            sizes[node] = found["image"]["virtual-size"]
        if sizes[self._target] < sizes[self._primary]:
            raise MirrorError(
                self.name, f"the target has {sizes[self._target]} bytes, the primary {sizes[self._primary]}"
            )
        if not os.access(self._image, os.R_OK):
            raise MirrorError(self.name, f"image {self._image} cannot be read", "Correct `image`.")
        if users := inuse.users(self._image):
            why = f"image {self._image} is in use: {', '.join(users)}"
            raise MirrorError(self.name, why, "End that use: QEMU writes to it.")

    def check_primary(self, device: str) -> None:
        """The image is not the primary itself; while it is in sync, it holds the primary's file system."""
        inuse.refuse_itself(self.name, self._image, device)
        if self.is_in_sync():
            ours, theirs = _identity(self._image, self._offset), _identity(device, 0)
            if ours and theirs and ours != theirs:
                why = f"{self._image} holds another file system ({ours}) than {device} ({theirs})"
                raise MirrorError(self.name, why, "Correct `primary` and `image`, or `mount`.")

    def cost(self) -> str:
        """What a bitmap marks; all of it after QEMU has ended."""
        node = self._node(self._primary)
        size = node["image"]["virtual-size"] if node is not None else 0
        freeze = "nothing is held" if self._lower else "the file systems are frozen once more, shortly"
        return (
            f"a rejoin copies the pieces of {GRANULARITY >> 10} KiB that were written since the split, and {freeze};"
            f" all of {size} bytes when QEMU ends while it is split: its record of them is in memory"
        )

    def files(self) -> list[str]:
        """The image and the monitor's socket."""
        return [self._image, self._path]

    def state(self) -> str:
        """As QEMU's jobs and bitmaps say."""
        job = self._job(MIRROR_JOB)
        if self._bitmap() is not None and self._bitmap(MARKER) is not None:
            return "rejoining"
        if job is None:
            return "none" if self._bitmap() is None else "split"
        return "in-sync" if job.get("ready") else "copying"

    def establish(self) -> None:
        """Start the mirror job unless it runs; drop a bitmap that a session left before its split."""
        state = self.state()
        if state == "split":
            raise MirrorError(self.name, "the mirror is split", "Run `splitreel resume`.")
        if state == "none":
            self._start("full")
        if state == "rejoining":
            raise MirrorError(self.name, "a rejoin was interrupted", "Run `splitreel resume`.")
        self._drop_bitmaps()

    def wait_in_sync(self, timeout_s: float) -> None:
        """Until the job is ready."""
        until = time.monotonic() + timeout_s
        try:
            while not self._job_is_ready(job := self._job(MIRROR_JOB)):
                if job is None:
                    raise MirrorError(self.name, "the copy failed", "See QEMU's log; the next session copies in full.")
                if time.monotonic() > until:
                    raise MirrorError(self.name, f"not in sync within {timeout_s:g} s", "Raise `sync_timeout_s`.")
                self.waiting = _copying(int(job["offset"]), int(job["len"]))
                time.sleep(POLL_SECONDS)
        finally:
            self.waiting = ""

    def is_in_sync(self) -> bool:
        """The job is ready: it has copied everything once and follows the primary's writes."""
        return self._job_is_ready(self._job(MIRROR_JOB))

    @staticmethod
    def _job_is_ready(job: dict[str, Any] | None) -> bool:
        return bool(job and job.get("ready") and not job.get("paused"))

    def flush(self) -> None:
        """Start tracking, and put the image on its medium, which a split waits for: 139 ms without, 4 to 22 with."""
        self._add_bitmap(BITMAP)
        until = time.monotonic() + self._timeout_s
        while (behind := self._behind()) > BEHIND_ENOUGH and time.monotonic() < until:
            self.waiting = f"the mirror to catch up, {behind >> 20} MiB behind"
            time.sleep(POLL_SECONDS)
        self.waiting = "the mirror's image to be on its medium"
        with contextlib.suppress(OSError):
            descriptor = os.open(self._image, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        self.waiting = ""
        self._qmp.drop_events()

    def split(self) -> SplitImage:
        """Complete the mirror job. An error or a cancelled job is no consistent copy, and is refused."""
        self._qmp.command("block-job-cancel", device=MIRROR_JOB)
        event = self._ended(MIRROR_JOB, SPLIT_SECONDS)
        if event["event"] != "BLOCK_JOB_COMPLETED" or "error" in event["data"]:
            self._drop_bitmaps()
            raise MirrorError(self.name, f"the split is no consistent copy: {event['data'].get('error', 'cancelled')}")
        return SplitImage(self._image, self._offset)

    def dirty_bytes(self) -> int | None:
        """What the bitmap counts."""
        bitmap = self._bitmap()
        return None if bitmap is None else int(bitmap["count"])

    def resynced_bytes(self) -> int | None:
        """What QEMU's jobs say that they copied."""
        return self._resynced

    def rejoin(self, hold: Hold) -> None:
        """By whichever way this QEMU allows; see the module."""
        state = self.state()
        if state == "none":
            raise MirrorError(self.name, "QEMU has no record of what changed", "The next session copies in full.")
        self._resynced = 0
        if state in ("split", "rejoining"):
            self._end_job(REJOIN_JOB)
            if state == "split":
                self._add_bitmap(MARKER)
            if self._lower:
                self._rejoin_running()
            else:
                self._rejoin_held(hold)
        self._drop_bitmaps()

    def forget(self) -> None:
        """End the jobs and drop the bitmap."""
        self._end_job(REJOIN_JOB)
        self._end_job(MIRROR_JOB)
        self._drop_bitmaps()

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _start(self, sync: str) -> None:
        self._qmp.command(
            "blockdev-mirror",
            job_id=MIRROR_JOB,
            device=self._primary,
            target=self._target,
            sync=sync,
            copy_mode="background",
        )

    def _rejoin_running(self) -> None:
        """Copy the bitmap's blocks while the mirror job, paused, notes new writes; also where a crash left it."""
        if self._job(MIRROR_JOB) is None:
            self._start("none")
        if not (self._job(MIRROR_JOB) or {}).get("paused"):
            self._qmp.command("block-job-pause", device=MIRROR_JOB)
        self._until(lambda: not (self._job(MIRROR_JOB) or {}).get("busy"), "its mirror job does not pause")
        self._pass(self._lower, self._second_target())
        self._qmp.command("block-job-resume", device=MIRROR_JOB)
        self.wait_in_sync(REJOIN_SECONDS)
        self._count(self._job(MIRROR_JOB))
        self._qmp.command("blockdev-del", node_name=SECOND_TARGET)

    def _rejoin_held(self, hold: Hold) -> None:
        self._end_job(MIRROR_JOB)
        for _ in range(PASSES):
            if (self.dirty_bytes() or 0) < BEHIND_ENOUGH:
                break
            self._pass(self._primary, self._target)
        with hold():
            self._pass(self._primary, self._target)
            self._start("none")
        self.wait_in_sync(REJOIN_SECONDS)

    def _pass(self, source: str, target: str) -> None:
        self._qmp.drop_events()
        self.waiting = f"{(self.dirty_bytes() or 0) >> 20} MiB that changed to be copied back"
        self._qmp.command(
            "blockdev-backup",
            job_id=REJOIN_JOB,
            device=source,
            target=target,
            sync="bitmap",
            bitmap=BITMAP,
            bitmap_mode="on-success",
        )
        try:
            event = self._ended(REJOIN_JOB, REJOIN_SECONDS)
        finally:
            self.waiting = ""
        if event["event"] != "BLOCK_JOB_COMPLETED" or "error" in event["data"]:
            raise MirrorError(self.name, f"copying what changed failed: {event['data'].get('error', 'cancelled')}")
        self._count(event["data"])
        self._until(lambda: self._job(REJOIN_JOB) is None, "its backup job does not go away")

    def _count(self, job: Mapping[str, Any] | None) -> None:
        self._resynced = (self._resynced or 0) + int((job or {}).get("offset", 0))

    def _second_target(self) -> str:
        """A second node over the image: a node takes one writer, and the mirror job has the first."""
        if self._node(SECOND_TARGET) is None:
            self._qmp.command(
                "blockdev-add",
                driver="file",
                node_name=SECOND_TARGET,
                filename=self._image,
                discard="unmap",
                locking="off",
            )
        return SECOND_TARGET

    def _add_bitmap(self, name: str) -> None:
        if self._bitmap(name) is None:
            self._qmp.command("block-dirty-bitmap-add", node=self._tracked, name=name, granularity=GRANULARITY)

    def _drop_bitmaps(self) -> None:
        for name in (BITMAP, MARKER):  # in this order: the marker alone says nothing
            if self._bitmap(name) is not None:
                self._qmp.command("block-dirty-bitmap-remove", node=self._tracked, name=name)

    def _end_job(self, job: str) -> None:
        if self._job(job) is not None:
            self._qmp.drop_events()
            self._qmp.command("block-job-cancel", device=job, force=True)
            self._ended(job, SPLIT_SECONDS)
            self._until(lambda: self._job(job) is None, f"its job {job} does not end")

    def _ended(self, job: str, timeout_s: float) -> Event:
        ends = ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", "BLOCK_JOB_ERROR")
        return self._qmp.wait(lambda event: event["event"] in ends and event["data"].get("device") == job, timeout_s)

    def _until(self, reached: Callable[[], bool], complaint: str) -> None:
        until = time.monotonic() + max(self._timeout_s, SPLIT_SECONDS)
        while not reached():
            if time.monotonic() > until:
                raise MirrorError(self.name, complaint)
            time.sleep(POLL_SECONDS)

    def _behind(self) -> int:
        job = self._job(MIRROR_JOB)
        return 0 if job is None else int(job["len"]) - int(job["offset"])

    def _job(self, name: str) -> dict[str, Any] | None:
        jobs = self._qmp.command("query-block-jobs")
        return next((job for job in jobs if job["device"] == name), None)

    def _node(self, name: str) -> dict[str, Any] | None:
        nodes = self._qmp.command("query-named-block-nodes", flat=True)
        return next((node for node in nodes if node["node-name"] == name), None)

    def _bitmap(self, name: str = BITMAP) -> dict[str, Any] | None:
        node = self._node(self._tracked)
        bitmaps = (node or {}).get("dirty-bitmaps", [])
        return next((bitmap for bitmap in bitmaps if bitmap.get("name") == name), None)


def _identity(path: str, offset: int) -> str:
    """The UUID of the ext or XFS file system that begins there, or "" where there is none of them."""
    with BlockDevice(path) as device:
        head = device.pread(offset, min(HEAD_SIZE, max(0, device.size - offset)))
    if head[1080:1082] == b"\x53\xef":
        return head[1128:1144].hex()
    return head[32:48].hex() if head[:4] == b"XFSB" else ""


def _copying(done: int, whole: int) -> str:
    """How far a copy of so many bytes is."""
    return f"copying {100 * done // max(whole, 1)} %, {(whole - done) / (1 << 30):.1f} GiB to go"
