"""What an allocation may need to know of a model, each measured when it is first asked for and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from licquant.allocate.choices import Choices
from licquant.allocate.costs import (
    Costs,
    file_bytes_cost,
    run_cost,
    weight_bits_cost,
)
from licquant.allocate.hessian import BATCH, VECTORS, weight_hessian_traces
from licquant.allocate.sensitivity import (
    ACTIVATIONS,
    WEIGHTS,
    Measuring,
    Sensitivity,
    draw_crops,
    everything,
    in_turn,
    measure_sensitivity,
)
from licquant.cache import entry
from licquant.codec.files.artifact import Artifact
from licquant.config import FILE_BUDGETS, MIN_BITS, RUN_BUDGETS, Budget, OnProgress, Plan, silent
from licquant.errors import BudgetError, ModelError
from licquant.images import RGB
from licquant.lower.artifact import header_bytes, lower_to_artifact
from licquant.models.trace import TracedModel
from licquant.quant.after_training.fit import fit
from licquant.quant.calibrate import Statistics
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.rd import evaluate_float, evaluate_quantized
from licquant.quant.settings import Settings

_CHUNK = 4  # crops that are evaluated at once
_JOINT_CROPS = 16
_USUAL_BITS = 8  # everywhere: what relative budgets count from
_WEIGHTS_ALONE = "weights"  # the table of budgets that do not count activations


@dataclass(eq=False)
class Search:
    """One model, its calibration data, and what was found out about them.

    traced, statistics: of ``quant.calibrate``, from the images
    settings:    widths, ranges, λ (None where a method that needs none is used), cache, latency table
    method:      by which a quantized model will be fitted after rounding to nearest
    provenance:  what the final artifact says of its making
    """

    traced: TracedModel
    images: Sequence[RGB]
    statistics: Statistics
    settings: Settings = field(default_factory=Settings)
    method: str = "uniform"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    on_progress: OnProgress = silent
    _tables: dict[str, Sensitivity] = field(default_factory=dict)  # what a budget counts → ζ
    _measured: dict[str, float] = field(default_factory=dict)

    def quantized(self, plan: Plan) -> QuantizedModel:
        """The model with that plan, weights rounded to nearest."""
        return insert_quantizers(self.traced, plan, self.statistics, self.settings.quantizer)

    def lowered(self, quantized: QuantizedModel) -> Artifact:
        """Its artifact, with the header that the final one will have."""
        return lower_to_artifact(quantized, self.provenance, self.settings.licence)

    @property
    def weight_bits(self) -> list[int]:
        """The widths that a layer's weights may get, ascending."""
        return list(range(MIN_BITS, self.settings.max_bits + 1))

    def costs(self, budget: Budget) -> tuple[Costs, float]:
        """What the budget counts, and how much of it there is."""
        if budget.kind in FILE_BUDGETS:
            return self.file_bytes, self.bytes_of(budget)
        if budget.kind == "bits":
            return weight_bits_cost(self.traced), budget.value
        if budget.kind not in RUN_BUDGETS:
            raise BudgetError(f"a budget of {budget.kind} is not a cost")
        costs = run_cost(self.traced, budget.kind, self.settings.latency)
        whole = costs.total(uniform_plan(self.traced, _USUAL_BITS, _USUAL_BITS)) if budget.relative else 1.0
        return costs, budget.value * whole

    def bytes_of(self, budget: Budget) -> float:
        """How many a budget of a file is."""
        return budget.value * self.traced.fp32_bytes if budget.kind == "size" else budget.value

    def rounded_bytes(self, plan: Plan) -> int:
        """Of the file with that plan, weights rounded to nearest: measured."""
        return len(self.lowered(self.quantized(plan)).to_bytes())

    def choices(self, budget: Budget) -> Choices:
        """Every width of the weights; of the activations too where the budget counts them.

        There, of widths that cost the same the widest alone: many take the same time, and it loses least.
        """
        lmbda = self._lmbda  # before anything is measured: there may be none
        widest = self.settings.activation_bits
        if budget.kind not in RUN_BUDGETS:
            return Choices.of(
                self._table(_WEIGHTS_ALONE, {WEIGHTS: self.weight_bits}), lmbda, self.weight_bits, [widest]
            )
        activations = range(MIN_BITS, widest + 1)
        distinct = self.costs(budget)[0].distinct(self.weight_bits, activations)
        table = self._table(
            budget.kind,
            {WEIGHTS: self.weight_bits, ACTIVATIONS: activations},
            lambda layer, kind, bits: bits in getattr(distinct[layer], kind),
        )
        return Choices.of(table, lmbda, self.weight_bits, activations).only(distinct)

    @cached_property
    def crops(self) -> Tensor:
        """What losses are measured on, the same for the whole search: see ``draw_crops``."""
        return draw_crops(self.images)

    @cached_property
    def joint_crops(self) -> Tensor:
        """Others than the table's: a plan may be the best of many because of what its crops happen to be."""
        return draw_crops(self.images, _JOINT_CROPS, seed=1)

    @cached_property
    def _measuring(self) -> Measuring:
        return Measuring(self.traced, self.statistics, self.crops, self.settings.quantizer)

    def _table(
        self, of: str, widths: Mapping[str, Sequence[int]], is_wanted: Callable[[str, str, int], bool] = everything
    ) -> Sensitivity:
        """ζ of every layer at the widths among which there is a choice; measured once, or taken from the cache."""
        if of not in self._tables:
            self._tables[of] = measure_sensitivity(
                self._measuring,
                widths,
                self.settings.cache,
                lambda done, total: self.on_progress("measuring sensitivity", done, total),
                self.settings.spread or in_turn,
                is_wanted,
            )
        return self._tables[of]

    @property
    def measured_table(self) -> Sensitivity | None:
        """The last that something asked for."""
        return next(reversed(self._tables.values()), None)

    @cached_property
    def file_bytes(self) -> Costs:
        """Bytes of the file by layer and width."""
        kept = entry(
            self.settings.cache, "bytes", self._measuring.key, self.settings.max_bits, self.settings.activation_bits
        )
        for record in kept.read():
            table = {name: np.array(row) for name, row in record["table"].items()}
            return Costs("bytes", table, record["constant"] + self._header)
        total = len(self.weight_bits)
        done = iter(range(1, total + 1))
        costs = file_bytes_cost(
            self.traced,
            self.statistics,
            self.lowered,
            self.settings.quantizer,
            self.weight_bits,
            self.settings.activation_bits,
            lambda: self.on_progress("measuring sizes", next(done), total),
        )
        table = {name: row.tolist() for name, row in costs.table.items()}
        kept.write({"constant": costs.constant - self._header, "table": table})
        return costs

    @cached_property
    def traces(self) -> dict[str, float]:
        """The Hessian's trace for every layer's weights."""
        kept = entry(self.settings.cache, "hessian", self._measuring.key, self._lmbda)
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
            quantized = self.quantized(plan)
            self._measured[plan.hash] = self._loss(quantized, self.joint_crops) / self._joint_float_loss - 1
        return self._measured[plan.hash]

    def fitted_loss(self, plan: Plan) -> float:
        """The same with the weights fitted as they will be: to every second image, measured on the others."""
        if not self.settings.reconstruction_steps or len(self.images) < 2:
            return self.joint_loss(plan)
        quantized = self.quantized(plan)
        fit(quantized, self.images[::2], self.method, self.settings, self.on_progress)
        crops = draw_crops(self.images[1::2])
        return self._loss(quantized, crops) / self._float_loss(crops) - 1

    @torch.no_grad()
    def _loss(self, quantized: QuantizedModel, crops: Tensor) -> float:
        return sum(float(evaluate_quantized(quantized, x).loss(self._lmbda)) for x in crops.split(_CHUNK))

    @torch.no_grad()
    def _float_loss(self, crops: Tensor) -> float:
        return sum(float(evaluate_float(self.traced, x).loss(self._lmbda)) for x in crops.split(_CHUNK))

    @cached_property
    def _joint_float_loss(self) -> float:
        return self._float_loss(self.joint_crops)

    @cached_property
    def _header(self) -> int:
        """Bytes of the model's making, which the kept tables leave out."""
        return header_bytes(self.provenance, self.settings.licence)

    @property
    def _lmbda(self) -> float:
        if self.settings.lmbda is None:
            raise ModelError("this method needs the λ that the model was trained with: give --lmbda or a model card")
        return self.settings.lmbda
