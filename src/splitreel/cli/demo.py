"""demo holds the verb demo: a whole session without hardware, with its proof."""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from splitreel import errors, session
from splitreel.cli import output
from splitreel.demo.chart import Bar, bar_chart, comparison
from splitreel.demo.show import DemoResult, run_demo

NEXT = """What to try next:
  {0} demo --drive iscsi
      the same over SCSI commands to an iSCSI tape on loopback
  {0} doctor
      what this machine has and lacks
  {0} map DEVICE --stats
      where the files of an ext4 device stand, read raw
  {0} backup --device DEVICE --tape file:/tmp/first.tap
      a first tape; then verify, list and restore it with --tape file:/tmp/first.tap"""


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verb."""
    parser = verbs.add_parser("demo", help="a whole session on this machine without hardware, and its proof")
    parser.add_argument(
        "--drive", choices=("file", "iscsi"), default="file", help="software drive, or iSCSI on loopback"
    )
    parser.add_argument("--files", type=_count, default=20_000, help="files besides the database (default: 20000)")
    parser.add_argument("--writers", type=_count, default=3, help="processes that commit rows (default: 3)")
    parser.add_argument("--scratch", metavar="DIR", help="where to work (default: a temporary directory)")
    parser.add_argument("--keep", action="store_true", help="leave the tape and the restored files there")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no count")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 3 when the proof does not hold."""
    if os.geteuid() != 0:
        raise errors.UsageError("demo", "it mounts and freezes a file system of its own", "Run it as root.")
    say = output.note if args.json else print
    directory = Path(tempfile.mkdtemp(prefix="splitreel-demo-", dir=args.scratch))
    keep = args.keep
    try:
        result = run_demo(
            directory,
            files=args.files,
            writers=args.writers,
            drive=args.drive,
            say=say,
            observe=lambda first: None if args.json else _print_phases(first),
        )
        keep = keep or not result.restored_ok
    finally:
        if keep:
            say(f"Kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if args.json:
        output.emit(result.record())
    else:
        _print_result(result)
    return errors.EXIT_DONE if result.restored_ok else errors.EXIT_DATA


def _program() -> str:
    """How this program is called here: the virtual environment's is not on the PATH."""
    return "splitreel" if shutil.which("splitreel") or Path(sys.argv[0]).name != "splitreel" else sys.argv[0]


def _print_phases(result: session.SessionResult) -> None:
    bars = [Bar(phase.name, phase.start, phase.seconds) for phase in result.phases]
    released = next(phase for phase in result.phases if phase.name == "unquiesce")
    seconds = result.window_ms / 1000
    bars.append(Bar("window", released.start + released.seconds - seconds, seconds, held=True))
    print("\n".join(["", *bar_chart(bars), ""]))


def _print_result(result: DemoResult) -> None:
    windows = {"this session": result.window_ms, "conventional": result.conventional_window_ms}
    print("\nFor how long the database was held:\n")
    print("\n".join(comparison(windows)))
    print(f"\nBacked up {result.files} files, {output.size(result.bytes)}, at {result.mb_per_s:.0f} MB/s;")
    print(f"restored in {result.restore_seconds:.1f} s, {result.compared} files compared byte by byte.\n")
    print(f"  integrity check of the restored database: {result.proof.integrity}")
    print(f"  rows acknowledged before the window: {result.proof.before}")
    print(f"  rows begun after the window: {result.proof.after}")
    print(f"  rows restored: {result.proof.rows}")
    for failure in result.record()["failures"]:
        print(f"  FAILED: {failure}")
    if result.restored_ok:
        print("  every row acknowledged before the window is there, none begun after it")
    print(f"\n{'PROVED' if result.restored_ok else 'NOT PROVED'}\n\n{NEXT.format(_program())}")
