"""σ and μ of the integer coders against CompressAI's own ``compress`` on the same latents, in dB."""

import numpy as np
import pytest
import torch
from compressai.models import (
    Cheng2020AnchorCheckerboard,
    Elic2022Official,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
)
from torch import nn

from benchmarks.latent_reference import coded_parameters
from licquant import pipeline
from licquant.codec.codec import Codec
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.quant.synthetic import dead_leaves

MODELS = {
    "mbt2018-mean": lambda: MeanScaleHyperprior(8, 12),
    "mbt2018": lambda: JointAutoregressiveHierarchicalPriors(8, 12),
    "cheng2020-anchor-checkerboard": lambda: Cheng2020AnchorCheckerboard(12),
    "elic2022-official": lambda: Elic2022Official(N=12, M=24, groups=[4, 8, 12]),
}
FLOOR_DB = 20


def prepared(name: str) -> nn.Module:
    """Random weights, with contexts loud enough that σ and μ depend on them."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        [layer for layer in model.g_a.modules() if isinstance(layer, nn.Conv2d)][-1].weight.mul_(20)
        for path, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d) and ("context" in path or "entropy_parameters" in path):
                layer.weight.mul_(2)
    model.update(force=True)
    return model


def compressai_parameters(model: nn.Module, y_hat: torch.Tensor, z_hat: torch.Tensor) -> torch.Tensor:
    """[σ, μ], [2M, H, W], that CompressAI computes on the way to ŷ, by watching its ``compress``."""
    if not hasattr(model, "latent_codec"):
        params = model.h_s(z_hat)
        if isinstance(model, JointAutoregressiveHierarchicalPriors):
            params = model.entropy_parameters(torch.cat([params, model.context_prediction(y_hat)], 1))
        return params[0]
    hyperprior = model.latent_codec
    side, y_codec = hyperprior.hyper.h_s(z_hat), hyperprior.y
    groups = list(y_codec.latent_codec.values()) if hasattr(y_codec, "groups") else [y_codec]
    seen: list[list[torch.Tensor]] = [[] for _ in groups]
    for group, outputs in zip(groups, seen, strict=True):
        group.entropy_parameters.register_forward_hook(lambda m, x, out, outputs=outputs: outputs.append(out))
    y_codec.compress(y_hat, side)
    both = [group.embed(torch.stack(outputs)) for group, outputs in zip(groups, seen, strict=True)]
    return torch.cat([part.chunk(2, 1)[half] for half in (0, 1) for part in both], 1)[0]


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_compressai(name):
    model = prepared(name)
    images = dead_leaves(2, 128)
    codec = Codec(pipeline.quantize(model, images).artifact, bytes(8), "exact")
    assert isinstance(codec.coder, GaussianCoder)
    latents = codec.analyse(images[0])
    found = np.concatenate(coded_parameters(codec.coder, latents.y, latents.z)) / 1024
    unit = codec.artifact.program["g_s"].input_grid.scale[0]
    y_hat = torch.from_numpy(latents.y * unit).float()[None]
    z_hat = torch.from_numpy(codec.coder.hyper.restore(latents.z) / 256).float()[None]
    with torch.no_grad():
        expected = compressai_parameters(model, y_hat, z_hat).double().numpy()
        other = compressai_parameters(prepared(name), y_hat.flip(2, 3), z_hat).double().numpy()
    assert sqnr(expected, found) > FLOOR_DB
    if name != "mbt2018-mean":
        assert sqnr(other, found) < FLOOR_DB - 5, "the context hardly matters: this test would prove nothing"


def sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio in dB, the signal without its channels' means."""
    signal = expected - expected.mean(axis=(1, 2), keepdims=True)
    return 10 * float(np.log10((signal**2).sum() / ((found - expected) ** 2).sum()))
