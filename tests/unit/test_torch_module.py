"""A quantized model as a module that CompressAI's scripts can measure."""

import copy
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import licquant
import licquant.torch
from licquant import pipeline
from licquant.codec.codec import Codec
from licquant.errors import ArtifactError, BitstreamError, EngineError, ImageError, ModelError
from licquant.evaluate.codec_results import RatePoint, evaluate_codec
from licquant.images import write_image
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import SMALL, small_model


@pytest.fixture(scope="session")
def model(artifact_path: Path) -> licquant.torch.QuantizedModel:
    return licquant.torch.load(artifact_path, threads=1)


@pytest.fixture
def x(image: np.ndarray) -> torch.Tensor:
    return tensor(image)


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255


def test_the_library_stays_importable() -> None:
    assert sys.modules["torch"] is torch
    assert hasattr(torch, "Tensor")


def test_strings_are_whole_files(
    model: licquant.torch.QuantizedModel, codec: Codec, image: np.ndarray, x: torch.Tensor
) -> None:
    coded = model.compress(x)
    assert coded["strings"] == [[codec.encode(image)]]
    assert coded["shape"] == (2, 3)
    x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert torch.equal(x_hat, tensor(codec.decode(codec.encode(image))))


def test_batches(model: licquant.torch.QuantizedModel, codec: Codec) -> None:
    images = dead_leaves(3, 64)
    coded = model.compress(tensor(*images))
    assert coded["strings"] == [[codec.encode(image) for image in images]]
    expected = tensor(*(codec.decode(string) for string in coded["strings"][0]))
    assert torch.equal(model.decompress(**coded)["x_hat"], expected)
    assert torch.equal(model(tensor(*images))["x_hat"], expected)


QUICK = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_likelihoods_are_those_of_the_integer_tables(name: str, tmp_path: Path) -> None:
    """Of every family: their sum is the ideal code length, which files come close to."""
    pipeline.quantize(small_model(name), dead_leaves(2, 128)).artifact.save(tmp_path / "m.licq")
    model = licquant.torch.load(tmp_path / "m.licq", threads=1)
    image = dead_leaves(1, 128, seed=3)[0]
    out = model(tensor(image))
    latents = model.codec.analyse(image)
    likelihoods = out["likelihoods"]
    assert set(likelihoods) == ({"y", "z"} if latents.z.size else {"y"})
    assert likelihoods["y"].shape == (1, *latents.y.shape)
    assert all(((of_part > 0) & (of_part <= 1)).all() for of_part in likelihoods.values())
    bits = -sum(float(torch.log2(of_part).sum()) for of_part in likelihoods.values())
    assert bits == pytest.approx(model.codec.entropy_bits(latents), rel=1e-4)
    size = len(model.compress(tensor(image))["strings"][0][0])
    assert bits <= 8 * size <= 1.02 * bits + 8 * 64


def test_likelihoods_stand_where_their_elements_do(tmp_path: Path) -> None:
    """Pass by pass: a latent changed in one place changes the likelihood there, of a context model nowhere before."""
    pipeline.quantize(small_model("mbt2018"), dead_leaves(2, 128)).artifact.save(tmp_path / "m.licq")
    codec = licquant.load(tmp_path / "m.licq", threads=1)
    latents = codec.analyse(dead_leaves(1, 128, seed=3)[0])
    changed = latents.y.copy()
    changed[5, 4, 3] += 40 << codec.coder.quantizer.output_bits
    before, after = (codec.element_bits(type(latents)(y, latents.z, latents.widths))[0] for y in (latents.y, changed))
    rows, columns = np.nonzero((before != after).any(axis=0))
    assert after[5, 4, 3] > before[5, 4, 3]
    assert min(rows) == 4
    assert min(columns[rows == 4]) == 3


def test_compressais_evaluation_finds_what_ours_does(
    model: licquant.torch.QuantizedModel, codec: Codec, tmp_path: Path
) -> None:
    script = pytest.importorskip("compressai.utils.eval_model.__main__")
    paths = []
    for index, image in enumerate(dead_leaves(2, 192, seed=7)):
        paths.append(tmp_path / f"{index}.png")
        write_image(paths[-1], image)
    theirs = script.eval_model(
        model, tmp_path, tmp_path, paths, architecture="bmshj2018-hyperprior", half=False, per_image=False
    )
    ours = RatePoint("ours", 0.01, tuple(evaluate_codec(codec, paths, 0.01)))
    assert theirs["bpp"] == pytest.approx(ours.bpp, rel=1e-9)
    assert theirs["psnr-rgb"] == pytest.approx(ours.psnr, abs=1e-3)
    assert theirs["ms-ssim-rgb"] == pytest.approx(ours.ms_ssim, abs=1e-4)
    estimated = script.eval_model(
        model, tmp_path, tmp_path, paths, True, architecture="bmshj2018-hyperprior", half=False, per_image=False
    )
    assert estimated["psnr-rgb"] == theirs["psnr-rgb"]
    assert 0.8 * theirs["bpp"] < estimated["bpp"] < theirs["bpp"]
    assert model(tensor(dead_leaves(1, 64)[0]))["x_hat"].dtype == torch.float32
    half = script.eval_model(
        copy.deepcopy(model), tmp_path, tmp_path, paths, architecture="bmshj2018-hyperprior", half=True, per_image=False
    )
    assert half["bpp"] == theirs["bpp"]  # x·255 in 16 bits still rounds to the same pixels


