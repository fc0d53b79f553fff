"""python -m tests.fuzz [--seconds N] [--reads N] [--jobs N] [--first N] [SEED...]

Builds the core with AddressSanitizer and UBSan in a folder of its own, reads first every case that was ever found, then
injured seeds, until the time or the count is used up. Exit code 1 when anything was found; each finding becomes a file
in tests/fuzz/found, which stays there when it is mended.
"""

import argparse
import concurrent.futures
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.coverage_ext import copy_tree
from tests.fuzz import cases, seeds

BATCH = 2000  # reads of one process: a second's start is little beside them
PATIENCE = 20  # seconds for one read; it takes milliseconds
QUICK = "allocator_may_return_null=1:malloc_context_size=3:quarantine_size_mb=4:max_malloc_fill_size=0"
MEMORY = 3000  # megabytes of one process, sanitizers' own among them


def build(tree: Path) -> None:
    """A copy of the project, built with sanitizers. Only what changed is built again in a tree that is kept."""
    copy_tree(tree)
    environment = {**os.environ, "SPLITREEL_SANITIZE": "1", "SPLITREEL_STRICT": "0"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    made = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        sys.exit(made.stdout + made.stderr)


def environment(tree: Path) -> dict[str, str]:
    """The sanitizer's library must be first in the process; leaks are not looked for: Python keeps much to its end."""
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return {
        **os.environ,
        "PYTHONPATH": f"{tree / 'src'}:{tree}",
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": f"detect_leaks=0:hard_rss_limit_mb={MEMORY}:{QUICK}:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def run(tree: Path, arguments: list[str], patience: float, progress: Path | None = None) -> tuple[int, str]:
    """Exit code and output of a worker; -9 when a single read took longer than ``patience`` seconds."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", *arguments],
            cwd=tree,
            env=environment(tree),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        seen, since = "", time.monotonic()
        while process.poll() is None:
            time.sleep(0.05)
            now = progress.read_text() if progress and progress.exists() else ""
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > patience + (0 if seen else 60):
                process.kill()
                process.wait()
        output.seek(0)
        return process.returncode, output.read()


def find(tree: Path, seed: str, first: int) -> tuple[int, Counter[str], list[cases.Case]]:
    """One batch of a seed, gone on with behind each finding: reads done, how they ended, what was found."""
    ends: Counter[str] = Counter()
    found: list[cases.Case] = []
    end = first + BATCH
    while first < end:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            at = Path(folder) / "at"
            code, told = run(tree, ["read", seed, str(first), str(end - first), folder], PATIENCE, at)
            if code == 0:
                for word in told.split():
                    name, _, times = word.partition("=")
                    ends[name] += int(times)
                break
            number = int(at.read_text() or first) if at.exists() else first
        found.append(cases.draw(seed, number, first_line(told) if code != -9 else "it did not end"))
        first = number + 1
    return BATCH, ends, found


def first_line(told: str) -> str:
    """What a sanitizer or an exception said, without the stack: the case itself brings it back."""
    lines = [line.strip() for line in told.splitlines() if not re.match(r"\s*(#\d+ |=+$|$)", line)]
    if lines and lines[0].startswith("Traceback"):
        return lines[-1]
    return lines[0] if lines else "nothing"


def read_again(tree: Path) -> list[Path]:
    """The kept cases that still end in anything but a map or a named error."""
    bad = []
    for path in cases.kept():
        code, told = run(tree, ["case", str(path)], PATIENCE)
        if code != 0:
            print(f"{path.name}: exit {code}\n{told}")
            bad.append(path)
    return bad


def batches(names: list[str], first: int) -> Iterator[tuple[str, int]]:
    for start in itertools.count(first, BATCH):
        yield from ((name, start) for name in names)


def main() -> int:
    """See the module's first lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--reads", type=int, default=sys.maxsize)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--first", type=int, default=0, help="number of the first injury")
    parser.add_argument("--tree", type=Path, help="keep the build in this folder")
    parser.add_argument("seeds", nargs="*")
    arguments = parser.parse_args()
    names = arguments.seeds or seeds.names()
    tree = arguments.tree or Path(tempfile.mkdtemp(prefix="fuzz."))
    try:
        build(tree)
        return search(tree, batches(names, arguments.first), arguments)
    finally:
        if not arguments.tree:
            shutil.rmtree(tree)


def search(tree: Path, work: Iterator[tuple[str, int]], limits: argparse.Namespace) -> int:
    """Read until a limit is met, tell of every finding at once, and of the whole at the end."""
    bad = len(read_again(tree))
    begun, reads = time.monotonic(), 0
    ends: Counter[str] = Counter()
    with concurrent.futures.ThreadPoolExecutor(limits.jobs) as pool:
        running = {pool.submit(find, tree, *next(work)) for _ in range(limits.jobs)}
        while running:
            done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                count, batch_ends, found = future.result()
                reads += count
                ends += batch_ends
                for case in found:
                    bad += 1
                    print(f"found: {cases.save(case)}\n{case.told}", flush=True)
                if reads + BATCH * len(running) < limits.reads and time.monotonic() - begun < limits.seconds:
                    running.add(pool.submit(find, tree, *next(work)))
    told = ", ".join(f"{times} {end}" for end, times in sorted(ends.items()))
    print(f"{reads} injured images read in {time.monotonic() - begun:.0f} s: {told}; {bad} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
