"""sessions runs whole sessions over real databases under load, restores and drills each, and says what they cost.

``python -m tests.sessions --database postgresql --mode hot-backup --count 20``; ``--help`` has the rest. Beside each
session one of order ``conventional`` runs, on the same volume under the same load, which is only measured.

A further database is a class with what Bench says and a line in DATABASES; a further mirror a line in MIRRORS.
"""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from tests.volumes import mirrored_volume


class Volume(Protocol):
    """A mounted volume with a mirror; ``settings`` is the ``mirror`` table of a job on it."""

    mount_point: str

    def settings(self) -> dict[str, Any]: ...


class Bench(Protocol):
    """A database of its own on a volume, with writers that log what was acknowledged; it is made with these three.

    ``mount``: the volume, which will be frozen; ``folder``: elsewhere, for sockets and logs; ``mode``: one of MODES.
    """

    MODES: tuple[str, ...]
    logs: dict[int, Path]  # writer -> log: "number begun_ns acknowledged_ns" a line, CLOCK_MONOTONIC

    def __init__(self, mount: Path, folder: Path, mode: str) -> None: ...

    def start(self) -> None:
        """Make the database and start it; no load yet."""

    def load(self) -> AbstractContextManager[None]:
        """Writers in processes of their own, at work in this context."""

    def quiescers(self) -> list[dict[str, Any]]:
        """The ``quiesce`` tables of a job, but for the freeze of the volume."""

    def rows(self, data: Path, folder: Path) -> dict[int, list[tuple[int, int]]]:
        """What a restored database holds: for each writer (number, begun_ns), ordered by number."""

    def stop(self) -> None:
        """Stop the database, if it runs."""


# name -> (module, class); whether the copy goes on to the end of the redo, beyond the split, is the class's REDO_MODES
DATABASES: dict[str, tuple[str, str]] = {
    "mariadb": ("tests.sessions.mariadb", "MariadbBench"),
    "postgresql": ("tests.sessions.postgresql", "PostgresqlBench"),
    "sqlite": ("tests.sessions.sqlite", "SqliteBench"),
}

# name -> (directory, size) -> a context with a Volume
MIRRORS: dict[str, Callable[[Path, int], AbstractContextManager[Volume]]] = {"embedded": mirrored_volume}


def bench_class(name: str) -> Any:
    """The Bench of a database by its name."""
    module, cls = DATABASES[name]
    return getattr(importlib.import_module(module), cls)
