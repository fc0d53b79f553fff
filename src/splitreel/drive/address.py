"""address opens the transport that a TAPE argument names: a device node, iscsi://, file:, null:. It sends nothing."""

import errno
import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl, unquote

from pyscsi.pyscsi.scsi_enum_command import spc

from splitreel import errors
from splitreel.core.tape import Transport

FORMS = "TAPE is /dev/nst0, /dev/sg3, iscsi://[user@]host[:port]/target/lun, file:PATH or null:"
SYSFS = Path("/sys/class")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def redacted(url: str) -> str:
    """The address without a secret in it, for messages."""
    return re.sub(r"^(iscsi://[^/@%]*)%.*@", r"\1@", url)


def open_transport(url: str, **options: object) -> Transport:
    """The transport for a TAPE argument; keyword options go to it as they are. Ready for pyscsi's SCSI facade.

    Raises:
        UsageError: the form is unknown, an option is, or this build lacks the transport.
        TapeError: the device is not there, in use, or cannot be reached.
    """
    transport = _open(url, options)
    transport.opcodes = spc
    return transport


def _open(url: str, options: dict[str, object]) -> Transport:
    scheme = url.partition(":")[0]
    if url.startswith("/dev/"):
        return _open_device(url, options)
    if scheme == "iscsi":
        module = _compiled("iscsi", "iSCSI drives", "Install libiscsi and build splitreel again.")
        transport: Transport = module.IscsiTransport(url, **options)
        return transport
    if scheme == "file" and url != "file:":
        return _open_file(url.removeprefix("file:"), options)
    if url == "null:":
        return _make(importlib.import_module("splitreel.core.null").NullDrive, url, options)
    raise errors.UsageError(f"opening tape {redacted(url)}", "no such kind of tape address", FORMS)


def _compiled(name: str, what: str, advice: str) -> ModuleType:
    try:
        return importlib.import_module(f"splitreel.core.{name}")
    except ModuleNotFoundError:
        raise errors.UsageError(f"opening {what}", f"this build of splitreel is without {what}", advice) from None


def _make(kind: Callable[..., Transport], url: str, options: dict[str, object]) -> Transport:
    try:
        return kind(**options)
    except TypeError as error:
        raise errors.UsageError(f"opening tape {redacted(url)}", str(error), "Leave the option out.") from None


# --- software drives ---


def parse_size(text: str) -> int:
    """Bytes: a number with an optional K, M, G or T (powers of 1024).

    Raises:
        UsageError: it is no such number.
    """
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise errors.UsageError(f"reading the size {text!r}", "it is no number of bytes", "Write 500M or 1073741824.")
    return int(match[1]) * UNITS[match[2].upper()]


def _open_file(text: str, options: dict[str, object]) -> Transport:
    """``PATH[?size=500M&ew=25M&pew=10M&barcode=TST001L9]``; the options shape a tape that is not there yet."""
    softdrive = importlib.import_module("splitreel.core.softdrive").SoftDrive
    path, _, query = text.partition("?")
    path = unquote(path) if query else path
    shape: dict[str, object] = dict(options)
    names = {"size": "capacity", "ew": "early_warning", "pew": "programmable_early_warning"}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in names:
            shape[names[name]] = parse_size(value)
        elif name == "barcode":
            shape[name] = value
        else:
            raise errors.UsageError(
                f"opening tape file:{path}", f"unknown option {name}", "Known: size, ew, pew, barcode."
            )
    if shape and not (Path(path).exists() and Path(path).stat().st_size):
        return _make(lambda **rest: softdrive.create(path, **rest), f"file:{path}", shape)
    drive: Transport = softdrive(path)
    return drive


# --- device nodes ---


def _open_device(url: str, options: dict[str, object]) -> Transport:
    if not Path(url).exists():
        raise errors.TapeError(
            f"opening tape {url}", "no such device", "Look for the drive with lsscsi -g, or load the st and sg drivers."
        )
    node = sg_node(url)
    module = _compiled("sg", "local SCSI drives", "Build splitreel on Linux with the kernel's headers.")
    return _make(lambda **rest: module.SgTransport(node, **rest), url, options)


def hold_tape_node(url: str, sysfs: Path = SYSFS, nodes: Path = Path("/dev")) -> int | None:
    """A descriptor on the st driver's own node of a local drive, so that nobody else uses it meanwhile; else None.

    We work through sg, beside st: an mt or tar started on /dev/nst0 would move the tape under a running backup. While
    st's node is open it refuses a second opener.

    Raises:
        TapeError: somebody else has it open.
    """
    if not url.startswith("/dev/"):
        return None
    found = sorted((sysfs / "scsi_generic" / Path(sg_node(url, sysfs)).name / "device" / "scsi_tape").glob("nst*"))
    if not found:
        return None
    node = nodes / min((item.name for item in found), key=len)
    try:
        return os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EBUSY:
            return None  # st without a medium, or not permitted: nothing is gained by refusing
        raise errors.TapeError(
            f"opening tape {url}", f"{node} is in use", "Find its user with fuser, and end it."
        ) from None


def sg_node(path: str, sysfs: Path = SYSFS) -> str:
    """The sg node of a tape device node or a link to one; an sg node is its own.

    Raises:
        TapeError: sysfs knows no sg node for it.
        UsageError: the name is not that of a tape or sg device.
    """
    name = Path(path).resolve().name
    if re.fullmatch(r"sg\d+", name):
        return f"/dev/{name}"
    if not re.fullmatch(r"n?st\d+[alm]?", name):
        raise errors.UsageError(f"opening tape {path}", "not a tape or sg device", FORMS)
    found = sorted((sysfs / "scsi_tape" / name / "device" / "scsi_generic").glob("sg*"))
    if not found:
        raise errors.TapeError(
            f"opening tape {path}", "the kernel shows no sg node for it", "Load the sg driver: modprobe sg."
        )
    return f"/dev/{found[0].name}"
