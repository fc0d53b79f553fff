"""Members become files in the target and nowhere else; what does not verify never bears its own name."""

import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitreel import errors
from splitreel.reading.archive import Blocks, SegmentReader
from splitreel.reading.segment import Report, Walk
from splitreel.restore import acl
from splitreel.restore.destination import Destination, Refused, components
from splitreel.restore.restorer import Restorer
from splitreel.selection import Selection
from tests import support, tapes


def restore(
    *segments: bytes, to: Path, patterns: tuple[bytes, ...] = (), force: bool = False
) -> tuple[Restorer, list[Report]]:
    reports = []
    with Destination(to, overwrite=force) as target:
        restorer = Restorer(target, Selection(patterns))
        for data in segments:
            reports.append(Walk(SegmentReader(Blocks(data, tapes.BLOCK), tapes.BLOCK), restorer).run())
        restorer.finish()
    return restorer, reports


def sample() -> tapes.Segment:
    made = tapes.Segment()
    uid, gid = os.geteuid(), os.getegid()
    made.add(b".", kind="dir", mode=0o755, uid=uid, gid=gid, mtime=1_600_000_000)
    made.add(b"d", kind="dir", mode=0o555, uid=uid, gid=gid, mtime=1_600_000_000.5)
    made.add(b"d/f", b"content" * 999, mode=0o640, uid=uid, gid=gid, mtime=1_650_000_000.25)
    made.add(b"d/empty", b"", uid=uid, gid=gid)
    made.add(b"d/raw\xff\n", b"odd name", uid=uid, gid=gid)
    made.add(b"d/hard", kind="link", target=b"d/f")
    made.add(b"d/sym", kind="symlink", target=b"/etc/passwd", mtime=1_640_000_000, uid=uid, gid=gid)
    made.add(b"d/pipe", kind="fifo", mode=0o600, uid=uid, gid=gid)
    content, stored, pax = tapes.sparse(1 << 20, [(65536, b"q" * 4096)], "d/sparse")
    made.add(b"d/GNUSparseFile.0/sparse", content, pax=pax, stored=stored, uid=uid, gid=gid)
    made.members[-1]["path"] = "d/sparse"
    return made


def test_files_links_times_modes_and_holes_come_back(tmp_path: Path) -> None:
    restorer, _ = restore(sample().close(), to=tmp_path / "to")

    to = tmp_path / "to"
    assert not restorer.problems.listed
    assert (to / "d/f").read_bytes() == b"content" * 999
    assert (to / "d/f").stat().st_mtime_ns == 1_650_000_000_250_000_000
    assert (to / "d/f").stat().st_ino == (to / "d/hard").stat().st_ino
    assert stat.S_IMODE((to / "d/f").stat().st_mode) == 0o640
    assert stat.S_IMODE((to / "d").stat().st_mode) == 0o555
    assert (to / "d").stat().st_mtime_ns == 1_600_000_000_500_000_000
    assert to.stat().st_mtime == 1_600_000_000
    assert (to / "d/sym").readlink() == Path("/etc/passwd")
    assert (to / "d/sym").lstat().st_mtime == 1_640_000_000
    assert stat.S_ISFIFO((to / "d/pipe").stat().st_mode)
    assert Path(os.fsdecode(os.fsencode(to) + b"/d/raw\xff\n")).read_bytes() == b"odd name"
    sparse = (to / "d/sparse").stat()
    assert (sparse.st_size, sparse.st_blocks * 512) == (1 << 20, 4096)
    assert restorer.files == 4
    (to / "d").chmod(0o755)


@pytest.mark.parametrize("path", [b"/etc/x", b"../x", b"a/../../x", b"a/..", b"..", b"x" * 256, b"a/" * 5000 + b"x"])
def test_a_path_that_leads_out_is_refused(path: bytes) -> None:
    with pytest.raises(Refused):
        components(path)


