"""raw maps a whole device without a file system (Oracle ASM, raw InnoDB) as one regular file. It reads none of it."""

import os
import stat

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap, pack_nanoseconds

BLOCK = 4096
MOST_BLOCKS = 0xFFFFFFFF  # of one extent
MOST_NAME = 255  # bytes
ROOT, FILE = 1, 2  # inode numbers


def map_raw(device: BlockDevice, name: str | bytes) -> ExtentMap:
    """A map of a root directory and in it one file, ``name``, that holds every byte of the device.

    Its kind is ``raw``; times are 0, owners root, modes 0755 and 0600. The last extent may end behind the device, when
    this is no multiple of 4096 bytes: the file's size says where it ends.

    Raises:
        UsageError: the name is empty, ``.`` or ``..``, longer than 255 bytes, or holds a slash or a null byte.
    """
    encoded = os.fsencode(name)
    if encoded in (b"", b".", b"..") or len(encoded) > MOST_NAME or b"/" in encoded or b"\0" in encoded:
        raise errors.UsageError(
            f"naming the file of {os.fsdecode(device.path)}",
            f"{os.fsdecode(encoded)!r} is no file name",
            "Give a name of 1 to 255 bytes without a slash.",
        )
    made = ExtentMap("raw", bytes(16), BLOCK, device.size)
    epoch = pack_nanoseconds(0)
    # There are no records whose change could be told: the size is all that can differ between two maps.
    made.add_file(ROOT, stat.S_IFDIR | 0o755, mtime=epoch, ctime=epoch, link_count=2)
    made.add_file(
        FILE, stat.S_IFREG | 0o600, size=device.size, mtime=epoch, ctime=epoch, fingerprint=device.size, link_count=1
    )
    blocks = -(-device.size // BLOCK)
    for first in range(0, blocks, MOST_BLOCKS):
        made.add_extent(first, first, min(MOST_BLOCKS, blocks - first))
    made.add_name(0, 0, b"")
    made.add_name(0, 1, encoded)
    made.finish()
    return made
