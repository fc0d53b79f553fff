"""inuse tells who else has a device or image file: mounts, devices on top of it, loop devices. It changes nothing.

What is mounted in another mount namespace alone is not seen here; the kernel's own claim (O_EXCL) sees that too.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from splitreel.errors import MirrorError


def users(path: str, but: str = "") -> list[str]:
    """Who uses it, in words; a device on top of it named ``but`` does not count.

    Raises:
        OSError: there is no such file.
    """
    status = Path(path).stat()
    found = [f"attached to /dev/{loop}" for loop in _loops(status)]
    if not stat.S_ISBLK(status.st_mode):
        return found
    numbers = [status.st_rdev, *_partitions(status.st_rdev)]
    for number in numbers:
        found += [f"held by {holder}" for holder in _holders(number) if holder != but]
    return found + [f"mounted at {point}" for number, point, _ in _mounts() if number in numbers]


def written_at(path: str) -> list[str]:
    """Where it, a partition of it or a loop device over it is mounted for writing; [] where there is no such file."""
    try:
        status = Path(path).stat()
    except OSError:
        return []
    numbers = {_number(Path(f"/sys/block/{loop}/dev")) for loop in _loops(status)}
    if stat.S_ISBLK(status.st_mode):
        numbers.add(status.st_rdev)
    numbers |= {part for number in numbers for part in _partitions(number)}
    return [point for number, point, writable in _mounts() if number in numbers and writable]


def refuse_itself(name: str, image: str, device: str) -> None:
    """Refuse a mirror's image that is the primary's device, or the file beneath it.

    Raises:
        MirrorError: it is.
    """
    try:
        nodes = beneath(device)
    except OSError:  # a primary in an image file
        nodes = set()
    files = [Path(device), *(Path(f"/dev/{node}") for node in nodes)]
    files += [backing for node in nodes if (backing := backing_file(node)) is not None]
    if any(same_file(Path(image), file) for file in files):
        raise MirrorError(name, f"{image} is the primary itself, which is written to", "Correct `image`.")


def beneath(device: str) -> set[str]:
    """The kernel names of a block device and of all that it is made of: partitions' disks, volumes' members.

    Raises:
        OSError: there is no such block device.
    """
    found: set[str] = set()
    status = Path(device).stat()
    if not stat.S_ISBLK(status.st_mode):
        raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK), device)
    rest = [_sysfs(status.st_rdev).resolve()]
    while rest:
        node = rest.pop()
        if node.name in found or not (node / "dev").exists():
            continue
        found.add(node.name)
        rest += [entry.resolve() for entry in node.glob("slaves/*")]
        if (node / "partition").exists():
            rest.append(node.parent)
    return found


def backing_file(loop: str) -> Path | None:
    """The file of the loop device of that kernel name, or None."""
    try:
        return Path(Path(f"/sys/block/{loop}/loop/backing_file").read_text().rstrip("\n"))
    except OSError:
        return None


def same_file(path: Path, other: Path) -> bool:
    """Whether both are one file or one device; False when either is not there."""
    try:
        return _identity(path.stat()) == _identity(other.stat())
    except OSError:
        return False


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_rdev,) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)


def _loops(wanted: os.stat_result) -> Iterator[str]:
    for entry in sorted(Path("/sys/block").glob("loop*")):
        backing = backing_file(entry.name)
        try:
            if backing is not None and _identity(backing.stat()) == _identity(wanted):
                yield entry.name
        except OSError:
            continue


def _sysfs(number: int) -> Path:
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")


def _partitions(number: int) -> list[int]:
    """The device numbers of a disk's partitions."""
    return [_number(entry / "dev") for entry in _sysfs(number).glob("*/") if (entry / "partition").exists()]


def _number(path: Path) -> int:
    major, minor = path.read_text().split(":")
    return os.makedev(int(major), int(minor))


def _holders(number: int) -> list[str]:
    return sorted(entry.name for entry in _sysfs(number).glob("holders/*"))


def _mounts() -> Iterator[tuple[int, str, bool]]:
    """(device number, mount point, whether the file system is writable) of this namespace; proc_pid_mountinfo(5)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        major, minor = fields[2].split(":")
        yield os.makedev(int(major), int(minor)), fields[4], "rw" in fields[-1].split(",")
