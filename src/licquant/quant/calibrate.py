"""Statistics of every tensor of the float network over the calibration images: all values, no sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from licquant.config import OnProgress, silent
from licquant.errors import DataError
from licquant.evaluate.rd import MSE
from licquant.images import RGB, evenly
from licquant.models.graph import COPY, INPUT
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.colours import coloured_copies
from licquant.quant.dataflow import code

BINS = 512
MEASURED = 64  # images that ranges are measured on: more show no larger values that matter
# What a value of a strongly coloured copy counts, beside one of a photograph. Few pictures are like that: where copies
# count more, the steps of all pictures are wider for them; where not at all, those few are clipped.
RARE = 1 / 32  # measured on other photographs: results/coloured-weights.json
MULTIPLE = 64  # images are cut to whole multiples of what the hyper analysis reduces by

Statistics = dict[str, "TensorStatistics"]


@dataclass
class TensorStatistics:
    """Per channel: the extremes, and how the values between them are distributed.

    low, high: [C];  counts: [C, BINS], values in equal bins between min(low, 0) and max(high, 0)
    """

    low: Tensor
    high: Tensor
    counts: Tensor

    @property
    def span(self) -> tuple[Tensor, Tensor]:
        """The ends of the bins, zero included: [C] each."""
        return self.low.clamp(max=0), self.high.clamp(min=0)

    @property
    def centres(self) -> Tensor:
        """The middle of every bin, [C, BINS]."""
        low, high = self.span
        steps = (torch.arange(BINS) + 0.5) / BINS
        return low[:, None] + (high - low)[:, None] * steps


class Calibrated(NamedTuple):
    """A float model as graphs, and the statistics of its tensors: what all its quantizations begin with."""

    traced: TracedModel
    statistics: Statistics


def calibrate(
    model: nn.Module | Calibrated, images: Sequence[RGB], metric: str = MSE, on_progress: OnProgress = silent
) -> Calibrated:
    """The model as graphs, and the statistics of its tensors on at most ``MEASURED`` of the images, evenly spaced.

    Strongly coloured copies of some of them are measured too, and count little: ``RARE``.

    model:  one that is calibrated already, with these images and metric, is returned as it is
    metric: of the distortion that the model was trained for
    """
    if isinstance(model, Calibrated):
        return model
    traced, photographs = trace_model(model, metric), evenly(images, MEASURED)
    copies = coloured_copies(photographs)
    count = 2 * (len(photographs) + len(copies))
    done = iter(range(1, count + 1))
    on_image = lambda: on_progress("calibrating", next(done), count)  # noqa: E731
    return Calibrated(traced, collect_statistics(traced, photographs, on_image, rare=copies))


def collect_statistics(
    traced: TracedModel,
    images: Sequence[RGB],
    on_image: Callable[[], None] = lambda: None,
    rare: Sequence[RGB] = (),
) -> Statistics:
    """Tensor name → statistics, for the inputs (``g_a.input`` …) and every step's output of the float network.

    Two passes: extremes, then histograms. ``on_image`` is called after each image of each pass (2·n times).
    rare: further images, whose extremes count as any others' do, and of whose values each counts ``RARE``
    Raises ``DataError`` without images or for images smaller than 64×64.
    """
    if not images:
        raise DataError("calibration needs at least one image")
    extremes: dict[str, tuple[Tensor, Tensor]] = {}
    for tensors in _passes(traced, [*images, *rare], on_image):
        for name, value in tensors:
            flat = value.amin((0, 2, 3)), value.amax((0, 2, 3))
            low, high = extremes.get(name, flat)
            extremes[name] = torch.minimum(low, flat[0]), torch.maximum(high, flat[1])
    statistics = {
        name: TensorStatistics(low, high, torch.zeros(len(low), BINS)) for name, (low, high) in extremes.items()
    }
    for weight, pictures in ((1.0, images), (RARE, rare)):
        for tensors in _passes(traced, pictures, on_image):
            for name, value in tensors:
                _count(statistics[name], value, weight)
    for part, graph in traced.graphs.items():
        copies = [step for step in graph if step.name.endswith(COPY)]
        statistics |= {step.name: statistics[_source(part, step.inputs[0])] for step in copies}
    return statistics


def _source(part: str, tensor: str) -> str:
    return f"{part}.{INPUT}" if tensor == INPUT else tensor


def _count(statistics: TensorStatistics, value: Tensor, weight: float) -> None:
    channels = value.shape[1]
    low, high = (end.view(1, -1, 1, 1) for end in statistics.span)
    index = ((value - low) * (BINS / (high - low).clamp(min=1e-30))).long().clamp_(0, BINS - 1)
    index += torch.arange(channels).view(1, -1, 1, 1) * BINS
    counts = torch.bincount(index.flatten(), minlength=channels * BINS)
    statistics.counts += weight * counts.view(channels, BINS)


def _passes(
    traced: TracedModel, images: Sequence[RGB], on_image: Callable[[], None]
) -> Iterable[list[tuple[str, Tensor]]]:
    """The tensors of the float network, image by image, as (name, value [1, C, H, W])."""
    for rgb in images:
        with torch.no_grad():
            yield _tensors(traced, to_tensor(rgb))
        on_image()


def to_tensor(rgb: RGB) -> Tensor:
    """uint8 H×W×3 to float [1, 3, H', W'] in [0, 1], the largest centred piece with sides a multiple of 64."""
    height, width = (n // MULTIPLE * MULTIPLE for n in rgb.shape[:2])
    if not height or not width:
        raise DataError(
            f"a calibration image of {rgb.shape[1]}x{rgb.shape[0]}: at least {MULTIPLE}x{MULTIPLE} are needed"
        )
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    piece = rgb[top : top + height, left : left + width]
    return torch.from_numpy(piece.transpose(2, 0, 1).copy()).float()[None] / 255


def _tensors(traced: TracedModel, x: Tensor) -> list[tuple[str, Tensor]]:
    """All parts in the order of the data, each fed as at inference."""
    found: list[tuple[str, Tensor]] = []

    def run(name: str, value: Tensor) -> Tensor:
        graph = traced.graphs[name]
        tensors = graph.forward(value)
        found.extend((_source(name, key), tensor) for key, tensor in tensors.items() if not key.endswith(COPY))
        return tensors[graph.output]

    code(traced, run, x)
    return found
