"""Every family: the traced parts, wired as the family's dataflow says, compute what CompressAI's forward computes."""

import pytest
import torch
from compressai.entropy_models import GaussianConditional
from compressai.latent_codecs import CheckerboardLatentCodec
from compressai.models import Cheng2020AnchorCheckerboard, Elic2022Chandelier, MeanScaleHyperprior
from compressai.registry import MODELS
from torch import nn

from licquant.errors import ModelError
from licquant.models import families, load_model
from licquant.models.graph import CONVOLUTION, PIXEL_SHUFFLE, PRODUCT, SIGMOID
from licquant.models.load import SUPPORTED
from licquant.models.trace import trace_model, trace_part
from licquant.quant import dataflow
from licquant.quant.dataflow import code, run_float
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import SMALL, small_model

FAMILY = {
    "bmshj2018-factorized": "factorized",
    "bmshj2018-factorized-relu": "factorized",
    "bmshj2018-hyperprior": "scale-hyperprior",
    "mbt2018-mean": "mean-scale-hyperprior",
    "mbt2018": "autoregressive",
    "cheng2020-anchor": "autoregressive",
    "cheng2020-attn": "autoregressive",
    "cheng2020-anchor-checkerboard": "checkerboard",
    "elic2022-official": "channel-groups",
}


def image(size: int = 128) -> torch.Tensor:
    return torch.from_numpy(dead_leaves(1, size)[0].transpose(2, 0, 1).copy()).float()[None] / 255


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-5)


def test_every_supported_model_is_tested():
    assert set(SUPPORTED) == set(FAMILY) == set(SMALL)


@pytest.mark.parametrize("name", FAMILY)
def test_dataflow_equals_the_model(name):
    model = small_model(name)
    traced = trace_model(model)
    assert traced.family == FAMILY[name]
    given = []  # σ and μ of every call of a Gaussian in CompressAI's forward
    for module in model.modules():
        if isinstance(module, GaussianConditional):
            module.register_forward_hook(
                lambda _, args, kwargs, out: given.extend((*args[1:], *kwargs.values())), with_kwargs=True
            )
    x = image()
    run = run_float(traced)
    with torch.no_grad():
        wanted = model(x)
        coded = code(traced, run, x)
        bits = sum(-torch.log2(p).sum() for p in wanted["likelihoods"].values())
        assert float(bits) > 100, "the test's model codes nothing"
        assert abs(float(coded.bits / bits) - 1) < 1e-5
        if traced.family == families.AUTOREGRESSIVE:  # CompressAI's forward shows [y], its codec [y - μ] + μ
            close(run("g_s", torch.round(run("g_a", x))), wanted["x_hat"])
        else:
            close(coded.pixels, wanted["x_hat"])
        if given:
            close(gaussian_parameters(traced, run, x), torch.cat(given, 1))


def gaussian_parameters(traced, run, x):
    """σ and μ of every call of a Gaussian, in the order of the calls, as the dataflow gives them."""
    y = run("g_a", x)
    p = run("h_s", dataflow.rounded_to_median(traced, run("h_a", y)))
    found = dataflow._GAUSSIANS[traced.family](traced, run, p, y)
    if not isinstance(found.mean, torch.Tensor):
        return found.sigma
    sizes = [g.input_channels for n, g in traced.graphs.items() if n.startswith("spatial_context")] or [y.shape[1]]
    pairs = zip(found.sigma.split(sizes, 1), found.mean.split(sizes, 1), strict=True)
    return torch.cat([tensor for pair in pairs for tensor in pair], 1)


@pytest.mark.parametrize("name", FAMILY)
def test_loads_from_its_checkpoint(name, tmp_path):
    model = small_model(name)
    torch.save(model.state_dict(), tmp_path / "c.pt")
    loaded = load_model(name, tmp_path / "c.pt")
    x = image(64)
    with torch.no_grad():
        close(loaded(x)["x_hat"], model(x)["x_hat"])


