"""kernel makes what QEMU boots out of an installed Debian kernel: its ELF image and an initramfs. It boots nothing.

The ELF image is unpacked once and entered by PVH: under emulation the kernel's own decompressor takes 5 seconds.
"""

import gzip
import io
import lzma
import os
import platform
import re
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_blk")  # what it takes to reach the host's root
INIT = Path(__file__).with_name("init")
FOLDERS = ("proc", "sys", "dev", "modules", "lower", "upper", "new")
ELF_MAGIC = b"\x7fELF"
COMPRESSIONS = {b"\xfd7zX": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b\x08": "gzip"}


class Missing(Exception):
    """A part that the virtual machine needs is not on this machine."""


class Unusable(Exception):
    """A part is there and does not do."""


@dataclass(frozen=True)
class Kernel:
    """What QEMU is given."""

    version: str
    image: Path
    initramfs: Path


def prepared() -> Kernel:
    """The newest installed kernel, unpacked in the cache.

    Raises:
        Missing: no kernel, no busybox, or this machine is not of x86-64.
        Unusable: the kernel is of an unknown make.
    """
    if platform.machine() != "x86_64":
        raise Missing(f"the virtual machine is of x86-64, this one of {platform.machine()}")
    busybox = _busybox()
    version = _newest()
    folder = _cache() / version
    folder.mkdir(parents=True, exist_ok=True)
    installed = Path(f"/boot/vmlinuz-{version}")
    image, initramfs = folder / "vmlinux", folder / "initramfs.gz"
    if not _is_newer(image, installed):
        _replace(image, unpacked(installed.read_bytes(), str(installed)))
    if not _is_newer(initramfs, installed, INIT, Path(__file__), busybox):
        _replace(initramfs, gzip.compress(_initramfs(version, busybox), 1))
    return Kernel(version, image, initramfs)


def unpacked(image: bytes, name: str) -> bytes:
    """The ELF image in a bzImage, by the kernel's Documentation/arch/x86/boot.rst.

    Raises:
        Missing: a program that unpacks it.
        Unusable: it is no bzImage of a known compression.
    """
    if image[0x202:0x206] != b"HdrS":
        raise Unusable(f"{name} is no x86 bzImage")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<LL", image, 0x248)
    payload = image[(setup_sectors + 1) * 512 + offset :][:length]
    how = next((how for magic, how in COMPRESSIONS.items() if payload.startswith(magic)), "")
    if how == "xz":
        content = lzma.LZMADecompressor().decompress(payload)
    elif how == "gzip":
        content = gzip.GzipFile(fileobj=io.BytesIO(payload)).read(1 << 28)
    elif how == "zstd":
        content = _zstd(payload)
    else:
        raise Unusable(f"{name} is compressed in an unknown way")
    if not content.startswith(ELF_MAGIC):
        raise Unusable(f"{name} holds no ELF image")
    return content


def _zstd(payload: bytes) -> bytes:
    if shutil.which("zstd") is None:
        raise Missing("zstd is not installed (apt-get install zstd), and the kernel is compressed by it")
    # The kernel's build appends the length: zstd writes everything and then complains of it.
    return subprocess.run(["zstd", "-dcq"], input=payload, capture_output=True, check=False).stdout


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "splitreel" / "vm"


def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise Missing("busybox is not installed (apt-get install busybox-static)")
    content = Path(found).read_bytes()
    if b"/ld-linux" in content[:4096]:
        raise Missing(f"{found} is linked dynamically (apt-get install busybox-static)")
    return Path(found)


def _newest() -> str:
    """The newest kernel that has every module: Debian's cloud kernels are without 9p."""
    versions = [path.name.removeprefix("vmlinuz-") for path in Path("/boot").glob("vmlinuz-*")]
    for version in sorted(versions, key=_natural, reverse=True):
        dependencies = _dependencies(version)
        if all(name in dependencies for name in MODULES):
            return version
    raise Missing("no kernel with its modules is in /boot (apt-get install linux-image-amd64)")


def _natural(version: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", version)]


def _dependencies(version: str) -> dict[str, list[str]]:
    """Module name -> the files to load for it, itself last; built-in modules have none."""
    root = Path("/lib/modules") / version
    found: dict[str, list[str]] = {}
    if not (root / "modules.dep").exists():
        return found
    for line in (root / "modules.builtin").read_text().splitlines():
        found[_name(line)] = []
    for line in (root / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        found[_name(path)] = [str(root / each) for each in (*reversed(needed.split()), path)]
    return found


def _name(path: str) -> str:
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def _initramfs(version: str, busybox: Path) -> bytes:
    dependencies = _dependencies(version)
    order = list(dict.fromkeys(path for name in MODULES for path in dependencies[name]))
    files = {"init": (INIT.read_bytes(), 0o755), "busybox": (busybox.read_bytes(), 0o755)}
    names = []
    for path in order:
        names.append(_name(path) + ".ko")
        files[f"modules/{names[-1]}"] = (_module(Path(path)), 0o644)
    files["modules/order"] = ("".join(f"{name}\n" for name in names).encode(), 0o644)
    return b"".join(_newc(files))


def _module(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    if path.suffix == ".gz":
        return gzip.decompress(content)
    return _zstd(content) if path.suffix == ".zst" else content


def _newc(files: dict[str, tuple[bytes, int]]) -> Iterator[bytes]:
    """A cpio archive of the "new ASCII format", by the kernel's buffer-format.rst."""
    members = [(name, b"", stat.S_IFDIR | 0o755) for name in FOLDERS]
    members += [(name, content, stat.S_IFREG | mode) for name, (content, mode) in files.items()]
    members.append(("TRAILER!!!", b"", 0))
    for inode, (name, content, mode) in enumerate(members, 1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        yield head + bytes(-len(head) % 4)
        yield content + bytes(-len(content) % 4)


def _is_newer(made: Path, *sources: Path) -> bool:
    return made.exists() and all(made.stat().st_mtime >= source.stat().st_mtime for source in sources)


def _replace(path: Path, content: bytes) -> None:
    """Write it whole or not at all: several runs may share the cache."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)
