"""The catalog's runs: what is put in comes out, and a catalog of the first schema keeps its backups' windows."""

import sqlite3
from pathlib import Path

from splitreel import catalog, runs, schema
from splitreel.catalog import Catalog
from splitreel.runs import Run, Stage

STAGES = (Stage("quiesce fsfreeze /db", 0.0, 45.5), Stage("split qemu prim", 46.0, 3.25))


def run_of(number: int, job: str = "nightly") -> Run:
    return Run(job, "settings", float(number), number % 2 == 0, True, 50.0 + number, stages=STAGES)


def test_what_is_put_in_comes_out_oldest_first(tmp_path: Path) -> None:
    full = Run("nightly", "x", 3.0, True, False, 1.0, "e", "b", 2.0, 3.0, 4.0, 5, 6, 7, 8, 9.0, STAGES)
    with Catalog(tmp_path) as opened:
        for run in (run_of(1), run_of(2, "other"), full):
            runs.add(opened, run)

        assert runs.of_job(opened, "nightly") == [run_of(1), full]
        assert runs.of_job(opened, "nightly", 1) == [full]
        assert runs.of_job(opened, "nobody") == []
        assert runs.jobs(opened) == ["nightly", "other"]
        assert full.held_ms == 2.0


def test_they_outlive_the_backup_and_its_tape(tmp_path: Path) -> None:
    with Catalog(tmp_path) as opened:
        opened.begin_backup("uuid", "/dev/x", created="2026-01-02T03:04:05Z", host="h", job="nightly")
        runs.add(opened, Run("nightly", "s", 1.0, False, True, 5.0, backup="uuid"))
        opened.forget("uuid")

        assert [run.backup for run in runs.of_job(opened, "nightly")] == ["uuid"]


def test_a_catalog_of_the_first_schema_keeps_its_backups_and_their_windows(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / catalog.FILE_NAME)
    schema.MIGRATIONS[0](connection)
    row = "INSERT INTO backups (uuid, created, host, device, job, state, window_ms) VALUES (?, ?, 'h', 'd', ?, ?, ?)"
    connection.execute(row, ("a", "1970-01-02T00:00:00+00:00", "nightly", "complete", 12.5))
    connection.execute(row, ("b", "1970-01-03T00:00:00+00:00", "", "complete", None))
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()

    with Catalog(tmp_path) as opened:
        assert [backup.uuid for backup in opened.backups()] == ["a", "b"]
        assert runs.of_job(opened, "nightly") == [Run("nightly", "", 86400.0, False, True, 12.5, backup="a")]
        assert runs.jobs(opened) == ["nightly"]
        assert opened.connection.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)
