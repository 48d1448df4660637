"""The sensitivity table: what quantizing one layer alone costs, at every width (FMPQ, arXiv 2506.01221).

    ζ_n(b) = (J_n(b) - J_fp32) / J_fp32          J_n(b): only layer n at b bits, everything else float

Weights and activations are measured apart, and rate and distortion are kept apart, so that one table serves any λ.
Measuring takes a minute for a scale hyperprior, and only what an allocation may choose is measured. The table is kept
on disk (``licquant.cache``) under the hash of everything it depends on, row by row, so that an interrupted measurement
goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from licquant.allocate.probe import Probe
from licquant.cache import Entry, entry
from licquant.config import MAX_BITS, MIN_BITS
from licquant.errors import DataError
from licquant.evaluate.rd import DISTORTION_WEIGHTS, MSE
from licquant.images import RGB
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
        """The widths measured for a layer, ascending; none for the weights of a product."""
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


@dataclass(frozen=True)
class Wanted:
    """One measurement: the weights or the activations of a layer at a width."""

    part: str
    layer: str
    kind: str
    bits: int

    @property
    def key(self) -> tuple[str, str, int]:
        """By which a table has it."""
        return self.layer, self.kind, self.bits


@dataclass(eq=False)
class Measuring:
    """A float model, what it was calibrated with, and the crops [B, 3, H, W] on which a layer at a width is measured.

    Sent to another process without what is computed from these.
    """

    traced: TracedModel
    statistics: Statistics
    crops: Tensor
    settings: QuantizerSettings | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def key(self) -> str:
        """The table's: ``table_key`` of all four."""
        return table_key(self.traced, self.statistics, self.crops, self.settings)

    @cached_property
    def probe(self) -> Probe:
        """With all tensors of the float model."""
        return Probe(self.traced, self.crops)

    @property
    def base(self) -> Change:
        """The float model's rate and distortion."""
        return _change(self.probe.base)

    def __call__(self, wanted: Wanted) -> Change:
        """Rate and distortion with nothing else quantized."""
        step = next(step for step in self.traced.graphs[wanted.part] if step.name == wanted.layer)
        if wanted.kind == WEIGHTS:
            found = self.probe.with_weights(self._inserted(wanted.bits, _ACTIVATION_BITS), wanted.part, step)
        else:
            found = self.probe.with_activations(self._inserted(MAX_BITS, wanted.bits), wanted.part, step)
        return _change(found)

    @cached_property
    def _inserted(self) -> Callable[[int, int], QuantizedModel]:
        """The model with these widths of weights and activations everywhere; the two of one width are kept."""

        def insert(weight_bits: int, bits: int) -> QuantizedModel:
            plan = uniform_plan(self.traced, weight_bits, bits)
            return insert_quantizers(self.traced, plan, self.statistics, self.settings)

        return lru_cache(maxsize=2)(insert)


Spread = Callable[[Measuring, Sequence[Wanted]], Iterable[tuple[Wanted, Change]]]


def in_turn(measuring: Measuring, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, Change]]:
    """Everything that is wanted, measured here."""
    for one in wanted:
        yield one, measuring(one)


def everything(layer: str, kind: str, bits: int) -> bool:
    """Whether a width of a layer is wanted: all are."""
    return True


def measure_sensitivity(
    measuring: Measuring,
    widths: Mapping[str, Iterable[int]],
    cache: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    spread: Spread = in_turn,
    is_wanted: Callable[[str, str, int], bool] = everything,
) -> Sensitivity:
    """ζ of every layer's weights and activations.

    measuring:   of which model, on what
    widths:      "weights" and "activations" → those at which they are measured
    cache:       a folder for the table; what is found there for the same model, data and settings is not measured again
    on_progress: called with (measurements done, in all)
    spread:      who measures
    """
    asked = {kind: {b for b in widths.get(kind, ()) if MIN_BITS <= b <= MAX_BITS} for kind in (WEIGHTS, ACTIVATIONS)}
    steps = [(part, step) for part, graph in measuring.traced.graphs.items() for step in planned(graph)]
    wanted = [
        Wanted(part, step.name, kind, bits)
        for bits in sorted(set().union(*asked.values()))
        for part, step in steps
        for kind in ((WEIGHTS, ACTIVATIONS) if step.has_weights else (ACTIVATIONS,))
        if bits in asked[kind] and is_wanted(step.name, kind, bits)
    ]
    journal = _Journal(entry(cache, "sensitivity", measuring.key))
    missing = [one for one in wanted if one.key not in journal.changes]
    if missing or journal.base is None:
        known = len(wanted) - len(missing)
        base = journal.base_or(measuring.base)
        for done, (one, found) in enumerate(spread(measuring, missing), start=1):
            journal.add(one.key, Change(found.rate - base.rate, found.distortion - base.distortion))
            on_progress(known + done, len(wanted))
    assert journal.base is not None
    return Sensitivity(tuple(step.name for _, step in steps), journal.base, journal.changes)


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

    def base_or(self, base: Change) -> Change:
        """What is kept of the float model, else this, which is kept then."""
        if self.base is None:
            self.base = base
            self.kept.append({"layer": None, **asdict(base)})
        return self.base

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
