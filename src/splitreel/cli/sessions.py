"""sessions holds the verb resume."""

import argparse
import importlib
from pathlib import Path

from splitreel import journal
from splitreel.cli import output
from splitreel.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, UsageError
from splitreel.state import state_directory


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verbs."""
    resume = verbs.add_parser("resume", help="end a session that was interrupted: let go, put the mirror back")
    resume.add_argument("--job", metavar="NAME", help="only this job's")
    resume.add_argument("--json", action="store_true", help="one JSON object a line")
    resume.set_defaults(run=run_resume)


def _tell_none(state: Path, args: argparse.Namespace) -> None:
    """Say that nothing was interrupted; a job that no journal knows is more likely mistyped than well."""
    none = "no session was interrupted" if args.job is None else f"no interrupted session of job {args.job}"
    if args.job is not None and not journal.histories(state, args.job):
        advice = f"Its journals are in {state}: name another --job or --state, or none to resume all."
        raise UsageError("resuming a session", f"{none}: no session of that name is known", advice)
    if not args.json:
        output.note(none)


def run_resume(args: argparse.Namespace) -> int:
    """End what was interrupted and say what was done; 1 when something is left to do by hand.

    3 when a backup that was finished lacks what was damaged or left out.
    """
    state = state_directory(args.state)
    sessions = importlib.import_module("splitreel.session.resume")
    done = sessions.resume(state, args.job)
    if not done:
        _tell_none(state, args)
    for entry in done:
        if args.json:
            failures = [str(failure) for failure in entry.failures]
            record = {"kind": "resumed", "job": entry.job, "journal": entry.journal, "lines": entry.lines}
            output.emit({**record, "failures": failures})
            continue
        for line in entry.lines:
            print(f"{entry.job}: {line}")
        for failure in entry.failures:
            output.complain(failure)
    if any(entry.failures for entry in done):
        return EXIT_FAILED
    return EXIT_DATA if any(entry.is_partial for entry in done) else EXIT_DONE
