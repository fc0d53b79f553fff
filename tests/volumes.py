"""volumes makes file systems that tests may freeze: on a loop device, or mirrored; and takes them down again."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from splitreel.mirror.embedded import PROGRAMS, EmbeddedMirror
from tests.support import need_programs, need_root, unmount

FITHAW = 0xC0045878


def thaw(mount: Path) -> None:
    """Thaw whatever a failed test left frozen."""
    descriptor = os.open(mount, os.O_RDONLY)
    with suppress(OSError):
        fcntl.ioctl(descriptor, FITHAW, 0)
    os.close(descriptor)


@contextmanager
def ext4_volume(folder: Path, size: int = 64 << 20) -> Iterator[Path]:
    """An ext4 on a loop device, mounted below ``folder``; yields the mount point."""
    need_root()
    need_programs("mkfs.ext4", "mount", "umount")
    image, mount = folder / "volume.img", folder / "volume"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        yield mount
    finally:
        thaw(mount)
        reap_probes()
        unmount(mount)


@contextmanager
def mirrored_volume(folder: Path, size: int = 256 << 20) -> Iterator[EmbeddedMirror]:
    """A mirrored ext4, mounted below ``folder``."""
    need_root()
    need_programs(*PROGRAMS)
    embedded = EmbeddedMirror(folder / "mirrored", size)
    embedded.start()
    mount = folder / "mnt"
    try:
        embedded.format()
        embedded.mount(mount)
        yield embedded
    finally:
        if mount.is_dir():
            thaw(mount)
        reap_probes()
        embedded.stop()


def writer_waits(mount: Path, seconds: float = 0.3) -> bool:
    """True when creating a file on ``mount`` does not end in time; the writer is left to end at the thaw."""
    return not writes_within(mount, seconds)


def writes_within(mount: Path, seconds: float) -> bool:
    """True when another process creates and syncs a file within ``seconds``."""
    code = "import os,sys; f=os.open(sys.argv[1],os.O_CREAT|os.O_WRONLY); os.write(f,b'x'); os.fsync(f)"
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code, str(mount / "probe")])
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    done = process.returncode == 0
    _PROBES.append(process)
    return done


_PROBES: list[subprocess.Popen[bytes]] = []


def reap_probes() -> None:
    """Wait for the writers that were left waiting; call it when everything is thawed."""
    while _PROBES:
        _PROBES.pop().wait(20)
