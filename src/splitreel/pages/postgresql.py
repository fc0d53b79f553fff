"""postgresql finds a PostgreSQL cluster in an image, and the files of its relations. It reads no page of them.

What a cluster is like stands in ``global/pg_control`` (catalog/pg_control.h; versions 11 to 18): sizes, whether pages
have checksums, and from where on recovery would read the log. Relations are files of digits under ``base``, ``global``
and the folders that bear the cluster's version in tablespaces, in segments ``.1``, ``.2`` and so on.
"""

import struct
from typing import Any

import numpy as np

from splitreel.core import checksum
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.errors import Corrupt, NotFound, Unsupported, UsageError
from splitreel.pages.content import DIRECTORY, REGULAR, children, named, read, regular_file, texts
from splitreel.pages.database import Database, Files

CONTROL = b"global/pg_control"
CONTROL_SIZE = 8192
FIRST_CONTROL_VERSION = 1100
FLOAT_FORMAT = struct.pack("<d", 1234567.0)  # a constant in the file; sizes follow it
SHUT_DOWN = (1, 2)  # as a primary, in recovery
LONGEST_NAME = 32  # of a relation's file: ten digits, _init, a dot, five digits
FORKS = (b"_fsm", b"_vm", b"_init")


def everywhere(extent_map: ExtentMap) -> list[bytes]:
    """The data directories of all clusters: whatever holds a ``global/pg_control``."""
    paths = [b"/" + extent_map.path_of(int(index)) for index in named(extent_map, b"pg_control")]
    return sorted(path[1 : -len(CONTROL)].rstrip(b"/") for path in paths if path.endswith(b"/" + CONTROL))


def lsn(text: str) -> int:
    """The number of an LSN that is written as two halves, ``16/B374D848``.

    Raises:
        UsageError: it is not.
    """
    high, slash, low = text.partition("/")
    try:
        if slash and 0 < len(high) <= 8 and 0 < len(low) <= 8:
            return int(high, 16) << 32 | int(low, 16)
    except ValueError:
        pass
    raise UsageError(f"LSN {text!r:.40}", "it is not two hexadecimal numbers with a slash between them")


def understand(extent_map: ExtentMap, device: BlockDevice, data: bytes) -> Database:
    """The cluster in this directory.

    Raises:
        NotFound: there is none. Unsupported: it is older than PostgreSQL 11. Corrupt: its pg_control is damaged.
    """
    file = regular_file(extent_map, _join(data, CONTROL))
    if file < 0:
        raise NotFound("checking pages", f"there is no {_shown(data, CONTROL)}", "Name the data directory.")
    control = read(extent_map, device, file, 0, CONTROL_SIZE)
    version = regular_file(extent_map, _join(data, b"PG_VERSION"))
    major = read(extent_map, device, version, 0, 16).strip() if version >= 0 else b""
    return _decode(control, data, major)


def _decode(control: bytes, data: bytes, major: bytes) -> Database:
    what = _shown(data, CONTROL)
    if len(control) < 512:
        raise Corrupt(what, "it is too short")
    version, catalog, state = struct.unpack_from("<III", control, 8)
    if version < FIRST_CONTROL_VERSION:
        raise Unsupported(what, f"version {version} of it, from before PostgreSQL 11, is not read")
    at = control.find(FLOAT_FORMAT, 64, 512)
    if at < 0 or at % 8:
        raise Corrupt(what, "its numbers are not in this machine's byte order, or it is no pg_control")
    page_size, segment_pages = struct.unpack_from("<II", control, at + 8)
    checksums = struct.unpack_from("<I", control, at + 44)[0]
    # its own checksum stands behind a nonce of 32 bytes; PostgreSQL 18 has a flag between
    ends = (at + 80, at + 84)
    if not any(struct.unpack_from("<I", control, end)[0] == checksum.crc32c(control[:end]) for end in ends):
        raise Corrupt(what, "its checksum does not match")
    redo, full_pages = struct.unpack_from("<Q", control, 40)[0], control[56]
    repairs = state not in SHUT_DOWN and full_pages
    folder = b"PG_%s_%d" % (major, catalog)
    return Database(
        "postgresql",
        data,
        page_size,
        checksums=checksums != 0,
        start_lsn=redo if repairs else 0,
        segment_pages=segment_pages,
        version_folder=folder,
    )


