"""probe says what a device holds by its first blocks. It reads nothing else, and decides on no reader."""

from dataclasses import dataclass

from splitreel.core.device import BlockDevice


@dataclass(frozen=True)
class Signature:
    """Bytes that stand at an offset when a device holds ``kind``."""

    kind: str
    offset: int
    magic: bytes


# Containers and file systems, each by the bytes that its own specification gives. Where two match, the first is named:
# mdadm leaves the superblock of the file system that was there before it, and boot sectors survive everything.
SIGNATURES = (
    Signature("xfs", 0, b"XFSB"),
    Signature("LUKS", 0, b"LUKS\xba\xbe"),
    Signature("Oracle ASM disk", 32, b"ORCLDISK"),
    Signature("LVM snapshot store", 0, b"SnAp\x01\x00\x00\x00"),
    Signature("VDO", 0, b"dmvdo001"),
    Signature("dm-integrity", 0, b"integrt\0"),
    Signature("BitLocker", 3, b"-FVE-FS-"),
    *(Signature("LVM2 member", 512 * sector + 24, b"LVM2 001") for sector in range(4)),
    Signature("Linux RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    Signature("Linux RAID member", 0, b"\xfc\x4e\x2b\xa9"),
    Signature("bcache", 4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
    Signature("bcachefs", 4096 + 24, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef")),
    Signature("ext", 1080, b"\x53\xef"),
    *(Signature("swap", page - 10, magic) for page in (4096, 16384, 65536) for magic in (b"SWAPSPACE2", b"SWAP-SPACE")),
    Signature("btrfs", 65536 + 64, b"_BHRfS_M"),
    Signature("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    Signature("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    Signature("nilfs2", 1024 + 6, b"\x34\x34"),
    Signature("jfs", 32768, b"JFS1"),
    Signature("gfs2", 65536, b"\x01\x16\x19\x70"),
    Signature("ocfs2", 8192, b"OCFSV2"),
    Signature("reiserfs", 65536 + 52, b"ReIsEr"),
    Signature("squashfs", 0, b"hsqs"),
    Signature("iso9660", 32769, b"CD001"),
    Signature("ntfs", 3, b"NTFS    "),
    Signature("exfat", 3, b"EXFAT   "),
    Signature("vfat", 82, b"FAT32   "),
    Signature("vfat", 54, b"FAT16   "),
    Signature("vfat", 54, b"FAT12   "),
    Signature("GPT partition table", 512, b"EFI PART"),
    Signature("GPT partition table", 4096, b"EFI PART"),
    Signature("DOS partition table", 510, b"\x55\xaa"),
)
PROBED_SIZE = 128 << 10


def probe(device: BlockDevice) -> str | None:
    """What the device holds: "ext" (ext2, ext3 or ext4), "xfs", "LVM2 member", "swap" ..., or None if nothing known."""
    head = device.pread(0, min(PROBED_SIZE, device.size))
    for signature in SIGNATURES:
        if head[signature.offset : signature.offset + len(signature.magic)] == signature.magic:
            return signature.kind
    return None
