"""Data directories of real servers on ext4: the stream finds what pg_checksums and innochecksum find, page by page."""

import json
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from splitreel import errors, pages
from splitreel.__main__ import main
from splitreel.backup import Options, Result, TapeBackup
from splitreel.backup.resume import ResumedBackup
from splitreel.catalog import Catalog
from splitreel.core.device import BlockDevice
from splitreel.core.extent import ExtentMap
from splitreel.mapping import map_device
from tests import mariadb, postgres
from tests.support import need_programs, need_root

pytestmark = pytest.mark.root

PAGE = 8192
IMAGE_SIZE = "512M"
RELATION = re.compile(r"\d+(_fsm|_vm|_init)?(\.\d+)?")
FORMATS = {"rows": "", "zip": "row_format=compressed key_block_size=4", "page": "page_compressed=1"}
DOUBLEWRITE = range(64, 192)  # of ibdata1: copies of other pages
Places = set[tuple[str, int]]  # path inside the image, number of a page in its file


def fill_postgresql(root: Path, folder: Path) -> None:
    """A cluster with rows, indexes, a tablespace and an unlogged table; shut down, as pg_checksums wants it."""
    (root / "ts").mkdir()
    shutil.chown(root / "ts", postgres.USER, postgres.USER)
    with postgres.running(root / "pgdata", folder / "run") as server:
        server.query(f"create tablespace far location '{root}/ts'")
        server.query("create table near (n int primary key, x text)")
        server.query("insert into near select g, repeat('v', g % 300) from generate_series(1, 20000) g")
        server.query("create table far (n int primary key, x text) tablespace far")
        server.query("insert into far select n, x from near limit 5000")
        server.query("create unlogged table lost (n int primary key)")
        server.query("insert into lost select generate_series(1, 500)")
        server.query("vacuum analyze")
        postgres.run(server.bin / "pg_ctl", "-w", "-m", "fast", "-D", server.data, "stop")
        server.start()
        server.query("checkpoint")
        shutil.copytree(server.data, root / "running", symlinks=True)
        postgres.run(server.bin / "pg_ctl", "-w", "-m", "fast", "-D", server.data, "stop")
        server.stop = lambda: None  # type: ignore[method-assign]


