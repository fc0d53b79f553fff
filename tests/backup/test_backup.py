"""Whole backups: a real ext4 image to a tape and back, by splitreel, GNU tar, bsdtar, Python; and what goes wrong."""

import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splitreel import errors, reading
from splitreel.__main__ import main
from splitreel.backup import Incomplete, Options, Result, TapeBackup
from splitreel.backup import tapebackup as backup_module
from splitreel.catalog import Catalog
from splitreel.core.device import BlockDevice
from splitreel.drive import open_drive
from splitreel.mapping import map_device
from splitreel.reading.verify import verify
from splitreel.restore import restore
from splitreel.volume import Label
from tests import ext4_images, support, tapes, trees

pytestmark = pytest.mark.root

BLOCK = 65536
SEGMENT = 4 << 20


def takes_whiteouts(folder: Path) -> bool:
    """False on overlayfs, as in a container: there the character device 0:0 means a deleted file."""
    try:
        os.mknod(folder / "probe", stat.S_IFCHR | 0o600, 0)
    except PermissionError:
        return False
    (folder / "probe").unlink()
    return True


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 file system with everything it can hold, and files of several segments."""
    ext4_images.need_ext4()
    made = ext4_images.make_image(tmp_path_factory.mktemp("image") / "disk.img", 96)
    with ext4_images.mounted(made) as point:
        ext4_images.fill(point)
        # cksum and cat would take half a minute over 40 GB of zeros
        (point / "contents/far").unlink()
        if not takes_whiteouts(made.parent):
            (point / "kinds/whiteout").unlink()
        (point / "large").write_bytes(os.urandom(9 << 20))
        os.link(point / "large", point / "large too")
        ext4_images.punch_alternate(point / "punched", 600, 4096)
        with open(point / "sparse and large", "wb") as file:
            for at in range(0, 64 << 20, 8 << 20):
                file.seek(at)
                file.write(os.urandom(1 << 20))
            file.truncate(70 << 20)
    return made


@pytest.fixture(scope="module")
def source(image: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The tree as the kernel shows it."""
    with ext4_images.mounted(image, "ro") as point:
        yield trees.tree(point)


def options(tape: str, **more: Any) -> Options:
    return Options(tape, **({"block_size": BLOCK, "segment_size": SEGMENT} | more))


def run(
    image: Path, tape: str, state: Path | None = None, redo: dict[str, bytes | Path] | None = None, **more: Any
) -> Result:
    with BlockDevice(image) as device, TapeBackup(options(tape, **more), state) as made:
        made.check()
        return made.run(device, map_device(device), redo=redo)


