"""embedded builds a mirrored volume out of two image files, for demo and tests. It is not meant for a real database.

The stack: qemu-storage-daemon holds primary.img and mirror.img and exports the primary over NBD; nbdfuse shows that as
a file; a loop device with direct I/O makes it a block device; ext4 lies on it. QEMU's own FUSE export is not used: in
7.2 it corrupts data when two writes are in flight (1280 of 2048 pages wrong after one 8 MiB direct write).
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from splitreel.errors import MirrorError
from splitreel.mirror.qemu import QemuMirror
from splitreel.mirror.qmp import Qmp, QmpError

PROGRAMS = ("qemu-storage-daemon", "nbdfuse", "losetup", "mkfs.ext4", "mount", "umount", "fusermount3")
START_SECONDS = 20.0
STOP_SECONDS = 20.0
NBD_CONNECTIONS = 4
RECORD = "embedded.json"


class EmbeddedMirror:
    """A mirrored ext4 volume in ``directory``. Its processes outlive the session: ``attach`` finds them again."""

    def __init__(self, directory: str | os.PathLike[str], size: int = 1 << 30) -> None:
        """Nothing is started yet; ``size`` in bytes."""
        self.directory = Path(directory).resolve()
        self.size = size
        self.primary_image = self.directory / "primary.img"
        self.mirror_image = self.directory / "mirror.img"
        self.qmp = self.directory / "qmp.sock"
        self._nbd = self.directory / "nbd.sock"
        self._fuse = self.directory / "fuse" / "disk"
        self.device = ""
        self.mount_point = ""
        self._pids: dict[str, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def attach(cls, directory: str | os.PathLike[str]) -> "EmbeddedMirror":
        """The volume that another process started in ``directory``.

        Raises:
            MirrorError: there is none.
        """
        mirror = cls(directory)
        try:
            record = json.loads((mirror.directory / RECORD).read_text())
        except (OSError, ValueError) as error:
            raise MirrorError(f"embedded mirror {directory}", f"no {RECORD} can be read") from error
        mirror.size, mirror.device, mirror.mount_point = record["size"], record["device"], record["mount"]
        mirror._pids = record["pids"]
        return mirror

    def settings(self) -> dict[str, Any]:
        """The ``mirror`` table of a job that uses this volume."""
        return {
            "type": "qemu",
            "qmp": str(self.qmp),
            "primary": "primary",
            "lower": "primary-file",
            "target": "mirror",
            "image": str(self.mirror_image),
        }

    def mirror(self) -> QemuMirror:
        """The adapter over this volume."""
        return QemuMirror(**{key: value for key, value in self.settings().items() if key != "type"})

    def start(self) -> None:
        """Make the images when absent, start both processes, attach a loop device.

        Raises:
            MirrorError: a program is missing or a part does not come up; what was started is stopped.
        """
        absent = [program for program in PROGRAMS if shutil.which(program) is None]
        if absent:
            raise MirrorError(
                "embedded mirror",
                f"missing: {', '.join(absent)}",
                "apt install qemu-system-common qemu-utils libnbd-bin fuse3",
            )
        self._fuse.parent.mkdir(parents=True, exist_ok=True)
        for image in (self.primary_image, self.mirror_image):
            with open(image, "ab") as file:
                file.truncate(self.size)
        try:
            self._start_daemon()
            self._start_fuse()
            self.device = _run("losetup", "--show", "-f", "--direct-io=on", str(self._fuse)).strip()
            self._record()
        except BaseException:
            self.stop()
            raise

    def format(self) -> None:
        """An empty ext4 on the volume."""
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.device)

    def mount(self, mount_point: str | os.PathLike[str]) -> None:
        """Mount it; the directory is made when absent."""
        Path(mount_point).mkdir(parents=True, exist_ok=True)
        _run("mount", self.device, str(mount_point))
        self.mount_point = str(mount_point)
        self._record()

    def unmount(self) -> None:
        """Unmount it; a process that just ended may keep it busy for a moment. Raises MirrorError."""
        if self.mount_point and os.path.ismount(self.mount_point):
            _retry(lambda: _run("umount", self.mount_point))
        self.mount_point = ""

    def stop(self) -> None:
        """Take all down in the one right order: mount, loop device, FUSE, daemon. Harmless twice.

        Raises:
            MirrorError: the volume is in use; nothing below it is touched then.
        """
        self.unmount()
        if self.device:
            _retry(lambda: _run("losetup", "-d", self.device))
            self.device = ""
        if os.path.ismount(self._fuse.parent):
            _retry(lambda: _run("fusermount3", "-u", str(self._fuse.parent)))
        with contextlib.suppress(QmpError):
            if self.qmp.exists():
                connection = Qmp(str(self.qmp), 2.0)
                try:
                    connection.command("quit")
                finally:
                    connection.close()
        self._await_end()
        for name in (RECORD, self.qmp.name, self._nbd.name):
            (self.directory / name).unlink(missing_ok=True)

    def _start_daemon(self) -> None:
        files = {"primary-file": self.primary_image, "mirror": self.mirror_image}
        nodes: list[str] = []
        for node, image in files.items():
            # Two nodes write to the mirror's image while it rejoins, hence no locking between them.
            nodes += ["--blockdev", f"driver=file,node-name={node},filename={image},discard=unmap,locking=off"]
        self._spawn(
            "qemu-storage-daemon",
            *nodes,
            *("--blockdev", "driver=raw,node-name=primary,file=primary-file,discard=unmap"),
            *("--chardev", f"socket,id=monitor,path={self.qmp},server=on,wait=off", "--monitor", "chardev=monitor"),
            *("--nbd-server", f"addr.type=unix,addr.path={self._nbd},max-connections={2 * NBD_CONNECTIONS}"),
            *("--export", "type=nbd,id=volume,node-name=primary,name=primary,writable=on"),
        )
        self._wait(lambda: self.qmp.exists() and self._nbd.exists())

    def _start_fuse(self) -> None:
        uri = f"nbd+unix:///primary?socket={self._nbd}"
        self._spawn("nbdfuse", "-C", str(NBD_CONNECTIONS), str(self._fuse), uri)
        self._wait(lambda: self._fuse.exists() and self._fuse.stat().st_size == self.size)

    def _spawn(self, program: str, *arguments: str) -> None:
        with open(self.directory / f"{program}.log", "ab") as log:
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        self._processes.append(process)
        self._pids[program] = process.pid

    def _wait(self, there: Callable[[], bool]) -> None:
        until = time.monotonic() + START_SECONDS
        while not there():
            ended = [process for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > until:
                raise MirrorError("embedded mirror", f"it does not start; see the logs in {self.directory}")
            time.sleep(0.01)

    def _record(self) -> None:
        record = {"size": self.size, "device": self.device, "mount": self.mount_point, "pids": self._pids}
        (self.directory / RECORD).write_text(json.dumps(record))

    def _await_end(self) -> None:
        for process in self._processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if not self._processes:
            for pid in self._pids.values():
                _end_foreign(pid, str(self.directory))
        self._processes.clear()
        self._pids.clear()

    def __enter__(self) -> "EmbeddedMirror":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _end_foreign(pid: int, directory: str) -> None:
    """Wait for a process that is not our child, and kill it after the time limit; only if it is still that process."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if directory.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return
            if not select.select([descriptor], [], [], STOP_SECONDS)[0]:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MirrorError(" ".join(command[:2]), (done.stderr or done.stdout).strip()[:500])
    return done.stdout


def _retry(action: Callable[[], object]) -> None:
    for _ in range(50):
        try:
            action()
            return
        except MirrorError:
            time.sleep(0.1)
    action()
