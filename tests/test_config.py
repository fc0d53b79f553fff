"""The configuration: all mistakes at once, each with its line and, where there is one, the word that was meant."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitreel import config
from splitreel.config import ConfigError, Job
from splitreel.errors import UsageError

GOOD = """\
[job.nightly]
tape = "file:/tapes/a"
mirror = { type = "qemu", qmp = "/run/qmp", primary = "prim", target = "mirr", image = "/srv/mirror.img" }
quiesce = [
    { type = "sqlite", database = "/mnt/db/app.db" },
    { type = "fsfreeze", mount = "/mnt/db" },
]
segment_size = "16 GiB"
paths = ["app"]
"""


def load(folder: Path, text: str) -> config.Config:
    (folder / "c.toml").write_text(text)
    return config.load(folder / "c.toml")


def mistakes(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert caught.value.exit_code == 2
    return caught.value.mistakes


def test_a_whole_job_with_its_defaults(tmp_path: Path) -> None:
    job = load(tmp_path, GOOD).job()
    assert (job.name, job.tape, job.order, job.unquiesce) == ("nightly", "file:/tapes/a", "premapped", "after-split")
    assert (job.deadline_ms, job.segment_size, job.mount) == (5000, 16 << 30, "/mnt/db")
    assert job.quiesce[0] == {"type": "sqlite", "database": "/mnt/db/app.db"}
    assert Job(**job.record()) == job


def test_all_mistakes_are_told_at_once_with_lines_and_what_was_meant(tmp_path: Path) -> None:
    text = """\
[job.nightly]
tap = "file:x"
order = "premaped"
deadline_ms = -1
unquiesce = "after-split"
mirror = { type = "qemo", qmp = "x" }

[[job.nightly.quiesce]]
type = "sqlite"
databse = "/x"

[[job.nightly.quiesce]]
type = "fsfreeze"
mount = 7

[jobs]
"""
    found = mistakes(tmp_path, text)
    for line, words in (
        (16, "did you mean 'job'"),
        (2, "did you mean 'tape'"),
        (1, "'tape' is missing"),
        (3, "one of premapped, conventional, postsplit"),
        (4, "whole number"),
        (6, "did you mean 'qemu'"),
        (10, "did you mean 'database'"),
        (8, "'database' is missing"),
        (14, "is not a path"),
    ):
        assert any(text.startswith(f"line {line}:") and words in text for text in found), (line, words, found)
    assert len(found) == 9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("[job.nightly]", '[job."../x"]'), "name is made of"),
        (('paths = ["app"]', "paths = [1]"), "list of texts"),
        (('paths = ["app"]', 'block_size = "1 MB"'), "a size"),
        (('paths = ["app"]', "overwrite = 1"), "true or false"),
        (('paths = ["app"]', "deadline_ms = 0"), "1 to"),
        (('paths = ["app"]', "deadline_ms = true"), "whole number"),
        (('app.db" }', 'app.db", busy_timeout_ms = 9000 }'), "not below"),
        (("quiesce = [", 'quiesce = [{ type = "mariadb", lock_wait_s = 5 },'), "lock_wait_s is not below"),
        (('paths = ["app"]', 'mount = "/srv"'), "not among"),
        (('    { type = "fsfreeze", mount = "/mnt/db" },\n', ""), "`mount` or `device`"),
        (("quiesce = [", 'quiesce = [{ type = "fsfreeze", mount = "/mnt/db" },'), "must come last"),
        (('tape = "file:/tapes/a"', ""), "'tape' is missing"),
        (('type = "qemu", ', ""), "no type given"),
    ],
)
def test_each_rule(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    assert change[0] in GOOD
    (found,) = mistakes(tmp_path, GOOD.replace(*change))
    assert reason in found


@pytest.mark.parametrize("mode", ["lock-instance", "freeze"])
def test_a_mode_that_lets_a_server_write_on_needs_something_that_freezes(tmp_path: Path, mode: str) -> None:
    server = f'    {{ type = "mysql", mode = "{mode}" }},\n'
    freeze = '    { type = "fsfreeze", mount = "/mnt/db" },\n'
    assert load(tmp_path, GOOD.replace(freeze, server + freeze)).job().quiesce[1]["mode"] == mode
    (found,) = mistakes(tmp_path, GOOD.replace(freeze, server).replace('paths = ["app"]', 'mount = "/mnt/db"'))
    assert f"mode '{mode}' is no quiesce by itself" in found


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    job = load(tmp_path, GOOD.replace('"/run/qmp"', '"qmp"')).job()
    assert job.mirror["qmp"] == str(tmp_path / "qmp")


def test_jobs_are_chosen_by_name(tmp_path: Path) -> None:
    two = load(tmp_path, GOOD + GOOD.replace("nightly", "weekly"))
    assert two.job("weekly").name == "weekly"
    for name in (None, "monthly"):
        with pytest.raises(UsageError, match="nightly, weekly"):
            two.job(name)


def test_what_is_no_toml_and_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at line 1"):
        load(tmp_path, "[job\nx=1")
    with pytest.raises(UsageError, match="No such file"):
        config.load(tmp_path / "absent")
    (tmp_path / "latin").write_bytes(b"x = '\xff'")
    with pytest.raises(UsageError):
        config.load(tmp_path / "latin")
    assert mistakes(tmp_path, "") == ("it has no job: a table [job.NAME] is needed",)


SEVERAL = """
[job.nightly]
tape = "file:/tapes/a"
paths = ["data/base"]
quiesce = [ { type = "fsfreeze", mount = "/a" }, { type = "fsfreeze", mount = "/b" } ]

