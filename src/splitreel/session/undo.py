"""undo remembers how to take back what was done. It does nothing of itself."""

from collections.abc import Callable


class UndoStack:
    """Undos, run last first; those pushed as ``first`` before all others. Each runs once, whatever the others do."""

    def __init__(self) -> None:
        self._first: list[tuple[str, Callable[[], None]]] = []
        self._others: list[tuple[str, Callable[[], None]]] = []

    def push(self, name: str, undo: Callable[[], None], *, first: bool = False) -> None:
        """Remember ``undo``; ``name`` says in a report what it takes back."""
        (self._first if first else self._others).append((name, undo))

    def drop(self, name: str) -> None:
        """Forget the undos of that name: what they would take back is done with."""
        self._first = [entry for entry in self._first if entry[0] != name]
        self._others = [entry for entry in self._others if entry[0] != name]

    def run(self) -> list[tuple[str, BaseException]]:
        """Run and forget them all; returns what failed."""
        failures: list[tuple[str, BaseException]] = []
        for stack in (self._first, self._others):
            while stack:
                name, undo = stack.pop()
                try:
                    undo()
                # An interrupt must not keep the remaining undos from running.
                except (Exception, KeyboardInterrupt) as failure:
                    failures.append((name, failure))
        return failures
