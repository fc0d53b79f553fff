"""Builds the compiled package splitreel.core: one extension for each ext/*.pyx; metadata stands in pyproject.toml."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
DEBUG = os.environ.get("SPLITREEL_DEBUG") == "1"
SANITIZE = os.environ.get("SPLITREEL_SANITIZE") == "1"  # AddressSanitizer and UBSan; run under LD_PRELOAD=libasan.so
COVERAGE = os.environ.get("SPLITREEL_COVERAGE") == "1"  # gcov; tests/coverage_ext.py builds and reads it
STRICT = (ROOT / ".git").exists() and os.environ.get("SPLITREEL_STRICT") != "0"  # warnings are errors
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "freethreading_compatible": True,
    "emit_code_comments": COVERAGE,  # by them C lines are traced back to .pyx lines
}
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-missing-field-initializers"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-O1", "-g"]
SANITIZERS += ["-fno-wrapv"]  # Python's own -fwrapv would hide overflows


def pkg_config(library: str) -> tuple[list[str], list[str]] | None:
    """Compile and link arguments of a C library, or None when pkg-config does not know it."""
    if shutil.which("pkg-config") is None:
        return None
    outputs = []
    for what in ("--cflags", "--libs"):
        found = subprocess.run(["pkg-config", what, library], capture_output=True, text=True, check=False)
        if found.returncode != 0:
            return None
        outputs.append(shlex.split(found.stdout))
    return outputs[0], outputs[1]


def extension(source: Path) -> Extension | None:
    """The extension of one ext/*.pyx, or None when the library it stands on is missing."""
    stem = source.stem
    compile_args = ["-O0", "-g"] if DEBUG else ["-O2", "-g0"]
    compile_args += [*WARNINGS, *(["-Werror"] if STRICT else [])]
    if COVERAGE:
        compile_args += ["--coverage", "-fprofile-update=prefer-atomic", "-O0"]
    link_args = ["-pthread", *(["--coverage"] if COVERAGE else [])]
    if SANITIZE:
        compile_args += SANITIZERS
        link_args += SANITIZERS
    macros: list[tuple[str, str | None]] = [("_GNU_SOURCE", None), ("_FILE_OFFSET_BITS", "64")]
    if SANITIZE:
        macros.append(("SPLITREEL_SANITIZE", None))
    if stem == "iscsi":
        found = pkg_config("libiscsi >= 1.19")
        if found is None:
            print("splitreel: no libiscsi 1.19 or newer found by pkg-config: building without iscsi:// drives")
            return None
        compile_args += found[0]
        link_args += found[1]
    if stem == "engine":
        found = pkg_config("liburing")
        if found is None:
            print("splitreel: liburing not found by pkg-config: building without the io_uring engine (threads remain)")
        else:
            macros.append(("SPLITREEL_HAVE_LIBURING", None))
            compile_args += found[0]
            link_args += found[1]
    return Extension(
        f"splitreel.core.{stem}",
        [os.path.relpath(source, ROOT)],
        include_dirs=["ext"],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


def interfaces(stem: str, found: dict[Path, None]) -> dict[Path, None]:
    """The .pxd of a module and all that it cimports, by however many steps."""
    path = ROOT / "src" / "splitreel" / "core" / f"{stem}.pxd"
    if path.exists() and path not in found:
        found[path] = None
        for below in re.findall(r"^from splitreel\.core\.(\w+) cimport", path.read_text(), re.MULTILINE):
            interfaces(below, found)
    return found


def forget_stale() -> None:
    """Drop the generated C of each module whose own interface, or one that this stands on, is newer.

    Cython tracks a module's own .pxd only when it lies beside the .pyx; ours live in src/splitreel/core. What the .pyx
    itself cimports it tracks.
    """
    for source in (ROOT / "ext").glob("*.pyx"):
        generated = ROOT / "build" / "cython" / "ext" / f"{source.stem}.c"
        newest = max((path.stat().st_mtime for path in interfaces(source.stem, {})), default=0)
        if generated.exists() and generated.stat().st_mtime < newest:
            generated.unlink()


class BuildCore(build_ext):
    """Cythonizes when extensions are built and at no other time: metadata and sdist need no C files."""

    def build_extensions(self) -> None:
        """Put the generated C in place of each .pyx, then compile."""
        forget_stale()
        generated = cythonize(
            self.extensions,
            include_path=["src"],
            build_dir="build/cython",
            compiler_directives=DIRECTIVES,
            nthreads=self.parallel,
        )
        made = {extension.name: extension for extension in generated}
        for wanted in self.extensions:
            wanted.sources, wanted.depends = made[wanted.name].sources, made[wanted.name].depends
        super().build_extensions()


if __name__ == "__main__":  # Cython's own worker processes may import this file again
    os.chdir(ROOT)
    Options.warning_errors = STRICT
    setup(
        cmdclass={"build_ext": BuildCore},
        options={"build_ext": {"parallel": len(os.sched_getaffinity(0))}},
        ext_modules=[e for e in map(extension, sorted((ROOT / "ext").glob("*.pyx"))) if e is not None],
    )