def files(extent_map: ExtentMap, database: Database) -> Files:
    """The files that hold the relations of a cluster.

    Where recovery runs, unlogged relations are left out: it makes them anew from their ``_init`` forks.
    """
    folders = _folders(extent_map, database)
    found = children(extent_map, folders, REGULAR)
    sizes = np.asarray(extent_map.names)["name_size"][found]
    batches = [_relations(*batch) for batch in texts(extent_map, found[sizes <= LONGEST_NAME], len(b"_init"))]
    if not batches:
        return Files(*(np.zeros(0, np.int64) for _ in range(3)))
    names, relations, forks, segments = (np.concatenate(column) for column in zip(*batches, strict=True))
    if database.start_lsn:
        parents = np.asarray(extent_map.names)["parent"][names].astype(np.uint64) << np.uint64(32) | relations
        kept = ~np.isin(parents, parents[forks == FORKS.index(b"_init") + 1]) | (forks == FORKS.index(b"_init") + 1)
        names, segments = names[kept], segments[kept]
    indexes = np.asarray(extent_map.names)["file"][names]
    return Files(indexes, (segments * database.segment_pages).astype(np.uint32), np.zeros(len(indexes), np.uint8))


def _folders(extent_map: ExtentMap, database: Database) -> Any:
    """Names of the directories that hold relations: ``global``, and those of databases."""
    above = [extent_map.find(_join(database.data, b"base")), *named(extent_map, database.version_folder)]
    below = children(extent_map, [name for name in above if name >= 0], DIRECTORY)
    return np.append(below, max(0, extent_map.find(_join(database.data, b"global"))))


def _relations(batch: Any, text: Any, sizes: Any) -> tuple[Any, Any, Any, Any]:
    """Of these names those of relation files: names, relation numbers, forks (0 the main one), segments."""
    rows = np.arange(len(batch))
    is_digit = (text >= ord("0")) & (text <= ord("9"))
    digits = np.argmin(is_digit, axis=1)  # a zero stands behind every name
    forks = np.zeros(len(batch), np.int64)
    ends = digits.copy()
    for number, fork in enumerate(FORKS, 1):
        places = np.minimum(digits[:, None] + np.arange(len(fork)), text.shape[1] - 1)
        same = (text[rows[:, None], places] == list(fork)).all(axis=1)
        forks[same] = number
        ends[same] += len(fork)
    dotted = text[rows, np.minimum(ends, text.shape[1] - 1)] == ord(".")
    columns = np.arange(text.shape[1])
    tail = (columns > ends[:, None]) & (columns < sizes[:, None])
    counted = dotted & (sizes > ends + 1) & (is_digit | ~tail).all(axis=1)
    right = (digits > 0) & (digits <= 10) & ((ends == sizes) | counted)
    segments = _number(text, tail & dotted[:, None])
    relations = _number(text, columns < digits[:, None])
    return batch[right], relations[right].astype(np.uint64), forks[right], segments[right]


def _number(text: Any, chosen: Any) -> Any:
    """The decimal numbers that the chosen columns of each row spell."""
    value = np.zeros(len(text), np.int64)
    for column in range(text.shape[1]):
        value = np.where(chosen[:, column], value * 10 + (text[:, column].astype(np.int64) - ord("0")), value)
    return value


def _join(data: bytes, path: bytes) -> bytes:
    return data + b"/" + path if data else path


def _shown(data: bytes, path: bytes) -> str:
    return _join(data, path).decode("utf-8", "backslashreplace")
