"""The sdist is complete and builds alone, the wheel installs and works alone, and a build without parts says so.

One build makes both, as a packager does: the sdist from a clean copy of the tree, the wheel from the sdist.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from splitreel.selftest import EXPECTED_CHECKS

from .coverage_ext import ROOT, copy_tree
from .support import missing, need_programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# what the compiler says of C, and Cython of its own
REMARK = re.compile(r"\.(pyx|pxd|c|h):\d+:\d+: .*warning:|(warning|performance hint): .*\.(pyx|pxd):\d+")
RUNTIME = ["crcmod", "numpy", "pyscsi"]
NOT_BUILT = """
from splitreel.core.device import BlockDevice
from splitreel.core.engine import ReadEngine
from splitreel.drive import open_drive
from splitreel.errors import UsageError
try:
    open_drive("iscsi://127.0.0.1/target/1")
except UsageError as error:
    print(*error.lines(), sep="\\n")
with BlockDevice(__file__) as device, ReadEngine.open(device, 1) as engine:
    print(engine.name)
import splitreel.core.iscsi
"""


def command(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program without this checkout's own package and unmeasured; all that it prints is one text."""
    meant_here = ("PYTHONPATH", "COVERAGE_", "GCOV_", "SPLITREEL_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(meant_here)}
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**clean, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clean checkout holds."""
    copy = tmp_path_factory.mktemp("tree")
    copy_tree(copy)
    return copy


@pytest.fixture(scope="module")
def built(tree: Path) -> str:
    """The log of ``python -m build``; sdist and wheel then lie in dist."""
    need_programs("gcc", "pkg-config")
    made = command(sys.executable, "-m", "build", "--no-isolation", cwd=tree)
    assert made.returncode == 0, made.stdout[-4000:]
    return made.stdout


@pytest.fixture(scope="module")
def wheel(tree: Path, built: str) -> Path:
    return next((tree / "dist").glob("*.whl"))


def test_the_build_is_silent(built: str) -> None:
    """No compiler warning, and no hint of Cython's that a nogil function takes the GIL."""
    assert [line for line in built.splitlines() if REMARK.search(line)] == []


def test_the_sdist_holds_the_tree(tree: Path, built: str) -> None:
    """All that a clean checkout holds, and nothing that a build made."""
    with tarfile.open(next((tree / "dist").glob("*.tar.gz"))) as archive:
        packed = {member.name.partition("/")[2]: member for member in archive if member.isfile()}
    wanted = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file() and path.parent.name != "dist"}

    assert packed.keys() - {"PKG-INFO", "setup.cfg"} == wanted
    assert [name for name in ("run", ".ci/run") if not packed[name].mode & 0o100] == []


def test_the_wheel_holds_package_and_interfaces_alone(wheel: Path) -> None:
    """Python, interfaces and the compiled modules; neither their source nor tests."""
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    source = ROOT / "src"
    wanted = [
        path.relative_to(source)
        for path in source.rglob("*")
        if path.suffix in (".py", ".pyi", ".pxd") or path.name == "py.typed"
    ]
    modules = {path.name.partition(".")[0] for path in names if path.suffix == ".so"}

    assert sorted(path for path in names if path.suffix != ".so") == sorted(wanted)
    if "iscsi" not in modules:
        missing("needs libiscsi and pkg-config")
    assert modules == {path.stem for path in (ROOT / "ext").glob("*.pyx")}


def lend(distribution: str, site: Path) -> None:
    """Make an installed package visible in another environment, with its metadata (.dist-info, or an old .egg-info)."""
    here = Path(str(importlib.metadata.distribution(distribution).locate_file("")))
    for part in here.iterdir():
        if part.name.lower().startswith(distribution):
            (site / part.name).symlink_to(part)


def test_the_wheel_works_with_its_declared_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    """In a new environment pip finds every declared dependency met, and the self-test passes."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    for distribution in RUNTIME:
        lend(distribution, next((tmp_path / "venv" / "lib").glob("python*/site-packages")))

    pip = [sys.executable, "-m", "pip", "--python", python]
    installed = command(*pip, "install", "--no-index", wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stdout
    tested = command(python.with_name("splitreel"), "selftest", cwd=tmp_path)

    assert tested.returncode == 0, tested.stdout
    assert f"{EXPECTED_CHECKS} of {EXPECTED_CHECKS} passed" in tested.stdout


def test_a_build_without_libraries_goes_on_and_says_what_is_missing(tree: Path, wheel: Path, tmp_path: Path) -> None:
    """Without libiscsi and liburing the transport is absent and named, reads go through threads, the rest works.

    Only what concerns them is built; the other modules are the wheel's.
    """
    bare = tmp_path / "bare"
    shutil.copytree(tree, bare, ignore=shutil.ignore_patterns("build", "dist", "ext"))
    (bare / "ext").mkdir()
    for source in [*(tree / "ext").glob("*.h"), tree / "ext" / "engine.pyx", tree / "ext" / "iscsi.pyx"]:
        shutil.copy2(source, bare / "ext")
    zipfile.ZipFile(wheel).extractall(bare / "src")
    for compiled in (bare / "src" / "splitreel" / "core").glob("*.so"):
        if compiled.name.startswith(("engine.", "iscsi.")):
            compiled.unlink()
    made = command(
        sys.executable, "setup.py", "-q", "build_ext", "--inplace", cwd=bare, PKG_CONFIG_LIBDIR=str(tmp_path / "none")
    )
    script = tmp_path / "not_built.py"
    script.write_text(NOT_BUILT)
    tried = command(sys.executable, script, cwd=bare, PYTHONPATH=str(bare / "src"))
    tested = command(sys.executable, "-m", "splitreel", "selftest", cwd=bare, PYTHONPATH=str(bare / "src"))

    said = " ".join(line for line in made.stdout.splitlines() if line.startswith("splitreel:"))
    assert made.returncode == 0, made.stdout[-4000:]
    assert ("libiscsi" in said, "liburing" in said) == (True, True)
    assert "without iSCSI drives" in tried.stdout
    assert "\nthreads\n" in tried.stdout
    assert tried.stdout.splitlines()[-1].startswith("ModuleNotFoundError")
    assert tested.returncode == 0, tested.stdout
