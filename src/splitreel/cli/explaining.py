"""explaining prints what a session waits for, and what happened in its window once it is closed. It asks nothing."""

from collections.abc import Mapping
from typing import Any

from splitreel.cli import output


def tell(event: Mapping[str, Any]) -> None:
    """Print a session's event to standard error when it explains something."""
    for line in lines(event):
        output.note(line)


def lines(event: Mapping[str, Any]) -> list[str]:
    """The lines of an event that explains; none of any other."""
    if event.get("event") == "waiting":
        since = f" (since {event['seconds']:.0f} s)" if event["seconds"] >= 1 else ""
        return [f"{event['phase'] or 'before':<10} waits for: {event['text']}{since}"]
    if event.get("event") == "window":
        stages = [f"  at {stage['at_ms']:9.1f} ms  {stage['ms']:9.1f} ms  {stage['name']}" for stage in event["stages"]]
        return [f"window     {event['window_ms']:.1f} ms:", *stages]
    return []
