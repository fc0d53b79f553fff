"""commands are the SSC commands that pyscsi lacks, as classes on its SCSICommand. They encode; they send nothing.

A CDB is described as pyscsi does, ``field: [mask, first byte]``. Timeouts are those of an LTO-9 drive, in milliseconds.
"""

from typing import Any, ClassVar

from pyscsi.pyscsi.scsi_command import SCSICommand
from pyscsi.pyscsi.scsi_enum_command import ssc
from pyscsi.pyscsi.scsi_opcode import OpCode
from pyscsi.utils.converter import decode_bits, encode_dict

from splitreel import errors
from splitreel.drive.replies import Condition

Bits = dict[str, list[int]]

LOCATE_10 = OpCode("LOCATE_10", 0x2B, {})
ERASE_6 = OpCode("ERASE_6", 0x19, {})
RESERVE_6 = OpCode("RESERVE_6", 0x16, {})
RELEASE_6 = OpCode("RELEASE_6", 0x17, {})

OPCODE: Bits = {"opcode": [0xFF, 0]}
IMMEDIATE: Bits = {"immediate": [0x01, 1]}
LENGTH_6: Bits = {"length": [0xFFFFFF, 2]}
ALLOCATION_10: Bits = {"allocation": [0xFFFF, 7]}
MINUTE = 60_000


class SscCommand(SCSICommand):  # type: ignore[misc]
    """Base: a command whose CDB is built in the instance, since pyscsi's own is class-level state.

    Two threads that built CDBs through pyscsi's class attributes got 589 of 400 000 wrong.
    """

    title: str = ""  # as the standard writes it, for messages
    condition: Condition = Condition.DONE  # what the drive said beside its success
    timeout_ms: int = MINUTE
    _cdb_bits: ClassVar[Bits] = OPCODE

    def encode(self, opcode: Any, datain: int = 0, dataout: bytes = b"", **fields: int) -> None:
        """Set cdb, dataout and datain; a value that its field cannot hold raises Misuse."""
        SCSICommand.__init__(self, opcode, len(dataout), datain)
        self.dataout[:] = dataout
        self.cdb = self.build_cdb(opcode=opcode.value, **fields)

    def build_cdb(self, **fields: int) -> bytearray:
        cdb: bytearray = SCSICommand.init_cdb(self.opcode)
        for name, value in fields.items():
            mask = self._cdb_bits[name][0]
            if not 0 <= value <= mask // (mask & -mask):
                raise errors.Misuse(f"encoding {self.title}", f"{name} is {value}")
        encode_dict({name: int(value) for name, value in fields.items()}, self._cdb_bits, cdb)
        return cdb

    @classmethod
    def unmarshall_cdb(cls, cdb: bytes) -> dict[str, int]:
        """The fields of a CDB of this command."""
        fields: dict[str, int] = {}
        decode_bits(cdb, cls._cdb_bits, fields)
        return fields


def signed(count: int, bits: int) -> int:
    """Two's complement of a SPACE count in so many bits."""
    if not -(1 << (bits - 1)) <= count < 1 << (bits - 1):
        raise errors.Misuse("encoding SPACE", f"count is {count}")
    return count & ((1 << bits) - 1)


class TestUnitReady(SscCommand):
    """SPC-4 6.47."""

    title = "TEST UNIT READY"

    def __init__(self) -> None:
        self.encode(ssc.TEST_UNIT_READY)


class RequestSense(SscCommand):
    """SPC-4 6.39; the sense data are in datain."""

    title = "REQUEST SENSE"
    _cdb_bits = OPCODE | {"descriptor": [0x01, 1], "allocation": [0xFF, 4]}

    def __init__(self, descriptor: bool = False, allocation: int = 252) -> None:
        self.encode(ssc.REQUEST_SENSE, allocation, descriptor=descriptor, allocation=allocation)


