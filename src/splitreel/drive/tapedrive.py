"""tapedrive is one tape drive: status, positions, filemarks, attributes. It does not know what the blocks hold."""

import contextlib
import importlib
import time
from types import TracebackType
from typing import Any, Self, TypeVar

from splitreel import errors
from splitreel.core.sense import parse_sense
from splitreel.core.tape import Tape, Transport
from splitreel.drive import commands, replies
from splitreel.drive.replies import Condition, TapePosition

Command = TypeVar("Command", bound=commands.SscCommand)

SEQUENTIAL_ACCESS = 0x01
NOT_READY_SOON = {(0x04, 0x00), (0x04, 0x01), (0x04, 0x07), (0x28, 0x00)}  # becoming ready, operation in progress
MOST_ATTENTIONS = 16
VARIABLE, BUFFERED = 0, 1
UNKNOWN = -1


class Drive:
    """A tape drive. One thread at a time.

    ``tape`` moves blocks; its ``object_id`` is kept equal to the drive's position by every method here that moves the
    tape. A unit attention after opening is raised as UnitAttention: the position is then unknown.
    """

    def __init__(self, transport: Transport) -> None:
        """Take what the drive has to tell since power-on, see that it is a tape drive, and set variable blocks.

        Raises:
            TapeError: it is no tape drive, or does not answer.
        """
        self.transport = transport
        self.name = transport.name
        self._lacks: set[str] = set()
        self._facade: Any = None
        self._undo = contextlib.ExitStack()
        self._counted = False
        self.waiting = ""  # what it is waited for, or ""; read by other threads
        self.identity = self._identify()
        self._take_attentions()
        self.limits = self.block_limits()
        most = min(self.limits.maximum or 0xFFFFFF, transport.max_transfer, 0xFFFFFF)
        self.tape = Tape(
            transport,
            commands.Write6().cdb,
            commands.Read6().cdb,
            commands.WriteFilemarks6().cdb,
            commands.Write6.timeout_ms,
            commands.Read6.timeout_ms,
            commands.WriteFilemarks6.timeout_ms,
            most,
        )
        if self.test_unit_ready():
            self._settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the drive; the tape stays where it is."""
        self.transport.close()
        self._undo.close()

    def at_close(self, undo: contextlib.ExitStack) -> None:
        """Close this as well when the drive is closed."""
        self._undo = undo

    @property
    def scsi(self) -> Any:
        """pyscsi's SCSI facade over this drive's transport, for commands beyond these."""
        if self._facade is None:
            # Loads every command class of pyscsi, which opening a drive does without.
            self._facade = importlib.import_module("pyscsi.pyscsi.scsi").SCSI(self.transport)
        return self._facade

    # --- executing ---

    def execute(self, command: Command) -> Command:
        """Execute a command; a condition it met is in ``command.condition``. Raises what Transport.execute raises."""
        command.condition = Condition(self.transport.execute(command))
        return command

    def _optional(self, command: Command) -> Command | None:
        """Execute a command that a drive may lack: None, remembered by its title, when this one does."""
        if command.title in self._lacks:
            return None
        try:
            return self.execute(command)
        except errors.CheckCondition as error:
            if error.sense[:2] not in ((0x5, 0x20), (0x5, 0x24)):
                raise
        if is_unknown(command):
            self._lacks.add(command.title)
        return None

    # --- state ---

    def _identify(self) -> replies.DriveIdentity:
        standard = self.execute(commands.Inquiry()).datain
        if standard[0] & 0x1F != SEQUENTIAL_ACCESS:
            raise errors.TapeError(
                f"opening tape {self.name}",
                f"not a tape drive (device type {standard[0] & 0x1F:02X}h)",
                "Check the address.",
            )
        page = self._optional(commands.Inquiry(page=0x80))
        return replies.identity(bytes(standard), bytes(page.datain) if page is not None else b"")

    def _take_attentions(self) -> None:
        """A drive reports each unit attention once to a new user (power on, medium changed): expected at open."""
        for _ in range(MOST_ATTENTIONS):
            try:
                self.execute(commands.TestUnitReady())
                return
            except errors.UnitAttention:
                continue
            except errors.NotReady:
                return
        raise errors.TapeError(f"opening tape {self.name}", "the drive reports unit attentions without end")

    def _settle(self) -> None:
        """With a medium in the drive: variable blocks, and our count equal to the drive's."""
        self.set_variable_block()
        self._moved()

    def test_unit_ready(self) -> bool:
        """True when a medium is loaded and ready.

        Raises:
            UnitAttention: the drive was reset or its medium changed.
        """
        try:
            self.execute(commands.TestUnitReady())
        except errors.NotReady:
            return False
        return True

    def wait_ready(self, timeout: float = 300.0) -> None:
        """Wait while the drive loads a medium; then set variable blocks.

        Raises:
            NotReady: no medium, or not ready in ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._take_attentions()
                self.execute(commands.TestUnitReady())
                break
            except errors.NotReady as error:
                if error.sense[1:] not in NOT_READY_SOON or time.monotonic() >= deadline:
                    raise
                self.waiting = error.why
                time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
            finally:
                self.waiting = ""
        self._settle()

    def inquiry(self) -> replies.DriveIdentity:
        """Vendor, product, revision and serial number, as read when the drive was opened."""
        return self.identity

    def block_limits(self) -> replies.BlockLimits:
        """Largest and smallest block in bytes."""
        return replies.block_limits(bytes(self.execute(commands.ReadBlockLimits()).datain))

    def mode(self) -> replies.ModeHeader:
        """Write protection, buffered mode, density and block length, now."""
        return replies.mode_header(bytes(self.execute(commands.ModeSense6()).datain), ten=False)

    def set_variable_block(self) -> None:
        """Variable block length and buffered mode, where they are not set already."""
        mode = self.mode()
        if mode.block_length != VARIABLE or mode.buffered_mode != BUFFERED:
            self.execute(commands.ModeSelect6(replies.encode_mode_6(BUFFERED, mode.density, VARIABLE)))

    def status(self) -> dict[str, Any]:
        """What there is to know without moving the tape; keys are stable, values JSON's own types."""
        ready = self.test_unit_ready()
        found: dict[str, Any] = {"tape": self.name, **vars(self.identity), "ready": ready}
        found["max_block"] = self.tape.max_block
        if not ready:
            return found
        mode, position = self.mode(), self.position()
        found |= {
            "write_protected": mode.write_protected,
            "density": mode.density,
            "block_length": mode.block_length,
            "buffered": mode.buffered_mode != 0,
            "partition": position.partition,
            "object_id": position.object_id,
            "file_id": position.file_id,
            "position_known": position.known,
            "at_beginning": position.at_bop,
            "early_warning": position.at_eop,
        }
        values = self.attributes()
        for identifier in (0x0000, 0x0001, 0x0003, 0x0401, 0x0806):
            if identifier in values:
                found[replies.ATTRIBUTE_NAMES[identifier]] = values[identifier].text()
        return found

    # --- positions ---

    def position(self) -> TapePosition:
        """The drive's position: READ POSITION in long form, else in short form, else our own count with known False.

        Moves nothing, and leaves ``tape.object_id`` as it is: compare with ``expect_position``.
        """
        long = self._optional(commands.ReadPosition(commands.LONG_FORM))
        found = replies.long_position(bytes(long.datain)) if long is not None else None
        if found is None:
            short = self._optional(commands.ReadPosition(commands.SHORT_FORM))
            found = replies.short_position(bytes(short.datain)) if short is not None else None
        if found is not None:
            return found
        counted = self.tape.object_id if self._counted else UNKNOWN
        return TapePosition(0, counted, UNKNOWN if counted else 0, counted == 0, at_eop=False, known=False)

    def expect_position(self, object_id: int) -> TapePosition:
        """The position, which must be ``object_id``.

        Raises:
            PositionLost: it is another; a drive that does not tell is taken at our own count.
        """
        found = self.position()
        if found.object_id != object_id:
            raise errors.PositionLost(
                f"checking the position on tape {self.name}", f"at object {found.object_id}, not {object_id}"
            )
        return found

    def _moved(self, object_id: int = UNKNOWN) -> None:
        """After a move: take the drive's position as ours, or, where it tells none, what the caller counted."""
        self._counted = object_id != UNKNOWN
        if self._counted:
            self.tape.object_id = object_id
        found = self.position()
        if found.known:
            self._counted = True
            self.tape.object_id = found.object_id

    def rewind(self) -> None:
        """To the beginning of the partition."""
        self.execute(commands.Rewind())
        self._moved(0)

    def locate(self, object_id: int) -> None:
        """To the near side of an object: LOCATE(16), else LOCATE(10), else REWIND and SPACE.

        Raises:
            PositionLost: there are fewer objects on this tape, or the drive went elsewhere.
        """
        found: commands.SscCommand | None = self._optional(commands.Locate16(object_id))
        if found is None and object_id <= 0xFFFFFFFF:
            found = self._optional(commands.Locate10(object_id))
        condition = found.condition if found is not None else self._space_from_start(object_id)
        if condition != Condition.DONE:
            self._moved()
            raise errors.PositionLost(
                f"locating object {object_id} on tape {self.name}",
                "there are fewer objects on this tape",
                "Check that this is the right tape.",
            )
        self._moved(object_id)
        self.expect_position(object_id)

    def _space_from_start(self, object_id: int) -> Condition:
        """Over so many objects from the beginning. A filemark stops spacing over blocks, and is an object itself.

        tgtd says the same when SPACE just reaches end of data and when it would pass it; so the last step is by itself.
        """
        self.execute(commands.Rewind())
        left = object_id
        while left > 0:
            step = min(left - 1, 0x7FFFFF) or 1
            command = self.execute(commands.Space6(commands.SPACE_BLOCKS, step))
            if command.condition == Condition.FILEMARK:
                left -= step - max(0, min(step, residue(command))) + 1
            elif command.condition == Condition.END_OF_DATA and left == 1 and at_end(command):
                left = 0
            elif command.condition != Condition.DONE:
                return command.condition
            else:
                left -= step
        return Condition.DONE

    def _space(self, code: int, count: int, object_id: int) -> Condition:
        kind = commands.Space6 if -0x800000 <= count <= 0x7FFFFF else commands.Space16
        command: commands.SscCommand = self.execute(kind(code, count))
        self._moved(object_id if command.condition == Condition.DONE else UNKNOWN)
        return command.condition

    def space_blocks(self, count: int) -> Condition:
        """Over blocks, backward when negative. Returns what stopped it: DONE, a filemark that was passed, or an end."""
        return self._space(commands.SPACE_BLOCKS, count, self.tape.object_id + count if self._counted else UNKNOWN)

    def space_filemarks(self, count: int) -> Condition:
        """Over filemarks: behind the last one going forward, before it going backward. DONE or where it ended."""
        return self._space(commands.SPACE_FILEMARKS, count, UNKNOWN)

    def space_eod(self) -> None:
        """To the end of data, where writing appends."""
        self._space(commands.SPACE_END_OF_DATA, 0, UNKNOWN)

    # --- marks, medium ---

    def write_filemarks(self, count: int, immediate: bool = False) -> Condition:
        """Write filemarks at the position; not immediate, everything written so far is on the medium on return."""
        return Condition(self.tape.filemarks(count, immediate))

    def synchronize(self) -> Condition:
        """Everything written so far is on the medium on return.

        Raises:
            DeferredError: something written since the last synchronise is not.
        """
        return Condition(self.tape.filemarks(0))

    def load(self) -> None:
        """Load the medium that stands in the drive's door, then wait until it is ready."""
        self.execute(commands.LoadUnload(load=True))
        self.wait_ready()

    def unload(self) -> None:
        """Rewind and eject the medium."""
        self.execute(commands.LoadUnload(load=False))
        self._counted = False

    def erase(self, long: bool = False) -> None:
        """Erase from the position on: with ``long`` physically, for hours, else end of data is written here.

        Raises:
            CheckCondition: the drive has no ERASE (tgtd), or refuses it.
        """
        if self._optional(commands.Erase6(long)) is None:
            why = "this drive cannot erase" + (" the whole medium" if long else "")
            advice = (
                "'splitreel tape label --force' overwrites the tape instead, as does 'splitreel backup --overwrite' "
                "(--force when what is on it is not splitreel's)."
            )
            raise errors.CheckCondition(f"erasing tape {self.name}", why, advice)
        self._moved(self.tape.object_id if self._counted else UNKNOWN)

    def holds_data(self) -> bool:
        """True unless end of data stands at the beginning of the tape. Leaves the tape rewound."""
        self.rewind()
        condition = self._space(commands.SPACE_BLOCKS, 1, UNKNOWN)
        self.rewind()
        return condition != Condition.END_OF_DATA

    def prevent_removal(self) -> None:
        """The medium cannot be taken out until allow_removal."""
        self.execute(commands.PreventAllow(prevent=True))

    def allow_removal(self) -> None:
        """The medium can be taken out again."""
        self.execute(commands.PreventAllow(prevent=False))

    # --- what drive and medium say of themselves ---

    def log_page(self, page: int) -> dict[int, int]:
        """Parameter code to value of a log page; empty when the drive has no such page."""
        command = self._optional(commands.LogSense(page))
        return replies.log_parameters(bytes(command.datain)) if command is not None else {}

    def tape_alert(self) -> list[int]:
        """TapeAlert flags that are set, names in replies.TAPE_ALERTS. Reading clears them in the drive."""
        return [flag for flag, value in sorted(self.log_page(0x2E).items()) if value & 1 and 1 <= flag <= 64]

    def attributes(self) -> dict[int, replies.Attribute]:
        """The medium auxiliary memory by attribute identifier; empty when drive or medium have none."""
        command = self._optional(commands.ReadAttribute())
        return {item.identifier: item for item in replies.attributes(bytes(command.datain))} if command else {}

    def write_attributes(self, values: dict[int, bytes | str]) -> bool:
        """Write host attributes (0800h and up): text, or bytes as binary; empty deletes. False: the drive has none."""
        items = [replies.host_attribute(key, value) for key, value in values.items()]
        return self._optional(commands.WriteAttribute(replies.encode_attributes(items))) is not None

    def density_support(self, media: bool = False) -> list[replies.Density]:
        """Densities that the drive, or with ``media`` the medium in it, supports."""
        command = self._optional(commands.ReportDensitySupport(media))
        return replies.densities(bytes(command.datain)) if command is not None else []

    def set_pew(self, megabytes: int) -> bool:
        """Warn so many MB (10^6) before early warning as well; 0 switches it off. False: the drive cannot."""
        command = self._optional(commands.ModeSense10(page=0x10, subpage=0x01))
        if command is None:
            return False
        header = replies.mode_header(bytes(command.datain), ten=True)
        if len(header.pages) < 32:
            return False
        page = header.pages[:6] + min(megabytes, 0xFFFF).to_bytes(2) + header.pages[8:32]
        return self._optional(commands.ModeSelect10(replies.encode_mode_10(header, page))) is not None


def residue(command: commands.SscCommand) -> int:
    """INFORMATION of the sense data that a command came back with; 0 when there was none."""
    sense = parse_sense(command.sense)
    return int(sense["information"]) if sense["information_valid"] else 0


def at_end(command: commands.SscCommand) -> bool:
    """True when SPACE was done in full and stands at end of data: tgtd says so with sense key 0."""
    return bool(parse_sense(command.sense)["key"] == 0)


def is_unknown(command: commands.SscCommand) -> bool:
    """True when the sense data say that the command itself is unknown (05/20), not a field of it."""
    return bool(parse_sense(command.sense)["asc"] == 0x20)
