"""The decoded images: equal to the files, decoded once, and what happens to bad files and full disks."""

import errno
from pathlib import Path

import numpy as np
import pytest

from licquant.errors import DataError, TrainingError
from licquant.images import list_images, read_image, write_image
from licquant.train import pixels
from licquant.train.pixels import data_digest, open_pixels
from tests.unit.train.small import write_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_images(tmp_path / "images", count=3, side=70)
    write_image(folder / "wide.png", np.arange(20 * 90 * 3, dtype=np.uint16).astype(np.uint8).reshape(20, 90, 3))
    return folder


def test_they_are_the_files_and_decoded_once(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        found = open_pixels(folder, tmp_path / "cache", lambda *numbers: calls.append(numbers))
        for index, path in enumerate(list_images(folder)):
            assert np.array_equal(found.image(index), read_image(path))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.at_least(64) == [0, 1, 2]


def test_a_changed_folder_is_decoded_again(folder: Path, tmp_path: Path) -> None:
    before = data_digest(folder)
    open_pixels(folder, tmp_path / "cache")
    write_image(folder / "another.png", np.zeros((80, 80, 3), np.uint8))
    assert len(open_pixels(folder, tmp_path / "cache")) == 5
    assert data_digest(folder) != before


def test_unreadable_files_are_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 and then nothing")
    found = open_pixels(folder, tmp_path / "cache")
    assert (len(found), found.unreadable) == (4, 1)


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        open_pixels(tmp_path / "empty", tmp_path / "cache")
    (tmp_path / "empty" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        open_pixels(tmp_path / "empty", tmp_path / "cache")


def test_a_full_disk_is_said_and_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pixels.os, "replace", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        open_pixels(folder, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_truncated_cache_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    open_pixels(folder, tmp_path / "cache")
    (samples,) = (tmp_path / "cache").glob("*.u8")
    samples.write_bytes(samples.read_bytes()[:-1])
    with pytest.raises(TrainingError, match="delete it"):
        open_pixels(folder, tmp_path / "cache")
