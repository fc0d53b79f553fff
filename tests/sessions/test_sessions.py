"""Sessions with PostgreSQL under load come back right; and what judges them finds what is wrong."""

import json
from pathlib import Path

import pytest

from tests.postgres import binaries
from tests.sessions import DATABASES, bench_class
from tests.sessions.__main__ import main, percentile, summary
from tests.sessions.commits import judge, longest_ms
from tests.sessions.measure import Measured
from tests.support import need_programs, need_root

MS = 1_000_000


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hot-backup", "freeze"])
def test_a_session_under_load_restores_to_a_server_that_has_every_acknowledged_row(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Backed up, restored with --database, drilled; in freeze mode with nothing begun after the split."""
    need_root()
    need_programs("psql", "pgbench")
    binaries()

    assert main(["--database", "postgresql", "--mode", mode, "--count", "1", "--alone"]) == 0, capsys.readouterr().out

    assert "drill good" in capsys.readouterr().out


def test_every_bench_has_modes() -> None:
    for name in DATABASES:
        bench = bench_class(name)
        assert bench.MODES
        assert set(bench.MODES) >= bench.REDO_MODES


def log(folder: Path, *commits: tuple[int, int, int]) -> dict[int, Path]:
    path = folder / "log"
    path.write_text("".join(f"{number} {begun} {done}\n" for number, begun, done in commits) + "9 9")
    return {0: path}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([(1, 10), (2, 20)], ""),
        ([(1, 10), (2, 20), (3, 30)], ""),
        ([(1, 10)], "acknowledged rows are missing"),
        ([(2, 20)], "gap"),
        ([(1, 10), (2, 20), (3, 30), (4, 70)], "begun too late"),
        ([], "acknowledged rows are missing"),
    ],
)
def test_a_copy_is_judged_by_what_was_acknowledged(tmp_path: Path, rows: list[tuple[int, int]], complaint: str) -> None:
    logs = log(tmp_path, (1, 10, 15), (2, 20, 25), (3, 30, 55), (4, 70, 75))

    found = judge({0: rows}, logs, 50, 60)

    assert any(complaint in line for line in found) if complaint else found == []


def test_a_load_that_did_nothing_shows_nothing(tmp_path: Path) -> None:
    assert judge({0: []}, log(tmp_path, (1, 60, 70)), 50, 60)


def test_a_stall_counts_where_it_overlaps(tmp_path: Path) -> None:
    logs = log(tmp_path, (1, 0, 5 * MS), (2, 10 * MS, 40 * MS), (3, 60 * MS, 61 * MS))

    assert longest_ms(logs, 20 * MS, 30 * MS) == 30
    assert longest_ms(logs, 50 * MS, 70 * MS) == 1
    assert longest_ms(logs, 45 * MS, 50 * MS) == 0


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]

    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50, 99, 100)
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([7.0], 0.5) == 7.0


def test_the_table_has_each_kind_beside_the_conventional_order_of_its_own_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is printed after a run, and again of the lines that runs have kept."""
    kept = [tmp_path / "one", tmp_path / "other"]
    for path, files, window in ((kept[0], 200, 10.0), (kept[1], 200_000, 12.0)):
        for order, factor in (("premapped", 1), ("conventional", 50)):
            found = [
                Measured("postgresql", "freeze", "embedded", order, n, files, window_ms=window * factor + n)
                for n in range(20)
            ]
            with path.open("a") as file:
                file.write(json.dumps(summary(found)) + "\n" + json.dumps({"kind": "session"}) + "\n")

    assert main(["--table", *map(str, kept)]) == 0

    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[3:7] for row in rows] == [
        ["200", "20", "19 / 29", "509 / 519"],
        ["200000", "20", "21 / 31", "609 / 619"],
    ]
