"""A long proof on the embedded mirror: python -m tests.prove --seconds 3600 --fs ext4 [--files N] [--drive iscsi]

It makes the volume, fills it, runs ``splitreel prove`` on it as a user does, and takes it down again. With
``--database postgresql`` (``--mode freeze``) or ``mariadb`` a server runs on the volume, and rows are stamped there.
"""

import argparse
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from splitreel.__main__ import main
from splitreel.demo.show import tape
from splitreel.mirror.embedded import EmbeddedMirror
from tests import mariadb, postgres
from tests.support import keep_mounts_private

FILES_IN_DIRECTORY = 1000
CONFIG = """[job.proof]
tape = "{tape}"
overwrite = true
deadline_ms = 60000
mirror = {{ {mirror} }}
quiesce = [{{ {database} }}, {{ type = "fsfreeze", mount = "{mount}" }}]
"""


def format_volume(embedded: EmbeddedMirror, kind: str) -> None:
    """An empty file system of that kind on the volume."""
    if kind == "ext4":
        embedded.format()
    else:
        subprocess.run([f"mkfs.{kind}", "-q", "-f", embedded.device], check=True)


def fill(mount: Path, files: int) -> None:
    """So many small files."""
    for number in range(files):
        directory = mount / "files" / str(number // FILES_IN_DIRECTORY)
        if number % FILES_IN_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / str(number)).write_bytes(b"%d" % number * 100)


@contextlib.contextmanager
def database(kind: str, mode: str, directory: Path, mount: Path) -> Iterator[dict[str, str]]:
    """A database of that kind on the volume; yields its quiescer's settings."""
    chosen = {"mode": mode} if mode else {}
    mount.chmod(0o755)
    if kind == "postgresql":
        with postgres.running(mount / "data", directory / "run") as server:
            yield {"type": kind, "conninfo": server.conninfo, "run_as": postgres.USER, **chosen}
    elif kind == "mariadb":
        with mariadb.started(mount / "data", directory / "run") as server:
            yield {"type": kind, "socket": server.socket, **chosen}
    else:
        with contextlib.closing(sqlite3.connect(mount / "app.db")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        yield {"type": "sqlite", "database": str(mount / "app.db")}


def configure(directory: Path, embedded: EmbeddedMirror, url: str, settings: Mapping[str, str]) -> Path:
    """A configuration of one job for it."""
    path = directory / "job.toml"
    tables = {"mirror": _table(embedded.settings()), "database": _table(settings)}
    path.write_text(CONFIG.format(tape=url, mount=embedded.mount_point, **tables))
    return path


def _table(settings: Mapping[str, str]) -> str:
    return ", ".join(f'{key} = "{value}"' for key, value in settings.items())


def run(arguments: argparse.Namespace, directory: Path) -> int:
    directory.chmod(0o755)  # the database server's own user must get through
    embedded, mount = EmbeddedMirror(directory / "mirrored", arguments.size << 20), directory / "volume"
    with embedded, tape(directory, arguments.drive, 1024) as url:
        format_volume(embedded, arguments.fs)
        embedded.mount(mount)
        fill(mount, arguments.files)
        with database(arguments.database, arguments.mode, directory, mount) as settings:
            config = configure(directory, embedded, url, settings)
            scratch = ["--scratch", str(directory), "--state", str(directory / "state")]
            given = ["--seconds", str(arguments.seconds), "--writers", str(arguments.writers)]
            return main(["prove", str(config), *scratch, *given, *(["--json"] if arguments.json else [])])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--fs", choices=("ext4", "xfs"), default="ext4")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--size", type=int, default=1024, help="of the volume, in MiB")
    parser.add_argument("--drive", choices=("file", "iscsi"), default="file")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "mariadb"), default="sqlite")
    parser.add_argument("--mode", default="", help="of the database's quiescer")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scratch")
    given = parser.parse_args()
    keep_mounts_private()
    place = Path(tempfile.mkdtemp(prefix="prove.", dir=given.scratch))
    code = run(given, place)
    if code == 0:
        shutil.rmtree(place)
    sys.exit(code)