def test_parts_and_layer_names():
    elic = trace_model(small_model("elic2022-official"))
    assert list(elic.graphs) == [
        "g_a", "g_s", "h_a", "h_s", "spatial_context.y0", "entropy_parameters.y0",
        "channel_context.y1", "spatial_context.y1", "entropy_parameters.y1",
        "channel_context.y2", "spatial_context.y2", "entropy_parameters.y2",
    ]  # fmt: skip
    assert elic.graphs["h_a"].steps[0].name == "latent_codec.hyper.h_a.0"
    assert [s.name for s in elic.graphs["spatial_context.y1"]] == ["latent_codec.y.latent_codec.y1.context_prediction"]
    cheng = trace_model(small_model("cheng2020-attn"))
    assert {PRODUCT, SIGMOID, PIXEL_SHUFFLE} <= {step.kind for step in cheng.graphs["g_s"]}
    names = [step.name for step in cheng.layers]
    assert len(names) == len(set(names))


def test_activation_goes_through_a_pixel_shuffle():
    h_s = trace_model(small_model("cheng2020-anchor")).graphs["h_s"]
    assert [(s.kind, s.negative_slope) for s in h_s][1:3] == [(CONVOLUTION, 0.01), (PIXEL_SHUFFLE, 1.0)]


class InPlace(nn.Module):
    """Later readers of x see what the activation function left there."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.second = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.first(x)
        return self.second(self.relu(x)) + x


def test_operations_in_place_change_what_is_read_later():
    torch.manual_seed(0)
    part = InPlace()
    x = torch.randn(1, 3, 5, 5)
    graph = trace_part(part, "g_a")
    with torch.no_grad():
        torch.testing.assert_close(graph.forward(x)[graph.output], part(x))


def test_convolutions_with_a_forward_of_their_own_are_refused():
    class Odd(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    with pytest.raises(ModelError, match="forward of its own"):
        trace_part(nn.Sequential(Odd(3, 3, 1)), "g_a")


class OwnMeanScale(MeanScaleHyperprior):
    """The same dataflow written another way."""

    def forward(self, x):
        y = self.g_a(x)
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y))
        scales, means = torch.chunk(self.h_s(z_hat), 2, dim=1)
        _, likelihoods = self.gaussian_conditional(y, scales, means)
        y_hat = (torch.round(y - means) - (y - means)).detach() + (y - means) + means
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": likelihoods, "z": z_likelihoods}}


class Swapped(MeanScaleHyperprior):
    """μ before σ, which the codec does not know."""

    def forward(self, x):
        y = self.g_a(x)
        z_hat, _ = self.entropy_bottleneck(self.h_a(y))
        means, scales = self.h_s(z_hat).chunk(2, 1)
        y_hat, _ = self.gaussian_conditional(y, scales, means=means)
        return self.g_s(y_hat)


def test_recognised_by_dataflow_not_by_class():
    assert trace_model(OwnMeanScale(8, 12).eval()).family == "mean-scale-hyperprior"
    with pytest.raises(ModelError, match="not connected"):
        trace_model(Swapped(8, 12).eval())


def odd_anchors():
    model = Cheng2020AnchorCheckerboard(8)
    codec = model.latent_codec.y
    assert isinstance(codec, CheckerboardLatentCodec)
    codec.anchor_parity = "odd"
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (odd_anchors, "odd anchors"),
        (lambda: Elic2022Chandelier(8, 16, [4, 4, 8]), "all groups before"),
        (lambda: MODELS["bmshj2018-hyperprior-vbr"](8, 12), "not connected|cannot be traced"),
        (lambda: nn.Conv2d(3, 3, 1), "no part g_a"),
    ],
)
def test_what_is_not_supported_is_named(make, reason):
    with pytest.raises(ModelError, match=reason):
        trace_model(make().eval())
