"""health holds the verbs doctor and selftest: is everything there, and does the core compute what it must?"""

import argparse
from pathlib import Path

from splitreel import config, doctor, errors, journal, session
from splitreel.cli import output
from splitreel.doctor import Finding
from splitreel.selftest import EXPECTED_CHECKS, run_selftest
from splitreel.state import state_directory


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verbs."""
    parser = verbs.add_parser("doctor", help="check what sessions need, and say how to mend what is missing")
    parser.add_argument("config", nargs="?", metavar="CONFIG.toml", help="check this configuration's jobs as well")
    parser.add_argument("--job", metavar="NAME", help="only this job")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run_doctor)
    parser = verbs.add_parser("selftest", help="compare the core's results with known answers")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run_checks)


def run_doctor(args: argparse.Namespace) -> int:
    """Findings about the machine and, with a configuration, about its jobs; 1 when one of them stops a backup."""
    state = state_directory(args.state)
    findings = doctor.examine(state)
    if args.config:
        findings += _job_findings(args.config, args.job, state)
    marks = {"ok": "ok  ", "note": "note", "bad": "BAD "}
    for finding in findings:
        if args.json:
            output.emit(finding.record())
        else:
            print(f"{marks[finding.level]}  {finding.subject:<16} {finding.found}")
            if finding.remedy:
                print(f"      {'':<16} do: {finding.remedy}")
    return errors.EXIT_FAILED if any(finding.level == "bad" for finding in findings) else errors.EXIT_DONE


def run_checks(args: argparse.Namespace) -> int:
    """Run the self-test; a check too few is a failure as well."""
    checks = run_selftest()
    for check in checks:
        record = {"kind": "check", "name": check.name, "ok": not check.failure, "ms": round(check.seconds * 1000, 3)}
        if args.json:
            output.emit({**record, "failure": check.failure})
        else:
            print(f"{'ok  ' if record['ok'] else 'FAIL'}  {check.name}  {check.failure}".rstrip())
    passed = sum(not check.failure for check in checks)
    if not args.json:
        print(f"{passed} of {EXPECTED_CHECKS} passed")
    return errors.EXIT_DONE if passed == len(checks) == EXPECTED_CHECKS else errors.EXIT_FAILED


def _job_findings(path: str, name: str | None, state: Path) -> list[Finding]:
    """What each job's own checks say, run as a session runs them before it touches anything."""
    jobs = config.load(path).jobs
    if name is not None:
        jobs = {name: config.load(path).job(name)}
    findings = []
    for job in jobs.values():
        try:
            journal.require_ended(state, job.name)
            costs = session.examine(job, state)
            mirrors = "mirror" if len(costs) == 1 else f"{len(costs)} mirrors"
            findings.append(Finding(f"job {job.name}", "ok", f"drive, tape, {mirrors} and database are ready"))
            findings += [Finding(f"job {job.name}", "ok", cost) for cost in costs]
        except errors.SplitreelError as error:
            findings.append(Finding(f"job {job.name}", "bad", str(error), error.advice))
    return findings
