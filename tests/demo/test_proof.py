"""The proof fails when a row is lost, late, torn or missing in between, and holds otherwise."""

import os
import sqlite3
from pathlib import Path

import pytest

from splitreel.demo import proof, writer

WINDOW = (10_000, 20_000)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "rows.db"
    writer.create_database(path)
    return path


def fill(database: Path, log: Path, begun: list[int]) -> None:
    connection = sqlite3.connect(database)
    for number, at in enumerate(begun):
        body = writer.payload(0, number)
        connection.execute("INSERT INTO row VALUES(0, ?, ?, ?, ?)", (number, at, body, proof.zlib.crc32(body)))
    connection.commit()
    connection.close()
    log.write_text("".join(f"{number} {at} {at + 10}\n" for number, at in enumerate(begun)))


def change(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_rows_acknowledged_before_the_window_and_none_after_prove(database: Path, tmp_path: Path) -> None:
    fill(database, tmp_path / "log", [100, 200, 9_995])

    result = proof.prove(database, {0: tmp_path / "log"}, WINDOW)

    assert result.failures == []
    assert (result.ok, result.rows, result.acknowledged_before) == (True, 3, 2)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("DELETE FROM row WHERE number = 2", "acknowledged rows are missing"),
        ("DELETE FROM row WHERE number = 1", "gap"),
        ("UPDATE row SET begun_ns = 20001 WHERE number = 2", "begun after the window"),
        ("UPDATE row SET payload = zeroblob(512) WHERE number = 0", "torn"),
    ],
)
def test_a_wrong_row_fails_the_proof(database: Path, tmp_path: Path, statement: str, complaint: str) -> None:
    fill(database, tmp_path / "log", [100, 200, 300])
    change(database, statement)

    result = proof.prove(database, {0: tmp_path / "log"}, WINDOW)

    assert not result.ok
    assert any(complaint in failure for failure in result.failures)


def test_an_empty_database_proves_nothing(database: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")

    assert not proof.prove(database, {0: tmp_path / "log"}, WINDOW).ok


def test_a_file_that_is_no_database_fails_the_proof(tmp_path: Path) -> None:
    (tmp_path / "rows.db").write_bytes(os.urandom(8192))
    (tmp_path / "log").write_text("")

    result = proof.prove(tmp_path / "rows.db", {0: tmp_path / "log"}, WINDOW)

    assert not result.ok
    assert "not a database" in result.integrity


def test_writer_logs_what_sqlite_acknowledged(database: Path, tmp_path: Path) -> None:
    """Each yielded commit is in the log and in the database, in order."""
    log = tmp_path / "log"
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    rows = writer.write_rows(database, fd, 7, 0)
    commits = [next(rows) for _ in range(5)]
    rows.close()
    os.close(fd)

    assert writer.read_log(log) == commits
    assert proof.prove(database, {7: log}, (commits[-1].acknowledged_ns + 1, commits[-1].acknowledged_ns + 2)).ok


def test_a_torn_last_log_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"0 1 2\n1 3 4\n2 5")

    assert [commit.number for commit in writer.read_log(tmp_path / "log")] == [0, 1]
