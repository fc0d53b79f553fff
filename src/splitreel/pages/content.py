"""content finds names in a map and reads a little of a file from the device. It streams nothing.

Names are compared as columns: a database may have a million files.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap

EXTENT_UNWRITTEN = 0x800
FILE_INLINE = 8
FILE_DAMAGED = 1
TYPE_MASK, REGULAR, DIRECTORY = 0o170000, 0o100000, 0o040000
BATCH = 65536  # names compared at a time


def read(extent_map: ExtentMap, device: BlockDevice, file: int, start: int, size: int) -> bytes:
    """Bytes of a file (an index into files) from ``start`` on, holes as zeros; fewer where it ends."""
    row = np.asarray(extent_map.files)[file]
    size = max(0, min(size, int(row["size"]) - start))
    if int(row["flags"]) & FILE_INLINE:
        return (extent_map.target(file) or b"")[start : start + size].ljust(size, b"\0")
    block, first = extent_map.block_size, int(row["first_extent"])
    extents = np.asarray(extent_map.extents)[first : first + int(row["extent_count"])]
    out = bytearray(size)
    begin, end = extents["logical"] * block, (extents["logical"] + extents["count"]) * block
    wanted = (begin < start + size) & (end > start) & (extents["flags"] & EXTENT_UNWRITTEN == 0)
    for extent in extents[wanted]:
        at = max(start, int(extent["logical"]) * block)
        stop = min(start + size, (int(extent["logical"]) + int(extent["count"])) * block)
        offset = int(extent["physical"]) * block + at - int(extent["logical"]) * block
        out[at - start : stop - start] = device.pread(offset, stop - at)
    return bytes(out)


def regular_file(extent_map: ExtentMap, path: bytes) -> int:
    """Index into files of a sound regular file; below 0: there is none."""
    name = extent_map.find(path)
    if name < 0:
        return -1
    index = int(np.asarray(extent_map.names)["file"][name])
    row = np.asarray(extent_map.files)[index]
    sound = int(row["mode"]) & TYPE_MASK == REGULAR and not int(row["flags"]) & FILE_DAMAGED
    return index if sound else -1


def children(extent_map: ExtentMap, folders: Any, kind: int) -> Any:
    """Names (indexes, ascending) of one kind of file right below these names, which are directories."""
    names = np.asarray(extent_map.names)
    below = np.isin(names["parent"], folders)
    below[0] = False  # the root is its own parent
    found = np.flatnonzero(below)
    modes = np.asarray(extent_map.files)["mode"][names["file"][found]]
    return found[modes & TYPE_MASK == kind]


def named(extent_map: ExtentMap, name: bytes) -> Any:
    """Names (indexes) that are this one, wherever they are."""
    sizes = np.asarray(extent_map.names)["name_size"]
    found = np.flatnonzero(sizes == len(name))
    chosen = [batch[(text[:, : len(name)] == list(name)).all(axis=1)] for batch, text, _ in texts(extent_map, found, 0)]
    return np.concatenate(chosen) if chosen else found


def texts(extent_map: ExtentMap, chosen: Any, room: int) -> Iterator[tuple[Any, Any, Any]]:
    """Batches of names (indexes), their bytes as rows with at least ``room`` + 1 zeros behind each, their sizes."""
    names, heap = np.asarray(extent_map.names), np.asarray(extent_map.name_bytes)
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        sizes = names["name_size"][batch].astype(np.int64)
        columns = np.arange(int(sizes.max()) + room + 1)
        places = names["name_offset"][batch].astype(np.int64)[:, None] + columns
        inside = columns < sizes[:, None]
        yield batch, np.where(inside, heap[np.where(inside, places, 0)], 0), sizes
