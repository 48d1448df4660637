"""What pictures have beside RGB of 8 bits: kept, converted, flattened, reduced, or refused, by what was asked for."""

import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from licquant.errors import ImageError
from licquant.images import Extras, Reading, colour, displayed, left_out, parse_colour, read_picture, write_image
from licquant.images.metadata import exif_of
from licquant.images.picture import turned
from tests.unit.profiles import ADOBE_RGB, DISPLAY_P3, cmyk_profile, grey_profile, rgb_profile

METADATA = Reading(metadata=True)


def patches(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(3).integers(20, 236, (height, width, 3), dtype=np.uint8)


def soft(height: int = 6, width: int = 8) -> np.ndarray:
    return np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)


def in_srgb(rgb: np.ndarray, profile: bytes) -> np.ndarray:
    """What a viewer shows, computed by LittleCMS from the profile alone."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    shown = ImageCms.profileToProfile(Image.fromarray(rgb), source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.array(shown)


# --- colour -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "avif"])
@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB], ids=["Display P3", "Adobe RGB"])
def test_a_profile_is_kept_as_it_is(tmp_path: Path, suffix: str, primaries: tuple) -> None:
    profile = rgb_profile(*primaries)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(patches()).save(path, icc_profile=profile)
    picture = read_picture(path)
    assert picture.extras.profile == profile
    assert picture.notes == ()
    assert np.array_equal(picture.rgb, np.array(Image.open(path).convert("RGB")))
    for written in ("b.png", "b.tif"):
        write_image(tmp_path / written, picture.rgb, picture.extras)
        assert Image.open(tmp_path / written).info["icc_profile"] == profile


@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB], ids=["Display P3", "Adobe RGB"])
def test_srgb_converts_and_drops_the_profile(tmp_path: Path, primaries: tuple) -> None:
    profile = rgb_profile(*primaries)
    Image.fromarray(patches()).save(tmp_path / "a.png", icc_profile=profile)
    picture = read_picture(tmp_path / "a.png", Reading(srgb=True))
    assert picture.extras.profile == b""
    assert np.array_equal(picture.rgb, in_srgb(patches(), profile))
    assert not np.array_equal(picture.rgb, patches())
    kept = displayed(read_picture(tmp_path / "a.png"), True, None)
    assert np.array_equal(kept.rgb, picture.rgb)
    assert kept.extras.profile == b""


def test_a_saturated_colour_of_display_p3_comes_out_as_known(tmp_path: Path) -> None:
    """(204, 119, 51) of Display P3 is (220, 116, 34) of sRGB, by the matrices that both are defined by."""
    Image.new("RGB", (2, 2), (204, 119, 51)).save(tmp_path / "a.png", icc_profile=rgb_profile(*DISPLAY_P3))
    found = read_picture(tmp_path / "a.png", Reading(srgb=True)).rgb[0, 0]
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 for c in (204, 119, 51)]
    matrix = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    wanted = 255 * (1.055 * (matrix @ linear) ** (1 / 2.4) - 0.055)
    assert np.abs(found - wanted).max() <= 2


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_cmyk_is_converted_by_its_profile(tmp_path: Path, suffix: str) -> None:
    """The test profile says that paper is white and that cyan, magenta and yellow are pure, ink by ink."""
    profile = cmyk_profile()
    image = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    image.paste((255, 0, 0, 0), (8, 0, 16, 16))
    image.save(tmp_path / f"a.{suffix}", icc_profile=profile, **({"quality": 100} if suffix == "jpg" else {}))
    picture = read_picture(tmp_path / f"a.{suffix}")
    wanted = in_srgb_cmyk(tmp_path / f"a.{suffix}", profile)
    assert np.abs(picture.rgb.astype(int) - wanted).max() <= 1
    assert not np.array_equal(picture.rgb, np.array(image.convert("RGB")))
    assert picture.extras.profile == b""
    assert picture.notes == ("converted from CMYK to sRGB by its colour profile",)


def in_srgb_cmyk(path: Path, profile: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return np.array(
        ImageCms.profileToProfile(Image.open(path), source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    )


def test_grey_is_converted_by_its_profile(tmp_path: Path) -> None:
    """A grey of gamma 1 is light itself: half of it is 188 of sRGB."""
    Image.new("L", (3, 3), 128).save(tmp_path / "a.png", icc_profile=grey_profile(1.0))
    picture = read_picture(tmp_path / "a.png")
    assert np.abs(picture.rgb.astype(int) - 188).max() <= 1
    assert picture.notes == ("converted from GRAY to sRGB by its colour profile",)


@pytest.mark.parametrize("profile", [b"not a profile", bytes(200), None])
def test_a_profile_that_does_not_fit_is_left_out_and_said(tmp_path: Path, profile: bytes | None) -> None:
    Image.fromarray(patches()).save(tmp_path / "a.png", icc_profile=profile or cmyk_profile())
    for reading in (Reading(), Reading(srgb=True)):
        picture = read_picture(tmp_path / "a.png", reading)
        assert picture.extras.profile == b""
        assert len(picture.notes) == 1
        assert "colour profile" in picture.notes[0]
        assert np.array_equal(picture.rgb, patches())


def test_a_profile_of_nonsense_behind_a_right_header_is_an_error_when_used(tmp_path: Path) -> None:
    profile = rgb_profile(*DISPLAY_P3)[:128] + b"\xff" * 300
    Image.fromarray(patches()).save(tmp_path / "a.png", icc_profile=profile)
    with pytest.raises(ImageError, match="profile cannot be used"):
        read_picture(tmp_path / "a.png", Reading(srgb=True))
    assert colour.space_of(profile) == "RGB"


# --- transparency -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_transparency_is_kept_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    rgba = np.dstack([patches(), soft()])
    Image.fromarray(rgba).save(
        tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {})
    )
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert np.array_equal(picture.rgb, patches())
    assert np.array_equal(picture.extras.alpha, soft())
    for name in ("b.png", "b.tif"):
        write_image(tmp_path / name, picture.rgb, picture.extras)
        assert np.array_equal(np.array(Image.open(tmp_path / name)), rgba)


def test_every_form_of_transparency_is_kept(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (9, 9, 9)).save(tmp_path / "key.png", transparency=(9, 9, 9))
    Image.new("P", (2, 2), 0).save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(np.dstack([soft(), soft()[::-1]])).save(tmp_path / "grey.png")
    assert (read_picture(tmp_path / "key.png").extras.alpha == 0).all()
    assert (read_picture(tmp_path / "palette.png").extras.alpha == 0).all()
    assert np.array_equal(read_picture(tmp_path / "grey.png").extras.alpha, soft()[::-1])


def test_a_background_shows_through(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([patches(), soft()])).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", Reading(background=(255, 0, 128)))
    share = soft()[:, :, None] / 255
    wanted = np.floor(patches() * share + np.array([255, 0, 128]) * (1 - share) + 0.5)
    assert np.abs(picture.rgb - wanted).max() <= 1e-9
    assert picture.extras.alpha is None
    kept = displayed(read_picture(tmp_path / "a.png"), False, (255, 0, 128))
    assert np.array_equal(kept.rgb, picture.rgb)
    assert kept.extras.alpha is None


def test_transparency_can_be_refused(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([patches(), soft()])).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="transparent pixels"):
        read_picture(tmp_path / "a.png", Reading(alpha=False))


def test_formats_without_transparency_are_refused_for_it(tmp_path: Path) -> None:
    for name in ("a.ppm", "a.bmp"):
        with pytest.raises(ImageError, match="is transparent"):
            write_image(tmp_path / name, patches(), Extras(alpha=soft()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "wanted"), [("white", (255, 255, 255)), ("#ffcc00", (255, 204, 0)), ("#fc0", (255, 204, 0))]
)
def test_colours_by_name_and_number(text: str, wanted: tuple[int, int, int]) -> None:
    assert parse_colour(text) == wanted
    with pytest.raises(ImageError, match="no colour"):
        parse_colour(text + "?")


# --- EXIF, XMP, density -------------------------------------------------------------------------------------

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="a"/></x:xmpmeta>'

UPRIGHT = XMP.replace(b'"6"', b'"1"')


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112], found[0x010F] = orientation, "a camera"
    found.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    return found


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "avif"])
def test_metadata_is_dropped_unless_asked_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(patches()).save(path, exif=exif(1).tobytes(), dpi=(300, 150))
    assert read_picture(path).extras.names() == {}
    kept = read_picture(path, METADATA).extras
    assert kept.exif.startswith((b"II*\0", b"MM\0*"))
    for name in ("b.png", "b.tif"):
        write_image(tmp_path / name, patches(), replace(kept, xmp=UPRIGHT))
        written = Image.open(tmp_path / name)
        assert written.getexif()[0x010F] == "a camera"
        assert written.getexif().get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
        written.load()
        assert written.info["xmp"] == UPRIGHT
        assert written.info["dpi"] == pytest.approx(kept.density, abs=0.02) if kept.density else True
    if suffix in ("png", "jpg", "tif"):
        assert kept.density == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a.{suffix}"
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(patches()).save(
        path, exif=exif(orientation), xmp=XMP if suffix in ("jpg", "webp") else None, **options
    )
    picture = read_picture(path, METADATA)
    stored = np.array(Image.open(path).convert("RGB")) if suffix != "tif" else patches()
    transposes = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    upright = Image.fromarray(stored)
    upright = upright.transpose(Image.Transpose(transposes[orientation])) if orientation > 1 else upright
    assert np.array_equal(picture.rgb, np.array(upright))
    write_image(tmp_path / "b.png", picture.rgb, picture.extras)
    written = Image.open(tmp_path / "b.png")
    assert written.getexif().get(0x0112, 1) == 1
    assert written.getexif()[0x010F] == "a camera"
    if suffix in ("jpg", "webp"):
        assert picture.extras.xmp == UPRIGHT
        assert b'tiff:Orientation="1"' in written.info["xmp"]


def test_density_turns_with_the_picture_and_so_does_transparency(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([patches(), soft()])).save(tmp_path / "a.png", exif=exif(6), dpi=(300, 150))
    extras = read_picture(tmp_path / "a.png", METADATA).extras
    assert extras.density == pytest.approx((150, 300), abs=0.02)
    assert np.array_equal(extras.alpha, np.rot90(soft(), -1))
    assert np.array_equal(turned(soft(), 6), np.rot90(soft(), -1))


def test_a_makers_notes_stay_where_they_are(tmp_path: Path) -> None:
    """Only the orientation's twelve bytes differ: what refers to places in the block stays right."""
    block = exif(8).tobytes() + b"notes that nobody can move" * 3
    Image.fromarray(patches()).save(tmp_path / "a.jpg", exif=block)
    kept = read_picture(tmp_path / "a.jpg", METADATA).extras.exif
    original = block.removeprefix(b"Exif\0\0")
    assert len(kept) == len(original)
    assert sum(a != b for a, b in zip(kept, original, strict=True)) == 1


