"""coverage_ext says which lines of ext/*.pyx the tests run, by gcov. It changes nothing here.

``coverage_ext.py [--floor PERCENT] [--lines] [PYTEST ARGUMENT...]``: builds a copy of the project in a temporary folder
with gcov's counters, runs pytest there (all but slow tests, or what is named) and prints a line for each module. A line
is executable when it became C code that is, and covered when any of that ran. Exits 1 if tests fail or, with a floor,
if less than that ran.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {"build", "dist"}  # and hidden files but .ci
MARKER = re.compile(r'/\* "(?:.*/)?(\w+\.p[xy][xdi])":(\d+)$')  # Cython's comment above the C code of a statement
Lines = dict[int, bool]  # .pyx line: it ran
CHILDREN = "SPLITREEL_COVERAGE_CHILDREN"
_numbers = itertools.count()


def copy_tree(target: Path) -> None:
    """All that a build and its tests need, without anything built before."""
    for source in ROOT.iterdir():
        if (source.name[0] == "." and source.name != ".ci") or source.name in LEFT_OUT:
            continue
        if source.is_dir():
            built = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
            shutil.copytree(source, target / source.name, ignore=built, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)


def build(tree: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j", str(os.cpu_count() or 1)]
    made = subprocess.run(
        command, cwd=tree, env={**os.environ, "SPLITREEL_COVERAGE": "1"}, capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        sys.exit(made.stdout + made.stderr)


def run_tests(tree: Path, arguments: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-skip", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": "src", CHILDREN: str(tree / "children")}
    return subprocess.run(
        [*command, "-p", "tests.coverage_ext", *arguments], cwd=tree, env=environment, check=False
    ).returncode


def pytest_runtest_setup(item: object) -> None:
    """As a plugin of that run: processes that a test starts count in a folder of their own.

    A child may die in the midst of writing its counters, or not be able to (one test limits the size of files): all
    that was counted before in the same file would be lost.
    """
    os.environ["GCOV_PREFIX"] = f"{os.environ[CHILDREN]}/{next(_numbers)}"


def pytest_unconfigure(config: object) -> None:
    """pytest's own counters go where the compiler said."""
    os.environ.pop("GCOV_PREFIX", None)


def statements(generated: Path, module: str) -> dict[int, int]:
    """C line: .pyx line of the statement it came from. What follows a function's exit label belongs to none."""
    origin: dict[int, int] = {}
    current = 0
    for number, line in enumerate(generated.read_text().splitlines(), 1):
        marker = MARKER.search(line)
        if marker:
            current = int(marker[2]) if marker[1] == f"{module}.pyx" else 0
        elif "/* function exit code */" in line:
            current = 0
        if current:
            origin[number] = current
    return origin


def c_lines(notes: Path, generated: Path) -> Iterator[tuple[int, int]]:
    """(C line, times run) of one object file, from gcov's JSON; counts are 0 where no counters lie beside its notes."""
    command = ["gcov", "--json-format", "--stdout", notes.name]
    for document in subprocess.run(command, cwd=notes.parent, capture_output=True, check=False).stdout.splitlines():
        for file in json.loads(document)["files"]:
            if Path(file["file"]).name == generated.name:
                yield from ((line["line_number"], line["count"]) for line in file["lines"])


def measure(tree: Path, module: str) -> Lines:
    """Executable lines of ext/MODULE.pyx; true for those that ran. Empty when the module was not built."""
    generated = tree / "build" / "cython" / "ext" / f"{module}.c"
    notes = next((tree / "build").glob(f"temp.*/build/cython/ext/{module}.gcno"), None)
    if notes is None:
        return {}
    places = [notes]
    for counters in (tree / "children").rglob(f"{module}.gcda"):
        places.append(counters.with_suffix(".gcno"))
        shutil.copy2(notes, places[-1])
    origin = statements(generated, module)
    lines: Lines = {}
    for number, count in itertools.chain.from_iterable(c_lines(place, generated) for place in places):
        if number in origin:
            lines[origin[number]] = lines.get(origin[number], False) or count > 0
    return lines


def spans(numbers: list[int]) -> str:
    """``3-5, 9`` for 3, 4, 5, 9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def report(measured: dict[str, Lines], show_lines: bool) -> float:
    """Print a line for each module; the share of all lines that ran, in percent."""
    print(f"\n{'module':28} {'lines':>6} {'missed':>6} {'ran':>7}")
    for module, lines in measured.items():
        missed = sorted(number for number, ran in lines.items() if not ran)
        share = f"{100 * (1 - len(missed) / len(lines)):6.1f}%" if lines else "not built"
        print(f"ext/{module + '.pyx':24} {len(lines):6} {len(missed):6} {share}  {spans(missed) if show_lines else ''}")
    total = sum(len(lines) for lines in measured.values())
    ran = sum(sum(lines.values()) for lines in measured.values())
    print(f"{'all':28} {total:6} {total - ran:6} {100 * ran / max(total, 1):6.1f}%")
    return 100 * ran / max(total, 1)


def main(arguments: list[str]) -> int:
    """Build, test, measure, report; 0 when the tests passed and enough ran."""
    parser = argparse.ArgumentParser(description="line coverage of ext/*.pyx")
    parser.add_argument("--floor", type=float, default=0.0, help="percent of lines below which this fails")
    parser.add_argument("--lines", action="store_true", help="name the lines that did not run")
    known, rest = parser.parse_known_args(arguments)
    if shutil.which("gcov") is None:
        sys.exit("coverage_ext: gcov is missing: install gcc")
    with tempfile.TemporaryDirectory(prefix="splitreel-coverage-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        build(tree)
        failed = run_tests(tree, rest or ["tests", "-m", "not slow"])
        measured = {source.stem: measure(tree, source.stem) for source in sorted((ROOT / "ext").glob("*.pyx"))}
    share = report(measured, known.lines)
    if share < known.floor:
        print(f"coverage_ext: {share:.1f} % of the lines ran, {known.floor} % must")
    return int(failed != 0 or share < known.floor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
