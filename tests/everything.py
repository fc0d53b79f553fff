"""everything runs the whole suite under coverage, then says what share of the code it reached, then compares speeds.

``everything.py [PYTEST ARGUMENT...]``: with arguments only the named tests run, without the coverage floor.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BRANCH_FLOOR = 90


def step(*command: str, **environment: str) -> int:
    """Run one command with this interpreter; its exit code."""
    print(f"\n== {' '.join(command)}", flush=True)
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, **environment}, check=False
    ).returncode


def main(arguments: list[str]) -> int:
    """Run the suite; 0 only when every step passed."""
    if arguments:
        return step("-m", "pytest", "--benchmark-skip", *arguments)
    step("-m", "coverage", "erase")
    failed = step("-m", "coverage", "run", "-m", "pytest", "tests", "--benchmark-skip")
    step("-m", "coverage", "combine", "-q")
    failed |= step("-m", "coverage", "report", f"--fail-under={BRANCH_FLOOR}")
    failed |= step("tests/coverage_ext.py")
    failed |= step(
        "-m", "pytest", "benchmarks", "-q", "-s", "--benchmark-disable-gc", "--benchmark-columns=median,rounds"
    )
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
