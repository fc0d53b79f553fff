"""A MariaDB server's data on tape, held by its own locks, become a data directory that starts and drills."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splitreel import errors
from splitreel.__main__ import main
from splitreel.quiesce.mariadb import Mariadb
from splitreel.recovery import Layout, Owner, create, mariadbserver
from splitreel.recovery.mariadb import MariadbRecovery
from tests.mariadb import USER, Server, fill, started, wait_until
from tests.recovery.parts import names, session_json, split, to_tape
from tests.support import need_root
from tests.volumes import ext4_volume

pytestmark = pytest.mark.root

ELSEWHERE = ("redo", "undo", "aria", "ibd", "bin", "aside")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that the system user mysql can reach; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="splitreel-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def on_tape(
    folder: Path, *options: str, before: Callable[[Server, Path], object] = lambda *_: None
) -> tuple[str, dict[str, Any]]:
    """A tape with a server's volume, split under its lock; the facts that stand in its session.json."""
    with ext4_volume(folder, 400 << 20) as mount:
        for name in ELSEWHERE:
            (mount / name).mkdir()
            shutil.chown(mount / name, USER, USER)
        at = [option.format(mount=mount) for option in options]
        with started(mount / "data", folder / "run", *at) as server:
            fill(server)
            before(server, mount)
            quiescer = Mariadb(socket=server.socket)
            quiescer.prepare()
            quiescer.quiesce()
            facts = {**quiescer.discover().facts, "name": "shop"}
            split(mount, folder / "volume.img", folder / "split.img")
            quiescer.unquiesce()
            quiescer.redo()
            quiescer.close()
            server.query("insert into shop.marker values (99)")
        url = to_tape(folder / "split.img", folder / "tape", {"session.json": session_json(mount, facts)})
    for name in ("volume.img", "split.img"):
        (folder / name).unlink()
    return url, facts


def restored(*arguments: object) -> int:
    return main(["restore", *map(str, arguments)])


