"""A few cases of the kill matrix; ``python -m tests.kills`` runs all of it."""

from pathlib import Path

from tests.kills.__main__ import table
from tests.kills.cases import Outcome, hit
from tests.kills.scenes import DEADLINE_MS, sqlite
from tests.kills.victim import POINTS


def test_a_session_hit_where_it_hurts_is_put_back_and_the_next_one_works(tmp_path: Path) -> None:
    """Stopped with the database held, killed with a split that no journal knows, ended while it writes to tape."""
    (tmp_path / "state").mkdir()
    with sqlite(tmp_path) as scene:
        for point, sign in (("prepare", "STOP"), ("split-done", "KILL"), ("confirmed", "TERM")):
            outcome = hit(scene, tmp_path / "state", point, sign)
            assert outcome.failure == "", outcome
            if sign == "STOP":
                # the watchdog alone let go, at its deadline
                assert outcome.waited_ms > DEADLINE_MS / 4


def test_the_table_has_the_longest_wait_of_each_case_and_counts_what_failed() -> None:
    found = {
        "files": [Outcome("split", "KILL", 12.0), Outcome("split", "STOP", 1999.0)],
        "sqlite": [Outcome("split", "KILL", 40.0), Outcome("map", "TERM", 1.0, "AssertionError: x")],
    }
    lines = table(found)

    (split,) = [line for line in lines if line.startswith("split ")]
    assert split.split() == ["split", "40", "1999", "-"]
    assert "sqlite: 1 of 2 recovered (50 %), longest 40 ms" in lines
    assert {line.split()[0] for line in lines[1:3]} <= set(POINTS)
