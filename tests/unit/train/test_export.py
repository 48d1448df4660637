"""The finished checkpoint: loads and codes in CompressAI itself, whole, small or in shards."""

from pathlib import Path

import pytest
import torch
from compressai.models import ScaleHyperprior
from compressai.zoo import image_models
from torch import Tensor

from licquant.errors import ModelError, TrainingError
from licquant.models.load import load_model, read_state
from licquant.models.shards import shard_paths
from licquant.train import architectures, card, export

NAME, WIDTHS = "bmshj2018-hyperprior", {"N": 32, "M": 48}


@pytest.fixture(scope="module")
def averaged() -> dict[str, Tensor]:
    model = architectures.build(NAME, WIDTHS, seed=1)
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.fixture(scope="module")
def state(averaged: dict[str, Tensor]) -> dict[str, Tensor]:
    return export.finished_state(NAME, WIDTHS, averaged)


def test_it_loads_and_codes_in_compressai(
    state: dict[str, Tensor], averaged: dict[str, Tensor], tmp_path: Path
) -> None:
    export.write_checkpoint(tmp_path / "model.pt", state)
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    model = ScaleHyperprior.from_state_dict(loaded).eval()
    assert not model.update()  # the tables are there already
    x = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        coded = model.compress(x)
        decoded = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert decoded.shape == x.shape
    own = {name: value for name, value in model.named_parameters() if not name.endswith(".quantiles")}
    assert all(torch.equal(value, averaged[name]) for name, value in own.items())
    assert model.aux_loss() < 0.01 * architectures.build(NAME, WIDTHS).aux_loss()  # the quantiles are where they belong
    assert image_models[NAME] is not None


def test_a_small_checkpoint_loads_as_the_model(
    state: dict[str, Tensor], averaged: dict[str, Tensor], tmp_path: Path
) -> None:
    files = export.write_checkpoint(tmp_path / "model.licw", state)
    assert (tmp_path / "model.licw").stat().st_size < 0.4 * sum(4 * value.numel() for value in averaged.values())
    card.write_card(tmp_path / "model.licw", {"model": NAME, "lmbda": 0.01, **card.file_hashes(files)})
    model = load_model(None, tmp_path / "model.licw")
    for name, value in model.named_parameters():
        rows = state[name].flatten(1) if value.dim() > 1 else state[name].reshape(-1, 1)
        step = rows.abs().amax(1) / 1023
        assert ((value.detach().reshape(rows.shape) - rows).abs() <= 0.501 * step[:, None]).all()
    assert torch.equal(model.entropy_bottleneck._quantized_cdf, state["entropy_bottleneck._quantized_cdf"])
    damaged = bytearray((tmp_path / "model.licw").read_bytes())
    damaged[5000] ^= 1
    (tmp_path / "model.licw").write_bytes(damaged)
    with pytest.raises(ModelError, match=r"model\.licw: damaged or truncated"):
        load_model(None, tmp_path / "model.licw")


def test_a_table_of_scales_of_its_own_is_stored_too(state: dict[str, Tensor], tmp_path: Path) -> None:
    own = torch.linspace(0.2, 50.0, 40)
    export.write_checkpoint(tmp_path / "model.licw", {**state, "gaussian_conditional.scale_table": own})
    model = load_model(NAME, tmp_path / "model.licw")
    assert torch.equal(model.gaussian_conditional.scale_table, own)


def test_small_shards_are_together_the_model(state: dict[str, Tensor], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.licw", tmp_path / "parts.licw"
    export.write_checkpoint(whole, state)
    assert len(export.write_checkpoint(parts, state, 900_000)) == 3
    merged, one = read_state(parts), read_state(whole)
    assert merged.keys() == one.keys()
    assert all(torch.equal(merged[key], one[key]) for key in one)


def test_shards_are_small_and_together_the_model(state: dict[str, Tensor], tmp_path: Path) -> None:
    limit = 900_000
    checkpoint = tmp_path / "model.pt"
    export.write_checkpoint(checkpoint, state)
    files = export.write_checkpoint(checkpoint, state, limit)
    assert len(files) == 3
    assert not checkpoint.exists()
    assert all(path.stat().st_size <= limit for path in tmp_path.iterdir())
    merged = read_state(checkpoint)
    assert merged.keys() == state.keys()
    assert all(torch.equal(merged[key], state[key]) for key in state)
    export.write_checkpoint(checkpoint, state)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_shards_that_are_no_set_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pt"
    card.write_card(checkpoint, card.file_hashes(export.write_checkpoint(checkpoint, state, 900_000)))
    second = tmp_path / "model-2of3.pt"
    kept = second.read_bytes()
    second.write_bytes(export.to_bytes({"g_a.0.bias": torch.zeros(32)}))
    with pytest.raises(ModelError, match="model card describes"):
        shard_paths(checkpoint)
    second.unlink()
    with pytest.raises(ModelError, match="only shards 1, 3 of 3"):
        shard_paths(checkpoint)
    second.write_bytes(kept)
    assert len(shard_paths(checkpoint)) == 3
    (tmp_path / "model-1of2.pt").write_bytes(kept)
    with pytest.raises(ModelError, match="several sets"):
        shard_paths(checkpoint)


def test_a_tensor_that_fits_no_file_is_said(state: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="more than one file may have"):
        export.write_checkpoint(tmp_path / "model.pt", state, 1000)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_model_are_refused(averaged: dict[str, Tensor]) -> None:
    with pytest.raises(TrainingError, match="not those of"):
        export.finished_state(NAME, WIDTHS, {name: averaged[name] for name in list(averaged)[1:]})
