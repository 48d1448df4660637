"""Measuring a latency table: every layer at every class of widths, from runs of whole parts.

Free zone: each part is compiled at four uniform plans (weights and activations narrow or wide) that run in turn;
OpenVINO's own counters give the time of every kernel. What runs between two layers (a change of type, a division,
a layout) counts to the later one, whose width decides its form. Differences of whole parts' times, one layer
changed at a time, would need no counters, but a small layer is lost in the noise of its part.

Exact zone: each layer alone, in bytes and at growing sums of both widths; those of context models on the whole latent.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np

from licquant.config import LayerBits, Plan
from licquant.errors import LoweringError
from licquant.evaluate.latency import EXACT, NARROW, OPENVINO, WIDE, LayerTimes
from licquant.program import openvino_engine, openvino_graph
from licquant.program.arithmetic import FIXED_POINT_BITS, Ints
from licquant.program.exact import ExactEngine
from licquant.program.lean_openvino import ov
from licquant.program.ops import Operation
from licquant.program.part import INPUT, Part, Program

FREE = ("g_a", "h_a", "g_s")
CLASSES = [(w, a) for w in (NARROW, WIDE) for a in (NARROW, WIDE)]
# Bytes in the exact zone, for which there may be INT8 kernels, then sums of both widths: float32 products are enough up
# to 16 bits, usually beyond.
EXACT_CLASSES = [(NARROW, NARROW), (7, 9), (8, 9), *((b, b) for b in range(9, 17))]
_TYPICAL = 4.0  # latents are of this order

ProgramOf = Callable[[Plan], Program]
OnStep = Callable[[], None]


def with_widths(plan: Plan, widths: Callable[[str], tuple[int, int]]) -> Plan:
    """The plan with other widths for every layer; products keep having no weights."""
    return Plan(
        {
            name: LayerBits(None if bits.weight is None else widths(name)[0], widths(name)[1])
            for name, bits in plan.items()
        }
    )


def time_free_part(
    parts: Mapping[tuple[int, int], Part],
    size: tuple[int, int],
    threads: int | None,
    repeats: int,
    on_step: OnStep = lambda: None,
) -> tuple[dict[str, dict[tuple[int, int], float]], float]:
    """(layer → class → ms, ms outside of all kernels) of one part, compiled at each class of widths.

    size: (height, width) of the part's input
    """
    engines = {widths: _CountingEngine(part, threads) for widths, part in parts.items()}
    inputs = {widths: random_input(part, size) for widths, part in parts.items()}
    samples: dict[tuple[int, int], dict[str, list[float]]] = {w: defaultdict(list) for w in parts}
    outside = []
    for widths, engine in engines.items():
        engine.timed_run(inputs[widths])  # the first run is slower, and not kept
        on_step()
    for repeat in range(repeats):
        for widths in sorted(engines, reverse=repeat % 2 == 0):
            wall, kernels = engines[widths].timed_run(inputs[widths])
            for layer, ms in kernels.items():
                samples[widths][layer].append(ms)
            if widths == (NARROW, NARROW):
                outside.append(wall - sum(kernels.values()))
        on_step()
    layers = [op.name for op in parts[NARROW, NARROW].operations]
    times = {layer: {w: median(samples[w].get(layer) or [0.0]) for w in parts} for layer in layers}
    return times, median(outside)


def time_exact_part(
    parts: Mapping[tuple[int, int], Part], size: tuple[int, int], repeats: int, on_step: OnStep = lambda: None
) -> dict[str, dict[tuple[int, int], float]]:
    """Layer → widths → ms, for growing widths; a layer is never faster than at smaller ones, which is only noise."""
    times: dict[str, dict[tuple[int, int], float]] = defaultdict(dict)
    for widths in sorted(parts, key=sum):
        sizes = {INPUT: size}
        for op in parts[widths].operations:
            entering = sizes[op.inputs[0]]
            sizes[op.name] = op.output_size(entering)
            alone = _alone(parts[widths], op)
            engine, x = ExactEngine(alone), random_input(alone, entering)
            engine.run(x)
            ms = 1000 * median(_seconds(engine, x) for _ in range(repeats))
            times[op.name][widths] = max([ms, *times[op.name].values()])
        on_step()
    return dict(times)


def layer_times(
    name: str, times: Mapping[str, Mapping[tuple[int, int], float]], plan: Plan
) -> tuple[dict[str, LayerTimes], float]:
    """(the planned layers' times, ms of the part's other operations at the narrowest widths)."""
    engine, runs = (OPENVINO, 1) if name in FREE else (EXACT, 2)  # of the exact zone both sides need everything
    layers = {layer: LayerTimes(engine, runs, dict(ms)) for layer, ms in times.items() if layer in plan.layers}
    others = sum(ms[min(ms, key=sum)] for layer, ms in times.items() if layer not in plan.layers)
    return layers, runs * others


def input_sizes(program: Program, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Part → (height, width) of its input, for an image of (width, height).

    That of a context model is the whole latent. Its runs go from group to group or along anti-diagonals: what these
    take beyond the products is not told apart by layers, and belongs to the rest of encode and decode.
    """
    image = (size[1], size[0])
    latent = program["g_a"].output_size(image)
    sizes = {"g_a": image}
    if "h_a" in program:
        sizes["h_s"] = program["h_a"].output_size(latent)
    return {name: sizes.get(name, latent) for name in program}


