"""The model that nobody named: by quality, by a target, by the id in a coded image; and the part of a picture."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from licquant import pipeline
from licquant.codec.codec import Codec, load
from licquant.codec.files.artifact import Artifact, artifact_id, read_artifact_bytes
from licquant.codec.tiling import TILE_PIXELS
from licquant.commands import model_search
from licquant.commands.app import main
from licquant.commands.model_choice import Codecs, bisected, encoder
from licquant.errors import ArtifactError, BitstreamError, LicquantError
from licquant.evaluate.metrics import psnr
from licquant.images import Picture, read_image, write_image
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_programs import dynamic_artifact
from tests.models_for_tests import small_hyperprior

EMBEDDED = ("0.0067", "0.0130", "0.0250", "0.0483")
RESULT = Path(__file__).parents[3] / "results" / "hyperprior-finetuned.json"


def run(*words: object) -> int:
    """The exit status in this process."""
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five models of rising λ and, since their latents are louder, rising rate; named against that order."""
    folder = tmp_path_factory.mktemp("models")
    for number in range(5):
        model = small_hyperprior()
        for parameter in model.g_a[-1].parameters():
            parameter.data *= 0.02 * 3**number
        made = pipeline.quantize(model, dead_leaves(2, 128), provenance={"lmbda": 0.001 * 2**number})
        made.artifact.save(folder / f"{9 - number}.licq")
    return folder


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return dead_leaves(1, 128, seed=9)[0]


def rates(models: Path, picture: np.ndarray) -> list[float]:
    codecs = [load(path, threads=1) for path in model_search.in_order_of_lmbda(model_search.models_in(models))]
    return [8 * len(codec.encode(picture)) / picture[..., 0].size for codec in codecs]


def test_quality_numbers_the_embedded_models_by_rate() -> None:
    found = model_search.embedded()
    assert [path.stem.rpartition("lambda")[2] for path in found] == list(EMBEDDED)
    assert [model_search.of_quality(found, n) for n in range(1, 5)] == found
    assert model_search.of_quality(found, None) == found[1]
    for quality in (0, 5, 100):
        with pytest.raises(LicquantError, match=f"--quality {quality}: there are 4 models here, so 1 to 4"):
            model_search.of_quality(found, quality)
    with pytest.raises(LicquantError, match="missing"):
        model_search.of_quality([], None)


def test_each_embedded_model_says_how_it_was_made() -> None:
    """And is that of the table of its losses."""
    measured = json.loads(RESULT.read_text(encoding="utf-8"))["checkpoints"]
    for path, lmbda in zip(model_search.embedded(), EMBEDDED, strict=True):
        facts = Artifact.from_bytes(read_artifact_bytes(path)).provenance
        assert facts["lmbda"] == float(lmbda)
        assert (facts["method"], facts["steps"], facts["calibration_images"]) == ("dpa-dgm2", 600, 1441)
        assert facts["checkpoint_sha256"] == measured[f"{float(lmbda):g}"]


def test_no_model_need_be_named(tmp_path, picture, capsys) -> None:
    write_image(tmp_path / "a.png", picture)
    sizes = []
    for quality in ("1", "4"):
        assert run("encode", tmp_path / "a.png", "-o", tmp_path / "a.lic", "--quality", quality, "--json") == 0
        record = json.loads(capsys.readouterr().out)
        path = model_search.embedded()[int(quality) - 1]
        assert record["artifact"] == artifact_id(read_artifact_bytes(path)).hex()
        assert run("decode", tmp_path / "a.lic", "-o", tmp_path / "b.png") == 0
        assert capsys.readouterr().out == f"{tmp_path / 'b.png'}: 128×128\n"
        expected = load(path).decode((tmp_path / "a.lic").read_bytes())
        np.testing.assert_array_equal(read_image(tmp_path / "b.png"), expected)
        sizes.append(record["bytes"])
    assert sizes[0] < sizes[1]


def test_where_models_are_looked_for(tmp_path, artifact_path, codec: Codec, monkeypatch) -> None:
    far, beside = tmp_path / "far", tmp_path / "beside"
    far.mkdir(), beside.mkdir()
    monkeypatch.delenv(model_search.VARIABLE, raising=False)
    with pytest.raises(ArtifactError, match=f"x.lic: coded with the model {codec.id.hex()}, which none") as error:
        model_search.find(codec.id, "x.lic", beside)
    assert model_search.VARIABLE in str(error.value)
    shutil.copy(artifact_path, far / "some name.licq")
    monkeypatch.setenv(model_search.VARIABLE, f"{tmp_path / 'not there'}:{far}")
    assert model_search.find(codec.id, "x.lic", beside) == far / "some name.licq"
    monkeypatch.setenv(model_search.VARIABLE, str(far / "some name.licq"))  # a file will do
    assert model_search.find(codec.id, "x.lic", beside) == far / "some name.licq"
    monkeypatch.setenv(model_search.VARIABLE, "")
    (beside / "empty.licq").touch()
    (beside / "short.licq").write_bytes(b"LICQ")
    assert model_search.lookup(codec.id, beside) is None
    shutil.copy(artifact_path, beside / "m.licq")
    assert model_search.find(codec.id, "x.lic", beside) == beside / "m.licq"


