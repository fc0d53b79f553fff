"""errors is the exception tree: what failed, why, what to do, and the exit code of each. It imports nothing of ours.

A class states its exit code and its advice; ``from_fault`` is the one table from core's status codes to classes.
"""

import os

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_OPERATOR = 4
EXIT_INTERRUPTED = 130


class SplitreelError(Exception):
    """Base of all: ``what`` failed, ``why``, and ``advice``; each prints on one line of its own."""

    exit_code = EXIT_FAILED
    default_advice = ""

    def __init__(self, what: str, why: str = "", advice: str = "") -> None:
        super().__init__(what, why, advice)
        self.what = what
        self.why = why
        self.advice = advice or self.default_advice

    def __str__(self) -> str:
        return ": ".join(part for part in (self.what, self.why) if part)

    def lines(self) -> list[str]:
        """One line what, one line why, one line what to do; empty ones left out."""
        return [part for part in (self.what, self.why, self.advice) if part]


class UsageError(SplitreelError):
    """The command line or the configuration cannot be acted on."""

    exit_code = EXIT_USAGE


class Cancelled(SplitreelError):
    """The run was interrupted on request."""

    exit_code = EXIT_INTERRUPTED


class Misuse(SplitreelError):
    """A caller inside splitreel broke a contract."""

    default_advice = "This is a defect of splitreel: please report it with the command that led to it."


class DeviceError(SplitreelError):
    """A block device or image could not be read."""

    default_advice = (
        "Check the kernel log for this device; a mirror that does not read must be rebuilt before it is backed up."
    )


class FilesystemError(SplitreelError):
    """A file system could not be read."""

    exit_code = EXIT_DATA


class Corrupt(FilesystemError):
    """An on-disk structure fails its own checks."""

    default_advice = (
        "Run the file system's checker on a copy of the mirror; a damaged object is left out of the backup."
    )


class Unsupported(FilesystemError):
    """An on-disk feature is not read by this version; it is refused by name."""

    exit_code = EXIT_FAILED
    default_advice = "Back this file system up by other means until this feature is supported."


class NeedsRecovery(FilesystemError):
    """The journal holds changes that are not in place yet."""

    exit_code = EXIT_FAILED
    default_advice = "Quiesce with a file system freeze before the mirror is split, then split again."


class NotFound(FilesystemError):
    """No such path, inode or catalog entry."""

    exit_code = EXIT_FAILED


class MapError(SplitreelError):
    """An extent map is unusable."""

    default_advice = "Map the device again, and save the map where there is room."


class Stale(MapError):
    """The map does not describe this device."""

    default_advice = "Map the split mirror again."


class IntegrityError(SplitreelError):
    """Bytes do not match their checksum, or counts differ."""

    exit_code = EXIT_DATA
    default_advice = "Do not trust this copy: verify the tape, and back up again if it does not verify."


class LimitReached(SplitreelError):
    """A declared bound was reached before the work was done."""


class TapeError(SplitreelError):
    """A drive or its path failed; ``sense`` is (sense key, ASC, ASCQ), zeros where there was none."""

    sense: tuple[int, int, int] = (0, 0, 0)


class CheckCondition(TapeError):
    """The drive refused a command."""

    default_advice = (
        "Look the sense code up in the drive's manual; the position on tape is what the drive last reported."
    )


class DeferredError(TapeError):
    """An earlier buffered write failed: everything since the last synchronisation is lost."""

    default_advice = "Nothing since the last synchronise counts as written. Use another tape and back up again."


class UnitAttention(TapeError):
    """The drive was reset or its medium changed behind our back; the position is unknown."""

    exit_code = EXIT_OPERATOR
    default_advice = "Find out who else uses this drive, then start again."


class EndOfMedium(TapeError):
    """The tape is full."""

    exit_code = EXIT_OPERATOR
    default_advice = "Load a larger or an empty tape."


class WriteProtected(TapeError):
    """The medium is write-protected."""

    exit_code = EXIT_OPERATOR
    default_advice = "Slide the cartridge's write-protect tab, or load another tape."


