"""The command quiescer: a site's scripts, judged by status and output."""

from pathlib import Path

import pytest

from splitreel.errors import QuiesceError, UsageError
from splitreel.quiesce import TYPES, create, keys


def quiescer_of(folder: Path, **commands: str):
    log = folder / "log"
    settings = {
        "quiesce": f"sh -c 'echo hold >> {log}; echo \"#INFO held\"'",
        "unquiesce": f"sh -c 'echo release >> {log}'",
        **commands,
    }
    return create({"type": "command", **settings}), log


def test_holds_and_lets_go_once(tmp_path: Path) -> None:
    quiescer, log = quiescer_of(tmp_path)
    quiescer.check()
    quiescer.prepare()
    quiescer.unquiesce()
    quiescer.quiesce()
    quiescer.unquiesce()
    quiescer.unquiesce()
    quiescer.close()
    assert log.read_text() == "hold\nrelease\n"
    assert quiescer.remarks == ["held"]


def test_lets_go_after_a_quiesce_that_failed_half_way(tmp_path: Path) -> None:
    quiescer, log = quiescer_of(tmp_path, quiesce=f"sh -c 'echo half >> {tmp_path}/log; exit 1'")
    with pytest.raises(QuiesceError, match="status 1"):
        quiescer.quiesce()
    quiescer.unquiesce()
    assert log.read_text() == "half\nrelease\n"


def test_output_without_the_word_is_a_failure(tmp_path: Path) -> None:
    quiescer, _ = quiescer_of(tmp_path, quiesce="echo all is well")
    with pytest.raises(QuiesceError, match="all is well"):
        quiescer.quiesce()


def test_discovers_absolute_paths_only(tmp_path: Path) -> None:
    quiescer, _ = quiescer_of(tmp_path, discover="printf '#INFO two\\n/a/b\\n/c d\\n'")
    assert quiescer.discover().files == ("/a/b", "/c d")
    quiescer, _ = quiescer_of(tmp_path, discover="echo relative")
    with pytest.raises(QuiesceError, match="not an absolute path"):
        quiescer.discover()


def test_a_command_that_cannot_run_is_refused_before_the_window(tmp_path: Path) -> None:
    quiescer, _ = quiescer_of(tmp_path, unquiesce="/nonexistent/release")
    with pytest.raises(QuiesceError, match="/nonexistent/release"):
        quiescer.check()
    quiescer, _ = quiescer_of(tmp_path, unquiesce="")
    with pytest.raises(QuiesceError, match="empty"):
        quiescer.check()


def test_the_watchdog_is_given_the_release(tmp_path: Path) -> None:
    quiescer, _ = quiescer_of(tmp_path)
    quiescer.prepare()
    (_, (kind, command)) = quiescer.releases()
    assert kind == "run"
    assert isinstance(command, tuple)
    assert command[0].startswith("/")
    quiescer.close()


def test_every_listed_kind_exists_and_an_unknown_one_is_refused() -> None:
    for kind in TYPES:
        assert keys(kind)
    with pytest.raises(UsageError, match=f"known are {', '.join(sorted(TYPES))}"):
        create({"type": "oracle"})
