"""The README's commands are ones that the program takes."""

import re
import shlex
from pathlib import Path

import pytest

from splitreel.__main__ import parser

README = Path(__file__).parent.parent / "README.md"


def commands() -> list[list[str]]:
    """The lines of the README's shell blocks that call the program, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["splitreel"]]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_of_the_readme_parses(words: list[str]) -> None:
    assert parser(words).parse_args(words).verb == words[0]


def test_the_readme_shows_the_main_verbs() -> None:
    shown = {words[0] for words in commands()}

    assert {"map", "cat", "plan", "backup", "verify", "list", "restore", "doctor", "resume"} <= shown
