"""examine compares a writer's restored files with its log: is this the volume as it was at one instant of the window?

The log says which operations were acknowledged before the window opened (all of them must be there) and which were
begun after it closed (none may be). The instant lies somewhere between, after one of the few operations in flight:
every one of them is tried, and what still differs from the best is a finding. Nothing is assumed of the mirror.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitreel.prove import stamp
from splitreel.prove.finding import Finding
from splitreel.prove.operations import FILES, SECTORS, TEMPORARY, Content, Model, folder_of
from splitreel.prove.stamp import SECTOR, Owner, Sectors

LISTED = 50  # findings of one file; the rest is counted only
NO_FILE = 0xFFFF
Window = tuple[int, int]  # CLOCK_MONOTONIC, ns: a writer may have waited from the first on, none did from the second on


@dataclass
class Examined:
    """What one session's copy of one writer's files held."""

    stamps: int = 0  # that were to be there
    zeros: int = 0  # sectors that were to be holes, unwritten or beyond the end
    instant: int = 0  # how many operations were on the disk
    before: int = 0  # of these acknowledged before the window opened
    begun: int = 0  # operations begun before it closed
    findings: list[Finding] = field(default_factory=list)


@dataclass
class _Seen:
    """A restored file: its sectors, and what of them is wrong by itself."""

    owner: Owner
    size: int  # sectors, -1: it is not there
    sectors: Sectors
    numbers: NDArray[np.int64]  # of all SECTORS: the operation's number, 0 for zeros, -1 for what is no stamp of ours

    def differs(self, content: Content) -> int:
        """In how many sectors it is not what it should be; a wrong size counts as one."""
        return int(np.count_nonzero(self.numbers != content.numbers)) + (self.size != content.size)


class Examiner:
    """Examines one writer's files, session after session: its model of them only ever goes forward."""

    def __init__(self, run: int, writer: int, whole_calls: bool) -> None:
        """``whole_calls``: the file system was frozen, so each system call is there as a whole or not at all."""
        self._run, self._writer, self._whole = run, writer, whole_calls
        self._model = Model()

    def examine(self, folders: Sequence[Path], log: NDArray[np.void], window: Window) -> Examined:
        """Compare ``folders``, one for each volume, as restored, with the log as read after the window."""
        opened, closed = window
        acknowledged = log["acknowledged_ns"]
        before = _first(~((acknowledged > 0) & (acknowledged <= opened)))
        begun = _first(log["begun_ns"] > closed)
        seen = [self._read(folders[folder_of(file, len(folders))], file) for file in range(len(FILES))]
        if not self._whole:
            before = max(before, _implied(log, begun, seen))
        self._model.advance(log, before)
        best, loose = self._instant(log, begun, seen)
        stamps = sum(int(np.count_nonzero(content.numbers)) for content in best.files)
        found = Examined(stamps, SECTORS * len(FILES) - stamps, best.number, before, begun)
        found.findings += self._judge(seen, best, log, (before, closed), loose)
        for folder in folders:
            found.findings += self._temporary(folder / TEMPORARY, closed)
        return found

    def _read(self, folder: Path, file: int) -> _Seen:
        owner = Owner(self._run, self._writer, file)
        try:
            data = (folder / FILES[file]).read_bytes()
            size = -(-len(data) // SECTOR)
        except OSError:
            data, size = b"", -1
        sectors = stamp.decode(owner, data[: SECTORS * SECTOR])
        numbers = np.zeros(SECTORS, np.int64)
        good = np.where(sectors.kind == stamp.GOOD, sectors.number, -1)
        numbers[: len(sectors)] = np.where(sectors.kind == stamp.ZERO, 0, good)
        return _Seen(owner, size, sectors, numbers)

    def _instant(self, log: NDArray[np.void], begun: int, seen: list[_Seen]) -> tuple[Model, set[int]]:
        """The files after that operation in flight which leaves the least to differ, and the files not to be judged.

        Without a freeze, an fsync that had not returned promises nothing of its file but that no sector is torn.
        """
        trial = self._model.copy()
        differing = [one.differs(content) for one, content in zip(seen, trial.files, strict=True)]
        best, least, touched = trial.number, sum(differing), set()
        for number in range(trial.number + 1, begun + 1):
            trial.apply(number, log[number - 1])
            file = int(log[number - 1]["file"])
            touched.add(file)
            differing[file] = seen[file].differs(trial.files[file])
            if sum(differing) < least:
                best, least = number, sum(differing)
        chosen = self._model.copy()
        chosen.advance(log, best)
        return chosen, (set() if self._whole else touched)

    def _judge(
        self, seen: list[_Seen], best: Model, log: NDArray[np.void], window: tuple[int, int], loose: set[int]
    ) -> Iterator[Finding]:
        """What is wrong with each file; ``window``: acknowledged before it opened, and when it closed."""
        for file, (one, content) in enumerate(zip(seen, best.files, strict=True)):
            where = f"writer {self._writer}, {FILES[file]}"
            wrong = _verdicts(one, content, log["count"], *window)
            if file in loose:
                wrong = {at: kind for at, kind in wrong.items() if one.numbers[at] < 0 or kind == "late"}
            yield from _grouped(where, wrong, one, content)
            if one.size != content.size and not wrong and file not in loose:
                yield _wrong_size(where, one.size, content.size)

    def _temporary(self, path: Path, closed: int) -> Iterator[Finding]:
        """A file that was about to replace another: it may be there in part, but nothing in it may be later."""
        if not path.exists():
            return
        sectors = stamp.decode(Owner(self._run, self._writer, NO_FILE), path.read_bytes())
        late = int(np.count_nonzero(sectors.begun_ns > closed))
        torn = int(np.count_nonzero(sectors.kind == stamp.TORN)) if self._whole else 0
        for kind, count in (("late", late), ("torn", torn)):
            if count:
                yield Finding(kind, f"writer {self._writer}, {path.name}", f"{count} sectors", count)


def _implied(log: NDArray[np.void], begun: int, seen: list[_Seen]) -> int:
    """How many operations must be there because of the latest one that is: it was begun when they were acknowledged."""
    latest = max(int(one.numbers[one.numbers <= begun].max(initial=0)) for one in seen)
    return int(log["group"][latest - 1]) - 1 if latest else 0


def _first(condition: NDArray[np.bool_]) -> int:
    """The first index at which it holds, or the length."""
    return int(condition.argmax()) if condition.any() else len(condition)


def _verdicts(one: _Seen, content: Content, counts: NDArray[np.uint32], before: int, closed: int) -> dict[int, str]:
    """What is wrong with each sector that is not what it should be; ``counts`` of the operations that were begun."""
    wrong: dict[int, str] = {}
    there = dict(zip(*(column.tolist() for column in np.unique(one.numbers, return_counts=True)), strict=True))
    kept = set(np.unique(one.numbers[one.numbers == content.numbers]).tolist())
    itself = {stamp.TORN: "torn", stamp.FOREIGN: "foreign", stamp.MISPLACED: "misplaced"}
    for at in np.flatnonzero(one.numbers != content.numbers).tolist():
        expected, found = int(content.numbers[at]), int(one.numbers[at])
        if at < len(one.sectors) and int(one.sectors.begun_ns[at]) > closed:
            wrong[at] = "late"
        elif found < 0 or found > len(counts):
            wrong[at] = itself.get(int(one.sectors.kind[at]), "foreign")
        elif found > max(before, expected):
            # of an operation after the best instant: all of it, or a part
            wrong[at] = "disordered" if there[found] == counts[found - 1] else "torn"
        elif expected and expected in kept:
            wrong[at] = "torn"
        elif expected > before:
            wrong[at] = "disordered"
        else:
            wrong[at] = "stale" if found else "lost"
    return wrong


def _grouped(where: str, wrong: dict[int, str], one: _Seen, content: Content) -> Iterator[Finding]:
    """Neighbouring sectors that are wrong in one way are one finding; of very many the rest is one for each kind."""
    runs: list[tuple[int, int]] = []
    for at in sorted(wrong):
        start, count = runs[-1] if runs else (-1, 0)
        if at == start + count and wrong[at] == wrong[start]:
            runs[-1] = (start, count + 1)
        else:
            runs.append((at, 1))
    for start, count in runs[:LISTED]:
        yield Finding(wrong[start], where, _described(start, count, one, content), count)
    rest: Counter[str] = Counter()
    for start, count in runs[LISTED:]:
        rest[wrong[start]] += count
    for kind, count in rest.items():
        yield Finding(kind, where, f"{count} more sectors", count)


def _described(start: int, count: int, one: _Seen, content: Content) -> str:
    expected, found = int(content.numbers[start]), int(one.numbers[start])
    named = {-1: "no stamp of its own", 0: "zeros"}.get(found, f"operation {found}")
    wanted = f"operation {expected}" if expected else "zeros"
    size = f", {count} sectors" if count > 1 else ""
    return f"offset {start * SECTOR}{size}: {named} where {wanted} was to be"


def _wrong_size(where: str, size: int, wanted: int) -> Finding:
    if size < 0:
        return Finding("lost", where, "the file is not there")
    if wanted < 0:
        return Finding("stale", where, "it is there, though it had been unlinked")
    return Finding("stale", where, f"it has {size * SECTOR} bytes instead of {wanted * SECTOR}")