def time_plans(
    programs: Sequence[Program], size: tuple[int, int], threads: int | None, repeats: int, on_step: OnStep
) -> list[float]:
    """Measured ms of the free zone of one encode and one decode with each program, all run in turn."""
    sizes = input_sizes(programs[0], size)
    total = [0.0] * len(programs)
    for name in (name for name in FREE if name in sizes):
        engines = [openvino_engine.OpenVinoEngine(program[name], threads) for program in programs]
        inputs = [random_input(program[name], sizes[name]) for program in programs]
        samples: list[list[float]] = [[] for _ in programs]
        for repeat in range(-1, repeats):  # -1: the warm-up, not kept
            for index, (engine, x) in enumerate(zip(engines, inputs, strict=True)):
                seconds = _seconds(engine, x)
                if repeat >= 0:
                    samples[index].append(1000 * seconds)
            on_step()
        total = [sum_ms + median(found) for sum_ms, found in zip(total, samples, strict=True)]
    return total


def lower_all(program_of: ProgramOf, plan: Plan, classes: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Program]:
    """The program at each uniform class; the widest may have no program, for want of accumulator bits."""
    programs = {}
    for widths in classes:
        try:
            programs[widths] = program_of(with_widths(plan, lambda _, found=widths: found))  # type: ignore[misc]
        except LoweringError:
            if widths == (NARROW, NARROW):
                raise
    return programs


def random_input(part: Part, size: tuple[int, int]) -> Ints:
    """Stored integers [C, *size]: times do not depend on them."""
    rng = np.random.default_rng(0)
    low, high = part.input_grid.range
    if part.input_grid.bits == FIXED_POINT_BITS:
        high = round(_TYPICAL / part.input_grid.scale[0])
        low = -high
    values = rng.integers(low, high + 1, (part.input_grid.channels, *size))
    return values.astype(np.uint8 if part.input_grid.bits <= 8 else np.int32)


class _CountingEngine(openvino_engine.OpenVinoEngine):
    """The engine as it is, compiled to count the time of every kernel."""

    def __init__(self, part: Part, threads: int | None) -> None:
        super().__init__(part, threads)
        self._runs = 0
        self._totals: list[float] = []

    def timed_run(self, x: Ints) -> tuple[float, dict[str, float]]:
        """(ms of the whole run, layer → ms of its kernels); every kernel is counted to some layer."""
        whole = 1000 * _seconds(self, x)
        kernels = self._request().get_profiling_info()
        self._runs += 1
        # OpenVINO gives the mean over all runs so far.
        totals = [1000 * kernel.real_time.total_seconds() * self._runs for kernel in kernels]
        before, self._totals = self._totals or [0.0] * len(totals), totals
        layers = [op.name for op in self.part.operations]
        found: dict[str, float] = defaultdict(float)
        pending, last = 0.0, layers[-1]
        for kernel, now, past in zip(kernels, totals, before, strict=True):
            pending += now - past
            owner = self._owner.get(kernel.node_name)
            if owner is not None:
                found[owner] += pending
                pending, last = 0.0, owner
        found[last] += pending
        return whole, dict(found)

    @cached_property
    def _owner(self) -> dict[str, str]:
        """Kernel → the layer whose accumulator it computes."""
        layers = {op.name for op in self.part.operations}
        found: dict[str, str] = {}
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            names = str(node.get_rt_info()["originalLayersNames"].astype(str)).split(",")
            owners = [n.removesuffix(openvino_graph.RESULT) for n in names]
            found |= {node.get_friendly_name(): owner for owner in owners if owner in layers}
        return found

    @cached_property
    def _compiled(self) -> ov.CompiledModel:
        core = openvino_engine._core()
        core.set_property("CPU", {"PERF_COUNT": True})
        try:
            return super()._compiled
        finally:
            core.set_property("CPU", {"PERF_COUNT": False})


def _alone(part: Part, op: Operation) -> Part:
    """A part of this one operation."""
    return Part(op.name, part.input_grids(op)[0], (replace(op, inputs=(INPUT,) * len(op.inputs)),))


def _seconds(engine: Any, x: Ints) -> float:
    start = time.perf_counter()
    engine.run(x)
    return time.perf_counter() - start
