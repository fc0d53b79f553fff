"""image opens a split mirror, where it begins, and the volume in it that a job names. It changes nothing."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from splitreel import mapping, stack
from splitreel.config import Job
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.filesystem import Filesystem
from splitreel.core.spans import Linear, SpannedDevice
from splitreel.errors import MirrorError
from splitreel.mirror import SplitImage
from splitreel.raw import map_raw

Warn = Callable[[str], None]


@contextmanager
def opened(image: SplitImage, job: Job, warn: Warn | None = None) -> Iterator[list[BlockDevice]]:
    """The volume of a split mirror, read-only, and the job's further devices.

    Raises:
        MirrorError: it is shorter than its offset.
        DeviceError: one of them cannot be opened.
        SplitreelError: there is no such volume; see stack.open_volume.
    """
    with ExitStack() as held:
        first, *others = (held.enter_context(BlockDevice(path)) for path in (image.path, *job.others))
        devices = [_from_offset(first, image.offset), *others]
        yield [stack.open_volume(devices, job.volume or None, raw=job.raw, warn=warn), *devices[1:]]


def mapped(
    image: SplitImage, devices: list[BlockDevice], job: Job, *, frozen: bool, warn: Warn | None = None
) -> ExtentMap:
    """The map of what ``opened`` gave: of a file system, or of one file when the job is raw."""
    if job.raw:
        return map_raw(devices[0], stack.file_name(devices[0], image.path))
    filesystem = mapping.open_filesystem(devices[0], frozen=frozen, others=devices[1:])
    if warn is not None:
        for text in filesystem.warnings:
            warn(text)
    return filesystem.map()


def contents(devices: list[BlockDevice], job: Job, *, frozen: bool) -> tuple[BlockDevice, Filesystem | None]:
    """The device that such a map's extents refer to, and the file system, for mapping.verify_unchanged."""
    if job.raw:
        return devices[0], None
    filesystem = mapping.open_filesystem(devices[0], frozen=frozen, others=devices[1:])
    return filesystem.device, filesystem


def problems(extent_map: ExtentMap) -> list[str]:
    """What is damaged, a line each; the last one counts those that the map does not list."""
    found = [f"inode {inode}, offset {offset}: {text}" for inode, offset, text in extent_map.problems]
    unnamed = extent_map.problem_count - len(found)
    return [*found, f"{unnamed} more, not listed"] if unnamed else found


def _from_offset(device: BlockDevice, offset: int) -> BlockDevice:
    """A split mirror where it begins."""
    if not offset:
        return device
    if offset >= device.size:
        why = f"`offset` is {offset}, it has {device.size} bytes"
        raise MirrorError(f"mirror {os.fsdecode(device.path)}", why, "Correct `offset` in the configuration.")
    return SpannedDevice([device], [Linear(device.size - offset, 0, offset)], path=device.path)
