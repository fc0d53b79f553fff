"""drive speaks SSC to a tape drive over any transport: pyscsi's commands for control, core's Tape for bulk data.

It knows positions and status; it does not know what the blocks hold.
"""

import contextlib
import os
from pathlib import Path

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
