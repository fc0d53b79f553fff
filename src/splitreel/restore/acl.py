"""acl turns POSIX ACLs from the text form of pax archives into the extended attributes Linux sets. It sets none."""

import struct

TAGS = {(b"user", False): 0x01, (b"user", True): 0x02, (b"group", False): 0x04, (b"group", True): 0x08}
MASK, OTHER = 0x10, 0x20
UNDEFINED = 0xFFFFFFFF
MAX_ENTRIES = 1 << 13  # 64 KiB of attribute, what the kernel takes
ATTRIBUTES = {"access": b"system.posix_acl_access", "default": b"system.posix_acl_default"}


def _permissions(text: bytes) -> int:
    if len(text) != 3 or any(c not in (letter, 0x2D) for c, letter in zip(text, b"rwx", strict=True)):
        raise ValueError(f"ACL permissions {text!r}")
    return sum(bit for c, bit in zip(text, (4, 2, 1), strict=True) if c != 0x2D)


def encode(text: bytes) -> bytes:
    """The value of ``system.posix_acl_*`` for an ACL in text form with numeric ids (acl(5)), entries by , or newline.

    linux/posix_acl_xattr.h: a version 2, then tag, permissions and id of each entry, sorted by tag and id.

    Raises:
        ValueError: an entry is malformed, or there are too many.
    """
    entries = []
    for item in text.replace(b"\n", b",").split(b","):
        fields = item.split(b"#", 1)[0].strip().split(b":")
        if fields == [b""]:
            continue
        if len(fields) < 3:
            raise ValueError(f"ACL entry {item[:40]!r}")
        entries.append(_entry(fields[0], fields[1], fields[2], fields[3:]))
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"an ACL of {len(entries)} entries")
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))


def _entry(kind: bytes, qualifier: bytes, permissions: bytes, rest: list[bytes]) -> tuple[int, int, int]:
    bits = _permissions(permissions)
    if kind in (b"mask", b"other") and not qualifier:
        return (MASK if kind == b"mask" else OTHER), bits, UNDEFINED
    if (kind, bool(qualifier)) not in TAGS:
        raise ValueError(f"ACL entry {kind[:20]!r}:{qualifier[:20]!r}")
    # star writes names here and the id as a fourth field
    number = rest[0] if rest and rest[0].isdigit() else qualifier
    if qualifier and (not number.isdigit() or int(number) >= UNDEFINED):
        raise ValueError(f"ACL id {number[:20]!r}")
    return TAGS[kind, bool(qualifier)], bits, int(number) if qualifier else UNDEFINED
