"""script runs a site's own command with a time limit and judges its outcome. It does not know what the command does.

The contract is that of SAP's split_cmd: exit status 0, and on standard output nothing but lines that begin with
``#INFO``; anything else is a failure, and what was printed is the reason. Standard error goes the same way.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from splitreel.errors import SplitreelError

INFO = "#INFO"
OUTPUT_LIMIT = 1 << 20  # characters kept of what a command prints


def argv(command: str | Sequence[str], **words: str) -> list[str]:
    """A command of the configuration as an argument vector: text is split as a shell would, ``{word}`` filled in.

    The program's path is made absolute, so that nothing has to be looked up later. Nothing is run through a shell.
    """
    parts = shlex.split(command) if isinstance(command, str) else [str(part) for part in command]
    for word, value in words.items():
        parts = [part.replace("{" + word + "}", value) for part in parts]
    return [shutil.which(parts[0]) or parts[0], *parts[1:]] if parts else []


def runnable(command: Sequence[str]) -> str:
    """Why this command cannot be run, or ""."""
    if not command:
        return "the command is empty"
    if not os.access(command[0], os.X_OK) or Path(command[0]).is_dir():
        return f"{command[0]} is not an executable program"
    return ""


def run(
    command: Sequence[str],
    timeout_s: float,
    kind: type[SplitreelError],
    what: str,
    started: Callable[[int], None] = lambda group: None,
) -> list[str]:
    """Run a command that only acts; returns its remarks, the ``#INFO`` lines without that word.

    ``started`` is called with the number of its process group.

    Raises:
        kind: it failed, printed anything else, or took longer than ``timeout_s``; its process group is then killed.
    """
    remarks, others = output(command, timeout_s, kind, what, started)
    if others:
        raise kind(what, f"{command[0]} printed: {others[0]}", f"Lines other than {INFO} count as failure.")
    return remarks


def output(
    command: Sequence[str],
    timeout_s: float,
    kind: type[SplitreelError],
    what: str,
    started: Callable[[int], None] = lambda group: None,
) -> tuple[list[str], list[str]]:
    """Run a command that answers; returns its remarks and its other lines.

    Raises:
        kind: it failed or took longer than ``timeout_s``.
    """
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        raise kind(what, f"{command[0]}: {error.strerror}", "Check the command in the configuration.") from error
    started(process.pid)
    with process:
        try:
            printed, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise kind(what, f"{command[0]} took longer than {timeout_s:g} s and was killed") from None
    lines = printed[:OUTPUT_LIMIT].decode("utf-8", "surrogateescape").splitlines()
    remarks = [line[len(INFO) :].strip() for line in lines if line.startswith(INFO)]
    others = [line for line in lines if line.strip() and not line.startswith(INFO)]
    if process.returncode != 0:
        raise kind(what, f"{command[0]} ended with status {process.returncode}: {' '.join(others or remarks)[:500]}")
    return remarks, others
