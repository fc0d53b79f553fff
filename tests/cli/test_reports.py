"""report: every run is in the histogram once, quantiles are values that were measured, JSON has stable keys."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import errors, runs
from splitreel.__main__ import main
from splitreel.catalog import Catalog
from splitreel.cli import reports
from splitreel.runs import Run, Stage


def run_of(window_ms: float, job: str = "nightly", *, whole: bool = True) -> Run:
    stages = (Stage("quiesce db", -90.0, 100.0), Stage("split m", 10.0, window_ms - 10.0))
    return Run(job, "s", 1000.0, True, whole, window_ms, budget_ms=500, stages=stages)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    with Catalog(tmp_path) as catalog:
        for number in range(40):
            runs.add(catalog, run_of(50.0 + number))
        runs.add(catalog, run_of(400.0, whole=False))
        runs.add(catalog, run_of(70.0, "weekly"))
    return tmp_path


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(min_value=0, max_value=1e7), min_size=1, max_size=60))
def test_every_run_is_in_the_histogram_once(windows: list[float]) -> None:
    lines = reports.histogram(windows, {"prediction": max(windows)})

    assert sum(int(re.match(r".* ms +(\d+)", line)[1]) for line in lines) == len(windows)  # type: ignore[index]
    assert len(lines) <= 3 * reports.ROWS
    assert sum("◀ prediction" in line for line in lines) == 1


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(1, 101)]

    assert [reports.quantile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert [reports.quantile([7.0], share) for share in (0.5, 0.99)] == [7.0, 7.0]


def test_waiting_for_a_lock_before_the_window_is_no_share_of_it() -> None:
    found = {name: (median, share) for name, median, share in reports.shares([run_of(50.0)])}

    assert found == {"quiesce db": (10.0, 0.2), "split m": (40.0, 0.8)}


def test_people_see_figures_prediction_histogram_stages_and_runs(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--state", str(state), "report", "--job", "nightly", "--last", "3"]) == 0
    text = capsys.readouterr().out

    assert "job nightly: 41 runs, 41 of them rehearsals, 1 cut short" in text
    assert "median 70.0 ms, p90 86.0 ms, p99 400.0 ms, max 400.0 ms" in text
    assert "at most 89.0 ms in 95 of 100 cases, by the last 41 runs, 1 of them cut short; the budget is 500 ms" in text
    assert text.index("split m") < text.index("quiesce db")
    assert text.count("rehearsal  ") == 3
    assert "weekly" not in text


def test_json_has_a_line_for_the_job_the_forecast_each_stage_and_each_run(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--state", str(state), "report", "--json", "--last", "2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [line["kind"] for line in lines] == [*["job", "forecast", "stage", "stage", "run", "run"], *KINDS_OF_WEEKLY]
    assert lines[0] == {"kind": "job", "job": "nightly", "runs": 41, "rehearsals": 41, "cut": 1, **FIGURES}
    assert lines[1] == {"kind": "forecast", "job": "nightly", "bound_ms": 89.0, "percent": 95, "runs": 41, "cut": 1}
    assert lines[5]["whole"] is False
    assert lines[7]["bound_ms"] is None


KINDS_OF_WEEKLY = ["job", "forecast", "stage", "stage", "run"]
FIGURES = {"median_ms": 70.0, "p90_ms": 86.0, "p99_ms": 400.0, "max_ms": 400.0, "budget_ms": 500}


def test_a_job_without_runs_is_told_from_none_at_all(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--state", str(state), "report", "--job", "nigthly"]) == errors.EXIT_FAILED
    assert "nigthly" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["--state", str(tmp_path / "empty"), "report"]) == 0
    assert "--rehearse" in capsys.readouterr().err
