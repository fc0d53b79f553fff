"""testrun runs pytest in the guest and takes its results apart. It judges none.

Each file of tests/vm/guest is run as if alone on the machine: disks and devices are cleared by the tests themselves.
"""

import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .machine import ROOT, Machine

DISKS = 4
DISK_BYTES = 256 << 20
RESULTS = "results.xml"
CONSOLE_LINES = 150  # of a console that are shown of a failure
IN_GUEST = "SPLITREEL_GUEST"
PASSED_ON = ("CI", "SPLITREEL_SELFTEST")


@dataclass(frozen=True)
class Result:
    """How one test of the guest fared: ``outcome`` is "passed", "failed" or "skipped"."""

    file: str
    name: str
    outcome: str
    text: str
    seconds: float


def machine(
    folder: Path, arguments: Sequence[str], listener: Callable[[str], None] | None = None, disks: int = DISKS
) -> Machine:
    """A machine, not started, with empty disks, that runs pytest with these arguments; its folder has the results."""
    images = disk_images(folder, disks)
    return Machine(folder, command(arguments), disks=images, environment=environment(), listener=listener)


def disk_images(folder: Path, count: int) -> list[Path]:
    """Empty disks, as sparse files."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [folder / f"disk{number}" for number in range(1, count + 1)]
    for image in images:
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
    return images


def command(arguments: Sequence[str]) -> list[str]:
    """pytest in the guest, by the Python that runs here."""
    options = ["-p", "no:cacheprovider", "--color=no", f"--junitxml=/run/host/{RESULTS}", "-o", "junit_logging=no"]
    return [sys.executable, "-m", "pytest", *options, *arguments]


def environment() -> dict[str, str]:
    """What the guest's pytest finds in its environment."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    source = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    return {**kept, **source, IN_GUEST: "1"}


def results(folder: Path) -> list[Result]:
    """What pytest wrote about every test; nothing when it wrote nothing."""
    path = folder / RESULTS
    return [_result(case) for case in ET.parse(path).iter("testcase")] if path.exists() else []


def _result(case: ET.Element) -> Result:
    file = case.get("classname", "").split(".")
    module = next((part for part in reversed(file) if part.startswith("test_")), "")
    outcome, texts = "passed", []
    for kind, word in (("skipped", "skipped"), ("error", "failed"), ("failure", "failed")):
        for found in case.findall(kind):
            outcome = word
            texts.append("\n".join(filter(None, (found.get("message", ""), found.text or ""))))
    return Result(f"{module}.py", case.get("name", ""), outcome, "\n".join(texts), float(case.get("time", "0")))
