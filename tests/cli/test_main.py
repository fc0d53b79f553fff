"""The command line as a whole: where options may stand, what is imported, how errors end."""

import subprocess
import sys
from pathlib import Path

import pytest

from splitreel.__main__ import main, parser
from splitreel.cli import VERB_MODULES


@pytest.mark.parametrize(
    "words",
    [
        ["--state", "DIR", "doctor"],
        ["catalog", "export", "--state", "DIR"],
        ["doctor", "--state", "DIR"],
        ["--state", "elsewhere", "doctor", "--state", "DIR"],
    ],
)
def test_the_state_directory_may_be_named_before_the_verb_or_behind_it(words: list[str]) -> None:
    """The last one counts."""
    assert parser(words).parse_args(words).state == "DIR"


def test_a_verb_named_like_a_value_does_not_hide_the_verb() -> None:
    words = ["--state", "list", "selftest"]

    assert parser(words).parse_args(words).verb == "selftest"


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Each prints its own, and ends with 0."""
    for verb in (verb for owned in VERB_MODULES.values() for verb in owned):
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])

        assert ended.value.code == 0
        assert f"splitreel {verb}" in capsys.readouterr().out


def test_without_a_verb_the_help_is_told_and_the_exit_code_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2

    told = capsys.readouterr().err
    assert all(f"    {verb} " in told for owned in VERB_MODULES.values() for verb in owned)


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["frobnicate"], "splitreel"),
        (["selftest", "--frobnicate"], "splitreel selftest"),
        (["restore", "--to"], "splitreel restore"),
        (["tape", "frobnicate"], "splitreel tape"),
    ],
)
def test_a_wrong_command_line_is_told_in_three_lines(
    words: list[str], program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the verb at hand, with the help that lists what it takes."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    told = capsys.readouterr().err.splitlines()

    assert ended.value.code == 2
    assert [line.split(":")[0].strip() for line in told] == ["splitreel", "why", "do"]
    assert (told[0], told[2]) == (f"splitreel: {program}", f"  do:  See: {program} --help")


def test_an_error_is_three_lines_and_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What, why, what to do: no traceback."""
    code = main(["map", str(tmp_path / "absent")])
    told = capsys.readouterr().err.splitlines()

    assert code == 1
    assert [line.split(":")[0].strip() for line in told] == ["splitreel", "why", "do"]


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("splitreel.cli.health.run_selftest", interrupt)

    assert main(["selftest"]) == 130
    assert capsys.readouterr().err.splitlines() == [
        "splitreel: splitreel selftest",
        "  why: interrupted",
        "  do:  Run the same command again.",
    ]


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """``splitreel ... | head -1``: quiet, and no success."""
    program = "import splitreel.__main__ as m, splitreel.cli.health as h\n" + (
        "def gone(): raise BrokenPipeError\nh.run_selftest = gone\nraise SystemExit(m.main(['selftest']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