def fill_mariadb(root: Path, folder: Path, name: str, *options: str) -> None:
    """Tables of each format that has checksums of its own, and a spatial index; shut down."""
    with mariadb.started(root / name, folder / f"{name}.run", *options) as server:
        server.query("create database shop")
        rows = "select seq, repeat(char(65 + seq % 26), seq % 200) from seq_1_to_4000"
        for table, kind in FORMATS.items():
            columns = "(n int primary key, x varchar(200), key (x)) engine=innodb"
            server.query(f"use shop; create table `{table}` {columns} {kind}; insert into `{table}` {rows}")
        columns = "(n int primary key, p geometry not null, spatial index (p)) engine=innodb"
        rows = "select seq, point(seq, seq % 77) from seq_1_to_2000"
        server.query(f"use shop; create table places {columns}; insert into places {rows}")


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A tree with a PostgreSQL cluster and two MariaDB data directories, one in each family of formats."""
    need_root()
    need_programs("mkfs.ext4", "innochecksum")
    folder = Path(tempfile.mkdtemp(prefix="splitreel-test-", dir="/tmp"))  # pytest's own are closed to the servers
    folder.chmod(0o755)
    made = folder / "root"
    made.mkdir(mode=0o755)
    fill_postgresql(made, folder)
    fill_mariadb(made, folder, "full")
    fill_mariadb(made, folder, "plain", "--innodb-checksum-algorithm=crc32", "--innodb-page-size=8k")
    yield made
    shutil.rmtree(folder)


def make_image(root: Path, image: Path) -> Path:
    image.unlink(missing_ok=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, image, IMAGE_SIZE], check=True)
    return image


@dataclass
class Image:
    path: Path
    map: ExtentMap
    device: BlockDevice

    def databases(self, *words: str) -> list[pages.Database]:
        return pages.from_words(words, self.map, self.device)


@pytest.fixture(scope="module")
def sound(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    path = make_image(root, tmp_path_factory.mktemp("sound") / "image")
    with BlockDevice(path) as device:
        yield Image(path, map_device(device), device)
    path.unlink()


def back_up(image: Path, tape: str, words: tuple[str, ...] = ("auto",), **options: Any) -> Result:
    """A backup of an image with page checks."""
    with BlockDevice(image) as device:
        found = map_device(device)
        checks = pages.checks_of(found, pages.from_words(words, found, device))
        with TapeBackup(Options(tape, **options), None) as made:
            made.check()
            return made.run(device, found, checks=checks)


def relations(root: Path) -> list[Path]:
    """The files below a tree that pg_checksums scans: of the cluster in it and of its tablespace."""
    below = (path for part in ("pgdata/base", "pgdata/global", "ts") for path in (root / part).rglob("*"))
    return [path for path in below if RELATION.fullmatch(path.name) and path.is_file()]


# Sound data.


def test_a_sound_cluster_is_sound_to_the_last_block(root: Path, sound: Image) -> None:
    """As many blocks as pg_checksums scans: unlogged relations too, since no recovery is to come."""
    said = subprocess.run(
        [postgres.binaries() / "pg_checksums", "--check", "-D", root / "pgdata"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {key: int(re.search(rf"{key} scanned: +(\d+)", said)[1]) for key in ("Files", "Blocks")}  # type: ignore[index]
    result = back_up(sound.path, "null:", ("postgresql:pgdata",))

    assert result.pages["damaged"] == result.pages["unchecked"] == result.pages["repaired"] == 0
    assert result.pages["pages"] == found["Blocks"] > 3000
    holding = {path for path in relations(root) if path.stat().st_size > 0}
    assert result.pages["files"] == len(holding)
    assert result.sound


def test_sound_tablespaces_are_sound(root: Path, sound: Image) -> None:
    """Every page of both servers; without a checksum are only page_compressed ones of the older format."""
    for name, size in (("full", 16384), ("plain", 8192)):
        result = back_up(sound.path, "null:", (f"innodb:{name}",))
        files = [path for path in (root / name).rglob("*") if re.fullmatch(r"ibdata1|undo\d+|.*\.ibd", path.name)]

        assert result.pages["damaged"] == 0
        assert result.pages["files"] == len(files)
        assert result.pages["pages"] == sum(
            path.stat().st_size // (4096 if path.name == "zip.ibd" else size) for path in files
        )
        assert (result.pages["unchecked"] > 50) == (name == "plain")


def test_what_a_cluster_says_of_itself(root: Path, sound: Image) -> None:
    """Against pg_controldata; the copy of a running server recovers from its checkpoint on, one shut down does not."""
    databases = {database.data: database for database in sound.databases("auto")}
    assert set(databases) == {b"pgdata", b"running", b"full", b"plain"}
    said = subprocess.run(
        [postgres.binaries() / "pg_controldata", "-D", root / "running"], capture_output=True, text=True, check=True
    ).stdout

    def field(name: str) -> str:
        return re.search(rf"^{name}: +(\S+)$", said, re.MULTILINE)[1]  # type: ignore[index]

    running = databases[b"running"]
    assert running.start_lsn == pages.postgresql.lsn(field("Latest checkpoint's REDO location"))
    assert running.version_folder == f"PG_15_{field('Catalog version number')}".encode()
    assert running.segment_pages == int(field("Blocks per segment of large relation"))
    assert running.page_size == int(field("Database block size"))
    assert running.checksums
    assert databases[b"pgdata"].start_lsn == 0
    assert databases[b"full"].page_size == 16384
    assert databases[b"plain"].page_size == 8192


def test_unlogged_relations_are_left_to_recovery(root: Path, sound: Image) -> None:
    """Of a running server's copy their pages may be anything; the _init forks, from which they are made anew, count."""
    chosen = {}
    for data in (b"pgdata", b"running"):
        (database,) = sound.databases(f"postgresql:{data.decode()}")
        indexes = pages.postgresql.files(sound.map, database).files
        names = {int(file): sound.map.path_of(i) for i, file in enumerate(np.asarray(sound.map.names)["file"])}
        chosen[data] = {names[int(index)].split(b"/", 1)[1] for index in indexes if names[int(index)].startswith(data)}
    logged = {path for path in chosen[b"pgdata"] if path + b"_init" not in chosen[b"pgdata"]}
    forks = {path for path in logged if path.rpartition(b"_")[0] + b"_init" in logged and not path.endswith(b"_init")}

    assert chosen[b"running"] == logged - forks
    assert len(chosen[b"pgdata"]) - len(chosen[b"running"]) >= 2


# Injured data.


def injure(root: Path, files: list[Path], count: int, random: Random, page: int) -> None:
    """Change bits anywhere in these files but in their first page, which says what the others are."""
    for _ in range(count):
        path = random.choice(files)
        with path.open("r+b") as file:
            at = random.randrange(page, path.stat().st_size)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << random.randrange(8)]))