def test_nothing_is_written_through_a_symbolic_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    made = tapes.Segment()
    made.add(b"way", kind="symlink", target=os.fsencode(outside))
    made.add(b"way/new", b"evil")
    made.add(b"way/file", b"evil")
    made.add(b"end", kind="symlink", target=os.fsencode(outside / "file"))
    made.add(b"end", b"evil")
    made.add(b"hard", kind="link", target=b"../outside/file")
    made.add(b"via", kind="link", target=b"way/file")
    made.add(b"way", kind="dir", mode=0o777)

    restorer, _ = restore(made.close(), to=tmp_path / "to")

    assert (outside / "file").read_bytes() == b"precious"
    assert [p.name for p in outside.iterdir()] == ["file"]
    assert (outside / "file").stat().st_nlink == 1
    assert {path for path, _ in restorer.problems.listed} >= {b"way/new", b"way/file", b"end", b"hard", b"via"}


def test_a_file_that_does_not_verify_is_set_apart_and_named(tmp_path: Path) -> None:
    made = sample()
    data = bytearray(made.close())
    at = next(m for m in made.members if m["path"] == "d/f")
    data[at["block"] * tapes.BLOCK + at["offset"] + 2000] ^= 1

    restorer, (report,) = restore(bytes(data), to=tmp_path / "to")

    (tmp_path / "to/d").chmod(0o755)
    assert not (tmp_path / "to/d/f").exists()
    assert not (tmp_path / "to/d/hard").exists()
    assert (tmp_path / "to/d/f.splitreel-damaged").exists()
    assert (tmp_path / "to/d/sparse").exists()
    assert [path for path, _ in restorer.problems.listed] == [b"d/f", b"d/hard"]
    assert not report.sound


def test_without_a_manifest_nothing_bears_its_own_name(tmp_path: Path) -> None:
    restorer, _ = restore(sample().close(with_manifest=False), to=tmp_path / "to")

    (tmp_path / "to/d").chmod(0o755)
    assert not (tmp_path / "to/d/f").exists()
    assert (tmp_path / "to/d/f.splitreel-unverified").read_bytes() == b"content" * 999
    assert b"d/f" in {path for path, _ in restorer.problems.listed}


def in_parts(content: bytes, cuts: list[int]) -> list[tapes.Segment]:
    segments = []
    for i, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(content)], strict=True), 1):
        made = tapes.Segment(i)
        name = b"d/big.splitreel-part-%04d-of-%04d" % (i, len(cuts) + 1)
        made.add(name, content[start:end], mode=0o600, part=[i, len(cuts) + 1], of="d/big", at=start)
        segments.append(made)
    segments[-1].add(b"d/other", b"x")
    return segments


def test_parts_are_joined_into_one_file(tmp_path: Path) -> None:
    content = os.urandom(30_000)

    restorer, _ = restore(*(s.close() for s in in_parts(content, [12_288, 24_576])), to=tmp_path / "to")

    assert (tmp_path / "to/d/big").read_bytes() == content
    assert sorted(p.name for p in (tmp_path / "to/d").iterdir()) == ["big", "other"]
    assert not restorer.problems.listed


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_file_with_a_missing_part_never_bears_its_name(tmp_path: Path, lost: int) -> None:
    segments = [s.close() for s in in_parts(os.urandom(30_000), [12_288, 24_576])]
    del segments[lost]

    restorer, _ = restore(*segments, to=tmp_path / "to")

    assert not (tmp_path / "to/d/big").exists()
    assert restorer.problems.listed
    if lost:
        assert (tmp_path / "to/d/big.splitreel-damaged").exists()


def test_a_damaged_part_makes_the_file_damaged(tmp_path: Path) -> None:
    segments = [s.close() for s in in_parts(os.urandom(30_000), [12_288, 24_576])]
    second = bytearray(segments[1])
    second[3000] ^= 1

    restorer, _ = restore(segments[0], bytes(second), segments[2], to=tmp_path / "to")

    assert sorted(p.name for p in (tmp_path / "to/d").iterdir()) == ["big.splitreel-damaged", "other"]
    assert "part 2" in restorer.problems.listed[-1][1]


