"""From a model to graphs: by its modules and functions, not by its class.

A model is understood if it has parts named ``g_a``, ``g_s`` (``h_a``, ``h_s``) built from layers of the kinds
below, and if its ``forward`` connects them like a family that licquant codes. So a user's own model works
without being registered anywhere.
"""

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import GDN, GDN1
from torch import fx, nn

from licquant.errors import ModelError
from licquant.models.graph import (
    ACTIVATION,
    ADDITION,
    CONVOLUTION,
    INPUT,
    NORMALIZATION,
    TRANSPOSED_CONVOLUTION,
    Graph,
    Step,
    fuse_activations,
)

PARTS = ("g_a", "g_s", "h_a", "h_s")
SCALE_HYPERPRIOR = "scale-hyperprior"

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, GDN)
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d)
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_ABSOLUTES = (torch.abs, operator.abs, abs)


@dataclass(frozen=True, eq=False)
class TracedModel:
    """A model as graphs.

    family: how its latent is coded (``scale-hyperprior``)
    graphs: part name → graph, in the order of ``PARTS``
    model:  the model itself, for its entropy models
    """

    family: str
    graphs: dict[str, Graph]
    model: nn.Module

    @property
    def layers(self) -> list[Step]:
        """Every step of every part: what a plan has an entry for."""
        return [step for graph in self.graphs.values() for step in graph]

    @property
    def fp32_bytes(self) -> int:
        """Four bytes for every parameter of the model, entropy models included: what ``size`` is a fraction of."""
        return 4 * sum(p.numel() for p in self.model.parameters())


def trace_model(model: nn.Module) -> TracedModel:
    """The graphs and the family of a model; ``ModelError`` names what is not supported."""
    absolute = _recognise_scale_hyperprior(model)
    graphs = {name: trace_part(getattr(model, name), name) for name in PARTS}
    if absolute:
        graphs["h_a"] = _with_absolute_input(graphs["h_a"])
    return TracedModel(SCALE_HYPERPRIOR, {n: fuse_activations(g) for n, g in graphs.items()}, model)


# --- one part -----------------------------------------------------------------------------------------------


