"""schema is the catalog's tables, and how a catalog of an older program becomes one of today. It handles no rows.

What has been released is never changed: a new table or column is a new step at the end of MIGRATIONS.
"""

import sqlite3
from collections.abc import Callable

_SCHEMA_1 = """
CREATE TABLE backups (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL,
    host TEXT NOT NULL,
    device TEXT NOT NULL,
    job TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL CHECK (state IN ('running', 'complete', 'incomplete')),
    reason TEXT NOT NULL DEFAULT '',
    files INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    tape_blocks INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0,
    window_ms REAL,
    crc32c INTEGER
) STRICT;
CREATE TABLE volumes (
    id INTEGER PRIMARY KEY,
    backup INTEGER NOT NULL REFERENCES backups ON DELETE CASCADE,
    name TEXT NOT NULL,
    uuid TEXT NOT NULL,
    set_uuid TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    created TEXT NOT NULL,
    block_size INTEGER NOT NULL,
    segment_size INTEGER NOT NULL,
    host TEXT NOT NULL,
    software TEXT NOT NULL,
    drive TEXT NOT NULL DEFAULT '',
    UNIQUE (backup, sequence)
) STRICT;
CREATE TABLE segments (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    number INTEGER NOT NULL,
    object INTEGER NOT NULL,
    blocks INTEGER NOT NULL,
    crc32c INTEGER NOT NULL,
    members INTEGER NOT NULL,
    confirmed REAL NOT NULL,
    PRIMARY KEY (volume, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE members (
    id INTEGER PRIMARY KEY,
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    segment INTEGER NOT NULL,
    path BLOB NOT NULL,
    type TEXT NOT NULL,
    size INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    block INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    extents INTEGER NOT NULL,
    crc32c INTEGER,
    target BLOB,
    part INTEGER,
    parts INTEGER,
    of BLOB,
    at INTEGER NOT NULL,
    object INTEGER NOT NULL
) STRICT;
CREATE INDEX members_path ON members (volume, path);
CREATE TABLE redo (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    path BLOB NOT NULL,
    size INTEGER NOT NULL,
    crc32c INTEGER NOT NULL,
    PRIMARY KEY (volume, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE phases (
    backup INTEGER NOT NULL REFERENCES backups ON DELETE CASCADE,
    name TEXT NOT NULL,
    started REAL NOT NULL,
    seconds REAL NOT NULL
) STRICT;
CREATE TABLE windows (
    backup INTEGER NOT NULL REFERENCES backups ON DELETE CASCADE,
    name TEXT NOT NULL,
    started REAL NOT NULL,
    seconds REAL NOT NULL
) STRICT;
"""

# runs: every window that was opened, of backups and of rehearsals; they outlive the tapes, so they hang on no backup.
# settings: a digest of what of the job shapes its window, "" where it is not known. whole: 0 when the window was cut
# short, so that nobody knows how long it would have been. stages: what happened in it, at_ms after its opening.
_SCHEMA_2 = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    job TEXT NOT NULL,
    settings TEXT NOT NULL,
    started REAL NOT NULL,
    rehearsal INTEGER NOT NULL CHECK (rehearsal IN (0, 1)),
    whole INTEGER NOT NULL CHECK (whole IN (0, 1)),
    error TEXT NOT NULL DEFAULT '',
    backup TEXT NOT NULL DEFAULT '',
    window_ms REAL NOT NULL,
    second_window_ms REAL NOT NULL DEFAULT 0,
    hot_backup_ms REAL NOT NULL DEFAULT 0,
    split_ms REAL NOT NULL DEFAULT 0,
    files INTEGER NOT NULL DEFAULT 0,
    dirty_bytes INTEGER,
    deadline_ms INTEGER NOT NULL DEFAULT 0,
    budget_ms INTEGER NOT NULL DEFAULT 0,
    predicted_ms REAL
) STRICT;
CREATE INDEX runs_job ON runs (job, id);
CREATE TABLE stages (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    name TEXT NOT NULL,
    at_ms REAL NOT NULL,
    ms REAL NOT NULL
) STRICT;
CREATE INDEX stages_run ON stages (run);
INSERT INTO runs (job, settings, started, rehearsal, whole, backup, window_ms)
    SELECT job, '', coalesce(CAST(strftime('%s', created) AS REAL), 0), 0, 1, uuid, window_ms FROM backups
    WHERE job <> '' AND window_ms IS NOT NULL ORDER BY id;
"""


# damaged_pages: database pages that were damaged on the mirror; the tape holds them as they were. page_checks: how many
# pages of a tape's files were looked at, and what was found.
_SCHEMA_3 = """
CREATE TABLE damaged_pages (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    path BLOB NOT NULL,
    page INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    size INTEGER NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (volume, path, offset)
) STRICT, WITHOUT ROWID;
CREATE TABLE page_checks (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    name TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (volume, name)
) STRICT, WITHOUT ROWID;
"""


def _run(connection: sqlite3.Connection, script: str) -> None:
    # not executescript: that commits what was begun
    for statement in script.split(";\n"):
        connection.execute(statement)


def _create(connection: sqlite3.Connection) -> None:
    _run(connection, _SCHEMA_1)


def _add_runs(connection: sqlite3.Connection) -> None:
    _run(connection, _SCHEMA_2)


def _add_pages(connection: sqlite3.Connection) -> None:
    _run(connection, _SCHEMA_3)


# MIGRATIONS[n] brings a catalog of schema version n to n + 1
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_create, _add_runs, _add_pages)
SCHEMA_VERSION = len(MIGRATIONS)
