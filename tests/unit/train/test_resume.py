"""What identifies a run: its images by their contents, or, as earlier versions saved it, by names and sizes."""

import os
from pathlib import Path

import pytest

from licquant.errors import TrainingError
from licquant.images import read_image, write_image
from licquant.train import resume
from tests.unit.train.small import options, recipe


def saved_by(mine: dict, path: Path) -> None:
    resume.save_state(path, mine, {"step": 1}, "log", 1.0)


def with_other_pixels(image: Path) -> None:
    """Another image in a file of the same name, size and time."""
    status = image.stat()
    write_image(image, read_image(image) // 2)
    data = image.read_bytes()
    assert len(data) <= status.st_size
    image.write_bytes(data + bytes(status.st_size - len(data)))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_images_of_other_contents_are_another_run(tmp_path: Path) -> None:
    given, state = options(tmp_path), tmp_path / "model.state"
    mine = resume.identity(recipe(), given)
    saved_by(mine, state)
    assert resume.load_state(state, resume.identity(recipe(), given)) is not None
    with_other_pixels(sorted(given.data.iterdir())[0])
    other = resume.identity(recipe(), given)
    assert other["data_sha256"] == mine["data_sha256"]
    with pytest.raises(TrainingError, match="training images of other contents"):
        resume.load_state(state, other)


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    given, state = options(tmp_path), tmp_path / "model.state"
    mine = resume.identity(recipe(), given)
    saved_by({name: value for name, value in mine.items() if name != "data_contents_sha256"}, state)
    assert resume.load_state(state, mine) is not None
    write_image(given.data / "another.png", read_image(sorted(given.data.iterdir())[0]))
    with pytest.raises(TrainingError, match="other training images"):
        resume.load_state(state, resume.identity(recipe(), given))
