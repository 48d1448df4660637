"""``.lic`` as one of Pillow's formats."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, UnidentifiedImageError

import licquant
import licquant.pillow
from licquant.codec.codec import Codec
from licquant.codec.files.bitstream import FIELD_KINDS, Bitstream
from licquant.commands.model_choice import Codecs
from licquant.commands.model_search import embedded
from licquant.errors import LicquantError
from licquant.images import Extras
from licquant.quant.synthetic import dead_leaves

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WITHOUT_A_MODEL = """
import sys, licquant.pillow
from PIL import Image
with Image.open(sys.argv[1]) as image:
    assert (image.size, image.mode, image.format) == ((130, 96), "RGBA", "LIC"), image
    assert image.info["icc_profile"]
assert not {"torch", "openvino"} & set(sys.modules)
"""


@pytest.fixture
def coded(codec: Codec, image: np.ndarray) -> bytes:
    return codec.encode(image)


@pytest.fixture(autouse=True)
def _small_model(artifact_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small one is found like the embedded ones."""
    monkeypatch.setenv("LICQUANT_MODELS", str(artifact_path))


def small() -> Path:
    return Path(os.environ["LICQUANT_MODELS"])


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


def saved(image: Image.Image, **options: object) -> bytes:
    """By the small model, unless the options say otherwise."""
    file = BytesIO()
    image.save(file, "LIC", **{"model": small(), **options})
    return file.getvalue()


def test_it_is_one_of_pillows_formats() -> None:
    assert Image.registered_extensions()[".lic"] == "LIC"
    assert "LIC" in Image.OPEN
    assert "LIC" in Image.SAVE
    assert Image.MIME["LIC"].startswith("image/")


