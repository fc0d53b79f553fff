"""fixture unpacks the disks that fixtures/make.sh kept, with what the kernel showed of each volume on them."""

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class Truth:
    """A volume as the kernel showed it through device mapper or md."""

    case: str
    volume: str | None
    size: int
    sha256: str


def truths() -> list[Truth]:
    """All of them."""
    lines = (FOLDER / "truth.jsonl").read_text().splitlines()
    return [Truth(**{**record, "volume": record["volume"] or None}) for record in map(json.loads, lines)]


def unpack(case: str, to: Path) -> list[Path]:
    """The disks of a case, as sparse files, in order."""
    with tarfile.open(FOLDER / f"{case}.tar.xz") as archive:
        # The argument of extractall came with Python 3.11.4, the attribute is ignored before; Debian 12 has 3.11.2.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(to)
    return sorted(path for path in to.iterdir() if path.name.isdigit())
