"""everything runs the whole suite under coverage, says what share of the code it reached, injures images, measures.

``everything.py [PYTEST ARGUMENT...]``: with arguments only the named tests run, without the coverage floor.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BRANCH_FLOOR = 90
SUMMARY = re.compile(r"=* ?(\d+ (passed|failed|error).* in [\d.]+s.*?) ?=*")
_summaries: list[str] = []


def step(*command: str) -> int:
    """Run one command with this interpreter, its output as it comes; its exit code. Keeps pytest's summary lines."""
    print(f"\n== {' '.join(command)}", flush=True)
    begun = time.monotonic()
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=unbuffered, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if found := SUMMARY.fullmatch(line.rstrip("\n")):
                _summaries.append(f"{' '.join(command)}: {found[1]}")
    print(f"== exit {process.returncode} after {time.monotonic() - begun:.0f} s", flush=True)
    return process.returncode


def main(arguments: list[str]) -> int:
    """Run the suite; 0 only when every step passed. The last lines are pytest's own summaries."""
    if arguments:
        return step("-m", "pytest", "--benchmark-skip", *arguments)
    step("-m", "coverage", "erase")
    failed = step("-m", "coverage", "run", "-m", "pytest", "tests", "--benchmark-skip")
    step("-m", "coverage", "combine", "-q")
    failed |= step("-m", "coverage", "report", f"--fail-under={BRANCH_FLOOR}")
    failed |= step("tests/coverage_ext.py")
    failed |= step("-m", "tests.fuzz", "--seconds", "90")
    speeds = ("-m", "pytest", "benchmarks", "-q", "-s", "--benchmark-columns=median,rounds")
    failed |= step(*speeds)
    print("", *_summaries, "every step passed" if not failed else "a step failed", sep="\n")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
