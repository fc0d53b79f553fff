"""Injured metadata end in a map or in a named error; what once did not is read again."""

import tempfile
from pathlib import Path

import pytest

from tests.fuzz import cases, seeds
from tests.fuzz.injure import injuries
from tests.fuzz.reader import Patient, read

READS = 60


@pytest.mark.parametrize("name", seeds.names())
def test_a_seed_is_read_whole(name: str, tmp_path: Path) -> None:
    """An image that is refused or damaged before anything was done to it would try nothing."""
    image = tmp_path / "image"
    image.write_bytes(seeds.load(name).data)

    assert read(image) == "mapped"
    assert len(seeds.load(name).places) > 20


@pytest.mark.parametrize("name", seeds.names())
def test_injured_images_end_in_a_map_or_a_named_error(name: str) -> None:
    """A few of what ``python -m tests.fuzz`` reads by the hundred thousand."""
    seed = seeds.load(name)
    with tempfile.TemporaryDirectory() as folder:
        patient = Patient(seed, Path(folder) / "image")
        ends = {patient.read(injuries(seed, 3 * number)) for number in range(READS)}
        patient.close()

    assert "mapped" in ends <= {"mapped", "refused"}


def test_what_was_found_once_stays_mended() -> None:
    """Without sanitizers; with them, every run of the search begins with these."""
    ends = {path.stem: cases.load(path).read() for path in cases.kept()}

    assert set(ends.values()) <= {"mapped", "refused"}


def test_a_case_is_kept_as_it_was(tmp_path: Path) -> None:
    """What is found must be found again from its file alone."""
    case = cases.draw(seeds.names()[0], 5, "told")

    assert cases.load(cases.save(case, tmp_path)) == case
