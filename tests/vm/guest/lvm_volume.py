"""lvm_volume is a RAID1 logical volume with a file system on it, in the guest. The guest has no udev."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitreel.mirror import lvmreport

from . import parts

GROUP = "guest"
SIZE_MB = 160
REGION_KB = 256
PATIENCE_S = 60  # an emulated processor on a busy machine
MAKE_FILESYSTEM = ("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0")
SETTINGS = """
activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 }
devices {
    obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0
    global_filter=["a|^/dev/vd|","r|.*|"]
}
"""


@dataclass(frozen=True)
class Volume:
    """``name`` is that of LVM ("group/volume"); ``disks`` hold a leg each, ``mount`` the file system."""

    name: str
    device: str
    mount: Path
    disks: tuple[str, ...]

    def settings(self, **changes: Any) -> dict[str, Any]:
        """A job's table for the mirror."""
        return {"type": "lvm", "lv": self.name, "split_timeout_s": PATIENCE_S, **changes}

    def report(self) -> lvmreport.LogicalVolume:
        """The volume as lvs says."""
        fields = ",".join(lvmreport.FIELDS)
        text = parts.run(*("lvs", "-a", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields, GROUP))
        return lvmreport.parse(text, *self.name.split("/"))

    def mismatches(self) -> int:
        """How many sectors differ between the legs, by LVM's own comparison of all of them."""
        parts.run("lvchange", "--syncaction", "check", self.name)
        parts.wait_until(lambda: self.report().action == "idle", "the check does not end")
        return self.report().mismatches


def prepare() -> None:
    """Make LVM work without udev."""
    parts.run("modprobe", "dm-raid")
    Path("/etc/lvm/lvmlocal.conf").write_text(SETTINGS)


def opened(name: str, mount: Path, disks: Sequence[str] = ()) -> Volume:
    """A volume that is there already."""
    return Volume(name, f"/dev/mapper/{name.replace('/', '-')}", mount, tuple(disks))


@contextmanager
def mirrored(mount: Path, disks: list[str]) -> Iterator[Volume]:
    """A group of these disks, and in it a raid1 over the first two, in sync and mounted."""
    prepare()
    parts.run("vgcreate", "-q", "-s", "1M", GROUP, *disks)
    try:
        legs = ("--type", "raid1", "-m1", "--regionsize", f"{REGION_KB}K")
        parts.run("lvcreate", "-y", "-q", "-n", "data", "-L", f"{SIZE_MB}M", *legs, GROUP, *disks[:2])
        volume = opened(f"{GROUP}/data", mount, disks[:2])
        parts.wait_until(lambda: volume.report().is_in_sync, "the legs do not come in sync")
        parts.run(*MAKE_FILESYSTEM, volume.device)
        mount.mkdir(parents=True, exist_ok=True)
        parts.run("mount", volume.device, str(mount))
        try:
            yield volume
        finally:
            parts.run("umount", str(mount))
    finally:
        parts.run("vgremove", "-y", "-q", "-f", GROUP)
        parts.run("pvremove", "-y", "-q", "-ff", *disks)
