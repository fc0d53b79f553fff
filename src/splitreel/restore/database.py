"""database restores one database of a session into a directory, laid out so that it starts. It knows no engine.

What is read: the closing tape file, for ``session.json`` and redo, and of the segments the files of this database
alone. All of it goes into a directory of its own beside its place (same file system, so that its parts can be renamed
into it), which is gone at the end.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from splitreel import recovery
from splitreel.drive import Drive
from splitreel.errors import IntegrityError, NotFound, SplitreelError, UsageError
from splitreel.reading import check_identity, label_of, walk_closing
from splitreel.reading.segment import REDO, Report
from splitreel.recovery import Layout, Owner, Piece, Recovery, files
from splitreel.restore.destination import Destination, Problems, Refused, components
from splitreel.restore.restorer import Restorer
from splitreel.restore.run import Members, Outcome, restore
from splitreel.restore.sessionfile import LIMIT, NAME, SessionFile
from splitreel.volume import Label

STAGE = ".splitreel-restore"
FILES = "files"


@dataclass(frozen=True)
class Wishes:
    """What the user wants: which database, where its movable pieces go (source -> directory), whose it is to be."""

    name: str = ""
    places: Mapping[str, Path] = field(default_factory=dict)
    owner: str = ""


@dataclass
class Restored:
    """A database laid out. ``outcome.problems`` lists what is not as it was; then it may not start."""

    facts: Mapping[str, Any]
    recovery: Recovery
    layout: Layout
    outcome: Outcome
    notes: list[str]

    @property
    def main(self) -> Path:
        """The data directory, or the only file."""
        return self.layout.places[self.recovery.pieces()[0].source]


def restore_database(
    drive: Drive,
    to: str | os.PathLike[str],
    wishes: Wishes,
    *,
    wanted: Label | None = None,
    members: Members | None = None,
    on_segment: Callable[[Report], None] | None = None,
) -> Restored:
    """Restore a database into the empty or new directory ``to``.

    ``wanted`` and ``members`` are what a catalog says of the tape.

    Raises:
        WrongTape: the tape is not ours, or not the one ``wanted``.
        NotFound: the backup holds no database.
        UsageError: a directory is not empty, a name or owner unknown, or an engine that nothing here can lay out.
        IntegrityError: the tape's last file is damaged, or lacks what the database cannot start without.
        TapeError: the drive or the path to it failed.
    """
    given = Owner.of(wishes.owner) if wishes.owner else None
    if given is not None and os.geteuid() != 0:
        raise UsageError("--owner", "only root may give files away")
    directory = Path(to).absolute()
    with Destination(directory) as _:  # refused when it is not empty
        stage = directory / STAGE
    label = label_of(drive)
    if wanted is not None:
        check_identity(label, wanted)
    try:
        problems = _read_redo(drive, label, stage / "redo")
        session = SessionFile.parse(_session_json(stage / "redo"))
        facts = session.database(wishes.name)
        one = recovery.create(facts)
        placed = _place(one.pieces(), directory, wishes.places)
        outcome = _restore_pieces(drive, session, placed, wanted or label, members, on_segment)
        outcome.problems.count += problems.count
        outcome.problems.listed += problems.listed
        places = _move(session, placed)
        owner, notes = _owner(places[placed[0].piece.source], facts, given)
        layout = Layout(directory, places, _own_redo(stage / "redo", facts), owner)
        notes += one.lay_out(layout)
        if given is not None:
            for place in places.values():
                files.give_tree(place, given)
    except OSError as error:
        why = error.strerror or str(error)
        raise SplitreelError(f"laying out {directory}", why, "Make room there, then restore again.") from error
    finally:
        files.remove_all([stage, *(place / STAGE for place in wishes.places.values())])
    return Restored(facts, one, layout, outcome, notes)


def _read_redo(drive: Drive, label: Label, stage: Path) -> Problems:
    """Put the redo members of the closing tape file below ``stage``; what did not verify is set apart there."""
    with Destination(stage) as destination:
        restorer = Restorer(destination, lambda path: path.startswith(REDO))
        report = walk_closing(drive, label, restorer)
        restorer.finish()
        if report is None:
            raise NotFound("restoring a database", "the tape has no last file that knows of one", "Restore with --to.")
        if report.torn or not report.verified:
            why = report.torn or "nothing vouches for it"
            raise IntegrityError("reading the tape's last file", why)
        return destination.problems


def _session_json(stage: Path) -> bytes:
    place = stage / os.fsdecode(REDO) / NAME
    if not files.is_file(place):
        raise NotFound("restoring a database", f"the backup has no {NAME}", "Restore its files with --to.")
    if place.stat().st_size > LIMIT:
        raise IntegrityError(f"reading {NAME}", f"it has {place.stat().st_size} bytes")
    return place.read_bytes()


def _own_redo(stage: Path, facts: Mapping[str, Any]) -> Path:
    """The redo of this database: where several gave some, it is in a directory of the database's name."""
    everything = stage / os.fsdecode(REDO)
    name = str(facts.get("name", ""))
    with suppress(Refused):
        if len(components(os.fsencode(name))) == 1 and files.is_directory(everything / name):
            return everything / name
    return everything


