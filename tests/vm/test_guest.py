"""What the tests in the virtual machine say, file by file; one boot for all files that are selected."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..support import missing
from . import testrun
from .kernel import Missing
from .machine import GuestError

GUEST = Path(__file__).with_name("guest")
FILES = sorted(path.name for path in GUEST.glob("test_*.py"))
LIMIT_SECONDS = 1500


@dataclass(frozen=True)
class Boot:
    """What one boot left: results, the console, and why it ended early, or ""."""

    results: list[testrun.Result]
    console: list[str]
    failure: str


@pytest.fixture(scope="module")
def boot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boot]:
    """The selected files run in one boot, in the order of their names."""
    items = [
        item for item in request.session.items if item.path == Path(__file__) and isinstance(item, pytest.Function)
    ]
    files = [str(item.callspec.params["file"]) for item in items if hasattr(item, "callspec")]
    folder = tmp_path_factory.mktemp("vm")
    failure = ""
    try:
        with testrun.machine(folder, ["-q", *(str(GUEST / file) for file in sorted(files))]) as guest:
            try:
                guest.wait(LIMIT_SECONDS)
            except GuestError as error:
                failure = str(error)
    except Missing as error:
        missing(str(error))
    yield Boot(testrun.results(folder), guest.console, failure)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECONDS + 120)
@pytest.mark.parametrize("file", FILES)
def test_in_guest(file: str, boot: Boot) -> None:
    """Every test of the file passed in the guest; a failed one is told in full, with the guest's console."""
    results = [result for result in boot.results if result.file == file]
    failed = [result for result in results if result.outcome == "failed"]
    skipped = [result for result in results if result.outcome == "skipped"]
    for result in results:
        print(f"{result.outcome} {result.name} ({result.seconds:.1f} s)")
    if failed or not results or boot.failure:
        console = "\n".join(boot.console[-testrun.CONSOLE_LINES :])
        told = "\n\n".join(f"--- {result.name} ---\n{result.text}" for result in failed)
        why = boot.failure or ("" if results else "the guest told nothing of this file")
        pytest.fail(f"{file} in the guest: {why}\n{told}\n--- console ---\n{console}", pytrace=False)
    if skipped:
        pytest.skip("; ".join(f"{result.name}: {result.text}" for result in skipped))
