"""The ends and the state of a log, against xfs_logprint; images are copied as a mirror is split."""

import os
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.core.device import BlockDevice
from splitreel.core.xfs_log import examine
from tests.support import need_programs, need_root, unmount

BASIC_BLOCK = 512
RECORD = struct.pack(">I", 0xFEEDBABE)
OPTIONS = {"plain": [], "stripe": ["-l", "su=256k"], "sectors": ["-s", "size=4096"], "small": ["-b", "size=1024"]}


def sync_files(folder: Path, count: int, first: int = 0) -> None:
    """Each file of its own transaction, forced into the log."""
    for number in range(first, first + count):
        fd = os.open(folder / f"file{number}", os.O_CREAT | os.O_RDWR)
        os.write(fd, b"x" * 5000)
        os.fsync(fd)
        os.close(fd)


def copy(image: Path, name: str) -> Path:
    """The backing file as it is now: the loop device's own page cache may be ahead of it."""
    target = image.with_name(name)
    subprocess.run(["cp", "--sparse=always", image, target], check=True)
    return target


@pytest.fixture(scope="module", params=OPTIONS)
def states(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """One file system as mkfs made it, in use, frozen, and unmounted."""
    need_root()
    need_programs("mkfs.xfs", "xfs_logprint", "fsfreeze")
    folder = tmp_path_factory.mktemp("log")
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", *OPTIONS[request.param], image], check=True)
    made = {"made": copy(image, "made")}
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        sync_files(mount, 400)  # with records of 256 KiB this goes round a log of 64 MiB
        made["busy"] = copy(image, "busy")
        subprocess.run(["fsfreeze", "-f", mount], check=True)
        made["frozen"] = copy(image, "frozen")
        subprocess.run(["fsfreeze", "-u", mount], check=True)
    finally:
        unmount(mount)
    made["clean"] = copy(image, "clean")
    yield made
    shutil.rmtree(folder)


def printed(image: Path) -> tuple[str, int, int]:
    """State, tail and head as xfs_logprint finds them; it calls a frozen log dirty."""
    done = subprocess.run(["xfs_logprint", "-t", image], capture_output=True, text=True, check=False)
    found = re.search(r"log tail: (\d+) head: (\d+) state: <(\w+)>", done.stdout)
    assert found, done.stdout
    return found[3].lower(), int(found[1]), int(found[2])


@pytest.mark.parametrize("name", ["made", "busy", "frozen", "clean"])
def test_finds_both_ends_where_xfs_logprint_finds_them(states: dict[str, Path], name: str) -> None:
    """Also round the end of the log, with stripes, and in a log that mkfs alone has written to."""
    with BlockDevice(states[name]) as device:
        state, tail, head = examine(device)
    want = printed(states[name])

    assert (tail, head) == want[1:]
    assert ("clean" if state == "clean" else "dirty") == want[0]


@pytest.mark.parametrize(
    ("name", "state"), [("made", "clean"), ("busy", "dirty"), ("frozen", "frozen"), ("clean", "clean")]
)
def test_tells_a_freeze_from_a_crash(states: dict[str, Path], name: str, state: str) -> None:
    """Both leave records behind the tail; after a freeze they hold the superblock and nothing else."""
    with BlockDevice(states[name]) as device:
        assert examine(device)[0] == state


def log_place(image: Path) -> tuple[int, int]:
    """First byte of the log and its size, from the superblock by hand."""
    with image.open("rb") as file:
        block = file.read(512)
    size, ag_blocks, ag_log = struct.unpack_from(">I", block, 4)[0], struct.unpack_from(">I", block, 84)[0], block[124]
    start, blocks = struct.unpack_from(">Q", block, 48)[0], struct.unpack_from(">I", block, 96)[0]
    return ((start >> ag_log) * ag_blocks + (start & ((1 << ag_log) - 1))) * size, blocks * size


def test_a_torn_record_is_not_the_last(states: dict[str, Path]) -> None:
    """A power cut in the middle of the last record: the head is before it, as if it had never been begun."""
    image = copy(states["busy"], "torn")
    start, size = log_place(image)
    _, _, head = printed(states["busy"])
    with image.open("r+b") as file:
        file.seek(start)
        log = file.read(size)
        block = (head - 1) % (size // BASIC_BLOCK)
        while log[block * BASIC_BLOCK :][:4] != RECORD:
            block -= 1
        file.seek(start + block * BASIC_BLOCK + 600)  # behind the header, not in a cycle number
        file.write(bytes(byte ^ 0x55 for byte in log[block * BASIC_BLOCK + 600 :][:8]))
    with BlockDevice(image) as device:
        assert examine(device)[2] == block


def test_a_record_damaged_behind_the_newest_ends_the_map(states: dict[str, Path]) -> None:
    """Between tail and head nothing may be missing: what was logged there is nowhere else."""
    image = copy(states["busy"], "damaged")
    start, _ = log_place(image)
    _, tail, _ = printed(states["busy"])
    with image.open("r+b") as file:
        file.seek(start + tail * BASIC_BLOCK + 12)
        file.write(b"\xff\xff")
    with BlockDevice(image) as device, pytest.raises(errors.Corrupt, match="between tail and head"):
        examine(device)


def test_a_wild_log_ends_in_a_named_error_or_a_state(states: dict[str, Path]) -> None:
    """300 seeded injuries of headers: never a crash, never a hang, never another exception than ours."""
    image = copy(states["busy"], "wild")
    start, size = log_place(image)
    chance = random.Random(7)
    with image.open("r+b") as file:
        file.seek(start)
        log = bytearray(file.read(size))
        headers = [at for at in range(0, size, BASIC_BLOCK) if log[at : at + 4] == RECORD]
        for _ in range(300):
            at = chance.choice(headers) + chance.randrange(328)
            file.seek(start + at)
            file.write(bytes([chance.randrange(256)]))
            file.flush()
            try:
                with BlockDevice(image) as device:
                    assert examine(device)[0] in ("clean", "frozen", "dirty")
            except errors.FilesystemError as error:
                assert str(error).startswith("reading the XFS log")
            file.seek(start + at)
            file.write(log[at : at + 1])


def test_an_external_log_must_be_given(tmp_path: Path) -> None:
    """Without it nothing is known; with it the state is."""
    need_programs("mkfs.xfs")
    image, log = tmp_path / "image", tmp_path / "external"
    for path, size in ((image, 320 << 20), (log, 96 << 20)):
        with path.open("wb") as file:
            file.truncate(size)
    subprocess.run(["mkfs.xfs", "-q", "-l", f"logdev={log},size=64m", image], check=True)
    with BlockDevice(image) as device, BlockDevice(log) as log_device:
        with pytest.raises(errors.NeedsRecovery, match="another device"):
            examine(device)
        assert examine(device, log_device)[0] == "clean"
