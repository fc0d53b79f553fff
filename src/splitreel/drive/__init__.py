"""drive speaks SSC to a tape drive over any transport: pyscsi's commands for control, core's Tape for bulk data.

It knows positions and status; it does not know what the blocks hold.
"""

import contextlib
import os
from pathlib import Path
from urllib.parse import unquote

from splitreel.drive.address import FORMS, hold_tape_node, open_transport, parse_size, redacted
from splitreel.drive.replies import (
    Attribute,
    BlockLimits,
    Condition,
    Density,
    DriveIdentity,
    TapePosition,
)
from splitreel.drive.tapedrive import Drive
from splitreel.errors import TapeError

__all__ = [
    "FORMS",
    "Attribute",
    "BlockLimits",
    "Condition",
    "Density",
    "Drive",
    "DriveIdentity",
    "TapePosition",
    "open_drive",
    "open_recorded",
    "open_transport",
    "parse_size",
    "redacted",
]


def open_drive(url: str, **options: object) -> Drive:
    """Open the drive that a TAPE argument names (see FORMS), take its pending unit attentions and set variable blocks.

    Options go to the transport. A drive without a medium opens as well: ask ``wait_ready``.

    Raises:
        UsageError: the address is unknown, or this build lacks the transport.
        TapeError: the drive is not there, in use, cannot be reached, or is no tape drive.
    """
    with contextlib.ExitStack() as undo:
        node = hold_tape_node(url) if Path(url).exists() else None
        if node is not None:
            undo.callback(os.close, node)
        transport = open_transport(url, **options)
        undo.callback(transport.close)
        drive = Drive(transport)
        drive.at_close(undo.pop_all())
        return drive


def open_recorded(url: str) -> Drive:
    """As open_drive, for a tape that is there already: the software drive makes no file where the name is mistyped.

    Raises:
        UsageError, TapeError: as open_drive; TapeError as well when a software drive's file is not there.
    """
    path, _, query = url.removeprefix("file:").partition("?")
    path = unquote(path) if query else path
    if url.startswith("file:") and not Path(path).exists():
        raise TapeError(f"opening tape file {path}", "No such file or directory", "Check the path.")
    return open_drive(url)
