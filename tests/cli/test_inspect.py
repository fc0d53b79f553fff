"""The verbs map and cat, against what the kernel shows of the same image."""

import base64
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitreel.__main__ import main
from splitreel.cli.inspect import BATCH, json_batches
from splitreel.core.extent import ExtentMap
from tests import ext4_images as images
from tests import oracle

pytestmark = pytest.mark.root
KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFCHR: "chr",
    stat.S_IFBLK: "blk", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "sock",
}  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with all that attributes, names and layouts can be, unmounted."""
    images.need_ext4()
    made = images.make_image(tmp_path_factory.mktemp("inspect") / "image", 96, "-b", "4096")
    with images.mounted(made) as point:
        images.fill(point)
        (point / "damaged").write_bytes(b"d" * 5000)
    return made


@pytest.fixture
def damaged(image: Path, tmp_path: Path) -> Path:
    """The same with one bit of one inode changed."""
    copy = images.copy_sparse(image, tmp_path / "damaged")
    found = re.search(rb"block (\d+), offset 0x([0-9a-f]+)", debugfs("imap damaged", copy))
    assert found is not None
    offset = int(found[1]) * 4096 + int(found[2], 16)
    with copy.open("r+b") as file:
        file.seek(offset + 4)
        size = file.read(1)
        file.seek(offset + 4)
        file.write(bytes([size[0] ^ 1]))
    return copy


def debugfs(request: str, path: Path) -> bytes:
    return subprocess.run(["debugfs", "-R", request, path], check=True, capture_output=True).stdout


def text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def expected(path: bytes, entry: oracle.Entry) -> dict[str, Any]:
    """The contract's line for what the kernel shows; extents as the oracle merges and cuts them."""
    kind = KINDS[stat.S_IFMT(entry.mode)]
    line: dict[str, Any] = {
        "kind": "file", "path": text(path), "type": kind, "ino": entry.inode, "mode": stat.S_IMODE(entry.mode),
        "uid": entry.uid, "gid": entry.gid, "size": entry.size, "nlink": entry.link_count,
        "mtime_ns": entry.mtime_ns, "ctime_ns": entry.ctime_ns,
    }  # fmt: skip
    if kind == "symlink":
        line["target"] = text(entry.target or b"")
    if kind in ("chr", "blk"):
        line["rdev"] = list(entry.rdev)
    if entry.xattrs:
        line["xattrs"] = {name: base64.b64encode(value).decode() for name, value in entry.xattrs.items()}
    if kind in ("file", "dir"):
        line["extents"] = [list(extent) for extent in entry.extents or []]
    return line


def cut(line: dict[str, Any]) -> dict[str, Any]:
    """A printed line with its extents cut at the end of the file, as the oracle's are; a symlink's are left out."""
    if line["type"] == "symlink":
        return {key: value for key, value in line.items() if key != "extents"}
    if "extents" in line:
        rows = [tuple(extent) for extent in line["extents"]]
        line["extents"] = [list(extent) for extent in oracle.merged(rows, line["size"])]
    return line


