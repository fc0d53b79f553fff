"""sessions holds the verb resume."""

import argparse
import importlib

from splitreel.cli import output
from splitreel.errors import EXIT_DONE, EXIT_FAILED
from splitreel.state import state_directory


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verbs."""
    resume = verbs.add_parser("resume", help="end a session that was interrupted: let go, put the mirror back")
    resume.add_argument("--job", metavar="NAME", help="only this job's")
    resume.add_argument("--json", action="store_true", help="one JSON object a line")
    resume.set_defaults(run=run_resume)


def run_resume(args: argparse.Namespace) -> int:
    """End what was interrupted and say what was done; 1 when something is left to do by hand."""
    sessions = importlib.import_module("splitreel.session.resume")
    done = sessions.resume(state_directory(args.state), args.job)
    if not done and not args.json:
        output.note("no session was interrupted")
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
    return EXIT_FAILED if any(entry.failures for entry in done) else EXIT_DONE