def test_a_module_as_others_use_it(model: licquant.torch.QuantizedModel, x: torch.Tensor) -> None:
    weights = sum(op.weight.size for part in model.codec.artifact.program.values() for op in part.operations
                  if hasattr(op, "weight"))  # fmt: skip
    assert sum(parameter.numel() for parameter in model.parameters()) == weights > 0
    assert next(model.parameters()).device == x.device
    assert not model.update(force=True)
    assert not model.training
    strings = model.compress(x)["strings"]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.train()):
        assert other.compress(x)["strings"] == strings
    double = copy.deepcopy(model).double()
    assert double.decompress(strings, (2, 3))["x_hat"].dtype == torch.float64
    model.eval()
    with pytest.raises(ModelError, match=r"loaded from its \.licq file"):
        model.load_state_dict(model.state_dict())


def test_values_beyond_the_range_are_cut(model: licquant.torch.QuantizedModel, x: torch.Tensor) -> None:
    assert model.compress(3 * x - 1)["strings"] == model.compress((3 * x - 1).clamp(0, 1))["strings"]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((3, 8, 8), torch.float32),
        ((1, 1, 8, 8), torch.float32),
        ((1, 3, 8, 8), torch.uint8),
        ((0, 3, 8, 8), torch.half),
    ],
)
def test_other_tensors_are_refused(
    model: licquant.torch.QuantizedModel, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for method in (model, model.compress):
        with pytest.raises(ImageError, match=r"x must be a float tensor \[B, 3, H, W\]"):
            method(torch.zeros(shape, dtype=dtype))
    with pytest.raises(ImageError, match="no numbers"):
        model(torch.full((1, 3, 8, 8), torch.nan))


def test_other_strings_are_refused(model: licquant.torch.QuantizedModel, codec: Codec, x: torch.Tensor) -> None:
    coded = model.compress(x)
    (string,) = coded["strings"][0]
    small = codec.encode(np.zeros((8, 8, 3), np.uint8))
    other = codec.encode(np.zeros((96, 129, 3), np.uint8))
    for strings, shape, words in (
        ([], coded["shape"], "one list"),
        ([[]], coded["shape"], "one list"),
        ([[string], [string]], coded["shape"], "one list"),
        ([[string[:-1]]], coded["shape"], "truncated"),
        ([[string]], (2, 2), r"has the shape \(2, 3\), not \(2, 2\)"),
        ([[string, small]], coded["shape"], r"has the shape \(1, 1\)"),
        ([[string, other]], coded["shape"], "of several sizes"),
    ):
        with pytest.raises(BitstreamError, match=words):
            model.decompress(strings, shape)


def test_the_layout_of_hubs(model: licquant.torch.QuantizedModel, artifact_path: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "hub")
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == ["config.json", "model.licq"]
    assert (tmp_path / "hub" / "model.licq").read_bytes() == artifact_path.read_bytes()
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert (config["family"], config["lmbda"]) == (model.codec.artifact.family, 0.01)
    found = licquant.torch.from_pretrained(tmp_path / "hub", threads=1)
    assert found.codec.id == model.codec.id


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not of a licquant model"),
        ('{"model_type": "bert"}', "is not of a licquant model"),
        ('{"model_type": "licquant", "artifact": "../model.licq"}', "not the name of a file beside it"),
        ('{"model_type": "licquant", "artifact": 3}', "not the name of a file beside it"),
    ],
)
def test_folders_of_another_kind(content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=words):
        licquant.torch.from_pretrained(tmp_path)


def test_artifacts_that_are_not_what_is_named(model: licquant.torch.QuantizedModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no such folder; .* downloaded first"):
        licquant.torch.from_pretrained("someone/some-model")
    (tmp_path / "a.licq").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match=r"a\.licq: not a licquant model"):
        licquant.torch.load(tmp_path / "a.licq")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "artifact_id": "00" * 8}))
    with pytest.raises(ArtifactError, match=r"is not the artifact that config\.json names"):
        licquant.torch.from_pretrained(tmp_path)


def test_the_device_is_the_codecs(
    model: licquant.torch.QuantizedModel, artifact_path: Path, tmp_path: Path, x: torch.Tensor
) -> None:
    model.save_pretrained(tmp_path / "hub")
    with pytest.raises(EngineError, match="device NPU: OpenVINO has no such device here"):
        licquant.torch.load(artifact_path, device="NPU")
    with pytest.raises(EngineError, match="device NPU: OpenVINO has no such device here"):
        licquant.torch.from_pretrained(tmp_path / "hub", device="NPU")
    chosen = licquant.torch.load(artifact_path, threads=1, device="AUTO")
    assert copy.deepcopy(chosen).compress(x) == model.compress(x)
