"""Run test files in the guest: ``python -m tests.vm [PYTEST ARGUMENT...]``, by default all of tests/vm/guest."""

import sys
import tempfile
import time
from pathlib import Path

from . import testrun
from .kernel import Missing, Unusable
from .machine import GuestError

LIMIT_SECONDS = 1800


def main(arguments: list[str]) -> int:
    """Boot, run pytest with the arguments, show what it prints; its exit code, or 2 when the machine failed."""
    with tempfile.TemporaryDirectory(prefix="splitreel-vm-") as folder:
        begun = time.monotonic()
        try:
            with testrun.machine(Path(folder), arguments or ["tests/vm/guest"], print) as guest:
                guest.wait_for("up", LIMIT_SECONDS)
                boot = time.monotonic() - begun
                code = guest.wait(LIMIT_SECONDS)
        except (Missing, Unusable, GuestError) as failure:
            print(f"tests.vm: {failure}", file=sys.stderr)
            return 2
        print(f"tests.vm: boot {boot:.1f} s, tests {time.monotonic() - begun - boot:.1f} s, pytest's exit code {code}")
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
