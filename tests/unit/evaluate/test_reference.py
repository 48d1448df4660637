"""The FP32 reference against a direct call of CompressAI."""

from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.zoo import image_models

from licquant.evaluate.reference import ReferenceCodec, evaluate_reference, string_bytes
from licquant.images import write_image
from tests.models_for_tests import small_model


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    model = image_models["bmshj2018-hyperprior"](quality=1, pretrained=False).eval()
    model.update()
    return model


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_it_is_compressai_own_result(model: torch.nn.Module, tmp_path: Path) -> None:
    rgb = noise(64, 128)
    with torch.no_grad():
        coded = model.compress(torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None] / 255)
        x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    expected = np.rint(x_hat[0].clamp(0, 1).numpy().transpose(1, 2, 0) * 255).astype(np.uint8)

    codec = ReferenceCodec(model)
    data = codec.encode(rgb)
    assert string_bytes(data) == sum(len(strings[0]) for strings in coded["strings"]) < len(data)
    assert np.array_equal(codec.decode(data), expected)

    write_image(tmp_path / "a.png", rgb)
    (result,) = evaluate_reference(model, [tmp_path / "a.png"], 0.01)
    assert result.bytes == string_bytes(data)
    assert result.mse == pytest.approx(np.mean((rgb.astype(float) - expected) ** 2) / 255**2)


@pytest.mark.parametrize("size", [(1, 1), (65, 30)])
def test_any_size_comes_back_in_its_size(model: torch.nn.Module, size: tuple[int, int]) -> None:
    codec = ReferenceCodec(model)
    assert codec.decode(codec.encode(noise(*size))).shape == (*size, 3)


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        ReferenceCodec(torch.nn.Linear(1, 1).train())


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "cheng2020-anchor-checkerboard", "elic2022-official"])
def test_models_with_other_latents_are_compressai_too(name: str) -> None:
    model = small_model(name)
    rgb = noise(64, 128)
    with torch.no_grad():
        coded = model.compress(torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None] / 255)
        x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    codec = ReferenceCodec(model)
    data = codec.encode(rgb)
    assert string_bytes(data) == sum(len(strings[0]) for strings in coded["strings"]) < len(data)
    assert np.array_equal(codec.decode(data), np.rint(x_hat[0].clamp(0, 1).numpy().transpose(1, 2, 0) * 255))
