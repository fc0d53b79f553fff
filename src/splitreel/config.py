"""config reads a TOML configuration and says everything that is wrong with it at once. It starts nothing.

[job.nightly]
tape = "/dev/nst0"
mirror = { type = "qemu", qmp = "/run/vm/qmp.sock", primary = "disk0", target = "mirror", image = "/srv/mirror.img" }
quiesce = [
    { type = "sqlite", database = "/mnt/db/app.db" },
    { type = "fsfreeze", mount = "/mnt/db" },         # innermost last
]
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from splitreel import mirror, quiesce
from splitreel.errors import UsageError

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
NAMED = "letters, digits, _ - and ., at most 64"
ORDERS = ("premapped", "conventional", "postsplit")
UNQUIESCE = ("after-split", "after-check")
FILE_ORDERS = ("path", "inode", "physical")
DEADLINE_LIMIT_MS = 600_000

# key -> (kind, required); the kinds are in _KINDS below, or else the allowed words, separated by |
JOB_KEYS: dict[str, tuple[str, bool]] = {
    "tape": ("text", True),
    "mirror": ("table", False),
    "volumes": ("tables", False),
    "quiesce": ("tables", False),
    "order": ("|".join(ORDERS), False),
    "unquiesce": ("|".join(UNQUIESCE), False),
    "deadline_ms": ("integer", False),
    "window_ms": ("integer", False),
    "sync_timeout_s": ("number", False),
    "mount": ("path", False),
    "device": ("path", False),
    "paths": ("texts", False),
    "file_order": ("|".join(FILE_ORDERS), False),
    "block_size": ("size", False),
    "segment_size": ("size", False),
    "sync_segments": ("integer", False),
    "label": ("text", False),
    "volume": ("text", False),
    "with": ("paths", False),
    "raw": ("boolean", False),
    "overwrite": ("boolean", False),
    "strict": ("boolean", False),
}
# what a volume has to itself: keys of the job when it has one, of each of its `volumes` when it has several
VOLUME_KEYS: dict[str, tuple[str, bool]] = {
    "mirror": ("table", True),
    **{key: JOB_KEYS[key] for key in ("mount", "device", "volume", "with", "raw")},
}
FREEZES = ("fsfreeze", "guest-agent")  # what holds whole file systems
UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class ConfigError(UsageError):
    """The configuration has mistakes; ``mistakes`` lists them all."""

    default_advice = "Correct these lines, then run the same command again."
    mistakes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """One mirrored volume of a job; the only one may have no name.

    ``mount``: where the primary is mounted; ``device``: what it is, if named. ``volume``, ``others`` (the key ``with``)
    and ``raw``: what to read inside the split mirror, as on the command line.
    """

    name: str
    mirror: dict[str, Any]
    mount: str = ""
    device: str = ""
    volume: str = ""
    others: list[str] = field(default_factory=list)
    raw: bool = False
    prefix: str = ""  # the directory on tape that its files lie below: its name, or none when it is the only one


@dataclass(frozen=True)
class Job:
    """One job, validated.

    ``mount``: where the mirrored volume is mounted; ``device``: the primary, if named. ``paths``: what to back up of
    the volume, besides the files that the database is discovered to be made of; everything, when there are none.
    ``window_ms``: the budget of a window, 0 without one; a job whose windows are predicted to exceed it is refused.
    ``volume``, ``others`` (the key ``with``) and ``raw``: what to read inside the split mirror, as on the command line.
    ``volumes``: instead of these and ``mirror``, when several volumes are split together; see ``mirrored``.
    """

    name: str
    tape: str
    mirror: dict[str, Any] = field(default_factory=dict)
    quiesce: list[dict[str, Any]] = field(default_factory=list)
    order: str = "premapped"
    unquiesce: str = "after-split"
    deadline_ms: int = 5000  # of the watchdog; with a budget and without this key, the budget
    window_ms: int = 0
    sync_timeout_s: float = 24 * 3600.0
    mount: str = ""
    device: str = ""
    paths: list[str] = field(default_factory=list)
    file_order: str = "path"
    block_size: int = 0  # 0 here and below: as the backup chooses
    segment_size: int = 0
    sync_segments: int = 0
    label: str = ""
    volume: str = ""
    others: list[str] = field(default_factory=list)
    raw: bool = False
    overwrite: bool = False
    strict: bool = False
    volumes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mirrored(self) -> tuple[Volume, ...]:
        """The mirrored volumes, one or more, which are split together."""
        if not self.volumes:
            return (Volume("", self.mirror, self.mount, self.device, self.volume, self.others, self.raw),)
        several = len(self.volumes) > 1
        return tuple(Volume(**entry, prefix=entry["name"] if several else "") for entry in self.volumes)

    def record(self) -> dict[str, Any]:
        """As plain data, for the journal; ``Job(**record)`` gives it back."""
        return asdict(self)


@dataclass(frozen=True)
class Config:
    """A configuration file: its jobs by name."""

    path: str
    jobs: dict[str, Job]

    def job(self, name: str | None = None) -> Job:
        """The job of that name; without a name, the only one.

        Raises:
            UsageError: there is none, or more than one.
        """
        if name is None and len(self.jobs) == 1:
            return next(iter(self.jobs.values()))
        if name is None or name not in self.jobs:
            what = f"job {name}" if name else "no job named"
            raise UsageError(what, f"{self.path} has {', '.join(sorted(self.jobs))}", "Name one with --job.")
        return self.jobs[name]


def load(path: str | os.PathLike[str]) -> Config:
    """Read and validate a configuration file.

    Raises:
        UsageError: it cannot be read or is no TOML.
        ConfigError: it has mistakes.
    """
    try:
        text = Path(path).read_text("utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"configuration {path}", error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        advice = "Correct it, it must be TOML; a device or image to back up is named with --device."
        raise UsageError(f"configuration {path}", str(error), advice) from error
    return parse(document, str(path), Lines(text))


def parse(document: Mapping[str, Any], path: str = "", lines: "Lines | None" = None) -> Config:
    """Validate a configuration that is read already; relative paths in it count from the file's directory.

    Raises:
        ConfigError: it has mistakes.
    """
    checker = _Checker(Path(path).resolve().parent, lines or Lines(""))
    checker.unknown_keys((), document, {"job"})
    tables = document.get("job")
    if not isinstance(tables, dict) or not tables:
        checker.mistake((), "it has no job: a table [job.NAME] is needed")
        tables = {}
    jobs = {name: checker.job(name, table) for name, table in tables.items()}
    if checker.mistakes:
        count = len(checker.mistakes)
        error = ConfigError(
            f"configuration {path}: {count} mistake{'s' if count > 1 else ''}", "\n       ".join(checker.mistakes)
        )
        error.mistakes = tuple(checker.mistakes)
        raise error
    return Config(path, {name: job for name, job in jobs.items() if job is not None})


class Lines:
    """Where in the text a key stands: tomllib does not tell, so headers and keys are looked for, line by line."""

    def __init__(self, text: str) -> None:
        self._places: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        counts: dict[tuple[str, ...], int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*(\[\[?)([^\[\]=]+)\]", line):
                table = _inside(_dotted(header[2]), counts)
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, str(counts[table]))
                self._places.setdefault(table, number)
            elif key := re.match(r"\s*([\w\"'.\- ]+?)\s*=", line):
                self._places.setdefault((*table, *_dotted(key[1])), number)

    def of(self, place: tuple[str, ...]) -> int:
        """The line of a key, or of the nearest thing around it; 0 when none is known."""
        while place and place not in self._places:
            place = place[:-1]
        return self._places.get(place, 0)


def _inside(table: tuple[str, ...], counts: Mapping[tuple[str, ...], int]) -> tuple[str, ...]:
    """A header's table where it lies: within the last one so far of each array on the way."""
    at: tuple[str, ...] = ()
    for part in table[:-1]:
        at = (*at, part)
        at = (*at, str(counts[at])) if at in counts else at
    return (*at, *table[-1:])


