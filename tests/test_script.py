"""A site's command: status 0 and #INFO lines alone mean success."""

import time

import pytest

from splitreel import script
from splitreel.errors import MirrorError

SH = ["/bin/sh", "-c"]


def test_info_lines_are_remarks() -> None:
    assert script.run([*SH, "echo '#INFO one'; echo '#INFO  two'"], 5, MirrorError, "x") == ["one", "two"]


@pytest.mark.parametrize("text", ["echo hello", "echo oops >&2", "echo '#ERROR no'"])
def test_any_other_line_is_a_failure(text: str) -> None:
    with pytest.raises(MirrorError, match="printed"):
        script.run([*SH, text], 5, MirrorError, "x")


def test_status_is_a_failure_and_the_output_its_reason() -> None:
    with pytest.raises(MirrorError, match="status 3: no such volume"):
        script.run([*SH, "echo no such volume; exit 3"], 5, MirrorError, "x")


def test_time_limit_kills_the_whole_group() -> None:
    since = time.monotonic()
    with pytest.raises(MirrorError, match="longer than"):
        script.run([*SH, "sleep 60 & sleep 60"], 0.2, MirrorError, "x")
    assert time.monotonic() - since < 10


def test_missing_program_is_named() -> None:
    with pytest.raises(MirrorError, match="/nonexistent"):
        script.run(["/nonexistent/x"], 1, MirrorError, "x")
    assert "/nonexistent" in script.runnable(["/nonexistent/x"])
    assert script.runnable([]) != ""
    assert script.runnable(["/bin/sh"]) == ""


def test_argv_splits_fills_in_and_finds_the_program() -> None:
    assert script.argv("sh -c 'a b' {image}", image="/dev/x y")[1:] == ["-c", "a b", "/dev/x y"]
    assert script.argv("sh")[0].startswith("/")
    assert script.argv("") == []