class Inquiry(SscCommand):
    """SPC-4 6.4."""

    title = "INQUIRY"
    _cdb_bits = OPCODE | {"evpd": [0x01, 1], "page": [0xFF, 2], "allocation": [0xFFFF, 3]}

    def __init__(self, page: int | None = None, allocation: int = 252) -> None:
        self.encode(ssc.INQUIRY, allocation, evpd=int(page is not None), page=page or 0, allocation=allocation)


class ReadBlockLimits(SscCommand):
    """SSC-4 7.5."""

    title = "READ BLOCK LIMITS"

    def __init__(self) -> None:
        self.encode(ssc.READ_BLOCK_LIMITS, 6)


class ModeSense6(SscCommand):
    """SPC-4 6.11; with the block descriptor, unlike pyscsi's own."""

    title = "MODE SENSE(6)"
    _cdb_bits = OPCODE | {
        "dbd": [0x08, 1],
        "control": [0xC0, 2],
        "page": [0x3F, 2],
        "subpage": [0xFF, 3],
        "allocation": [0xFF, 4],
    }

    def __init__(self, page: int = 0, subpage: int = 0, control: int = 0, allocation: int = 252) -> None:
        self.encode(ssc.MODE_SENSE_6, allocation, control=control, page=page, subpage=subpage, allocation=allocation)


class ModeSense10(SscCommand):
    """SPC-4 6.12."""

    title = "MODE SENSE(10)"
    _cdb_bits = (
        OPCODE | ALLOCATION_10 | {"dbd": [0x08, 1], "control": [0xC0, 2], "page": [0x3F, 2], "subpage": [0xFF, 3]}
    )

    def __init__(self, page: int = 0, subpage: int = 0, control: int = 0, allocation: int = 512) -> None:
        self.encode(ssc.MODE_SENSE_10, allocation, control=control, page=page, subpage=subpage, allocation=allocation)


class ModeSelect6(SscCommand):
    """SPC-4 6.9; the parameter list is header, block descriptor, pages."""

    title = "MODE SELECT(6)"
    _cdb_bits = OPCODE | {"page_format": [0x10, 1], "save": [0x01, 1], "length": [0xFF, 4]}

    def __init__(self, parameters: bytes) -> None:
        self.encode(ssc.MODE_SELECT_6, 0, parameters, page_format=1, length=len(parameters))


class ModeSelect10(SscCommand):
    """SPC-4 6.10."""

    title = "MODE SELECT(10)"
    _cdb_bits = OPCODE | {"page_format": [0x10, 1], "save": [0x01, 1], "length": [0xFFFF, 7]}

    def __init__(self, parameters: bytes) -> None:
        self.encode(ssc.MODE_SELECT_10, 0, parameters, page_format=1, length=len(parameters))


class Write6(SscCommand):
    """SSC-4 5.26: one block in variable mode, ``length`` blocks in fixed mode. Without data it is a template."""

    title = "WRITE(6)"
    timeout_ms = 25 * MINUTE
    _cdb_bits = OPCODE | LENGTH_6 | {"fixed": [0x01, 1]}

    def __init__(self, data: bytes = b"", blocks: int | None = None) -> None:
        self.encode(ssc.WRITE_6, 0, data, fixed=int(blocks is not None), length=len(data) if blocks is None else blocks)


class Read6(SscCommand):
    """SSC-4 5.12: at most ``length`` bytes of one block, or ``blocks`` blocks of ``length`` bytes."""

    title = "READ(6)"
    timeout_ms = 39 * MINUTE
    _cdb_bits = OPCODE | LENGTH_6 | {"sili": [0x02, 1], "fixed": [0x01, 1]}

    def __init__(self, length: int = 0, blocks: int | None = None, suppress: bool = False) -> None:
        self.encode(
            ssc.READ_6,
            length * (1 if blocks is None else blocks),
            sili=suppress,
            fixed=int(blocks is not None),
            length=length if blocks is None else blocks,
        )


