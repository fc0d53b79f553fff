"""Choosing a volume: by what it is named, what is listed, and what is never guessed."""

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from splitreel import stack
from splitreel.__main__ import main
from splitreel.core.device import BlockDevice
from splitreel.errors import NotFound, UsageError
from tests.stack.fixture import unpack
from tests.stack.parts import FILE, blank, content, partitioned, put_ext2, run
from tests.support import need_programs

GPT = "label: gpt\nstart=2048, size=4096\nstart=8192, size=8192\n"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Two partitions, in the first an ext2, in the second nothing known."""
    need_programs("fdisk", "mke2fs")
    path = partitioned(tmp_path / "disk", GPT)
    put_ext2(path, 2048 * 512, tmp_path / "tree")
    return path


def test_the_verbs_read_a_partition(disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state, tape = str(tmp_path / "state"), f"file:{tmp_path / 'tape'}"
    assert main(["cat", str(disk), "file", "--volume", "1", "--frozen"]) == 0
    assert capfd.readouterr().out.encode() == FILE
    assert main(["map", str(disk), "--volume", "1", "--frozen"]) == 0
    assert main(["plan", "--device", str(disk), "--volume", "1", "--frozen"]) == 0
    command = ["backup", "--device", str(disk), "--volume", "1", "--frozen", "--tape", tape, "--state", state]
    assert main(command) == 0
    assert main(["restore", "--tape", tape, "--to", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / "file").read_bytes() == FILE
    assert main(["list", "--state", state]) == 0
    assert f"{disk}:1" in capfd.readouterr().out


def test_a_saved_map_is_one_of_the_volume(disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved, volume = str(tmp_path / "map"), ["--volume", "1", "--frozen"]
    assert main(["map", str(disk), *volume, "--save", saved]) == 0
    command = ["backup", "--device", str(disk), "--map", saved, "--tape", "null:"]
    assert main([*command, *volume]) == 0
    other = partitioned(tmp_path / "other", GPT)
    put_ext2(other, 2048 * 512, tmp_path / "tree")
    command[2] = str(other)
    assert main([*command, *volume]) == 1
    assert "it is of file system" in capfd.readouterr().err


def test_a_disk_with_one_file_system_must_still_be_told(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["map", str(disk)]) == 2
    err = capfd.readouterr().err
    assert re.search(r"--volume 1 +2\.0 MiB  ext\n", err)
    assert re.search(r"--volume 2 +4\.0 MiB  nothing known\n", err)


@pytest.mark.parametrize("volume", ["3", "x", "1:1", "vg0/data", "1:vg0/data", "", "1:", "-1", "٣", "9" * 30])
def test_a_selector_that_names_nothing_lists_what_there_is(disk: Path, volume: str) -> None:
    with pytest.raises(NotFound, match="--volume 1 ") as caught:
        content([disk], volume)
    assert volume in caught.value.what


def test_raw_and_zero_are_all_of_the_device(disk: Path) -> None:
    whole = disk.read_bytes()
    assert content([disk], None, raw=True) == whole
    assert content([disk], "0", raw=False) == whole


def test_a_file_system_on_a_disk_that_once_had_partitions_is_not_guessed(tmp_path: Path) -> None:
    """An old MBR survives mke2fs on some systems; which of the two is alive only its owner knows."""
    need_programs("fdisk", "mke2fs")
    path = blank(tmp_path / "disk", 8 << 20)
    run("mke2fs", "-q", "-t", "ext2", path)
    with (partitioned(tmp_path / "table", "label: dos\nstart=2048, size=4096, type=83\n", 8 << 20)).open("rb") as table:
        head = table.read(512)
    with path.open("r+b") as file:
        file.write(head)
    put_ext2(path, 2048 * 512, tmp_path / "tree")

    with pytest.raises(UsageError, match=r"(?s)--volume 1 .*--volume 0 .*leftover"):
        content([path], None, raw=False)
    assert content([path], "0", raw=False) == path.read_bytes()


def test_the_code_in_a_boot_sector_is_no_partition_table(tmp_path: Path) -> None:
    path = blank(tmp_path / "floppy", 8 << 20)
    with path.open("r+b") as file:
        file.seek(54)
        file.write(b"FAT16   ")
        file.seek(446)
        file.write(bytes(8) + b"\x01\0\0\0\x80\x3e\0\0" + bytes(48) + b"\x55\xaa")

    assert content([path], None, raw=False) == path.read_bytes()


@pytest.mark.parametrize(
    ("offset", "magic", "kind"),
    [
        (0, b"LUKS\xba\xbe\0\2", "LUKS"),
        (4096 - 10, b"SWAPSPACE2", "swap"),
        (4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), "bcache"),
        (32, b"ORCLDISK", "Oracle ASM disk"),
    ],
)
def test_what_a_volume_holds_is_named(
    disk: Path, offset: int, magic: bytes, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with disk.open("r+b") as file:
        file.seek(8192 * 512 + offset)
        file.write(magic)

    assert main(["map", str(disk), "--volume", "2"]) == 1
    err = capfd.readouterr().err
    assert f"it holds {kind}, which is not read" in err
    assert "--raw" in err
    assert main(["map", str(disk)]) == 2
    assert re.search(rf"--volume 2 .* {kind}\n", capfd.readouterr().err)


def test_a_raw_volume_goes_to_tape_as_one_file_and_comes_back(disk: Path, tmp_path: Path) -> None:
    tape = f"file:{tmp_path / 'tape'}"
    with disk.open("r+b") as file:
        file.seek(8192 * 512)
        file.write(b"raw" * 1000)
        file.seek(8192 * 512 + (4 << 20) - 3)
        file.write(b"end")
    command = ["--device", str(disk), "--volume", "2", "--raw", "--tape", tape, "--state", str(tmp_path / "state")]

    assert main(["backup", *command]) == 0
    assert main(["restore", "--tape", tape, "--to", str(tmp_path / "to")]) == 0
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["disk-2"]
    assert (tmp_path / "to" / "disk-2").read_bytes() == disk.read_bytes()[8192 * 512 : 16384 * 512]


def test_a_raw_logical_volume_is_named_for_it(tmp_path: Path) -> None:
    with ExitStack() as held:
        paths = unpack("lvm", tmp_path / "pci-0000:00:1f.2")
        devices = [held.enter_context(BlockDevice(path)) for path in paths]
        assert stack.file_name(stack.open_volume(devices, "vg0/str"), paths[0]) == b"vg0-str"
        assert stack.file_name(devices[0], paths[0]) == b"1"


def test_the_list_of_a_nested_disk_names_each_thing_by_its_selector(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = unpack("nested", tmp_path)[0]
    assert main(["map", str(disk)]) == 2
    err = capfd.readouterr().err
    assert re.search(r"--volume 2 .* raid1 array: LVM2 member of vgmd\n", err)
    assert re.search(r"--volume vgmd/data +1\.0 MiB", err)
    assert main(["map", str(disk), "--volume", "2"]) == 2
    assert re.search(r"--volume vgmd/vm +4\.0 MiB  DOS partition table", capfd.readouterr().err)
    assert main(["map", str(disk), "--volume", "vgmd/vm"]) == 2
    assert re.search(r"--volume vgmd/vm:1 +512\.0 KiB", capfd.readouterr().err)
