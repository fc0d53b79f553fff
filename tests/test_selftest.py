"""The self-test passes on a sound build, and a core that computes wrongly or lost a check fails it."""

import pytest

from splitreel import selftest
from splitreel.core import checksum


def test_every_expected_check_passes() -> None:
    checks = selftest.run_selftest()

    assert [check.failure for check in checks] == [""] * selftest.EXPECTED_CHECKS


def test_a_wrong_checksum_fails_its_check_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "cksum", lambda data: 1)

    failed = [check.name for check in selftest.run_selftest() if check.failure]

    assert failed == ["checksums: known answers"]
