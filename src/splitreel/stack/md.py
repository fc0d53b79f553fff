"""md reads Linux software RAID superblocks, 0.90 and 1.0 to 1.2, each at its own place. It puts no array together.

Sources: the kernel's include/uapi/linux/raid/md_p.h; super_90_load and super_1_load in
drivers/md/md.c.
"""

import struct
from dataclasses import dataclass

from splitreel.errors import Corrupt, Unsupported
from splitreel.stack.medium import Medium

MAGIC = 0xA92B4EFC
SECTOR = 512
SUPERBLOCK_SIZE = 4096
MAX_SECTOR = (1 << 64) - 1
SPARE, FAULTY, JOURNAL = 0xFFFF, 0xFFFE, 0xFFFD
LARGEST_ROLES = (SUPERBLOCK_SIZE - 256) // 2
LEVELS = {-1: "linear", 0: "raid0", 1: "raid1", 4: "raid4", 5: "raid5", 6: "raid6", 10: "raid10", -4: "multipath"}
INTEL = b"Intel Raid ISM Cfg Sig. "
DDF = b"\xde\x11\xde\x11"
ADVICE = "Check the member with: mdadm --examine DEVICE"

# feature_map of 1.x
BITMAP, RECOVERY_OFFSET, RESHAPE_ACTIVE, BAD_BLOCKS, REPLACEMENT = 1, 2, 4, 8, 16
NEW_OFFSET, RECOVERY_BITMAP, CLUSTERED, JOURNALED, RAID0_LAYOUT = 64, 128, 256, 512, 4096
KNOWN_FEATURES = 0x1FFF

_SUPER_1 = struct.Struct("<IIII16s32sQiiQiIi")  # up to and with bitmap_offset
_DATA_1 = struct.Struct("<QQQQI4x16sBBHI")  # from data_offset on, at 128
_STATE_1 = struct.Struct("<QQQII")  # utime, events, resync_offset, checksum, max_dev, at 192
_WORDS_90 = struct.Struct("<1024I")
_BAD_BLOCK = struct.Struct("<Q")


@dataclass(frozen=True)
class Superblock:
    """What a member says of itself and its array; bytes. ``role`` is its place in the array."""

    version: str
    uuid: bytes
    name: str
    level: int
    layout: int | None  # of raid0: 1 original, 2 alternate, None unknown
    chunk: int
    devices: int
    role: int
    number: int
    roles: tuple[int, ...]
    events: int
    size: int  # of each member's part in a raid1
    data_offset: int
    data_size: int
    recovery: int | None
    resync: int | None
    bad_blocks: int
    place: int  # of this superblock on the member
    problem: str = ""

    @property
    def level_name(self) -> str:
        """raid1 and so on."""
        return LEVELS.get(self.level, f"level {self.level}")


def find(medium: Medium) -> Superblock | None:
    """The superblock of an array's member, or None where there is none.

    Raises:
        Corrupt: it fails its checks.
    """
    sectors = medium.size // SECTOR
    for version, sector in (("1.2", 8), ("1.1", 0), ("1.0", (sectors - 16) & ~7)):
        if sector >= 0 and sector + 8 <= sectors:
            block = medium.read(sector * SECTOR, SUPERBLOCK_SIZE)
            magic, major = struct.unpack_from("<II", block)
            # Its own place tells it from that of the disk around it, and from a copy at the end of a partition.
            if magic == MAGIC and major == 1 and _DATA_1.unpack_from(block, 128)[2] == sector:
                return _version_1(medium, version, sector, block)
    at = (medium.size & ~0xFFFF) - 0x10000
    if at >= 0:
        block = medium.read(at, SUPERBLOCK_SIZE)
        if struct.unpack_from("<II", block) == (MAGIC, 0):
            return _version_90(medium, at, block)
        if struct.unpack_from(">II", block) == (MAGIC, 0):
            raise Unsupported(f"RAID superblock of {medium.name}", "it is of a big-endian machine")
    return None


def foreign(medium: Medium) -> str | None:
    """The name of another maker's metadata at the end of a member, of a disk in sectors of 512 bytes."""
    end = medium.size // SECTOR * SECTOR
    tail = medium.read(end - 2 * SECTOR, 2 * SECTOR)
    if tail.startswith(INTEL):
        return "Intel Matrix RAID"
    return "DDF RAID" if tail[SECTOR:].startswith(DDF) else None


def _bad(medium: Medium, why: str) -> Corrupt:
    return Corrupt(f"RAID superblock of {medium.name}", why, ADVICE)


def _fold(total: int) -> int:
    return ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF


# 1.x


