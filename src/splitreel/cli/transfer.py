"""transfer holds the verbs restore, verify and list. It moves no data itself."""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from splitreel import errors, records
from splitreel.catalog import Backup, Catalog
from splitreel.cli import databases, output
from splitreel.drive import Drive, open_recorded
from splitreel.drive.address import FORMS
from splitreel.reading import all_records, label_of
from splitreel.reading.segment import Report
from splitreel.reading.verify import verify
from splitreel.records import Member
from splitreel.restore import Members, restore
from splitreel.selection import Selection
from splitreel.state import state_directory
from splitreel.volume import Label

MB = 1e6
LISTED = 100  # problems shown one by one on a terminal; JSON has all


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verbs."""
    parser = verbs.add_parser(
        "restore",
        help="bring a backup, or part of it, or one of its databases, into a directory",
        usage="splitreel restore --to DIR [--tape TAPE] [OPTION...] [PATH...]\n       "
        "splitreel restore --database DIR [--name NAME] [--drill] [--tape TAPE] [OPTION...]",
        epilog=FORMS,
    )
    _source(parser)
    parser.add_argument("--to", metavar="DIR", help="directory restored into; must be empty or new")
    databases.add_options(parser)
    parser.add_argument("--force", action="store_true", help="restore into a directory that is not empty")
    parser.add_argument("paths", metavar="PATH", nargs="*", help="paths or patterns (*, ?, [..], **); default: all")
    parser.set_defaults(run=run_restore)
    parser = verbs.add_parser("verify", help="read a tape back and compare every checksum", epilog=FORMS)
    _source(parser)
    parser.set_defaults(run=run_verify)
    parser = verbs.add_parser(
        "list",
        help="list the backups of the catalog, or what a backup holds",
        epilog="A backup's size is what is stored of its files, without holes; restore and verify count the holes. "
        f"A member's line: segment, first tape block, type, size with holes, path. {FORMS}",
    )
    _source(parser)
    parser.add_argument("paths", metavar="PATH", nargs="*", help="paths or patterns; default: all")
    parser.set_defaults(run=run_list)


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tape", metavar="TAPE", help="read the tape alone; without it, what the catalog says of it")
    parser.add_argument(
        "--backup", metavar="UUID", default="", help="which backup of the catalog (its first characters)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


class Source:
    """The tape that a verb reads, and what the catalog knows of it: nothing when the tape was named alone."""

    def __init__(self, args: argparse.Namespace, held: ExitStack) -> None:
        self.wanted: Label | None = None
        self.members: Members | None = None
        url = args.tape
        if url is None or args.backup:
            catalog = held.enter_context(Catalog(state_directory(args.state)))
            backup = catalog.backup(args.backup)
            volume, self.wanted, drive = catalog.volume(backup.id)
            self.members = lambda: catalog.members(volume)
            url = url or drive
        if not url:
            raise errors.UsageError("the tape to read", "the catalog does not know the drive", "Name it with --tape.")
        self.drive: Drive = held.enter_context(open_recorded(url))
        self.drive.wait_ready()


def _rate(count: int, seconds: float) -> float:
    """10^6 bytes of tape a second: content would count holes."""
    return round(count / MB / seconds, 1) if seconds > 0 else 0.0


def _on_segment(args: argparse.Namespace, report: Report) -> None:
    if args.json:
        output.emit(
            {
                "kind": "segment",
                "segment": report.number,
                "tape_file": report.kind,
                "members": report.members,
                "bytes": report.content_bytes,
                "tape_blocks": report.blocks,
                "sound": report.sound,
            }
        )
    elif report.kind == "segment":
        state = "verified" if report.sound else "DAMAGED"
        output.note(f"segment {report.number}: {report.members} members, {output.size(report.content_bytes)}: {state}")


def _tell(args: argparse.Namespace, kind: str, found: list[tuple[bytes, str]], count: int) -> None:
    for path, why in found if args.json else found[:LISTED]:
        if args.json:
            output.emit({"kind": kind, "path": records.text(path), "why": why})
        else:
            output.note(f"splitreel: {output.printable(path) + ': ' if path else ''}{why}")
    shown = len(found) if args.json else min(LISTED, len(found))
    if count > shown:
        output.note(f"splitreel: {count - shown} more, not listed")


def run_restore(args: argparse.Namespace) -> int:
    """The verb restore: 3 when something is not as it was."""
    if databases.wanted(args):
        with ExitStack() as held:
            source = Source(args, held)
            return databases.restore(args, source.drive, source.wanted, source.members, _on_segment)
    began = time.monotonic()
    with ExitStack() as held:
        source = Source(args, held)
        outcome = restore(
            source.drive,
            args.to,
            [os.fsencode(path) for path in args.paths],
            force=args.force,
            wanted=source.wanted,
            members=source.members,
            on_segment=lambda report: _on_segment(args, report),
        )
    seconds = time.monotonic() - began
    problems = outcome.problems
    _tell(args, "problem", problems.listed, problems.count)
    rate = _rate(outcome.blocks * outcome.label.block_size, seconds)
    if args.json:
        output.emit(
            {
                "kind": "restore",
                "id": outcome.label.backup,
                "volume": outcome.label.volume,
                "files": outcome.files,
                "members": outcome.members,
                "bytes": outcome.content_bytes,
                "tape_blocks": outcome.blocks,
                "problems": problems.count,
                "unprivileged": problems.unprivileged,
                "sockets": outcome.sockets,
                "seconds": round(seconds, 3),
                "mb_per_s": rate,
            }
        )
    else:
        if problems.unprivileged:
            left_out = output.count(problems.unprivileged, "attribute")
            output.note(f"left out: {left_out} that only root may set")
        if outcome.sockets:
            output.note(f"left out: {output.count(outcome.sockets, 'socket')}, which programs make anew")
        size = f"{output.count(outcome.files, 'file')}, {output.size(outcome.content_bytes)} with holes"
        print(f"{size}, in {seconds:.1f} s ({rate} MB/s of tape), {output.count(problems.count, 'problem')}")
    return errors.EXIT_DONE if outcome.complete else errors.EXIT_DATA


def run_verify(args: argparse.Namespace) -> int:
    """The verb verify: 3 when anything differs."""
    began = time.monotonic()
    with ExitStack() as held:
        source = Source(args, held)
        verdict = verify(source.drive, wanted=source.wanted, on_segment=lambda report: _on_segment(args, report))
    seconds = time.monotonic() - began
    if args.json:
        for segment, path, why in verdict.findings:
            output.emit({"kind": "finding", "segment": segment, "path": records.text(path), "why": why})
        output.emit(
            {
                "kind": "verify",
                "id": verdict.label.backup,
                "volume": verdict.label.volume,
                "segments": verdict.segments,
                "files": verdict.files,
                "members": verdict.members,
                "bytes": verdict.content_bytes,
                "tape_blocks": verdict.blocks,
                "cksums": verdict.cksums,
                "findings": verdict.finding_count,
                "sound": verdict.sound,
                "seconds": round(seconds, 3),
                "mb_per_s": _rate(verdict.blocks * verdict.label.block_size, seconds),
            }
        )
        return errors.EXIT_DONE if verdict.sound else errors.EXIT_DATA
    found = [(path, f"{why} (segment {segment})" if segment else why) for segment, path, why in verdict.findings]
    _tell(args, "finding", found, verdict.finding_count)
    state = "everything verified" if verdict.sound else output.count(verdict.finding_count, "finding")
    size = f"{output.count(verdict.files, 'file')}, {output.size(verdict.content_bytes)} with holes"
    print(f"{size}, {output.count(verdict.segments, 'segment')}: {state}")
    return errors.EXIT_DONE if verdict.sound else errors.EXIT_DATA


# list


def run_list(args: argparse.Namespace) -> int:
    """The verb list: 3 when the backup did not run to its end."""
    if args.tape is None and not args.backup and not args.paths:
        return _list_backups(args)
    chosen = Selection(os.fsencode(path) for path in args.paths)
    with ExitStack() as held:
        if args.tape is None:
            catalog = held.enter_context(Catalog(state_directory(args.state)))
            backup = catalog.backup(args.backup)
            complete = [backup.state == "complete"]
            members: Iterator[Member] = catalog.members(catalog.volume(backup.id)[0])
        else:
            source = Source(args, held)
            complete = []
            members = _on_tape(source.drive, complete)
        count = sum(_print_member(args, member) for member in members if chosen(member.path))
    if args.json:
        output.emit({"kind": "list", "members": count, "complete": all(complete)})
    elif not all(complete):
        output.note("splitreel: this backup did not run to its end; what is listed is on the tape")
    if chosen.unmatched:
        shown = ", ".join(output.printable(pattern) for pattern in sorted(chosen.unmatched))
        raise errors.NotFound(
            f"path {shown}", "the backup holds no such path", "Without a path, 'splitreel list' shows all."
        )
    return errors.EXIT_DONE if all(complete) else errors.EXIT_DATA


def _on_tape(drive: Drive, complete: list[bool]) -> Iterator[Member]:
    for record in all_records(drive, label_of(drive)):
        if record["kind"] == "catalog":
            complete.append(record.get("state", "complete") == "complete")
        elif record["kind"] == "member":
            yield records.member(record)


def _print_member(args: argparse.Namespace, member: Member) -> int:
    if args.json:
        output.emit(records.member_record(member))
    else:
        arrow = f" -> {output.printable(member.target)}" if member.target is not None else ""
        path = output.printable(member.path) or "."
        print(f"{member.segment:>4} {member.object:>10} {member.type:<7} {member.size:>14} {path}{arrow}")
    return 1


def _list_backups(args: argparse.Namespace) -> int:
    with Catalog(state_directory(args.state)) as catalog:
        for backup in catalog.backups():
            _print_backup(args, catalog, backup)
    return errors.EXIT_DONE


def _print_backup(args: argparse.Namespace, catalog: Catalog, backup: Backup) -> None:
    try:
        volume = catalog.volume(backup.id)[1].volume
    except errors.NotFound:
        volume = ""
    if args.json:
        record: dict[str, Any] = {"kind": "backup", "id": backup.uuid}
        for key in ("created", "host", "device", "job", "state", "reason", "files", "bytes", "seconds", "window_ms"):
            record[key] = getattr(backup, key)
        output.emit(record | {"volume": volume})
    else:
        size = f"{backup.files} files, {output.size(backup.bytes)}"
        print(f"{backup.uuid}  {backup.created}  {volume:<6}  {backup.state:<10}  {size}  {backup.device}")