@pytest.fixture(scope="module")
def tape(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tape of the image, in many segments, with parts."""
    path = tmp_path_factory.mktemp("tape") / "tape.tap"
    assert run(image, f"file:{path}", redo={"backup_label": b"START"}).complete
    return path


def test_a_rebuilt_catalog_gives_the_size_that_the_backup_had(image: Path, tmp_path: Path) -> None:
    url = f"file:{tmp_path}/tape.tap"
    for name in ("state", "rebuilt"):
        (tmp_path / name).mkdir()
    result = run(image, url, tmp_path / "state", redo={"backup_label": b"START"})
    with open_drive(url) as drive, Catalog(tmp_path / "rebuilt") as catalog:
        catalog.load_records(reading.all_records(drive, reading.label_of(drive)))
        rebuilt = catalog.backup()
    with Catalog(tmp_path / "state") as catalog:
        kept = catalog.backup()

    assert (rebuilt.files, rebuilt.bytes) == (kept.files, kept.bytes) == (result.files, result.bytes)
    with ext4_images.mounted(image, "ro") as point:
        stats = [os.lstat(name, dir_fd=fd) for _, _, names, fd in os.fwalk(point) for name in names]
    sizes = sum({at.st_ino: at.st_size for at in stats if stat.S_ISREG(at.st_mode)}.values())
    # holes are not counted: 70 MiB with 8 MiB of content are among the files
    assert 16 << 20 < result.bytes < sizes - (60 << 20)


@pytest.mark.parametrize("size", [0, 1, 511, 512, (3 << 20) + 5])
def test_redo_comes_from_files_as_it_does_from_memory(image: Path, tmp_path: Path, size: int) -> None:
    """A gigabyte of WAL need not be in memory; tarfile reads the last tape file either way."""
    content = os.urandom(size)
    (tmp_path / "wal").write_bytes(content)
    assert run(image, f"file:{tmp_path}/tape", redo={"a": content, "b/c": tmp_path / "wal"}).complete

    *_, last = tapes.split_tap((tmp_path / "tape").read_bytes())

    with tarfile.open(fileobj=io.BytesIO(b"".join(last))) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive if "/redo/" in m.name}  # type: ignore[union-attr]
    assert members == {".splitreel/redo/a": content, ".splitreel/redo/b/c": content}


@pytest.mark.parametrize("with_catalog", [True, False])
def test_directories_on_the_way_come_back_as_they_were(
    tape: Path, source: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_catalog: bool
) -> None:
    """One file of each directory of an image, some of whose directories bear extended attributes or ACLs."""
    chosen = {path.rpartition("/")[0]: path for path, at in source.items() if stat.S_ISREG(at["mode"])}
    ways = {path[:i] for path in chosen.values() for i, char in enumerate(path) if char == "/"}
    if not with_catalog:
        monkeypatch.setattr("splitreel.restore.run._choose", lambda members, selection: None)
    with open_drive(f"file:{tape}") as drive:
        outcome = restore(drive, tmp_path / "to", [os.fsencode(path) for path in chosen.values()])
    restored = trees.tree(tmp_path / "to")

    assert outcome.problems.listed == []
    assert any(source[way]["xattrs"] for way in ways)
    assert {way: restored[way] for way in ways} == {way: source[way] for way in ways}


def test_everything_comes_back_as_it_was(tape: Path, source: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    with open_drive(f"file:{tape}") as drive:
        outcome = restore(drive, tmp_path / "to")

    assert outcome.problems.listed == []
    assert (tmp_path / "to/.splitreel/redo/backup_label").read_bytes() == b"START"
    restored = trees.tree(tmp_path / "to", (".splitreel",))
    assert trees.differences(source, restored) == []


def test_the_tape_verifies_and_its_catalog_lists_what_its_manifests_say(tape: Path, capsys: Any) -> None:
    with open_drive(f"file:{tape}") as drive:
        verdict = verify(drive)

    assert verdict.findings == []
    assert verdict.segments > 5
    assert verdict.cksums > 100
    main(["list", "--tape", f"file:{tape}", "--json"])
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    files = list(tapes.split_tap(tape.read_bytes()))
    stated: list[dict[str, Any]] = []
    for blocks in files[1:-1]:
        with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as archive:
            member = next(m for m in archive if m.name.endswith(".manifest"))
            manifest = archive.extractfile(member)
            assert manifest is not None
            stated += [r for r in map(json.loads, manifest) if r["kind"] == "member"]
    for record in listed:
        for key in ("segment", "object"):
            record.pop(key, None)
    for record in stated:
        record.setdefault("extents", 0)
    assert listed[:-1] == stated


@pytest.fixture(scope="module")
def plain(source: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The tree without what no stock program can make: paths longer than PATH_MAX."""
    return {path: record for path, record in source.items() if not path.startswith("names/000")}


@pytest.fixture(scope="module")
def plain_tape(plain: dict[str, dict[str, Any]], image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tape without what no stock program can make."""
    path = tmp_path_factory.mktemp("tape") / "plain.tap"
    chosen = [os.fsencode(name) for name in plain if name.count("/") == 0 and name not in (".", "names")]
    chosen += [os.fsencode(name) for name in plain if name.startswith("names/") and name.count("/") == 1]
    with BlockDevice(image) as device, TapeBackup(options(f"file:{path}")) as made:
        assert made.run(device, map_device(device), chosen, {"backup_label": b"START"}).complete
    return path


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_stock_programs_extract_the_segments(
    plain_tape: Path, plain: dict[str, dict[str, Any]], tmp_path: Path, program: str
) -> None:
    """As the README block says: each tape file on its own into one directory, then the parts joined."""
    support.need_programs(program)
    to = tmp_path / "to"
    to.mkdir()
    flags = {
        "tar": [
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
            "--warning=no-unknown-keyword",
            "-xpf",
            "-",
        ],
        "bsdtar": ["--xattrs", "--acls", "--numeric-owner", "-xpf", "-"],
    }[program]
    complaints = ""
    for blocks in list(tapes.split_tap(plain_tape.read_bytes()))[1:]:
        done = subprocess.run([program, *flags], input=b"".join(blocks), cwd=to, capture_output=True, check=False)
        complaints += done.stderr.decode(errors="replace")
    join(to)

    restored = trees.tree(to, (".splitreel",))
    found = trees.differences(made_here(plain), made_here(restored))
    if (
        program == "bsdtar"
    ):  # libarchive: no paths beyond PATH_MAX, times cut, an empty ACL mask; contents must be right
        found = [line for line in found if ": content" in line or ": size" in line or ": target" in line]
    assert found == [], complaints


def made_here(tree: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without what these programs, or joining parts by hand, cannot bring back: see the README block."""
    left = {path: dict(record) for path, record in tree.items() if path not in (".", "names", "large too")}
    for path in ("large", "sparse and large"):
        for key in ("links", "allocated"):
            left[path].pop(key, None)
    return left


def join(to: Path) -> None:
    # not rglob: Python before 3.11.4 follows every symlink, and stops at a target of 1000 bytes
    for first in [Path(at, name) for at, _, names in os.walk(to) for name in names if ".splitreel-part-0001-" in name]:
        name = str(first).split(".splitreel-part-")[0]
        parts = sorted(to.glob(Path(name).name + ".splitreel-part-*"))
        with open(name, "wb") as whole:
            for part in parts:
                data = part.read_bytes()
                for at in range(0, len(data), 65536):
                    piece = data[at : at + 65536]
                    whole.write(piece) if piece.strip(b"\0") else whole.seek(len(piece), 1)
            whole.truncate()
        subprocess.run(["touch", "-r", first, name], check=True)
        subprocess.run(["chmod", "--reference", first, name], check=True)
        for part in parts:
            part.unlink()


def test_pythons_tarfile_reads_every_member(tape: Path) -> None:
    names = set()
    for blocks in list(tapes.split_tap(tape.read_bytes()))[1:]:
        with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as archive:
            for member in archive:
                names.add(member.name)
                if member.isreg() and member.size < 1 << 20:
                    data = archive.extractfile(member)
                    assert data is not None
                    assert len(data.read()) == member.size

    assert {
        "contents/size100000",
        "kinds/fifo",
        ".splitreel/catalog.jsonl",
        ".splitreel/segment-0001.manifest",
    } <= names


README_SHIMS = {
    "mt": """#!/bin/sh
case "$3" in rewind) echo 0 >"$TAPE_FILES/at";; fsf) echo $(($(cat "$TAPE_FILES/at") + $4)) >"$TAPE_FILES/at";; esac
""",
    "dd": """#!/bin/sh
at=$(cat "$TAPE_FILES/at")
[ -e "$TAPE_FILES/$at" ] || { echo "0+0 records in" >&2; exit 0; }
echo $((at + 1)) >"$TAPE_FILES/at"
cat "$TAPE_FILES/$at"
echo "9+0 records in" >&2
""",
}


def test_the_readmes_own_commands_restore_and_check_the_tape(
    plain_tape: Path, plain: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Literally: with mt and dd that serve the files of the .tap image, everything else as it is installed."""
    files = tmp_path / "files"
    files.mkdir()
    for number, blocks in enumerate(tapes.split_tap(plain_tape.read_bytes())):
        (files / str(number)).write_bytes(b"".join(blocks))
    (tmp_path / "bin").mkdir()
    for name, text in README_SHIMS.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    text = (files / "0").read_bytes()[80:].decode().split("--- JSON ---")[0]
    begin, middle, end = "in an empty directory\n", "To check every file", "Where tar said"
    script = [line for line in text[text.index(begin) : text.index(end)].splitlines() if line.startswith("    ")]
    assert middle in text
    to = tmp_path / "to"
    to.mkdir()

    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TAPE_FILES": str(files)}
    done = subprocess.run(
        ["sh", "-c", "\n".join(script)], cwd=to, env=environment, capture_output=True, check=False, text=True
    )

    checked = [line for line in done.stdout.splitlines() if line.endswith(": good")]
    assert len(checked) == len(list(files.iterdir())) - 3, done.stdout + done.stderr
    restored = trees.tree(to, (".splitreel", "dd.log"))
    assert trees.differences(made_here(plain), made_here(restored)) == []


@pytest.mark.parametrize("order", ["inode", "physical"])
def test_other_orders_bring_the_same_back(
    image: Path, source: dict[str, dict[str, Any]], tmp_path: Path, order: str
) -> None:
    assert run(image, f"file:{tmp_path}/t.tap", order=order, segment_size=32 << 20).complete

    with open_drive(f"file:{tmp_path}/t.tap") as drive:
        assert restore(drive, tmp_path / "to").problems.listed == []
    restored = trees.tree(tmp_path / "to")
    # which of its names is an inode's first one depends on the order of reading alone
    assert trees.differences(source, restored) == []


def test_the_command_line_backs_up_lists_and_restores(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, url = ["--state", str(tmp_path / "state")], f"file:{tmp_path}/t.tap"
    arguments = ["--device", str(image), "--tape", url, "--segment-size", "4M", "--block-size", "64K", "--json"]

    assert main([*state, "backup", *arguments, "contents", "large"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["kind"], last["state"], last["window_ms"]) == ("backup", "complete", None)
    assert {"id", "files", "bytes", "tape_blocks", "seconds", "mb_per_s", "underruns", "crc32c"} <= last.keys()
    assert main([*state, "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == last["id"]
    assert main([*state, "restore", "--to", str(tmp_path / "to"), "contents/size1*", "--json"]) == 0
    restored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert restored["tape_blocks"] <= 12
    assert {p.name for p in (tmp_path / "to/contents").iterdir()} == {
        "size1",
        "size1023",
        "size1024",
        "size1025",
        "size100000",
    }
    assert main([*state, "backup", *arguments]) == 4
    assert "--overwrite" in capsys.readouterr().err
    assert main([*state, "backup", *arguments, "--overwrite", "contents"]) == 0


def test_a_backup_to_null_leaves_no_trace(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(tmp_path), "backup", "--device", str(image), "--tape", "null:", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["state"] == "complete"
    assert list(tmp_path.iterdir()) == []


# What goes wrong.


def partly(source: dict[str, dict[str, Any]], to: Path) -> None:
    """What was restored is right, and nothing unverified bears its own name."""
    restored = trees.tree(to, (".splitreel",))
    contents = {path: record["content"] for path, record in restored.items() if "content" in record}
    assert contents
    for path, digest in contents.items():
        assert ".splitreel-" in path or digest == source[path]["content"], path


@pytest.mark.parametrize("megabytes", [5, 8, 11, 14, 20])
def test_a_full_tape_holds_what_it_says_it_holds(
    image: Path, source: dict[str, dict[str, Any]], tmp_path: Path, megabytes: int
) -> None:
    url = f"file:{tmp_path}/t.tap"
    with pytest.raises(Incomplete) as raised:
        run(image, f"{url}?size={megabytes}M&ew=1M", tmp_path)
    assert raised.value.exit_code == 4
    result = raised.value.result
    assert (result.state, result.segments > 0) == ("incomplete", True)

    with open_drive(url) as drive:
        verdict = verify(drive)
        outcome = restore(drive, tmp_path / "to")
    assert [why for _, path, why in verdict.findings] == [
        "the backup did not run to its end: it holds the segments listed, and no more"
    ]
    assert verdict.files == result.files
    assert not outcome.complete
    partly(source, tmp_path / "to")
    with Catalog(tmp_path) as catalog:
        kept = catalog.backup(result.id)
        members = list(catalog.members(catalog.volume(kept.id)[0]))
        assert (kept.state, kept.files) == ("incomplete", result.files)
        assert [s.number for s in catalog.segments(1)] == list(range(1, result.segments + 1))
    assert sum(m.type == "file" and (m.part or (1,))[0] == 1 for m in members) == result.files


def test_a_tape_with_no_room_behind_early_warning_still_gives_what_was_synchronised(
    image: Path, source: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    url = f"file:{tmp_path}/t.tap"
    with pytest.raises(errors.EndOfMedium):
        run(image, f"{url}?size=10M&ew=1", tmp_path)

    with open_drive(url) as drive:
        outcome = restore(drive, tmp_path / "to")
    assert not outcome.complete
    partly(source, tmp_path / "to")


def test_a_write_protected_tape_is_refused_before_anything_is_written(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_drive(f"file:{tmp_path}/t.tap")
    opened.transport.write_protected = True  # type: ignore[attr-defined]
    monkeypatch.setattr(backup_module, "open_drive", lambda url: opened)

    with pytest.raises(errors.WriteProtected) as raised:
        run(image, f"file:{tmp_path}/t.tap", tmp_path)

    assert raised.value.exit_code == 4
    with Catalog(tmp_path) as catalog:
        assert catalog.backups() == []


def faulty(tape: Path, monkeypatch: pytest.MonkeyPatch, kind: str, after: int) -> None:
    opened = open_drive(f"file:{tape}")
    opened.transport.inject(kind, after)  # type: ignore[attr-defined]
    monkeypatch.setattr(backup_module, "open_drive", lambda url: opened)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("transport-after", errors.TransportError),
        ("transport-before", errors.TransportError),
        ("write-error", errors.CheckCondition),
        ("deferred-error", errors.DeferredError),
        ("reset", errors.UnitAttention),
    ],
)
def test_a_drive_that_fails_in_mid_stream_leaves_the_catalog_true(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: type[errors.SplitreelError]
) -> None:
    faulty(tmp_path / "t.tap", monkeypatch, kind, 300)

    with pytest.raises(error):
        run(image, f"file:{tmp_path}/t.tap", tmp_path, sync_segments=1)

    monkeypatch.undo()
    with Catalog(tmp_path) as catalog:
        kept = catalog.backups()[-1]
        segments = catalog.segments(catalog.volume(kept.id)[0])
    assert kept.state == "incomplete"
    assert kept.reason
    assert segments
    with open_drive(f"file:{tmp_path}/t.tap") as drive:
        verdict = verify(drive)
        damaged = {number for number, _, _ in verdict.findings if number}
    assert verdict.segments >= len(segments)
    assert not damaged & {s.number for s in segments}


@pytest.mark.parametrize(("sync_segments", "kept"), [(2, 6), (100, 0)])
def test_the_catalog_lists_only_what_a_synchronise_has_confirmed(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync_segments: int, kept: int
) -> None:
    faulty(tmp_path / "t.tap", monkeypatch, "transport-after", 2 + 64 * 5)

    with pytest.raises(errors.TransportError):
        run(image, f"file:{tmp_path}/t.tap", tmp_path, sync_segments=sync_segments)

    with Catalog(tmp_path) as catalog:
        volume = catalog.volume(catalog.backups()[-1].id)[0]
        segments = catalog.segments(volume)
        assert len(segments) % sync_segments == 0
        assert len(segments) <= kept
        assert {m.segment for m in catalog.members(volume)} == {s.number for s in segments}


def test_a_drive_that_stands_elsewhere_than_planned_is_no_success(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_drive(f"file:{tmp_path}/t.tap")
    position = opened.position

    def behind() -> Any:
        found = position()
        return replace(found, object_id=found.object_id - 1) if found.object_id > 100 else found

    monkeypatch.setattr(opened, "position", behind)
    monkeypatch.setattr(backup_module, "open_drive", lambda url: opened)

    with pytest.raises(errors.PositionLost):
        run(image, f"file:{tmp_path}/t.tap", tmp_path, sync_segments=1000)
    with Catalog(tmp_path) as catalog:
        kept = catalog.backups()[-1]
        assert kept.state == "incomplete"
        assert catalog.segments(catalog.volume(kept.id)[0]) == []


def test_ctrl_c_keeps_the_whole_segments_and_says_so(
    image: Path, source: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    url = f"file:{tmp_path}/t.tap"
    seen: list[int] = []

    def interrupt(progress: Any) -> None:
        seen.append(progress["segment"])
        if progress["segment"] > 2 and not any(segment > 2 for segment in seen[:-1]):
            os.kill(os.getpid(), 2)

    with (
        pytest.MonkeyPatch.context() as patched,
        BlockDevice(image) as device,
        TapeBackup(options(url), tmp_path) as made,
    ):
        patched.setattr("splitreel.backup.run.POLL_SECONDS", 0.0005)
        with pytest.raises(KeyboardInterrupt):
            made.run(device, map_device(device), progress=interrupt)

    with open_drive(url) as drive:
        verdict = verify(drive)
        restore(drive, tmp_path / "to")
    assert {number for number, _, _ in verdict.findings} == {0}
    assert made.result is not None
    assert (made.result.state, made.result.segments) == ("incomplete", verdict.segments)
    partly(source, tmp_path / "to")


def test_a_device_that_does_not_read_ends_the_backup_with_its_inode(image: Path, tmp_path: Path) -> None:
    with BlockDevice(image) as device:
        mapped = map_device(device)
    cut = tmp_path / "cut.img"
    subprocess.run(["cp", "--sparse=always", image, cut], check=True)
    os.truncate(cut, 24 << 20)

    with (
        BlockDevice(cut) as device,
        TapeBackup(options(f"file:{tmp_path}/t.tap"), tmp_path) as made,
        pytest.raises(errors.DeviceError) as raised,
    ):
        made.run(device, mapped)

    assert raised.value.exit_code == 1
    with open_drive(f"file:{tmp_path}/t.tap") as drive:
        assert {number for number, _, _ in verify(drive).findings} == {0}


def test_a_full_catalog_disk_does_not_harm_the_tape(image: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", state], check=True)
    try:
        result = run(image, f"file:{tmp_path}/t.tap", state)
    finally:
        support.unmount(state)

    assert result.complete
    assert isinstance(result.catalog_error, errors.CatalogError)
    assert "rebuild" in result.catalog_error.advice
    with open_drive(f"file:{tmp_path}/t.tap") as drive:
        assert verify(drive).sound


def test_a_tape_that_was_labelled_keeps_its_name(image: Path, tmp_path: Path) -> None:
    url = f"file:{tmp_path}/t.tap"
    assert main(["tape", "label", url, "--name", "ABC123"]) == 0

    result = run(image, url)

    assert result.volume == "ABC123"
    with pytest.raises(errors.WrongTape):
        run(image, url)
    assert main(["tape", "label", url]) == 4
    assert run(image, url, overwrite=True, volume="NEW").volume == "NEW"


def test_a_tape_of_somebody_else_is_never_overwritten_unasked(image: Path, tmp_path: Path) -> None:
    url = f"file:{tmp_path}/t.tap"
    with open_drive(url) as drive:
        drive.tape.write(tarfile.TarInfo("precious").tobuf(tarfile.USTAR_FORMAT))

    for allowed in ({}, {"overwrite": True}):
        with pytest.raises(errors.WrongTape, match="tar archive"):
            run(image, url, **allowed)
    assert run(image, url, force=True).complete


@pytest.mark.parametrize("size", [1000, 4096 * 3 + 1, 1 << 30])
def test_a_block_size_the_path_cannot_carry_is_a_usage_error(image: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(errors.UsageError) as raised:
        run(image, f"file:{tmp_path}/t.tap", block_size=size)
    assert raised.value.exit_code == 2


def test_the_catalog_of_a_backup_and_that_of_its_tape_are_the_same(
    image: Path, tmp_path: Path, capsysbinary: Any
) -> None:
    url = f"file:{tmp_path}/t.tap"
    run(image, url, tmp_path, redo={"backup_label": b"x"})
    assert main(["--state", str(tmp_path / "other"), "catalog", "rebuild", "--tape", url]) == 0
    capsysbinary.readouterr()

    exported = []
    for state in (tmp_path, tmp_path / "other"):
        assert main(["--state", str(state), "catalog", "export"]) == 0
        exported.append(capsysbinary.readouterr().out)
    assert exported[0] == exported[1]


def test_a_damaged_file_is_left_out_named_and_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ext4_images.need_ext4()
    damaged = ext4_images.make_image(tmp_path / "d.img", 16)
    with ext4_images.mounted(damaged) as point:
        (point / "good").write_bytes(b"good" * 1000)
        (point / "bad").write_bytes(b"bad" * 1000)
    subprocess.run(
        ["debugfs", "-w", "-R", "set_inode_field bad checksum 0x1234", damaged], check=True, capture_output=True
    )
    subprocess.run(["debugfs", "-w", "-R", "set_inode_field bad block[0] 0", damaged], check=True, capture_output=True)
    url, state = f"file:{tmp_path}/t.tap", ["--state", str(tmp_path / "s")]

    assert main([*state, "backup", "--device", str(damaged), "--tape", url, "--json"]) == 3
    captured = capsys.readouterr()
    assert "left out: bad" in captured.err or "damaged" in captured.err
    assert main(["restore", "--tape", url, "--to", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to/good").read_bytes() == b"good" * 1000
    assert main([*state, "backup", "--device", str(damaged), "--tape", url, "--overwrite", "--strict"]) == 3


@pytest.mark.tgtd
def test_the_same_over_iscsi_to_a_drive_without_locate(
    image: Path, source: dict[str, dict[str, Any]], tmp_path: Path, tgtd_drive: Any
) -> None:
    result = run(image, tgtd_drive.url)
    assert result.complete

    with open_drive(tgtd_drive.url) as drive:
        assert verify(drive).findings == []
        whole = restore(drive, tmp_path / "to")
        some = restore(drive, tmp_path / "some", ["contents/size4097", "large"])
    assert whole.problems.listed == []
    assert trees.differences(source, trees.tree(tmp_path / "to")) == []
    assert some.problems.listed == []
    assert (tmp_path / "some/large").read_bytes() == (tmp_path / "to/large").read_bytes()


def test_labels_name_the_block_size_that_was_written(tape: Path) -> None:
    with open_drive(f"file:{tape}") as drive:
        found = verify(drive).label

    assert isinstance(found, Label)
    assert (found.block_size, found.segment_size) == (BLOCK, SEGMENT)
