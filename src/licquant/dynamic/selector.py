"""The dynamic bit-width selector (DBWS of DynaQuant, Bao 2026): which width each stage gets for an image.

    tensor ──means of magnitudes, 5 × 5 cells──> flatten ──linear, ReLU, dropout, linear──> logits of all stages' widths

In training a stage's widths are mixed with weights from the Gumbel-Softmax (Jang 2017), at inference the largest logit
wins. The network is simulated in integers like any other part, and lowered like one: a linear layer of 5 × 5
flattened cells is a 5 × 5 convolution. What is pooled, and why: ``program/selector.py``.

The paper does not say how wide the hidden layer is. Its weights are C · 25 · hidden, which stand in the artifact:
with 16 units and 4 bits they are 2 % of a scale hyperprior model of 8 bits.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licquant.dynamic.network import DynamicModel, DynamicNetwork, one_hot
from licquant.models.graph import ACTIVATION, CONVOLUTION, IDENTITY_SLOPE, INPUT, Graph, Step
from licquant.program.arithmetic import FIXED_POINT_BITS, INT32_MAX
from licquant.program.grid import Grid
from licquant.program.selector import CELLS, FRACTION_BITS, cells
from licquant.quant.calibrate import Statistics
from licquant.quant.layers import QuantizedLayer, QuantizedTensor
from licquant.quant.network import QuantizedPart
from licquant.quant.simulation import simulate_exactly

HIDDEN = 16
DROPOUT = 0.2  # as in the paper
_BITS = 8  # of activations and of the logits' weights
_HIDDEN_BITS = 4  # of the hidden layer's weights, nearly all there are
_LOGIT_FRACTION_BITS = 8
# Features are means relative to those of the calibration images, the largest one this.
_LARGEST_FEATURE = 8.0
# In training a width of less weight is not computed: at low temperatures that is most of them.
_LEAST_WEIGHT = 2.0**-7
# The logit that the widest width begins with: before anything is learned it is chosen.
_FIRST_LOGIT = 1.0


class BitWidthSelector(nn.Module):
    """A selector for one dynamic part.

    means: float[C], the mean magnitudes of the tensor that is read, in units of its grid
    shape: for how many stages it chooses, and from how many widths
    """

    def __init__(self, name: str, means: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.network = _network(f"{name}.selector", means, math.prod(shape))
        self.temperature = 1.0
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Forget what was learned: random weights, and the widest widths."""
        hidden, logits = self.network.layers.values()
        nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
        nn.init.zeros_(hidden.bias)
        nn.init.normal_(logits.weight, std=0.01)
        stages, widths = self.shape
        logits.bias.copy_(torch.eye(widths)[-1].repeat(stages) * _FIRST_LOGIT)

    @property
    def unit(self) -> Tensor:
        """float[C]: what 2^-8 of a mean is as a feature."""
        return self.network.tensors[INPUT].scale.detach()

    def logits(self, features: Tensor) -> Tensor:
        """[B, stages, widths] of ``features_of``, with a gradient and dropout: for training."""
        self.network.fit_units()  # as large as the weights have become
        value = features.float()
        for step in self.network.graph:
            value = self.network.run(step, [value])
            if step.negative_slope == 0:
                value = F.dropout(value, DROPOUT, self.training)
        return self.network.tensors[self.network.graph.output].dequantize(value).view(-1, *self.shape)

    def choice(self, q: Tensor) -> Tensor:
        """The index of each stage's width [B, stages], exactly as at inference; the lowest of equal logits wins.

        On other devices than the CPU, where the exact constants are not, by ``logits``: the same but for near ties.
        """
        return self.choice_for(features_of(q))

    def choice_for(self, features: Tensor) -> Tensor:
        """``choice`` for what ``features_of`` gave."""
        if features.device.type == "cpu":
            self.network.fit_units()
            logits = simulate_exactly(self.network, features).view(-1, *self.shape)
        else:
            logits = self.logits(features)
        return (logits == logits.amax(2, keepdim=True)).int().argmax(2)

    def forward(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """(weights of the widths to mix, their probabilities), [B, stages, widths] each.

        In training the weights are sampled, and soft, but for the smallest ones; else both are one-hot.
        """
        if self.training:
            logits = self.logits(features_of(q))
            return self._sampled(logits), logits.softmax(2)
        chosen = one_hot(self.choice(q), self.shape[1])
        return chosen, chosen

    def _sampled(self, logits: Tensor) -> Tensor:
        weights = F.gumbel_softmax(logits, self.temperature)
        weights = torch.where(weights < _LEAST_WEIGHT, 0.0, weights)
        return weights / weights.sum(2, keepdim=True)


def features_of(q: Tensor) -> Tensor:
    """Means of the centred integers' magnitudes in units of 2^-8, int64 [B, C, 5, 5]: ``program.selector.pool``.

    Without a gradient: what is read is not bent to please the selector.
    """
    rows, columns = ([torch.from_numpy(cell).to(q.device) for cell in cells(n)] for n in q.shape[2:])
    magnitude = q.detach().abs().long()
    in_rows = torch.stack([magnitude[:, :, cell].sum(2) for cell in rows], 2)
    sums = torch.stack([in_rows[..., cell].sum(3) for cell in columns], 3) << FRACTION_BITS
    counts = torch.tensor([[len(a) * len(b) for b in columns] for a in rows], device=q.device)
    return torch.div(2 * sums + counts, 2 * counts, rounding_mode="floor").clamp(max=INT32_MAX)


def make_selectors(model: DynamicModel, statistics: Statistics) -> dict[str, BitWidthSelector]:
    """Part name → an untrained selector, which chooses the widest widths."""
    return {name: _selector(name, network, statistics) for name, network in model.networks.items()}


def _selector(name: str, network: DynamicNetwork, statistics: Statistics) -> BitWidthSelector:
    found = statistics[f"{name}.{INPUT}" if network.selected == INPUT else network.selected]
    mean = (found.counts * found.centres.abs()).sum(1) / found.counts.sum(1).clamp(min=1)
    means = mean / network.wide.tensors[network.selected].scale.detach()
    return BitWidthSelector(name, means, network.shape)


def _network(name: str, means: Tensor, outputs: int) -> QuantizedPart:
    """Means in units of 2^-8 to logits. In real units features are means relative to ``means``."""
    features, layers = nn.Conv2d(len(means), HIDDEN, CELLS), nn.Conv2d(HIDDEN, outputs, 1)
    steps = (
        Step(f"{name}.features", ACTIVATION, (INPUT,), negative_slope=IDENTITY_SLOPE),
        Step(f"{name}.hidden", CONVOLUTION, (f"{name}.features",), features, negative_slope=0.0),
        Step(f"{name}.logits", CONVOLUTION, (f"{name}.hidden",), layers),
    )
    unit = 2.0**-FRACTION_BITS / means.double().clamp(min=2.0**-FRACTION_BITS)
    step = _LARGEST_FEATURE / ((1 << _BITS) - 1)
    pooled = Grid(FIXED_POINT_BITS, unit.numpy(), torch.zeros(len(means), dtype=torch.long).numpy())
    tensors = {
        INPUT: QuantizedTensor.of(pooled),
        steps[0].name: _unsigned(len(means), step),
        steps[1].name: _unsigned(HIDDEN, step),
        steps[2].name: QuantizedTensor.of(Grid.fixed_point(outputs, _LOGIT_FRACTION_BITS)),
    }
    return QuantizedPart(
        Graph(name, steps),
        tensors,
        {steps[1].name: QuantizedLayer(steps[1], _HIDDEN_BITS), steps[2].name: QuantizedLayer(steps[2], _BITS)},
    )


def _unsigned(channels: int, step: float) -> QuantizedTensor:
    tensor = QuantizedTensor(_BITS, torch.full((channels,), step), torch.zeros(channels))
    tensor.log_scale.requires_grad_(False)
    return tensor
