"""machine runs one command as root on this machine's own root under another kernel, in QEMU. It knows no test.

The host's root is shared read-only over 9p under a layer of memory, so that every program installed here is there too
and nothing of the host can change. Emulation alone: a /dev/kvm that can be opened may still hang a stock kernel.
"""

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from . import kernel
from .kernel import Missing

ROOT = Path(__file__).resolve().parents[2]
START = Path(__file__).with_name("start")
HIDDEN = ("/tmp", "/run", "/dev", "/proc", "/sys")  # the guest has its own
QEMU = "qemu-system-x86_64"
DISK_SERIAL = "guest-disk"  # /sys/block/vd*/serial; tests touch no device without it
MEMORY_MB = 1536
POLL_SECONDS = 0.05
KERNEL_LINE = "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr"


class GuestError(Exception):
    """The machine did not run its command to the end."""


class Machine:
    """One boot: a context manager that starts QEMU and ends it. ``console`` has all that the guest printed.

    ``folder`` is /run/host in the guest, where it writes what the host shall read. ``disks`` are raw image files,
    which keep what was written also when the machine is ended as by a power loss.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        disks: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        memory_mb: int = MEMORY_MB,
        options: Sequence[str] = (),
        listener: Callable[[str], None] | None = None,
    ) -> None:
        """``options`` are further ones of QEMU's; ``listener`` is called with each line of the console."""
        self.folder = folder
        self.console: list[str] = []
        self._command = list(command)
        self._disks = list(disks)
        self._environment = dict(environment or {})
        self._memory_mb = memory_mb
        self._options = list(options)
        self._listener = listener or (lambda _: None)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            Missing: QEMU or a kernel is not there.
            Unusable: the kernel does not do.
        """
        if shutil.which(QEMU) is None:
            raise Missing(f"{QEMU} is not installed (apt-get install qemu-system-x86)")
        booted, shares = kernel.prepared(), self._shares()
        self._fill_folder(shares)
        # The kernel ends QEMU when the thread that started it ends, killed or not: none is left behind.
        dying = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        arguments = [*dying, *self._arguments(booted, shares)]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End it at once, as a power loss would; harmless twice."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def wait(self, seconds: float) -> int:
        """The exit status of the command, when it has ended and the guest has halted.

        Raises:
            GuestError: it took longer, or QEMU or the guest's kernel ended before.
        """
        assert self._process is not None
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise GuestError(f"the guest's command took longer than {seconds:g} s") from None
        self._ended()
        if status != 0:
            raise GuestError(f"QEMU ended with status {status}")
        if not (self.folder / "up").exists():
            raise GuestError("the guest did not reach the host's root file system")
        left = self.folder / "status"
        if not left.exists() or not left.read_text().strip():
            raise GuestError("the guest's kernel crashed, or its power went, before the command ended")
        return int(left.read_text())

    def wait_for(self, name: str, seconds: float) -> Path:
        """The file of that name in ``folder``, when the guest has made it.

        Raises:
            GuestError: it took longer, or the guest ended before.
        """
        assert self._process is not None
        until = time.monotonic() + seconds
        while not (self.folder / name).exists():
            if self._process.poll() is not None:
                raise GuestError(f"the guest ended without making {name}")
            if time.monotonic() > until:
                raise GuestError(f"the guest did not make {name} within {seconds:g} s")
            time.sleep(POLL_SECONDS)
        return self.folder / name

    def _ended(self) -> None:
        assert self._process is not None and self._reader is not None
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            self.console.append(text)
            self._listener(text)

    def _shares(self) -> dict[str, Path]:
        """What the guest needs of the host that its own mounts hide: tag -> folder."""
        needed = {ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
        hidden = sorted(path for path in needed if any(path.is_relative_to(folder) for folder in HIDDEN))
        return {f"share{number}": path for number, path in enumerate(hidden)}

    def _fill_folder(self, shares: Mapping[str, Path]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("up", "status"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "mounts").write_text("".join(f"{tag} {path}\n" for tag, path in shares.items()))
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self._environment.items()]
        lines += [f"cd {shlex.quote(str(ROOT))}", f"exec {shlex.join(self._command)}"]
        (self.folder / "command").write_text("".join(f"{line}\n" for line in lines))
        shutil.copy(START, self.folder / "start")

    def _arguments(self, booted: kernel.Kernel, shares: Mapping[str, Path]) -> list[str]:
        accelerator = os.environ.get("SPLITREEL_VM_ACCEL", "tcg,thread=multi")
        arguments = [QEMU, "-M", "q35", "-accel", accelerator, "-cpu", "max", "-smp", "1", "-m", str(self._memory_mb)]
        arguments += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]
        arguments += ["-kernel", str(booted.image), "-initrd", str(booted.initramfs), "-append", KERNEL_LINE]
        arguments += ["-device", "virtio-rng-pci"]
        arguments += _shared("root", Path("/"), read_only=True) + _shared("host", self.folder, read_only=False)
        for tag, path in shares.items():
            arguments += _shared(tag, path, read_only=True)
        for number, disk in enumerate(self._disks, 1):
            drive = f"file={disk},if=none,id=disk{number},format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap"
            arguments += ["-drive", drive]
            arguments += ["-device", f"virtio-blk-pci,drive=disk{number},serial={DISK_SERIAL}-{number}"]
        return arguments + self._options


def _shared(tag: str, path: Path, *, read_only: bool) -> list[str]:
    access = ",readonly=on" if read_only else ""
    filesystem = f"local,id={tag},path={path},security_model=none,multidevs=remap{access}"
    return ["-fsdev", filesystem, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
