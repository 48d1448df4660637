"""Coding an image in the page: its file is, byte for byte, what licquant's exact engine makes of the same pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import licquant
from licquant.codec.codec import Codec
from licquant.codec.entropy.tables import CodingTables
from licquant.codec.files.artifact import Artifact
from licquant.codec.files.bitstream import Bitstream
from licquant.images import write_folder, write_image
from licquant.onnx_export.folder import exported
from tests.conformance.pictures import PICTURES
from tests.conformance.run import digest
from tests.served_page import ASSETS, CORPUS, EMBEDDED, STATIC, Opened, codec_of  # skips without onnx

pytestmark = pytest.mark.slow


def coded(opened: Opened, file: Path, codec: Codec, folder: Path) -> bytes:
    """What the page offers to save."""
    opened.page.locator("#model").select_option(codec.id.hex())
    assert opened.give(file) == ""
    with opened.page.expect_download() as saved:
        opened.page.locator("#save-coded").click()
    assert saved.value.suggested_filename == f"{file.stem}.lic"
    saved.value.save_as(folder / "coded.lic")
    return (folder / "coded.lic").read_bytes()


@pytest.mark.parametrize("name", STATIC)
def test_files_of_the_corpus(name: str, opened: Opened, tmp_path: Path) -> None:
    codec = codec_of(CORPUS / f"{name}.licq")
    for picture in ("scene", "pixel", "noise", "white"):
        write_image(tmp_path / f"{picture}.png", PICTURES[picture]())
        data = coded(opened, tmp_path / f"{picture}.png", codec, tmp_path)
        assert data == codec.encode(PICTURES[picture]()), picture
    found = opened.digests()
    assert found["pixels"] == digest(codec.decode(data))
    assert f"{len(data):,} bytes" in opened.page.locator("#facts").text_content()


def test_a_photograph_in_several_tiles(opened: Opened, tmp_path: Path) -> None:
    file, codec = ASSETS / "images" / "kodim04.png", codec_of(EMBEDDED[1])
    rgb = licquant.read_image(file)
    assert max(rgb.shape) > 512  # pixels a side of a tile
    assert coded(opened, file, codec, tmp_path) == codec.encode(rgb)


def test_symbols_far_from_their_tables(opened: Opened, tmp_path: Path) -> None:
    """Escapes of either side and of many classes: tables that begin anywhere in int32."""
    artifact, rng = Artifact.from_bytes((CORPUS / "mbt2018.licq").read_bytes()), np.random.default_rng(3)

    def moved(tables: CodingTables) -> CodingTables:
        shifts = (1 << rng.integers(0, 31, len(tables))) * rng.choice([-1, 1], len(tables))
        return replace(tables, offsets=np.clip(tables.offsets + shifts, -(1 << 31), (1 << 31) - 1 - tables.lengths))

    tables = replace(artifact.tables, z=moved(artifact.tables.z), y=moved(artifact.tables.y))
    far = Artifact(artifact.family, artifact.program, tables, artifact.plan)
    codec = Codec(far, b"far away", "exact", 1)
    write_folder(tmp_path / "far", exported(far, codec.id.hex()))
    write_image(tmp_path / "scene.png", PICTURES["scene"]())
    opened.page.locator("#folder").set_input_files(tmp_path / "far")
    opened.page.locator("#status", has_text="is open").wait_for()
    data = coded(opened, tmp_path / "scene.png", codec, tmp_path)
    assert data == codec.encode(PICTURES["scene"]())
    assert opened.digests()["pixels"] == digest(codec.decode(data))


def test_the_browsers_own_formats(opened: Opened, tmp_path: Path) -> None:
    """A JPEG image as the browser reads it; opaque PNG images in grey, with a palette, and with alpha."""
    codec = codec_of(CORPUS / "mbt2018-mean.licq")
    scene = Image.fromarray(PICTURES["scene"]())
    scene.save(tmp_path / "a.jpeg", quality=90)
    stream = Bitstream.from_bytes(coded(opened, tmp_path / "a.jpeg", codec, tmp_path))
    assert (stream.width, stream.height) == scene.size
    for mode in ("L", "P", "RGBA"):
        scene.convert(mode).save(tmp_path / "b.png")
        data = coded(opened, tmp_path / "b.png", codec, tmp_path)
        assert data == codec.encode(np.asarray(scene.convert(mode).convert("RGB"))), mode


def test_images_that_are_refused(opened: Opened, tmp_path: Path) -> None:
    opened.page.locator("#model").select_option(codec_of(CORPUS / "mbt2018-mean.licq").id.hex())
    rgba = np.full((20, 30, 4), 255, np.uint8)
    rgba[3, 4, 3] = 254
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    Image.new("1", (4096, 4097)).save(tmp_path / "large.png")
    (tmp_path / "none.png").write_bytes(b"no image")
    for name, says in (
        ("clear", "ImageError: the image is transparent somewhere, which this page does not code"),
        ("large", "ImageError: the image has 4096×4097 pixels: this page codes up to 16777216"),
        ("none", "ImageError: the browser cannot read it as an image"),
    ):
        assert opened.give(tmp_path / f"{name}.png").startswith(says)
    Image.fromarray(PICTURES["pixel"]()).save(tmp_path / "a.png")
    assert opened.give(tmp_path / "a.png") == ""  # and goes on
    assert opened.give(CORPUS / "2-bits.pixel.lic") == ""
    assert not opened.page.locator("#save-coded").is_visible()
