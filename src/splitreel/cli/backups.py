"""backups holds the verb backup: of a device that nobody writes to, or a whole session from a configuration."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from splitreel import config, errors, pages
from splitreel.backup import Incomplete, Options, Result, back_up
from splitreel.cli import explaining, inspect, output, source
from splitreel.cli.planning import byte_count
from splitreel.core.device import BlockDevice
from splitreel.core.plan import ORDERS
from splitreel.drive.address import FORMS
from splitreel.mapping import Mapped
from splitreel.state import state_directory

LOG_SECONDS = 30.0
EPILOG = f"""{FORMS}. A blank tape, or one that was only labelled, is written without a question; one that holds a
splitreel backup needs --overwrite, any other --force."""


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verb."""
    parser = verbs.add_parser(
        "backup",
        help="back up a device to tape, or a live database as a configuration says",
        usage="splitreel backup --device DEV --tape TAPE [OPTION...] [PATH...]\n       "
        "splitreel backup CONFIG.toml [--job NAME] [--rehearse [--count N]] [--explain] [--json]",
        epilog=EPILOG,
    )
    parser.add_argument("--device", metavar="DEV", help="image, or mirror already split, that nobody writes to")
    parser.add_argument("--tape", metavar="TAPE", help="the drive that is written")
    parser.add_argument("--job", metavar="NAME", help="which job of the configuration")
    parser.add_argument("--rehearse", action="store_true", help="a whole session but for the tape, which is not needed")
    parser.add_argument("--explain", action="store_true", help="say what each phase of a session waits for")
    parser.add_argument("--count", metavar="N", type=int, default=1, help="how many rehearsals (default: 1)")
    source.add_options(parser)
    parser.add_argument("--frozen", action="store_true", help="it was frozen or unmounted when the mirror was split")
    parser.add_argument("--map", metavar="FILE", help="a saved map of this device, instead of mapping it now")
    parser.add_argument("--order", choices=ORDERS, default="path", help="order of the files on tape (default: path)")
    parser.add_argument("--block-size", metavar="BYTES", type=byte_count, default=0, help="tape block (1M)")
    parser.add_argument("--segment-size", metavar="BYTES", type=byte_count, default=0, help="tape file (16G)")
    parser.add_argument("--sync-segments", metavar="N", type=int, default=0, help="synchronise every N segments (4)")
    parser.add_argument("--label", metavar="NAME", default="", help="volume name for the tape, 1 to 6 characters")
    parser.add_argument("--overwrite", action="store_true", help="the splitreel backup on the tape may be lost")
    parser.add_argument("--force", action="store_true", help="whatever is on the tape may be lost")
    parser.add_argument(
        "--check-pages",
        metavar="WHAT",
        action="append",
        default=[],
        help=f"verify database pages on their way: {pages.WORDS} (repeatable; a session does so by itself)",
    )
    parser.add_argument("--strict", action="store_true", help="stop when something is damaged, before writing")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("paths", metavar="PATH", nargs="*", help="files or directories (default: all)")
    parser.set_defaults(run=run_backup)


def run_backup(args: argparse.Namespace) -> int:
    """The verb backup, in either form."""
    with terminate_like_interrupt():
        if args.device is not None:
            return _device(args)
        return _rehearsals(args) if args.rehearse else _session(args)


@contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: the tape is closed where it stands, the catalog says how far it went."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# A device that nobody writes to.


def _device(args: argparse.Namespace) -> int:
    if args.tape is None:
        raise errors.UsageError("splitreel backup", "--device needs --tape", FORMS)
    options = Options(
        args.tape,
        args.order,
        args.block_size,
        args.segment_size,
        args.sync_segments,
        args.label,
        args.overwrite,
        args.force,
        args.strict,
    )
    # what is written to null: is nowhere: the catalog does not list it
    state = None if args.tape == "null:" else state_directory(args.state)
    shown = Shown(args)
    with source.opened(args) as devices:
        found = _map(args, devices)
        paths = [os.fsencode(path).strip(b"/") for path in args.paths]
        try:
            result = back_up(
                found.device,
                found.map,
                options,
                paths=paths,
                state=state,
                progress=shown.progress,
                verify=found.verify_unchanged,
                checks=_checks(args, found),
            )
        except Incomplete as error:
            shown.end()
            _tell(args, error.result)
            raise
        finally:
            shown.end()
    inspect.report_problems(found.map)
    _tell(args, result)
    if result.catalog_error is not None:
        raise result.catalog_error
    return errors.EXIT_DONE if result.sound else errors.EXIT_DATA


def _checks(args: argparse.Namespace, found: Mapped) -> pages.Checks | None:
    return pages.checks_of(found.map, pages.from_words(args.check_pages, found.map, found.device))


