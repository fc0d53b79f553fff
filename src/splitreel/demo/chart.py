"""chart draws phases and their times as bars on a terminal. It measures nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

BAR_WIDTH = 44
EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Bar:
    """A phase on a common time axis; ``held`` when all of it is time in which writers were blocked."""

    name: str
    start_s: float
    seconds: float
    held: bool = False


def _length(seconds: float, per_cell: float) -> str:
    cells = max(seconds / per_cell, 1 / 8)
    whole, rest = int(cells), round((cells - int(cells)) * 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")


def bar_chart(bars: Sequence[Bar], width: int = BAR_WIDTH) -> list[str]:
    """One line a phase: name, its time in ms, and a bar at its place on the axis of the whole session.

    Time in which writers were blocked is marked with ``◀ writers wait``.
    """
    if not bars:
        return []
    begin = min(bar.start_s for bar in bars)
    span = max(bar.start_s + bar.seconds for bar in bars) - begin
    per_cell = max(span, 1e-6) / width
    lines = []
    for bar in bars:
        indent = " " * min(width - 1, int((bar.start_s - begin) / per_cell))
        mark = "  ◀ writers wait" if bar.held else ""
        lines.append(f"{bar.name:<10} {bar.seconds * 1000:>9.1f} ms  {indent}{_length(bar.seconds, per_cell)}{mark}")
    return lines


def comparison(windows_ms: dict[str, float], width: int = BAR_WIDTH) -> list[str]:
    """One bar for each order's window, to a common scale."""
    longest = max(windows_ms.values(), default=0.0)
    per_cell = max(longest, 1e-3) / width
    return [f"{name:<14} {ms:>8.1f} ms  {_length(ms, per_cell)}" for name, ms in windows_ms.items()]
