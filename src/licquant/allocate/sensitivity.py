"""The sensitivity table: what quantizing one layer alone costs, at every width (FMPQ, arXiv 2506.01221).

    ζ_n(b) = (J_n(b) - J_fp32) / J_fp32          J_n(b): only layer n at b bits, everything else float

Weights and activations are measured apart, and rate and distortion are kept apart, so that one table serves any λ.
Measuring takes a minute; the table is kept on disk (``licquant.cache``) under the hash of everything it depends on,
row by row, so that an interrupted measurement goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from licquant.allocate.probe import Probe
from licquant.cache import Entry, entry
from licquant.config import MAX_BITS, MIN_BITS
from licquant.errors import DataError
from licquant.evaluate.rd import DISTORTION_WEIGHTS, MSE
from licquant.images import RGB
from licquant.models.graph import Step
from licquant.models.trace import TracedModel
from licquant.quant.calibrate import MULTIPLE, Statistics
from licquant.quant.grids import planned
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.rd import RateDistortion

WEIGHTS, ACTIVATIONS = "weights", "activations"
CROPS, SIDE = 8, 256
# The weights' grids need an input scale, whose width hardly matters.
_ACTIVATION_BITS = 8


@dataclass(frozen=True)
class Change:
    """rate: bits per pixel;  distortion: 255² · MSE, or 1 - MS-SSIM: both as increases over the float model."""

    rate: float
    distortion: float

    def loss(self, lmbda: float) -> float:
        """Its part in the RD loss."""
        return self.rate + lmbda * self.distortion


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """base: rate and distortion of the float model; changes: (layer, "weights" or "activations", bits) → change."""

    layers: tuple[str, ...]
    base: Change
    changes: dict[tuple[str, str, int], Change]

    def zeta(self, layer: str, kind: str, bits: int, lmbda: float) -> float:
        """ζ, the increase of the loss relative to the float model's."""
        return self.changes[layer, kind, bits].loss(lmbda) / self.base.loss(lmbda)

    def widths(self, layer: str, kind: str) -> list[int]:
        """The widths measured for a layer, ascending; none for the weights of an addition."""
        return sorted(bits for name, which, bits in self.changes if (name, which) == (layer, kind))


def draw_crops(images: Sequence[RGB], count: int = CROPS, side: int = SIDE, seed: int = 0) -> Tensor:
    """Random square crops [B, 3, side, side] in [0, 1] of different images as far as there are as many.

    Smaller images give smaller crops, all of one size, a multiple of 64. Raises ``DataError`` if there is none.
    """
    side = min([side, *(min(image.shape[:2]) for image in images)]) // MULTIPLE * MULTIPLE
    if not images or not side:
        raise DataError(f"measuring sensitivity needs images of at least {MULTIPLE}x{MULTIPLE}")
    random = torch.Generator().manual_seed(seed)

    def draw(limit: int) -> int:
        return int(torch.randint(limit, (), generator=random))

    order = torch.randperm(len(images), generator=random).tolist()
    crops = []
    for index in range(count):
        image = images[order[index % len(images)]]
        top, left = draw(image.shape[0] - side + 1), draw(image.shape[1] - side + 1)
        crops.append(torch.from_numpy(image[top : top + side, left : left + side].copy()))
    return torch.stack(crops).permute(0, 3, 1, 2).float() / 255


