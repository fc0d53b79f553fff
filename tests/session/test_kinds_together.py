"""Volumes of several kinds and block sizes in one session: the kernel's trees and the restored ones agree."""

import os
from pathlib import Path
from typing import Any

import pytest

from splitreel import config, session
from splitreel.backup import Result
from tests import ext4_images, trees, xfs_images
from tests.session.test_tape import restored

pytestmark = pytest.mark.root
LEFT_OUT = ("lost+found",)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Blocks of 1 KiB, of 4 KiB in another file system, and a device without one that ends within a block."""
    ext4_images.need_ext4()
    folder = tmp_path_factory.mktemp("images")
    made = {
        "small": ext4_images.make_image(folder / "small.img", 64, "-b", "1024"),
        "xfs": xfs_images.make_image(folder / "xfs.img", 160),
    }
    for name, image in made.items():
        with ext4_images.mounted(image) as point:
            ext4_images.fill_contents(point / "contents")
            (point / "contents/far").unlink()  # 40 GB of zeros
            ext4_images.fill_names(point / "names")
            ext4_images.fill_attributes(point / "attributes")
            (point / "attributes/time8").unlink()  # the last second of ext4, which its own kernel rounds
            (point / "large").write_bytes(name.encode() * 1_500_000)
            os.link(point / "large", point / "large too")
    made["asm"] = folder / "asm"
    made["asm"].write_bytes(os.urandom(5_000_123))
    return made


def job_of(images: dict[str, Path], tape: Path, **more: Any) -> config.Job:
    volumes = [
        {"name": name, "mirror": {"type": "static", "image": str(image)}, "raw": name == "asm"}
        for name, image in images.items()
    ]
    sizes = {"block_size": 65536, "segment_size": 2 << 20}
    return config.parse({"job": {"j": {"tape": f"file:{tape}", "volumes": volumes, **sizes, **more}}}).job()


@pytest.mark.parametrize("order", ["path", "physical"])
def test_each_comes_back_as_it_was(images: dict[str, Path], state: Path, tmp_path: Path, order: str) -> None:
    """Whatever the order of the files, holes, parts of large files and links included."""
    done = session.run(job_of(images, tmp_path / "tape", file_order=order), state=state)
    assert isinstance(done.backup, Result) and done.backup.complete and not done.backup.left_out
    to = restored(tmp_path / "tape", tmp_path / "to")

    for name in ("small", "xfs"):
        with ext4_images.mounted(images[name], "ro") as point:
            truth = trees.tree(point, LEFT_OUT)
        found = trees.tree(to / name, LEFT_OUT)
        for entry in (*truth.values(), *found.values()):
            entry.pop("allocated", None)  # in blocks of another size
        assert trees.differences(truth, found) == []
    (raw,) = (to / "asm").iterdir()
    assert raw.read_bytes() == images["asm"].read_bytes()


def test_a_path_names_files_of_its_volume_alone(images: dict[str, Path], state: Path, tmp_path: Path) -> None:
    session.run(job_of(images, tmp_path / "tape", paths=["xfs/large", "asm"]), state=state)
    to = restored(tmp_path / "tape", tmp_path / "to")

    assert sorted(path.name for path in to.iterdir()) == ["asm", "xfs"]
    assert [path.name for path in (to / "xfs").iterdir()] == ["large"]
