"""lvmtext parses LVM2's text metadata into dictionaries. It knows no keyword of it.

Source: the grammar at the head of libdm/libdm-config.c: sections in braces, assignments, numbers, strings, arrays.
"""

import re
from collections.abc import Iterator

from splitreel.errors import Corrupt

Value = int | str | list[int | str]
Section = dict[str, "Value | Section"]

LARGEST_TEXT = 16 << 20  # bytes; 5000 logical volumes of ten segments each take a quarter of it
DEEPEST = 8  # sections in sections; LVM writes 4
_SPACE = r"(?:[ \t\r\n\0]+|#[^\n]*)*"
_TOKEN = re.compile(_SPACE + r'(?:("(?:[^"\\]|\\.)*")|([{}\[\]=,])|([^ \t\r\n\0{}\[\]=,"#]+)|\Z)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")


def parse(text: bytes, what: str) -> Section:
    """The outermost section; ``what`` is named when the text breaks the grammar.

    Raises:
        Corrupt: it breaks the grammar or a limit, or names a thing twice.
    """
    if len(text) > LARGEST_TEXT:
        raise Corrupt(what, f"metadata of {len(text)} bytes, more than any volume group needs")
    return _Parser(text.decode("utf-8", "surrogateescape"), what).sections()


class _Parser:
    """Assignments and sections by a stack of open sections: a hostile text cannot exhaust Python's own."""

    def __init__(self, text: str, what: str) -> None:
        self._text = text
        self._what = what
        self._at = 0
        self._tokens = self._scan()

    def _scan(self) -> Iterator[tuple[str, str]]:
        """(kind, text): kind is " for a string, w for a word, the mark itself, or "" at the end."""
        while True:
            found = _TOKEN.match(self._text, self._at)
            if found is None:
                raise self._bad("a character that begins nothing")
            self._at = found.end()
            string, mark, word = found.groups()
            if string is not None:
                yield '"', _ESCAPED.sub(r"\1", string[1:-1])
            elif word is not None:
                yield "w", word
            else:
                yield mark or "", mark or ""

    def _bad(self, why: str) -> Corrupt:
        line = self._text.count("\n", 0, self._at) + 1
        return Corrupt(self._what, f"its metadata break the grammar in line {line}: {why}")

    def sections(self) -> Section:
        top: Section = {}
        open_sections = [top]
        for kind, text in self._tokens:
            if kind == "":
                break
            if kind == "}":
                open_sections.pop()
                if not open_sections:
                    raise self._bad("a section ends that did not begin")
                continue
            if kind not in ('"', "w"):
                raise self._bad(f"{text!r} where a name was expected")
            self._statement(text, open_sections)
        if len(open_sections) > 1:
            raise self._bad("it ends within a section")
        return top

    def _statement(self, name: str, open_sections: list[Section]) -> None:
        inside = open_sections[-1]
        if name in inside:
            raise self._bad(f"{name} stands there twice")
        kind, text = next(self._tokens)
        if kind == "=":
            inside[name] = self._value()
        elif kind == "{":
            if len(open_sections) > DEEPEST:
                raise self._bad("sections are nested too deep")
            section: Section = {}
            inside[name] = section
            open_sections.append(section)
        else:
            raise self._bad(f"{text!r} behind {name}")

    def _value(self) -> Value:
        kind, text = next(self._tokens)
        return self._array() if kind == "[" else self._scalar(kind, text)

    def _scalar(self, kind: str, text: str) -> int | str:
        if kind == "w" and _NUMBER.fullmatch(text):
            return int(text)
        if kind in ('"', "w"):
            return text
        raise self._bad(f"{text!r} where a value was expected")

    def _array(self) -> list[int | str]:
        values: list[int | str] = []
        for kind, text in self._tokens:
            if kind == "]":
                return values
            if kind != ",":
                values.append(self._scalar(kind, text))
        raise self._bad("it ends within an array")


def section(inside: Section, name: str, what: str) -> Section:
    """A section of that name. Raises Corrupt: there is none."""
    found = inside.get(name)
    if not isinstance(found, dict):
        raise Corrupt(what, f"its metadata have no section {name}")
    return found


def sections(inside: Section) -> Iterator[tuple[str, Section]]:
    """All sections inside one."""
    return ((name, value) for name, value in inside.items() if isinstance(value, dict))


def number(inside: Section, name: str, what: str, least: int = 0) -> int:
    """A number, at least ``least`` and below 2^63. Raises Corrupt: there is none such."""
    found = inside.get(name)
    if not isinstance(found, int) or not least <= found < 1 << 63:
        raise Corrupt(what, f"its metadata say {name} = {found!r}")
    return found


def text(inside: Section, name: str, what: str) -> str:
    """A string. Raises Corrupt: there is none."""
    found = inside.get(name)
    if not isinstance(found, str):
        raise Corrupt(what, f"its metadata say {name} = {found!r}")
    return found


def texts(inside: Section, name: str) -> list[str]:
    """The strings of an array, or a single one; none when it is absent."""
    found = inside.get(name, [])
    values = found if isinstance(found, list) else [found]
    return [value for value in values if isinstance(value, str)]
