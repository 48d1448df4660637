"""From a model to graphs: by its modules and functions, not by its class.

A model is understood if its parts are built from layers of the kinds below, and if its ``forward`` connects
them like a family that licquant codes (``families.py``). So a user's own model works without being registered
anywhere.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import GDN, GDN1, MaskedConv2d
from torch import fx, nn

from licquant.errors import ModelError
from licquant.models.families import recognise
from licquant.models.graph import (
    ACTIVATION,
    ADDITION,
    CONVOLUTION,
    INPUT,
    NORMALIZATION,
    PIXEL_SHUFFLE,
    PRODUCT,
    SIGMOID,
    TRANSPOSED_CONVOLUTION,
    Graph,
    Step,
    fuse_activations,
    with_copies,
)

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, GDN)
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d)
_PAIRS = {
    operator.add: ADDITION,
    operator.iadd: ADDITION,
    torch.add: ADDITION,
    operator.mul: PRODUCT,
    operator.imul: PRODUCT,
    torch.mul: PRODUCT,
}
_SIGMOIDS = (torch.sigmoid, F.sigmoid, "sigmoid")
_ABSOLUTES = (torch.abs, operator.abs, abs, "abs")
_RELUS = (F.relu, torch.relu, "relu", "relu_")
_CHANNELS = 3
_IN_PLACE = (operator.iadd, operator.imul, "relu_")


@dataclass(frozen=True, eq=False)
class TracedModel:
    """A model as graphs.

    family:      how its latent is coded, see ``families.py``
    graphs:      part name → graph; g_a, g_s, h_a, h_s, then those of the context model
    model:       the model itself
    bottleneck:  entropy model of z, or of y where there is no z
    conditional: entropy model of y given its parameters; None for the factorized family
    metric:      of the distortion that it was trained for, ``mse`` or ``ms-ssim``
    """

    family: str
    graphs: dict[str, Graph]
    model: nn.Module
    bottleneck: EntropyBottleneck
    conditional: GaussianConditional | None
    metric: str = "mse"

    @property
    def layers(self) -> list[Step]:
        """Every step of every part."""
        return [step for graph in self.graphs.values() for step in graph]

    @property
    def fp32_bytes(self) -> int:
        """Four bytes for every parameter of the model, entropy models included: what ``size`` is a fraction of."""
        return 4 * sum(p.numel() for p in self.model.parameters())


def trace_model(model: nn.Module, metric: str = "mse") -> TracedModel:
    """The graphs and the family of a model in eval mode; ``ModelError`` names what is not supported."""
    found = recognise(model)
    graphs = {name: trace_part(model.get_submodule(path), name, path) for name, path in found.parts.items()}
    if found.absolute:
        graphs["h_a"] = _with_absolute_input(graphs["h_a"])
    graphs = {name: with_copies(fuse_activations(graph)) for name, graph in graphs.items()}
    _check_pixels(graphs)
    return TracedModel(found.family, graphs, model, found.bottleneck, found.conditional, metric)


def _check_pixels(graphs: dict[str, Graph]) -> None:
    """Images have three channels; ``ModelError`` names the layer that reads or writes another number."""
    first = next(step for step in graphs["g_a"] if step.module is not None)
    if graphs["g_a"].input_channels != _CHANNELS:
        raise ModelError(f"{first.name}: reads {graphs['g_a'].input_channels} channels; images have {_CHANNELS}")
    last, shuffled = graphs["g_s"].steps[-1], 1
    while last.module is None:
        shuffled *= last.factor**2
        last = next((step for step in graphs["g_s"] if step.name == last.inputs[0]), last)
        if last.name == INPUT or not last.inputs:
            return
    written = getattr(last.module, "out_channels", None)
    if written is not None and written != _CHANNELS * shuffled:
        raise ModelError(f"{last.name}: writes {written // shuffled} channels; images have {_CHANNELS}")


# --- one part -----------------------------------------------------------------------------------------------


class _PartTracer(fx.Tracer):
    """Traces into every module but the layers themselves and PyTorch's own modules."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LAYERS) or super().is_leaf_module(m, module_qualified_name)


def trace_part(part: nn.Module, name: str, path: str | None = None) -> Graph:
    """The graph of one part before activation functions are folded; ``ModelError`` on what is not supported.

    path: of the part in the model, which its layers' names begin with; the part's name unless given
    """
    path = path or name
    if isinstance(part, _LAYERS):
        return Graph(name, (_module_step(path, part, (INPUT,)),))
    try:
        nodes = list(_PartTracer().trace(part).nodes)
    except Exception as error:  # control flow that depends on data, and the like
        raise ModelError(f"{name}: cannot be traced: {' '.join(str(error).split())[:160]}") from error
    building = _Building(dict(part.named_modules()), path)
    for node in nodes:
        building.add(node)
    return Graph(name, tuple(building.steps))


