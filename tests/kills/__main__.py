"""The whole matrix: every point by every signal over the databases that are named, and what became of it.

A failed case spoils the next ones' ground, so that it gets a new scene. Status 0 when every case was put back.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.kills.cases import SIGNALS, Outcome, hit
from tests.kills.scenes import DEADLINE_MS, SCENES
from tests.kills.victim import POINTS
from tests.support import keep_mounts_private


def run(database: str, points: Sequence[str], signs: Sequence[str], folder: Path) -> list[Outcome]:
    """All cases of one database."""
    left, outcomes = [(point, sign) for sign in signs for point in points], []
    while left:
        place = Path(tempfile.mkdtemp(prefix=f"{database}-", dir=folder))
        (place / "state").mkdir()
        with SCENES[database](place) as scene:
            while left:
                point, sign = left.pop(0)
                with contextlib.redirect_stdout(io.StringIO()):
                    outcomes.append(hit(scene, place / "state", point, sign))
                print(f"{database} {_line(outcomes[-1])}", flush=True)
                if outcomes[-1].failure:
                    break
    return outcomes


def _line(outcome: Outcome) -> str:
    what = outcome.failure or outcome.resumed or "it ended by itself"
    return f"{outcome.point:<12} SIG{outcome.sign}  writers on after {outcome.waited_ms:7.1f} ms  {what}"


def table(found: dict[str, list[Outcome]]) -> list[str]:
    """Longest time to the next commit in ms by point and signal, over all databases, and a line for each database."""
    lines = [f"{'longest time to the next commit, ms':<36}" + "".join(f"{'SIG' + sign:>10}" for sign in SIGNALS)]
    outcomes = [outcome for each in found.values() for outcome in each]
    for point in POINTS:
        cells = [[one.waited_ms for one in outcomes if (one.point, one.sign) == (point, sign)] for sign in SIGNALS]
        if any(cells):
            lines.append(f"{point:<36}" + "".join(f"{max(cell):>10.0f}" if cell else f"{'-':>10}" for cell in cells))
    for database, each in found.items():
        recovered, longest = sum(not one.failure for one in each), max(one.waited_ms for one in each)
        share = 100 * recovered / len(each)
        lines.append(f"{database}: {recovered} of {len(each)} recovered ({share:.0f} %), longest {longest:.0f} ms")
    return [*lines, f"the watchdog's deadline was {DEADLINE_MS} ms"]


def main(arguments: Sequence[str]) -> int:
    """Run what is named, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--database", action="append", choices=SCENES, help="may be repeated (default: all)")
    parser.add_argument("--point", action="append", choices=POINTS, help="may be repeated (default: all)")
    parser.add_argument("--signal", action="append", choices=SIGNALS, help="may be repeated (default: all)")
    parser.add_argument("--folder", type=Path, help="where the scenes are set; not on what will be frozen")
    args = parser.parse_args(arguments)
    keep_mounts_private()
    begun, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="splitreel-kills-", dir=args.folder, ignore_cleanup_errors=True) as made:
        for database in args.database or SCENES:
            found[database] = run(database, args.point or POINTS, args.signal or list(SIGNALS), Path(made))
    print("", *table(found), f"{time.monotonic() - begun:.0f} s", sep="\n")
    return 1 if any(outcome.failure for each in found.values() for outcome in each) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
