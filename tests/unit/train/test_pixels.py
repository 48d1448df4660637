"""The decoded images: equal to the files, decoded once, and what happens to bad files and full disks."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from licquant.errors import DataError, TrainingError
from licquant.images import list_images, read_image, write_image
from licquant.train import pixels
from licquant.train.pixels import names_digest, open_pixels
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
    before = names_digest(folder)
    open_pixels(folder, tmp_path / "cache")
    write_image(folder / "another.png", np.zeros((80, 80, 3), np.uint8))
    assert len(open_pixels(folder, tmp_path / "cache")) == 5
    assert names_digest(folder) != before


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


def truncated(samples: Path) -> None:
    samples.write_bytes(samples.read_bytes()[:-1])


def one_bit_changed(samples: Path) -> None:
    data = bytearray(samples.read_bytes())
    data[len(data) // 2] ^= 1
    samples.write_bytes(bytes(data))


def no_index(samples: Path) -> None:
    samples.with_suffix(".jsonl").write_text("{not JSON")


@pytest.mark.parametrize("damage", [truncated, one_bit_changed, Path.unlink, no_index])
def test_a_damaged_cache_is_said_and_decoded_again(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    open_pixels(folder, tmp_path / "cache")
    (samples,) = (tmp_path / "cache").glob("*.u8")
    damage(samples)
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        found = open_pixels(folder, tmp_path / "cache", lambda *numbers: calls.append(numbers))
        for index, path in enumerate(list_images(folder)):
            assert np.array_equal(found.image(index), read_image(path))
    assert len(calls) == 4
    (line,) = caplog.messages
    assert samples.stem in line
    assert "made again" in line


def test_contents_decide_not_names_and_times(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    open_pixels(folder, tmp_path / "cache")
    shutil.copytree(folder, tmp_path / "copy")
    open_pixels(tmp_path / "copy", tmp_path / "cache", lambda *numbers: calls.append(numbers))
    assert calls == []
    image, status = tmp_path / "copy" / "wide.png", (tmp_path / "copy" / "wide.png").stat()
    data = bytearray(image.read_bytes())
    write_image(image, 255 - read_image(image))
    other = image.read_bytes()
    image.write_bytes(other[: len(data)] + bytes(max(len(data) - len(other), 0)))  # of the same size and time
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert image.stat().st_size == len(data)
    assert image.stat().st_mtime_ns == status.st_mtime_ns
    open_pixels(tmp_path / "copy", tmp_path / "cache", lambda *numbers: calls.append(numbers))
    assert len(calls) == 4
