"""innodb finds a MariaDB or MySQL data directory in an image, and its tablespaces. It reads only their first page.

Tablespaces are ``ibdata*`` (the system's, one after another), ``undo*`` and ``*.ibd`` in the data directory, and
``*.ibd`` in the directories of its databases. Temporary ones (``ibtmp*``) are made anew at every start.
"""

import re
from typing import Any

import numpy as np

from splitreel.core import pages_innodb
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.core.pages import SYSTEM
from splitreel.errors import NotFound
from splitreel.pages.content import DIRECTORY, REGULAR, children, named, read, regular_file, texts
from splitreel.pages.database import Database, Files

FIRST = b"ibdata1"
SYSTEM_NAME = re.compile(rb"ibdata(\d+)")
UNDO_NAME = re.compile(rb"undo_?\d{3}")
DEFAULT_PAGE = 16384


def everywhere(extent_map: ExtentMap) -> list[bytes]:
    """The directories of all system tablespaces."""
    paths = (extent_map.path_of(int(index)) for index in named(extent_map, FIRST))
    return sorted(path.rpartition(b"/")[0] for path in paths)


def understand(extent_map: ExtentMap, device: BlockDevice, data: bytes) -> Database:
    """The data directory.

    Raises:
        NotFound: it holds no ``ibdata1``.
    """
    path = data + b"/" + FIRST if data else FIRST
    file = regular_file(extent_map, path)
    if file < 0:
        why = f"there is no {path.decode('utf-8', 'backslashreplace')}"
        raise NotFound("checking pages", why, "Name the data directory.")
    first = read(extent_map, device, file, 0, 4096)
    page_size = pages_innodb.describe(first)["page_size"] if len(first) == 4096 else DEFAULT_PAGE
    return Database("innodb", data, int(page_size))


def files(extent_map: ExtentMap, database: Database) -> Files:
    """Its tablespaces."""
    top = extent_map.find(database.data)
    below = children(extent_map, [top], REGULAR)
    tables = children(extent_map, np.append(children(extent_map, [top], DIRECTORY), top), REGULAR)
    tables = _ending(extent_map, tables, b".ibd")
    system, undo = [], []
    for name in below.tolist():
        text = extent_map.path_of(name).rpartition(b"/")[2]
        if found := SYSTEM_NAME.fullmatch(text):
            system.append((int(found[1]), name))
        elif UNDO_NAME.fullmatch(text):
            undo.append(name)
    ordered = [name for _, name in sorted(system)]
    chosen = np.array([*ordered, *undo, *tables.tolist()], np.int64)
    indexes = np.asarray(extent_map.names)["file"][chosen]
    first_pages, flags = np.zeros(len(chosen), np.uint32), np.zeros(len(chosen), np.uint8)
    sizes = np.asarray(extent_map.files)["size"][indexes[: len(ordered)]].astype(np.int64)
    pages_before = np.cumsum(sizes // database.page_size) - sizes // database.page_size
    first_pages[: len(ordered)] = pages_before
    flags[: len(ordered)] = SYSTEM
    return Files(indexes, first_pages, flags)


def _ending(extent_map: ExtentMap, chosen: Any, ending: bytes) -> Any:
    """Those of these names that end so."""
    found = [np.zeros(0, np.int64)]
    for batch, text, sizes in texts(extent_map, chosen, 0):
        places = np.maximum(sizes[:, None] - len(ending) + np.arange(len(ending)), 0)
        same = (np.take_along_axis(text, places, axis=1) == list(ending)).all(axis=1)
        found.append(batch[same & (sizes > len(ending))])
    return np.concatenate(found)
