"""One layer quantized at the cost of what depends on it, against a full run of the model with that layer replaced."""

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from compressai.layers import GDN, GDN1
from torch import Tensor, nn

from licquant.allocate.probe import Probe
from licquant.config import MAX_BITS
from licquant.models.graph import PRODUCT, Step
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.grids import planned, squares_of
from licquant.quant.insert import insert_quantizers
from licquant.quant.layers import QuantizedLayer, QuantizedTensor
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.rd import RateDistortion, evaluate, evaluate_float
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import first_kind, hand_made, small_hyperprior

BITS = 4


class Gate(nn.Module):
    """x · sigmoid of x, each through a convolution of its own."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(n, n, 1), nn.Conv2d(n, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) * torch.sigmoid(self.second(x))


def gated() -> nn.Module:
    model = hand_made()
    model.g_a[2], model.g_s[2] = Gate(8), Gate(8)
    return model.eval()


MODELS = {"gdn": small_hyperprior, "residual": hand_made, "gdn1": first_kind, "gate": gated}


@cache
def probed(name: str, weight_bits: int = BITS) -> tuple[Probe, QuantizedModel]:
    traced = trace_model(MODELS[name]())
    images = dead_leaves(2, 64)
    quantized = insert_quantizers(traced, uniform_plan(traced, weight_bits, BITS), collect_statistics(traced, images))
    x = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images])
    return Probe(traced, x), quantized


def layers(name: str, kinds: Callable[[Step], bool]) -> list[tuple[str, Step]]:
    graphs = probed(name)[0].traced.graphs.items()
    return [(part, step) for part, graph in graphs for step in planned(graph) if kinds(step)]


def run_whole(name: str, model: nn.Module) -> RateDistortion:
    """The model's own modules, all of them, from the image to the pixels."""
    first = {"h_a": torch.abs} if name == "gdn" else {}

    def run(part: str, value: Tensor) -> Tensor:
        return getattr(model, part)(first.get(part, lambda v: v)(value))

    probe = probed(name)[0]
    with torch.no_grad():
        return evaluate(probe.traced, run, probe.images)


def round_to_grid(tensor: QuantizedTensor, value: Tensor) -> Tensor:
    """Quantize and dequantize as design §3 has it, with stored integers."""
    scale, zero = (t.detach().view(1, -1, 1, 1) for t in (tensor.scale, tensor.zero_point))
    return scale * ((torch.floor(value / scale + 0.5) + zero).clamp(0, 2**tensor.bits - 1) - zero)


def assert_same(found: RateDistortion, expected: RateDistortion, tolerance: float = 1e-6) -> None:
    assert float(found.bpp) == pytest.approx(float(expected.bpp), rel=tolerance)
    assert float(found.distortion) == pytest.approx(float(expected.distortion), rel=tolerance)


def differs(found: RateDistortion, probe: Probe) -> bool:
    return float(found.bpp) != float(probe.base.bpp) or float(found.distortion) != float(probe.base.distortion)


def set_weights(module: nn.Module, layer: QuantizedLayer, scale: Tensor) -> None:
    """The integers times what one of them means, output channel by output channel."""
    integers = layer.integer_weight(scale)
    if isinstance(module, nn.ConvTranspose2d):
        weight = torch.einsum("iohw,o,i->iohw", integers, layer.unit, 1 / scale)
    elif isinstance(module, GDN):
        weight = torch.einsum("oi,o,i->oi", integers, layer.unit, 1 / scale).clamp(min=0)
    else:
        weight = torch.einsum("oihw,o,i->oihw", integers, layer.unit, 1 / scale)
    with torch.no_grad():
        if isinstance(module, GDN):
            module.gamma.copy_(module.gamma_reparam.init(weight))
            module.beta.copy_(module.beta_reparam.init(layer.bias))
        else:
            module.weight.copy_(weight)
            module.bias.copy_(layer.bias)


@pytest.mark.parametrize("name", MODELS)
def test_the_base_is_the_float_model(name):
    probe = probed(name)[0]
    with torch.no_grad():
        assert_same(probe.base, evaluate_float(probe.traced, probe.images), 0)
    assert_same(probe.base, run_whole(name, probe.traced.model))


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_every_layer(name):
    probe, quantized = probed(name)
    changed = 0
    for part, step in layers(name, lambda step: step.has_weights):
        found = probe.with_weights(quantized, part, step)
        model = copy.deepcopy(probe.traced.model)
        whole = quantized.part(part)
        quantized_step = next(s for s in whole.graph if s.name == step.name)
        set_weights(model.get_submodule(step.name), whole.layers[step.name], whole.weight_scale(quantized_step))
        assert_same(found, run_whole(name, model), 2e-5)  # GDN: through its reparametrisation and back
        changed += differs(found, probe)
    assert changed >= 5