def test_a_users_file_that_is_named_like_a_part_stays_as_it_is(tmp_path: Path) -> None:
    made = tapes.Segment()
    made.add(b"x.splitreel-part-0001-of-0002", b"one")
    made.add(b"x.splitreel-part-0002-of-0002", b"two")

    restore(made.close(), to=tmp_path / "to")

    assert sorted(p.read_bytes() for p in (tmp_path / "to").iterdir()) == [b"one", b"two"]


def test_only_what_is_selected_is_restored(tmp_path: Path) -> None:
    restorer, _ = restore(sample().close(), to=tmp_path / "to", patterns=(b"d/[fe]*",))

    assert sorted(p.name for p in (tmp_path / "to/d").iterdir()) == ["empty", "f"]
    assert restorer.wanted.unmatched == set()


@pytest.mark.parametrize(
    ("pattern", "path", "wanted"),
    [
        ("a", b"a", True),
        ("a", b"a/b/c", True),
        ("a", b"ab", False),
        ("/a/", b"a", True),
        ("./a", b"a", True),
        ("a*", b"abc", True),
        ("a*", b"a/b", True),
        ("*.c", b"d/x.c", False),
        ("**/*.c", b"d/e/x.c", True),
        ("**/*.c", b"x.c", True),
        ("d/**", b"d/e/x.c", True),
        ("?", b"a", True),
        ("?", b"ab", False),
        ("[ab]c", b"bc", True),
        ("[!ab]c", b"bc", False),
        ("[!ab]c", b"xc", True),
        ("x[1]", b"x[1]", True),
        ("x[1]", b"x1", True),
        ("a.c", b"abc", False),
        ("*", b"new\nline", True),
        ("[", b"[", True),
    ],
)
def test_patterns_mean_what_a_shell_means(pattern: str, path: bytes, wanted: bool) -> None:
    assert Selection([pattern])(path) is wanted


def test_a_pattern_that_met_nothing_is_known() -> None:
    chosen = Selection(["a", "b*"])
    chosen(b"a/x")

    assert chosen.unmatched == {b"b*"}


def test_a_directory_that_is_not_empty_is_refused_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"old")

    with pytest.raises(errors.UsageError, match="not empty"):
        Destination(tmp_path)
    restorer, _ = restore(sample().close(), to=tmp_path, force=True)

    assert not restorer.problems.listed
    (tmp_path / "d").chmod(0o755)
    assert (tmp_path / "d/f").read_bytes() == b"content" * 999


def test_overwriting_breaks_hard_links_and_does_not_write_through_them(tmp_path: Path) -> None:
    (tmp_path / "to/d").mkdir(parents=True)
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "to/d/f").hardlink_to(tmp_path / "kept")

    restore(sample().close(), to=tmp_path / "to", force=True)

    (tmp_path / "to/d").chmod(0o755)
    assert (tmp_path / "kept").read_bytes() == b"kept"