def test_map_json_is_what_the_kernel_shows(image: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with images.mounted(image, "ro") as point:
        truth = oracle.walk(point)

    code = main(["map", str(image), "--json"])
    out, err = capfdbinary.readouterr()
    head, *lines = [json.loads(line) for line in out.splitlines()]

    assert (code, err) == (0, b"")
    uuid = re.search(rb"Filesystem UUID: +(\S+)", debugfs("stats -h", image))
    assert uuid is not None
    assert head == {
        "kind": "fs", "type": "ext4", "uuid": uuid[1].decode(), "block_size": 4096, "files": len(truth),
    }  # fmt: skip
    assert [os.fsencode(line["path"]) for line in lines] == sorted(truth)
    for line in lines:
        path = os.fsencode(line["path"])
        assert cut(line) == expected(path, truth[path])


def test_map_json_keys_stand_in_one_order(image: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    main(["map", str(image), "--json"])
    first = ["kind", "path", "type", "ino", "mode", "uid", "gid", "size", "nlink", "mtime_ns", "ctime_ns"]
    order = [*first, "target", "rdev", "xattrs", "extents"]

    for line in capfdbinary.readouterr().out.splitlines()[1:]:
        keys = list(json.loads(line))
        assert keys == [key for key in order if key in keys]


def test_map_without_json_is_a_summary_and_stats_go_to_standard_error(
    image: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    code = main(["map", str(image), "--stats", "--save", str(tmp_path / "saved.map")])
    out, err = capfdbinary.readouterr()
    saved = ExtentMap.load(tmp_path / "saved.map")

    assert code == 0
    assert out.startswith(b"ext4 ") and f"{saved.file_count} inodes".encode() in out
    assert re.search(rb"files %d, names %d, extents %d, problems 0, map_seconds \d" % (
        saved.file_count, saved.name_count, saved.extent_count), err)  # fmt: skip


def test_damage_is_reported_and_the_rest_is_mapped(damaged: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code = main(["map", str(damaged), "--json"])
    out, err = capfdbinary.readouterr()
    paths = {json.loads(line)["path"] for line in out.splitlines()[1:]}

    assert code == 3
    assert re.fullmatch(rb"splitreel: damaged: inode \d+, offset \d+: .*checksum.*\n", err)
    assert "contents/size4097" in paths


def test_strict_stops_at_damage(damaged: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code = main(["map", str(damaged), "--json", "--strict"])
    out, err = capfdbinary.readouterr()

    assert (code, out) == (3, b"")
    assert b"inode" in err and b"checksum" in err


def regular_files(point: Path) -> Iterator[Path]:
    for path in sorted((point / "contents").iterdir()):
        if path.stat().st_size < 1 << 23:
            yield path


def test_cat_writes_every_byte(image: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    compared = 0
    with images.mounted(image, "ro") as point:
        truth = {path.name: path.read_bytes() for path in regular_files(point)}
    for name, content in truth.items():
        code = main(["cat", str(image), f"/contents/{name}"])
        out, err = capfdbinary.readouterr()

        assert (code, err, len(out)) == (0, b"", len(content))
        assert out == content
        compared += len(content) > 0
    assert compared > 10


@pytest.mark.parametrize(
    ("path", "code", "why"),
    [
        ("kinds/link1", 2, "symbolic link to t"),
        ("kinds", 2, "of type dir"),
        ("kinds/fifo", 2, "of type fifo"),
        ("absent", 1, "no such path"),
    ],
)
def test_cat_says_why_it_cannot(
    image: Path, capfdbinary: pytest.CaptureFixture[bytes], path: str, code: int, why: str
) -> None:
    assert main(["cat", str(image), path]) == code
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert why in err.decode()


def test_cat_refuses_a_damaged_file(damaged: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["cat", str(damaged), "damaged"]) in (1, 3)
    assert capfdbinary.readouterr().out == b""


@pytest.mark.parametrize("verb", [["map"], ["cat", "x"]])
def test_a_volume_that_is_not_there_is_refused_by_name(
    image: Path, capfdbinary: pytest.CaptureFixture[bytes], verb: list[str]
) -> None:
    assert main([verb[0], "--volume", "vg0/data", str(image), *verb[1:]]) == 1
    assert b"volume vg0/data" in capfdbinary.readouterr().err


def test_what_is_not_read_is_named(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "btrfs"
    path.write_bytes(bytes(65536 + 64) + b"_BHRfS_M" + bytes(1 << 20))

    assert main(["map", str(path)]) == 1
    assert b"it holds btrfs" in capfdbinary.readouterr().err


def test_a_map_of_more_names_than_a_batch_prints_in_order() -> None:
    """Batches and their borders: more names than one batch holds, in the order of their paths."""
    m = ExtentMap("ext4", bytes(16), 4096, 4096 * 1000)
    m.add_file(2, 0o040755)
    m.add_name(0, 0, b"")
    for number in range(2 * BATCH + 5):
        m.add_name(0, m.add_file(number + 10, 0o100644, size=number), b"%d" % number)
    m.finish()
    lines = [json.loads(line) for batch in json_batches(m) for line in batch.splitlines()]

    assert [line["path"] for line in lines] == sorted(["", *(str(n) for n in range(2 * BATCH + 5))])
    assert all(line["size"] == int(line["path"] or 0) for line in lines)
    assert len(np.asarray(m.names)) == len(lines)
