"""The bound for the next window holds as often as it says, whatever the distribution; else there is none."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import config
from splitreel.errors import EXIT_OPERATOR, BudgetExceeded, BudgetUnknown
from splitreel.runs import Run
from splitreel.session.forecast import LEVEL_PERCENT, NEEDED, RECENT, bound, forecast, rank, require, settings_of

WINDOWS = st.floats(min_value=0, allow_nan=False)


def run_of(window_ms: float, **changes: Any) -> Run:
    return Run(
        **{"job": "j", "settings": "s", "started": 0.0, "rehearsal": True, "whole": True, **changes},
        window_ms=window_ms,
    )


def job_of(**changes: Any) -> config.Job:
    table = {"tape": "null:", "mirror": {"type": "static", "image": "/i"}, **changes}
    return config.parse({"job": {"j": table}}).job()


@settings(max_examples=60, deadline=None)
@given(st.lists(WINDOWS | st.sampled_from([1.0, 2.0]), min_size=NEEDED + 1, max_size=RECENT + 1))
def test_of_equally_likely_orders_the_bound_holds_in_at_least_its_share(windows: list[float]) -> None:
    """Any of n + 1 windows may be the one that comes last: count for how many of them the bound of the others holds."""
    held = sum(last <= bound(windows[:i] + windows[i + 1 :]) for i, last in enumerate(windows))  # type: ignore[operator]

    assert held * 100 >= LEVEL_PERCENT * len(windows)


def test_it_is_no_higher_than_its_share_needs() -> None:
    for count in range(NEEDED, RECENT + 1):
        others = [float(number) for number in range(count + 1)]
        held = sum(last <= bound(others[:i] + others[i + 1 :]) for i, last in enumerate(others))  # type: ignore[operator]
        assert (held - 1) * 100 < LEVEL_PERCENT * (count + 1)


def two_humps(rng: random.Random) -> float:
    return rng.gauss(60, 5) if rng.random() < 0.9 else rng.gauss(900, 50)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.lognormvariate(4, 0.5),
        lambda rng: rng.paretovariate(0.8),
        lambda rng: rng.expovariate(0.01),
        two_humps,
        lambda rng: float(rng.randrange(3)),
    ],
    ids=["log-normal", "pareto without a mean", "exponential", "one in ten is slow", "ties"],
)
def test_a_job_that_goes_on_for_years_exceeds_its_prediction_as_rarely_as_promised(
    draw: Callable[[random.Random], float],
) -> None:
    rng, past, held = random.Random(7), [], []
    for _ in range(4000):
        window = draw(rng)
        if (limit := bound(past[-RECENT:])) is not None:
            held.append(window <= limit)
        past.append(window)

    # three standard deviations of that many draws
    assert sum(held) / len(held) >= LEVEL_PERCENT / 100 - 3 * math.sqrt(0.05 * 0.95 / len(held))


def test_too_few_windows_promise_nothing() -> None:
    assert bound([1.0] * (NEEDED - 1)) is None
    assert bound([1.0] * NEEDED) == 1.0
    assert rank(NEEDED) == NEEDED
    assert rank(RECENT) == RECENT - 2


def test_what_counts_are_the_last_runs_with_these_settings() -> None:
    old, other = [run_of(1e6)] * 3, [run_of(1e6, settings="other"), run_of(1e6, settings="")]
    seen = forecast([*old, *other, *(run_of(float(n)) for n in range(RECENT))], "s")

    assert (seen.bound_ms, seen.runs, seen.cut) == (RECENT - 3.0, RECENT, 0)


def test_the_longer_of_a_runs_two_windows_counts() -> None:
    assert forecast([run_of(5.0, second_window_ms=80.0)] * NEEDED, "s").bound_ms == 80.0


def test_a_window_that_was_cut_short_counts_as_longer_than_any() -> None:
    cut = run_of(50.0, whole=False)

    assert forecast([*[run_of(10.0)] * (NEEDED - 1), cut], "s").bound_ms == math.inf
    assert forecast([*[run_of(10.0)] * (RECENT - 2), cut, cut], "s").bound_ms == 10.0
    assert forecast([*[run_of(10.0)] * (RECENT - 3), cut, cut, cut], "s").bound_ms == math.inf


def test_a_budget_needs_enough_runs_and_the_error_says_how_to_get_them() -> None:
    with pytest.raises(BudgetUnknown, match="are 3") as caught:
        require(job_of(window_ms=100), forecast([run_of(1.0)] * 3, "s"))

    assert caught.value.exit_code == EXIT_OPERATOR
    assert f"--rehearse --count {NEEDED - 3}" in caught.value.advice


def test_a_budget_that_the_next_window_may_exceed_is_refused() -> None:
    runs = [run_of(90.0)] * NEEDED
    require(job_of(window_ms=90), forecast(runs, "s"))

    with pytest.raises(BudgetExceeded, match="up to 90 ms"):
        require(job_of(window_ms=89), forecast(runs, "s"))
    with pytest.raises(BudgetExceeded, match=r"1 of them cut short.*longer than the watchdog"):
        require(job_of(window_ms=89), forecast([run_of(1.0, whole=False), *runs[1:]], "s"))


def test_without_a_budget_nothing_is_refused() -> None:
    require(job_of(), forecast([], "s"))


def test_what_shapes_the_window_tells_runs_apart_and_nothing_else_does() -> None:
    plain = settings_of(job_of())

    assert settings_of(job_of(order="postsplit")) != plain
    assert settings_of(job_of(quiesce=[{"type": "command", "quiesce": "true", "unquiesce": "true"}])) != plain
    assert settings_of(job_of(tape="/dev/nst0", window_ms=10, deadline_ms=20, label="A")) == plain
