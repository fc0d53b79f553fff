"""fillers put files into a mounted file system: every kind, size, layout, name and attribute. They compare nothing.

A filler takes the mount point and the file system's block size, and works inside a folder of its own. What a file
system cannot take is no filler's guess: ``table`` says which fillers an image gets.
"""

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy

from tests import ext4_images
from tests.ext4_images import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, fallocate

Filler = Callable[[Path, int], None]

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
FS_IOC_SET_ENCRYPTION_POLICY, FS_IOC_ADD_ENCRYPTION_KEY = 0x800C6613, 0xC0506617
FS_IOC_ENABLE_VERITY = 0x40806685
FICLONERANGE = 0x4020940D
FALLOC_COLLAPSE_RANGE, FALLOC_ZERO_RANGE, FALLOC_INSERT_RANGE = 0x08, 0x10, 0x20
SYNC_FL, IMMUTABLE_FL, APPEND_FL, NODUMP_FL, NOATIME_FL = 0x08, 0x10, 0x20, 0x40, 0x80
CASEFOLD_FL = 0x40000000
XFLAG_PROJINHERIT = 0x200


def pattern(size: int, salt: int = 0) -> bytes:
    """Bytes that tell where they belong: a block in the wrong place shows. None of its words is zero."""
    return (numpy.arange(-(-size // 8), dtype="<u8") + ((salt % 99_991 + 1) << 40)).tobytes()[:size]


def folder_of(root: Path, name: str) -> Path:
    (root / name).mkdir()
    return root / name


def basic(root: Path, block_size: int) -> None:
    """Sizes, kinds, names, owners, modes, times, attributes."""
    ext4_images.fill(root)


def few(root: Path, block_size: int) -> None:
    """Something of everything, for images that are kept: they shall be small when compressed."""
    folder = folder_of(root, "few")
    ext4_images.fill_kinds(folder / "kinds")
    ext4_images.fill_attributes(folder / "attributes")
    for size in (0, 1, block_size - 1, block_size, block_size + 1, 40 * block_size + 3):
        (folder / f"size{size}").write_bytes(pattern(size))
    ext4_images.write_alternate(folder / "sparse", 120, block_size)
    (folder / "unwritten").touch()
    with open(folder / "unwritten", "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 30 * block_size)
        os.pwrite(file.fileno(), pattern(block_size), 9 * block_size)
    for count in (3, 40, 400):
        below = folder_of(folder, f"names{count}")
        for number in range(count):
            os.link(folder / "size1", below / f"{number}{'n' * (number % 40)}")


def few_xattrs(root: Path, block_size: int) -> None:
    """Attributes of every kind, and in numbers."""
    ext4_images.fill_xattrs(root / "xattrs")
    (root / "several_xattrs").touch()
    for number in range(200):
        try:
            os.setxattr(root / "several_xattrs", f"user.attribute {number}", b"v" * (number % 90))
        except OSError:  # ext4 has a block for them, XFS a tree
            break


def plain(root: Path, block_size: int) -> None:
    """What a file system of revision 0 can hold without becoming one of revision 1: no attributes, nothing large."""
    folder = folder_of(root, "plain")
    ext4_images.fill_kinds(folder / "kinds")
    ext4_images.fill_names(folder / "names")
    for size in (0, 1, block_size - 1, block_size, block_size + 1, 13 * block_size, 300 * block_size + 7):
        (folder / f"size{size}").write_bytes(pattern(size))


def boundaries(root: Path, block_size: int) -> None:
    """A block on either side of each level of indirect blocks, alone and together; sizes round whole blocks."""
    folder = folder_of(root, "boundaries")
    per_block = block_size // 4
    edges = [12, 12 + per_block, 12 + per_block + per_block**2]
    for edge in edges:
        for block in (edge - 2, edge - 1, edge, edge + per_block):
            with open(folder / f"block{block}", "wb") as file:
                file.seek(block * block_size)
                file.write(pattern(block_size, block))
    with open(folder / "all", "wb") as file:
        for edge in edges:
            file.seek((edge - 1) * block_size)
            file.write(pattern(2 * block_size, edge))
    for blocks in (1, 2, 12, 13, 40):
        for more in (-1, 0, 1):
            (folder / f"size{blocks}{more:+}").write_bytes(pattern(blocks * block_size + more))


def huge(root: Path, block_size: int) -> None:
    """Sparse files as long as a file can be, with and without data at the end."""
    folder = folder_of(root, "huge")
    for power in (31, 32, 33, 39, 41, 43, 44, 45, 53, 59, 62):
        with open(folder / f"hole{power}", "wb") as file:
            try:
                file.truncate((1 << power) + 1)
                file.seek(1 << power)
                file.write(b"e")
            except OSError:  # the longest that this file system takes lies below
                continue


def punched(root: Path, block_size: int) -> None:
    """Files of many extents: holes, blocks written in turn, unwritten between written, growth of several files."""
    folder = folder_of(root, "punched")
    for blocks in (6, 60, 900):
        ext4_images.write_alternate(folder / f"sparse{blocks}", blocks, block_size)
    for blocks in (60, 400):
        ext4_images.punch_alternate(folder / f"punched{blocks}", blocks, block_size)
    with open(folder / "unwritten", "wb") as file:
        fallocate(file.fileno(), 0, 0, 300 * block_size)
        for block in range(0, 300, 3):
            os.pwrite(file.fileno(), pattern(block_size, block), block * block_size)
    names = [os.open(folder / name, os.O_CREAT | os.O_WRONLY) for name in ("one", "two", "three")]
    for block in range(12):
        for number, file in enumerate(names):
            os.pwrite(file, pattern(3 * block_size, block * 10 + number), 3 * block * block_size)
            os.fdatasync(file)
    for file in names:
        os.close(file)


def very_punched(root: Path, block_size: int) -> None:
    """A file of so many extents that their tree has a level more than others'."""
    ext4_images.write_alternate(folder_of(root, "very_punched") / "file", 60_000, block_size)


def ranges(root: Path, block_size: int) -> None:
    """What fallocate leaves behind: inserted, collapsed, zeroed ranges; space kept beyond the end."""
    folder = folder_of(root, "ranges")
    step = 65536  # a multiple of every cluster that gets this filler
    for name, mode in (
        ("inserted", FALLOC_INSERT_RANGE),
        ("collapsed", FALLOC_COLLAPSE_RANGE),
        ("zeroed", FALLOC_ZERO_RANGE),
        ("zeroed_keep", FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE),
        ("punched", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE),
    ):
        with open(folder / name, "wb") as file:
            file.write(pattern(20 * step + 77))
            file.flush()
            fallocate(file.fileno(), mode, 4 * step, 8 * step)
    for size in (1, step - 1, step, 3 * step + 5):
        with open(folder / f"kept{size}", "wb") as file:
            file.write(pattern(size))
            file.flush()
            fallocate(file.fileno(), FALLOC_KEEP_SIZE, 0, 10 * step)


def big_directories(root: Path, block_size: int) -> None:
    """Directories of every size and form, holes from deleted entries among them, and names of every length."""
    folder = folder_of(root, "directories")
    for count in (1, 5, 30, 100, 400, 3000):
        below = folder_of(folder, f"n{count}")
        for number in range(count):
            os.close(os.open(below / f"{number}", os.O_CREAT | os.O_WRONLY))
    lengths = folder_of(folder, "lengths")
    for length in range(1, 256):
        (lengths / ("l" * length)).touch()
    sparse = folder_of(folder, "deleted")
    for number in range(900):
        (sparse / f"{number:03}{'x' * 60}").touch()
    for number in range(900):
        if number % 7:
            (sparse / f"{number:03}{'x' * 60}").unlink()
    emptied = folder_of(folder, "emptied")
    for number in range(300):
        (emptied / f"{number:03}{'x' * 100}").touch()
    for path in list(emptied.iterdir()):
        path.unlink()
    renamed = folder_of(folder, "renamed")
    for number in range(50):
        (renamed / f"a{number}").touch()
        (renamed / f"a{number}").rename(renamed / f"a longer name than it had before {number}")


def names_by_thousands(root: Path, block_size: int) -> None:
    """One directory with so many long names that its hash tree has three levels in blocks of 1 KiB."""
    folder = folder_of(root, "names_by_thousands")
    (folder / "file").touch()
    for number in range(50_000):
        os.link(folder / "file", f"{folder}/{number:06}{'n' * 249}")


def spread(root: Path, block_size: int) -> None:
    """Directories at the top, which both families put into groups of their own, and a file in each.

    ext4 takes blocks from groups whose bitmaps it has in memory first: all of them are, once it was asked about them.
    """
    device = root.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    groups = Path("/proc/fs/ext4", name, "mb_groups")
    if groups.exists():
        groups.read_bytes()
    for number in range(150):
        below = folder_of(root, f"spread{number}")
        (below / "file").write_bytes(pattern(3 * block_size, number))


def many_directories(root: Path, block_size: int) -> None:
    """More directories in one than a link count holds: it is 1 from then on."""
    folder = folder_of(root, "many_directories")
    for number in range(65_100):
        (folder / f"{number}").mkdir()


def scattered(root: Path, block_size: int) -> None:
    """So little free space in one piece that inodes are allocated half a chunk at a time."""
    folder = folder_of(root, "scattered")
    number = 0
    try:
        for number in range(100_000):
            (folder / f"filler{number}").write_bytes(pattern(4 * block_size, number))
    except OSError:
        (folder / f"filler{number}").unlink(missing_ok=True)
    os.sync()
    for spare in range(0, number, 2):
        (folder / f"filler{spare}").unlink()
    os.sync()
    for small in range(6000):
        (folder / f"small{small}").touch()


def links(root: Path, block_size: int) -> None:
    """Names of one inode in many directories; directories with many below them."""
    folder = folder_of(root, "links")
    (folder / "file").write_bytes(pattern(5000))
    for number in range(300):
        below = folder_of(folder, f"d{number}")
        os.link(folder / "file", below / "file")
    for length in (*range(1, 70), 100, 200, block_size - 57, block_size - 56, block_size - 1, 1022, 1023, 4095):
        if 0 < length < min(block_size, 4096):
            try:
                (folder / f"symlink{length}").symlink_to("t" * length)
            except OSError:  # XFS takes 1023 at most
                continue


def deep(root: Path, block_size: int) -> None:
    """Directories more than 1000 levels deep, with a file at the bottom; the path is longer than PATH_MAX."""
    descriptor = os.open(folder_of(root, "deep"), os.O_RDONLY)
    for level in range(1100):
        name = b"%04d" % level
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    file = os.open(b"bottom", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=descriptor)
    os.write(file, pattern(10_000))
    os.close(file)
    os.close(descriptor)


def xattrs(root: Path, block_size: int) -> None:
    """Attributes of every size that fits every file system, and so many that inode and block are full."""
    folder = folder_of(root, "more_xattrs")
    for size in (*range(0, 100, 3), 150, 255, 256, 257, block_size // 2, block_size - 100):
        (folder / f"size{size}").touch()
        os.setxattr(folder / f"size{size}", "user.v", pattern(size))
    for length in (1, 2, 3, 4, 100, 249, 250):
        (folder / f"name{length}").touch()
        os.setxattr(folder / f"name{length}", "user." + "n" * length, b"value")
    full = folder / "full"
    full.touch()
    for number in range(1000):
        try:
            os.setxattr(full, f"user.{number}", b"v" * 20)
            os.setxattr(full, f"trusted.{number}", b"w" * 5)
        except OSError:
            break
    for number in range(0, 1000, 3):
        if f"user.{number}" in os.listxattr(full):
            os.removexattr(full, f"user.{number}")
    (folder / "bytes").touch()
    os.setxattr(folder / "bytes", b"user.\xff\xfe\n", b"\x00" * 8)
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    (folder / "capability").touch()
    os.setxattr(folder / "capability", "security.capability", capability)
    for kind, make in (("fifo", os.mkfifo), ("directory", os.mkdir)):
        make(folder / kind)
        os.setxattr(folder / kind, "trusted.kind", pattern(block_size // 3))


def big_xattrs(root: Path, block_size: int) -> None:
    """Values up to 64 KiB, and hundreds of them: only XFS and ext4 with ea_inode take these."""
    folder = folder_of(root, "big_xattrs")
    for size in (1000, 2000, 3000, 4000, 4096, 5000, 10_000, 40_000, 65_535, 65_536):
        (folder / f"size{size}").touch()
        os.setxattr(folder / f"size{size}", "user.v", pattern(size))
    (folder / "several").touch()
    for number in range(5):
        os.setxattr(folder / "several", f"user.{number}", pattern(20_000, number))
    (folder / "data").write_bytes(pattern(100_000))
    os.setxattr(folder / "data", "user.v", pattern(30_000))
    for number in range(3):  # equal values
        (folder / f"same{number}").touch()
        os.setxattr(folder / f"same{number}", "user.v", b"s" * 9000)


def many_xattrs(root: Path, block_size: int) -> None:
    """So many attributes that their index becomes a tree, and its own extents one too."""
    folder = folder_of(root, "many_xattrs")
    for count in (40, 300, 3000):
        (folder / f"n{count}").touch()
        for number in range(count):
            os.setxattr(folder / f"n{count}", f"user.attribute {number}", b"v" * (number % 90))
    (folder / "big").touch()
    for number in range(40):
        os.setxattr(folder / "big", f"user.{number}", pattern(8000 + number, number))
    for number in range(0, 40, 3):
        os.removexattr(folder / "big", f"user.{number}")
    for number in range(200, 240):
        os.setxattr(folder / "big", f"user.{number}", pattern(6000, number))


def small_files(root: Path, block_size: int) -> None:
    """Files, directories and symlinks about the sizes that fit an inode, with attributes that compete for the room."""
    folder = folder_of(root, "small_files")
    for size in (*range(0, 220, 3), 59, 60, 61, 400, 600, 700, 800, 900, 950):
        (folder / f"size{size}").write_bytes(pattern(size, size))
    for size in (10, 70, 120, 160):
        (folder / f"attribute{size}").write_bytes(pattern(size))
        os.setxattr(folder / f"attribute{size}", "user.a", b"a" * (170 - size))
        (folder / f"squeezed{size}").touch()
        os.setxattr(folder / f"squeezed{size}", "user.a", b"a" * 60)
        (folder / f"squeezed{size}").write_bytes(pattern(size))
    for size in (20, 100):
        with open(folder / f"grown{size}", "wb") as file:
            file.write(pattern(size))
            file.truncate(size + 30)
        # Not grown again: Linux leaves the old bytes in the inode, and shows zeros only until the next mount.
        with open(folder / f"cut{size}", "wb") as file:
            file.write(pattern(size))
            file.truncate(size // 2)
    for count in range(16):
        below = folder_of(folder, f"entries{count}")
        for number in range(count):
            (below / f"entry{number}").touch()
    for name in ("parent", "parent/child", "parent/child/grandchild"):
        (folder / name).mkdir()
        (folder / name / "file").write_bytes(b"f")
    shrunk = folder_of(folder, "shrunk")
    for number in range(12):
        (shrunk / f"{number}{'n' * 12}").touch()
    for number in range(2, 12):
        (shrunk / f"{number}{'n' * 12}").unlink()


@contextmanager
def directory(path: Path) -> Iterator[int]:
    """A descriptor of a directory, for as long as the block runs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def set_flags(path: Path, flags: int) -> None:
    """FS_IOC_SETFLAGS: add inode flags."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        old = struct.unpack("<I", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8))[:4])[0]
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("<Q", old | flags))
    finally:
        os.close(descriptor)


def set_project(path: Path, project: int, xflags: int = 0) -> None:
    """FS_IOC_FSSETXATTR: project id and flags."""
    descriptor = os.open(path, os.O_RDONLY)
    old = bytearray(fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, bytes(28)))
    struct.pack_into("<I", old, 0, struct.unpack_from("<I", old)[0] | xflags)
    struct.pack_into("<I", old, 12, project)
    fcntl.ioctl(descriptor, FS_IOC_FSSETXATTR, bytes(old))
    os.close(descriptor)


def inode_flags(root: Path, block_size: int) -> None:
    """Immutable, append-only, nodump, noatime, sync."""
    folder = folder_of(root, "flags")
    for name, flag in (("i", IMMUTABLE_FL), ("a", APPEND_FL), ("d", NODUMP_FL), ("A", NOATIME_FL), ("S", SYNC_FL)):
        (folder / name).write_bytes(pattern(3000))
        set_flags(folder / name, flag)
    below = folder_of(folder, "directory")
    (below / "file").touch()
    set_flags(below, IMMUTABLE_FL)


def casefolded(root: Path, block_size: int) -> None:
    """A directory whose names are found whatever their case; on disk they stand as they were given."""
    folder = folder_of(root, "casefolded")
    set_flags(folder, CASEFOLD_FL)
    for number in range(200):
        (folder / f"Name{number}{'N' * (number % 30)}").touch()
    for name in ("ÄÖÜ", "straße", "ﬁ", "x" * 255):
        (folder / name).write_bytes(pattern(10))
    below = folder_of(folder, "Below")
    (below / "File").touch()


def verity(root: Path, block_size: int) -> None:
    """Files with a Merkle tree behind their end, SHA-256 and SHA-512, with and without a salt."""
    folder = folder_of(root, "verity")
    for number, size in enumerate((0, 1, 4095, 4096, 4097, 600_000)):
        path = folder / f"size{size}"
        path.write_bytes(pattern(size))
        salt = ctypes.create_string_buffer(b"salt", 4)
        salted = number % 2 * 4
        request = struct.pack("<IIIIQIIQ88x", 1, 1 + number % 2, 4096, salted, ctypes.addressof(salt), 0, 0, 0)
        with open(path, "rb") as file:
            fcntl.ioctl(file, FS_IOC_ENABLE_VERITY, request)


def encrypted(root: Path, block_size: int) -> None:
    """A directory whose names, contents and targets are encrypted by a key that goes with the mount."""
    folder = folder_of(root, "encrypted")
    request = bytearray(struct.pack("<II32xII32x", 2, 0, 64, 0) + bytes(range(64)))
    with directory(root) as descriptor:
        fcntl.ioctl(descriptor, FS_IOC_ADD_ENCRYPTION_KEY, request)
    with directory(folder) as descriptor:
        aes_256 = (1, 4)  # XTS for contents, CTS for names
        fcntl.ioctl(descriptor, FS_IOC_SET_ENCRYPTION_POLICY, struct.pack("<4B4x", 2, *aes_256, 3) + request[8:24])
    for size in (0, 100, 5000):
        (folder / f"a name that nobody shall read {size}").write_bytes(pattern(size))
    (folder / "link").symlink_to("a target that nobody shall read")
    folder_of(folder, "below")


def projects(root: Path, block_size: int) -> None:
    """Project ids at the ends of their range, and one that is inherited."""
    folder = folder_of(root, "projects")
    for project in (1, 65_536, 2**32 - 2):
        (folder / f"p{project}").write_bytes(pattern(100))
        set_project(folder / f"p{project}", project)
    below = folder_of(folder, "directory")
    set_project(below, 77, XFLAG_PROJINHERIT)
    (below / "inherits").touch()


def clone(source: Path, target: Path, size: int = 0, at: int = 0, to: int = 0) -> None:
    """FICLONERANGE: let target share size bytes (0: to the end) of source."""
    target.touch()
    with open(source, "rb") as one, open(target, "r+b") as other:
        request = struct.pack("<qQQQ", one.fileno(), at, size, to)
        fcntl.ioctl(other.fileno(), FICLONERANGE, request)


def reflinks(root: Path, block_size: int) -> None:
    """Whole files and ranges that share blocks, some written to afterwards, some shared with themselves."""
    folder = folder_of(root, "reflinks")
    (folder / "source").write_bytes(pattern(100 * block_size + 17))
    for name in ("whole", "changed", "second"):
        clone(folder / "source", folder / name)
    with open(folder / "changed", "r+b") as file:
        for block in (0, 7, 8, 50, 100):
            os.pwrite(file.fileno(), pattern(min(block_size, 17), block + 1), block * block_size)
    clone(folder / "source", folder / "part", 10 * block_size, 20 * block_size, 5 * block_size)
    (folder / "itself").write_bytes(pattern(20 * block_size))
    clone(folder / "itself", folder / "itself", 5 * block_size, 0, 30 * block_size)
    (folder / "unshared").write_bytes(pattern(20 * block_size))
    clone(folder / "unshared", folder / "gone")
    (folder / "gone").unlink()


def fragmented_directory(root: Path, block_size: int) -> None:
    """A directory whose blocks lie between those of others and of files."""
    folder = folder_of(root, "fragmented")
    below = [folder_of(folder, f"d{number}") for number in range(6)]
    for number in range(60):
        for directory in below:
            for half in range(3):
                (directory / f"{number:03}{half}{'f' * 200}").touch()
            (directory / f"{number:03}").write_bytes(pattern(block_size, number))
        if number % 10 == 9:
            os.sync()
