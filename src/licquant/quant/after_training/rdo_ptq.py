"""RDO-PTQ (Shi et al., TCSVT 2023): learned rounding and learned activation ranges, block by block, for the loss of
the whole codec.

A block is a layer with the GDN that follows it; blocks are learned in order of execution. What comes before a block
is quantized already and computed once. What comes after it is float: then the loss shows what this block costs, and
not how badly the later layers, still to be learned, are rounded; and nothing later is folded with a scale that moves.

Rounding is AdaRound's (Nagel 2020): integer = floor(w·s/unit) + h(V), h the rectified sigmoid, and a regulariser
Σ 1 - |2h - 1|^β that drives h to 0 or 1 while β falls from 20 to 2, after a warm-up without it. Where we differ, all
for the sake of minutes in place of hours: tens to hundreds of steps a block, not 20,000, and so larger learning
rates; and the regulariser's weight is not a constant but follows the gradient of the loss, which differs by orders
of magnitude between blocks. The first and the last layer get no 8 bits of their own: widths are the plan's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from licquant.config import check_lmbda
from licquant.images import RGB
from licquant.models.graph import INPUT, NORMALIZATION, SIGMOID, Graph, Step
from licquant.models.graph import run_float as run_step
from licquant.program.arithmetic import weight_range
from licquant.quant.after_training.reconstruct import CalibrationCrops
from licquant.quant.dataflow import run_float
from licquant.quant.grids import squares_of
from licquant.quant.layers import QuantizedLayer, QuantizedTensor
from licquant.quant.network import QuantizedModel, QuantizedPart
from licquant.quant.rd import evaluate

POOL = 24  # batches of crops that all blocks are learned on; what a finished block makes of them is kept
ROUNDING_RATE = 0.05  # per step, in units of V: h goes from 0 to 1 over about 5
SCALE_RATE = 0.0005  # per step, of the logarithm of a scale
WARM_UP = 0.2  # share of a block's steps without the regulariser
FIRST_EXPONENT, LAST_EXPONENT = 20.0, 2.0
PRESSURE = 0.3  # of the regulariser, against the mean gradient of the loss

_LOW, _HIGH = -0.1, 1.1  # AdaRound's ζ and γ: h reaches 0 and 1 at finite V

Block = tuple[Step, ...]
Call = tuple[int, int]  # batch of the pool, place in the dataflow
Tensors = dict[str, Tensor]  # name → centred integers


def rdo_ptq(
    quantized: QuantizedModel,
    images: Sequence[RGB],
    lmbda: float,
    steps_per_block: int,
    on_step: Callable[[int], None] = lambda _: None,
) -> None:
    """Learn the rounding of every weight and the scale of every activation that a layer writes, in place.

    Afterwards each weight lies on its grid, so that lowering gives exactly the learned integers; the units of the
    layers belong to these weights (``fit_units`` would move them). Biases, zero points and widths stay.

    lmbda:           of the rate-distortion loss R + λ·255²·MSE
    steps_per_block: 0 rounds to nearest; ``on_step`` hears how many of ``len(all_blocks(quantized)) * steps_per_block``
                     are done
    Raises ``DataError`` if no image is as large as a crop of 64×64.
    """
    check_lmbda(lmbda)
    crops = CalibrationCrops(images, seed=0)
    codec = _Codec(quantized, [crops.draw() for _ in range(POOL)], lmbda)
    shares = _unit_shares(quantized)
    done = 0
    for part, block in all_blocks(quantized):
        codec.enter(part, block)
        learned = _LearnedBlock(part, block, shares)
        optimizer = torch.optim.Adam(learned.groups(), betas=(0.9, 0.99), eps=1e-15)
        for step in range(steps_per_block):
            learned.set_gradients(codec.loss(done % POOL), step / steps_per_block)
            optimizer.step()
            done += 1
            on_step(done)
        learned.harden()
        codec.leave()


def all_blocks(quantized: QuantizedModel) -> list[tuple[QuantizedPart, Block]]:
    """Every block of the model, in the order in which they are learned."""
    parts = [quantized.part(name) for name in quantized.parts if name != "g_s"] + [quantized.part("g_s")]
    return [(part, block) for part in parts for block in blocks_of(part.graph)]


def blocks_of(graph: Graph) -> list[Block]:
    """The graph cut before every layer but a GDN; steps without weights belong to the block before, or are first."""
    blocks: list[Block] = []
    for step in graph:
        layers = [s for s in blocks[-1] if s.has_weights] if blocks else []
        if not blocks or (layers and step.has_weights and step.kind != NORMALIZATION):
            blocks.append((step,))
        else:
            blocks[-1] = (*blocks[-1], step)
    return blocks


class _Codec:
    """The whole codec with one block being learned: integers up to it, float after it.

    What does not depend on the block is computed once for each batch of the pool: the outputs of other parts, and
    the tensors of the block's own part that come before it. A call of a part is known by its batch and its place in
    the dataflow, which may use a part twice.
    """

    def __init__(self, quantized: QuantizedModel, pool: Sequence[Tensor], lmbda: float) -> None:
        self.quantized, self.pool, self.lmbda = quantized, pool, lmbda
        self.float_run = run_float(quantized.traced)
        self.finished: set[str] = set()
        self.outputs: dict[str, dict[Call, Tensor]] = {name: {} for name in quantized.parts}
        self.before: dict[Call, Tensors] = {}  # of the current part
        self.part, self.block = all_blocks(quantized)[0]

    def enter(self, part: QuantizedPart, block: Block) -> None:
        """Make this the block that is learned."""
        if part is not self.part:
            self.before = {}
            self.outputs[part.graph.name] = {}  # of the float part
        self.part, self.block = part, block

    def leave(self) -> None:
        """The block is learned: carry the pool through it."""
        graph = self.part.graph
        with torch.no_grad():
            for call, tensors in self.before.items():
                _run_steps(self.part, self.block, tensors)
                self.before[call] = {name: tensors[name] for name in _read_after(graph, self.block) if name in tensors}
        if self.block[-1].name == graph.output:
            self.finished.add(graph.name)

    def loss(self, batch: int) -> Tensor:
        """J on one batch of the pool, with a gradient for the block's own parameters."""
        calls = itertools.count()

        def run(name: str, value: Tensor) -> Tensor:
            call = batch, next(calls)
            if name == self.part.graph.name:
                return self._current(call, value)
            if value.requires_grad:
                return self.float_run(name, value)
            known = self.outputs[name]
            if call not in known:
                known[call] = (self.quantized.run if name in self.finished else self.float_run)(name, value).detach()
            return known[call]

        return evaluate(self.quantized.traced, run, self.pool[batch]).loss(self.lmbda)

    def _current(self, call: Call, value: Tensor) -> Tensor:
        part, graph = self.part, self.part.graph
        before = self.before.get(call)
        if before is None:
            before = {INPUT: part.tensors[INPUT].quantize(value)}
            _run_steps(part, graph.steps[: graph.steps.index(self.block[0])], before)
            if not value.requires_grad:
                before = self.before[call] = {name: tensor.detach() for name, tensor in before.items()}
        tensors = dict(before)
        _run_steps(part, self.block, tensors)
        read = _read_after(graph, self.block)
        real = {name: part.tensors[name].dequantize(q) for name, q in tensors.items() if name in read}
        for step in _after(graph, self.block):
            real[step.name] = run_step(step, [real[name] for name in step.inputs])
        return real[graph.output]


