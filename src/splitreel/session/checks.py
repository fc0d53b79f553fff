"""checks says, before a window opens, what would go wrong within it. It changes nothing."""

import ctypes
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from splitreel import quiesce
from splitreel.errors import MirrorError, QuiesceError, UsageError

FREE_BYTES = 64 << 20
DEPTH = 16  # of devices on files on devices
OCTAL = re.compile(rb"\\([0-7]{3})")  # how mountinfo writes a blank


def keep_apart(needed: Iterable[tuple[str, str]], frozen: Iterable[str]) -> None:
    """Refuse when anything needed during the window would wait for a file system that is frozen in it.

    Args:
        needed: what it is, and its path; what does not exist yet counts as its directory.
        frozen: mount points.

    Raises:
        UsageError: something stands on one of them, be it through loop devices, overlays or device mapper.
    """
    held = {Path(mount).stat().st_dev: mount for mount in frozen}
    for what, path in needed:
        for device in stands_on(path):
            if device in held:
                raise UsageError(
                    f"{what} {path}",
                    f"it lies on {held[device]}, which will be frozen: the session would wait for itself",
                    "Move it to another file system.",
                )


def is_frozen(mount: str, frozen: Iterable[str]) -> bool:
    """Whether the file system mounted at ``mount`` is among those frozen; "" where the mirrored one is not known.

    Only then may a mirror without a journal be read that looks as if it had crashed.
    """
    if not mount:
        return any(True for _ in frozen)
    try:
        return Path(mount).stat().st_dev in {Path(other).stat().st_dev for other in frozen}
    except OSError:
        return False


def own_files(state: Path, tape: str, others: Iterable[str]) -> list[tuple[str, str]]:
    """What this program writes to or waits for during a session."""
    needed = [("state directory", str(state)), ("directory for temporary files", tempfile.gettempdir())]
    if tape.startswith("file:"):
        needed.append(("tape", tape.removeprefix("file:")))
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        try:
            needed.append((name, str(Path(f"/proc/self/fd/{stream.fileno()}").readlink())))
        except (OSError, ValueError, AttributeError):
            continue
    needed += [("mirror's file", path) for path in others]
    return [(what, path) for what, path in needed if path.startswith("/") or what == "tape"]


def stands_on(path: str) -> set[int]:
    """The device numbers of every file system and block device that a write to ``path`` would go through."""
    found: set[int] = set()
    rest = [(_existing(Path(path)), 0)]
    while rest:
        place, depth = rest.pop()
        device = place.stat().st_dev
        if device in found or depth > DEPTH:
            continue
        found.add(device)
        for number in _below(device):
            found.add(number)
            rest += [(backing, depth + 1) for backing in _backing_files(number)]
        rest += [(upper, depth + 1) for upper in _overlay(device)]
    return found


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _below(device: int) -> set[int]:
    """A block device and all that it is made of, by sysfs."""
    found: set[int] = set()
    rest = [device]
    while rest:
        number = rest.pop()
        if number in found:
            continue
        found.add(number)
        node = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
        if node.exists():
            node = node.resolve()
            below = [*node.glob("slaves/*"), *([node.parent] if (node / "partition").exists() else [])]
            rest += [_number(entry) for entry in below if (entry / "dev").exists()]
    return found


def _number(node: Path) -> int:
    major, minor = (node / "dev").read_text().split(":")
    return os.makedev(int(major), int(minor))


def _backing_files(device: int) -> list[Path]:
    try:
        text = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/loop/backing_file").read_text()
    except OSError:
        return []
    backing = Path(text.rstrip("\n"))
    return [backing] if backing.exists() else []


