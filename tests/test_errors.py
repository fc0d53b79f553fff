"""The table from core's status codes to exceptions."""

import pytest

from splitreel import errors
from splitreel.core import fault


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (-2, errors.DeviceError, 1),
        (-8, errors.IntegrityError, 3),
        (-20, errors.Corrupt, 3),
        (-21, errors.Unsupported, 1),
        (-22, errors.NeedsRecovery, 1),
        (-41, errors.DeferredError, 1),
        (-43, errors.EndOfMedium, 4),
        (-44, errors.WriteProtected, 4),
        (-48, errors.TransportError, 1),
    ],
)
def test_fault_becomes_its_class_with_its_exit_code(
    code: int, kind: type[errors.SplitreelError], exit_code: int
) -> None:
    with pytest.raises(errors.SplitreelError) as raised:
        fault.raise_code(code, "reading a block", "detail")

    assert type(raised.value) is kind
    assert raised.value.exit_code == exit_code
    assert raised.value.what.startswith("reading a block")
    assert "detail" in raised.value.why


def test_unknown_fault_is_still_a_splitreel_error() -> None:
    with pytest.raises(errors.SplitreelError, match="status -999"):
        fault.raise_code(-999)


def test_registering_a_status_twice_fails() -> None:
    with pytest.raises(AssertionError, match="twice"):
        errors._register(-2, errors.DeviceError, "")


def test_lines_are_what_why_advice() -> None:
    error = errors.NotReady("reading tape /dev/nst0", "no medium")

    assert error.lines() == ["reading tape /dev/nst0", "no medium", errors.NotReady.default_advice]
