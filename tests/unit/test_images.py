"""Image files: what is converted, what is refused, and that nothing is left behind."""

import contextlib
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from licquant.errors import DataError, ImageError, LicquantError
from licquant.images import crop, list_images, pad_to_multiple, read_image, reading, write_atomically, write_image


def gradient(height: int = 5, width: int = 7) -> np.ndarray:
    return (np.arange(height * width * 3) * 37 % 256).astype(np.uint8).reshape(height, width, 3)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write; ``rows`` are the filtered scan lines."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# --- round trips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".ppm", ".bmp", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 7)])
def test_written_images_are_read_back_exactly(tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
    path = tmp_path / f"image{suffix}"
    write_image(path, gradient(*shape))
    assert np.array_equal(read_image(path), gradient(*shape))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_read_image_is_contiguous_and_writable(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", gradient())
    rgb = read_image(str(tmp_path / "a.png"))
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable


def test_a_view_is_written_as_it_looks(tmp_path: Path) -> None:
    write_image(tmp_path / "a.ppm", gradient()[::-1, ::2])
    assert np.array_equal(read_image(tmp_path / "a.ppm"), gradient()[::-1, ::2])


# --- converted ----------------------------------------------------------------------------------------------


def test_greyscale_and_bitmap_become_three_equal_channels(tmp_path: Path) -> None:
    grey = gradient()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=-1))
    Image.fromarray(grey).save(tmp_path / "grey.pgm")
    assert np.array_equal(read_image(tmp_path / "grey.pgm"), np.stack([grey] * 3, axis=-1))

    Image.fromarray(grey > 128).save(tmp_path / "bits.png")
    assert np.array_equal(read_image(tmp_path / "bits.png")[:, :, 1], (grey > 128) * np.uint8(255))
    (tmp_path / "bits.pbm").write_bytes(b"P1 # a comment\n2 1\n1 0\n")
    assert read_image(tmp_path / "bits.pbm").tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_palette_gives_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    for name in ("palette.png", "palette.gif"):
        image.save(tmp_path / name)
        assert read_image(tmp_path / name).tolist() == [
            [[10, 20, 30], [200, 100, 50]],
            [[200, 100, 50], [10, 20, 30]],
        ]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (3, 2), (255, 0, 0, 0)).save(tmp_path / "cmyk.tif")
    assert read_image(tmp_path / "cmyk.tif")[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_alpha_is_dropped(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(gradient()).convert(mode)
    image.save(tmp_path / "opaque.png")
    assert np.array_equal(read_image(tmp_path / "opaque.png"), np.array(image.convert("RGB")))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    Image.fromarray(gradient()).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(gradient(), -1))


# --- refused ------------------------------------------------------------------------------------------------


def transparent_rgba() -> Image.Image:
    image = Image.fromarray(gradient()).convert("RGBA")
    image.putpixel((0, 0), (1, 2, 3, 254))
    return image


def test_transparency_is_refused_in_every_form(tmp_path: Path) -> None:
    transparent_rgba().save(tmp_path / "rgba.png")
    transparent_rgba().convert("LA").save(tmp_path / "la.png")
    Image.new("RGB", (2, 2), (9, 9, 9)).save(tmp_path / "key.png", transparency=(9, 9, 9))
    Image.new("P", (2, 2), 0).save(tmp_path / "palette.png", transparency=0)
    for name in ("rgba.png", "la.png", "key.png", "palette.png"):
        with pytest.raises(ImageError, match="transparent pixels; flatten"):
            read_image(tmp_path / name)


def test_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 40000, np.uint16)).save(tmp_path / "grey16.png")
    Image.fromarray(np.full((2, 2), 40000, np.uint16)).save(tmp_path / "grey16.tif")
    (tmp_path / "rgb16.png").write_bytes(png(1, 1, 16, 2, b"\0" + bytes(6)))
    (tmp_path / "rgba16.png").write_bytes(png(1, 1, 16, 6, b"\0" + b"\xff" * 8))
    (tmp_path / "rgb16.ppm").write_bytes(b"P6\n# made by hand\n1 1\n65535\n" + bytes(6))
    (tmp_path / "grey16.pgm").write_bytes(b"P5 1 1 1023\n" + bytes(2))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ImageError, match="16 bits per sample; convert it to 8-bit RGB"):
            read_image(path)


