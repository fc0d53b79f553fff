"""Who may know whom: every import and cimport of the project against one table. A new module needs a line in it.

Left: the module, or a pattern for modules that make up one room. Right: what it may import of ours, beside its own
room. ``core.X`` stands for ext/X.pyx and core/X.pxd; ``*`` matches anything. Nothing looks further down the page.
"""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "splitreel"

TABLE = {
    "errors": "",
    # The compiled core. Only fault turns a status into an exception; probe mapping know no tape, tape knows no extent.
    "core.fault": "errors",
    "core.checksum": "core.fault",
    "core.spantable": "core.fault",
    "core.device": "core.fault core.spantable",
    "core.readpool": "core.device core.spantable",
    "core.engine": "core.fault core.device core.readpool core.spantable",
    "core.spanjoin": "core.fault core.spantable",
    "core.spans": "core.fault core.device core.spantable core.spanjoin",
    "core.view": "",
    "core.columns": "core.fault",
    "core.paths": "core.fault core.columns",
    "core.mapfile": "core.fault core.checksum core.view core.columns",
    "core.extent": "core.fault core.view core.columns core.paths core.mapfile",
    "core.filesystem": "core.fault core.device core.extent",
    "core.mapdiff": "core.fault core.view core.columns core.extent",
    "core.mapjoin": "core.fault core.columns core.extent",
    "core.sweep": "core.fault core.device core.engine",
    "core.heap": "core.fault core.columns core.extent",
    "core.walk": "core.fault core.columns core.extent core.sweep",
    "core.trees": "core.fault core.extent core.sweep",
    "core.jbd2*": "core.fault core.checksum core.device core.sweep",
    "core.ext4*": "core.fault core.checksum core.device core.engine core.columns core.extent core.sweep core.heap"
    " core.walk core.trees core.spans core.jbd2* core.filesystem",
    "core.xfs*": "core.fault core.checksum core.device core.engine core.columns core.extent core.sweep core.heap"
    " core.walk core.trees core.filesystem",
    "core.runs": "core.fault core.columns",
    "core.pax*": "core.fault core.checksum core.columns core.extent core.runs",
    "core.manifest": "core.fault core.checksum core.columns core.extent core.runs core.pax*",
    "core.plan*": "core.fault core.checksum core.view core.columns core.paths core.extent core.runs core.pax*"
    " core.manifest",
    "core.sense": "core.fault",
    # Transports refuse an address or argument with errors' own classes: no fault is there yet to be translated.
    "core.tape": "core.fault core.sense errors",
    "core.null": "core.fault core.sense core.tape core.softdrive* errors",
    "core.sg*": "core.fault core.sense core.tape errors",
    "core.iscsi*": "core.fault core.sense core.tape errors",
    "core.softdrive*": "core.fault core.checksum core.sense core.tape errors",
    "core.pages*": "core.fault core.checksum core.view",
    "core.stream*": "core.fault core.checksum core.device core.engine core.view core.columns core.paths core.extent"
    " core.runs core.pax* core.manifest core.pages* core.plan* core.sense core.tape",
    # Python. What is in one line of rooms does not meet what is in another unless the right side says so.
    "records": "errors core.checksum",
    "volume": "errors records core.checksum",
    "selection": "errors core.extent core.view",
    "script": "errors",
    "state": "errors",
    "journal": "errors records",
    "kinds": "errors",
    "quiesce*": "errors kinds script",
    # A mirror of software RAID reads where its members' data begin, as any volume reader does.
    "mirror*": "errors kinds script hostmap stack* core.device",
    "watchdog": "errors",
    "drive*": "errors core.fault core.sense core.tape core.sg core.iscsi core.softdrive* core.checksum",
    "probe": "errors core.device",
    "raw": "errors core.device core.extent",
    "mapping": "errors probe core.device core.ext4* core.xfs* core.extent core.filesystem core.mapdiff",
    "stack*": "errors probe core.device core.spans",
    "hostmap": "errors core.extent",
    "reading*": "errors records volume drive* core.checksum core.stream_reader",
    "recovery*": "errors kinds",
    "restore*": "errors reading* records selection volume drive* recovery* core.*",
    "schema": "",
    "catalog": "errors records schema volume state core.checksum",
    "runs": "catalog",
    "plan": "errors selection catalog core.*",
    "pages*": "errors core.*",
    "backup*": "errors records reading.segment volume catalog plan pages* drive* core.*",
    "selftest": "errors drive* core.*",
    "doctor": "errors core.*",
    "config": "errors state quiesce* mirror* drive*",
    "session*": "errors state journal watchdog quiesce* mirror* config script probe stack* raw mapping selection"
    " catalog runs plan backup* pages* volume hostmap drive* core.*",
    "prove*": "errors config kinds state session* quiesce* reading* restore* recovery* drive* core.checksum",
    "demo*": "*",
    "cli*": "*",
    "__main__": "errors cli*",
}
ANYONE = {"", "core"}  # the packages themselves, which hold the version and nothing
ONLY_DRIVE = {"pyscsi"}  # its command objects are encoded once, at open
CORE_MAY = {"libc", "cpython", "cython", "posix", *sys.stdlib_module_names}


