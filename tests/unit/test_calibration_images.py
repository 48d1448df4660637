"""Which images calibrate: found by folder, nested folders or list; few of many; what cannot be used is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from licquant.errors import DataError, ImageError
from licquant.images import calibration, calibration_files, find_images, read_calibration
from licquant.images.calibration import LARGEST, MOST


def save(path: Path, height: int = 70, width: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(path)
    return path


def test_nested_folders_in_order_without_hidden_ones(tmp_path: Path) -> None:
    wanted = [save(tmp_path / name) for name in ("a.png", "b/c.jpg", "b/d/e.tif", "f.webp")]
    for name in (".hidden.png", ".git/g.png", "b/.h/i.png"):
        save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    assert find_images(tmp_path) == wanted


def test_a_list_and_a_single_file(tmp_path: Path) -> None:
    wanted = [save(tmp_path / "x" / "b.png"), save(tmp_path / "with space é.png"), tmp_path / "missing.png"]
    text = f"\ufeff# chosen by hand\r\nx/b.png\r\n\r\n  {wanted[1]}  \nmissing.png"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert find_images(tmp_path / "list.txt") == wanted
    assert find_images(wanted[0]) == [wanted[0]]


def test_names_of_other_encodings_in_a_list(tmp_path: Path) -> None:
    name = b"caf\xe9.png"
    save(tmp_path / "a.png").rename(tmp_path / name.decode("utf-8", "surrogateescape"))
    (tmp_path / "list").write_bytes(name + b"\n")
    assert len(read_calibration(find_images(tmp_path / "list"), True).images) == 1


def test_what_holds_no_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n# nothing\n")
    (tmp_path / "binary").write_bytes(bytes(100))
    with pytest.raises(DataError, match="holds no images"):
        find_images(tmp_path)
    with pytest.raises(DataError, match="holds no images"):
        find_images(tmp_path / "list.txt")
    assert find_images(tmp_path / "binary") == [tmp_path / "binary"]  # an image without a suffix: reading tells
    with pytest.raises(DataError, match="not a folder"):
        find_images(tmp_path / "nothing")


def test_thousands_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5000):
        (tmp_path / f"{number:04}.jpg").touch()
    chosen = calibration_files(tmp_path)
    assert len(chosen) == MOST
    assert chosen == calibration_files(tmp_path)
    assert chosen[0].name == "0000.jpg"
    assert chosen[-1].name > "4970.jpg"


def test_as_many_are_read_as_hold_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of hundreds of small pictures, fewer of larger ones; a damaged file has no say in it."""
    first = save(tmp_path / "0000.png")
    for number in range(1, 300):
        (tmp_path / f"{number:04}.png").hardlink_to(first)
    assert len(calibration_files(tmp_path)) == 300
    width, height = Image.open(first).size
    monkeypatch.setattr(calibration, "PIXELS", 20 * width * height)
    assert len(calibration_files(tmp_path)) == 20
    (tmp_path / "0000.png").unlink()
    (tmp_path / "0000.png").write_text("no image")
    assert len(calibration_files(tmp_path)) == 20


def test_one_bad_file_is_skipped_and_named(tmp_path: Path) -> None:
    good = [save(tmp_path / "a.png"), save(tmp_path / "b.png")]
    cut = save(tmp_path / "c.jpg")
    cut.write_bytes(cut.read_bytes()[:900])
    Image.new("RGBA", (80, 80), (1, 2, 3, 4)).save(tmp_path / "d.png")
    save(tmp_path / "e.png", 63, 200)
    (tmp_path / "f.png").write_text("no image")
    Image.fromarray(np.zeros((80, 80), np.uint16)).save(tmp_path / "g.png")
    found = read_calibration([*calibration_files(tmp_path), tmp_path / "missing.png"], False)
    assert len(found.images) == len(good)
    for name, line in zip("cdefg", found.skipped[:5], strict=True):
        assert line.startswith(str(tmp_path / f"{name}."))
    assert "no such file" in found.skipped[5]
    with pytest.raises(ImageError, match=r"c\.jpg"):
        read_calibration(calibration_files(tmp_path), True)
    with pytest.raises(DataError, match=r"none of the 1 calibration images can be used: .*f\.png"):
        read_calibration([tmp_path / "f.png"], False)


def test_the_middle_of_large_ones_is_used(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", LARGEST + 10, 90)
    (found,) = read_calibration([path], True).images
    assert np.array_equal(found, np.array(Image.open(path))[5:-5])
    assert found.flags.c_contiguous
