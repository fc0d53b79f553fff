"""ext4_images makes ext4 images with mke2fs and fills them through the kernel, by loop mounts. It reads none raw."""

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ext4_surgery import Surgeon
from tests.support import need_programs, need_root, unmount

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2
MEGABYTE = 1 << 20

DEBIAN_12 = ()
CURRENT = ("-O", "metadata_csum_seed,orphan_file")  # what e2fsprogs 1.47.4 adds to its defaults
ACL_ACCESS = struct.pack(
    "<I" + "HHI" * 6, 2, 1, 6, 2**32 - 1, 2, 4, 70000, 4, 4, 2**32 - 1, 8, 6, 70001, 16, 6, 2**32 - 1, 32, 0, 2**32 - 1
)
ACL_MINIMAL = struct.pack("<I" + "HHI" * 3, 2, 1, 7, 2**32 - 1, 4, 5, 2**32 - 1, 32, 5, 2**32 - 1)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def need_ext4() -> None:
    """Skip or fail unless ext4 images can be made and mounted here."""
    need_root()
    need_programs("mke2fs", "mount", "umount", "debugfs")


def make_image(path: Path, megabytes: int, *options: str, kind: str = "ext4") -> Path:
    """A new sparse image of ext2, ext3 or ext4; options are mke2fs's."""
    with open(path, "wb") as image:
        image.truncate(megabytes * MEGABYTE)
    subprocess.run(["mke2fs", "-t", kind, "-q", "-F", *options, os.fspath(path)], check=True, capture_output=True)
    return path


@contextmanager
def mounted(image: Path, options: str = "") -> Iterator[Path]:
    """The image, mounted beside itself for as long as the block runs."""
    point = image.with_suffix(".mnt")
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", f"loop,{options}".rstrip(","), os.fspath(image), os.fspath(point)], check=True)
    try:
        yield point
    finally:
        unmount(point)


@contextmanager
def frozen(point: Path) -> Iterator[None]:
    """The mounted file system, frozen for as long as the block runs."""
    descriptor = os.open(point, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, FITHAW, 0)
    finally:
        os.close(descriptor)


def copy_sparse(source: Path, target: Path) -> Path:
    """A copy of the backing file as it is now: what a split mirror holds."""
    subprocess.run(["cp", "--sparse=always", os.fspath(source), os.fspath(target)], check=True)
    return target


def fallocate(descriptor: int, mode: int, offset: int, size: int) -> None:
    """fallocate(2), which Python has only without a mode."""
    if _libc.fallocate(descriptor, mode, offset, size) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def fill(root: Path) -> None:
    """Everything that attributes, names and small layouts can be."""
    fill_contents(root / "contents")
    fill_kinds(root / "kinds")
    fill_names(root / "names")
    fill_attributes(root / "attributes")
    fill_xattrs(root / "xattrs")


def fill_contents(folder: Path) -> None:
    """Sizes round block boundaries, holes, unwritten extents, space beyond the end, a file that is all hole."""
    folder.mkdir()
    for size in (0, 1, 511, 1023, 1024, 1025, 4095, 4096, 4097, 60, 61, 100_000):
        (folder / f"size{size}").write_bytes(b"s" * size)
    for name, size in (("hole", 3 << 20), ("far", 5 << 31), ("all_hole", 1 << 30)):
        with open(folder / name, "wb") as file:
            if name != "all_hole":
                file.write(b"begin")
                file.seek(size - 3)
                file.write(b"end")
            file.truncate(size)
    with open(folder / "unwritten", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 900_000)
        file.seek(200_000)
        file.write(b"w" * 1000)
    with open(folder / "beyond", "wb") as file:
        file.write(b"b" * 5000)
        try:
            fallocate(file.fileno(), FALLOC_KEEP_SIZE, 0, 400_000)
        except OSError as error:  # files mapped by indirect blocks have none
            if error.errno != errno.EOPNOTSUPP:
                raise


def fill_kinds(folder: Path) -> None:
    """Every file type, symlinks short and long, hard links."""
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    for name, kind, major, minor in (
        ("chr_old", stat.S_IFCHR, 5, 1),
        ("chr_new", stat.S_IFCHR, 300, 70_000),
        ("blk_old", stat.S_IFBLK, 255, 255),
        ("blk_new", stat.S_IFBLK, 4095, 1_048_575),
        ("blk_xfs", stat.S_IFBLK, 511, 262_143),
        ("whiteout", stat.S_IFCHR, 0, 0),
    ):
        try:
            os.mknod(folder / name, kind | 0o600, os.makedev(major, minor))
        except OSError as error:  # XFS takes majors below 512
            if error.errno != errno.EINVAL:
                raise
    with socket.socket(socket.AF_UNIX) as server:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{descriptor}/socket")
        finally:
            os.close(descriptor)
    for size in (1, 59, 60, 61, 255, 1000):
        (folder / f"link{size}").symlink_to("t" * size)
    (folder / "link_bytes").symlink_to(os.fsdecode(b"bytes \xff\xfe\n"))
    (folder / "sub").mkdir()
    (folder / "one").write_bytes(b"one inode, three names")
    os.link(folder / "one", folder / "two")
    os.link(folder / "one", folder / "sub" / "three")


