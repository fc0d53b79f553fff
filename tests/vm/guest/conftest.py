"""The host does not collect these tests: they format disks. test_guest.py has one test for each file of them."""

import os

import pytest

from ..testrun import IN_GUEST

collect_ignore_glob = [] if os.environ.get(IN_GUEST) else ["test_*.py"]


@pytest.fixture(autouse=True, scope="session")
def in_guest() -> None:
    """Nothing of this is for a machine with data on it."""
    if not os.environ.get(IN_GUEST) or os.uname().nodename != "guest":
        pytest.fail("this runs inside the virtual machine: python -m tests.vm FILE")
