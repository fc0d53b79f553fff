"""databases holds what the verb restore does of a database: lay it out, and drill it. It moves no data itself."""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from splitreel import errors, records
from splitreel.cli import output
from splitreel.drive import Drive
from splitreel.reading.segment import Report
from splitreel.recovery import Drill
from splitreel.restore import Members, Restored, Wishes, restore_database
from splitreel.volume import Label

OnSegment = Callable[[argparse.Namespace, Report], None]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a database's restore."""
    group = parser.add_argument_group("a database, laid out so that it starts")
    group.add_argument("--database", metavar="DIR", help="directory restored into; must be empty or new")
    group.add_argument("--name", metavar="NAME", default="", help="which database, if the backup holds several")
    group.add_argument("--drill", action="store_true", help="start a throw-away server on it, check it, stop it")
    group.add_argument("--owner", metavar="USER", default="", help="whose it is to be (default: as on the primary)")
    group.add_argument(
        "--tablespace",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="where a tablespace goes, an empty or new directory (default: below DIR); may be repeated",
    )


def wanted(args: argparse.Namespace) -> bool:
    """Whether a database is asked for.

    Raises:
        UsageError: neither or both of --to and --database are given, or an option that does not go with it.
    """
    if (args.database is None) == (args.to is None):
        why = "both --to and --database are given" if args.to is not None else "no directory is named"
        raise errors.UsageError("splitreel restore", why, "Name --to DIR, or --database DIR.")
    if args.database is None:
        given = [key for key in ("name", "drill", "owner", "tablespace") if getattr(args, key)]
        if given:
            raise errors.UsageError("splitreel restore", f"--{given[0]} goes with --database")
        return False
    if args.paths or args.force:
        why = "--force" if args.force else "a path"
        raise errors.UsageError("splitreel restore", f"{why} does not go with --database", "Leave it out.")
    return True


def restore(
    args: argparse.Namespace,
    drive: Drive,
    label: Label | None,
    members: Members | None,
    on_segment: OnSegment,
) -> int:
    """Restore, lay out, drill; 3 when something is not as it was, or the drill finds something."""
    began = time.monotonic()
    done = restore_database(
        drive,
        args.database,
        Wishes(args.name, dict(map(_tablespace, args.tablespace)), args.owner),
        wanted=label,
        members=members,
        on_segment=lambda report: on_segment(args, report),
    )
    _tell(args, done, time.monotonic() - began)
    if not done.outcome.complete:
        return errors.EXIT_DATA
    return _drill(args, done) if args.drill else errors.EXIT_DONE


def _tablespace(text: str) -> tuple[str, Path]:
    old, equals, new = text.partition("=")
    if not equals or not old.startswith("/") or not new:
        raise errors.UsageError(f"--tablespace {text}", "it is not OLD=NEW, with OLD an absolute path")
    return old.rstrip("/"), Path(new)


def _tell(args: argparse.Namespace, done: Restored, seconds: float) -> None:
    outcome = done.outcome
    for path, why in outcome.problems.listed:
        if args.json:
            output.emit({"kind": "problem", "path": records.text(path), "why": why})
        else:
            output.note(f"splitreel: {output.printable(path) + ': ' if path else ''}{why}")
    engine, name = str(done.facts["engine"]), str(done.facts.get("name", ""))
    if args.json:
        output.emit(
            {
                "kind": "database",
                "id": outcome.label.backup,
                "engine": engine,
                "name": name,
                "version": done.facts.get("version"),
                "mode": done.facts.get("mode"),
                "data": str(done.main),
                "owner": done.layout.owner.name if done.layout.owner is not None else None,
                "files": outcome.files,
                "bytes": outcome.content_bytes,
                "problems": outcome.problems.count,
                "notes": done.notes,
                "seconds": round(seconds, 3),
            }
        )
        return
    for note in done.notes:
        output.note(f"splitreel: {note}")
    size = f"{output.count(outcome.files, 'file')}, {output.size(outcome.content_bytes)}"
    problems = output.count(outcome.problems.count, "problem")
    print(f"{engine} database {name} in {done.main}: {size}, in {seconds:.1f} s, {problems}")


def _drill(args: argparse.Namespace, done: Restored) -> int:
    """Logs are kept unless all is well; an error of the drill's names their directory."""
    logs = Path(tempfile.mkdtemp(prefix="splitreel-drill-log-"))
    found = done.recovery.drill(done.layout, logs)
    if found.ok:
        shutil.rmtree(logs)
    _tell_drill(args, found, logs)
    return errors.EXIT_DONE if found.ok else errors.EXIT_DATA


def _tell_drill(args: argparse.Namespace, found: Drill, logs: Path) -> None:
    if args.json:
        output.emit(found.record() | ({} if found.ok else {"logs": str(logs)}))
        return
    for check in found.checks:
        for problem in check.problems:
            output.note(f"splitreel: {check.name}: {problem}")
    checks = ", ".join(
        f"{check.name} {'found nothing' if not check.problems else output.count(len(check.problems), 'problem')}"
        for check in found.checks
    )
    kept = "" if found.ok else f"; logs are in {logs}"
    print(f"drill: recovered in {found.seconds:.2f} s (version {found.version}); {checks}{kept}")
