"""A row that is lost, late, torn, misplaced or missing in between is named, and nothing else is."""

import itertools
import os
import sqlite3
from pathlib import Path

import pytest

from splitreel.core.checksum import crc32c
from splitreel.prove import rows
from splitreel.prove.sqliterows import SqliteTable, read_file

WINDOW = (10_000, 20_000)
KEPT = 100


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "rows.db"
    SqliteTable(path).create()
    return path


def fill(database: Path, log: Path, begun: list[int]) -> None:
    connection = sqlite3.connect(database)
    for number, at in enumerate(begun):
        body = rows.payload(0, number)
        row = (0, number, number, at, body, crc32c(body.encode()))
        connection.execute(f"INSERT INTO {rows.TABLE} VALUES(?, ?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()
    log.write_text("".join(f"{number} {at} {at + 10}\n" for number, at in enumerate(begun)))


def change(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute(statement.format(rows.TABLE))
    connection.commit()
    connection.close()


def test_rows_acknowledged_before_the_window_and_none_after_are_right(database: Path, tmp_path: Path) -> None:
    fill(database, tmp_path / "log", [100, 200, 9_995])

    result = rows.examine(read_file(database), {0: tmp_path / "log"}, KEPT, WINDOW)

    assert result.findings == []
    assert (result.ok, result.rows, result.before) == (True, 3, 2)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("DELETE FROM {} WHERE number = 1", "lost"),
        ("DELETE FROM {} WHERE number = 2", "disordered"),
        ("UPDATE {} SET begun_ns = 20001 WHERE number = 3", "late"),
        ("UPDATE {} SET payload = 'other' WHERE number = 0", "torn"),
        ("UPDATE {} SET number = 7 WHERE number = 3", "misplaced"),
    ],
)
def test_a_wrong_row_is_named(database: Path, tmp_path: Path, statement: str, kind: str) -> None:
    fill(database, tmp_path / "log", [100, 200, 9_995, 9_999])
    change(database, statement)

    result = rows.examine(read_file(database), {0: tmp_path / "log"}, KEPT, WINDOW)

    assert not result.ok
    assert kind in {finding.kind for finding in result.findings}


def test_a_row_that_was_overwritten_long_ago_is_stale(database: Path, tmp_path: Path) -> None:
    """A writer keeps so many rows; one more than that is a row that came back."""
    fill(database, tmp_path / "log", list(range(0, 300, 100)))

    assert [f.kind for f in rows.examine(read_file(database), {0: tmp_path / "log"}, 2, WINDOW).findings] == ["stale"]


def test_an_empty_database_proves_nothing(database: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")

    assert not rows.examine(read_file(database), {0: tmp_path / "log"}, KEPT, WINDOW).ok


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "rows.db").write_bytes(os.urandom(8192))
    (tmp_path / "log").write_text("")

    result = rows.examine(read_file(tmp_path / "rows.db"), {0: tmp_path / "log"}, KEPT, WINDOW)

    assert not result.ok
    assert "not a database" in result.integrity


def test_writer_logs_what_sqlite_acknowledged(database: Path, tmp_path: Path) -> None:
    """Each yielded commit is in the log and in the database, in order, and no more rows than are kept."""
    log = tmp_path / "log"
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    client = SqliteTable(database).connect()
    begun = [row.begun_ns for row in itertools.islice(rows.write_rows(client, fd, 7, 3, 0), 5)]
    client.close()
    os.close(fd)
    last = int(rows.read_log(log)[-1, 2])

    result = rows.examine(read_file(database), {7: log}, 3, (last + 1, last + 2))

    assert rows.read_log(log)[:, :2].tolist() == list(map(list, enumerate(begun)))
    assert (result.ok, result.rows, result.before) == (True, 3, 5)


def test_a_torn_last_log_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"0 1 2\n1 3 4\n2 5")

    assert rows.read_log(tmp_path / "log")[:, 0].tolist() == [0, 1]


def test_the_end_of_a_log_can_be_read_alone(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"{number} 1000 2000\n" for number in range(1000)))
    last = rows.read_log(tmp_path / "log", 5)[:, 0].tolist()

    assert last == list(range(last[0], 1000))
    assert 5 <= len(last) < 50
