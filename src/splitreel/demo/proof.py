"""proof checks a restored database against the writers' logs: nothing acknowledged is missing, nothing later is there.

The database must pass SQLite's own integrity check. For every writer: each row acknowledged before the window opened is
there; no row begun after the window closed is; the rows are without a gap; each payload matches its CRC.
"""

import sqlite3
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from splitreel.demo.writer import Commit, read_log


@dataclass
class Proof:
    """What was checked, and everything that failed; ``ok`` when nothing did and there was something to check."""

    integrity: str = ""
    rows: int = 0
    acknowledged_before: int = 0
    committed_after: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when every check passed on a database that held rows from before the window."""
        return not self.failures and self.integrity == "ok" and self.acknowledged_before > 0


def prove(database: Path, logs: dict[int, Path], window_ns: tuple[int, int]) -> Proof:
    """Check ``database`` (restored) against each writer's log.

    Args:
        logs: writer number -> log file.
        window_ns: CLOCK_MONOTONIC nanoseconds at which the window opened and closed.
    """
    proof = Proof()
    connection = sqlite3.connect(database)
    try:
        proof.integrity = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
        for writer, log in logs.items():
            _prove_writer(connection, writer, read_log(log), window_ns, proof)
    except sqlite3.DatabaseError as error:
        proof.integrity = str(error)
    finally:
        connection.close()
    if proof.integrity != "ok":
        proof.failures.append(f"integrity check: {proof.integrity}")
    return proof


def _prove_writer(
    connection: sqlite3.Connection, writer: int, commits: list[Commit], window_ns: tuple[int, int], proof: Proof
) -> None:
    opened, closed = window_ns
    rows = connection.execute(
        "SELECT number, begun_ns, payload, crc32 FROM row WHERE writer = ? ORDER BY number", (writer,)
    ).fetchall()
    present = {number for number, *_ in rows}
    before = {commit.number for commit in commits if commit.acknowledged_ns < opened}
    proof.rows += len(rows)
    proof.acknowledged_before += len(before)
    proof.committed_after += sum(commit.begun_ns > closed for commit in commits)
    if lost := before - present:
        proof.failures.append(f"writer {writer}: {len(lost)} acknowledged rows are missing, the first is {min(lost)}")
    if late := [number for number, begun, *_ in rows if begun > closed]:
        proof.failures.append(f"writer {writer}: {len(late)} rows begun after the window, the first is {late[0]}")
    if present != set(range(len(rows))):
        proof.failures.append(f"writer {writer}: the rows have a gap")
    if torn := [number for number, _, body, crc in rows if zlib.crc32(body) != crc]:
        proof.failures.append(f"writer {writer}: {len(torn)} torn rows, the first is {torn[0]}")