def _overlay(device: int) -> list[Path]:
    """Where an overlay's writes go."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted and " - overlay " in line:
            uppers = [option[9:] for option in fields[-1].split(",") if option.startswith("upperdir=")]
            return [Path(upper) for upper in uppers if Path(upper).exists()]
    return []


def enough_space(state: Path) -> None:
    """Refuse a state directory without room for catalog and journal.

    Raises:
        UsageError: less than FREE_BYTES is free.
    """
    free = shutil.disk_usage(state).free
    if free < FREE_BYTES:
        raise UsageError(
            f"state directory {state}",
            f"{free >> 20} MiB are free, {FREE_BYTES >> 20} are needed",
            "Make room, or name another directory with --state.",
        )


def at_one_instant(files: Iterable[str], frozen: Iterable[str]) -> None:
    """Refuse files that are a copy only as of one instant when nothing sees to that: one volume, or all are frozen.

    Raises:
        QuiesceError: they are on several file systems, and one of these is not frozen.
    """
    devices = {Path(file).stat().st_dev: file for file in files}
    held = {Path(mount).stat().st_dev for mount in frozen}
    loose = [file for device, file in devices.items() if device not in held]
    if loose and len(devices) > 1:
        raise QuiesceError(
            f"file {loose[0]}",
            "it is on a file system that is not frozen, and other files of its database are on another one",
            "Add an fsfreeze for each volume of the database, or use a hot backup.",
        )


def write_back(mount: str) -> None:
    """Write dirty pages of the file system mounted there to its device, so that a live map of it is nearly true."""
    descriptor = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)


def device_of(mount: str) -> str:
    """The block device that is mounted at ``mount``.

    Raises:
        MirrorError: it is not a mount point of a block device.
    """
    number = Path(mount).stat().st_dev
    node = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not os.path.ismount(os.path.realpath(mount)) or not node.exists():
        raise MirrorError(f"mount {mount}", "no block device is mounted there", "Name the primary with `device`.")
    return f"/dev/{node.resolve().name}"


def distinct(primaries: Iterable[tuple[str, str]]) -> None:
    """Refuse two mirrors of one device: its files would be on tape twice, and its mirrors of two moments.

    Args:
        primaries: each mirror's name, and its primary's device; "" where that is not known.

    Raises:
        MirrorError: two are the same.
    """
    seen: dict[tuple[int, int], str] = {}
    for name, device in primaries:
        if device:
            at = Path(device).stat()
            key = (at.st_rdev, 0) if at.st_rdev else (at.st_dev, at.st_ino)
            if key in seen:
                raise MirrorError(name, f"its primary {device} is that of {seen[key]}, too", "Name each volume once.")
            seen[key] = name


def freezing(mount: str, settings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of a job's quiescers those that freeze this file system; all of them where it is not known which."""
    found = [entry for entry in settings if mount and is_frozen(mount, quiesce.create(entry).frozen())]
    return found or list(settings)


def within(mounts: Sequence[str], files: Iterable[str]) -> list[list[bytes]]:
    """The files of each mirrored volume, as paths from its root; ``mounts`` says where the volumes are mounted.

    A volume that is mounted somewhere below one of the files belongs to it as a whole.

    Raises:
        QuiesceError: one is on none of them: it would not be in a mirror.
    """
    roots = [os.path.realpath(mount) for mount in mounts]
    devices = [Path(root).stat().st_dev for root in roots]
    mounted = _mount_points()
    found: list[list[bytes]] = [[] for _ in roots]
    for file in files:
        path = os.path.realpath(file)
        number = Path(path).lstat().st_dev
        holding = [index for index, root in enumerate(roots) if devices[index] == number and _is_below(path, root)]
        if not holding:
            raise _outside(file, roots)
        inner = os.path.relpath(path, roots[holding[0]])
        found[holding[0]].append(b"" if inner == "." else os.fsencode(inner))
        for mount in (mount for mount in mounted if mount.startswith(path.rstrip("/") + "/")):
            if mount not in roots:
                raise _outside(mount, roots)
            found[roots.index(mount)].append(b"")
    return found


def _is_below(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root


def _mount_points() -> list[str]:
    """Where anything is mounted: none of it is in the mirror of the volume that the mount point is on."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return sorted({os.fsdecode(OCTAL.sub(_octal, line.split()[4])) for line in lines})


def _octal(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])


def _outside(file: str, roots: Sequence[str]) -> QuiesceError:
    if not roots:
        return QuiesceError("discover", "without `mount` the files' place on the volume is unknown", "Set `mount`.")
    where = f"not on the mirrored volume {roots[0]}"
    if len(roots) > 1:
        where = f"on none of the mirrored volumes {', '.join(roots)}"
    advice = "Put the whole database on that volume, or name each of its volumes in [[job.NAME.volumes]]."
    return QuiesceError(f"file {file}", f"it is {where}", advice)
