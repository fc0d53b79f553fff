"""Run sessions over databases, modes and mirrors; print what each cost, then medians and 99th percentiles."""

import argparse
import itertools
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.sessions import DATABASES, MIRRORS, bench_class
from tests.sessions.measure import Measured, measure
from tests.support import keep_mounts_private

ORDERS = ("premapped", "conventional")
KIND = ("database", "mode", "mirror", "extra_files")
HEAD = (
    *("database", "mode", "mirror", "further files", "sessions", "window median / p99 ms", "conventional"),
    *("longest commit median / p99 ms", "conventional", "first tape byte ms", "resynced MB"),
)
COLUMNS = (
    *("window_ms", "window_stall_ms", "held_stall_ms", "usual_stall_ms", "first_byte_ms", "second_window_ms"),
    *("recovery_s",),
)


INODE_BYTES = 20_000  # of the volume for each file: mkfs makes an inode for every 16 KiB


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]


def summary(found: Sequence[Measured]) -> dict[str, Any]:
    """Median, 99th percentile and longest of each figure of sessions of one kind."""
    first = found[0]
    line: dict[str, Any] = {"kind": "summary", "count": len(found), "failed": sum(bool(one.failures) for one in found)}
    line |= {key: getattr(first, key) for key in (*KIND, "order")}
    for column in COLUMNS:
        values = [getattr(one, column) for one in found]
        line[column] = {"median": percentile(values, 0.5), "p99": percentile(values, 0.99), "max": max(values)}
    resynced = [one.resynced_bytes for one in found if one.resynced_bytes is not None]
    line["resynced_bytes"] = percentile(resynced, 0.5) if resynced else None
    return line


def table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The summaries as the README has them, each beside the conventional order of the same run."""
    yield f"| {' | '.join(HEAD)} |"
    yield f"|{'---|' * len(HEAD)}"
    others = {tuple(x[key] for key in KIND): x for x in lines if x["order"] == "conventional"}
    for one in (x for x in lines if x["order"] == "premapped"):
        other = others.get(tuple(one[key] for key in KIND))
        resynced = "" if one["resynced_bytes"] is None else f"{one['resynced_bytes'] / 1e6:.1f}"
        cells = [*(one[key] for key in KIND), one["count"], *(pair(x, "window_ms") for x in (one, other))]
        cells += [*(pair(x, "held_stall_ms") for x in (one, other)), f"{one['first_byte_ms']['median']:.0f}", resynced]
        yield f"| {' | '.join(map(str, cells))} |"


def pair(line: dict[str, Any] | None, key: str) -> str:
    """Median and 99th percentile."""
    return "" if line is None else f"{line[key]['median']:.0f} / {line[key]['p99']:.0f}"


def kept_lines(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The summaries that runs with ``--json`` kept."""
    found = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [{"extra_files": 0, **line} for line in found if line["kind"] == "summary"]


@contextmanager
def open_folder() -> Iterator[Path]:
    """A directory that system users can reach."""
    folder = Path(tempfile.mkdtemp(prefix="splitreel-sessions-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(mount: Path, files: int) -> None:
    """So many further files on the volume, 250 in a directory."""
    for number in range(files):
        directory = mount / "files" / f"{number // 250:04d}"
        if number % 250 == 0:
            directory.mkdir(parents=True)
        (directory / f"{number:06d}").write_bytes(b"%d\n" % number)


def run(database: str, mode: str, mirror: str, files: int, args: argparse.Namespace, tell: Any) -> list[Measured]:
    """All sessions of one kind, on one volume under one load."""
    found = []
    size = max(args.size << 20, (512 << 20) + files * INODE_BYTES)
    with open_folder() as folder, MIRRORS[mirror](folder, size) as held:
        fill(Path(held.mount_point), files)
        bench = bench_class(database)(Path(held.mount_point), folder, mode)
        try:
            bench.start()
            with bench.load():
                for number in range(args.count):
                    for order in args.orders:
                        one = Measured(database, mode, mirror, order, number, files)
                        found.append(measure(bench, held, folder, one))
                        tell(one)
        finally:
            bench.stop()
    return found


def told(one: Measured) -> str:
    """A session on one line."""
    text = f"{one.database} {one.mode} {one.order} {one.number}: window {one.window_ms:.1f} ms, longest commit in it"
    text += f" {one.window_stall_ms:.1f} ms, while held {one.held_stall_ms:.1f} ms, usual {one.usual_stall_ms:.1f} ms,"
    text += f" first tape byte {one.first_byte_ms:.0f} ms"
    if one.checks:
        text += f", recovered in {one.recovery_s:.2f} s, drill " + ("good" if not one.failures else "FAILED")
    return text + "".join(f"\n    {failure}" for failure in one.failures)


def main(arguments: Sequence[str] | None = None) -> int:
    """1 when a copy was not right."""
    parser = argparse.ArgumentParser(prog="python -m tests.sessions", description=__doc__)
    parser.add_argument("--database", action="append", choices=sorted(DATABASES), help="default: all")
    parser.add_argument("--mode", action="append", help="default: all of the database's")
    parser.add_argument("--mirror", action="append", choices=sorted(MIRRORS), help="default: embedded")
    parser.add_argument("--count", type=int, default=20, help="sessions of each kind and order (20)")
    parser.add_argument("--files", type=int, action="append", help="further files on the volume; default: none")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the volume (1024)")
    parser.add_argument("--alone", dest="orders", action="store_const", const=ORDERS[:1], default=ORDERS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line for each session and summary")
    parser.add_argument("--table", type=Path, metavar="FILE", nargs="+", help="run nothing: the table of such files")
    args = parser.parse_args(arguments)
    if args.table:
        print(*table(kept_lines(args.table)), sep="\n")
        return 0
    keep_mounts_private()

    def keep(line: dict[str, Any]) -> None:
        if args.json is not None:
            with args.json.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def tell(one: Measured) -> None:
        print(told(one), flush=True)
        keep({"kind": "session", **asdict(one)})

    lines = []
    for database in args.database or sorted(DATABASES):
        modes = bench_class(database).MODES
        for mode in [mode for mode in modes if args.mode is None or mode in args.mode]:
            for mirror, files in itertools.product(args.mirror or ["embedded"], args.files or [0]):
                found = run(database, mode, mirror, files, args, tell)
                lines += [summary([x for x in found if x.order == order]) for order in args.orders]
    for line in lines:
        keep(line)
    print("", *table(lines), sep="\n")
    failed = sum(line["failed"] for line in lines)
    print(f"\n{sum(line['count'] for line in lines)} sessions, {failed} failed")
    return 1 if failed or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