def fill_names(folder: Path) -> None:
    """Names that are no text, a directory with a hash tree, and a path longer than PATH_MAX."""
    folder.mkdir()
    here = os.fsencode(folder)
    for name in (b"\xff\xfe", b"new\nline", b" ", b"-rf", b"\\", b"...", b"n" * 255, "ä€𝄞".encode(), b"*"):
        (folder / os.fsdecode(name)).touch()
    (folder / "many").mkdir()
    for number in range(1500):
        (folder / "many" / f"a name that fills a block soon {number:05}").touch()
    descriptor = os.open(here, os.O_RDONLY)
    for level in range(20):
        os.mkdir(b"%03d" % level + b"d" * 240, dir_fd=descriptor)
        below = os.open(b"%03d" % level + b"d" * 240, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=descriptor))
    os.close(descriptor)


def fill_attributes(folder: Path) -> None:
    """Owners, modes and times at the ends of their ranges."""
    folder.mkdir()
    for uid, gid in ((0, 0), (65_535, 65_536), (70_000, 4_000_000_000), (2**32 - 2, 2**32 - 2)):
        path = folder / f"owner{uid}"
        path.touch()
        os.chown(path, uid, gid)
    for mode in (0o000, 0o777, 0o4755, 0o2755, 0o1777):
        path = folder / f"mode{mode:o}"
        path.touch()
        path.chmod(mode)
    seconds = (0, -1, -(2**31), 2**31 - 1, 2**31, 2**32, 2**33 + 5, 4_294_967_295, 15_032_385_535, 1_600_000_000)
    for number, second in enumerate(seconds):
        path = folder / f"time{number}"
        path.touch()
        os.utime(path, ns=(0, second * 10**9 + 123_456_789))


def fill_xattrs(folder: Path) -> None:
    """In the inode, in a block, in both, in shared blocks; on every kind that takes them; ACLs."""
    folder.mkdir()
    for name in ("small", "large", "both", "empty", "trusted", "security"):
        (folder / name).touch()
    os.setxattr(folder / "small", "user.a", b"1")
    os.setxattr(folder / "large", "user.large", b"L" * 700)
    for number in range(12):
        os.setxattr(folder / "both", f"user.{number:02}", bytes([number]) * (8 + number * 3))
    os.setxattr(folder / "empty", "user.nothing", b"")
    os.setxattr(folder / "trusted", "trusted.t", b"\x00\xff")
    os.setxattr(folder / "security", "security.s", b"label\x00")
    for number in range(5):
        path = folder / f"shared{number}"
        path.touch()
        os.setxattr(path, "user.same", b"S" * 600)
    (folder / "fast_link").symlink_to("target")
    (folder / "slow_link").symlink_to("target" * 30)
    for name in ("fast_link", "slow_link"):
        os.setxattr(folder / name, "trusted.link", b"x" * 500, follow_symlinks=False)
    (folder / "acl").touch()
    os.setxattr(folder / "acl", "system.posix_acl_access", ACL_ACCESS)
    (folder / "acl_folder").mkdir()
    os.setxattr(folder / "acl_folder", "system.posix_acl_default", ACL_ACCESS)
    os.setxattr(folder / "acl_folder", "system.posix_acl_access", ACL_MINIMAL)
    (folder / "acl_folder" / "inherits").touch()


def punch_alternate(path: Path, blocks: int, block_size: int) -> None:
    """A file of which every other block is a hole, so that each block left needs an extent of its own."""
    with open(path, "wb") as file:
        file.write(b"p" * (blocks * block_size))
        file.flush()
        os.fsync(file.fileno())
        for block in range(1, blocks, 2):
            fallocate(file.fileno(), FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, block * block_size, block_size)


def write_blocks(path: Path, block_size: int, logical: Iterable[int], size: int | None = None) -> None:
    """A file with data in these blocks and holes between; a hole at its end when size is larger."""
    with open(path, "wb", buffering=0) as file:
        for block in logical:
            os.pwrite(file.fileno(), struct.pack("<Q", block) * (block_size // 8), block * block_size)
        if size is not None:
            file.truncate(size)


def write_alternate(path: Path, blocks: int, block_size: int) -> None:
    """The same, by writing every other block."""
    with open(path, "wb", buffering=0) as file:
        for block in range(0, blocks, 2):
            os.pwrite(file.fileno(), b"w", block * block_size)
        file.truncate(blocks * block_size)


def nest(surgeon: Surgeon, count: int) -> list[int]:
    """Put a chain of directories named d into the root, by hand: 1 KiB blocks, inodes of 128 bytes, no checksums.

    Bitmaps are left alone. Returns the inode numbers.
    """
    per_group = struct.unpack("<I", surgeon.read(1024 + 40, 4))[0]
    tables = [struct.unpack("<I", surgeon.read(surgeon.group(group) + 8, 4))[0] for group in range(11)]
    inodes = list(range(100, 100 + count))
    spare = (table + per_group // 8 + 64 + i for table in tables for i in range(7000))
    blocks = [block for block, _ in zip(spare, inodes, strict=False)]
    surgeon.write(surgeon.block(2, 0) + 24, struct.pack("<IHBB1s", inodes[0], 1000, 1, 2, b"d"))
    with open(surgeon.image, "r+b") as file:
        for number, block, below in zip(inodes, blocks, [*inodes[1:], 0], strict=True):
            group, index = divmod(number - 1, per_group)
            root = struct.pack("<HHHHIIHHI", 0xF30A, 1, 4, 0, 0, 0, 1, 0, block)
            file.seek(tables[group] * 1024 + index * 128)
            file.write(struct.pack("<HHI16xHHIII", 0o40755, 0, 1024, 0, 2, 2, 0x80000, 0) + root)
            file.seek(block * 1024)
            file.write(
                struct.pack("<IHBB4sIHBB4sIHBB1s", 2, 12, 1, 2, b".", 2, 12, 2, 2, b"..", below, 1000, 1, 2, b"d")
            )
    return inodes
