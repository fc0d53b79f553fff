"""runs keeps in the catalog every window that was opened, of backups and of rehearsals. It foretells nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from splitreel.catalog import Catalog


class Stage(NamedTuple):
    """What happened inside a window: a quiesce, a split, an unquiesce; ``at_ms`` after the window was opened."""

    name: str
    at_ms: float
    ms: float


@dataclass(frozen=True)
class Run:
    """One session's windows. ``budget_ms`` 0 and ``predicted_ms`` None: none.

    ``settings``: a digest of what of the job shapes its window. ``whole``: nothing cut the window short; else nobody
    knows how long it would have been. ``second_window_ms``: the freeze that some mirrors need to rejoin.
    """

    job: str
    settings: str
    started: float
    rehearsal: bool
    whole: bool
    window_ms: float
    error: str = ""
    backup: str = ""
    second_window_ms: float = 0.0
    hot_backup_ms: float = 0.0
    split_ms: float = 0.0
    files: int = 0
    dirty_bytes: int | None = None
    deadline_ms: int = 0
    budget_ms: int = 0
    predicted_ms: float | None = None
    stages: tuple[Stage, ...] = ()

    @property
    def held_ms(self) -> float:
        """The longest that a writer may have waited at a stretch: the longer of the two windows."""
        return max(self.window_ms, self.second_window_ms)


_COLUMNS = [field.name for field in fields(Run) if field.name != "stages"]
_INSERT = f"INSERT INTO runs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = f"SELECT id, {', '.join(_COLUMNS)} FROM runs WHERE job = ? ORDER BY id DESC LIMIT ?"
_STAGES = "SELECT name, at_ms, ms FROM stages WHERE run = ? ORDER BY rowid"


def add(catalog: Catalog, run: Run) -> None:
    """Keep a run with its stages: both or neither. Raises CatalogError."""
    with catalog.transaction():
        cursor = catalog.connection.execute(_INSERT, [getattr(run, name) for name in _COLUMNS])
        rows = [(cursor.lastrowid, *stage) for stage in run.stages]
        catalog.connection.executemany("INSERT INTO stages (run, name, at_ms, ms) VALUES (?, ?, ?, ?)", rows)


def of_job(catalog: Catalog, job: str, limit: int = -1) -> list[Run]:
    """The last runs of a job, oldest first; all of them when ``limit`` is negative. Raises CatalogError."""
    found = []
    for row, *values in list(catalog.rows(_SELECT, job, limit)):
        known = dict(zip(_COLUMNS, values, strict=True))
        known.update(rehearsal=bool(known["rehearsal"]), whole=bool(known["whole"]))
        found.append(Run(**known, stages=tuple(Stage(*stage) for stage in catalog.rows(_STAGES, row))))
    return found[::-1]


def jobs(catalog: Catalog) -> Sequence[str]:
    """The jobs of which there are runs, by name. Raises CatalogError."""
    return [name for (name,) in catalog.rows("SELECT DISTINCT job FROM runs ORDER BY job")]
