"""Checkpoints in every form that CompressAI users have them."""

import pytest
import torch
from compressai.models import ScaleHyperprior

from licquant.errors import ModelError
from licquant.models import load_model
from licquant.models.shards import shard_path
from tests.models_for_tests import small_hyperprior

NAME = "bmshj2018-hyperprior"


def weights(model):
    return model.g_a[0].weight


@pytest.mark.parametrize("updated", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_every_form_loads(tmp_path, updated, wrapped, half):
    torch.manual_seed(0)
    model = ScaleHyperprior(8, 12)
    if updated:
        model.update(force=True)
    state = {k: v.half() if half and v.dim() == 4 else v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "c.pt")
    loaded = load_model(NAME, tmp_path / "c.pt")
    assert (loaded.N, loaded.M) == (8, 12)
    assert weights(loaded).dtype == torch.float32
    torch.testing.assert_close(weights(loaded), weights(model), atol=1e-3 if half else 0, rtol=0)
    loaded.compress(torch.rand(1, 3, 64, 64))  # its tables are up to date


def test_data_parallel_prefix_is_removed(tmp_path):
    state = {f"module.{k}": v for k, v in small_hyperprior().state_dict().items()}
    torch.save(state, tmp_path / "c.pt")
    assert load_model(NAME, tmp_path / "c.pt").N == 8


def test_shards_load_as_one_checkpoint(tmp_path):
    state = small_hyperprior().state_dict()
    keys = list(state)
    for number, part in enumerate((keys[:5], keys[5:]), start=1):
        torch.save({key: state[key] for key in part}, shard_path(tmp_path / "c.pt", number, 2))
    loaded = load_model(NAME, tmp_path / "c.pt").state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in keys if not key.startswith("entropy_bottleneck._"))
    shard_path(tmp_path / "c.pt", 1, 2).unlink()
    with pytest.raises(ModelError, match="only shards 2 of 2"):
        load_model(NAME, tmp_path / "c.pt")


def spoil(state, how):
    if how == "lacks a weight":
        del state["g_a.0.weight"]
    if how == "not finite":
        state["g_s.0.bias"][0] = float("nan")
    if how == "other shape":
        state["g_s.0.weight"] = torch.zeros(2, 2)
    return state


@pytest.mark.parametrize("how", ["lacks a weight", "not finite", "other shape"])
def test_weights_that_do_not_fit(tmp_path, how):
    torch.save(spoil(dict(small_hyperprior().state_dict()), how), tmp_path / "c.pt")
    with pytest.raises(ModelError):
        load_model(NAME, tmp_path / "c.pt")


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff not a checkpoint", b"PK\x03\x04 neither"])
def test_files_that_are_no_checkpoint(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ModelError, match="checkpoint"):
        load_model(NAME, tmp_path / "c.pt")


def test_missing_file_and_unknown_model(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        load_model(NAME, tmp_path / "c.pt")
    with pytest.raises(ModelError, match="unknown model"):
        load_model("jpeg", tmp_path / "c.pt")


def test_a_tensor_alone_is_no_state_dict(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "c.pt")
    with pytest.raises(ModelError, match="state dict"):
        load_model(NAME, tmp_path / "c.pt")