def _version_1(medium: Medium, version: str, sector: int, block: bytes) -> Superblock:
    _, _, features, _, uuid, name, _, level, layout, size, chunk, devices, _ = _SUPER_1.unpack_from(block)
    offset, data_size, _, recovery, number, _, _, shift, bad_size, bad_offset = _DATA_1.unpack_from(block, 128)
    _, events, resync, checksum, max_dev = _STATE_1.unpack_from(block, 192)
    if max_dev > LARGEST_ROLES:
        raise _bad(medium, f"it has room for {max_dev} devices")
    if _sum_1(block[: 256 + 2 * max_dev]) != checksum:
        raise _bad(medium, "checksum mismatch")
    roles = struct.unpack_from(f"<{max_dev}H", block, 256)
    if not 0 < devices <= LARGEST_ROLES or chunk < 0:
        raise _bad(medium, f"{devices} devices in chunks of {chunk} sectors")
    limit = medium.size // SECTOR if version != "1.0" else sector
    if offset > limit or data_size > limit - offset or size > limit:
        raise _bad(medium, f"data from sector {offset} on, {data_size} sectors, do not fit on the device")
    bad = _bad_blocks(medium, sector, bad_offset, bad_size, shift) if features & BAD_BLOCKS else 0
    return Superblock(
        version=version,
        uuid=uuid,
        name=name.split(b"\0")[0].decode("utf-8", "backslashreplace"),
        level=level,
        layout=layout if features & RAID0_LAYOUT else None,
        chunk=chunk * SECTOR,
        devices=devices,
        role=roles[number] if number < max_dev else SPARE,
        number=number,
        roles=roles,
        events=events,
        size=size * SECTOR,
        data_offset=offset * SECTOR,
        data_size=data_size * SECTOR,
        recovery=recovery if features & RECOVERY_OFFSET else None,
        resync=None if resync == MAX_SECTOR else resync,
        bad_blocks=bad,
        place=sector * SECTOR,
        problem=_feature_problem(features),
    )


def _feature_problem(features: int) -> str:
    """Why an array with these features is not read; "" when it is."""
    if features & (RESHAPE_ACTIVE | NEW_OFFSET):
        return "it is being reshaped"
    if features & REPLACEMENT:
        return "it is a replacement for another member"
    if features & ~KNOWN_FEATURES:
        return f"it has unknown features {features & ~KNOWN_FEATURES:#x}"
    return ""


def _sum_1(block: bytes) -> int:
    """The sum of 32-bit words, and of a last 16-bit one, without the checksum's own."""
    plain = block[:216] + bytes(4) + block[220:]
    words = len(plain) // 4
    total = sum(struct.unpack_from(f"<{words}I", plain))
    if len(plain) % 4:
        total += struct.unpack_from("<H", plain, words * 4)[0]
    return _fold(total)


def _bad_blocks(medium: Medium, sector: int, offset: int, size: int, shift: int) -> int:
    """How many ranges the member's list of bad blocks holds. The list lies ``offset`` sectors from the superblock."""
    signed = offset - (1 << 32) if offset >> 31 else offset
    if not 0 < size <= 256 or shift > 31:
        raise _bad(medium, f"a list of bad blocks of {size} sectors")
    at = sector + signed
    data = medium.read(at * SECTOR, size * SECTOR) if at >= 0 else b""
    count = 0
    for (entry,) in _BAD_BLOCK.iter_unpack(data[: len(data) & ~7]):
        if entry == MAX_SECTOR:
            break
        count += 1 if entry & 0x3FF else 0
    return count


# 0.90


def _version_90(medium: Medium, at: int, block: bytes) -> Superblock:
    words = _WORDS_90.unpack(block)
    total = sum(words) - words[38]
    if _fold(total) != words[38]:
        raise _bad(medium, "checksum mismatch")
    level = words[7] - (1 << 32) if words[7] >> 31 else words[7]
    devices, number = words[10], words[992]
    if not 0 < devices <= 27 or number >= 27:
        raise _bad(medium, f"{devices} devices, this is number {number}")
    roles = tuple(_role_90(words[128 + 32 * index : 160 + 32 * index]) for index in range(27))
    size = words[8] * 1024
    # 0.90 gives members of a raid0 or linear array no size: each is used up to its superblock.
    used = size if level > 0 else at
    if used > at:
        raise _bad(medium, f"{used} bytes of data do not fit before it")
    clean = words[33] & 1
    return Superblock(
        version="0.90",
        uuid=struct.pack("<4I", words[5], *words[13:16]),
        name="",
        level=level,
        layout=None,
        chunk=words[65],
        devices=devices,
        role=_role_90(words[992:1024]),
        number=number,
        roles=roles,
        events=words[40] << 32 | words[39],
        size=size,
        data_offset=0,
        data_size=used,
        recovery=None,
        resync=None if clean and words[43] == 0xFFFFFFFF else words[43] if clean else 0,
        bad_blocks=0,
        place=at,
        problem="it is being reshaped" if words[2] != 90 else "",
    )


def _role_90(descriptor: tuple[int, ...]) -> int:
    """Of a disk descriptor: its place when it is active and in sync."""
    state = descriptor[4]
    if state & 1:
        return FAULTY
    return descriptor[3] & 0xFFFF if state & 6 == 6 else SPARE