def found_places(result: Result, page: int) -> Places:
    sizes = {"zip.ibd": 4096}
    return {
        (one.path.decode(), one.offset // sizes.get(Path(one.path.decode()).name, page)) for one in result.damaged_pages
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_an_injured_cluster_as_pg_checksums_sees_it(root: Path, tmp_path: Path, seed: int) -> None:
    """Page for page. It passes over pages with pd_upper 0, which the server refuses unless they are all zeros."""
    copy = tmp_path / "root"
    shutil.copytree(root / "pgdata", copy / "pgdata", symlinks=True)
    shutil.copytree(root / "ts", copy / "ts")
    for link in (copy / "pgdata/pg_tblspc").iterdir():
        link.unlink()
        link.symlink_to(copy / "ts")
    large = [path for path in relations(copy) if path.stat().st_size > 2 * PAGE]
    injure(copy, large, 60, Random(seed), PAGE)
    said = subprocess.run(
        [postgres.binaries() / "pg_checksums", "--check", "-D", copy / "pgdata"],
        capture_output=True,
        text=True,
        check=False,
    )
    pattern = r'verification failed in file "([^"]+)", block (\d+):'
    theirs = {(str(Path(path).resolve().relative_to(copy)), int(n)) for path, n in re.findall(pattern, said.stderr)}
    result = back_up(make_image(copy, tmp_path / "image"), "null:", ("postgresql:/pgdata/",))
    ours = found_places(result, PAGE)

    assert len(theirs) > 40
    assert theirs <= ours
    assert all(struct.unpack_from("<H", page_of(copy, *place), 14)[0] == 0 for place in ours - theirs)
    assert result.pages["damaged"] == len(result.damaged_pages) == len(ours)


def page_of(root: Path, path: str, number: int) -> bytes:
    return (root / path).read_bytes()[number * PAGE : (number + 1) * PAGE]


@pytest.mark.parametrize(("name", "size"), [("full", 16384), ("plain", 8192)])
def test_injured_tablespaces_as_innochecksum_sees_them(root: Path, tmp_path: Path, name: str, size: int) -> None:
    """Page for page; it passes over what is changed in pages that were all zeros, and the server does not.

    A compressed table whose first page is damaged has pages of a size that nobody knows: all of it is damaged then.
    """
    copy = tmp_path / "root"
    shutil.copytree(root / name, copy / name)
    files = sorted(path for path in (copy / name).rglob("*.ibd") if path.stat().st_size > 8 * size)
    injure(copy, [*files, copy / name / "ibdata1"], 60, Random(name), size)
    theirs: Places = set()
    for path in [*files, copy / name / "ibdata1"]:
        said = subprocess.run(["innochecksum", "-a", "100000", path], capture_output=True, text=True, check=False)
        numbers = [int(n) for n in re.findall(r"page::(\d+) invalid", said.stdout + said.stderr)]
        skipped = DOUBLEWRITE if size == 16384 else range(128, 384)
        theirs |= {(str(path.relative_to(copy)), n) for n in numbers if path.name != "ibdata1" or n not in skipped}
    result = back_up(make_image(copy, tmp_path / "image"), "null:", (f"innodb:{name}",))
    ours = found_places(result, size)

    assert len(theirs) > 25
    assert theirs <= ours
    for path, number in ours - theirs:
        if path.endswith("zip.ibd") and (path, 0) in ours:
            continue
        at = number * (4096 if path.endswith("zip.ibd") else size)
        assert not any((root / path).read_bytes()[at : at + size])


# What is said of it, and where it is kept.


@pytest.fixture(scope="module")
def injured(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bytes, str]]:
    """An image with one damaged page in a relation: image, the relation's content, its path."""
    folder = tmp_path_factory.mktemp("injured")
    shutil.copytree(root / "pgdata", folder / "root/pgdata", symlinks=True)
    largest = max(relations(folder / "root"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[5 * PAGE + 100] ^= 4
    largest.write_bytes(data)
    yield make_image(folder / "root", folder / "image"), bytes(data), str(largest.relative_to(folder / "root"))
    shutil.rmtree(folder)


def test_damage_ends_with_3_and_the_tape_keeps_the_bytes(
    injured: tuple[Path, bytes, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Told with file and page, in JSON too; restored and verified the file is as it was on the mirror."""
    image, data, path = injured
    where = ["--tape", f"file:{tmp_path}/tape", "--state", str(tmp_path / "state")]
    assert main(["backup", "--device", str(image), *where, "--check-pages", "auto", "--json"]) == errors.EXIT_DATA
    *_, page, last = map(json.loads, capfd.readouterr().out.splitlines())

    assert page == {
        "kind": "page",
        "path": path,
        "page": 5,
        "offset": 5 * PAGE,
        "why": "its checksum does not match",
    }
    assert last["state"] == "complete"
    assert last["pages"]["damaged"] == 1
    assert main(["verify", *where]) == errors.EXIT_DONE
    assert main(["restore", *where, "--to", str(tmp_path / "back"), path]) == errors.EXIT_DONE
    assert (tmp_path / "back" / path).read_bytes() == data
    capfd.readouterr()
    assert main(["backup", "--device", str(image), "--tape", "null:", "--check-pages", "postgresql:pgdata"]) == 3
    out, err = capfd.readouterr()
    assert f"damaged page: {path}: page 5, at byte 40960: its checksum does not match" in err
    assert re.search(r"\d+ database pages in \d+ files: 1 damaged, 0 without a checksum", out)
    assert main(["backup", "--device", str(image), "--tape", "null:"]) == errors.EXIT_DONE


def test_the_catalogs_say_what_was_damaged(injured: tuple[Path, bytes, str], tmp_path: Path) -> None:
    """The local one, the tape's own, and one rebuilt from that."""
    image, _, path = injured
    tape = f"file:{tmp_path}/tape"
    exported = []
    for name in ("state", "rebuilt"):
        state = ["--state", str(tmp_path / name)]
        if name == "state":
            assert main(["backup", "--device", str(image), "--tape", tape, *state, "--check-pages", "auto"]) == 3
        else:
            assert main(["catalog", "rebuild", "--tape", tape, *state]) == 0
        with Catalog(tmp_path / name) as catalog:
            backup = catalog.backup()
            exported.append(list(catalog.export(backup)))
            row, _, _ = catalog.volume(backup.id)
            damaged = {member.path: member.damaged_pages for member in catalog.members(row) if member.damaged_pages}
            counts = catalog.page_checks(row)

        assert damaged == {path.encode(): ((5, 5 * PAGE, PAGE, "its checksum does not match"),)}
        assert counts["damaged"] == 1
        assert counts["pages"] > 1000
    assert exported[0] == exported[1]
    assert json.loads(exported[0][0])["pages"] == counts


def test_a_backup_gone_on_with_misses_nothing(
    injured: tuple[Path, bytes, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at every confirmed segment: what was found before and after is told, each page once."""
    image, data, path = injured
    assert len(data) > 20 * 65536
    options = Options(f"file:{tmp_path}/tape", block_size=4096, segment_size=512 << 10, sync_segments=1, overwrite=True)
    with BlockDevice(image) as device:
        found = map_device(device)
        databases = pages.from_words(("auto",), found, device)
        whole = None
        for stop in (3, 11, 40):
            with TapeBackup(options, tmp_path) as made:
                made.check()

                def confirmed(facts: Any, last: int = stop) -> None:
                    if facts["segment"] >= last:
                        raise KeyboardInterrupt

                with pytest.raises(KeyboardInterrupt):
                    made.run(device, found, confirmed=confirmed, checks=pages.checks_of(found, databases))
                assert made.result is not None
                identity = made.result.id
            with ResumedBackup(options, tmp_path) as again:
                assert again.find(identity) >= stop
                result = again.resume(device, found, (), checks=pages.checks_of(found, databases))
            whole = whole or result
            assert [(one.path.decode(), one.offset) for one in result.damaged_pages] == [(path, 5 * PAGE)]
            assert result.pages["unchecked"] == 0
            assert result.complete and not result.sound


# From a session.


def session(root: str, *databases: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "volumes": [{"name": "", "mount": root, "prefix": ""}], "databases": list(databases)}


def test_a_session_says_which_databases_there_are(sound: Image) -> None:
    """Paths of the primary become paths of the image; what cannot be understood is no reason to fail."""
    notes: list[str] = []
    found = pages.from_session(
        session(
            "/mnt",
            {"engine": "postgresql", "data": "/mnt/running", "start_lsn": "0/10", "stop_lsn": "1/0"},
            {"engine": "mariadb", "data": "/mnt/full", "innodb_checksum_algorithm": "strict_full_crc32"},
            {"engine": "mysql", "data": "/mnt/plain"},
            {"engine": "postgresql", "data": "/elsewhere"},
            {"engine": "postgresql", "data": "/mnt/full"},
            {"engine": "sqlite", "data": "/mnt/full/file"},
        ),
        sound.map,
        sound.device,
        notes.append,
    )

    assert [(database.engine, database.data) for database in found] == [
        ("postgresql", b"running"),
        ("innodb", b"full"),
        ("innodb", b"plain"),
    ]
    assert (found[0].start_lsn, found[0].end_lsn) == (0x10, 1 << 32)
    assert [database.strict for database in found[1:]] == [True, False]
    assert len(notes) == 1
    assert "/mnt/full are not checked" in notes[0]
    assert pages.from_session(None, sound.map, sound.device, notes.append) == []
    assert pages.checks_of(sound.map, []) is None


def test_words_that_name_nothing_are_refused(sound: Image) -> None:
    for word, error in (("x", errors.UsageError), ("oracle:/x", errors.UsageError), ("innodb:/x", errors.NotFound)):
        with pytest.raises(error):
            sound.databases(word)
    assert len(sound.databases("auto", "postgresql:/pgdata/", "innodb:full")) == 4
