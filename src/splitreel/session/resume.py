"""resume ends a session that a crash interrupted: lets go, puts the mirror back, says what is lost.

What the journal does not vouch for is not believed: a mirror whose split was not recorded is copied in full again.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from splitreel import config, journal, mapping, mirror, quiesce
from splitreel.backup.resume import ResumedBackup
from splitreel.catalog import Catalog
from splitreel.errors import SplitreelError
from splitreel.journal import History, Journal, Running
from splitreel.pages import checks_of, from_session
from splitreel.session import checks
from splitreel.session.described import members
from splitreel.session.image import mapped, opened
from splitreel.session.joined import joined, verify_unchanged
from splitreel.session.tape import options_of
from splitreel.session.window import short_window

Facts = dict[str, Any]


@dataclass
class Resumed:
    """What was done about one interrupted session; ``lines`` for people, ``failures`` what is left to do by hand."""

    job: str
    journal: str
    lines: list[str] = field(default_factory=list)
    failures: list[SplitreelError] = field(default_factory=list)
    is_partial: bool = False  # the backup lacks what was damaged, left out or lost


def resume(state: Path, job: str | None = None) -> list[Resumed]:
    """End every interrupted session in the state directory, or those of one job.

    Raises:
        SplitreelError: a journal is damaged, or the named job's session is still running.
    """
    done = []
    for history in journal.histories(state, job):
        if not history.finished:
            try:
                done.append(_resume_one(state, history))
            except Running:
                if job is not None:
                    raise
    return done


def _resume_one(state: Path, history: History) -> Resumed:
    done = Resumed(history.job, str(history.path))
    log = Journal.reopen(state, history)
    try:
        begun = history.last("begin")
        if begun is None:
            done.lines.append("it had begun nothing")
        else:
            job = config.Job(**begun["config"])
            _release(job, history, log, done)
            _go_on(job, state, history, log, done)
            _put_back(job, history, log, done)
        if not done.failures:
            log.end("resumed", lines=done.lines)
    finally:
        log.close()
    return done


def _release(job: config.Job, history: History, log: Journal, done: Resumed) -> None:
    """The window first, or that of a rejoin, round file systems alone: nothing else matters while a writer waits."""
    window = history.last("quiesce") is not None and history.last("unquiesced") is None
    rejoining = _rejoining(history)
    for quiescer in map(quiesce.create, reversed(job.quiesce)):
        try:
            if (window or (rejoining and quiesce.holds_volumes(quiescer))) and (found := quiescer.recover()):
                done.lines.append(found)
        except SplitreelError as failure:
            done.failures.append(failure)
    if window and not done.failures:
        log.write("unquiesced", by="resume")


def _rejoining(history: History) -> bool:
    """It died, or failed, as a mirror rejoined."""
    return bool(_volumes(history, "rejoin") - _volumes(history, "rejoined"))


def _volumes(history: History, event: str) -> set[str]:
    return {record.get("volume", "") for record in history.records if record["event"] == event}


def _put_back(job: config.Job, history: History, log: Journal, done: Resumed) -> None:
    left = [volume for volume in job.mirrored if volume.name not in _volumes(history, "rejoined")]
    if history.last("quiesce") is None or not left:
        done.lines.append("the mirror was not touched")
        return
    for volume in left:
        copy = mirror.create(volume.mirror)
        try:
            log.write("rejoin", by="resume", volume=volume.name)
            line = _rejoin(copy, volume, job, trusted=history.last("split") is not None)
            done.lines.append(f"{volume.prefix}: {line}" if volume.prefix else line)
            log.write("rejoined", by="resume", volume=volume.name)
        except SplitreelError as failure:
            done.failures.append(failure)
        finally:
            copy.close()


def _rejoin(copy: mirror.Mirror, volume: config.Volume, job: config.Job, *, trusted: bool) -> str:
    found = copy.state()
    if found == "split" and not trusted:
        copy.forget()
        copy.establish()
        return "whether the mirror was split in good order is not known: it is being copied in full"
    if found in ("split", "rejoining", "unknown"):
        dirty = copy.dirty_bytes()
        copy.rejoin(lambda: short_window(checks.freezing(volume.mount, job.quiesce), job.deadline_ms))
        return "the mirror was split; it has rejoined" + (f", {dirty} bytes had changed" if dirty is not None else "")
    copy.establish()
    return "the mirror was not split" if found == "in-sync" else "the mirror is being copied in full"


def _go_on(job: config.Job, state: Path, history: History, log: Journal, done: Resumed) -> None:
    """Finish the backup from the still split mirror, when the drive had confirmed some of it; else say what is lost."""
    begun, confirmed, split = history.last("backup"), history.last("confirmed"), history.last("split")
    if begun is None:
        done.lines.append("nothing was written to tape; run the job again")
    elif history.last("rejoin") is not None:
        done.lines.append("the backup had ended, or had failed; the catalog says which")
        _mark_incomplete(job, state)
    elif confirmed is None or split is None:
        done.lines.append("nothing on the tape was confirmed by the drive; run the job again, with --overwrite")
        _mark_incomplete(job, state)
    else:
        try:
            _finish(job, state, begun, confirmed, split, log, done)
        except SplitreelError as failure:
            kept = confirmed["segment"]
            done.is_partial = True
            done.lines.append(f"the backup cannot be gone on with ({failure})")
            done.lines.append(f"segments 1 to {kept} are confirmed and can be restored; the rest is lost")
            _mark_incomplete(job, state)


def _finish(
    job: config.Job, state: Path, begun: Facts, confirmed: Facts, split: Facts, log: Journal, done: Resumed
) -> None:
    if begun["redo"]:
        raise SplitreelError("resuming a backup", "what the database gave at its end died with the session")
    if begun["paths"] is None:
        raise SplitreelError("resuming a backup", "the list of what it was to hold was too long for the journal")
    for volume in job.mirrored:
        _require_split(volume)
    with ExitStack() as held:
        backup = held.enter_context(ResumedBackup(options_of(job), state))
        kept = backup.find(confirmed["backup"])
        parts = [(volume.prefix, _mapped(volume, job, split, held)) for volume in job.mirrored]
        source = held.enter_context(joined(parts))
        result = backup.resume(
            source.device,
            source.map,
            [os.fsencode(path) for path in begun["paths"]],
            lambda facts: log.write("confirmed", backup=confirmed["backup"], **facts),
            partial(verify_unchanged, parts),
            members(begun.get("session"), {}),
            checks_of(source.map, from_session(begun.get("session"), source.map, source.device, done.lines.append)),
        )
        damaged = mapping.problems(source.map)
    more = result.segments - kept
    done.lines.append(f"segments 1 to {kept} were on the tape, {more} more are written: the backup is complete")
    done.lines += [f"damaged: {problem}" for problem in damaged]
    done.lines += [f"left out: {path.decode('utf-8', 'backslashreplace')}: {why}" for path, why in result.left_out]
    done.lines += [f"damaged page: {one}" for one in result.damaged_pages]
    done.is_partial = not result.sound


def _require_split(volume: config.Volume) -> None:
    copy = mirror.create(volume.mirror)
    try:
        if copy.state() not in ("split", "unknown") and volume.mirror["type"] != "static":
            raise SplitreelError("resuming a backup", f"the mirror {copy.name} is no longer split")
    finally:
        copy.close()


def _mapped(volume: config.Volume, job: config.Job, split: Facts, held: ExitStack) -> mapping.Mapped:
    """The split mirror as the journal says where it is, mapped again; open as long as ``held``."""
    mounts = [mount for settings in job.quiesce for mount in quiesce.create(settings).frozen()]
    image = mirror.SplitImage(*split["images"][volume.name])
    devices = held.enter_context(opened(image, volume))
    found = mapped(image, devices, volume, frozen=checks.is_frozen(volume.mount, mounts))
    held.callback(found.device.close)  # over an unclean journal it has descriptors of its own
    return found


def _mark_incomplete(job: config.Job, state: Path) -> None:
    """What the catalog shows as running is not."""
    if job.tape == "null:":
        return
    with Catalog(state) as catalog:
        for backup in catalog.backups():
            if backup.job == job.name and backup.state == "running":
                catalog.finish_backup(backup.id, "incomplete", "interrupted")
