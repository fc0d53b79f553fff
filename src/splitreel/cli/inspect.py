"""inspect holds the verbs map and cat: what a file system holds and where, and a file's bytes. It writes no tape."""

import argparse
import base64
import json
import os
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from splitreel import errors
from splitreel.cli import output, source
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap, unpack_nanoseconds
from splitreel.mapping import problems

FILE_DAMAGED, FILE_XATTRS, FILE_TARGET, FILE_INLINE = 1, 2, 4, 8
EXTENT_INLINE, EXTENT_UNWRITTEN = 0x200, 0x800
BATCH = 4096  # paths turned into lines at a time
PIECE = 1 << 20  # bytes read at a time
TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "chr",
    stat.S_IFBLK: "blk",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "sock",
}
encode_json = json.JSONEncoder(separators=(",", ":")).encode


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verbs."""
    parser = verbs.add_parser("map", help="print where every file of a file system stands on its device")
    parser.add_argument("device", metavar="DEVICE", help="block device or image file")
    add_trust(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line: the file system, then every path")
    parser.add_argument("--stats", action="store_true", help="counts and seconds on standard error")
    parser.add_argument("--save", metavar="FILE", help="save the map, to be used by another command or machine")
    parser.add_argument("--strict", action="store_true", help="stop at the first damaged object")
    parser.set_defaults(run=run_map)
    parser = verbs.add_parser("cat", help="write a file's bytes to standard output")
    parser.add_argument("device", metavar="DEVICE", help="block device or image file")
    parser.add_argument("path", metavar="PATH", help="path inside the file system; symbolic links are not followed")
    add_trust(parser)
    parser.set_defaults(run=run_cat)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The options that say what is inside the device, and in which state."""
    source.add_options(parser)
    state = parser.add_mutually_exclusive_group()
    state.add_argument("--frozen", action="store_true", help="it was frozen or unmounted when the mirror was split")
    state.add_argument("--live", action="store_true", help="the device is in use: what is printed is a hint only")


# map


def run_map(args: argparse.Namespace) -> int:
    """The verb map: exit code 3 when something was damaged."""
    began = time.monotonic()
    with source.opened(args) as devices:
        extent_map = source.mapped(args, devices).map
    mapped = time.monotonic()
    if args.strict and extent_map.problem_count:
        inode, offset, text = extent_map.problems[0]
        raise errors.Corrupt(f"mapping {args.device}, inode {inode}, offset {offset}", text)
    if args.save:
        extent_map.save(args.save)
    if args.json:
        print_json(extent_map)
    else:
        print_summary(extent_map)
    sys.stdout.flush()
    report_problems(extent_map)
    if args.stats:
        print_stats(extent_map, mapped - began, time.monotonic() - mapped, args.json)
    return errors.EXIT_DATA if extent_map.problem_count else errors.EXIT_DONE


def report_problems(extent_map: ExtentMap) -> None:
    """Every damaged object on a line of standard error."""
    for problem in problems(extent_map):
        output.note(f"splitreel: damaged: {problem}")


def print_stats(extent_map: ExtentMap, map_seconds: float, print_seconds: float, as_json: bool) -> None:
    """Counts and seconds on standard error."""
    record = {
        "kind": "stats",
        "files": extent_map.file_count,
        "names": extent_map.name_count,
        "extents": extent_map.extent_count,
        "problems": extent_map.problem_count,
        "map_seconds": round(map_seconds, 6),
        "print_seconds": round(print_seconds, 6),
    }
    if as_json:
        output.note(encode_json(record))
    else:
        output.note(", ".join(f"{key} {value}" for key, value in record.items() if key != "kind"))


def print_summary(extent_map: ExtentMap) -> None:
    """A few lines for people."""
    files, extents = np.asarray(extent_map.files), np.asarray(extent_map.extents)
    kinds, counts = np.unique(files["mode"] & stat.S_IFMT(0xFFFF), return_counts=True)
    by_kind = ", ".join(f"{count} {TYPES.get(int(kind), 'unknown')}" for kind, count in zip(kinds, counts, strict=True))
    blocks = int(extents["count"].sum(dtype=np.uint64))
    unwritten = int(extents["count"][(extents["flags"] & EXTENT_UNWRITTEN) != 0].sum(dtype=np.uint64))
    block = extent_map.block_size
    print(f"{extent_map.fs_type} {uuid.UUID(bytes=extent_map.uuid)}, blocks of {block} bytes")
    print(f"{len(files)} inodes ({by_kind}), {extent_map.name_count} names")
    print(f"{len(extents)} extents, {output.size(blocks * block)}, of them unwritten {output.size(unwritten * block)}")
    if extent_map.problem_count:
        print(f"{extent_map.problem_count} damaged objects")


def print_json(extent_map: ExtentMap) -> None:
    """The file system's line, then a line for every path, sorted by the bytes of the paths."""
    head = {
        "kind": "fs",
        "type": extent_map.fs_type,
        "uuid": str(uuid.UUID(bytes=extent_map.uuid)),
        "block_size": extent_map.block_size,
        "files": extent_map.name_count,
    }
    out = sys.stdout.buffer
    sys.stdout.flush()
    out.write(encode_json(head).encode() + b"\n")
    for batch in json_batches(extent_map):
        out.write(batch)
    out.flush()