def _dotted(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


class _Checker:
    """Collects mistakes. A method returns the cleaned value, or None after noting why it has none."""

    def __init__(self, base: Path, lines: Lines) -> None:
        self.mistakes: list[str] = []
        self._base = base
        self._lines = lines

    def mistake(self, place: tuple[str, ...], text: str) -> None:
        line = self._lines.of(place)
        where = ".".join(place)
        self.mistakes.append("".join([f"line {line}: " if line else "", f"{where}: " if where else "", text]))

    def unknown_keys(self, place: tuple[str, ...], table: Mapping[str, Any], known: Iterable[str]) -> None:
        known = sorted(known)
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                self.mistake((*place, key), f"unknown key; {hint}")

    def job(self, name: str, table: object) -> Job | None:
        place = ("job", name)
        before = len(self.mistakes)
        if not re.fullmatch(NAME, name):
            self.mistake(place, f"a job's name is made of {NAMED}")
        if not isinstance(table, dict):
            self.mistake(place, "this is not a table")
            return None
        values = self.table(place, table, JOB_KEYS)
        if values.get("window_ms") == 0:
            self.mistake((*place, "window_ms"), "no window takes no time: leave it out for none to be refused")
        if "volumes" in table:
            values["volumes"] = self.volumes(place, table, values.get("volumes", []))
        else:
            self.mirror(place, values)
        quiescers = values.get("quiesce", [])
        values["quiesce"] = [
            self.kind((*place, "quiesce", str(index)), entry, "quiesce") for index, entry in enumerate(quiescers)
        ]
        if len(self.mistakes) > before:
            return None
        if "window_ms" in values:
            values.setdefault("deadline_ms", values["window_ms"])
        job = _with_mount(Job(name, **_fields(values)))
        self.consistency(place, job)
        return job

    def mirror(self, place: tuple[str, ...], values: dict[str, Any]) -> None:
        """The table ``mirror`` among the values of a job or volume, which must be there."""
        if "mirror" not in values:
            self.mistake(place, "'mirror' is missing")
        elif isinstance(values["mirror"], dict):
            values["mirror"] = self.kind((*place, "mirror"), values["mirror"], "mirror")

    def volumes(self, place: tuple[str, ...], table: Mapping[str, Any], tables: list[Any]) -> list[dict[str, Any]]:
        """The volumes of a job that names them."""
        for key in VOLUME_KEYS.keys() & table.keys():
            self.mistake((*place, key), "with `volumes` it belongs into each of them")
        known = {"name": ("text", True), **VOLUME_KEYS, "mirror": ("table", False)}
        found = []
        for index, entry in enumerate(tables):
            here = (*place, "volumes", str(index))
            values = self.table(here, entry, known)
            self.mirror(here, values)
            if not re.fullmatch(NAME, values.get("name", "a")):
                self.mistake((*here, "name"), f"a volume's name is made of {NAMED}")
            found.append(_fields(values))
        if not found:
            self.mistake((*place, "volumes"), "there is none in it")
        return found

    def consistency(self, place: tuple[str, ...], job: Job) -> None:
        """What only shows when the keys are seen together."""
        key = "window_ms" if job.deadline_ms == job.window_ms else "deadline_ms"
        if not 1 <= job.deadline_ms <= DEADLINE_LIMIT_MS:
            self.mistake((*place, key), f"it must be 1 to {DEADLINE_LIMIT_MS}")
        elif job.deadline_ms < job.window_ms:
            self.mistake((*place, key), "the watchdog would close windows that window_ms allows")
        for index, entry in enumerate(job.quiesce):
            if entry.get("busy_timeout_ms", -1) >= job.deadline_ms:
                self.mistake(
                    (*place, "quiesce", str(index)), "busy_timeout_ms is not below the job's deadline_ms: it cannot end"
                )
            if 1000 * entry.get("lock_wait_s", -1) >= job.deadline_ms:
                self.mistake((*place, "quiesce", str(index)), "lock_wait_s is not below the job's deadline_ms")
        self.frozen_too(place, job)
        for index, volume in enumerate(job.mirrored):
            self.volume((*place, "volumes", str(index)) if job.volumes else place, volume, job)
        if job.volumes:
            self.together(place, job)
        freezes = [entry["type"] in FREEZES for entry in job.quiesce]
        if freezes != sorted(freezes):
            last = " and ".join(kind for kind in FREEZES if kind in {entry["type"] for entry in job.quiesce})
            self.mistake((*place, "quiesce"), f"{last} must come last: nothing can be asked of a database once frozen")

    def frozen_too(self, place: tuple[str, ...], job: Job) -> None:
        """A mode that lets a server go on writing makes a copy of one instant only with something that freezes."""
        if {entry["type"] for entry in job.quiesce} <= {"sqlite", "postgresql", "mariadb", "mysql"}:
            for index, entry in enumerate(job.quiesce):
                if entry["type"] in ("mariadb", "mysql") and entry.get("mode") in ("freeze", "lock-instance"):
                    why = f"mode {entry['mode']!r} is no quiesce by itself: an fsfreeze belongs behind it"
                    self.mistake((*place, "quiesce", str(index)), why)

    def volume(self, place: tuple[str, ...], volume: Volume, job: Job) -> None:
        """A volume among what its job does."""
        inside = [path for path in job.paths if _volume_of(path) == volume.prefix or not volume.prefix]
        if volume.raw and any(path.strip("/") != volume.prefix for path in inside):
            self.mistake((*place[:2], "paths"), "a raw volume is one file: there are no paths in it")
        primary_known = volume.device or volume.mount or volume.mirror["type"] == "static" or volume.raw
        if not primary_known and job.order != "postsplit":
            self.mistake(place, f"order {job.order!r} maps the primary: `mount` or `device` must say where it is")
        frozen = _frozen(job)
        if volume.mount and frozen and os.path.realpath(volume.mount) not in frozen:
            self.mistake((*place, "mount"), f"it is not among the file systems that are frozen, {', '.join(frozen)}")

    def together(self, place: tuple[str, ...], job: Job) -> None:
        """Volumes that are split together are different ones, and a copy of one instant only when all are held."""
        for index, entry in enumerate(job.volumes):
            for key in ("name", "mount", "device", "mirror"):
                if key in entry and any(entry[key] == other.get(key) for other in job.volumes[:index]):
                    self.mistake((*place, "volumes", str(index), key), f"another volume has the same {key}")
        names = [entry["name"] for entry in job.volumes]
        if len(names) > 1:
            for path in job.paths:
                if _volume_of(path) not in names:
                    self.mistake((*place, "paths"), f"{path!r} begins with no volume's name, {', '.join(names)}")
            if any(entry.get("mode") == "freeze" for entry in job.quiesce) and not _frozen(job):
                self.mistake((*place, "quiesce"), 'mode "freeze" needs an fsfreeze of every volume')

    def kind(self, place: tuple[str, ...], table: dict[str, Any], what: str) -> dict[str, Any]:
        """A table with a ``type`` whose other keys are the type's own."""
        types, keys = (mirror.TYPES, mirror.keys) if what == "mirror" else (quiesce.TYPES, quiesce.keys)
        name = table.get("type")
        if not isinstance(name, str) or name not in types:
            near = difflib.get_close_matches(str(name), types, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(types))}"
            self.mistake((*place, "type"), f"{'no type given' if name is None else f'unknown type {name!r}'}; {hint}")
            return {}
        return self.table(place, table, {**keys(name), "type": ("text", True)})

    def table(
        self, place: tuple[str, ...], table: dict[str, Any], known: Mapping[str, tuple[str, bool]]
    ) -> dict[str, Any]:
        """The cleaned values of a table's known keys."""
        self.unknown_keys(place, table, known)
        for key, (_, required) in known.items():
            if required and key not in table:
                self.mistake(place, f"{key!r} is missing")
        checked = {key: self.value((*place, key), table[key], known[key][0]) for key in table if key in known}
        return {key: value for key, value in checked.items() if value is not None}

    def value(self, place: tuple[str, ...], value: object, kind: str) -> Any:
        """The value as its kind wants it, or None after noting the mistake."""
        fits, wanted = _KINDS.get(kind, (lambda given: given in kind.split("|"), "one of " + kind.replace("|", ", ")))
        if not fits(value):
            self.mistake(place, f"{value!r} is not {wanted}")
            return None
        if kind in ("path", "paths"):
            found = [str(self._base / path) for path in (value if isinstance(value, list) else [str(value)])]
            return found if kind == "paths" else found[0]
        return _size(value) if kind == "size" else value


