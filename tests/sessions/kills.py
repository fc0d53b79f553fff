"""kills ends or stops a session in each of its phases, over each database, and says how soon its writers went on.

``python -m tests.sessions.kills``. After each, ``splitreel resume`` must find nothing left to say; after all, a session
in full must give a copy that is right.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from splitreel import config
from splitreel.session import phase_order
from splitreel.session.resume import resume
from tests.sessions import DATABASES, MIRRORS, Bench, bench_class
from tests.sessions.__main__ import open_folder
from tests.sessions.commits import read_log, wait_for
from tests.sessions.measure import Measured, job_table, measure
from tests.support import keep_mounts_private

PHASES = phase_order("premapped", "after-split")
SIGNALS = ("SIGKILL", "SIGSTOP")
DEADLINE_MS = 5000
DYING = """
import json, os, signal, sys, time
from pathlib import Path
from splitreel.config import Job
from splitreel.session import Session

class Dying(Session):
    def enter(self, phase):
        if phase == sys.argv[3]:
            os.write(int(sys.argv[5]), b"%d" % time.monotonic_ns())
            os.kill(os.getpid(), getattr(signal, sys.argv[4]))

Dying(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]), lambda event: None).run()
"""


def went_on_ms(bench: Bench, struck_ns: int) -> float:
    """How long after the stroke the last writer had a commit acknowledged that it began behind it."""

    def first() -> list[int]:
        firsts = [[done for _, begun, done in read_log(path) if begun > struck_ns] for path in bench.logs.values()]
        return [times[0] for times in firsts if times]

    wait_for(lambda: len(first()) == len(bench.logs), "the writers do not go on", 120)
    return (max(first()) - struck_ns) / 1e6


def strike(bench: Bench, job: config.Job, state: Path, phase: str, how: str) -> float:
    """One session that is struck as it enters a phase; a stopped one is killed when its writers go on."""
    told, tell = os.pipe()
    command = [sys.executable, "-c", DYING, json.dumps(job.record()), str(state), phase, how, str(tell)]
    with subprocess.Popen(command, pass_fds=[tell]) as session:
        os.close(tell)
        try:
            with os.fdopen(told, "rb", buffering=0) as pipe:
                struck = int(pipe.read(32) or b"0")
            assert struck, f"the session did not come to {phase}"
            return went_on_ms(bench, struck)
        finally:
            with suppress(ProcessLookupError):
                session.send_signal(signal.SIGKILL)


def matrix(database: str, mode: str, args: argparse.Namespace) -> tuple[list[tuple[str, str, float]], list[str]]:
    """Every phase and signal; and what was not right."""
    found, wrong = [], []
    with open_folder() as folder, MIRRORS["embedded"](folder, 1 << 30) as held:
        bench = bench_class(database)(Path(held.mount_point), folder, mode)
        try:
            bench.start()
            with bench.load():
                table = job_table(bench, held, folder, "premapped") | {"deadline_ms": DEADLINE_MS}
                job = config.parse({"job": {"bench": table}}).job()
                for phase in args.phase or PHASES:
                    for how in args.signal or SIGNALS:
                        found.append((phase, how, strike(bench, job, folder / "state", phase, how)))
                        print(
                            f"{database} {mode} {phase} {how}: writers went on after {found[-1][2]:.0f} ms", flush=True
                        )
                        wrong += [f"{phase} {how}: {why}" for done in resume(folder / "state") for why in done.failures]
                wrong += measure(bench, held, folder, Measured(database, mode, "embedded", "premapped", 0)).failures
        finally:
            bench.stop()
    return found, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """1 when something was not recovered."""
    parser = argparse.ArgumentParser(prog="python -m tests.sessions.kills", description=__doc__)
    parser.add_argument("--database", action="append", choices=sorted(DATABASES), help="default: all")
    parser.add_argument("--mode", action="append", help="default: all of the database's")
    parser.add_argument("--phase", action="append", choices=PHASES, help="default: all")
    parser.add_argument("--signal", action="append", choices=SIGNALS, help="default: both")
    args = parser.parse_args(arguments)
    keep_mounts_private()
    all_found: list[Any] = []
    all_wrong: list[str] = []
    for database in args.database or sorted(DATABASES):
        for mode in [mode for mode in bench_class(database).MODES if args.mode is None or mode in args.mode]:
            found, wrong = matrix(database, mode, args)
            all_found += [(ms, f"{database} {mode} {phase} {how}") for phase, how, ms in found]
            all_wrong += [f"{database} {mode}: {line}" for line in wrong]
    print(*all_wrong, sep="\n", end="\n" if all_wrong else "")
    longest = max(all_found, default=(0.0, "none"))
    print(f"{len(all_found)} strokes, {len(all_wrong)} not recovered; the longest until writers went on: ", end="")
    print(f"{longest[0]:.0f} ms ({longest[1]})")
    return 1 if all_wrong or not all_found else 0


if __name__ == "__main__":
    sys.exit(main())
