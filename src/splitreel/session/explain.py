"""explain says what a session waits for while it waits. While a window is open it says nothing: no line, no thought.

The quiescers, mirrors and drives note what they wait for in an attribute ``waiting``, from their own thread; here
another thread reads it once a second.
"""

import threading
import time
from collections.abc import Callable

from splitreel.session.window import HUSH_SECONDS

LOOK_SECONDS = 1.0
LONGEST_SILENCE = 60.0  # what does not change is said again after 1, 2, 4... seconds, and then every minute

# What a phase waits for where none of its parts says.
PLAIN = {
    "": "the checks before anything is touched",
    "establish": "the mirror to be in sync",
    "map": "the map of every file",
    "quiesce": "the last preparations before the window",
    "unquiesce": "what the database gives only at its end",
    "check": "the map of the split mirror",
    "backup": "the tape",
    "cleanup": "the mirror to take back what changed",
}

Tell = Callable[[str, str, float], None]


class Explainer:
    """A thread that asks what is waited for and tells it; a context manager."""

    def __init__(self, ask: Callable[[], tuple[str, str]], tell: Tell, hush: threading.Lock) -> None:
        """``ask``: phase and what it waits for, "" for nothing. ``tell``: the same with the seconds since it began.

        ``hush`` is taken to speak; a window holds it while it is open.
        """
        self._ask, self._tell, self._hush = ask, tell, hush
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="splitreel-explain", daemon=True)
        self._phase, self._text, self._since, self._again = "", "", 0.0, 0.0

    def look(self, now: float) -> None:
        """Ask, and tell what changed, or what has not for long enough; ``now`` in seconds."""
        phase, text = self._ask()
        if not text:
            self._text = ""
            return
        if phase != self._phase or not self._text:
            self._phase, self._since, self._again = phase, now, LOOK_SECONDS
        elif text == self._text and now - self._since < self._again:
            return
        elif text == self._text:
            self._again += min(self._again, LONGEST_SILENCE)
        self._text = text
        self._tell(phase, text, now - self._since)

    def _work(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            if self._hush.acquire(timeout=HUSH_SECONDS):
                try:
                    self.look(time.monotonic())
                finally:
                    self._hush.release()

    def __enter__(self) -> "Explainer":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join(HUSH_SECONDS)
