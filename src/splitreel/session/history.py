"""history asks the catalog for a job's past runs before a session, and keeps the session's own after it."""

from collections.abc import Sequence
from pathlib import Path

from splitreel import config, runs
from splitreel.catalog import Catalog
from splitreel.runs import Run, Stage
from splitreel.session.forecast import RECENT, Forecast, forecast, settings_of
from splitreel.session.result import SessionResult
from splitreel.session.window import Window

LOOK_BACK = 4 * RECENT  # runs with other settings may lie between those that count


def foresee(state: Path, job: config.Job) -> Forecast:
    """What the job's past runs in this state directory say of its next one. Raises CatalogError."""
    with Catalog(state) as catalog:
        return forecast(runs.of_job(catalog, job.name, LOOK_BACK), settings_of(job))


def keep(
    state: Path, job: config.Job, done: SessionResult, windows: Sequence[Window], *, rehearsal: bool, error: str
) -> None:
    """Add a session to the catalog's runs, if it came to a window; the first of ``windows`` is its own.

    Raises:
        CatalogError: it cannot be added.
    """
    if not windows[0].was_opened:
        return
    run = Run(
        job=job.name,
        settings=settings_of(job),
        started=done.started,
        rehearsal=rehearsal,
        whole=all(window.whole for window in windows),
        error=error,
        backup=done.backup_id,
        window_ms=done.window_ms,
        second_window_ms=done.second_window_ms,
        hot_backup_ms=done.hot_backup_ms,
        split_ms=done.split_ms,
        files=done.files,
        dirty_bytes=done.dirty_bytes,
        deadline_ms=job.deadline_ms,
        budget_ms=job.window_ms,
        predicted_ms=done.predicted_ms,
        stages=stages(windows[0]),
    )
    with Catalog(state) as catalog:
        runs.add(catalog, run)


def stages(window: Window) -> tuple[Stage, ...]:
    """What happened inside a window; before its opening counts as negative: a lock that was waited for."""
    begun = window.opened_ns or (window.stages[0].begun_ns if window.stages else 0)
    return tuple(
        Stage(stage.name, (stage.begun_ns - begun) / 1e6, (stage.ended_ns - stage.begun_ns) / 1e6)
        for stage in window.stages
    )
