"""worker reads injured images, one process a job; __main__ runs it in a build with sanitizers.

``worker.py read SEED NUMBER COUNT FOLDER``: the injuries NUMBER, NUMBER + 1 ... of one seed; before each read its
number goes into FOLDER/at, so that whoever finds this process dead knows what killed it.
``worker.py case FILE``: the one case of a finding.
"""

import os
import sys
import traceback
from collections import Counter
from pathlib import Path

from splitreel.core import checksum
from tests.fuzz import cases
from tests.fuzz.injure import injuries
from tests.fuzz.reader import Patient
from tests.fuzz.seeds import load

DONE, FOUND = 0, 70


def believe_checksums(number: int) -> None:
    """Two of three reads take every checksum for right, as if a new one had followed the injury."""
    checksum.ignore_differences(number % 3 != 0)


def read_many(name: str, first: int, count: int, folder: Path) -> int:
    """FOUND at the first case that ends in anything but a map or a named error."""
    seed = load(name)
    patient = Patient(seed, folder / "image")
    at = os.open(folder / "at", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    ends: Counter[str] = Counter()
    for number in range(first, first + count):
        os.pwrite(at, b"%020d" % number, 0)
        believe_checksums(number)
        try:
            ends[patient.read(injuries(seed, number), streamed=number % 4 == 0)] += 1
        except Exception:
            traceback.print_exc()
            return FOUND
    print(" ".join(f"{end}={times}" for end, times in sorted(ends.items())))
    return DONE


def read_case(path: Path) -> int:
    """One finding again, in its own way with checksums."""
    case = cases.load(path)
    believe_checksums(case.number)
    print(case.read())
    return DONE


if __name__ == "__main__":
    if sys.argv[1] == "case":
        sys.exit(read_case(Path(sys.argv[2])))
    sys.exit(read_many(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])))
