"""image opens a split mirror, where it begins, and the volume in it that a job names. It changes nothing."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from splitreel import mapping, stack
from splitreel.config import Job
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.errors import MirrorError
from splitreel.mirror import SplitImage
from splitreel.raw import map_raw

Warn = Callable[[str], None]


@contextmanager
def opened(image: SplitImage, job: Job, warn: Warn | None = None) -> Iterator[list[BlockDevice]]:
    """The volume of a split mirror, read-only, and the job's further devices.

    Raises:
        MirrorError: no loop device could be had.
        DeviceError: one of them cannot be opened.
        SplitreelError: there is no such volume; see stack.open_volume.
    """
    with ExitStack() as held:
        first = held.enter_context(_from_offset(image))
        devices = [first, *(held.enter_context(BlockDevice(path)) for path in job.others)]
        yield [stack.open_volume(devices, job.volume or None, raw=job.raw, warn=warn), *devices[1:]]


def mapped(devices: list[BlockDevice], job: Job, *, frozen: bool, warn: Warn | None = None) -> ExtentMap:
    """The map of what ``opened`` gave: of a file system, or of one file when the job is raw."""
    if job.raw:
        return map_raw(devices[0], stack.file_name(devices[0]))
    filesystem = mapping.open_filesystem(devices[0], frozen=frozen, others=devices[1:])
    if warn is not None:
        for text in getattr(filesystem, "warnings", ()):
            warn(text)
    return filesystem.map()


def contents(devices: list[BlockDevice], job: Job, *, frozen: bool) -> BlockDevice:
    """The device that such a map's extents refer to."""
    if job.raw:
        return devices[0]
    return mapping.open_filesystem(devices[0], frozen=frozen, others=devices[1:]).device


@contextmanager
def _from_offset(image: SplitImage) -> Iterator[BlockDevice]:
    """A split mirror where it begins: at an offset through a loop device."""
    if not image.offset:
        with BlockDevice(image.path) as device:
            yield device
        return
    loop = _losetup("--show", "-r", "-f", "--direct-io=on", "-o", str(image.offset), image.path)
    try:
        with BlockDevice(loop) as device:
            yield device
    finally:
        _losetup("-d", loop)


def _losetup(*arguments: str) -> str:
    done = subprocess.run(
        ["losetup", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise MirrorError("losetup " + " ".join(arguments), done.stderr.strip())
    return done.stdout.strip()
