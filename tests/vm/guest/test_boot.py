"""The virtual machine is what its tests take for granted."""

from pathlib import Path

import pytest

from splitreel import selftest

from . import parts


def test_the_root_is_the_hosts_under_a_layer_of_memory() -> None:
    """What is written here is gone with the guest: the host's files are below, read-only."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    kinds = {point: kind for _, point, kind, *_ in mounts}
    assert kinds["/"] == "overlay"
    Path("/etc/written-by-the-guest").write_text("seen by the guest alone")
    shared = {point: options.split(",") for _, point, kind, options, *_ in mounts if kind == "9p"}
    assert [point for point, options in shared.items() if "rw" in options] == ["/run/host"]


def test_the_build_works_under_this_kernel() -> None:
    """The compiled core answers its own known questions here."""
    assert [check for check in selftest.run_selftest() if check.failure] == []


def test_disks_are_told_by_serial() -> None:
    """Four empty disks of the size that was asked for; no other device is ever offered to a test."""
    disks = parts.disks(4)
    assert len(set(disks)) == 4
    for disk in disks:
        sectors = int(Path("/sys/block", Path(disk).name, "size").read_text())
        assert sectors * 512 == 256 << 20


@pytest.mark.parametrize("module", ["dm-raid", "raid1", "ext4", "xfs", "st", "sg", "iscsi_tcp", "loop", "fuse"])
def test_kernel_has_modules(module: str) -> None:
    """What the other tests here load."""
    parts.run("modprobe", module)
