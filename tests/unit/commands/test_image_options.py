"""encode and decode with pictures as people have them: what is carried, converted, left out and said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from licquant.codec.files.bitstream import Bitstream
from licquant.commands.app import main
from licquant.images import Reading, read_picture
from tests.unit.profiles import ADOBE_RGB, DISPLAY_P3, cmyk_profile, rgb_profile
from tests.unit.test_pictures import exif, in_srgb

Run = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def through(tmp_path: Path, artifact_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Encode a file and decode it again: (both records, what was said on standard error)."""

    def run(source: Path, target: str, encode: tuple[str, ...] = (), decode: tuple[str, ...] = ()) -> Any:
        coded = tmp_path / "a.lic"
        model = ("-m", str(artifact_path), "--json")
        main_without_exit("encode", str(source), "-o", str(coded), *model, *encode)
        main_without_exit("decode", str(coded), "-o", str(tmp_path / target), *model, *decode)
        captured = capsys.readouterr()
        first, second = (json.loads(line) for line in captured.out.splitlines())
        return {"encode": first, "decode": second}, captured.err

    return run


def main_without_exit(*words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 0


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.fixture
def rgba(image: np.ndarray) -> np.ndarray:
    alpha = np.linspace(0, 255, image.shape[0] * image.shape[1]).astype(np.uint8).reshape(image.shape[:2])
    return np.dstack([image, alpha])


@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB], ids=["Display P3", "Adobe RGB"])
def test_colours_look_the_same_after_decoding(
    through: Run, tmp_path: Path, image: np.ndarray, codec: Any, primaries: tuple
) -> None:
    profile = rgb_profile(*primaries)
    Image.fromarray(image).save(tmp_path / "in.png", icc_profile=profile)
    records, said = through(tmp_path / "in.png", "kept.png")
    assert said == ""
    assert records["decode"]["carried"] == ["profile"]
    kept = Image.open(tmp_path / "kept.png")
    assert kept.info["icc_profile"] == profile
    assert np.array_equal(np.array(kept), codec.decode(codec.encode(image)))  # the samples of before
    through(tmp_path / "in.png", "converted.png", ("--srgb",))
    converted = Image.open(tmp_path / "converted.png")
    assert "icc_profile" not in converted.info
    assert np.array_equal(np.array(converted), codec.decode(codec.encode(in_srgb(image, profile))))
    records, said = through(tmp_path / "in.png", "late.ppm", (), ("--srgb",))
    assert said == ""
    assert np.array_equal(read_picture(tmp_path / "late.ppm").rgb, in_srgb(np.array(kept), profile))