def _after(graph: Graph, block: Block) -> tuple[Step, ...]:
    return graph.steps[graph.steps.index(block[-1]) + 1 :]


def _read_after(graph: Graph, block: Block) -> set[str]:
    """The tensors that the steps after the block read, and the part's output."""
    return {graph.output, *(name for step in _after(graph, block) for name in step.inputs)}


def _run_steps(part: QuantizedPart, steps: Sequence[Step], tensors: Tensors) -> None:
    """Add what the steps write to ``tensors``."""
    for step in steps:
        tensors[step.name] = part.run(step, [tensors[name] for name in step.inputs])


class _SoftLayer(QuantizedLayer):
    """A layer whose integers are floor(w·s/unit) + h(V), with h(V) the fraction that floor leaves to begin with."""

    def __init__(self, step: Step, layer: QuantizedLayer, input_scale: Tensor) -> None:
        super().__init__(step, layer.bits)
        self.load_state_dict(layer.state_dict())
        self.requires_grad_(False)
        exact = self.folded(input_scale) / self.rows()
        self.floor = torch.floor(exact)
        share = (exact - self.floor - _LOW) / (_HIGH - _LOW)
        self.v = nn.Parameter(torch.logit(share))

    def h(self) -> Tensor:
        """The rectified sigmoid (Louizos 2018), in [0, 1]."""
        return (torch.sigmoid(self.v) * (_HIGH - _LOW) + _LOW).clamp(0, 1)

    def integer_weight(self, input_scale: Tensor) -> Tensor:
        return self._on_grid(self.h())

    def chosen(self) -> Tensor:
        """The integers decided for; a half goes up, as everywhere."""
        return self._on_grid((self.h() >= 0.5).float())

    def _on_grid(self, h: Tensor) -> Tensor:
        integers = (self.floor + h).clamp(*weight_range(self.bits))
        return integers if self.mask is None else integers * self.mask

    def regularization(self, exponent: float) -> Tensor:
        return (1 - (2 * self.h() - 1).abs().pow(exponent)).sum()


