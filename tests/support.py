"""support is what tests share: reasons to skip that become failures in CI, and the parts found on this machine."""

import ctypes
import importlib
import os
import shutil
import subprocess
from types import ModuleType
from typing import NoReturn

import pytest

CLONE_NEWNS = 0x20000  # linux/sched.h
MS_REC, MS_PRIVATE = 0x4000, 1 << 18  # linux/mount.h


def missing(reason: str) -> NoReturn:
    """Skip a test whose part is not on this machine; fail it where CI is set, since there every part must be."""
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {reason}")
    pytest.skip(reason, allow_module_level=True)


def need_root() -> None:
    """Skip or fail unless this process may mount and freeze file systems."""
    if os.geteuid() != 0:
        missing("needs root")


def need_programs(*names: str) -> None:
    """Skip or fail unless every program is on the PATH."""
    absent = [name for name in names if shutil.which(name) is None]
    if absent:
        missing(f"needs {', '.join(absent)}")


def compiled(name: str) -> ModuleType:
    """The module splitreel.core.NAME, which a build may be without; skip or fail where this one is."""
    try:
        return importlib.import_module(f"splitreel.core.{name}")
    except ModuleNotFoundError:
        missing(f"needs a build with the {name} transport")


def keep_mounts_private() -> None:
    """From now on what this process mounts is its own, and goes with it, by SIGKILL or SIGTERM too."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Refused without the privilege to mount: then there is nothing to keep.
    if libc.unshare(CLONE_NEWNS) == 0:
        libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)


def unmount(point: str | os.PathLike[str]) -> None:
    """Unmount, also what a failed test still holds open; that is told, and is gone with what holds it."""
    done = subprocess.run(["umount", os.fspath(point)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        subprocess.run(["umount", "--lazy", os.fspath(point)], check=True)
        pytest.fail(f"{point} was still in use: {done.stderr.strip()}")
