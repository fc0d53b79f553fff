"""session_resume ends a session that a crash interrupted: lets go, puts the mirror back, says what is lost.

What the journal does not vouch for is not believed: a mirror whose split was not recorded is copied in full again.
"""

from dataclasses import dataclass, field
from pathlib import Path

from splitreel import config, journal, mirror, quiesce
from splitreel.errors import SplitreelError
from splitreel.journal import History, Journal, Running
from splitreel.session_window import short_window


@dataclass
class Resumed:
    """What was done about one interrupted session; ``lines`` for people, ``failures`` what is left to do by hand."""

    job: str
    journal: str
    lines: list[str] = field(default_factory=list)
    failures: list[SplitreelError] = field(default_factory=list)


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
            _put_back(job, history, log, done)
            _tell_lost(history, done)
        if not done.failures:
            log.end("resumed", lines=done.lines)
    finally:
        log.close()
    return done


def _release(job: config.Job, history: History, log: Journal, done: Resumed) -> None:
    """The window first: nothing else matters while a writer waits."""
    if history.last("quiesce") is None or history.last("unquiesced") is not None:
        return
    for settings in reversed(job.quiesce):
        try:
            if found := quiesce.create(settings).recover():
                done.lines.append(found)
        except SplitreelError as failure:
            done.failures.append(failure)
    if not done.failures:
        log.write("unquiesced", by="resume")


def _put_back(job: config.Job, history: History, log: Journal, done: Resumed) -> None:
    if history.last("quiesce") is None or history.last("rejoined") is not None:
        done.lines.append("the mirror was not touched")
        return
    copy = mirror.create(job.mirror)
    try:
        log.write("rejoin", by="resume")
        done.lines.append(_rejoin(copy, job, trusted=history.last("split") is not None))
        log.write("rejoined", by="resume")
    except SplitreelError as failure:
        done.failures.append(failure)
    finally:
        copy.close()


def _rejoin(copy: mirror.Mirror, job: config.Job, *, trusted: bool) -> str:
    found = copy.state()
    if found == "split" and not trusted:
        copy.forget()
        copy.establish()
        return "whether the mirror was split in good order is not known: it is being copied in full"
    if found in ("split", "rejoining", "unknown"):
        dirty = copy.dirty_bytes()
        copy.rejoin(lambda: short_window(job.quiesce, job.deadline_ms))
        return "the mirror was split; it has rejoined" + (f", {dirty} bytes had changed" if dirty is not None else "")
    copy.establish()
    return "the mirror was not split" if found == "in-sync" else "the mirror is being copied in full"


def _tell_lost(history: History, done: Resumed) -> None:
    if history.last("backup") is None:
        done.lines.append("nothing was written to tape; run the job again")
        return
    confirmed = history.last("confirmed")
    if confirmed is None:
        done.lines.append("nothing on the tape was confirmed by the drive; run the job again, with another tape")
    else:
        done.lines.append(
            f"{confirmed.get('segments')} segments on the tape are confirmed and can be restored; the rest is lost"
        )
