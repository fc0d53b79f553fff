"""source opens what a verb reads: a device, the volume inside it, and the map of its files. It prints only warnings."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

from splitreel import errors, stack
from splitreel.cli import output
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.filesystem import Filesystem
from splitreel.mapping import Mapped, diff, open_filesystem
from splitreel.raw import map_raw

RAW_KIND = "raw"  # of maps that map_raw makes


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what is inside the device."""
    parser.add_argument("--volume", metavar="V", help="what to read inside the device: 2, vg0/data, 3:vg0/data")
    parser.add_argument(
        "--with",
        dest="others",
        metavar="DEVICE",
        action="append",
        default=[],
        help="a further device that belongs to it: another disk of its volume group or array, a journal (repeatable)",
    )
    parser.add_argument("--raw", action="store_true", help="no file system: all of it as one file")


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[list[BlockDevice]]:
    """The volume that the options name, and the further devices, open as long as the block runs."""
    with ExitStack() as held:
        devices = [held.enter_context(BlockDevice(path)) for path in (args.device, *args.others)]
        volume = stack.open_volume(devices, args.volume, raw=args.raw, warn=warn)
        yield [volume, *devices[1:]]


def warn(text: str) -> None:
    """A warning on standard error."""
    output.note(f"splitreel: warning: {text}")


def filesystem(args: argparse.Namespace, devices: list[BlockDevice]) -> Filesystem:
    """The file system on the first of the devices; its reader's warnings go to standard error."""
    found = open_filesystem(devices[0], frozen=args.frozen, live=args.live, others=devices[1:])
    for warning in found.warnings:
        warn(warning)
    return found


def mapped(args: argparse.Namespace, devices: list[BlockDevice]) -> Mapped:
    """The map of a file system, or of one file with --raw."""
    if args.raw:
        return Mapped(devices[0], map_raw(devices[0], stack.file_name(devices[0], args.device)))
    found = filesystem(args, devices)
    return Mapped(found.device, found.map(), found)


def loaded(args: argparse.Namespace, devices: list[BlockDevice]) -> Mapped:
    """As ``mapped``, of a saved map.

    Raises:
        Stale: it is of another file system, of a larger device, or of what stood there before the journal was replayed.
        MapError: it is none.
    """
    saved = ExtentMap.load(args.map)
    size = devices[0].size
    if saved.device_size > size or (args.raw and saved.device_size != size):
        raise errors.Stale(f"map {args.map}", f"it is of a device of {saved.device_size} bytes, this has {size}")
    if args.raw:
        if saved.fs_type != RAW_KIND:
            raise errors.Stale(f"map {args.map}", f"it is of a file system, {saved.fs_type}, not of a raw device")
        return Mapped(devices[0], saved)
    found = filesystem(args, devices)
    if found.uuid != saved.uuid:
        raise errors.Stale(f"map {args.map}", f"it is of file system {UUID(bytes=saved.uuid)}, not of this device's")
    # A map saved with --live knows nothing of the journal: its names and places may be older than the bytes read here.
    if found.device is not devices[0] and diff(saved, found.map()).any:
        raise errors.Stale(f"map {args.map}", "it is not what the device holds once its journal is replayed")
    return Mapped(found.device, saved, found)
