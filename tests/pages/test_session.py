"""A whole session of a live PostgreSQL: it checks the pages of what it discovered without being asked to."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitreel import errors
from splitreel.__main__ import main
from tests import postgres
from tests.volumes import ext4_volume

pytestmark = pytest.mark.root

PAGE = 8192
JOB = """
[job.nightly]
tape = "file:{folder}/tape"
mount = "{mount}"
overwrite = true
deadline_ms = 60000
[job.nightly.mirror]
type = "command"
image = "{folder}/copy"
split = ["cp", "--sparse=always", "{folder}/volume.img", "{folder}/copy"]
rejoin = ["true"]
split_timeout_s = 50
[[job.nightly.quiesce]]
type = "postgresql"
conninfo = "{conninfo}"
mode = "{mode}"
run_as = "postgres"
[[job.nightly.quiesce]]
type = "fsfreeze"
mount = "{mount}"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that the system user postgres can reach; pytest's own are closed to it."""
    made = Path(tempfile.mkdtemp(prefix="splitreel-test-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("mode", ["hot-backup", "freeze"])
def test_a_session_finds_an_old_damage(folder: Path, capfd: pytest.CaptureFixture[str], mode: str) -> None:
    """A bit that rotted on the primary under the running server; before that, the same session finds nothing."""
    with ext4_volume(folder, 256 << 20) as mount:
        mount.chmod(0o755)
        with postgres.running(mount / "pgdata", folder / "run") as server:
            server.query("create table rows (n int primary key, x text)")
            server.query("insert into rows select g, repeat('v', 200) from generate_series(1, 20000) g")
            server.query("vacuum rows")
            server.query("checkpoint")
            job = folder / "job.toml"
            job.write_text(JOB.format(folder=folder, mount=mount, conninfo=server.conninfo, mode=mode))
            relation = mount / "pgdata" / server.query("select pg_relation_filepath('rows')")
            command = ["backup", str(job), "--state", str(folder / "state"), "--json"]

            assert main(command) == errors.EXIT_DONE
            sound = json.loads(capfd.readouterr().out.splitlines()[-1])
            with relation.open("r+b") as file:
                file.seek(3 * PAGE + 5000)
                byte = file.read(1)[0]
                file.seek(3 * PAGE + 5000)
                file.write(bytes([byte ^ 16]))
            assert main(command) == errors.EXIT_DATA
            *_, page, last = map(json.loads, capfd.readouterr().out.splitlines())

    assert sound["pages"]["damaged"] == 0
    assert sound["pages"]["pages"] > 3000
    assert last["pages"]["damaged"] == 1
    assert last["state"] == "complete"
    assert page["path"] == str(relation.relative_to(mount))
    assert (page["page"], page["why"]) == (3, "its checksum does not match")
