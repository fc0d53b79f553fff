"""A tape that splitreel wrote through /dev/nst0 is read from there by GNU tar and mt, as the tape itself says."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel.volume import JSON_MARK

from . import linux_tape, parts

README_BLOCKS = 2  # the label of 80 bytes and the text
SPARSE_SIZE = 8 << 20


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The drive that the kernel's st and sg have."""
    with linux_tape.attached(tmp_path_factory.mktemp("tape")) as node:
        yield node


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A file system with files of several kinds, and its device."""
    disk = parts.disks(1)[0]
    point = tmp_path_factory.mktemp("volume")
    parts.run("mkfs.ext4", "-q", disk)
    parts.run("mount", disk, str(point))
    fill(point)
    parts.run("umount", str(point))
    yield point, disk
    parts.run("mount", "-o", "ro", disk, str(point))
    parts.run("umount", str(point))


def fill(root: Path) -> None:
    """Small, large, sparse, linked, with attributes."""
    (root / "folder").mkdir()
    for number in range(40):
        (root / "folder" / f"small {number}").write_bytes(os.urandom(number * 517))
    (root / "large").write_bytes(os.urandom(5 << 20))
    with (root / "sparse").open("wb") as file:
        file.truncate(SPARSE_SIZE)
        file.seek(3 << 20)
        file.write(b"in the middle")
    os.link(root / "large", root / "linked")
    (root / "pointer").symlink_to("folder/small 3")
    os.setxattr(root / "large", "trusted.note", b"kept")
    os.chown(root / "folder", 12, 34)


def same(left: Path, right: Path) -> None:
    """Names, contents, kinds, modes, owners and times are equal; rsync's own comparison is not at hand."""
    for one, other in ((left, right), (right, left)):
        for path in sorted(one.rglob("*")):
            twin = other / path.relative_to(one)
            ours, theirs = path.lstat(), twin.lstat()
            assert (ours.st_mode, ours.st_uid, ours.st_gid) == (theirs.st_mode, theirs.st_uid, theirs.st_gid), path
            if path.is_symlink():
                assert path.readlink() == twin.readlink()
            elif path.is_file():
                assert path.read_bytes() == twin.read_bytes(), path
                assert ours.st_mtime_ns == theirs.st_mtime_ns, path


def commands(readme: str, heading: str) -> str:
    """The indented lines below a heading of the README block."""
    lines = readme[readme.index(heading) :].splitlines()[1:]
    found = []
    for line in lines:
        if not line.startswith("    "):
            break
        found.append(line[4:])
    return "\n".join(found)


def test_gnu_tar_reads_the_tape_by_its_own_commands(drive: str, volume: tuple[Path, str], tmp_path: Path) -> None:
    """README block by dd; its restore loop and its check, word for word, in bash; contents as they were."""
    point, disk = volume
    parts.run(*parts.SPLITREEL, "backup", "--state", str(tmp_path), "--device", disk, "--tape", drive)
    parts.run("mt", "-f", drive, "rewind")
    parts.run("mt", "-f", drive, "setblk", "0")
    blocks = [subprocess.check_output(["dd", f"if={drive}", "bs=1M", "count=1"]) for _ in range(README_BLOCKS)]
    assert blocks[0][:4] == b"VOL1" and len(blocks[0]) == 80
    readme = blocks[1].decode().partition(JSON_MARK)[0]
    restored = tmp_path / "restored"
    restored.mkdir()
    loop = commands(readme, "To restore everything").replace("TAPE=/dev/nst0", f"TAPE={drive}")
    assert "fsf 1" in loop
    subprocess.run(["bash", "-c", loop], cwd=restored, check=False, capture_output=True, timeout=250)
    checked = parts.run("bash", "-c", f"cd {restored}; {commands(readme, 'To check every file')}")
    assert re.search(r"segment-0001\.cksums: good", checked), checked
    parts.run("mount", "-o", "ro", disk, str(point))
    try:
        (restored / "dd.log").unlink()
        parts.run("rm", "-r", str(restored / ".splitreel"))
        same(point, restored)
        assert os.getxattr(restored / "large", "trusted.note") == b"kept"
        assert (restored / "large").stat().st_ino == (restored / "linked").stat().st_ino
        assert (restored / "sparse").stat().st_blocks * 512 < SPARSE_SIZE // 2
    finally:
        parts.run("umount", str(point))


def test_splitreel_reads_back_what_st_wrote_over(drive: str, volume: tuple[Path, str], tmp_path: Path) -> None:
    """After mt and dd have moved the tape, verify and restore find their places again; /dev/nst0 means its sg node."""
    _, disk = volume
    parts.run(*parts.SPLITREEL, "backup", "--state", str(tmp_path), "--overwrite", "--device", disk, "--tape", drive)
    parts.run("mt", "-f", drive, "rewind")
    parts.run("mt", "-f", drive, "fsf", "1")
    parts.run(*parts.SPLITREEL, "verify", "--state", str(tmp_path), "--tape", drive)
    assert "ONLINE" in parts.run("mt", "-f", drive, "status")
