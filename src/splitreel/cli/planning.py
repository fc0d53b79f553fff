"""planning holds the verb plan: the tape layout of a backup, printed before anything is written."""

import argparse
import os

from splitreel import errors
from splitreel.cli import inspect, output, source
from splitreel.core.plan import ORDERS, Plan
from splitreel.plan import records, select

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def byte_count(text: str) -> int:
    """A count of bytes: 1048576, 1M, 16G; units are powers of 1024."""
    number = text.upper().removesuffix("IB").removesuffix("B")
    factor = UNITS.get(number[-1:], 1)
    try:
        return int(number[:-1] if factor > 1 else number) * factor
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no count of bytes, such as 1M") from error


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verb."""
    parser = verbs.add_parser(
        "plan",
        help="print where a backup would put every file on tape",
        epilog="A member's line: tape block (as LOCATE counts), offset in it, path.",
    )
    parser.add_argument("--device", metavar="DEV", required=True, help="block device or image file")
    inspect.add_trust(parser)
    parser.add_argument("--order", choices=ORDERS, default="path", help="order of the files on tape (default: path)")
    parser.add_argument("--block-size", metavar="BYTES", type=byte_count, default=1 << 20, help="tape block (1M)")
    parser.add_argument("--segment-size", metavar="BYTES", type=byte_count, default=16 << 30, help="tape file (16G)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: segments, members, the totals")
    parser.add_argument("paths", metavar="PATH", nargs="*", help="files or directories (default: all)")
    parser.set_defaults(run=run_plan)


def run_plan(args: argparse.Namespace) -> int:
    """Map the device, lay its files out, print the layout; 3 when something had to be left out."""
    with source.opened(args) as devices:
        extent_map = source.mapped(args, devices).map
    plan = Plan.build(
        extent_map,
        order=args.order,
        selection=select(extent_map, [os.fsencode(path) for path in args.paths]),
        block_size=args.block_size,
        segment_size=args.segment_size,
    )
    inspect.report_problems(extent_map)
    for path, reason in plan.skipped:
        output.note(f"splitreel: left out: {output.printable(path)}: {reason}")
    for record in records(plan):
        if args.json:
            output.emit(record)
        elif record["kind"] == "segment":
            print(f"segment {record['segment']}: {record['blocks']} blocks from object {record['object']}")
        else:
            place = f"{record['object']:>12} +{record['offset']:<8}"
            print(f"{place} {output.printable(os.fsencode(record['path'])) or '.'}")
    if args.json:
        output.emit({"kind": "plan", **plan.totals})
    else:
        totals = plan.totals
        blocks = f"{output.count(totals['blocks'], 'tape block')} of {output.size(plan.block_size)}"
        print(f"{output.count(totals['files'], 'file')}, {output.size(totals['bytes'])}, {blocks}", end="")
        print(f" in {output.count(totals['segments'], 'segment')}")
    return errors.EXIT_DATA if plan.skipped_count or extent_map.problem_count else errors.EXIT_DONE
