"""forecast says from past windows of a job how long the next one will be at most, and holds a job to its budget.

The rule assumes nothing of how windows are distributed. Of n past windows, sorted, the r-th is the bound, with r the
least that gives r / (n + 1) >= 95 %. If the next window is drawn as those were - nothing of the set-up or its load has
changed - its rank among all n + 1 is equally likely to be any: it is at most the bound in at least 95 of 100 cases,
whatever the distribution; ties only help. Below 19 windows even the longest of them promises less: no prediction.

What counts: the last 59 runs of the job with the settings that it has now, rehearsals and backups alike. A window
that was cut short counts as longer than any: leaving it out would make the others look better than they are.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from splitreel import config
from splitreel.errors import BudgetExceeded, BudgetUnknown
from splitreel.runs import Run

LEVEL_PERCENT = 95
NEEDED = 19  # the least n with n / (n + 1) >= 95 %
RECENT = 59  # of these two may be longer than the bound

# What of a job says nothing about its window; a key that is not known here counts, so that it is never overlooked.
_IRRELEVANT = {
    *("name", "tape", "label", "overwrite", "strict", "file_order", "paths", "block_size", "segment_size"),
    *("sync_segments", "sync_timeout_s", "deadline_ms", "window_ms"),
}


@dataclass(frozen=True)
class Forecast:
    """What past windows say of the next one.

    ``bound_ms``: it is at most so long in LEVEL_PERCENT of 100 cases; infinite when too many windows were cut short;
    None when ``runs``, those that count, are fewer than NEEDED. ``cut``: how many of them were cut short.
    """

    bound_ms: float | None
    runs: int
    cut: int


def settings_of(job: config.Job) -> str:
    """A digest of what of a job shapes its window."""
    shaping = {key: value for key, value in job.record().items() if key not in _IRRELEVANT}
    text = json.dumps(shaping, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def rank(count: int) -> int:
    """Which of ``count`` sorted windows, from 1, is the bound; more than ``count`` when there are too few."""
    return -(-LEVEL_PERCENT * (count + 1) // 100)


def bound(windows_ms: Sequence[float]) -> float | None:
    """The bound for the window after these, or None when they are too few."""
    if rank(len(windows_ms)) > len(windows_ms):
        return None
    return sorted(windows_ms)[rank(len(windows_ms)) - 1]


def forecast(past: Sequence[Run], settings: str) -> Forecast:
    """What the last of these runs, oldest first, say of the next one with these settings."""
    counted = [run for run in past if run.settings == settings][-RECENT:]
    windows = [run.held_ms if run.whole else math.inf for run in counted]
    return Forecast(bound(windows), len(counted), sum(not run.whole for run in counted))


def require(job: config.Job, seen: Forecast) -> None:
    """Refuse a job whose budget its next window may exceed, or of which too little is known.

    Raises:
        BudgetUnknown: there are too few runs.
        BudgetExceeded: the bound is above ``window_ms``.
    """
    if not job.window_ms:
        return
    if seen.bound_ms is None:
        raise BudgetUnknown(
            f"job {job.name}: the budget of {job.window_ms} ms",
            f"of the {NEEDED} runs that a prediction takes there {'is' if seen.runs == 1 else 'are'} {seen.runs}",
            f"Rehearse it: splitreel backup CONFIG.toml --job {job.name} --rehearse --count {NEEDED - seen.runs}",
        )
    if seen.bound_ms > job.window_ms:
        longest = "longer than the watchdog allows" if math.isinf(seen.bound_ms) else f"up to {seen.bound_ms:.0f} ms"
        cut = f", {seen.cut} of them cut short" if seen.cut else ""
        raise BudgetExceeded(
            f"job {job.name}: the budget of {job.window_ms} ms",
            f"by the last {seen.runs} runs{cut}, the next window will be {longest}",
            "Nothing was touched. 'splitreel report' shows what takes the time; rehearse again when it is mended.",
        )