def test_several_folders_of_models(tmp_path, artifact_path, codec: Codec, picture, monkeypatch, capsys) -> None:
    """On the command line: folders that are not there, empty ones and one without the model lead to the next."""
    coded = tmp_path / "coded" / "x.lic"
    folders = [tmp_path / name for name in ("not there", "empty", "others", "right é")]
    for folder in (coded.parent, *folders[1:]):
        folder.mkdir()
    coded.write_bytes(codec.encode(picture))
    shutil.copy(model_search.embedded()[0], folders[2] / "a.licq")
    (folders[2] / "damaged.licq").write_bytes(b"LICQ" + bytes(100))
    monkeypatch.setenv(model_search.VARIABLE, os.pathsep.join(map(str, folders)) + os.pathsep)
    assert run("decode", coded, "-o", tmp_path / "x.png") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert all(str(folder) in line for folder in folders)
    shutil.copy(artifact_path, folders[3] / "b.licq")
    assert run("decode", coded, "-o", tmp_path / "x.png") == 0
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), codec.decode(coded.read_bytes()))


def test_the_missing_model_is_named(tmp_path, codec: Codec, picture, capsys) -> None:
    (tmp_path / "x.lic").write_bytes(codec.encode(picture))
    assert run("decode", tmp_path / "x.lic", "-o", tmp_path / "x.png") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"x.lic: coded with the model {codec.id.hex()}" in line


# --- targets ------------------------------------------------------------------------------------------------


def test_bisection_asks_each_once_and_few() -> None:
    for count in range(1, 9):
        for first in range(count + 1):
            asked: list[int] = []
            assert bisected(count, lambda i, first=first, asked=asked: asked.append(i) or i >= first) == first
            assert len(set(asked)) == len(asked) <= math.ceil(math.log2(count + 1))


def test_a_target_rate(models, picture) -> None:
    of_models = rates(models, picture)
    assert of_models == sorted(of_models)
    assert len(set(of_models)) == 5
    codecs = Codecs("openvino", 1)
    for index, rate in enumerate(of_models):
        for target, met in ((rate, True), (rate * 0.999, index > 0)):
            found = encoder(codecs, models, None, target, None)(Picture(picture))
            best = index if target == rate else max(index - 1, 0)
            assert 8 * len(found.data) / picture[..., 0].size == of_models[best]
            assert found.facts["target_met"] == met
            assert found.facts["model"] == best + 1
            assert found.facts["tried"] <= 3
    assert "out of reach" in encoder(codecs, models, None, of_models[0] / 2, None)(Picture(picture)).told


def test_a_target_psnr_by_what_decoding_gives(picture) -> None:
    codecs = Codecs("openvino", 1)
    paths = model_search.embedded()
    reached = [psnr(picture, codecs.of(path).decode(codecs.of(path).encode(picture))) for path in paths]
    assert reached == sorted(reached)
    for index, value in enumerate(reached):
        found = encoder(codecs, None, None, None, value - 1e-6)(Picture(picture))
        assert (found.facts["model"], found.facts["target_met"]) == (index + 1, True)
        assert found.codec is codecs.of(paths[index])
    beyond = encoder(codecs, None, None, None, 90.0)(Picture(picture))
    assert (beyond.facts["model"], beyond.facts["target_met"]) == (len(paths), False)


def test_each_model_analyses_a_picture_once(models, picture, monkeypatch) -> None:
    codecs, analysed = Codecs("openvino", 1), []
    encode = Codec.encode_with_widths
    monkeypatch.setattr(Codec, "encode_with_widths", lambda self, *a: analysed.append(self.id) or encode(self, *a))
    encoder(codecs, models, None, 0.5, None)(Picture(picture))
    assert len(set(analysed)) == len(analysed) <= 3


def test_options_that_exclude_one_another(models, artifact_path, tmp_path) -> None:
    codecs = Codecs("exact", 1)
    for options in ((artifact_path, 1, None, None), (artifact_path, None, 0.5, None), (None, 1, 0.5, None)):
        with pytest.raises(LicquantError):
            encoder(codecs, *options)
    with pytest.raises(LicquantError, match="holds no models"):
        encoder(codecs, tmp_path, None, 0.5, None)