@pytest.mark.root
def test_owner_attributes_acls_and_devices_come_back(tmp_path: Path) -> None:
    support.need_root()
    support.need_programs("getfacl")
    made = tapes.Segment()
    acls = {"SCHILY.acl.access": "user::rw-,user:1234:r--,group::r--,mask::r--,other::---"}
    made.add(b"f", b"x", mode=0o4640, uid=1000, gid=1001, pax={"SCHILY.xattr.user.a%3Db": "v\x00w", **acls})
    default = "user::rwx,group::r-x,group:77:r-x,mask::r-x,other::---"
    made.add(b"d", kind="dir", mode=0o750, uid=5, gid=6, pax={"SCHILY.acl.default": default})
    made.add(b"c", kind="chr", mode=0o620, device=(5, 1), uid=3)
    made.add(b"s", kind="symlink", target=b"f", uid=77, gid=78)

    restorer, _ = restore(made.close(), to=tmp_path / "to")

    to = tmp_path / "to"
    assert not restorer.problems.listed
    found = (to / "f").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o4640, 1000, 1001)
    assert os.getxattr(to / "f", "user.a=b") == b"v\0w"
    listing = subprocess.run(["getfacl", "-cnp", "f", "d"], cwd=to, capture_output=True, text=True, check=True).stdout
    assert "user:1234:r--" in listing
    assert "default:group:77:r-x" in listing
    assert ((to / "c").stat().st_rdev, (to / "c").stat().st_uid) == (os.makedev(5, 1), 3)
    assert ((to / "s").lstat().st_uid, (to / "s").lstat().st_gid) == (77, 78)


@pytest.mark.root
def test_an_acl_is_never_set_through_a_symbolic_link(tmp_path: Path) -> None:
    support.need_root()
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    outside.chmod(0o600)
    made = tapes.Segment()
    acls = {"SCHILY.acl.access": "user::rw-,user:1234:rw-,group::---,mask::rw-,other::---"}
    made.add(b"s", kind="symlink", target=os.fsencode(outside), pax=acls)

    restorer, _ = restore(made.close(), to=tmp_path / "to")

    assert os.listxattr(outside) == []
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert [path for path, _ in restorer.problems.listed] == [b"s"]


@pytest.mark.root
def test_who_is_not_root_gets_no_set_id_bits_devices_or_owners() -> None:
    support.need_root()
    made = tapes.Segment()
    made.add(b"f", b"x", mode=0o6755, uid=0, pax={"SCHILY.xattr.trusted.t": "1", "SCHILY.xattr.user.u": "2"})
    made.add(b"c", kind="chr", device=(5, 1))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        os.seteuid(65534)
        try:
            restorer, _ = restore(made.close(), to=Path(folder) / "to")
        finally:
            os.seteuid(0)
        status = (Path(folder) / "to/f").stat()

        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o755, 65534)
        assert os.listxattr(Path(folder) / "to/f") == ["user.u"]
        assert [path for path, _ in restorer.problems.listed] == [b"c"]
        assert restorer.problems.unprivileged == 1


@pytest.mark.root
def test_acls_are_encoded_as_the_kernel_holds_them(tmp_path: Path) -> None:
    support.need_root()
    support.need_programs("setfacl")
    file = tmp_path / "f"
    file.write_bytes(b"")
    subprocess.run(["setfacl", "-m", "u:1234:r-x,u:5:-w-,g:9:rwx", file], check=True)
    text = subprocess.run(["getfacl", "-cnpE", file], capture_output=True, check=True).stdout

    assert acl.encode(text) == os.getxattr(file, "system.posix_acl_access")


@pytest.mark.parametrize(
    "text", [b"user", b"user::rwz", b"user:x:rwx", b"door::rwx", b"user:4294967295:rwx", b"mask:1:rwx"]
)
def test_an_acl_that_lies_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="ACL"):
        acl.encode(text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=6))
def test_flipped_bytes_never_crash_and_never_pass(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    to = tmp_path / os.urandom(8).hex()
    made = sample()
    clean = made.close()
    data = bytearray(clean)
    for at, bits in flips:
        data[at % len(data)] ^= bits

    _, (report,) = restore(bytes(data), to=to)

    for path in (to / "d").iterdir() if (to / "d").exists() else ():
        if path.name == "f":
            assert path.read_bytes() == b"content" * 999
    covered = clean.find(b"SPLITREEL.kind=manifest") // tapes.BLOCK * tapes.BLOCK - tapes.BLOCK
    assert not report.sound or bytes(data[:covered]) == clean[:covered]
    assert {p.name for p in tmp_path.iterdir()} >= {to.name}
    assert not list(tmp_path.glob("*.splitreel*"))