@dataclass
class _Building:
    """A graph in the making.

    tensors: node → the tensor that it stands for: after an operation in place, the new one
    """

    modules: dict[str, nn.Module]
    path: str
    steps: list[Step] = field(default_factory=list)
    tensors: dict[fx.Node, str] = field(default_factory=dict)

    def add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if self.tensors:
                raise ModelError(f"{self.path}: has more than one input")
            self.tensors[node] = INPUT
        elif node.op == "output":
            result = node.args[0]
            if not self.steps or not isinstance(result, fx.Node) or self.tensors[result] != self.steps[-1].name:
                raise ModelError(f"{self.path}: its output must be its last layer's, alone")
        else:
            self._add_call(node)

    def _add_call(self, node: fx.Node) -> None:
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        inputs = tuple(self.tensors[a] for a in node.args if isinstance(a, fx.Node))
        if isinstance(module, _TRANSPARENT):
            self.tensors[node] = inputs[0]
            return
        name = f"{self.path}.{node.name if module is None else node.target}"
        if name in {step.name for step in self.steps}:  # one module called twice
            name = f"{name}@{node.name}"
        step = _function_step(name, node, inputs) if module is None else _module_step(name, module, inputs)
        self.steps.append(step)
        if node.target in _IN_PLACE if module is None else getattr(module, "inplace", False):
            for other in [n for n, tensor in self.tensors.items() if tensor == inputs[0]]:
                self.tensors[other] = name
        self.tensors[node] = name


def _module_step(name: str, module: nn.Module, inputs: tuple[str, ...]) -> Step:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        _check_convolution(name, module)
        transposed = isinstance(module, nn.ConvTranspose2d)
        return Step(name, TRANSPOSED_CONVOLUTION if transposed else CONVOLUTION, inputs, module)
    if isinstance(module, GDN) and type(module).forward in (GDN.forward, GDN1.forward):
        return Step(name, NORMALIZATION, inputs, module)
    if isinstance(module, nn.ReLU):
        return Step(name, ACTIVATION, inputs, negative_slope=0.0)
    if isinstance(module, nn.LeakyReLU):
        return Step(name, ACTIVATION, inputs, negative_slope=module.negative_slope)
    if isinstance(module, nn.PixelShuffle):
        return Step(name, PIXEL_SHUFFLE, inputs, factor=module.upscale_factor)
    if isinstance(module, nn.Sigmoid):
        return Step(name, SIGMOID, inputs)
    raise ModelError(f"{name}: layers of type {type(module).__name__} are not supported")


def _check_convolution(name: str, module: nn.Conv2d | nn.ConvTranspose2d) -> None:
    geometry = [module.stride, module.padding, module.dilation, module.output_padding]
    square = all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in geometry)
    if not square or module.dilation[0] != 1 or module.padding_mode != "zeros":
        raise ModelError(f"{name}: needs equal strides and paddings both ways, zero padding and no dilation")
    if isinstance(module, nn.ConvTranspose2d) and module.groups != 1:
        raise ModelError(f"{name}: grouped transposed convolutions are not supported")
    known = (nn.Conv2d.forward, nn.ConvTranspose2d.forward, MaskedConv2d.forward)
    if type(module).forward not in known:
        raise ModelError(f"{name}: a {type(module).__name__} with a forward of its own is not supported")


def _function_step(name: str, node: fx.Node, inputs: tuple[str, ...]) -> Step:
    """The step of a function or a method that is called."""
    target: Any = node.target
    if target in _PAIRS and len(inputs) == 2 and not node.kwargs:
        return Step(name, _PAIRS[target], inputs)
    if len(inputs) == 1:
        slope = _function_slope(node)
        if slope is not None:
            return Step(name, ACTIVATION, inputs, negative_slope=slope)
        if target in _SIGMOIDS:
            return Step(name, SIGMOID, inputs)
        if target is F.pixel_shuffle:
            factor: Any = node.kwargs.get("upscale_factor", node.args[-1])
            return Step(name, PIXEL_SHUFFLE, inputs, factor=int(factor))
    raise ModelError(f"{name}: {node.op} of {node.target} is not supported")


def _function_slope(node: fx.Node) -> float | None:
    """Slope for negative values of an activation function that is called as a function or a method."""
    if node.target in _ABSOLUTES:
        return -1.0
    if node.target in _RELUS:
        return 0.0
    if node.target is F.leaky_relu:
        slope: Any = node.kwargs.get("negative_slope", node.args[1] if len(node.args) > 1 else 0.01)
        return float(slope)
    return None


def _with_absolute_input(graph: Graph) -> Graph:
    """|y| belongs to the hyper analysis: its first step takes the absolute value of the part's input."""
    first = Step(f"{graph.name}.abs", ACTIVATION, (INPUT,), negative_slope=-1.0)
    steps = [replace(s, inputs=tuple(first.name if n == INPUT else n for n in s.inputs)) for s in graph]
    return Graph(graph.name, (first, *steps))