def sayings(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return {line["kind"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}


def test_what_is_laid_out_drills_and_starts(open_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recovered to the lock, MyISAM whole, the binary log's place as the facts have it."""

    def before(server: Server, _: Path) -> None:
        server.query("insert into shop.marker values (1), (2); insert into shop.isam values (1, 'x')")

    url, facts = on_tape(open_path, "--log-bin=binlog", "--server-id=3", before=before)
    target = open_path / "restored"

    assert restored("--database", target, "--drill", "--tape", url, "--json") == errors.EXIT_DONE

    said = sayings(capsys)
    assert (said["database"]["engine"], said["database"]["data"]) == ("mariadb", f"{target}/data")
    assert said["database"]["owner"] == USER
    assert (said["drill"]["ok"], [check["name"] for check in said["drill"]["checks"]]) == (True, ["mariadb-check"])
    assert said["drill"]["version"] == facts["version"]
    assert names(target) == ["data", "my.cnf"]
    with started(target / "data", open_path / "run2", "--log-bin=binlog", new=False) as server:
        assert server.query("select group_concat(n order by n) from shop.marker") == "1,2"
        assert server.query("select count(*) from shop.isam") == "1"
        first = facts["binlog"]["file"]
        assert server.query("show binary logs").split()[0] == first
        # the copy of that file ends where the facts say: nothing was committed after
        assert (target / "data" / first).stat().st_size == facts["binlog"]["position"]


def test_what_stood_elsewhere_comes_along_and_the_option_file_names_it(
    open_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def before(server: Server, mount: Path) -> None:
        server.query(
            f"create table shop.far (n int) engine=innodb data directory='{mount}/aside';"
            f"create table shop.far_isam (n int) engine=myisam data directory='{mount}/aside';"
            "insert into shop.far values (7); insert into shop.far_isam values (8);"
            "flush tables shop.far for export; unlock tables; flush binary logs"
        )

    url, _ = on_tape(
        open_path,
        *("--innodb-log-group-home-dir={mount}/redo", "--innodb-undo-directory={mount}/undo"),
        *("--aria-log-dir-path={mount}/aria", "--innodb-data-home-dir={mount}/ibd"),
        *("--log-bin={mount}/bin/log", "--innodb-undo-tablespaces=2", "--server-id=1"),
        before=before,
    )
    target = open_path / "restored"

    assert restored("--database", target, "--drill", "--tape", url, "--json") == errors.EXIT_DONE

    said = sayings(capsys)
    assert any(str(target / "my.cnf") in note for note in said["database"]["notes"])
    whole = ["aria_log_dir_path", "data", "innodb_data", "innodb_log_group_home_dir", "innodb_undo_directory"]
    assert names(target) == [*whole, "log_bin", "my.cnf"]
    assert not (target / "data/shop/far_isam.MYD").is_symlink()
    with started(target / "data", open_path / "run2", new=False, file=target / "my.cnf") as server:
        assert server.query("select n from shop.far union all select n from shop.far_isam") == "7\n8"
        assert len(server.query("show binary logs").splitlines()) == 4  # two, the drill's, and this server's
        assert server.query("select @@log_bin_basename, @@innodb_data_home_dir") == f"{target}/log_bin/log"


def test_a_drill_names_the_table_that_is_damaged_and_keeps_what_was_said(
    open_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(open_path))

    def before(server: Server, _: Path) -> None:
        server.query("use shop; insert into isam select seq, 'x' from seq_1_to_2000; flush tables")
        with (server.data / "shop/isam.MYI").open("r+b") as file:
            file.seek(2048)
            file.write(b"\xa5" * 700)

    url, _ = on_tape(open_path, before=before)

    assert restored("--database", open_path / "there", "--drill", "--tape", url, "--json") == errors.EXIT_DATA

    drill = sayings(capsys)["drill"]
    assert not drill["ok"]
    assert any(problem.startswith("shop.isam: ") for problem in drill["checks"][0]["problems"])
    assert not any("account" in problem for problem in drill["checks"][0]["problems"])
    assert "shop.isam" in (Path(drill["logs"]) / "mariadb-check.log").read_text()


def test_a_server_that_does_not_recover_fails_the_drill_with_its_own_words(
    open_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(open_path))
    monkeypatch.setattr(MariadbRecovery, "_warnings", _spoil)
    url, _ = on_tape(open_path)

    assert restored("--database", open_path / "there", "--drill", "--tape", url) == errors.EXIT_DATA

    told = capsys.readouterr().err
    assert "does not start" in told
    assert "InnoDB" in told
    (logs,) = open_path.glob("splitreel-drill-log-*")
    assert (logs / "mariadb.log").stat().st_size > 0


def _spoil(_: MariadbRecovery, data: Path) -> list[str]:
    """The redo log is gone: InnoDB refuses to start without one when its tablespace says that it needs it."""
    (data / "ib_logfile0").write_bytes(b"\xa5" * 12288)
    return []


FACTS: dict[str, Any] = {"engine": "mariadb", "name": "x", "version": "10.11.6-MariaDB", "mode": "ftwrl", "data": "/d"}


@pytest.mark.parametrize(
    "change",
    [
        {"version": "new"},
        {"data": "relative"},
        {"tables": {"../../etc/passwd": "/aside/x"}},
        {"tables": {"a/b/c": "/aside/x"}},
        {"tables": ["x"]},
        {"directories": {"innodb_undo_directory": "undo"}},
        {"innodb_data_file_path": "../x:12M", "spaces": {"ibdata1": "/d/ibdata1"}},
        {"logs": {"log_bin": ["relative"]}, "log_bin_basename": "/d/binlog"},
        {"logs": 3},
    ],
)
def test_facts_of_a_tape_that_lead_elsewhere_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(errors.IntegrityError, match=r"session\.json"):
        create(FACTS | change)


def test_unknown_settings_of_a_tape_reach_no_server() -> None:
    one = create(FACTS | {"directories": {"plugin_dir": "/evil"}, "server_id": "1; x", "innodb_page_size": True})
    assert [piece.source for piece in one.pieces()] == ["/d"]


def test_what_mariadb_check_says_is_read() -> None:
    printed = (
        "mysql.user                                         OK\n"
        "shop.isam\nwarning  : 1 client is using or hasn't closed the table properly\nstatus   : OK\n"
        "shop.bad\nwarning  : Table is marked as crashed\nerror    : Found wrong record at 0\nerror    : Corrupt\n"
        "mysql.slow_log\nnote     : The storage engine for the table doesn't support check\n"
    )
    assert mariadbserver.problems(printed) == ["shop.bad: Found wrong record at 0", "shop.bad: Corrupt"]


def mysql_layout(folder: Path) -> tuple[dict[str, Any], Layout]:
    """What a tape may hold of a MySQL server without a binary log."""
    (folder / "data/mysql").mkdir(parents=True)
    for name in ("auto.cnf", "master.info", "host.pid"):
        (folder / "data" / name).touch()
    (folder / "space").write_bytes(bytes(16384))
    facts = FACTS | {"engine": "mysql", "version": "8.0.36", "mode": "lock-instance", "innodb_page_size": 16384}
    facts |= {"innodb_log_file_size": 50331648, "innodb_data_file_path": "ibdata1:12M:autoextend"}
    facts |= {"spaces": {"ibdata1": "/d/ibdata1"}, "tables": {"shop/far.ibd": "/aside/far.ibd"}}
    return facts, Layout(folder, {"/d": folder / "data", "/aside/far.ibd": folder / "space"}, folder / "redo")


def test_mysql_keeps_its_uuid_and_is_told_to_keep_no_binary_log_where_there_was_none(tmp_path: Path) -> None:
    facts, layout = mysql_layout(tmp_path)
    (tmp_path / "data/shop").mkdir()

    notes = create(facts).lay_out(layout)

    assert set(names(tmp_path / "data")) == {"auto.cnf", "master.info", "mysql", "shop"}
    assert names(tmp_path / "data/shop") == ["far.ibd"]
    assert (tmp_path / "my.cnf").read_text().splitlines() == [
        "[mysqld]",
        f'datadir = "{tmp_path}/data"',
        'innodb_page_size = "16384"',
        'loose_innodb_log_file_size = "50331648"',
        'innodb_data_file_path = "ibdata1:12M:autoextend"',
        "skip_log_bin",
    ]
    for words in ("auto.cnf", "replica", "far.ibd was made right before", "--defaults-file"):
        assert any(words in note for note in notes), (words, notes)


def test_a_table_is_not_moved_through_a_link_of_the_tapes(tmp_path: Path) -> None:
    facts, layout = mysql_layout(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "data/shop").symlink_to(tmp_path / "outside")

    with pytest.raises(errors.IntegrityError, match=r"schema of shop/far\.ibd"):
        create(facts).lay_out(layout)

    assert names(tmp_path / "outside") == []


SERVER = """#!/bin/sh
[ "$2" != --version ] || { echo "mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)"; exit; }
printf '%s\\n' $$ "$@" >"$0.new" && mv "$0.new" "$(dirname "$0")/options"
exec sleep 600
"""
DRILL = """
import json, sys
from pathlib import Path
from splitreel.recovery import Layout, Owner, create
folder = Path(sys.argv[2])
layout = Layout(folder, {"/d": folder / "data", "/aside/far.ibd": folder / "space"}, folder, Owner.of(sys.argv[3]))
create(json.loads(sys.argv[1])).drill(layout, folder)
"""
CLIENT = """#!/bin/sh
[ -e "$(dirname "$0")/options" ] && echo 8.0.36
"""


def programs_of_mysql(folder: Path, monkeypatch: pytest.MonkeyPatch, check: str) -> Owner:
    """Doubles of its programs, which run as the owner: no MySQL is in Debian."""
    need_root()
    for name, text in (("mysqld", SERVER), ("mysql", CLIENT), ("mysqlcheck", f"#!/bin/sh\n{check}\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    owner = Owner.of("nobody")
    shutil.chown(folder, owner.uid)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return owner


def test_a_drill_of_mysql_is_a_server_of_its_version_without_network_or_replication(
    open_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = programs_of_mysql(open_path, monkeypatch, "echo 'a.b OK'")
    facts, layout = mysql_layout(open_path)

    found = create(facts).drill(replace(layout, owner=owner), open_path)

    assert (found.version, found.ok, found.checks[0].name) == ("8.0.36", True, "mysqlcheck")
    options = (open_path / "options").read_text().splitlines()
    assert options[1] == "--no-defaults"
    assert {"--skip-networking", "--loose-skip-replica-start", "--skip-log-bin", "--innodb-page-size=16384"} <= {
        *options
    }
    with pytest.raises(errors.SplitreelError, match=r"MySQL 8\.4 is not on this machine"):
        create(facts | {"version": "8.4.2"}).drill(replace(layout, owner=owner), open_path)


def test_a_server_goes_with_the_drill_that_started_it(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = programs_of_mysql(open_path, monkeypatch, "exec sleep 30")
    facts, _ = mysql_layout(open_path)
    command = [sys.executable, "-c", DRILL, json.dumps(facts), str(open_path), owner.name]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}) as drill:
        try:
            wait_until((open_path / "options").exists)
        finally:
            drill.kill()
    number, *options = (open_path / "options").read_text().splitlines()
    (socket,) = [Path(option.partition("=")[2]) for option in options if option.startswith("--socket=")]
    shutil.rmtree(socket.parent)
    wait_until(lambda: not Path(f"/proc/{number}").exists() or " Z " in Path(f"/proc/{number}/stat").read_text())


def test_leftovers_of_an_alter_are_removed_where_no_start_would_and_only_there(tmp_path: Path) -> None:
    """MariaDB 10.6 and later undo it from their log, by these very files; InnoDB removes its own."""
    for version, kept in (("10.5.23-MariaDB", False), ("10.11.6-MariaDB", True)):
        data = tmp_path / version / "shop"
        data.mkdir(parents=True)
        for name in ("#sql-1a_3.MYD", "#sql-1a_3.frm", "#sql-ib57.ibd", "t.frm", "old.pid"):
            (data / name).touch()
        (data.parent / "host.pid").touch()
        one = MariadbRecovery(FACTS | {"version": version})
        notes = one._clean(data.parent)
        expected = {"#sql-ib57.ibd", "t.frm", "old.pid"} | ({"#sql-1a_3.MYD", "#sql-1a_3.frm"} if kept else set())
        assert set(names(data)) == expected
        assert names(data.parent) == ["shop"]
        assert bool(notes) != kept