def _is_number(value: object, *kinds: type) -> bool:
    return not isinstance(value, bool) and isinstance(value, kinds) and value >= 0  # type: ignore[operator]


def _are(kind: type, value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, kind) for entry in value)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _size(value: object) -> int:
    """Bytes of a size, -1 when it is none."""
    if isinstance(value, int):
        return -1 if isinstance(value, bool) else value
    match = re.fullmatch(r"(\d{1,18})\s*([A-Za-z]*)", value) if isinstance(value, str) else None
    return int(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else -1


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """By the names of fields: a word of the language cannot be one."""
    return {{"with": "others"}.get(key, key): value for key, value in values.items()}


def _volume_of(path: str) -> str:
    return path.strip("/").partition("/")[0]


def _frozen(job: Job) -> list[str]:
    return sorted({os.path.realpath(entry["mount"]) for entry in job.quiesce if entry["type"] == "fsfreeze"})


# kind -> (does a value fit, what is wanted)
_KINDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "text": (lambda value: isinstance(value, str) and value != "", "a text"),
    "path": (_is_path, "a path"),
    "paths": (lambda value: isinstance(value, list) and all(map(_is_path, value)), "a list of paths"),
    "boolean": (lambda value: isinstance(value, bool), "true or false"),
    "integer": (lambda value: _is_number(value, int), "a whole number, 0 or more"),
    "number": (lambda value: _is_number(value, int, float), "a number, 0 or more"),
    "size": (lambda value: _size(value) >= 0, "a size: bytes, or a text as '16 GiB'"),
    "command": (
        lambda value: bool(value) and (isinstance(value, str) or _are(str, value)),
        "a command: a text, or a list of texts",
    ),
    "texts": (lambda value: _are(str, value), "a list of texts"),
    "table": (lambda value: isinstance(value, dict), "a table"),
    "tables": (lambda value: _are(dict, value), "a list of tables"),
}


def _with_mount(job: Job) -> Job:
    """The innermost frozen file system is the mirrored volume unless ``mount`` says otherwise."""
    mounts = [entry["mount"] for entry in job.quiesce if entry["type"] == "fsfreeze"]
    return job if job.mount or job.volumes or not mounts else Job(**{**job.record(), "mount": mounts[-1]})
