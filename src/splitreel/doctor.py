"""doctor looks at what this build and this machine offer, without touching a drive, a mirror or a database.

Each finding says how to mend it. What a particular job needs is looked at by the session's own checks.
"""

import ctypes
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from splitreel.core import checksum
from splitreel.core.device import BlockDevice
from splitreel.core.engine import ReadEngine
from splitreel.errors import SplitreelError

Level = Literal["ok", "note", "bad"]
LEAST_SPACE = 64 << 20  # bytes in the state directory: catalog and journals of a first backup


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``note`` costs a feature, ``bad`` stops a backup; ``remedy`` says what to do."""

    subject: str
    level: Level
    found: str
    remedy: str = ""

    def record(self) -> dict[str, Any]:
        """As a JSON-ready dictionary."""
        return {"kind": "finding", **asdict(self)}


def _python() -> Finding:
    found = f"Python {platform.python_version()}, Linux {platform.release()}, {platform.machine()}"
    if sys.platform != "linux":
        return Finding("platform", "bad", found, "Run it on Linux: it reads block devices and speaks SG_IO.")
    return Finding("platform", "ok", found)


def _privileges() -> Finding:
    if os.geteuid() == 0:
        return Finding("privileges", "ok", "root")
    advice = "Run as root for sessions; plain users may back up images and restore without ownership."
    return Finding("privileges", "note", f"user {os.geteuid()}: no file system freeze, no raw devices", advice)


def _transport(name: str, library: str, remedy: str) -> Finding:
    try:
        importlib.import_module(f"splitreel.core.{name}")
    except ImportError:
        return Finding(f"transport {name}", "note", f"not built in: {library} was not found", remedy)
    return Finding(f"transport {name}", "ok", "built in")


def _iscsi() -> Finding:
    return _transport("iscsi", "libiscsi", "Install libiscsi-dev and pkg-config, then build again.")


def _sg() -> Finding:
    built = _transport("sg", "the sg transport", "Build again.")
    if built.level != "ok":
        return built
    nodes = sorted(str(path) for path in Path("/dev").glob("sg[0-9]*"))
    found = f"{len(nodes)} nodes: {', '.join(nodes[:8])}" if nodes else "no /dev/sg node"
    return Finding(
        "transport sg", "ok" if nodes else "note", found, "" if nodes else "modprobe sg, if a drive is attached."
    )


def _engine() -> Finding:
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(1 << 20)
        with BlockDevice(image.name) as device, ReadEngine.open(device, 4) as engine:
            name = engine.name
    if name == "io_uring":
        return Finding("read engine", "ok", "io_uring")
    advice = "Build with liburing-dev, on a kernel that allows io_uring (sysctl kernel.io_uring_disabled=0)."
    return Finding("read engine", "note", f"{name}: slower by a third with many small reads", advice)


def _checksums() -> Finding:
    chosen = checksum.implementation()
    found = ", ".join(f"{name} by {how}" for name, how in sorted(chosen.items()))
    return Finding("checksums", "note" if "slice8" in chosen.values() else "ok", found)


def _programs() -> Finding:
    wanted = {"qemu-storage-daemon": "qemu-system-common qemu-utils", "nbdfuse": "libnbd-bin", "tgtd": "tgt"}
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = {name: package for name, package in wanted.items() if shutil.which(name, path=search) is None}
    if not absent:
        return Finding("demo", "ok", "everything it needs is installed")
    return Finding("demo", "note", f"missing: {', '.join(absent)}", f"apt-get install {' '.join(absent.values())}")


def _memory_lock() -> Finding:
    """The watchdog locks its memory, so that it can thaw while the file system with its code is frozen."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = ctypes.create_string_buffer(4096)
    if libc.mlock(page, 4096) == 0:
        libc.munlock(page, 4096)
        return Finding("memory lock", "ok", "allowed")
    return Finding("memory lock", "note", os.strerror(ctypes.get_errno()), "Raise LimitMEMLOCK, or run as root.")


def _state(directory: Path) -> Finding:
    space = shutil.disk_usage(directory)
    mode = directory.stat().st_mode & 0o777
    if space.free < LEAST_SPACE:
        return Finding(
            "state directory", "bad", f"{directory}: {space.free >> 20} MiB free", "Free some, or use --state."
        )
    if mode & 0o077:
        return Finding("state directory", "note", f"{directory}: mode {mode:o}", f"chmod 700 {directory}")
    return Finding("state directory", "ok", f"{directory}: {space.free >> 30} GiB free")


def examine(state: Path) -> list[Finding]:
    """Look at everything; a look that fails is itself a finding."""
    looks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("platform", _python),
        ("privileges", _privileges),
        ("transport iscsi", _iscsi),
        ("transport sg", _sg),
        ("read engine", _engine),
        ("checksums", _checksums),
        ("memory lock", _memory_lock),
        ("demo", _programs),
        ("state directory", lambda: _state(state)),
    )
    findings = []
    for subject, look in looks:
        try:
            findings.append(look())
        except (SplitreelError, OSError) as error:
            findings.append(Finding(subject, "bad", str(error)))
    return findings