# Where everything goes.


@dataclass(frozen=True)
class _Placed:
    """A piece, the directory that a restore of its own writes to, and where in it the piece ends up."""

    piece: Piece
    root: Path
    place: Path


def _place(pieces: tuple[Piece, ...], directory: Path, wishes: Mapping[str, Path]) -> list[_Placed]:
    movable = {piece.source for piece in pieces if piece.movable}
    for source in wishes:
        if source not in movable:
            known = ", ".join(sorted(movable)) or "none"
            raise UsageError(f"tablespace {source}", f"this database has no such one: {known}")
    found = []
    for piece in pieces:
        if piece.source in wishes:
            root = wishes[piece.source].absolute()
            if root == directory or root in directory.parents:
                raise UsageError(f"tablespace {root}", "the database itself is restored there or below")
            with Destination(root) as _:  # refused when it is not empty
                found.append(_Placed(piece, root, root))
        else:
            found.append(_Placed(piece, directory, directory / piece.target))
    return found


def _restore_pieces(
    drive: Drive,
    session: SessionFile,
    placed: list[_Placed],
    label: Label,
    members: Members | None,
    on_segment: Callable[[Report], None] | None,
) -> Outcome:
    """Read the pieces from tape, in one pass for each directory that something goes to."""
    total = Outcome(label)
    for root in dict.fromkeys(one.root for one in placed):
        here = [one.piece for one in placed if one.root == root]
        outcome = restore(
            drive,
            root / STAGE / FILES,
            [session.on_tape(piece.source) for piece in here if not piece.optional],
            optional=[session.on_tape(piece.source) for piece in here if piece.optional],
            wanted=label,
            members=members,
            on_segment=on_segment,
        )
        total = outcome if total.segments + total.blocks == 0 else _sum(total, outcome)
    return total


def _sum(one: Outcome, other: Outcome) -> Outcome:
    counts = {name: getattr(one, name) + getattr(other, name) for name in ("blocks", "members", "files")}
    total = replace(other, **counts, content_bytes=one.content_bytes + other.content_bytes)
    total.problems.count += one.problems.count
    total.problems.listed += one.problems.listed
    return total


def _move(session: SessionFile, placed: list[_Placed]) -> dict[str, Path]:
    """Put what was restored where it belongs; the places by their sources."""
    places = {}
    for one in placed:
        if _take(one.root / STAGE / FILES, session.on_tape(one.piece.source), one):
            places[one.piece.source] = one.place
        elif not one.piece.optional:
            raise NotFound(f"database file {one.piece.source}", "the tape does not hold it", "See what it reported.")
    return places


def _take(stage: Path, path: bytes, one: _Placed) -> bool:
    """Rename a piece out of the stage, by descriptors: a link on the way, put there by a tape, is not followed."""
    inner = one.place == one.root  # the user's directory is there already: what the piece holds goes into it
    target = one.root / STAGE / "piece" if inner else one.place
    target.parent.mkdir(parents=True, exist_ok=True)
    names = components(path)
    if not names:
        stage.rename(target)
    else:
        with Destination(stage, overwrite=True) as destination:
            try:
                os.rename(names[-1], target, src_dir_fd=destination.directory(names[:-1]))
            except FileNotFoundError:
                return False
    if inner:
        _spread(target, one.root)
    return True


def _spread(directory: Path, into: Path) -> None:
    if not files.is_directory(directory):
        raise IntegrityError(f"tablespace {into}", "the tape does not hold it as a directory")
    found = directory.lstat()
    for path in directory.iterdir():
        path.rename(into / path.name)
    into.chmod(found.st_mode & 0o7777)
    if os.geteuid() == 0:
        os.chown(into, found.st_uid, found.st_gid)


def _owner(main: Path, facts: Mapping[str, Any], given: Owner | None) -> tuple[Owner | None, list[str]]:
    """Whose the database is to be: as asked for, else the number on tape if it is somebody's here; and what is wrong.

    A name in the facts tells that the number is another user's on this machine.
    """
    if os.geteuid() != 0 or given is not None:
        return given, []
    found = main.lstat()
    name = str(facts.get("owner", ""))
    numbered = Owner.numbered(found.st_uid, found.st_gid)
    if numbered is not None and name in ("", numbered.name):
        return numbered, []
    who = f"it belongs to user {found.st_uid}{f' ({name})' if name else ''}, who is another or nobody on this machine"
    return Owner(found.st_uid, found.st_gid, name), [f"{who}: `chown -R`, or restore with --owner"]
