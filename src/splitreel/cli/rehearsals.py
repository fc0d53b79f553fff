"""rehearsals runs a job's sessions without their tape, for the verb backup, and says what they foretell."""

import argparse
import importlib
import math
from collections.abc import Mapping
from typing import Any

from splitreel import config, errors
from splitreel.cli import explaining, output
from splitreel.session.forecast import LEVEL_PERCENT, NEEDED, Forecast
from splitreel.state import state_directory


def run_rehearsals(args: argparse.Namespace, job: config.Job) -> int:
    """``--count`` rehearsals one after the other, a line each; the last line is the prediction."""
    if args.count < 1:
        raise errors.UsageError("splitreel backup --rehearse", f"--count is {args.count}", "Name 1 or more.")
    session = importlib.import_module("splitreel.session")
    state = state_directory(args.state)

    def report(event: Mapping[str, Any]) -> None:
        if event.get("event") == "note":
            output.note(f"splitreel: {event['text']}")
        elif args.explain:
            explaining.tell(event)

    for number in range(1, args.count + 1):
        done = session.rehearse(job, state=state, report=report, explain=args.explain)
        if args.json:
            output.emit(_record(number, done))
            continue
        again = f", {done.second_window_ms:.1f} ms to rejoin" if done.second_window_ms else ""
        files = output.count(done.files, "file")
        print(f"rehearsal {number} of {args.count}: window {done.window_ms:.1f} ms{again}, {files}", flush=True)
    seen = session.foresee(state, job)
    if args.json:
        output.emit({"kind": "forecast", "job": job.name, **record(seen), "budget_ms": job.window_ms or None})
    else:
        print(text(seen, job.window_ms))
    return errors.EXIT_DONE


def _record(number: int, done: Any) -> dict[str, Any]:
    times = {name: round(getattr(done, name), 3) for name in ("window_ms", "second_window_ms", "split_ms")}
    return {"kind": "rehearsal", "job": done.job, "number": number, **times, "files": done.files}


def record(seen: Forecast) -> dict[str, Any]:
    """A prediction for JSON, which has no infinity: ``bound_ms`` null and ``cut`` above 0 say that there is none."""
    bound = seen.bound_ms if seen.bound_ms is not None and math.isfinite(seen.bound_ms) else None
    rounded = round(bound, 3) if bound is not None else None
    return {"bound_ms": rounded, "percent": LEVEL_PERCENT, "runs": seen.runs, "cut": seen.cut}


def text(seen: Forecast, budget_ms: int) -> str:
    """A prediction for people, on one line."""
    budget = f"; the budget is {budget_ms} ms" if budget_ms else ""
    runs = output.count(seen.runs, "run")
    if seen.bound_ms is None:
        return f"next window: no prediction, by {runs} of the {NEEDED} that it takes{budget}"
    cut = f", {seen.cut} of them cut short" if seen.cut else ""
    if math.isinf(seen.bound_ms):
        return f"next window: no bound, by the last {runs}{cut}{budget}"
    return (
        f"next window: at most {seen.bound_ms:.1f} ms in {LEVEL_PERCENT} of 100 cases, by the last {runs}{cut}{budget}"
    )