# --- a part of the picture ----------------------------------------------------------------------------------

PARTS = ((0, 0, 1, 1), (5, 7, 40, 30), (129, 95, 1, 1), (0, 0, 130, 96))


@pytest.mark.parametrize("engine", ["openvino", "exact"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_part_is_the_part_of_the_whole(artifact_path, image, engine, dynamic, tmp_path) -> None:
    if dynamic:
        artifact_path = tmp_path / "m.licq"
        dynamic_artifact().save(artifact_path)
    codec = load(artifact_path, engine=engine, threads=1)
    data = codec.encode(image)
    whole = codec.decode(data)
    for x, y, width, height in PARTS:
        part = codec.decode_region(data, x, y, width, height)
        np.testing.assert_array_equal(part, whole[y : y + height, x : x + width])
        assert part.flags.c_contiguous
    for wrong in ((-1, 0, 5, 5), (0, 0, 0, 5), (100, 0, 31, 5), (0, 90, 5, 7), (0, 0, 131, 96)):
        with pytest.raises(BitstreamError, match="do not lie within the image of 130×96"):
            codec.decode_region(data, *wrong)


@pytest.mark.parametrize("dynamic", [False, True])
def test_of_a_large_picture_only_the_tiles_are_decoded(artifact_path, monkeypatch, dynamic, tmp_path) -> None:
    if dynamic:
        artifact_path = tmp_path / "m.licq"
        dynamic_artifact().save(artifact_path)
    codec = load(artifact_path, threads=1)
    height, width = TILE_PIXELS + 200, 2 * TILE_PIXELS + 100  # 2 by 3 tiles
    large = np.ascontiguousarray(np.resize(dead_leaves(1, 256)[0], (height, width, 3)))
    data = codec.encode(large)
    whole = codec.decode(data)
    pixels: list[int] = []
    infer = OpenVinoEngine._infer

    def counted(engine, q, share_outputs):
        found = infer(engine, q, share_outputs)
        if found.shape[0] == 3:
            pixels.append(found.shape[1] * found.shape[2])
        return found

    monkeypatch.setattr(OpenVinoEngine, "_infer", counted)
    for part, tiles in (((3, 5, 300, 200), 1), ((600, 500, 300, 300), 4), ((0, 0, width, height), 6)):
        pixels.clear()
        x, y, columns, rows = part
        np.testing.assert_array_equal(codec.decode_region(data, *part), whole[y : y + rows, x : x + columns])
        assert len(pixels) == tiles


def test_crop_as_a_user_gives_it(tmp_path, artifact_path, codec: Codec, image, capsys) -> None:
    (tmp_path / "x.lic").write_bytes(codec.encode(image))
    words = ("decode", tmp_path / "x.lic", "-m", artifact_path, "-o", tmp_path / "x.png")
    assert run(*words, "--crop", "8,16,32,24") == 0
    whole = codec.decode((tmp_path / "x.lic").read_bytes())
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), whole[16:40, 8:40])
    for wrong in ("1,2,3", "a,0,1,1", "-1,0,5,5", "0,0,0,5", "0,0,1e2,5", "120,90,11,6"):
        capsys.readouterr()
        assert run(*words, f"--crop={wrong}") == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


# --- what a file is made of ---------------------------------------------------------------------------------


def test_inspect_tells_the_parts_of_a_coded_image(tmp_path, artifact_path, codec: Codec, image, capsys) -> None:
    data = codec.encode(image)
    (tmp_path / "x.lic").write_bytes(data)
    assert run("inspect", tmp_path / "x.lic", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["width"], record["height"], record["bytes"]) == (130, 96, len(data))
    assert record["header_bytes"] == 34
    assert [record["z_bytes"], record["y_bytes"]] == record["strings"]
    assert record["header_bytes"] + record["z_bytes"] + record["y_bytes"] == len(data)
    assert record["bpp"] == pytest.approx(8 * len(data) / (130 * 96))
    assert record["bpp_of_strings"] == pytest.approx(8 * (len(data) - 34) / (130 * 96))
    assert record["artifact"] == codec.id.hex()
    assert record["model"] is None
    shutil.copy(artifact_path, tmp_path / "m [b].licq")
    assert run("inspect", tmp_path / "x.lic") == 0
    said = capsys.readouterr().out
    assert f"model {codec.id.hex()}: {tmp_path / 'm [b].licq'}" in said
    assert f"header 34, z {record['z_bytes']:,}, y {record['y_bytes']:,}\n" in said