def measure_sensitivity(
    traced: TracedModel,
    statistics: Statistics,
    crops: Tensor,
    widths: Sequence[int] = tuple(range(MIN_BITS, 9)),
    settings: QuantizerSettings | None = None,
    cache: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """ζ of every layer's weights and activations at every one of ``widths`` on the crops [B, 3, H, W].

    cache: a folder for the table; what is found there for the same model, data and settings is not measured again
    on_progress: called with (measurements done, in all)
    """
    widths = sorted({bits for bits in widths if MIN_BITS <= bits <= MAX_BITS})
    steps = [(part, step) for part, graph in traced.graphs.items() for step in planned(graph)]
    wanted = [
        (part, step, kind, bits)
        for bits in widths
        for part, step in steps
        for kind in ((WEIGHTS, ACTIVATIONS) if step.has_weights else (ACTIVATIONS,))
    ]
    journal = _Journal(entry(cache, "sensitivity", table_key(traced, statistics, crops, settings)))
    missing = [one for one in wanted if (one[1].name, one[2], one[3]) not in journal.changes]

    def insert(weight_bits: int, bits: int) -> QuantizedModel:
        return insert_quantizers(traced, uniform_plan(traced, weight_bits, bits), statistics, settings)

    if missing or journal.base is None:
        probe = Probe(traced, crops)
        journal.set_base(_change(probe.base))
        known = len(wanted) - len(missing)
        _measure(probe, insert, missing, journal, lambda n: on_progress(known + n, len(wanted)))
    assert journal.base is not None
    return Sensitivity(tuple(step.name for _, step in steps), journal.base, journal.changes)


def _measure(
    probe: Probe,
    insert: Callable[[int, int], QuantizedModel],
    missing: Sequence[tuple[str, Step, str, int]],
    journal: _Journal,
    on_progress: Callable[[int], None],
) -> None:
    assert journal.base is not None
    done = 0
    for bits in sorted({bits for *_, bits in missing}):
        of_weights, of_activations = insert(bits, _ACTIVATION_BITS), insert(MAX_BITS, bits)
        for part, step, kind, _ in (one for one in missing if one[3] == bits):
            if kind == WEIGHTS:
                found = probe.with_weights(of_weights, part, step)
            else:
                found = probe.with_activations(of_activations, part, step)
            change = _change(found)
            journal.add(
                (step.name, kind, bits),
                Change(change.rate - journal.base.rate, change.distortion - journal.base.distortion),
            )
            done += 1
            on_progress(done)


def _change(found: RateDistortion) -> Change:
    return Change(float(found.bpp), float(found.distortion) * DISTORTION_WEIGHTS[found.metric])


class _Journal:
    """The table as it grows: a record for the float model, then one for every measurement."""

    def __init__(self, kept: Entry) -> None:
        self.kept = kept
        self.base: Change | None = None
        self.changes: dict[tuple[str, str, int], Change] = {}
        for record in kept.read():
            change = Change(record["rate"], record["distortion"])
            if record["layer"] is None:
                self.base = change
            else:
                self.changes[record["layer"], record["kind"], record["bits"]] = change

    def set_base(self, base: Change) -> None:
        if self.base is None:
            self.base = base
            self.kept.append({"layer": None, **asdict(base)})

    def add(self, key: tuple[str, str, int], change: Change) -> None:
        self.changes[key] = change
        self.kept.append({"layer": key[0], "kind": key[1], "bits": key[2], **asdict(change)})


def table_key(traced: TracedModel, statistics: Statistics, crops: Tensor, settings: QuantizerSettings | None) -> str:
    """SHA-256 (hex) of everything the table depends on, beside the code."""
    chosen = settings or QuantizerSettings()
    ranges = f"{chosen.range_method.__name__} {chosen.per_channel}{' free' if chosen.free_zero_points else ''}"
    digest = hashlib.sha256(ranges.encode())
    for step in traced.layers:
        # What no tensor tells: how the layers are connected, their strides, activation functions and directions.
        inverse = getattr(step.module, "inverse", None)
        digest.update(repr((step.name, step.kind, step.inputs, step.negative_slope, step.factor, inverse)).encode())
        digest.update(repr(step.module).encode())
    if traced.metric != MSE:
        digest.update(traced.metric.encode())
    for name, tensor in sorted(traced.model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().contiguous().cpu().numpy().tobytes())
    for name, found in sorted(statistics.items()):
        digest.update(name.encode() + b"".join(t.numpy().tobytes() for t in (found.low, found.high, found.counts)))
    digest.update(crops.numpy().tobytes())
    return digest.hexdigest()
