"""reading takes a tape apart: tape files, segments, members, their checksums. It puts nothing into a directory."""

from splitreel.reading.walk import (
    TapeFile,
    all_records,
    check_identity,
    closing_records,
    compare,
    label_of,
    scanned_records,
    walk_closing,
    walk_tape,
)

__all__ = [
    "TapeFile",
    "all_records",
    "check_identity",
    "closing_records",
    "compare",
    "label_of",
    "scanned_records",
    "walk_closing",
    "walk_tape",
]
