"""linux_tape is a tape drive of the guest's own kernel: st and sg over open-iscsi, to a tgtd in the guest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from splitreel.demo.target import TapeTarget

from . import parts

NODE = Path("/dev/nst0")


@contextmanager
def attached(folder: Path, size_mb: int = 256) -> Iterator[str]:
    """The drive's node, with an empty cartridge in it, for as long as the context lasts."""
    for module in ("sg", "st", "iscsi_tcp"):
        parts.run("modprobe", module)
    for name in ("nodes", "send_targets"):
        parts.run("rm", "-rf", f"/etc/iscsi/{name}", f"/var/lib/iscsi/{name}")
    Path("/etc/iscsi").mkdir(exist_ok=True)
    Path("/etc/iscsi/initiatorname.iscsi").write_text("InitiatorName=iqn.2026-11.splitreel:guest\n")
    with TapeTarget(folder, size_mb=size_mb) as target:
        name = target.url.split("/")[3]
        node = ["iscsiadm", "-m", "node", "-T", name, "-p", f"127.0.0.1:{target.port}"]
        if not _is_running("iscsid"):
            parts.run("iscsid")
        parts.run(*node, "-o", "new")
        try:
            parts.run(*node, "--login")
            parts.wait_until(NODE.exists, f"{NODE} does not appear")
            yield str(NODE)
        finally:
            parts.run(*node, "--logout")


def _is_running(program: str) -> bool:
    for entry in Path("/proc").glob("[0-9]*/comm"):
        try:
            if entry.read_text().strip() == program:
                return True
        except OSError:
            continue
    return False