def json_batches(extent_map: ExtentMap) -> Iterator[bytes]:
    """The lines of all paths, some thousand at a time."""
    order = np.asarray(extent_map.path_order())
    names = np.asarray(extent_map.names)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        records = file_records(extent_map, names["file"][chosen])
        for record, index in zip(records, chosen.tolist(), strict=True):
            record["path"] = output.display(extent_map.path_of(index))
        yield "".join(encode_json(record) + "\n" for record in records).encode("ascii")


def file_records(extent_map: ExtentMap, indexes: Any) -> list[dict[str, Any]]:
    """The JSON objects of files, in the contract's order of keys; "path" is for the caller to fill in."""
    chosen = np.asarray(extent_map.files)[indexes]
    rows = zip(*(chosen[name].tolist() for name in FIELDS), strict=True)
    extents = extent_lists(extent_map, chosen)
    return [
        file_record(extent_map, index, row, extent_list)
        for index, row, extent_list in zip(indexes.tolist(), rows, extents, strict=True)
    ]


FIELDS = ("inode", "mode", "uid", "gid", "size", "link_count", "mtime", "ctime", "rdev", "flags")


def file_record(extent_map: ExtentMap, index: int, row: tuple[Any, ...], extents: list[list[int]]) -> dict[str, Any]:
    """One file's JSON object from the values of FIELDS."""
    inode, mode, uid, gid, size, link_count, mtime, ctime, rdev, flags = row
    kind = TYPES.get(stat.S_IFMT(mode), "unknown")
    record = {
        "kind": "file",
        "path": "",
        "type": kind,
        "ino": inode,
        "mode": stat.S_IMODE(mode),
        "uid": uid,
        "gid": gid,
        "size": size,
        "nlink": link_count,
        "mtime_ns": unpack_nanoseconds(mtime),
        "ctime_ns": unpack_nanoseconds(ctime),
    }
    if kind == "symlink" and flags & FILE_TARGET:
        record["target"] = output.display(extent_map.target(index) or b"")
    if kind in ("chr", "blk"):
        record["rdev"] = [rdev >> 20, rdev & 0xFFFFF]
    if flags & FILE_XATTRS:
        record["xattrs"] = {n: base64.b64encode(v).decode("ascii") for n, v in extent_map.xattrs(index).items()}
    if kind in ("file", "dir") or extents:
        record["extents"] = extents
    return record


def extent_lists(extent_map: ExtentMap, files: Any) -> Iterator[list[list[int]]]:
    """For each of the given files its extents in bytes, flags as in linux/fiemap.h."""
    extents, block = np.asarray(extent_map.extents), extent_map.block_size
    rows = zip(files["first_extent"].tolist(), files["extent_count"].tolist(), files["size"].tolist(), strict=True)
    for first, count, size in rows:
        yield [
            [logical * block, physical * block, size if flags & EXTENT_INLINE else blocks * block, flags]
            for logical, physical, blocks, flags in extents[first : first + count].tolist()
        ]


# cat


def run_cat(args: argparse.Namespace) -> int:
    """The verb cat."""
    path = os.fsencode(args.path)
    with source.opened(args) as devices:
        found = source.mapped(args, devices)
        index = find_file(found.map, path)
        sys.stdout.flush()
        for piece in file_pieces(found.map, index, found.device):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return errors.EXIT_DONE


def find_file(extent_map: ExtentMap, path: bytes) -> int:
    """Index into files of a path that names a regular, sound file."""
    what = f"cat {output.printable(path)}"
    name = extent_map.find(path)
    if name < 0:
        raise errors.NotFound(
            what, "no such path in the file system", "List the paths with: splitreel map DEVICE --json"
        )
    index = int(np.asarray(extent_map.names)["file"][name])
    file = np.asarray(extent_map.files)[index]
    kind = TYPES.get(stat.S_IFMT(int(file["mode"])), "unknown")
    if kind == "symlink":
        target = output.printable(extent_map.target(index) or b"")
        raise errors.UsageError(
            what, f"it is a symbolic link to {target}", "Name the file itself: links are not followed."
        )
    if kind != "file":
        raise errors.UsageError(what, f"it is no regular file but of type {kind}", "Name a regular file.")
    if file["flags"] & FILE_DAMAGED:
        damage = [text for inode, _, text in extent_map.problems if inode == file["inode"]]
        raise errors.Corrupt(what, "; ".join(damage) or "its metadata are damaged")
    return index


def file_pieces(extent_map: ExtentMap, index: int, device: BlockDevice) -> Iterator[bytes]:
    """A file's bytes in pieces of at most 1 MiB; holes and unwritten extents as zeros."""
    file = np.asarray(extent_map.files)[index]
    size, block = int(file["size"]), extent_map.block_size
    if file["flags"] & FILE_INLINE:
        yield (extent_map.target(index) or b"")[:size].ljust(size, b"\0")
        return
    first, done = int(file["first_extent"]), 0
    rows = np.asarray(extent_map.extents)[first : first + int(file["extent_count"])]
    for logical, physical, count, flags in (row.item() for row in rows):
        start, end = min(logical * block, size), min((logical + count) * block, size)
        yield from zeros(start - done)
        if flags & EXTENT_UNWRITTEN:
            yield from zeros(end - start)
        else:
            offset = physical * block
            for at in range(0, end - start, PIECE):
                yield device.pread(offset + at, min(PIECE, end - start - at))
        done = end
    yield from zeros(size - done)


def zeros(count: int) -> Iterator[bytes]:
    """count zero bytes, in pieces."""
    piece = bytes(min(count, PIECE))
    for at in range(0, count, PIECE):
        yield piece[: count - at]