@pytest.mark.parametrize("name", MODELS)
def test_activations_of_every_layer(name):
    probe, quantized = probed(name, MAX_BITS)  # biases, too, are then the model's own: nearly, for a GDN
    changed = 0
    for part, step in layers(name, lambda step: step.has_weights):
        found = probe.with_activations(quantized, part, step)
        model = copy.deepcopy(probe.traced.model)
        module, tensors = model.get_submodule(step.name), quantized.part(part).tensors
        if isinstance(module, GDN):
            squares = tensors[squares_of(step.name)]
            module.forward = lambda x, m=module, s=squares: normalize(m, x, s)
        else:
            read = next(s for s in quantized.part(part).graph if s.name == step.name).inputs[0]
            module.register_forward_pre_hook(lambda _, x, t=tensors[read]: (round_to_grid(t, x[0]),))
        assert_same(found, run_whole(name, model), 1e-4 if isinstance(module, GDN) else 2e-6)
        changed += differs(found, probe)
    assert changed >= 5


def normalize(module: GDN, x: Tensor, squares: QuantizedTensor) -> Tensor:
    gamma, beta = module.gamma_reparam(module.gamma), module.beta_reparam(module.beta)
    first = isinstance(module, GDN1)
    root = F.conv2d(round_to_grid(squares, abs(x) if first else x * x), gamma[:, :, None, None], beta)
    root = root if first else torch.sqrt(root)
    return x * root if module.inverse else x / root


def test_a_product_reads_two_tensors():
    probe, quantized = probed("gate")
    products = layers("gate", lambda step: step.kind == PRODUCT)
    assert len(products) == 2
    for part, step in products:
        found = probe.with_activations(quantized, part, step)
        model = copy.deepcopy(probe.traced.model)
        block = getattr(model, part)[2]
        tensors = quantized.part(part).tensors
        block.forward = lambda x, b=block, t=[tensors[n] for n in step.inputs]: (
            round_to_grid(t[0], b.first(x)) * round_to_grid(t[1], torch.sigmoid(b.second(x)))
        )
        assert_same(found, run_whole("gate", model), 2e-6)
        assert differs(found, probe)


def modules_run(traced: TracedModel, action: Callable[[], object]) -> set[str]:
    """The layers of the float model that run in the course of an action."""
    ran: set[str] = set()
    handles = [
        step.module.register_forward_hook(lambda *_, name=step.name: ran.add(name))
        for step in traced.layers
        if step.module is not None
    ]
    action()
    for handle in handles:
        handle.remove()
    return ran


@pytest.mark.parametrize("kind", ["with_weights", "with_activations"])
@pytest.mark.parametrize(
    ("changed", "must", "may"),
    [
        ("g_s.2", {"g_s.3", "g_s.4", "g_s.5", "g_s.6"}, ()),
        ("g_s.6", set(), ()),
        ("h_s.0", {"h_s.2", "h_s.4"}, ()),
        ("h_a.2", {"h_a.4"}, ("h_s.",)),
        ("g_a.4", {"g_a.5", "g_a.6"}, ("h_a.", "h_s.", "g_s.")),
    ],
)
def test_only_what_depends_on_the_layer_runs(kind, changed, must, may):
    probe, quantized = probed("gdn")
    part = changed.partition(".")[0]
    step = next(s for s in probe.traced.graphs[part] if s.name == changed)
    ran = modules_run(probe.traced, lambda: getattr(probe, kind)(quantized, part, step))
    assert must <= ran
    assert all(name in {*must, changed} or name.startswith(tuple(may)) for name in ran)


def test_a_changed_latent_does_run_the_synthesis():
    probe, quantized = probed("gdn")
    step = next(s for s in probe.traced.graphs["g_a"] if s.name == "g_a.0")
    ran = modules_run(probe.traced, lambda: probe.with_weights(quantized, "g_a", step))
    assert {"g_a.1", "g_a.6", "h_a.0", "g_s.0", "g_s.6"} <= ran
    assert "g_a.0" not in ran  # it runs with the substituted weights