class NotReady(TapeError):
    """The drive has no medium, or is still loading it."""

    exit_code = EXIT_OPERATOR
    default_advice = "Load a tape and wait until the drive is ready."


class WrongTape(TapeError):
    """The tape in the drive is not the one that is wanted, or may not be overwritten."""

    exit_code = EXIT_OPERATOR


class ReservationConflict(TapeError):
    """Another host has reserved the drive."""

    exit_code = EXIT_OPERATOR
    default_advice = "Release the drive on the other host."


class TransportError(TapeError):
    """The path to the drive failed; whether the command ran, and so the position, is unknown."""

    default_advice = "Check the cable, network or target; nothing since the last synchronise counts as written."


class PositionLost(TapeError):
    """The drive's position is not where it must be."""

    default_advice = "Nothing since the last synchronise counts as written. Rewind, verify the tape, and start again."


class MirrorError(SplitreelError):
    """The mirror could not be established, split or rejoined."""


class QuiesceError(SplitreelError):
    """The database or file system could not be quiesced, or did not stay so."""


class BudgetExceeded(QuiesceError):
    """The next window is likely to exceed the budget of its job; nothing was touched."""

    exit_code = EXIT_OPERATOR


class BudgetUnknown(BudgetExceeded):
    """A job has a budget for its window, and too few windows are known to predict the next one."""


class CatalogError(SplitreelError):
    """The catalog could not be read or written."""


# code -> class and, where core gives no detail, the sentence that says why
_FAULTS: dict[int, tuple[type[SplitreelError], str]] = {}


def _register(code: int, kind: type[SplitreelError], why: str) -> None:
    if code in _FAULTS:
        raise AssertionError(f"status {code} is registered twice")
    _FAULTS[code] = (kind, why)


_register(-1, LimitReached, "not enough memory")
_register(-2, DeviceError, "")
_register(-3, DeviceError, "the range lies beyond the end of the device")
_register(-4, Misuse, "a buffer or length is not aligned to the device's logical block size")
_register(-5, Misuse, "")
_register(-6, LimitReached, "a declared limit was reached")
_register(-7, Cancelled, "interrupted")
_register(-8, IntegrityError, "byte count mismatch: bytes in and bytes out differ")
_register(-9, IntegrityError, "checksum mismatch")
_register(-20, Corrupt, "")
_register(-21, Unsupported, "")
_register(-22, NeedsRecovery, "the journal has to be replayed")
_register(-23, NotFound, "not found")
_register(-30, Stale, "the map was made from another device or state")
_register(-31, MapError, "the saved map cannot be used")
_register(-40, CheckCondition, "")
_register(-41, DeferredError, "deferred error")
_register(-42, UnitAttention, "unit attention")
_register(-43, EndOfMedium, "end of medium: the block was not accepted")
_register(-44, WriteProtected, "write protected")
_register(-45, NotReady, "not ready")
_register(-46, ReservationConflict, "reservation conflict")
_register(-47, TapeError, "the drive stayed busy")
_register(-48, TransportError, "")
_register(-49, PositionLost, "position lost")


def from_fault(
    code: int,
    site: str = "",
    detail: str = "",
    object_id: int = 0,
    offset: int = 0,
    os_errno: int = 0,
    sense: tuple[int, int, int] = (0, 0, 0),
) -> SplitreelError:
    """The exception for one of core's fault records; unknown codes become SplitreelError."""
    kind, reason = _FAULTS.get(code, (SplitreelError, f"status {code}"))
    why = [detail or reason]
    if os_errno:
        why.append(os.strerror(os_errno))
    if any(sense):
        why.append(f"sense {sense[0]:X}h/{sense[1]:02X}h/{sense[2]:02X}h")
    where = [f"object {object_id}"] if object_id else []
    if offset or code in (-2, -3):
        where.append(f"offset {offset}")
    what = " ".join([site or kind.__name__, f"({', '.join(where)})" if where else ""]).strip()
    error = kind(what, ", ".join(part for part in why if part))
    error.__dict__.update(code=code, object_id=object_id, offset=offset, os_errno=os_errno)
    if isinstance(error, TapeError):
        error.sense = sense
    return error
