"""Fixtures of the core's tests: a loop device, a child in which a system call is refused, an XFS image to damage."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import ext4_images, oracle, xfs_scene
from tests.support import missing, need_programs, need_root
from tests.xfs_surgery import Surgeon

# A seccomp filter: load the system call's number; one of them fails with an errno, all others are allowed.
REFUSE = """
import ctypes, struct, sys
def refuse(call, code):
    lines = ((0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | code), (0x06, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    libc = ctypes.CDLL(None, use_errno=True)
    filter = struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(program))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter, 0, 0):
        sys.exit("no seccomp")
"""


@pytest.fixture
def refused() -> Callable[..., list[str]]:
    """Runs Python code in a child after system call ``call`` was made to fail with ``code``; the lines it prints."""

    def run(call: int, code: int, body: str, *arguments: object) -> list[str]:
        script = f"{REFUSE}\nrefuse({call}, {code})\n{body}"
        command = [sys.executable, "-c", script, *map(str, arguments)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if "no seccomp" in ran.stderr:
            missing("needs seccomp")
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines()

    return run


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A loop device over 1 MiB of zeros, and its backing file."""
    need_root()
    need_programs("losetup")
    backing = tmp_path / "backing"
    backing.write_bytes(bytes(1 << 20))
    made = subprocess.run(["losetup", "-f", "--show", backing], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        missing(f"needs a loop device: {made.stderr.strip()}")
    yield Path(made.stdout.strip()), backing
    subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


@pytest.fixture(scope="session")
def xfs_good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The XFS image of tests/xfs_scene.py; not to be changed."""
    return xfs_scene.make_good(tmp_path_factory.mktemp("xfs") / "image")


@pytest.fixture(scope="session")
def xfs_truth(xfs_good: Path) -> dict[bytes, oracle.Entry]:
    """Every path of it."""
    with ext4_images.mounted(xfs_good, "ro,norecovery") as point:
        return oracle.walk(point)


@pytest.fixture
def surgeon(xfs_good: Path, tmp_path: Path) -> Surgeon:
    """A copy of it, to be changed."""
    return Surgeon(ext4_images.copy_sparse(xfs_good, tmp_path / "image"))
