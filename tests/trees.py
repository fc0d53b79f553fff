"""trees compares directory trees by what the kernel says of them, entry by entry. It follows no link."""

import hashlib
import os
import stat
from typing import Any

SEEK_DATA, SEEK_HOLE = 3, 4
PAGE = 4096


def holes(descriptor: int, size: int) -> list[tuple[int, int]]:
    """The data ranges of an open file, as SEEK_DATA and SEEK_HOLE tell them."""
    found, at = [], 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, SEEK_DATA)
        except OSError:
            break
        at = os.lseek(descriptor, start, SEEK_HOLE)
        found.append((start, at))
    return found


def content(descriptor: int, ranges: list[tuple[int, int]]) -> str:
    """A digest of the pages that are not zeros, with where they stand: the same whatever of the zeros is a hole."""
    digest = hashlib.blake2b()
    for start, end in ranges:
        for at in range(start // PAGE * PAGE, end, 256 * PAGE):
            data = os.pread(descriptor, min(256 * PAGE, end - at), at)
            for i in range(0, len(data) if data.strip(b"\0") else 0, PAGE):
                page = data[i : i + PAGE].rstrip(b"\0")
                digest.update(b"%d:" % (at + i) + page if page else b"")
    return digest.hexdigest()


def attributes(where: str | bytes | int, follow: bool) -> dict[str, bytes]:
    """All extended attributes that the kernel shows."""
    names = os.listxattr(where, follow_symlinks=follow)
    return {name: os.getxattr(where, name, follow_symlinks=follow) for name in names}


def describe(name: bytes, parent: int, inodes: dict[int, str], path: str) -> dict[str, Any]:
    """Everything about one entry that a backup must bring back."""
    status = os.lstat(name, dir_fd=parent)
    place = b"/proc/self/fd/%d/%s" % (parent, name)
    record: dict[str, Any] = {
        "mode": status.st_mode,
        "owner": (status.st_uid, status.st_gid),
        "mtime": status.st_mtime_ns,
        "xattrs": attributes(place, False),
    }
    if not stat.S_ISDIR(status.st_mode):
        record["first name"] = inodes.setdefault(status.st_ino, path)
        record["links"] = status.st_nlink
    if stat.S_ISLNK(status.st_mode):
        record["target"] = os.readlink(name, dir_fd=parent)
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        record["device"] = status.st_rdev
    if stat.S_ISREG(status.st_mode):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
        ranges = holes(descriptor, status.st_size)
        record |= {"size": status.st_size, "content": content(descriptor, ranges), "allocated": status.st_blocks * 512}
        os.close(descriptor)
    return record


def tree(root: str | os.PathLike[str], leave_out: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Every entry below ``root`` by path; the root itself as "."; sockets left out, which no archive holds."""
    found: dict[str, dict[str, Any]] = {}
    inodes: dict[int, str] = {}

    def visit(descriptor: int, path: str) -> None:
        for name in sorted(os.listdir(descriptor)):
            encoded, below = os.fsencode(name), f"{path}{name}"
            if below in leave_out or stat.S_ISSOCK(os.lstat(encoded, dir_fd=descriptor).st_mode):
                continue
            found[below] = describe(encoded, descriptor, inodes, below)
            if stat.S_ISDIR(found[below]["mode"]):
                inner = os.open(encoded, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                visit(inner, below + "/")
                os.close(inner)

    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    found["."] = describe(b".", top, inodes, ".")
    visit(top, "")
    os.close(top)
    return found


def differences(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> list[str]:
    """What differs, in words; restored files may not take more space than their source by more than a block a piece."""
    found = [f"only in one: {path}" for path in sorted(one.keys() - other.keys())]
    found += [f"only in the other: {path}" for path in sorted(other.keys() - one.keys())]
    for path in sorted(one.keys() & other.keys()):
        for key, value in one[path].items():
            seen = other[path].get(key)
            if key == "allocated":
                if seen > value + 65536:
                    found.append(f"{path}: takes {seen} bytes instead of {value}")
            elif seen != value:
                found.append(f"{path}: {key} is {seen!r:.200}, was {value!r:.200}")
    return found