def test_a_tiff_of_sixteen_bit_colour_is_refused(tmp_path: Path) -> None:
    """Little-endian, one strip, RGB of 16 bits: Pillow writes none, but reads it as 8 bits."""
    entries = [
        (256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140),
        (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6), (284, 3, 1, 1),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0)
    (tmp_path / "rgb16.tif").write_bytes(tiff.ljust(134, b"\0") + struct.pack("<HHH", 16, 16, 16) + bytes(6))
    with pytest.raises(ImageError, match="16 bits per sample"):
        read_image(tmp_path / "rgb16.tif")


def test_floating_point_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match="floating-point"):
        read_image(tmp_path / "float.tif")


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="2 frames"):
        read_image(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("name", ["a.png", "a.ppm", "a.bmp", "a.tif", "a.jpg"])
def test_truncated_files_are_image_errors(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for length in (0, 1, 8, 20, 25, len(data) // 2):
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_damaged_files_raise_nothing_but_image_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "a.png"
    write_image(path, gradient())
    data = bytearray(path.read_bytes())
    for _ in range(200):
        damaged = data.copy()
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with contextlib.suppress(ImageError):
            assert read_image(path).ndim == 3


def test_what_is_not_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ImageError, match="not an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="a folder, not an image file"):
        read_image(tmp_path)


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_decompression_bombs_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 2, b""))
    with pytest.raises(ImageError, match=r"pixels: at most .* can be coded; cut it into tiles"):
        read_image(tmp_path / "bomb.png")


def test_reading_in_several_threads_leaves_the_filters_of_warnings_alone(tmp_path: Path) -> None:
    """Also while it reads: whoever reads a file of his own then must not get this one's filters."""
    write_image(tmp_path / "good.png", gradient())
    (tmp_path / "bomb.png").write_bytes(png(20_000, 20_000, 8, 2, b""))
    before, seen = list(warnings.filters), []
    opened = reading.open_image

    def observed(file: BinaryIO) -> Image.Image:
        seen.append(list(warnings.filters))
        return opened(file)

    def read(number: int) -> None:
        with contextlib.suppress(ImageError):
            read_image(tmp_path / ("bomb.png" if number % 3 == 0 else "good.png"))

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(reading, "open_image", observed)
        list(pool.map(read, range(24)))
    assert seen == [before] * 24
    assert warnings.filters == before


# --- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a", "a.lic"])
def test_other_suffixes_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="choose one of the suffixes"):
        write_image(tmp_path / name, gradient())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), [[1, 2, 3]]]
)
def test_other_arrays_are_not_written(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ImageError, match="uint8 array of shape"):
        write_image(tmp_path / "a.png", wrong)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / "missing" / "a.png", gradient())
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / "file" / "a.png", gradient())
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / f"{'long' * 100}.png", gradient())
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="not a regular file"):
        write_image(tmp_path / "folder.png", gradient())


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    write_atomically(path, b"old")

    def full_disk(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(LicquantError, match="data: cannot be written: No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


def test_a_device_is_never_replaced() -> None:
    with pytest.raises(LicquantError, match="not a regular file"):
        write_atomically(os.devnull, b"data")


# --- folders and padding ------------------------------------------------------------------------------------


def test_list_images_is_sorted_and_leaves_out_other_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "c.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG"]


def test_list_images_refuses_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        list_images(tmp_path / "missing")


def test_padding_repeats_the_last_row_and_column() -> None:
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)  # 1×2
    assert pad_to_multiple(rgb, 3)[:, :, 0].tolist() == [[1, 4, 4]] * 3


@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.integers(1, 64))
def test_crop_undoes_padding(height: int, width: int, multiple: int) -> None:
    rgb = gradient(height, width)
    padded = pad_to_multiple(rgb, multiple)
    assert padded.shape[0] % multiple == padded.shape[1] % multiple == 0
    assert 0 <= padded.shape[0] - height < multiple
    assert np.array_equal(crop(padded, height, width), rgb)


@pytest.mark.parametrize("size", [(0, 1), (6, 1), (1, 8)])
def test_crop_refuses_sizes_outside_the_image(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot crop"):
        crop(gradient(), *size)
