"""Bars stand at their time, long as their time."""

from splitreel.demo.chart import Bar, bar_chart, comparison


def test_bars_are_to_scale_on_one_axis() -> None:
    lines = bar_chart([Bar("map", 10.0, 1.0), Bar("split", 11.0, 0.5, held=True), Bar("backup", 11.5, 2.5)], width=40)

    assert [line.count("█") for line in lines] == [10, 5, 25]
    assert lines[1].split("ms  ")[1].index("█") == 10
    assert [("writers wait" in line) for line in lines] == [False, True, False]
    assert "1000.0 ms" in lines[0]


def test_the_shortest_phase_still_shows() -> None:
    lines = bar_chart([Bar("a", 0, 100), Bar("b", 100, 0.0)])

    assert lines[1].split("ms")[1].strip()


def test_no_phases_no_lines() -> None:
    assert bar_chart([]) == []


def test_windows_are_compared_to_one_scale() -> None:
    lines = comparison({"premapped": 25.0, "conventional": 100.0}, width=40)

    assert [line.count("█") for line in lines] == [10, 40]