@pytest.mark.parametrize(
    "junk", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x" * 50]
)
def test_exif_of_nonsense_is_none(junk: bytes) -> None:
    image = Image.fromarray(patches())
    image.info["exif"] = junk
    assert exif_of(image) == b""


def test_what_a_format_has_no_place_for_is_named() -> None:
    extras = Extras(profile=b"p", exif=b"e", xmp=b"x", density=(72, 72))
    assert left_out("PPM", extras) == ["colour profile", "EXIF", "XMP", "density"]
    assert left_out("BMP", extras) == ["colour profile", "EXIF", "XMP"]
    assert left_out("PNG", extras) == left_out("TIFF", extras) == []


# --- depth, frames, kinds -----------------------------------------------------------------------------------


def test_sixteen_bits_become_their_upper_byte_when_asked(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(values).save(tmp_path / "grey.tif")
    (tmp_path / "grey.pgm").write_bytes(b"P5 16 16 65535\n" + values.astype(">u2").tobytes())
    (tmp_path / "plain.pgm").write_bytes(b"P2 16 16 65535\n" + " ".join(map(str, values.ravel())).encode())
    for path in tmp_path.iterdir():
        with pytest.raises(ImageError, match=r"16 bits per sample; .*--depth 8"):
            read_picture(path)
        found = read_picture(path, Reading(reduce=True)).rgb
        assert np.array_equal(found[:, :, 1], values // 257)


def test_sixteen_bits_keep_what_they_carry(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    deep.save(tmp_path / "a.png", icc_profile=grey_profile(1.0), dpi=(300, 300))
    picture = read_picture(tmp_path / "a.png", Reading(reduce=True, metadata=True))
    assert np.abs(picture.rgb.astype(int) - 188).max() <= 1
    assert picture.extras.density == pytest.approx((300, 300), abs=0.02)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "avif"])
def test_one_of_several_frames(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "avif" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    with pytest.raises(ImageError, match="3 frames; choose one with --frame 0 to 2"):
        read_picture(tmp_path / f"a.{suffix}")
    for number in range(3):
        found = read_picture(tmp_path / f"a.{suffix}", Reading(frame=number)).rgb
        assert np.abs(found.astype(int) - np.array(frames[number])).max() <= 4
    with pytest.raises(ImageError, match="no frame 3"):
        read_picture(tmp_path / f"a.{suffix}", Reading(frame=3))


@pytest.mark.parametrize("suffix", ["avif", "jp2", "tga", "qoi", "sgi", "pcx"])
def test_what_pillow_reads_is_read(tmp_path: Path, suffix: str) -> None:
    try:
        Image.fromarray(patches()).save(tmp_path / f"a.{suffix}")
    except (ValueError, KeyError, OSError):
        pytest.skip(f"this Pillow does not write {suffix}")
    assert np.array_equal(read_picture(tmp_path / f"a.{suffix}").rgb, np.array(Image.open(tmp_path / f"a.{suffix}")))


@pytest.mark.parametrize(
    ("start", "package"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", "pillow-heif"),
        (b"\xff\x0a\x7f\x4b", "pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "pillow-jxl-plugin"),
    ],
)
def test_a_missing_plugin_is_named(tmp_path: Path, start: bytes, package: str) -> None:
    (tmp_path / "a.bin").write_bytes(start + bytes(100))
    with pytest.raises(ImageError, match=rf"pip install {package}|cannot be read"):
        read_picture(tmp_path / "a.bin")


# --- netpbm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comment", [b"# " + b"x" * 2048 + b"\n", b"#a\r# b" + b"y" * 70000 + b"\n", b""])
def test_netpbm_with_comments(tmp_path: Path, comment: bytes) -> None:
    rgb = patches()
    (tmp_path / "a.ppm").write_bytes(b"P6\n" + comment + b"8 6\n" + comment + b"255\n" + rgb.tobytes())
    (tmp_path / "b.ppm").write_bytes(b"P3\n" + comment + b"8 6 255\n" + " ".join(map(str, rgb.ravel())).encode())
    for name in ("a.ppm", "b.ppm"):
        assert np.array_equal(read_picture(tmp_path / name).rgb, rgb)
    (tmp_path / "a.pgm").write_bytes(b"P5\n" + comment + b"8 6\n255\n" + rgb[:, :, 0].tobytes())
    (tmp_path / "b.pgm").write_bytes(
        b"P2\n" + comment + b"8 6\n255\n" + " ".join(map(str, rgb[:, :, 0].ravel())).encode()
    )
    for name in ("a.pgm", "b.pgm"):
        assert np.array_equal(read_picture(tmp_path / name).rgb, np.stack([rgb[:, :, 0]] * 3, -1))
    bits = rgb[:, :, 0] > 128
    (tmp_path / "a.pbm").write_bytes(b"P4\n" + comment + b"8 6\n" + np.packbits(bits, axis=1).tobytes())
    assert np.array_equal(read_picture(tmp_path / "a.pbm").rgb[:, :, 0], 255 * ~bits)


@pytest.mark.parametrize(
    ("depth", "kind"), [(1, "GRAYSCALE"), (2, "GRAYSCALE_ALPHA"), (3, "RGB"), (4, "RGB_ALPHA"), (3, "")]
)
def test_pam(tmp_path: Path, depth: int, kind: str) -> None:
    values = np.random.default_rng(5).integers(0, 256, (6, 8, depth), dtype=np.uint8)
    named = f"TUPLTYPE {kind}\n" if kind else ""
    header = f"P7\n# made by hand\nWIDTH 8\nHEIGHT 6\nDEPTH {depth}\nMAXVAL 255\n{named}ENDHDR\n"
    (tmp_path / "a.pam").write_bytes(header.encode() + values.tobytes())
    picture = read_picture(tmp_path / "a.pam")
    colours = values[:, :, :3] if depth > 2 else np.repeat(values[:, :, :1], 3, 2)
    assert np.array_equal(picture.rgb, colours)
    assert (picture.extras.alpha is not None) == (depth in (2, 4))
    if depth in (2, 4):
        assert np.array_equal(picture.extras.alpha, values[:, :, -1])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 4\nMAXVAL 255\nTUPLTYPE CMYK\nENDHDR\nabcd", "CMYK"),
        (b"P7\nWIDTH 1\nHEIGHT 1\nMAXVAL 255\nENDHDR\nabcd", "lacks DEPTH"),
        (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nENDHDR\nab", "truncated"),
        (b"P6 4 4 0\n" + bytes(48), "largest sample value is 0"),
        (b"P6 4 4 255\n" + bytes(47), "truncated"),
        (b"P6 4 x 255\n" + bytes(48), "is no number"),
        (b"P6 99999999 99999999 255\n", "can be coded"),
        (b"P6 0 4 255\n", "no pixels"),
        (b"P6 #", "no end"),
        (b"P5 1 1 65536\n\0\0", "largest sample value is 65536"),
    ],
)
def test_netpbm_of_nonsense(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "a.pnm").write_bytes(data)
    with pytest.raises(ImageError, match=says):
        read_picture(tmp_path / "a.pnm")


def test_other_largest_values_are_scaled(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 100\n" + bytes([0, 50, 100, 7]))
    assert read_picture(tmp_path / "a.pgm").rgb[0, :, 0].tolist() == [0, 128, 255, 18]


def test_an_open_file_is_read_like_its_path() -> None:
    data = io.BytesIO()
    Image.fromarray(patches()).save(data, format="PNG")
    data.seek(0)
    assert np.array_equal(read_picture(data).rgb, patches())
    with pytest.raises(ImageError, match="the image: not an image"):
        read_picture(io.BytesIO(struct.pack("<I", 7) * 9))