class _LearnedBlock:
    """A block with what is learned about it in place of its layers' weights.

    shares: layer name → its unit, of the one at which no weight is clipped
    """

    def __init__(self, part: QuantizedPart, block: Block, shares: Mapping[str, Tensor]) -> None:
        self.part = part
        self.hard = {step: part.layers[step.name] for step in block if step.has_weights}
        self.soft: list[_SoftLayer] = []
        for step, layer in self.hard.items():
            scale = part.weight_scale(step).detach()
            layer.fit_unit(scale)  # its input's scale may have been learned since
            layer.unit.mul_(shares[step.name])
            self.soft.append(_SoftLayer(step, layer, scale))
            part.layers[step.name] = self.soft[-1]
        self.scales = [tensor.log_scale for tensor in _learnable(part, block)]

    def groups(self) -> list[dict[str, object]]:
        rounding: list[dict[str, object]] = [{"params": [layer.v for layer in self.soft], "lr": ROUNDING_RATE}]
        return rounding + ([{"params": self.scales, "lr": SCALE_RATE}] if self.scales else [])

    def set_gradients(self, loss: Tensor, progress: float) -> None:
        """Of the loss and, after the warm-up, of the regulariser in units of the layer's mean gradient."""
        parameters = [*(layer.v for layer in self.soft), *self.scales]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        if progress < WARM_UP:
            return
        exponent = FIRST_EXPONENT + (LAST_EXPONENT - FIRST_EXPONENT) * (progress - WARM_UP) / (1 - WARM_UP)
        for layer in self.soft:
            (pull,) = torch.autograd.grad(layer.regularization(exponent), layer.v)
            assert layer.v.grad is not None
            layer.v.grad += PRESSURE * layer.v.grad.abs().mean() * pull

    def harden(self) -> None:
        """Put the layers back, with the weights that stand for the chosen integers at the scales learned."""
        with torch.no_grad():
            for (step, layer), soft in zip(self.hard.items(), self.soft, strict=True):
                layer.weight.copy_(soft.chosen() * layer.rows() / layer.columns(self.part.weight_scale(step)))
                self.part.layers[step.name] = layer


def _learnable(part: QuantizedPart, block: Block) -> list[QuantizedTensor]:
    """The tensors that the block's layers, and what follows them in it, write: those whose scale is free.

    The input of a sigmoid is not: its table needs one scale for all channels.
    """
    first = next((n for n, step in enumerate(block) if step.has_weights), len(block))
    names = [s.name for s in block[first:] if all(r.kind != SIGMOID for r in part.graph.consumers(s.name))]
    names += [squares_of(step.name) for step in block if step.kind == NORMALIZATION]
    tensors = [part.tensors[name] for name in names]
    return [t for t in tensors if t.log_scale.is_leaf and t.log_scale.requires_grad]


def _unit_shares(quantized: QuantizedModel) -> dict[str, Tensor]:
    """Layer → its unit, of the one at which no weight is clipped."""
    shares = {}
    for part in quantized.parts.values():
        for step in part.graph:
            if step.has_weights:
                layer = part.layers[step.name]
                unit = layer.unit.clone()
                layer.fit_unit(part.weight_scale(step))
                shares[step.name] = unit / layer.unit
                layer.unit.copy_(unit)
    return shares