def test_what_a_format_cannot_hold_is_said(through: Run, tmp_path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(tmp_path / "in.png", icc_profile=rgb_profile(*DISPLAY_P3))
    records, said = through(tmp_path / "in.png", "out.ppm")
    note = ".ppm has no place for its colour profile: left out"
    assert records["decode"]["notes"] == [note]
    assert said == f"licquant: {tmp_path / 'a.lic'}: {note}\n"


def test_cmyk_is_converted_and_that_is_said(through: Run, tmp_path: Path) -> None:
    Image.new("CMYK", (80, 70), (90, 20, 0, 0)).save(tmp_path / "in.tif", icc_profile=cmyk_profile())
    records, said = through(tmp_path / "in.tif", "out.png")
    assert "converted from CMYK to sRGB" in said
    assert records["encode"]["carried"] == []


@pytest.mark.parametrize("target", ["out.png", "out.tif"])
def test_transparency_comes_back_bit_for_bit(through: Run, tmp_path: Path, rgba: np.ndarray, target: str) -> None:
    Image.fromarray(rgba).save(tmp_path / "in.png")
    through(tmp_path / "in.png", target)
    assert np.array_equal(np.array(Image.open(tmp_path / target))[:, :, 3], rgba[:, :, 3])


def test_transparency_is_flattened_refused_or_asked_about(
    through: Run, tmp_path: Path, rgba: np.ndarray, artifact_path: Path, capsys: pytest.CaptureFixture[str], codec: Any
) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(rgba).save(source)
    model = ("-m", artifact_path)
    through(source, "flat.png", ("--background", "#ff8000"))
    flat = read_picture(source, Reading(background=(255, 128, 0))).rgb
    assert np.array_equal(np.array(Image.open(tmp_path / "flat.png")), codec.decode(codec.encode(flat)))
    through(source, "late.ppm", (), ("--background", "white"))
    assert "transparent" in fails(capsys, "encode", source, *model, "-o", tmp_path / "b.lic", "--no-alpha")
    assert "add --background" in fails(capsys, "decode", tmp_path / "a.lic", *model, "-o", tmp_path / "c.ppm")
    assert "no colour" in fails(capsys, "encode", source, *model, "-o", tmp_path / "b.lic", "--background", "whit")
    both = ("--no-alpha", "--background", "white")
    assert "one of them" in fails(capsys, "encode", source, *model, "-o", tmp_path / "b.lic", *both)
    assert not any((tmp_path / name).exists() for name in ("b.lic", "c.ppm"))


def test_metadata_on_demand(through: Run, tmp_path: Path, image: np.ndarray, codec: Any) -> None:
    options = {"quality": 100, "exif": exif(6), "dpi": (300, 300)}
    Image.fromarray(image).save(tmp_path / "in.jpg", **options)
    plain, _ = through(tmp_path / "in.jpg", "plain.png")
    assert plain["encode"]["carried"] == []
    assert Bitstream.from_bytes((tmp_path / "a.lic").read_bytes()).fields == {}
    kept, _ = through(tmp_path / "in.jpg", "kept.png", ("--metadata",))
    assert kept["decode"]["carried"] == ["exif", "density"]
    found = Image.open(tmp_path / "kept.png")
    assert found.size == (image.shape[0], image.shape[1])  # upright
    assert found.getexif()[0x010F] == "a camera"
    assert found.getexif()[0x0112] == 1
    assert found.info["dpi"] == pytest.approx((300, 300), abs=0.02)
    stored = np.array(Image.open(tmp_path / "in.jpg"))
    upright = np.ascontiguousarray(np.rot90(stored, -1))
    assert np.array_equal(np.array(found), codec.decode(codec.encode(upright)))


def test_depth_and_frame(
    through: Run, tmp_path: Path, image: np.ndarray, artifact_path: Path, capsys: pytest.CaptureFixture[str], codec: Any
) -> None:
    deep = image[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    frames = [Image.fromarray(image), Image.fromarray(image[::-1])]
    frames[0].save(tmp_path / "many.png", save_all=True, append_images=frames[1:])
    place = ("-m", artifact_path, "-o", tmp_path / "b.lic")
    assert "add --depth 8" in fails(capsys, "encode", tmp_path / "deep.png", *place)
    assert "--frame 0 to 1" in fails(capsys, "encode", tmp_path / "many.png", *place)
    assert "no frame 2" in fails(capsys, "encode", tmp_path / "many.png", *place, "--frame", "2")
    assert "only choice" in fails(capsys, "encode", tmp_path / "deep.png", *place, "--depth", "10")
    through(tmp_path / "deep.png", "grey.png", ("--depth", "8"))
    grey = np.stack([image[:, :, 0]] * 3, -1)
    assert np.array_equal(np.array(Image.open(tmp_path / "grey.png")), codec.decode(codec.encode(grey)))
    through(tmp_path / "many.png", "second.png", ("--frame", "1"))
    wanted = codec.decode(codec.encode(np.ascontiguousarray(image[::-1])))
    assert np.array_equal(np.array(Image.open(tmp_path / "second.png")), wanted)


def test_inspect_tells_what_is_carried(
    through: Run, tmp_path: Path, rgba: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(rgba).save(tmp_path / "in.png", icc_profile=rgb_profile(*DISPLAY_P3))
    through(tmp_path / "in.png", "out.png")
    main_without_exit("inspect", str(tmp_path / "a.lic"), "--json")
    record = json.loads(capsys.readouterr().out)
    assert set(record["fields"]) == {"profile", "alpha"}
    assert record["bytes"] > sum(record["fields"].values()) + sum(record["strings"])


def test_fields_of_a_newer_licquant_are_said(
    through: Run, tmp_path: Path, image: np.ndarray, artifact_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(image).save(tmp_path / "in.png")
    through(tmp_path / "in.png", "out.png")
    stream = Bitstream.from_bytes((tmp_path / "a.lic").read_bytes())
    newer = Bitstream(stream.artifact_id, stream.width, stream.height, stream.strings, {77: b"?"})
    (tmp_path / "a.lic").write_bytes(newer.to_bytes())
    main_without_exit("decode", str(tmp_path / "a.lic"), "-m", str(artifact_path), "-o", str(tmp_path / "b.png"))
    assert "newer licquant" in capsys.readouterr().err
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_a_crop_is_cropped_with_its_transparency(tmp_path: Path, artifact_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    model = ("-m", str(artifact_path))
    main_without_exit("encode", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.lic"), *model)
    main_without_exit("decode", str(tmp_path / "a.lic"), "-o", str(tmp_path / "whole.png"), *model)
    main_without_exit(
        "decode", str(tmp_path / "a.lic"), "-o", str(tmp_path / "part.png"), "--crop", "7,5,20,11", *model
    )
    whole, part = (np.asarray(Image.open(tmp_path / name)) for name in ("whole.png", "part.png"))
    assert np.array_equal(part, whole[5:16, 7:27])
    assert np.array_equal(part[..., 3], pixels[5:16, 7:27, 3])