class WriteFilemarks6(SscCommand):
    """SSC-4 5.27; count 0 and not immediate is a synchronise."""

    title = "WRITE FILEMARKS(6)"
    timeout_ms = 27 * MINUTE
    _cdb_bits = OPCODE | IMMEDIATE | LENGTH_6

    def __init__(self, count: int = 0, immediate: bool = False) -> None:
        self.encode(ssc.WRITE_FILEMARKS_6, immediate=immediate, length=count)


class WriteFilemarks16(SscCommand):
    """SSC-4 6.10, without explicit addressing."""

    title = "WRITE FILEMARKS(16)"
    timeout_ms = 27 * MINUTE
    _cdb_bits = OPCODE | IMMEDIATE | {"partition": [0xFF, 3], "length": [0xFFFFFF, 12]}

    def __init__(self, count: int = 0, immediate: bool = False) -> None:
        self.encode(ssc.WRITE_FILEMARKS_16, immediate=immediate, length=count)


SPACE_BLOCKS, SPACE_FILEMARKS, SPACE_END_OF_DATA = 0, 1, 3


class Space6(SscCommand):
    """SSC-4 5.24."""

    title = "SPACE(6)"
    timeout_ms = 49 * MINUTE
    _cdb_bits = OPCODE | {"code": [0x07, 1], "count": [0xFFFFFF, 2]}

    def __init__(self, code: int, count: int = 0) -> None:
        self.encode(ssc.SPACE_6, code=code, count=signed(count, 24))


class Space16(SscCommand):
    """SSC-4 6.8."""

    title = "SPACE(16)"
    timeout_ms = 49 * MINUTE
    _cdb_bits = OPCODE | {"code": [0x0F, 1], "count": [0xFFFFFFFFFFFFFFFF, 4]}

    def __init__(self, code: int, count: int = 0) -> None:
        self.encode(ssc.SPACE_16, code=code, count=signed(count, 64))


LOCATE_OBJECT, LOCATE_FILE, LOCATE_END_OF_DATA = 0, 1, 3


class Locate10(SscCommand):
    """SSC-4 5.4; without BT, so the address is a logical object identifier."""

    title = "LOCATE(10)"
    timeout_ms = 49 * MINUTE
    _cdb_bits = (
        OPCODE | IMMEDIATE | {"change_partition": [0x02, 1], "object_id": [0xFFFFFFFF, 3], "partition": [0xFF, 8]}
    )

    def __init__(self, object_id: int) -> None:
        self.encode(LOCATE_10, object_id=object_id)


class Locate16(SscCommand):
    """SSC-4 6.3."""

    title = "LOCATE(16)"
    timeout_ms = 49 * MINUTE
    _cdb_bits = (
        OPCODE
        | IMMEDIATE
        | {
            "destination": [0x38, 1],
            "change_partition": [0x02, 1],
            "partition": [0xFF, 3],
            "identifier": [0xFFFFFFFFFFFFFFFF, 4],
        }
    )

    def __init__(self, identifier: int, destination: int = LOCATE_OBJECT) -> None:
        self.encode(ssc.LOCATE_16, destination=destination, identifier=identifier)


SHORT_FORM, LONG_FORM = 0x00, 0x06


class ReadPosition(SscCommand):
    """SSC-4 7.7, short or long form."""

    title = "READ POSITION"
    _cdb_bits = OPCODE | ALLOCATION_10 | {"form": [0x1F, 1]}

    def __init__(self, form: int = LONG_FORM) -> None:
        self.encode(ssc.READ_POSITION, 32 if form == LONG_FORM else 20, form=form)


class Rewind(SscCommand):
    """SSC-4 7.11."""

    title = "REWIND"
    timeout_ms = 10 * MINUTE
    _cdb_bits = OPCODE | IMMEDIATE

    def __init__(self, immediate: bool = False) -> None:
        self.encode(ssc.REWIND, immediate=immediate)


