"""reports holds the verb report: a job's past windows as a histogram, what took their time, and what is foretold."""

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

from splitreel import errors, runs
from splitreel.catalog import Catalog
from splitreel.cli import output, rehearsals
from splitreel.runs import Run
from splitreel.session.forecast import Forecast, forecast
from splitreel.state import state_directory

ROWS = 12
WIDTH = 40
LAST = 10
STEPS = (1, 2, 5, 10)


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verb."""
    parser = verbs.add_parser("report", help="how long past windows were, what took the time, how long the next may be")
    parser.add_argument("--job", metavar="NAME", help="only this job")
    parser.add_argument("--last", metavar="N", type=int, default=LAST, help=f"how many runs to list (default: {LAST})")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run_report)


def run_report(args: argparse.Namespace) -> int:
    """Every job of which there are runs; 1 when the one that is named has none."""
    state = state_directory(args.state)
    with Catalog(state) as catalog:
        names = runs.jobs(catalog) if args.job is None else [args.job]
        found = {name: runs.of_job(catalog, name) for name in names}
    if args.job is not None and not found[args.job]:
        advice = "'splitreel report' shows all; 'splitreel backup CONFIG.toml --rehearse' makes a first one."
        raise errors.NotFound(f"runs of job {args.job}", f"the catalog in {state} has none", advice)
    if not found and not args.json:
        output.note("no run is known; 'splitreel backup CONFIG.toml --rehearse' makes a first one")
    for name, past in found.items():
        _emit(name, past, args.last) if args.json else _show(name, past, args.last)
    return errors.EXIT_DONE


def quantile(values: Sequence[float], share: float) -> float:
    """The least of the values that at least ``share`` of them do not exceed: one that was measured, none between."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _figures(past: Sequence[Run]) -> dict[str, float]:
    windows = [run.held_ms for run in past]
    shares = {"median_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(quantile(windows, share), 3) for name, share in shares.items()}


def _foreseen(past: Sequence[Run]) -> Forecast:
    """The prediction by the settings of the newest run."""
    return forecast(past, past[-1].settings)


def shares(past: Sequence[Run]) -> list[tuple[str, float, float]]:
    """What happened in the windows, longest first: name, median in ms, share of all windows' time."""
    times: dict[str, list[float]] = {}
    for run in past:
        for stage in run.stages:
            # a lock that was waited for before the window was open held up nobody
            times.setdefault(stage.name, []).append(max(0.0, stage.ms + min(0.0, stage.at_ms)))
    whole = sum(run.window_ms for run in past if run.stages)
    found = [(name, statistics.median(each), sum(each) / whole if whole else 0.0) for name, each in times.items()]
    return sorted(found, key=lambda entry: -entry[2])


def _emit(name: str, past: Sequence[Run], last: int) -> None:
    newest = past[-1]
    cut = {"cut": sum(not run.whole for run in past)}
    about = {"kind": "job", "job": name, "runs": len(past), "rehearsals": sum(run.rehearsal for run in past), **cut}
    output.emit({**about, **_figures(past), "budget_ms": newest.budget_ms or None})
    output.emit({"kind": "forecast", "job": name, **rehearsals.record(_foreseen(past))})
    for stage, median, share in shares(past):
        output.emit(
            {"kind": "stage", "job": name, "stage": stage, "median_ms": round(median, 3), "share": round(share, 3)}
        )
    for run in past[-last:] if last > 0 else []:
        output.emit({"kind": "run", **_run_record(run)})


def _run_record(run: Run) -> dict[str, Any]:
    kept = {name: value for name, value in vars(run).items() if name not in ("settings", "stages")}
    return {**kept, "budget_ms": run.budget_ms or None, "stages": [stage._asdict() for stage in run.stages]}


def _show(name: str, past: Sequence[Run], last: int) -> None:
    figures = _figures(past)
    rehearsed, cut = sum(run.rehearsal for run in past), sum(not run.whole for run in past)
    print(f"job {name}: {output.count(len(past), 'run')}, {rehearsed} of them rehearsals, {cut} cut short")
    print("  " + ", ".join(f"{key.removesuffix('_ms')} {value:.1f} ms" for key, value in figures.items()))
    seen = _foreseen(past)
    print(f"  {rehearsals.text(seen, past[-1].budget_ms)}\n")
    print("\n".join(histogram([run.held_ms for run in past], _marks(seen, past[-1].budget_ms))))
    if stages := shares(past):
        print("\n  what takes the time:")
        for stage, median, share in stages:
            print(f"  {share:>5.0%}  {median:9.1f} ms  {stage}")
    print("\n  the last runs:")
    for run in past[-last:] if last > 0 else []:
        print(f"  {_line(run)}")
    print()


def _marks(seen: Forecast, budget_ms: int) -> dict[str, float]:
    marks = {"budget": float(budget_ms)} if budget_ms else {}
    return marks if seen.bound_ms is None else {"prediction": seen.bound_ms, **marks}


def _line(run: Run) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
    parts = [when, "rehearsal" if run.rehearsal else "backup   ", f"{run.window_ms:9.1f} ms"]
    parts += [f"rejoin {run.second_window_ms:.1f} ms"] if run.second_window_ms else []
    parts += [f"hot backup {run.hot_backup_ms / 1000:.1f} s"] if run.hot_backup_ms else []
    parts += [f"split {run.split_ms:.1f} ms", output.count(run.files, "file")]
    if not run.whole:
        parts.append("cut short")
    elif run.error:
        parts.append("failed later")
    return "  ".join(parts)


def histogram(values: Sequence[float], marks: dict[str, float]) -> list[str]:
    """At most ROWS lines, a bar each over a range of round milliseconds; the range that a mark is in names it."""
    width = _width(min(values), max(values))
    first, beyond = math.floor(min(values) / width), math.floor(max(values) / width) + 1
    counts = [0] * (beyond - first)
    for value in values:
        counts[math.floor(value / width) - first] += 1
    lines = []
    for place, count in enumerate(counts, first):
        low, high = place * width, (place + 1) * width
        named = [name for name, at in marks.items() if low <= at < high]
        bar = "█" * max(round(WIDTH * count / max(counts)), 1 if count else 0)
        lines.append(f"  {low:8g} to {high:8g} ms {count:5}  {bar}" + (f"  ◀ {', '.join(named)}" if named else ""))
    return lines


def _width(low: float, high: float) -> float:
    """A round number of milliseconds of which ROWS reach from the shortest to the longest."""
    least = max((high - low) / (ROWS - 1), 0.1)
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in STEPS if step * power >= least * 0.999)
