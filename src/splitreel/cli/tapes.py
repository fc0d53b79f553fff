"""tapes holds the verb tape: status, label, load, rewind, erase and eject of one drive. It moves no data."""

import argparse
from typing import Any

from splitreel import errors, volume
from splitreel.cli import output
from splitreel.drive import FORMS, open_drive, open_recorded
from splitreel.drive.replies import TAPE_ALERTS
from splitreel.drive.tapedrive import UNKNOWN

LOAD_SECONDS = 300.0


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verbs."""
    parser = verbs.add_parser("tape", help="look at a tape drive, move or erase its tape", epilog=FORMS)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = add_action(actions, "status", run_status, "say what drive and tape are, and where the tape stands")
    status.add_argument("--label", action="store_true", help="rewind and say what the tape is")
    status.add_argument("--alerts", action="store_true", help="read the TapeAlert flags, which clears them")
    label = add_action(actions, "label", run_label, "write a volume label on an empty tape")
    label.add_argument("--name", default="", help="volume name, 1 to 6 characters as on the barcode (default: made up)")
    label.add_argument("--overwrite", action="store_true", help="the splitreel backup on the tape may be lost")
    label.add_argument("--force", action="store_true", help="whatever is on the tape may be lost")
    add_action(actions, "load", run_load, "load the tape that stands in the drive's door")
    add_action(actions, "rewind", run_rewind, "rewind the tape")
    erase = add_action(actions, "erase", run_erase, "erase the whole tape")
    erase.add_argument("--force", action="store_true", help="also when something is on it")
    erase.add_argument("--long", action="store_true", help="overwrite the whole medium, which takes hours")
    add_action(actions, "eject", run_eject, "rewind the tape and eject it")


def add_action(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """An action of the verb tape with what all of them take."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, epilog=FORMS)
    parser.add_argument("tape", metavar="TAPE", help="tape drive")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)
    return parser


def report(args: argparse.Namespace, facts: dict[str, Any]) -> int:
    """Print what was found or done."""
    if args.json:
        output.emit({"kind": "tape", "action": args.action, **facts})
        return errors.EXIT_DONE
    for name, value in facts.items():
        if name in ("object_id", "file_id") and value == UNKNOWN:
            continue  # "position known" says so
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        text = {True: "yes", False: "no"}.get(shown, shown) if isinstance(shown, bool) else shown
        print(f"{name.replace('_', ' ')}: {text}")
    return errors.EXIT_DONE


def run_status(args: argparse.Namespace) -> int:
    """The action status; a drive without a tape is no failure."""
    with open_recorded(args.tape) as drive:
        facts = drive.status()
        if args.label and facts["ready"]:
            facts["holds"] = volume.recognise(drive).description
            drive.rewind()
        if args.alerts:
            facts["alerts"] = [TAPE_ALERTS.get(flag, f"flag {flag}") for flag in drive.tape_alert()]
    return report(args, facts)


def run_label(args: argparse.Namespace) -> int:
    """The action label: a tape that holds something is refused unless its loss was allowed."""
    with open_drive(args.tape) as drive:
        drive.wait_ready(LOAD_SECONDS)
        found = volume.recognise(drive)
        volume.require_writable(found, overwrite=args.overwrite, force=args.force)
        label = volume.Label(args.name or volume.new_name())
        volume.write(drive, label)
        drive.rewind()
        return report(args, {"tape": drive.name, "volume": label.volume, "uuid": label.volume_uuid})


def run_load(args: argparse.Namespace) -> int:
    """The action load."""
    with open_recorded(args.tape) as drive:
        drive.load()
        return report(args, {"tape": drive.name, "ready": True})


def run_rewind(args: argparse.Namespace) -> int:
    """The action rewind."""
    with open_recorded(args.tape) as drive:
        drive.wait_ready(LOAD_SECONDS)
        drive.rewind()
        return report(args, {"tape": drive.name, "object_id": 0})


def run_erase(args: argparse.Namespace) -> int:
    """The action erase: from the beginning to the end."""
    with open_recorded(args.tape) as drive:
        drive.wait_ready(LOAD_SECONDS)
        if not args.force and drive.holds_data():
            raise errors.WrongTape(
                f"erasing tape {drive.name}",
                "something is on it",
                "Say --force if it may be lost, or load another.",
            )
        drive.rewind()
        drive.erase(args.long)
        drive.rewind()
        return report(args, {"tape": drive.name, "erased": True, "long": args.long})


def run_eject(args: argparse.Namespace) -> int:
    """The action eject."""
    with open_recorded(args.tape) as drive:
        drive.unload()
        return report(args, {"tape": drive.name, "ejected": True})