class _PartTracer(fx.Tracer):
    """Traces into every module but the layers themselves and PyTorch's own modules."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LAYERS) or super().is_leaf_module(m, module_qualified_name)


def trace_part(part: nn.Module, name: str) -> Graph:
    """The graph of one part before activation functions are folded; ``ModelError`` on what is not supported."""
    try:
        traced = _PartTracer().trace(part)
    except Exception as error:  # control flow that depends on data, and the like
        raise ModelError(f"{name}: cannot be traced: {' '.join(str(error).split())[:160]}") from error
    modules = dict(part.named_modules())
    names: dict[fx.Node, str] = {}
    steps: list[Step] = []
    for node in traced.nodes:
        if node.op == "placeholder":
            if names:
                raise ModelError(f"{name}: has more than one input")
            names[node] = INPUT
        elif node.op == "output":
            if node.args[0] not in names or names[node.args[0]] != (steps[-1].name if steps else None):
                raise ModelError(f"{name}: its output must be its last layer's, alone")
        else:
            step = _step(node, modules, name, names)
            if step is None:  # an identity
                names[node] = names[node.args[0]]
                continue
            steps.append(step)
            names[node] = step.name
    return Graph(name, tuple(steps))


def _step(node: fx.Node, modules: dict[str, nn.Module], part: str, names: dict[fx.Node, str]) -> Step | None:
    inputs = tuple(names[a] for a in node.args if isinstance(a, fx.Node))
    name = f"{part}.{node.target if node.op == 'call_module' else node.name}"
    if node.op == "call_module":
        module = modules[str(node.target)]
        if isinstance(module, _TRANSPARENT):
            return None
        return _module_step(name, module, inputs)
    if node.op == "call_function" and node.target in _ADDITIONS and len(inputs) == 2 and not node.kwargs:
        return Step(name, ADDITION, inputs)
    slope = _function_slope(node)
    if slope is not None and len(inputs) == 1:
        return Step(name, ACTIVATION, inputs, negative_slope=slope)
    raise ModelError(f"{name}: {node.op} of {node.target} is not supported")


def _module_step(name: str, module: nn.Module, inputs: tuple[str, ...]) -> Step:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        _check_convolution(name, module)
        transposed = isinstance(module, nn.ConvTranspose2d)
        return Step(name, TRANSPOSED_CONVOLUTION if transposed else CONVOLUTION, inputs, module)
    if isinstance(module, GDN) and not isinstance(module, GDN1):
        return Step(name, NORMALIZATION, inputs, module)
    if isinstance(module, nn.ReLU):
        return Step(name, ACTIVATION, inputs, negative_slope=0.0)
    if isinstance(module, nn.LeakyReLU):
        return Step(name, ACTIVATION, inputs, negative_slope=module.negative_slope)
    raise ModelError(f"{name}: layers of type {type(module).__name__} are not supported")


def _check_convolution(name: str, module: nn.Conv2d | nn.ConvTranspose2d) -> None:
    geometry = [module.stride, module.padding, module.dilation, module.output_padding]
    square = all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in geometry)
    if not square or module.dilation[0] != 1 or module.padding_mode != "zeros":
        raise ModelError(f"{name}: needs equal strides and paddings both ways, zero padding and no dilation")
    if isinstance(module, nn.ConvTranspose2d) and module.groups != 1:
        raise ModelError(f"{name}: grouped transposed convolutions are not supported")


def _function_slope(node: fx.Node) -> float | None:
    """Slope for negative values of an activation function that is called as a function or a method."""
    if node.target in (*_ABSOLUTES, "abs"):
        return -1.0
    if node.target in (F.relu, torch.relu, "relu", "relu_"):
        return 0.0
    if node.target is F.leaky_relu:
        slope: Any = node.kwargs.get("negative_slope", node.args[1] if len(node.args) > 1 else 0.01)
        return float(slope)
    return None


def _with_absolute_input(graph: Graph) -> Graph:
    """|y| belongs to the hyper analysis: its first step takes the absolute value of the part's input."""
    first = Step(f"{graph.name}.abs", ACTIVATION, (INPUT,), negative_slope=-1.0)
    steps = [
        Step(s.name, s.kind, tuple(first.name if n == INPUT else n for n in s.inputs), s.module, s.negative_slope)
        for s in graph
    ]
    return Graph(graph.name, (first, *steps))


# --- how the parts are connected ----------------------------------------------------------------------------


class _ModelTracer(fx.Tracer):
    """Traces a model's forward with its parts and entropy models as leaves."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _recognise_scale_hyperprior(model: nn.Module) -> bool:
    """Whether h_a sees |y| (as in Ballé 2018) rather than y; ``ModelError`` unless the model's dataflow is

    y = g_a(x); z = h_a(|y|); ẑ = entropy_bottleneck(z); σ = h_s(ẑ); ŷ = gaussian_conditional(y, σ); x̂ = g_s(ŷ)
    """
    missing = [name for name in PARTS if not isinstance(getattr(model, name, None), nn.Module)]
    if missing:
        raise ModelError(
            f"{type(model).__name__} has no part {missing[0]}: scale hyperprior models have g_a, g_s, h_a, h_s"
        )
    try:
        nodes = list(_ModelTracer().trace(model).nodes)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__}: its forward cannot be traced: {' '.join(str(error).split())[:120]}"
        ) from error
    calls = {str(n.target): n for n in nodes if n.op == "call_module"}
    kinds = {name: model.get_submodule(name) for name in calls}
    bottleneck = next((n for n, m in kinds.items() if isinstance(m, EntropyBottleneck)), None)
    conditional = next((n for n, m in kinds.items() if isinstance(m, GaussianConditional)), None)
    if bottleneck is None or conditional is None or set(calls) != {*PARTS, bottleneck, conditional}:
        raise ModelError(f"{type(model).__name__}: only scale hyperprior models are supported so far")
    hyper_input, gaussian = calls["h_a"].args[0], calls[conditional]
    assert isinstance(hyper_input, fx.Node)
    absolute = hyper_input.target in (*_ABSOLUTES, "abs")
    source = hyper_input.args[0] if absolute else hyper_input
    if (
        source is not calls["g_a"]
        or gaussian.args != (calls["g_a"], calls["h_s"])
        or any(key != "training" for key in gaussian.kwargs)
    ):
        raise ModelError(f"{type(model).__name__}: its parts are not connected as in a scale hyperprior model")
    return absolute
