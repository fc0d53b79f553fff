"""The templates of the documentation are ones that the program and the shell take."""

import re
import tomllib
from pathlib import Path

import pytest

from splitreel import config, mirror, quiesce, script
from splitreel.errors import MirrorError
from tests.support import need_programs

ROOT = Path(__file__).parent.parent
TALKING = ("symsnapvx", "symmir", "ssh", "rescan-scsi-bus.sh", "lvcreate")
SILENT = {"zfs": 0, "udevadm": 0, "lvremove": 0, "lvs": 1}  # by what they end with; `zfs list` finds nothing
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(language: str) -> list[str]:
    found = [re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S) for page in PAGES]
    return [block for page in found for block in page]


def scripts() -> dict[str, str]:
    """Path -> text of the scripts: each begins with a comment that has its path."""
    parts = [re.split(r"^# (/\S+?):?(?: .*)?$", block, flags=re.M) for block in blocks("sh")]
    return {path: text for part in parts for path, text in zip(part[1::2], part[2::2], strict=True)}


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.split("]")[0].strip("["))
def test_every_configuration_parses(block: str) -> None:
    (job,) = config.parse(tomllib.loads(block)).jobs.values()
    mirror.create(job.mirror)
    for settings in job.quiesce:
        quiesce.create(settings)


def test_every_command_has_its_script() -> None:
    """What a template runs is shown, and what is shown is run by one."""
    tables = [table for block in blocks("toml") for table in tomllib.loads(block)["job"].values()]
    words = ("split", "rejoin", "establish", "in_sync", "dirty")
    run = {table["mirror"][word].split()[0] for table in tables for word in words if word in table["mirror"]}
    assert run
    assert run == set(scripts())


@pytest.mark.parametrize("path", sorted(scripts()))
def test_every_script_keeps_the_contract(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tools that print as the vendors' do: status 0, and nothing but remarks."""
    need_programs("bash")
    for name in TALKING:
        stub(tmp_path / name, "echo done; echo warned >&2")
    for name, status in SILENT.items():
        stub(tmp_path / name, f'case "$1" in list) exit 1;; esac; exit {status}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    file = tmp_path / "script"
    file.write_text(scripts()[path])
    remarks = script.run(["/bin/bash", str(file)], 60, MirrorError, path)
    assert remarks or not any(name in file.read_text() for name in TALKING)


def stub(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_every_type_of_mirror_is_told_of() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    assert [kind for kind in mirror.TYPES if f"| `{kind}` |" not in text] == []
    assert "untested against hardware" in text