def _map(args: argparse.Namespace, devices: list[BlockDevice]) -> Mapped:
    args.live = False
    return source.mapped(args, devices) if args.map is None else source.loaded(args, devices)


def _tell(args: argparse.Namespace, result: Result) -> None:
    for path, why in result.left_out:
        output.note(f"splitreel: left out: {output.printable(path)}: {why}")
    if args.json:
        for record in result.page_records():
            output.emit(record)
        output.emit(result.record())
        sys.stdout.flush()
        return
    _tell_pages(result)
    size = output.size(result.bytes)
    print(f"backup {result.id} on volume {result.volume}: {result.state}")
    files, blocks = output.count(result.files, "file"), output.count(result.tape_blocks, "tape block")
    print(f"{files}, {size} in {result.seconds:.1f} s ({result.mb_per_s:.1f} MB/s), ", end="")
    print(f"{blocks} in {output.count(result.segments, 'segment')}, {output.count(result.underruns, 'underrun')}")


def _tell_pages(result: Result) -> None:
    for one in result.damaged_pages:
        output.note(f"splitreel: damaged page: {one}")
    counts = result.pages
    if not counts:
        return
    if counts["damaged"] > len(result.damaged_pages):
        output.note(f"splitreel: {counts['damaged'] - len(result.damaged_pages)} more damaged pages, not listed")
    text = f"{output.count(counts['pages'], 'database page')} in {output.count(counts['files'], 'file')}"
    text += f": {counts['damaged']} damaged, {counts['unchecked']} without a checksum"
    print(text + (f", {counts['repaired']} for recovery to write anew" if counts["repaired"] else ""))


class Shown:
    """Progress: in place on a terminal, a line now and then in a log, nothing with --json."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.terminal = output.is_terminal()
        self.quiet = args.json and not self.terminal
        self.last = time.monotonic()
        self.drawn = False

    def progress(self, seen: Mapping[str, Any]) -> None:
        """Show what the stream says of itself."""
        now = time.monotonic()
        if self.quiet or not (self.terminal or now - self.last >= LOG_SECONDS):
            return
        self.last = now
        rate = seen["bytes_written"] / 1e6 / seen["seconds"] if seen["seconds"] > 0 else 0.0
        text = f"segment {seen['segment'] + 1}, {output.size(seen['bytes_written'])} on tape, {rate:.0f} MB/s"
        text += f", ring {seen['ring_fill']}/{seen['ring_blocks']}, {seen['underruns']} underruns"
        print(
            f"\r{text}\033[K" if self.terminal else text, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )
        self.drawn = self.terminal

    def end(self) -> None:
        """Leave the line that was drawn in place."""
        if self.drawn:
            print(file=sys.stderr)
            self.drawn = False


# A session.


def _job(args: argparse.Namespace) -> config.Job:
    """The job that the command line names."""
    if len(args.paths) != 1 or args.tape is not None:
        why = "neither a device nor one configuration was named"
        if args.tape is not None and args.paths:
            why = "--tape goes with --device; a configuration names its tape itself"
        raise errors.UsageError("splitreel backup", why, "Name --device DEV --tape TAPE, or CONFIG.toml alone.")
    return config.load(args.paths[0]).job(args.job)


def _rehearsals(args: argparse.Namespace) -> int:
    from splitreel.cli import rehearsals  # noqa: PLC0415 (as below)

    return rehearsals.run_rehearsals(args, _job(args))


def _session(args: argparse.Namespace) -> int:
    from splitreel import session  # noqa: PLC0415 (a device's backup needs none of it)

    job = _job(args)
    began = time.monotonic()

    shown = Shown(args)

    def report(event: Mapping[str, Any]) -> None:
        if event.get("event") == "progress":
            shown.progress(event)
            return
        shown.end()
        if args.explain:
            explaining.tell(event)
        if args.json and event.get("event") != "waiting":
            output.emit({"kind": "event", **event})
        elif event.get("event") == "phase" and event.get("state") == "end":
            output.note(f"{event['phase']:<10} {event['seconds']:10.3f} s")
        elif event.get("event") == "note":
            output.note(f"splitreel: {event['text']}")

    try:
        done = session.run(job, state=state_directory(args.state), report=report, explain=args.explain)
    except Incomplete as error:
        _tell(args, error.result)
        raise
    written = done.backup
    if isinstance(written, Result):
        written.window_ms = done.window_ms
        _tell(args, written)
        if not args.json:
            print(f"window {done.window_ms:.1f} ms, whole session {time.monotonic() - began:.1f} s")
            if done.resynced_bytes is not None:
                print(f"rejoined by copying {output.size(done.resynced_bytes)}")
        if written.catalog_error is not None:
            raise written.catalog_error
        return errors.EXIT_DONE if written.sound else errors.EXIT_DATA
    return errors.EXIT_DATA if done.problems else errors.EXIT_DONE