[[job.nightly.volumes]]
name = "data"
mount = "/a"
mirror = { type = "static", image = "/image/a" }

[[job.nightly.volumes]]
name = "wal"
mount = "/b"
with = ["journal"]
[job.nightly.volumes.mirror]
type = "static"
image = "/image/b"
"""


def test_several_volumes_of_one_job(tmp_path: Path) -> None:
    job = load(tmp_path, SEVERAL).job()
    data, wal = job.mirrored

    assert (data.name, data.prefix, data.mount, data.mirror["image"]) == ("data", "data", "/a", "/image/a")
    assert (wal.name, wal.others) == ("wal", [str(tmp_path / "journal")])
    assert config.Job(**json.loads(json.dumps(job.record()))) == job


def test_the_only_volume_of_a_job_has_no_prefix(tmp_path: Path) -> None:
    """With a name or without: what lies on tape is the volume's own tree."""
    alone = SEVERAL.rpartition("[[job.nightly.volumes]]")[0]
    for job in (load(tmp_path, GOOD).job(), load(tmp_path, alone.replace("/b", "/c")).job()):
        (volume,) = job.mirrored
        assert volume.prefix == ""


@pytest.mark.parametrize(
    ("change", "line", "reason"),
    [
        (('tape = "file:/tapes/a"', 'tape = "null:"\nmount = "/a"'), 4, "belongs into each"),
        (('tape = "file:/tapes/a"', 'tape = "null:"\nwith = ["/a"]'), 4, "belongs into each"),
        (('name = "data"', "raw = false"), 7, "'name' is missing"),
        (('name = "data"', 'name = "a/b"'), 8, "name is made of"),
        (('name = "data"', 'name = ".splitreel"'), 8, "name is made of"),
        (('name = "data"', 'name = "wal"'), 13, "another volume has the same name"),
        (('mount = "/a"\n', 'mount = "/b"\n'), 14, "another volume has the same mount"),
        (('mount = "/a"\n', 'mount = "/c"\n'), 9, "not among the file systems that are frozen"),
        (('mirror = { type = "static", image = "/image/a" }', ""), 7, "'mirror' is missing"),
        (('mirror = { type = "static", image = "/image/a" }', 'mirror = { type = "raid" }'), 10, "unknown type"),
        (('image = "/image/b"', 'image = "/image/a"'), 16, "another volume has the same mirror"),
        (('image = "/image/b"', 'imagee = "/image/b"'), 18, "did you mean 'image'"),
        (('paths = ["data/base"]', 'paths = ["base"]'), 4, "begins with no volume's name"),
        (('mount = "/a"\n', 'raw = true\n'), 4, "a raw volume is one file"),
        (('quiesce = [ { type = "fsfreeze", mount = "/a" }, { type = "fsfreeze", mount = "/b" } ]',
          'quiesce = [ { type = "postgresql", mode = "freeze" } ]'), 5, "needs an fsfreeze of every volume"),
    ],
)  # fmt: skip
def test_each_rule_of_several_volumes(tmp_path: Path, change: tuple[str, str], line: int, reason: str) -> None:
    assert change[0] in SEVERAL
    found = mistakes(tmp_path, SEVERAL.replace(*change, 1))
    assert any(text.startswith(f"line {line}:") and reason in text for text in found), found


LEAF = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.just("qemu"))
VALUE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "qmp", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


TABLE = st.dictionaries(st.sampled_from([*config.VOLUME_KEYS, "name", "x"]), VALUE, max_size=5)
JOBS = st.dictionaries(st.sampled_from([*config.JOB_KEYS, "x"]), VALUE | st.lists(TABLE, max_size=3), max_size=8)


@given(JOBS)
@settings(max_examples=200, deadline=None)
def test_any_table_is_either_a_job_or_told_what_is_wrong(table: dict[str, object]) -> None:
    try:
        found = config.parse({"job": {"a": table}}).job("a")
        assert found.tape
    except ConfigError as error:
        assert error.mistakes


def test_a_budget_is_the_watchdogs_deadline_too_unless_that_is_given() -> None:
    table = {"tape": "null:", "mirror": {"type": "static", "image": "/i"}}

    assert config.parse({"job": {"j": {**table, "window_ms": 300}}}).job().deadline_ms == 300
    assert config.parse({"job": {"j": {**table, "window_ms": 300, "deadline_ms": 900}}}).job().deadline_ms == 900
    for wrong in ({"window_ms": 0}, {"window_ms": 900_000}, {"window_ms": 300, "deadline_ms": 200}):
        with pytest.raises(ConfigError, match=r"window_ms"):
            config.parse({"job": {"j": {**table, **wrong}}})
