"""What an allocation may need to know of a model, each measured when it is first asked for and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from licquant.allocate.choices import Choices
from licquant.allocate.costs import (
    Costs,
    ToArtifact,
    bops_cost,
    file_bytes_cost,
    latency_cost,
    weight_bits_cost,
)
from licquant.allocate.hessian import BATCH, VECTORS, weight_hessian_traces
from licquant.allocate.sensitivity import Sensitivity, draw_crops, measure_sensitivity, table_key
from licquant.cache import entry
from licquant.config import FILE_BUDGETS, MIN_BITS, Budget, LayerBits, Plan, check_lmbda
from licquant.errors import BudgetError, ModelError
from licquant.evaluate.latency import LatencyTable
from licquant.images import RGB
from licquant.models.trace import TracedModel
from licquant.quant.calibrate import Statistics
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import QuantizedModel
from licquant.quant.rd import evaluate_float, evaluate_quantized

_CHUNK = 4  # crops that are evaluated at once
_JOINT_CROPS = 16

Fit = Callable[[QuantizedModel, Sequence[RGB]], None]


@dataclass(eq=False)
class Search:
    """One model, its calibration data, and what was found out about them.

    lmbda:           of the loss; None where a method that needs none is used
    activation_bits: width of the activations, the widest one where the budget makes narrower ones worth while
    max_bits:        widest weights that are considered
    to_artifact:     what will make the final artifact of a quantized model
    cache:           folder for what takes long to measure; None keeps nothing
    latency:         the measured table that ``latency=`` budgets are counted with
    header_bytes:    of what ``to_artifact`` writes of the model's making, which the kept tables leave out
    fit:             what will fit a quantized model in place to images after rounding it to nearest; None fits nothing
    """

    traced: TracedModel
    images: Sequence[RGB]
    statistics: Statistics
    settings: QuantizerSettings
    lmbda: float | None
    activation_bits: int
    max_bits: int
    to_artifact: ToArtifact
    cache: Path | None = None
    latency: LatencyTable | None = None
    fit: Fit | None = None
    on_progress: Callable[[str, int, int], None] = lambda *_: None
    header_bytes: int = 0
    _measured: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """``PlanError`` for widths, ``ModelError`` for a λ that cannot be."""
        LayerBits(self.max_bits, self.activation_bits)
        if self.lmbda is not None:
            check_lmbda(self.lmbda)

    @property
    def weight_bits(self) -> list[int]:
        return list(range(MIN_BITS, self.max_bits + 1))

    def costs(self, budget: Budget) -> tuple[Costs, float]:
        """What the budget counts, and how much of it there is."""
        if budget.kind in FILE_BUDGETS:
            return self.file_bytes, self.bytes_of(budget)
        if budget.kind == "bits":
            return weight_bits_cost(self.traced), budget.value
        if budget.kind == "bops":
            return bops_cost(self.traced), budget.value
        if budget.kind != "latency":
            raise BudgetError(f"a budget of {budget.kind} is not a cost")
        if self.latency is None:
            raise BudgetError("the budget latency needs a table of this machine: make one with licquant profile")
        return latency_cost(self.traced, self.latency), budget.value

    def bytes_of(self, budget: Budget) -> float:
        """How many a budget of a file is."""
        return budget.value * self.traced.fp32_bytes if budget.kind == "size" else budget.value

    def rounded_bytes(self, plan: Plan) -> int:
        """Of the file with that plan, weights rounded to nearest: measured."""
        return len(self.to_artifact(insert_quantizers(self.traced, plan, self.statistics, self.settings)).to_bytes())

    def choices(self, budget: Budget) -> Choices:
        """Every width of the weights; of the activations too where the budget counts them."""
        counted = budget.kind in ("bops", "latency")
        activations = range(MIN_BITS, self.activation_bits + 1) if counted else [self.activation_bits]
        return Choices.of(self.table, self._lmbda, self.weight_bits, activations)

    @cached_property
    def crops(self) -> Tensor:
        return draw_crops(self.images)

    @cached_property
    def joint_crops(self) -> Tensor:
        """Others than the table's: a plan may be the best of many because of what its crops happen to be."""
        return draw_crops(self.images, _JOINT_CROPS, seed=1)

    @cached_property
    def table(self) -> Sensitivity:
        widths = range(MIN_BITS, max(self.max_bits, self.activation_bits) + 1)
        return measure_sensitivity(
            self.traced,
            self.statistics,
            self.crops,
            list(widths),
            self.settings,
            self.cache,
            lambda done, total: self.on_progress("measuring sensitivity", done, total),
        )

    @property
    def measured_table(self) -> Sensitivity | None:
        """The table if something asked for it."""
        return vars(self).get("table")

    @cached_property
    def file_bytes(self) -> Costs:
        """Bytes of the file by layer and width."""
        kept = entry(self.cache, "bytes", self._key, self.max_bits, self.activation_bits)
        for record in kept.read():
            table = {name: np.array(row) for name, row in record["table"].items()}
            return Costs("bytes", table, record["constant"] + self.header_bytes)
        total = len(self.weight_bits)
        done = iter(range(1, total + 1))
        costs = file_bytes_cost(
            self.traced,
            self.statistics,
            self.to_artifact,
            self.settings,
            self.weight_bits,
            self.activation_bits,
            lambda: self.on_progress("measuring sizes", next(done), total),
        )
        table = {name: row.tolist() for name, row in costs.table.items()}
        kept.write({"constant": costs.constant - self.header_bytes, "table": table})
        return costs

    @cached_property
    def traces(self) -> dict[str, float]:
        """The Hessian's trace for every layer's weights."""
        kept = entry(self.cache, "hessian", self._key, self._lmbda)
        for record in kept.read():
            return dict(record)
        count = -(-len(self.crops) // BATCH) * VECTORS
        traces = weight_hessian_traces(
            self.traced,
            self.crops,
            self._lmbda,
            on_step=lambda done: self.on_progress("measuring curvature", done, count),
        )
        kept.write(traces)
        return traces

    def joint_loss(self, plan: Plan) -> float:
        """The measured relative increase of the loss with the whole plan, weights rounded to nearest."""
        if plan.hash not in self._measured:
            quantized = insert_quantizers(self.traced, plan, self.statistics, self.settings)
            self._measured[plan.hash] = self._increase(quantized, self.joint_crops)
        return self._measured[plan.hash]

    def fitted_loss(self, plan: Plan) -> float:
        """The same with the weights fitted as they will be: to every second image, measured on the others."""
        if self.fit is None or len(self.images) < 2:
            return self.joint_loss(plan)
        quantized = insert_quantizers(self.traced, plan, self.statistics, self.settings)
        self.fit(quantized, self.images[::2])
        return self._increase(quantized, draw_crops(self.images[1::2]))

    def _increase(self, quantized: QuantizedModel, crops: Tensor) -> float:
        with torch.no_grad():
            batches = crops.split(_CHUNK)
            loss = sum(float(evaluate_quantized(quantized, x).loss(self._lmbda)) for x in batches)
            return loss / sum(float(evaluate_float(self.traced, x).loss(self._lmbda)) for x in batches) - 1

    @cached_property
    def _key(self) -> str:
        return table_key(self.traced, self.statistics, self.crops, self.settings)

    @property
    def _lmbda(self) -> float:
        if self.lmbda is None:
            raise ModelError("this method needs the λ that the model was trained with: give --lmbda or a model card")
        return self.lmbda
