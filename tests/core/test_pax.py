"""The headers of an archive, read by GNU tar, bsdtar and Python's tarfile, equal what they were made from."""

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from splitreel.core.extent import ExtentMap
from splitreel.core.plan import Plan
from tests.core.source import (
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFREG,
    UNWRITTEN,
    Source,
    acl,
    members_archive,
    numbered,
)
from tests.support import need_programs, need_root

SECOND = 10**9
EVERYTHING = {"block_size": 4096, "segment_size": 1 << 30}


def archive(source: Source, image: Path, **options: object) -> tuple[Plan, bytes]:
    plan = Plan.build(source.finish(image), **{**EVERYTHING, **options})
    return plan, members_archive(plan, source, 0) + bytes(1024)


def by_python(data: bytes) -> dict[bytes, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        return {member.name.encode("utf-8", "surrogateescape"): member for member in tar}


def extract(tool: str, data: bytes, where: Path, *flags: str) -> str:
    """Extract with GNU tar or bsdtar; returns what it said on standard error."""
    where.mkdir()
    command = {"tar": ["tar", "--numeric-owner", "-xpf", "-"], "bsdtar": ["bsdtar", "--numeric-owner", "-xpf", "-"]}
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    run = subprocess.run(
        [*command[tool], *flags], input=data, cwd=where, capture_output=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    return run.stderr.decode()


def names_source() -> Source:
    source = Source()
    deep = b"/".join([b"d" * 60] * 5)
    for depth in range(1, 6):
        source.add(b"/".join([b"d" * 60] * depth), S_IFDIR | 0o755)
    for name in (
        b"plain",
        b"with\nnewline",
        b"n" * 255,
        b"\xff\xfe not utf-8",
        "größe".encode(),
        b"n" * 100,
        b"n" * 101,
        b'quote"back\\slash',
        deep + b"/leaf",
        deep + b"/" + b"x" * 200,
        b"d" * 60 + b"/" + b"y" * 100,
        b"d" * 60 + b"/" + b"y" * 101,
        b"%s=",
        b"-rf",
    ):
        source.file(name, [(0, 1, 0)], size=100 + len(name), mtime_ns=SECOND)
    return source


@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
def test_every_name_comes_back_through_a_stock_tar(tool: str, tmp_path: Path) -> None:
    need_programs(tool)
    source = names_source()
    _, data = archive(source, tmp_path / "image")

    extract(tool, data, tmp_path / "out")

    for path, content in source.content.items():
        assert Path(os.fsdecode(os.fsencode(tmp_path / "out") + b"/" + path)).read_bytes() == content


def test_every_name_comes_back_through_tarfile(tmp_path: Path) -> None:
    source = names_source()
    _, data = archive(source, tmp_path / "image")

    found = by_python(data)

    assert {path for path, info in found.items() if info.isreg()} == set(source.content)
    assert found[b"plain"].pax_headers == {}
    assert found["größe".encode()].pax_headers["path"] == "größe"


@pytest.mark.parametrize(
    "nanoseconds",
    [
        0,
        1,
        SECOND,
        1_700_000_000_123_456_789,
        -1,
        -SECOND,
        -SECOND // 4 * 3,
        -1_500_000_001,
        9_000_000_000 * SECOND + 5,
    ],
)
def test_times_before_1970_and_after_2242_and_fractions_survive(nanoseconds: int, tmp_path: Path) -> None:
    need_programs("tar", "bsdtar")
    source = Source()
    source.file(b"f", [(0, 1, 0)], mtime_ns=nanoseconds)
    _, data = archive(source, tmp_path / "image")

    for tool in ("tar", "bsdtar"):
        if tool == "bsdtar" and nanoseconds < 0 and nanoseconds % SECOND:
            continue  # libarchive 3.6 takes the fraction of a time before 1970 as positive
        extract(tool, data, tmp_path / tool)
        assert (tmp_path / tool / "f").stat().st_mtime_ns == nanoseconds, tool
    assert by_python(data)[b"f"].mtime == pytest.approx(nanoseconds / SECOND, abs=1e-6)


def test_huge_owner_numbers_go_into_records(tmp_path: Path) -> None:
    source = Source()
    source.file(b"f", [(0, 1, 0)], uid=4_000_000_000, gid=0o10000000)
    source.file(b"g", [(0, 1, 0)], uid=0o7777777, gid=0o7777777)
    _, data = archive(source, tmp_path / "image")

    found = by_python(data)

    assert (found[b"f"].uid, found[b"f"].gid) == (4_000_000_000, 0o10000000)
    assert (found[b"g"].uid, found[b"g"].gid, found[b"g"].pax_headers) == (0o7777777, 0o7777777, {})


def test_a_file_over_8_gib_has_its_size_in_a_record() -> None:
    """Header only: the map says 9 GiB are written, the image need not hold them."""
    header = Plan.build(big_map((9 << 30) // 4096), segment_size=1 << 40).header(1)

    info = tarfile.TarInfo.frombuf(header[-512:], "utf-8", "strict")
    listed = subprocess.run(["tar", "--numeric-owner", "-tvf", "-"], input=header, capture_output=True, check=False)

    assert b"%d size=%d\n" % (19, 9 << 30) in header
    assert info.size == 0
    assert str(9 << 30).encode() in listed.stdout


def big_map(blocks: int) -> ExtentMap:
    result = ExtentMap("test", bytes(16), 4096, (blocks + 2) * 4096)
    result.add_file(2, S_IFDIR | 0o755, link_count=2)
    result.add_file(3, S_IFREG | 0o644, size=blocks * 4096)
    result.add_extent(0, 1, blocks)
    result.add_name(0, 0, b"")
    result.add_name(0, 1, b"f")
    result.finish()
    return result


def test_links_nodes_and_targets_come_back(tmp_path: Path) -> None:
    source = Source()
    source.add(b"d", S_IFDIR | 0o1770)
    source.file(b"a", [(0, 2, 0)])
    source.add(b"d/b", 0, file=1 + 1)
    source.add(b"d/long", S_IFLNK | 0o777, target=b"t" * 300)
    source.add(b"d/bytes", S_IFLNK | 0o777, target=b"\xfftarget")
    source.add(b"d/short", S_IFLNK | 0o777, target=b"a b")
    source.add(b"chr", S_IFCHR | 0o600, rdev=5 << 20 | 1)
    source.add(b"blk", S_IFBLK | 0o660, rdev=259 << 20 | 70000)
    source.add(b"fifo", S_IFIFO | 0o622)
    _, data = archive(source, tmp_path / "image")

    found = by_python(data)

    assert (found[b"d/b"].islnk(), found[b"d/b"].linkname) == (True, "a")
    assert found[b"d/long"].linkname == "t" * 300
    assert found[b"d/bytes"].linkname.encode("utf-8", "surrogateescape") == b"\xfftarget"
    assert found[b"d/short"].linkname == "a b"
    assert (found[b"chr"].ischr(), found[b"chr"].devmajor, found[b"chr"].devminor) == (True, 5, 1)
    assert (found[b"blk"].isblk(), found[b"blk"].devmajor, found[b"blk"].devminor) == (True, 259, 70000)
    assert found[b"fifo"].isfifo()
    assert found[b"d"].isdir()
    assert stat.S_IMODE(found[b"d"].mode) == 0o1770


def test_a_socket_is_in_the_plan_and_not_in_the_archive(tmp_path: Path) -> None:
    source = Source()
    source.add(b"s", 0o140755)
    source.file(b"f", [(0, 1, 0)])
    plan, data = archive(source, tmp_path / "image")

    assert plan.member_count == 3
    assert set(by_python(data)) == {b".", b"f"}


ATTRIBUTES = {
    "user.text": b"value",
    "user.binary": bytes(range(256)),
    "user.empty": b"",
    "user.lines": b"a\nb=c\n",
    "user.per%cent=sign": b"x",
    "trusted.t": b"\xff\x00",
}


def attribute_source() -> Source:
    source = Source()
    source.add(
        b"d",
        S_IFDIR | 0o750,
        xattrs={"system.posix_acl_default": acl((1, 7, 0xFFFFFFFF), (4, 5, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))},
    )
    access = acl(
        (1, 6, 0xFFFFFFFF),
        (2, 7, 1000),
        (2, 4, 70000),
        (4, 4, 0xFFFFFFFF),
        (8, 5, 2000),
        (16, 7, 0xFFFFFFFF),
        (32, 0, 0),
    )
    source.file(b"f", [(0, 1, 0)], mode=0o670, xattrs={**ATTRIBUTES, "system.posix_acl_access": access})
    return source


@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
@pytest.mark.root
def test_attributes_and_acls_come_back_through_a_stock_tar(tool: str, tmp_path: Path) -> None:
    need_root()
    need_programs(tool, "getfacl")
    source = attribute_source()
    _, data = archive(source, tmp_path / "image")
    flags = ["--acls", "--xattrs", "--xattrs-include=*"] if tool == "tar" else []

    extract(tool, data, tmp_path / "out", *flags)

    names = set(ATTRIBUTES) - ({"user.per%cent=sign"} if tool == "bsdtar" else set())
    shown = subprocess.run(
        ["getfacl", "-n", "-c", "f", "d"], cwd=tmp_path / "out", capture_output=True, text=True, check=True
    ).stdout.split()
    assert {name: os.getxattr(tmp_path / "out" / "f", name) for name in names} == {n: ATTRIBUTES[n] for n in names}
    assert {"user:1000:rwx", "user:70000:r--", "group:2000:r-x", "mask::rwx", "default:group::r-x"} <= set(shown)


def test_an_acl_of_unknown_form_stays_an_attribute(tmp_path: Path) -> None:
    source = Source()
    source.file(b"f", [(0, 1, 0)], xattrs={"system.posix_acl_access": b"\x03\0\0\0", "user.a": b"1"})
    _, data = archive(source, tmp_path / "image")

    found = by_python(data)[b"f"].pax_headers

    assert found["SCHILY.xattr.system.posix_acl_access"] == "\x03\0\0\0"
    assert "SCHILY.acl.access" not in found


SPARSE = {
    b"start": ([(3, 2, 0)], None),
    b"middle": ([(0, 1, 0), (5, 1, 0)], 5 * 4096 + 10),
    b"end": ([(0, 2, 0)], 9 * 4096),
    b"whole": ([], 123456),
    b"unwritten": ([(0, 1, 0), (1, 3, UNWRITTEN), (4, 1, 0)], None),
    b"many": ([(2 * i, 1, 0) for i in range(400)], None),
    b"tail": ([(0, 1, 0), (1, 9, UNWRITTEN)], 4096 + 1),
    b"e" * 120: ([(1, 1, 0)], 4097 + 20),
    b"\xff" * 9: ([(1, 1, 0)], None),
    b"beyond": ([(0, 4, 0), (4, 4, UNWRITTEN)], 3 * 4096 + 1),
}


@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
def test_sparse_files_come_back_and_stay_sparse(tool: str, tmp_path: Path) -> None:
    need_programs(tool)
    source = Source()
    source.add(b"dir", S_IFDIR | 0o755)
    for name, (layout, size) in SPARSE.items():
        source.file(b"dir/" + name, layout, size)
    plan, data = archive(source, tmp_path / "image")
    members, _ = numbered(plan)

    extract(tool, data, tmp_path / "out")

    for path, content in source.content.items():
        assert Path(os.fsdecode(os.fsencode(tmp_path / "out") + b"/" + path)).read_bytes() == content
    assert (tmp_path / "out/dir/end").stat().st_blocks <= 2 * 8
    assert {plan.member_path(i) for i in np.flatnonzero(members["map_size"])} == set(source.content) - {b"dir/beyond"}


def test_sparse_files_are_what_tarfile_reads(tmp_path: Path) -> None:
    source = Source()
    for name, (layout, size) in SPARSE.items():
        source.file(name, layout, size)
    _, data = archive(source, tmp_path / "image")

    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        found = {m.name.encode("utf-8", "surrogateescape"): m for m in tar}
        for path, content in source.content.items():
            reader = tar.extractfile(found[path])
            assert reader is not None
            assert reader.read() == content, path


@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
def test_large_members_start_on_a_tape_block(tool: str, tmp_path: Path) -> None:
    """Comment padding of every size that can occur, the impossible 512 bytes among them, is read over."""
    need_programs(tool)
    source = Source()
    for i in range(24):
        source.file(b"small%d" % i, [(0, 1, 0)], size=1 + 512 * (i % 7), mtime_ns=i % 3)
        source.file(b"large%d" % i, [(0, 4 * 8, 0)], mtime_ns=(i + 1) % 2)
    plan, data = archive(source, tmp_path / "image", block_size=16384)
    members, _ = numbered(plan)
    large = members[members["stored"] >= 8 * 16384]

    extract(tool, data, tmp_path / "out")

    assert len(large) == 24
    assert ((large["offset"] + large["header"]) % 16384 == 0).all()
    for path, content in source.content.items():
        assert (tmp_path / "out" / path.decode()).read_bytes() == content


paths = (
    st.binary(min_size=1, max_size=255)
    .map(lambda b: b.replace(b"\0", b"0").replace(b"/", b"1"))
    .filter(lambda b: b not in (b".", b".."))
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=paths,
    directory=paths,
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    seconds=st.integers(-(2**31), 2**33),
    nanoseconds=st.integers(0, SECOND - 1),
    xattrs=st.dictionaries(
        st.text("abc.=%~", min_size=1, max_size=20).map(lambda t: "user." + t), st.binary(max_size=100), max_size=4
    ),
)
@example(name=b"x", directory=b"y" * 255, mode=0o644, uid=0, gid=0, seconds=-1, nanoseconds=1, xattrs={})
def test_tarfile_reads_back_any_header(
    name: bytes,
    directory: bytes,
    mode: int,
    uid: int,
    gid: int,
    seconds: int,
    nanoseconds: int,
    xattrs: dict[str, bytes],
    tmp_path: Path,
) -> None:
    source = Source()
    source.add(directory, S_IFDIR | 0o755)
    time = seconds * SECOND + nanoseconds
    path = directory + b"/" + name
    source.file(path, [(0, 1, 0)], size=5, mode=mode, uid=uid, gid=gid, mtime_ns=time, xattrs=xattrs)
    _, data = archive(source, tmp_path / "image")

    info = by_python(data)[path]

    assert (info.mode, info.uid, info.gid, info.size) == (mode, uid, gid, 5)
    assert info.mtime == pytest.approx(time / SECOND, abs=1e-5)
    encode = {"SCHILY.xattr." + n.replace("%", "%25").replace("=", "%3D"): v for n, v in xattrs.items()}
    found = {k: v.encode("utf-8", "surrogateescape") for k, v in info.pax_headers.items() if "xattr" in k}
    assert found == encode
