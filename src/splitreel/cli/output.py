"""output is how verbs speak: JSON lines or text on standard output, errors and progress on standard error."""

import io
import json
import os
import sys
from typing import Any

from splitreel import errors


def write_whole() -> None:
    """Put a buffer before standard output and error where ``python -u`` or PYTHONUNBUFFERED took it away.

    The bare descriptor takes what a pipe has room for and says how much; whoever does not ask loses the rest: ``cat``
    into a pipe lost 1 % of a file, with exit code 0.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        bare = getattr(stream, "buffer", None)
        if isinstance(bare, io.RawIOBase):
            whole = io.BufferedWriter(bare)
            text = io.TextIOWrapper(whole, stream.encoding, stream.errors, line_buffering=True)
            setattr(sys, name, text)


def complain(error: errors.SplitreelError) -> None:
    """Print an error as its lines: what, why, what to do."""
    for prefix, line in zip(("splitreel: ", "  why: ", "  do:  "), (error.what, error.why, error.advice), strict=True):
        if line:
            print(f"{prefix}{line}", file=sys.stderr)


def note(text: str) -> None:
    """Print a remark that is no result: to standard error, so that results stay machine-readable."""
    print(text, file=sys.stderr)


def emit(record: dict[str, Any]) -> None:
    """Print one JSON object on a line of standard output."""
    print(json.dumps(record, separators=(",", ":")), flush=False)


def display(name: bytes) -> str:
    """A path or name for JSON and terminals: UTF-8, other bytes as surrogates (as ``os.fsdecode``)."""
    return name.decode("utf-8", "surrogateescape")


def printable(name: bytes) -> str:
    """A path or name for a terminal: control characters and undecodable bytes escaped, one line."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size(count: float) -> str:
    """A byte count for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def count(number: int, noun: str) -> str:
    """A number of things: 1 file, 2 files."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def is_terminal() -> bool:
    """True when progress may be drawn in place."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