def test_a_file_holds_what_the_codec_makes(
    codec: Codec, image: np.ndarray, artifact_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.lic"
    Image.fromarray(image).save(path, model=artifact_path)
    assert path.read_bytes() == codec.encode(image)
    with Image.open(path) as found:
        assert found.get_format_mimetype() == Image.MIME["LIC"]
        assert np.array_equal(found, codec.decode(path.read_bytes()))
        assert found.size == (130, 96)


def test_pixels_as_of_the_command_line(image: np.ndarray, tmp_path: Path) -> None:
    """With the embedded models, which the commands find without being told."""
    Image.fromarray(image).save(tmp_path / "a.lic", quality=2)
    data = (tmp_path / "a.lic").read_bytes()
    codec = licquant.load(embedded()[1])
    assert data == codec.encode(image)
    assert np.array_equal(Image.open(tmp_path / "a.lic"), codec.decode(data))


def test_opening_needs_no_model(codec: Codec, image: np.ndarray, tmp_path: Path) -> None:
    alpha = np.zeros(image.shape[:2], np.uint8)
    (tmp_path / "a.lic").write_bytes(codec.encode(image, Extras(profile=PROFILE, alpha=alpha)))
    subprocess.run([sys.executable, "-c", WITHOUT_A_MODEL, tmp_path / "a.lic"], check=True, env={})


def test_nothing_is_decoded_before_it_is_wanted(coded: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    decode = Codec.decode
    monkeypatch.setattr(Codec, "decode", lambda self, data: calls.append(data) or decode(self, data))
    found = opened(coded)
    found.verify()
    found = opened(coded)
    assert (found.size, found.mode, calls) == ((130, 96), "RGB", [])
    found.load()
    found.resize((10, 10))
    assert calls == [coded]


def test_what_pillow_does_with_images(coded: bytes, codec: Codec) -> None:
    expected = codec.decode(coded)
    assert np.array_equal(opened(coded).copy(), expected)
    assert np.array_equal(opened(coded).crop((3, 4, 50, 60)), expected[4:60, 3:50])
    assert np.array_equal(pickle.loads(pickle.dumps(opened(coded))), expected)
    thumbnail = opened(coded)
    thumbnail.thumbnail((20, 20))
    assert max(thumbnail.size) == 20


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_file_is_closed_once_it_is_decoded(coded: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.lic").write_bytes(coded)
    found = Image.open(tmp_path / "a.lic")
    file = found.fp
    assert file is not None
    assert not file.closed
    found.load()
    assert file.closed
    given = BytesIO(coded)
    Image.open(given).load()
    assert not given.closed  # its owner's


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGBX"])
def test_other_modes_become_rgb(mode: str, image: np.ndarray, codec: Codec) -> None:
    picture = Image.fromarray(image).convert(mode)
    assert saved(picture) == codec.encode(np.array(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_kept(mode: str, image: np.ndarray) -> None:
    whole = Image.fromarray(image).convert("L").convert("LA" if mode == "LA" else "RGBA")
    whole.putalpha(Image.linear_gradient("L").resize(whole.size))
    if mode == "P":
        whole = whole.quantize(16)
    found = opened(saved(whole))
    assert found.mode == "RGBA"
    assert np.array_equal(found.getchannel("A"), whole.convert("RGBA").getchannel("A"))


def test_transparency_that_is_none_is_not(image: np.ndarray) -> None:
    assert opened(saved(Image.fromarray(image).convert("RGBA"))).mode == "RGB"


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "LAB", "HSV"])
def test_modes_that_cannot_be_coded(mode: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"cannot write mode {mode} as LIC"):
        Image.new(mode, (20, 20)).save(tmp_path / "a.lic")
    assert not (tmp_path / "a.lic").exists()


def test_what_is_coded_beside_the_pixels(image: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    given = {"icc_profile": PROFILE, "exif": exif, "xmp": b"<x:xmpmeta/>", "dpi": (300, 150)}
    found = opened(saved(Image.fromarray(image), **given))
    assert found.info["icc_profile"] == PROFILE
    assert found.info["xmp"] == b"<x:xmpmeta/>"
    assert found.info["dpi"] == (300, 150)
    assert found.getexif()[0x010F] == "a maker"


def test_the_profile_stays_and_the_rest_does_not(image: np.ndarray) -> None:
    """As Pillow's other formats have it, and the command line."""
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG", exif=exif, icc_profile=PROFILE, dpi=(300, 300))
    found = opened(saved(Image.open(file)))
    assert set(found.info) == {"icc_profile"}
    assert not opened(saved(Image.open(file), icc_profile=None)).info


def test_a_picture_is_stored_upright(image: np.ndarray, codec: Codec) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(image), exif=exif)
    found = opened(data)
    assert found.size == (96, 130)
    assert found.getexif()[0x0112] == 1
    upright = np.ascontiguousarray(np.rot90(image, -1))
    assert Bitstream.from_bytes(data).strings == Bitstream.from_bytes(codec.encode(upright)).strings


def test_targets_choose_among_the_models(image: np.ndarray) -> None:
    picture = Image.fromarray(image)
    sizes = [len(saved(picture, model=None, quality=number)) for number in (1, 2, 3, 4)]
    bpp = 8 * sizes[2] / image[..., 0].size
    assert len(saved(picture, model=None, target_bpp=bpp)) == sizes[2]
    assert len(saved(picture, model=None, target_psnr=1)) == sizes[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quality": 0}, "quality must be a whole number above 0, not 0"),
        ({"quality": 2.5}, "whole number"),
        ({"quality": True}, "whole number"),
        ({"quality": "best"}, "whole number"),
        ({"target_bpp": -1}, "target_bpp must be a number"),
        ({"target_psnr": float("nan")}, "target_psnr must be a number"),
        ({"target_bpp": 1, "target_psnr": 30}, "give one of them"),
        ({"quality": 1, "model": "some.licq"}, "chooses among models"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        Image.new("RGB", (20, 20)).save(tmp_path / "a.lic", **options)
    assert not (tmp_path / "a.lic").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quality": 95}, "a.lic: quality 95: there are 4 models here, so 1 to 4"),
        ({"model": "none.licq"}, "a.lic: none.licq: cannot be read"),
    ],
)
def test_models_that_are_not_there(options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(licquant.pillow.LicFileError, match=words):
        Image.new("RGB", (20, 20)).save(tmp_path / "a.lic", **options)
    assert not (tmp_path / "a.lic").exists()


def test_a_model_that_is_not_here(
    coded: bytes, artifact_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LICQUANT_MODELS")
    (tmp_path / "a.lic").write_bytes(coded)
    found = Image.open(tmp_path / "a.lic")
    for _ in range(2):  # it does not become a black picture at the second attempt
        with pytest.raises(OSError, match=r"a\.lic: coded with the model [0-9a-f]{16}, .*LICQUANT_MODELS") as caught:
            found.load()
        assert isinstance(caught.value, LicquantError)
    (tmp_path / "m.licq").write_bytes(artifact_path.read_bytes())
    found.load()  # beside it, now


@pytest.mark.parametrize("length", [4, 5, 21, 22, 40, -1])
def test_truncated_files(coded: bytes, length: int) -> None:
    with pytest.raises(UnidentifiedImageError, match=r"truncated \.lic file") as caught:
        opened(coded[:length])
    assert isinstance(caught.value, LicquantError)


def test_files_of_another_kind() -> None:
    for data in (b"", b"LIC", bytes(10**8)):
        with pytest.raises(UnidentifiedImageError, match="cannot identify"):
            opened(data)
    with pytest.raises(UnidentifiedImageError, match="unknown version 0"):
        opened(b"LICI" + bytes(10**8))


def test_a_claimed_size_is_held_to_pillows_limit(coded: bytes) -> None:
    stream = Bitstream.from_bytes(coded)
    with pytest.raises(Image.DecompressionBombError):
        opened(Bitstream(stream.artifact_id, 1 << 14, 1 << 14, stream.strings).to_bytes())


def test_damage_that_only_decoding_finds(coded: bytes) -> None:
    stream = Bitstream.from_bytes(coded)
    found = opened(Bitstream(stream.artifact_id, 9000, 9000, stream.strings).to_bytes())
    with pytest.raises(OSError, match="too short for the claimed image size"):
        found.load()


def test_a_damaged_profile_is_found_at_opening_and_transparency_at_decoding(coded: bytes) -> None:
    stream = Bitstream.from_bytes(coded)

    def altered(name: str) -> bytes:
        fields = {FIELD_KINDS[name]: b"nonsense"}
        return Bitstream(stream.artifact_id, stream.width, stream.height, stream.strings, fields).to_bytes()

    with pytest.raises(UnidentifiedImageError, match="its profile"):
        opened(altered("profile"))
    found = opened(altered("alpha"))
    with pytest.raises(OSError, match="its alpha"):
        found.load()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_altered_files_give_pillows_errors(data: st.DataObject, codec: Codec) -> None:
    content = bytearray(codec.encode(np.zeros((70, 70, 3), np.uint8), Extras(profile=PROFILE)))
    for at in data.draw(st.lists(st.integers(0, len(content) - 5), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content[-4:] = Bitstream.from_bytes(codec.encode(np.zeros((70, 70, 3), np.uint8))).to_bytes()[-4:]
    try:
        opened(bytes(content)).load()
    except (OSError, Image.DecompressionBombError):
        pass


def test_threads_share_a_model(codec: Codec) -> None:
    images = [dead_leaves(1, 96 + 8 * n, seed=n)[0] for n in range(8)]

    def one(image: np.ndarray) -> bool:
        data = saved(Image.fromarray(image))
        return np.array_equal(opened(data), codec.decode(data)) and data == codec.encode(image)

    licquant.pillow.register(threads=1)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(one, images))
    finally:
        licquant.pillow.register()


def test_how_images_are_coded_can_be_chosen(coded: bytes, artifact_path: Path) -> None:
    licquant.pillow.register(engine="exact")
    try:
        found = opened(coded)
        assert np.array_equal(found, licquant.load(artifact_path, engine="exact").decode(coded))
    finally:
        licquant.pillow.register()
    with pytest.raises(LicquantError, match="unknown engine"):
        licquant.pillow.register(engine="none")
    assert isinstance(licquant.pillow._SETTINGS.codecs, Codecs)
