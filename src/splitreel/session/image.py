"""image opens a split mirror, where it begins, and the volume in it that a job names. It changes nothing."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from splitreel import mapping, stack
from splitreel.config import Volume
from splitreel.core.device import BlockDevice
from splitreel.core.spans import Linear, SpannedDevice
from splitreel.errors import MirrorError
from splitreel.mapping import Mapped
from splitreel.mirror import SplitImage
from splitreel.raw import map_raw

Warn = Callable[[str], None]


@contextmanager
def opened(image: SplitImage, volume: Volume, warn: Warn | None = None) -> Iterator[list[BlockDevice]]:
    """The volume of a split mirror, read-only, and the further devices named with it.

    Raises:
        MirrorError: it is shorter than its offset.
        DeviceError: one of them cannot be opened.
        SplitreelError: there is no such volume; see stack.open_volume.
    """
    with ExitStack() as held:
        first, *others = (held.enter_context(BlockDevice(path)) for path in (image.path, *volume.others))
        devices = [_from_offset(first, image.offset), *others]
        yield [stack.open_volume(devices, volume.volume or None, raw=volume.raw, warn=warn), *devices[1:]]


def mapped(
    image: SplitImage, devices: list[BlockDevice], volume: Volume, *, frozen: bool, warn: Warn | None = None
) -> Mapped:
    """What ``opened`` gave, mapped: a file system, or one file when the volume is raw."""
    if volume.raw:
        return Mapped(devices[0], map_raw(devices[0], stack.file_name(devices[0], image.path)))
    filesystem = mapping.open_filesystem(devices[0], frozen=frozen, others=devices[1:])
    if warn is not None:
        for text in filesystem.warnings:
            warn(text)
    return Mapped(filesystem.device, filesystem.map(), filesystem)


def _from_offset(device: BlockDevice, offset: int) -> BlockDevice:
    """A split mirror where it begins."""
    if not offset:
        return device
    if offset >= device.size:
        why = f"`offset` is {offset}, it has {device.size} bytes"
        raise MirrorError(f"mirror {os.fsdecode(device.path)}", why, "Correct `offset` in the configuration.")
    return SpannedDevice([device], [Linear(device.size - offset, 0, offset)], path=device.path)
