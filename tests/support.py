"""support is what tests share: reasons to skip that become failures in CI, and the parts found on this machine."""

import importlib
import os
import shutil
from types import ModuleType
from typing import NoReturn

import pytest


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
