"""ELIC under the names of Vincent Chandelier's re-implementation; CompressAI has that graph as elic2022-chandelier."""

import pytest
import torch
from compressai.registry import MODELS

from benchmarks.untrained import liven
from licquant.errors import ModelError
from licquant.models.load import load_model, model_name
from licquant.models.trace import trace_model

GROUPS = [4, 6, 2, 8]


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    model = MODELS["elic2022-chandelier"](N=12, M=sum(GROUPS), groups=GROUPS).eval()
    liven(model)
    model.update(force=True)
    return model


def their_names(state):
    renamed = {}
    for key, value in state.items():
        words = key.removeprefix("latent_codec.hyper.").split(".")
        if key.startswith("latent_codec.y.channel_context"):
            words = ["cc_transforms", str(int(words[3][1:]) - 1), *words[4:]]
        elif key.startswith("latent_codec.y.latent_codec"):
            kind = {"entropy_parameters": "ParamAggregation", "context_prediction": "context_prediction"}.get(words[4])
            words = [kind, words[3][1:], *words[5:]] if kind else words[5:]
        renamed[".".join(words)] = value
    return renamed


def test_it_computes_the_same(tmp_path, source):
    state = their_names(source.state_dict())
    assert {"cc_transforms.0.0.weight", "context_prediction.3.weight", "ParamAggregation.0.4.bias"} <= set(state)
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "c.pt")
    assert model_name(None, tmp_path / "c.pt") == "elic2022-official"
    found = load_model(None, tmp_path / "c.pt")
    x = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        ours, theirs = found(x), source(x)
    torch.testing.assert_close(ours["x_hat"], theirs["x_hat"], atol=1e-5, rtol=1e-5)
    for latent in ("y", "z"):
        torch.testing.assert_close(ours["likelihoods"][latent], theirs["likelihoods"][latent], atol=1e-5, rtol=1e-4)
    assert ours["x_hat"].std() > 0
    assert trace_model(found).family == "channel-groups"


def test_other_layouts_are_said(tmp_path, source):
    state = their_names(source.state_dict())
    for added, said in (("lrp_transforms.0.0.weight", "TCM"), ("g_a.3.attn.qkv.weight", "another layout")):
        torch.save({**state, added: torch.ones(1)}, tmp_path / "c.pt")
        with pytest.raises(ModelError, match=f"these look like .*{said}"):
            load_model(None, tmp_path / "c.pt")
