"""mapping makes extent maps of devices and checks them against split mirrors. It reads no file and changes nothing.

``check`` reads all metadata again, from the split mirror: the new map is right whatever happened between mapping and
split, and nothing rests on timestamps. Fingerprints of the raw records say on their own what changed; both must agree.
"""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitreel import errors
from splitreel.core import mapdiff
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.filesystem import Filesystem
from splitreel.probe import probe

# what probe says -> the module and class that read it, loaded when needed
READERS = {"ext": ("splitreel.core.ext4", "Ext4"), "xfs": ("splitreel.core.xfs", "Xfs")}

RAW = "with --raw all of it is backed up as one file."

Inodes = NDArray[np.uint64]


@dataclass(frozen=True)
class MapChanges:
    """What became of each file, as sorted inode numbers.

    An inode of the old map is in one of ``same``, ``extents_revised``, ``attributes_revised``, ``gone``; one of the new
    map in one of the first three or ``new``. An inode with another generation is in both ``gone`` and ``new``. A file
    whose extents were revised may have other attributes too. ``renamed`` are those of the first three that have another
    set of names (directory and name).
    """

    same: Inodes
    extents_revised: Inodes
    attributes_revised: Inodes
    new: Inodes
    gone: Inodes
    renamed: Inodes

    @property
    def any(self) -> bool:
        """True when the maps differ in anything."""
        return any(value for name, value in self.counts().items() if name != "same")

    def counts(self) -> dict[str, int]:
        """How many files are in each class."""
        return {name: len(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Mapped:
    """A map, the device that its extents refer to, and the file system; of a raw device there is none."""

    device: BlockDevice
    map: ExtentMap
    filesystem: Filesystem | None = None

    def verify_unchanged(self) -> None:
        """Files were read from a mirror that nobody wrote to meanwhile, as far as superblock and log tell.

        Raises:
            Stale: it is the live device: what was read is of several moments.
        """
        if self.filesystem is None:
            return
        try:
            self.filesystem.verify_unchanged()
        except errors.Stale as error:
            why = f"{error.why}: the files on the tape are of several moments"
            raise errors.Stale(
                "backing up", why, "Split the mirror, or freeze the file system, then back up again."
            ) from None


def problems(extent_map: ExtentMap) -> list[str]:
    """What is damaged, a line each; the last one counts those that the map does not list."""
    found = [f"inode {inode}, offset {offset}: {text}" for inode, offset, text in extent_map.problems]
    unnamed = extent_map.problem_count - len(found)
    return [*found, f"{unnamed} more, not listed"] if unnamed else found


def diff(old: ExtentMap, new: ExtentMap) -> MapChanges:
    """Compare two maps of one file system.

    Raises:
        Stale: they are maps of different file systems.
        IntegrityError: a file's raw records are unchanged, but its decoded columns are not.
    """
    for what in ("fs_type", "uuid", "block_size"):
        before, after = getattr(old, what), getattr(new, what)
        if before != after:
            raise errors.Stale("comparing extent maps", f"their {what} differs: {before!r} and {after!r}")
    old_codes, new_codes = (np.asarray(codes) for codes in mapdiff.compare(old, new))
    old_inodes, new_inodes = np.asarray(old.files)["inode"], np.asarray(new.files)["inode"]
    kinds = new_codes & ~np.uint8(mapdiff.RENAMED)
    return MapChanges(
        same=new_inodes[kinds == mapdiff.SAME],
        extents_revised=new_inodes[kinds == mapdiff.EXTENTS],
        attributes_revised=new_inodes[kinds == mapdiff.ATTRIBUTES],
        new=new_inodes[kinds == mapdiff.ABSENT],
        gone=old_inodes[old_codes == mapdiff.ABSENT],
        renamed=new_inodes[(new_codes & mapdiff.RENAMED) != 0],
    )


def open_filesystem(
    device: BlockDevice, *, frozen: bool = False, live: bool = False, others: Sequence[BlockDevice] = ()
) -> Filesystem:
    """The reader of the file system that a device holds.

    Args:
        device: the device or image.
        frozen: the caller knows that the file system was frozen or unmounted when the mirror was split.
        live: the device is in use: its map is a hint, to be checked against the split mirror.
        others: devices among which a journal or log that is not on the device itself is looked for.

    The extents of its map refer to its ``device``, which is not the one given when a journal was replayed in memory:
    whoever reads files reads from there.

    Raises:
        Unsupported: it holds something else, which is named, or nothing known; or a feature that is not read.
        NeedsRecovery: its journal would have to be replayed first, and cannot be.
        Corrupt: its superblock fails its checks.
    """
    kind = probe(device)
    if kind in READERS:
        module, name = READERS[kind]
        reader = getattr(importlib.import_module(module), name)
        filesystem: Filesystem = reader(device, frozen=frozen, live=live, others=others)
        return filesystem
    what = f"reading {os.fsdecode(device.path)}"
    if kind is None:
        raise errors.Unsupported(what, "no known file system found on it", f"Check that it is the right device; {RAW}")
    advice = f"Back it up by other means until this version reads it; {RAW}"
    raise errors.Unsupported(what, f"it holds {kind}, which is not read by this version", advice)


def map_device(
    device: BlockDevice | str | bytes | os.PathLike[str], *, frozen: bool = False, live: bool = False
) -> ExtentMap:
    """The extent map of a device's file system; what was damaged stands in its ``problems``. See open_filesystem."""
    if isinstance(device, BlockDevice):
        return open_filesystem(device, frozen=frozen, live=live).map()
    with BlockDevice(device) as opened:
        return open_filesystem(opened, frozen=frozen, live=live).map()


def check(old: ExtentMap, device: BlockDevice, *, frozen: bool = False) -> tuple[ExtentMap, MapChanges]:
    """Map a split mirror again, and say what changed since ``old`` was made.

    Raises:
        SplitreelError: what open_filesystem, its reader and diff raise.
    """
    new = map_device(device, frozen=frozen)
    return new, diff(old, new)
