"""target runs a throw-away iSCSI tape on loopback: a tgtd of its own and its cartridges. It does not speak SCSI.

For the demo, tests and measurements, not for data: tgtd lacks LOCATE and READ POSITION, and its cartridges are files.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from splitreel.errors import TapeError

TARGET_NAME = "iqn.2026-11.splitreel"

# tgtd's defaults cost a fair comparison: 8 KiB PDUs (50 system calls for a block of 64 KiB), R2T for every block.
PARAMETERS: dict[str, str | int] = {
    "MaxRecvDataSegmentLength": 1048576,
    "MaxXmitDataSegmentLength": 1048576,
    "FirstBurstLength": 1048576,
    "MaxBurstLength": 16776192,
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxOutstandingR2T": 8,
    "MaxQueueCmd": 128,
}

# Without these glibc maps and unmaps each block's buffer: page faults took half of tgtd's throughput.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}

START_SECONDS = 10.0
STOP_SECONDS = 5.0
PORT_TRIES = 5


@dataclass(frozen=True)
class TargetTape:
    """One tape LUN: its URL, its cartridge file (tgt's own format, ``tgtimg --op show`` lists it) and target id."""

    url: str
    cartridge: Path
    tid: int


class TapeTarget:
    """A tgtd on a free loopback port with one tape; a context manager, ``url`` while it runs. Needs root, as tgtd does.

    One thread at a time, and the one that starts it must live as long. The daemon's log and the cartridges stay in
    ``directory``; its control socket goes.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "tape",
        size_mb: int = 1024,
        readonly: bool = False,
        chap: tuple[str, str] | None = None,
    ) -> None:
        """``size_mb`` is the cartridge's capacity; ``chap`` an account (user, secret of 12 to 16 characters).

        The secret reaches tgtadm as an argument, which every user of this machine can see: use one made for the test.
        """
        self.directory = Path(directory)
        self.log = self.directory / "tgtd.log"
        self.port = 0
        self._first = {"name": name, "size_mb": size_mb, "readonly": readonly, "chap": chap}
        self._tape: TargetTape | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Path | None = None
        self._next_tid = 1
        self._accounts: set[str] = set()

    @property
    def url(self) -> str:
        """``iscsi://127.0.0.1:PORT/TARGET/1`` of the first tape; never with a CHAP account in it."""
        return self.tape.url

    @property
    def tape(self) -> TargetTape:
        """The first tape.

        Raises:
            TapeError: the daemon is not running.
        """
        if self._tape is None:
            raise TapeError("asking for the tape target's drive", "it is not running", "Call start() first.")
        return self._tape

    @property
    def cartridge(self) -> Path:
        """The first tape's cartridge file; there also when the daemon has stopped."""
        return self.directory / f"{self._first['name']}.cartridge"

    @property
    def pid(self) -> int:
        """The daemon's process id.

        Raises:
            TapeError: it is not running.
        """
        if self._process is None:
            raise TapeError("asking for the tape target's process", "it is not running", "Call start() first.")
        return self._process.pid

    def start(self) -> Self:
        """Start the daemon and its first tape.

        Raises:
            TapeError: tgt is not installed, or the daemon did not come up; the log says why.
        """
        for program in ("tgtd", "tgtadm", "tgtimg"):
            if shutil.which(program, path=_search_path()) is None:
                raise TapeError("starting a tape target", f"{program} is not installed", "apt-get install tgt")
        if os.geteuid() != 0:
            raise TapeError("starting a tape target", "tgtd heeds root alone", "Run as root, or use a drive file:PATH.")
        if self._process is not None:
            raise TapeError("starting a tape target", "it is running already", "Call stop() first.")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._control = Path(tempfile.mkdtemp(prefix="splitreel-tgtd-"))
        try:
            self._start_daemon()
            self._tape = self.add_tape(**self._first)  # type: ignore[arg-type]
        except BaseException:
            self.stop()
            raise
        return self

    def add_tape(
        self,
        name: str,
        *,
        size_mb: int = 1024,
        readonly: bool = False,
        chap: tuple[str, str] | None = None,
    ) -> TargetTape:
        """Add a target of one tape drive, LUN 1, with an empty cartridge of ``size_mb`` in it.

        Raises:
            TapeError: a tgt program refused; its words are the reason.
        """
        tid, self._next_tid = self._next_tid, self._next_tid + 1
        target = f"{TARGET_NAME}:{name}"
        cartridge = self.directory / f"{name}.cartridge"
        self._make_cartridge(cartridge, size_mb)
        self._admin("target", "new", "--tid", str(tid), "-T", target)
        for key, value in PARAMETERS.items():
            self.set_parameter(tid, key, value)
        lun = ("--tid", str(tid), "--lun", "1")
        self._admin("logicalunit", "new", *lun, "-b", str(cartridge), "--device-type=tape", "--bstype=ssc")
        identity = f"vendor_id=SPLTREEL,product_id=TGT-TAPE,product_rev=0001,scsi_sn=TGT{self.port}{tid},removable=1"
        self._admin("logicalunit", "update", *lun, "--params", identity)
        if readonly:
            self._admin("logicalunit", "update", *lun, "--params", "readonly=1")
        if chap is not None:
            self._bind_account(tid, *chap)
        self._admin("target", "bind", "--tid", str(tid), "-I", "ALL")
        return TargetTape(f"iscsi://127.0.0.1:{self.port}/{target}/1", cartridge, tid)

    def remove_tape(self, tape: TargetTape) -> None:
        """Drop a tape's sessions and its target, and delete its cartridge.

        Raises:
            TapeError: tgtadm refused.
        """
        self._admin("target", "delete", "--force", "--tid", str(tape.tid))
        tape.cartridge.unlink(missing_ok=True)

    def set_parameter(self, tid: int, name: str, value: str | int) -> None:
        """Set one of tgtd's target parameters: a key of the login negotiation, ``nop_interval``, ``RedirectPort``...

        Raises:
            TapeError: tgtadm refused.
        """
        self._admin("target", "update", "--tid", str(tid), "--name", name, "--value", str(value))

    def set_readonly(self, tape: TargetTape, readonly: bool) -> None:
        """Slide the cartridge's write-protect tab.

        Raises:
            TapeError: tgtadm refused.
        """
        lun = ("--tid", str(tape.tid), "--lun", "1")
        self._admin("logicalunit", "update", *lun, "--params", f"readonly={int(readonly)}")

    def stop(self) -> None:
        """Stop the daemon, however it fares, and remove its control socket; cartridges stay. Idempotent."""
        process, self._process = self._process, None
        self._tape = None
        if process is not None:
            self._end(process)
        if self._control is not None:
            shutil.rmtree(self._control, ignore_errors=True)
            self._control = None
        self._next_tid = 1
        self._accounts.clear()

    def kill(self) -> None:
        """Kill the daemon at once, as a crash of the target would; for fault tests. stop() cleans up after it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start_daemon(self) -> None:
        # A free port may be taken by another program before tgtd binds it; tgtd then runs on without a portal.
        for _ in range(PORT_TRIES):
            self.port = _free_port()
            with self.log.open("wb") as log:
                command = [*_dying_with_parent(), "tgtd", "-f", "--iscsi", f"portal=127.0.0.1:{self.port}"]
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(ENVIRONMENT)
                )
            if self._comes_up():
                return
            process, self._process = self._process, None
            self._end(process)
        raise TapeError("starting a tape target", f"tgtd did not come up: {self._last_words()}", f"See {self.log}.")

    def _comes_up(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            if b"unable to bind" in self.log.read_bytes():
                return False
            with contextlib.suppress(TapeError):
                if f"127.0.0.1:{self.port}" in self._admin("portal", "show"):
                    return True
            time.sleep(0.05)
        return False

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            with contextlib.suppress(TapeError):
                for tid in range(1, self._next_tid):
                    self._admin("target", "delete", "--force", "--tid", str(tid), check=False)
                self._admin("system", "delete")
        # tgtd's handler of SIGTERM only sets a flag, which a busy daemon reads late: so the wait is bounded.
        for stop in (None, process.terminate, process.kill):
            if stop is not None:
                stop()
            try:
                process.wait(STOP_SECONDS)
                return
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    def _bind_account(self, tid: int, user: str, secret: str) -> None:
        if user not in self._accounts:
            self._admin("account", "new", "--user", user, "--password", secret, secret=secret)
            self._accounts.add(user)
        self._admin("account", "bind", "--tid", str(tid), "--user", user)

    def _make_cartridge(self, cartridge: Path, size_mb: int) -> None:
        cartridge.unlink(missing_ok=True)
        what = ["--op", "new", "--device-type", "tape", "--barcode", "SPLT01L9", "--type", "data"]
        self._run(["tgtimg", *what, "--size", str(size_mb), "--file", str(cartridge)])

    def _admin(self, mode: str, operation: str, *arguments: str, check: bool = True, secret: str = "") -> str:
        command = ["tgtadm", "--lld", "iscsi", "--mode", mode, "--op", operation, *arguments]
        return self._run(command, check=check, secret=secret)

    def _run(self, command: list[str], *, check: bool = True, secret: str = "") -> str:
        what = f"running {' '.join(command)}"
        if secret:
            what = what.replace(secret, "***")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=START_SECONDS, check=False, env=self._environment({})
            )
        except subprocess.TimeoutExpired:
            raise TapeError(what, "no answer from tgtd", f"See {self.log}.") from None  # it quotes the secret
        if check and done.returncode != 0:
            why = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
            raise TapeError(what, why.splitlines()[-1], f"See {self.log}.")
        return done.stdout

    def _environment(self, extra: dict[str, str]) -> dict[str, str]:
        # A control socket of our own: no clash with the machine's tgtd, and nothing left in /var/run.
        return os.environ | extra | {"PATH": _search_path(), "TGT_IPC_SOCKET": f"{self._control}/control"}

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def _dying_with_parent() -> list[str]:
    # The kernel ends the daemon when the thread that started it ends, killed or not: none is left behind.
    setpriv = shutil.which("setpriv", path=_search_path())
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _search_path() -> str:
    # tgt installs below sbin, which is not on the PATH of a plain user's shell.
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
