"""image opens a split mirror for reading, where its volume begins. It maps nothing."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from splitreel.core.device import BlockDevice
from splitreel.errors import MirrorError
from splitreel.mirror import SplitImage


@contextmanager
def opened(image: SplitImage) -> Iterator[BlockDevice]:
    """The volume of a split mirror, read-only; one that begins at an offset through a loop device.

    Raises:
        MirrorError: no loop device could be had.
        DeviceError: it cannot be opened.
    """
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
