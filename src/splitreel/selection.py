"""selection says which paths are meant by what a user typed: paths and shell patterns. It reads nothing.

A pattern means what it matches and everything below. ``*`` and ``?`` stop at a slash, ``**`` does not; ``[...]`` is a
set of bytes. A path that is literally there is meant even when it holds such characters.
"""

import os
import re
from collections.abc import Iterable

from splitreel.errors import UsageError


def translate(pattern: bytes) -> bytes:
    """A shell pattern as a regular expression over path bytes."""
    out, i = b"", 0
    while i < len(pattern):
        char = pattern[i : i + 1]
        closing = pattern.find(b"]", i + 2) if char == b"[" else -1
        if pattern[i : i + 3] == b"**/":
            out, i = out + b"(?:.*/)?", i + 3
        elif pattern[i : i + 2] == b"**":
            out, i = out + b".*", i + 2
        elif closing > 0:
            body = pattern[i + 1 : closing].replace(b"\\", b"\\\\").replace(b"[", b"\\[")
            out += b"[" + (b"^/" + body[1:] if body[:1] in (b"!", b"^") else body) + b"]"
            i = closing + 1
        else:
            out += {b"*": b"[^/]*", b"?": b"[^/]"}.get(char) or re.escape(char)
            i += 1
    return out


class Selection:
    """Which members are wanted. Without patterns, all are; ``unmatched`` are the patterns that met nothing so far."""

    def __init__(self, patterns: Iterable[str | bytes]) -> None:
        self.patterns = [os.fsencode(pattern).strip(b"/").removeprefix(b"./") for pattern in patterns]
        self.unmatched = {pattern for pattern in self.patterns if pattern}
        self.everything = not self.patterns or b"" in self.patterns
        try:
            self._rules = [
                (p, re.compile(b"(?:" + re.escape(p) + b"|" + translate(p) + b")(?:/.*)?", re.DOTALL))
                for p in self.patterns
            ]
        except re.error as error:
            raise UsageError("pattern", f"{error}", "Write a set as [abc], a literal bracket as [[].") from error

    def __call__(self, path: bytes) -> bool:
        """True when ``path`` is wanted."""
        if self.everything:
            return True
        hit = False
        for pattern, rule in self._rules:
            if rule.fullmatch(path):
                self.unmatched.discard(pattern)
                hit = True
        return hit
