"""The kernel's answer and the raw reader's are one."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from splitreel.errors import DeviceError
from splitreel.hostmap import map_mounted
from splitreel.mapping import map_device
from tests.support import need_programs, need_root, unmount


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    need_root()
    need_programs("mkfs.ext4", "mount", "umount")
    image, mount_point = tmp_path / "image", tmp_path / "mnt"
    mount_point.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount_point], check=True)
    try:
        yield image, mount_point
    finally:
        unmount(mount_point)


def test_kernel_and_raw_reader_agree_on_every_column(mounted: tuple[Path, Path]) -> None:
    """Names, sizes, modes, times and extents: two independent ways, one map."""
    image, mount_point = mounted
    (mount_point / "dir" / "deeper").mkdir(parents=True)
    (mount_point / "dir" / "deeper" / "sparse").write_bytes(b"a" * 5000)
    with (mount_point / "dir" / "deeper" / "sparse").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"b" * 10_000)
    os.link(mount_point / "dir" / "deeper" / "sparse", mount_point / "second name")
    (mount_point / "link").symlink_to("second name")
    (mount_point / "empty").touch()
    subprocess.run(["mount", "-o", "remount,ro", mount_point], check=True)

    raw = map_device(image)
    host = map_mounted(str(mount_point), raw.fs_type, raw.uuid, raw.block_size, raw.device_size)

    assert sorted(host.paths()) == sorted(raw.paths())
    regular = lambda extents: np.asarray(extents.files)[np.asarray(extents.files)["mode"] >> 12 == 8]  # noqa: E731
    for column in ("inode", "size", "mtime", "ctime", "uid", "gid", "link_count", "mode", "extent_count"):
        assert regular(host)[column].tolist() == regular(raw)[column].tolist(), column
    sparse = host.find(b"second name")
    assert sparse >= 0
    assert host.target(int(np.asarray(host.names)["file"][host.find(b"link")])) == b"second name"


def test_extents_are_those_of_the_raw_reader(mounted: tuple[Path, Path]) -> None:
    image, mount_point = mounted
    for number in range(20):
        (mount_point / f"file-{number}").write_bytes(bytes([number]) * (number * 3000))
    subprocess.run(["mount", "-o", "remount,ro", mount_point], check=True)

    raw = map_device(image)
    host = map_mounted(str(mount_point), raw.fs_type, raw.uuid, raw.block_size, raw.device_size)

    for number in range(20):
        rows = []
        for extents in (host, raw):
            file = np.asarray(extents.files)[np.asarray(extents.names)["file"][extents.find(b"file-%d" % number)]]
            first, count = int(file["first_extent"]), int(file["extent_count"])
            rows.append(np.asarray(extents.extents)[first : first + count].tolist())
        assert rows[0] == rows[1]


def test_a_mount_point_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="through the kernel"):
        map_mounted(str(tmp_path / "absent"), "ext4", bytes(16), 4096, 1 << 30)
