"""cases keeps what was found: which seed, which injuries, and what came of them, as one small JSON file each."""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.injure import Injury, injuries
from tests.fuzz.reader import Patient
from tests.fuzz.seeds import load as load_seed

FOLDER = Path(__file__).parent / "found"


@dataclass(frozen=True)
class Case:
    """One injured image. ``number`` drew the injuries, which stand here since the drawing may change."""

    seed: str
    number: int
    injuries: tuple[Injury, ...]
    told: str

    def read(self) -> str:
        """Injure the seed and read it: "refused" or "mapped"."""
        with tempfile.TemporaryDirectory() as folder:
            patient = Patient(load_seed(self.seed), Path(folder) / "image")
            try:
                return patient.read(list(self.injuries))
            finally:
                patient.close()


def draw(seed: str, number: int, told: str) -> Case:
    """The case that a number stands for."""
    return Case(seed, number, tuple(injuries(load_seed(seed), number)), told)


def save(case: Case, folder: Path = FOLDER) -> Path:
    """Write it under a name of its own; the same injuries have the same name."""
    record = {
        "seed": case.seed,
        "number": case.number,
        "injuries": [[injury.offset, injury.data.hex()] for injury in case.injuries],
        "told": case.told,
    }
    name = hashlib.sha256(json.dumps(record["injuries"]).encode()).hexdigest()[:12]
    folder.mkdir(exist_ok=True)
    path = folder / f"{case.seed}-{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def load(path: Path) -> Case:
    """A case that save wrote."""
    record = json.loads(path.read_text())
    hurt = tuple(Injury(offset, bytes.fromhex(data)) for offset, data in record["injuries"])
    return Case(record["seed"], record["number"], hurt, record["told"])


def kept() -> list[Path]:
    return sorted(FOLDER.glob("*.json"))