def modules() -> dict[str, list[Path]]:
    """Module name without the leading ``splitreel.``, and the files that make it up."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*SOURCE.rglob("*.py"), *SOURCE.rglob("*.pxd"), *(ROOT / "ext").glob("*.pyx")]):
        parts = ["core", path.stem] if path.suffix == ".pyx" else [*path.relative_to(SOURCE).parts[:-1], path.stem]
        found.setdefault(".".join(part for part in parts if part != "__init__"), []).append(path)
    return found


MODULES = modules()


def python_imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(module, names taken from it) of every import, also inside functions; relative ones made absolute."""
    package = ["splitreel", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base, [alias.name for alias in node.names]


def cython_imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The same of a .pyx or .pxd; ``include`` and extern headers are no imports."""
    text = re.sub(r"#[^\n]*", "", path.read_text())
    for match in re.finditer(r"^[ \t]*c?import[ \t]+([^\n]+)", text, re.MULTILINE):
        yield from ((name.split()[0], []) for name in match[1].split(","))
    for match in re.finditer(r"^[ \t]*from[ \t]+(\S+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]+)", text, re.MULTILINE):
        yield match[1], [name.split()[0] for name in match[2].strip("() \t\n").split(",") if name.strip()]


def imports(module: str) -> Iterator[str]:
    """What a module imports: ours by the names of TABLE, others by their top package with a leading ``/``."""
    for path in MODULES[module]:
        for base, names in (python_imports if path.suffix == ".py" else cython_imports)(path):
            top, _, rest = base.partition(".")
            if top != "splitreel":
                yield f"/{top}"
                continue
            inner = {f"{rest}.{name}".strip(".") for name in names} & MODULES.keys()
            yield from inner or {rest}


def room(module: str) -> str:
    """The line of TABLE that a module belongs to; exact names before patterns."""
    if module in TABLE:
        return module
    fitting = [pattern for pattern in TABLE if fnmatchcase(module, pattern)]
    assert len(fitting) == 1, f"{module} needs a line in tests/test_layering.py: fits {fitting}"
    return fitting[0]


def graph() -> dict[str, set[str]]:
    """Our modules and what each imports of ours."""
    return {module: {name for name in imports(module) if name[:1] != "/"} - {module} for module in MODULES}


def reached(module: str, edges: dict[str, set[str]]) -> set[str]:
    """Everything that a module sees, by however many steps."""
    seen, rest = set(), [module]
    while rest:
        new = edges.get(rest.pop(), set()) - seen
        seen |= new
        rest += new
    return seen


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ANYONE))
def test_imports_only_what_the_table_allows(module: str) -> None:
    """A module imports of ours what its line allows, and its own room."""
    own = room(module)
    allowed = [own, *TABLE[own].split()]
    ours = {name for name in imports(module) if name[:1] != "/"} - ANYONE

    assert [name for name in sorted(ours) if not any(fnmatchcase(name, pattern) for pattern in allowed)] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_foreign_packages_stay_where_they_belong(module: str) -> None:
    """Core needs Python's own library alone; pyscsi is drive's."""
    foreign = {name[1:] for name in imports(module) if name[:1] == "/"}

    if module.startswith("core"):
        assert foreign <= CORE_MAY
    if not fnmatchcase(module, "drive*"):
        assert not foreign & ONLY_DRIVE


def test_errors_imports_nothing_of_ours() -> None:
    """Everything may import errors, so errors imports nothing."""
    assert graph()["errors"] == set()


def test_nothing_goes_round() -> None:
    """No module sees itself, by however many steps; a package's own modules apart, which Python loads with it."""
    edges = {module: {name for name in seen if room(name) != room(module)} for module, seen in clean_graph().items()}

    assert list(graphlib.TopologicalSorter(edges).static_order())


def test_core_modules_stand_in_a_row() -> None:
    """In the core there is no circle even within a room: compiled modules cannot load that way."""
    core = {module: seen for module, seen in clean_graph().items() if module.startswith("core.")}

    assert list(graphlib.TopologicalSorter(core).static_order())


def clean_graph() -> dict[str, set[str]]:
    return {module: seen - ANYONE for module, seen in graph().items() if module not in ANYONE}


def test_readers_know_no_tape_and_tape_knows_no_extent() -> None:
    """Only stream sees both ends, by however many steps."""
    edges = clean_graph()
    tape = {"core.tape", "core.sense"}
    both = [
        m for m in edges if m.startswith("core.") and reached(m, edges) & tape and "core.extent" in reached(m, edges)
    ]

    assert [module for module in both if not module.startswith("core.stream")] == []


def test_nobody_sees_the_session() -> None:
    """Only what stands above it imports the session: the command line, the proof and the demonstration."""
    seers = [m for m, seen in clean_graph().items() if any(fnmatchcase(name, "session*") for name in seen)]

    assert [
        m for m in seers if not any(fnmatchcase(m, above) for above in ("session*", "cli*", "demo*", "prove*"))
    ] == []


def test_the_scan_sees_imports() -> None:
    """The scan itself: known edges are found, of each kind of file, on one line and over several."""
    edges = graph()

    assert "errors" in edges["core.fault"]
    assert "core.device" in edges["core.engine"]
    assert "core.fault" in edges["core.device"]
    assert "cli.output" in edges["__main__"]
    assert "/os" in set(imports("errors"))