class LoadUnload(SscCommand):
    """SSC-4 7.3."""

    title = "LOAD UNLOAD"
    timeout_ms = 16 * MINUTE
    _cdb_bits = OPCODE | IMMEDIATE | {"hold": [0x08, 4], "load": [0x01, 4]}

    def __init__(self, load: bool) -> None:
        self.title = "LOAD" if load else "UNLOAD"
        self.encode(ssc.LOAD_UNLOAD, load=load)


class Erase6(SscCommand):
    """SSC-4 5.2; long erases to the end of the medium, which takes an LTO-9 drive up to 21 hours."""

    title = "ERASE(6)"
    timeout_ms = 74_341_000
    _cdb_bits = OPCODE | {"immediate": [0x02, 1], "long": [0x01, 1]}

    def __init__(self, long: bool = False) -> None:
        self.encode(ERASE_6, long=long)


class PreventAllow(SscCommand):
    """SPC-4 6.16 (SSC-4 uses PREVENT 00b and 01b)."""

    title = "PREVENT ALLOW MEDIUM REMOVAL"
    _cdb_bits = OPCODE | {"prevent": [0x03, 4]}

    def __init__(self, prevent: bool) -> None:
        self.encode(ssc.PREVENT_ALLOW_MEDIUM_REMOVAL, prevent=prevent)


class LogSense(SscCommand):
    """SPC-4 6.6, cumulative values."""

    title = "LOG SENSE"
    _cdb_bits = (
        OPCODE | ALLOCATION_10 | {"control": [0xC0, 2], "page": [0x3F, 2], "subpage": [0xFF, 3], "pointer": [0xFFFF, 5]}
    )

    def __init__(self, page: int, allocation: int = 4096) -> None:
        self.encode(ssc.LOG_SENSE, allocation, control=1, page=page, allocation=allocation)


READ_VALUES, READ_LIST = 0x00, 0x01


class ReadAttribute(SscCommand):
    """SPC-4 6.17: medium auxiliary memory."""

    title = "READ ATTRIBUTE"
    _cdb_bits = OPCODE | {
        "action": [0x1F, 1],
        "volume": [0xFF, 5],
        "partition": [0xFF, 7],
        "first": [0xFFFF, 8],
        "allocation": [0xFFFFFFFF, 10],
    }

    def __init__(self, first: int = 0, action: int = READ_VALUES, allocation: int = 16384) -> None:
        self.encode(ssc.READ_ATTRIBUTE, allocation, action=action, first=first, allocation=allocation)


class WriteAttribute(SscCommand):
    """SPC-4 6.54."""

    title = "WRITE ATTRIBUTE"
    _cdb_bits = OPCODE | {
        "write_through": [0x01, 1],
        "volume": [0xFF, 5],
        "partition": [0xFF, 7],
        "length": [0xFFFFFFFF, 10],
    }

    def __init__(self, parameters: bytes) -> None:
        self.encode(ssc.WRITE_ATTRIBUTE, 0, parameters, write_through=1, length=len(parameters))


class ReportDensitySupport(SscCommand):
    """SSC-4 7.9: of the drive, or of the medium in it."""

    title = "REPORT DENSITY SUPPORT"
    _cdb_bits = OPCODE | ALLOCATION_10 | {"media": [0x01, 1]}

    def __init__(self, media: bool = False, allocation: int = 4096) -> None:
        self.encode(ssc.REPORT_DENSITY_SUPPORT, allocation, media=media, allocation=allocation)


class Reserve6(SscCommand):
    """SPC-2 7.21: this drive for this initiator."""

    title = "RESERVE(6)"

    def __init__(self) -> None:
        self.encode(RESERVE_6)


class Release6(SscCommand):
    """SPC-2 7.17."""

    title = "RELEASE(6)"

    def __init__(self) -> None:
        self.encode(RELEASE_6)


ALL: tuple[type[SscCommand], ...] = tuple(
    item for item in list(vars().values()) if isinstance(item, type) and issubclass(item, SscCommand)
)[1:]
