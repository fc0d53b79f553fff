"""catalogs holds the verb catalog: rebuild from a tape, export to and import from JSON lines."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path

from splitreel import errors, records
from splitreel.catalog import Catalog
from splitreel.cli import output
from splitreel.drive import open_recorded
from splitreel.drive.address import FORMS
from splitreel.reading import all_records, label_of, scanned_records
from splitreel.state import state_directory
from splitreel.volume import FORMAT

CHUNK = 1 << 20


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verb."""
    parser = verbs.add_parser("catalog", help="rebuild the catalog from tapes, export or import a backup's entry")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    action = actions.add_parser("rebuild", help="add the backup on a tape, from the tape alone", epilog=FORMS)
    action.add_argument("--tape", metavar="TAPE", required=True, help="the drive with the tape")
    action.add_argument("--force", action="store_true", help="replace the backup if the catalog holds it already")
    action.add_argument("--json", action="store_true", help="one JSON object a line")
    action.set_defaults(run=run_rebuild)
    action = actions.add_parser("export", help="print a backup's entry as JSON lines, as its tape holds them")
    action.add_argument("backup", metavar="UUID", nargs="?", default="", help="its first characters (default: newest)")
    action.set_defaults(run=run_export)
    action = actions.add_parser("import", help="add a backup's entry from JSON lines")
    action.add_argument(
        "file", metavar="FILE", help="what export printed, or a tape's catalog.jsonl; - is standard input"
    )
    action.add_argument("--force", action="store_true", help="replace the backup if the catalog holds it already")
    action.add_argument("--json", action="store_true", help="one JSON object a line")
    action.set_defaults(run=run_import)


def run_rebuild(args: argparse.Namespace) -> int:
    """Add what a tape says of itself; 3 when its backup did not run to its end."""
    with ExitStack() as held:
        drive = held.enter_context(open_recorded(args.tape))
        drive.wait_ready()
        label = label_of(drive)
        catalog = held.enter_context(Catalog(state_directory(args.state)))
        try:
            uuid = catalog.load_records(all_records(drive, label), replace=args.force, drive=args.tape)
        except errors.IntegrityError:
            # the catalog at its end is damaged: its manifests say the same
            uuid = catalog.load_records(scanned_records(drive, label), replace=args.force, drive=args.tape)
        return _tell(args, catalog, uuid)


def run_export(args: argparse.Namespace) -> int:
    """Print a backup's lines to standard output."""
    with Catalog(state_directory(args.state)) as catalog:
        for line in catalog.export(catalog.backup(args.backup)):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return errors.EXIT_DONE


def _chunks(name: str) -> Iterator[bytes]:
    if name == "-":
        while data := sys.stdin.buffer.read(CHUNK):
            yield data
        return
    try:
        with Path(name).open("rb") as source:
            while data := source.read(CHUNK):
                yield data
    except OSError as error:
        raise errors.UsageError(f"reading {name}", error.strerror or str(error)) from error


def _export(name: str) -> Iterator[bytes]:
    """A file's bytes when its first line is that of an export; what follows is verified as it is read.

    Raises:
        UsageError: the file cannot be read, or it is something else.
    """
    chunks = _chunks(name)
    begun = b""
    while b"\n" not in begun and len(begun) <= records.MAX_LINE and (chunk := next(chunks, b"")):
        begun += chunk
    with suppress(errors.IntegrityError):
        head = records.decode(begun.partition(b"\n")[0])
        if (head["kind"], head.get("format")) == ("catalog", FORMAT):
            return chain([begun], chunks)
    advice = "Name what 'splitreel catalog export' printed, or .splitreel/catalog.jsonl of a tape's last file."
    raise errors.UsageError(f"importing {name}", "it is no export of a catalog", advice)


def run_import(args: argparse.Namespace) -> int:
    """Add what a file holds; 3 when its backup did not run to its end."""
    chunks = _export(args.file)
    with Catalog(state_directory(args.state)) as catalog:
        return _tell(args, catalog, catalog.load(chunks, replace=args.force))


def _tell(args: argparse.Namespace, catalog: Catalog, uuid: str) -> int:
    backup = catalog.backup(uuid)
    if args.json:
        record = {"kind": "backup", "id": uuid, "state": backup.state, "files": backup.files, "bytes": backup.bytes}
        output.emit(record)
    else:
        print(f"{uuid}: {backup.files} files, {output.size(backup.bytes)}, {backup.state}")
    return errors.EXIT_DONE if backup.state == "complete" else errors.EXIT_DATA
