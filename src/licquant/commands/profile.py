"""``licquant profile``: the latency table of this machine, measured, checked on mixed plans, and shown."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.table import Table

from licquant import pipeline
from licquant.codec.codec import load
from licquant.commands.base import Report
from licquant.commands.toolkit import progress
from licquant.config import Plan
from licquant.errors import LicquantError
from licquant.evaluate import latency, layer_timing, provenance
from licquant.evaluate.latency import NARROW, OPENVINO, WIDE, LatencyTable, LayerTimes
from licquant.images import RGB, check_places
from licquant.lower import lower_model
from licquant.models.geometry import geometry_hash
from licquant.models.shards import checkpoint_sha256
from licquant.models.trace import TracedModel, trace_model
from licquant.program.part import Program
from licquant.quant.calibrate import collect_statistics
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import uniform_plan
from licquant.quant.synthetic import dead_leaves
from licquant.terminal import say, show_table
from licquant.train.card import load_checkpoint, name_of

REPEATS = 9
CHECK_PLANS = 4  # random mixed plans that the table must predict
TOLERANCE = 0.15  # of the measured time; the command says so where it is exceeded
# Times depend on shapes and widths, not on values: any image will do.
_IMAGES, _IMAGE_SIDE = 2, 128
_CHECKED_WIDTHS = range(6, 13)  # of the whole codec: some bytes, some not, some as wide in sum as two bytes
_SMALLEST, _LARGEST = 64, 8192


@dataclass(frozen=True)
class ProfileOptions:
    """The options of ``licquant profile``, in the order of its help."""

    model: str | None
    checkpoint: Path
    output: Path
    size: str
    threads: int | None
    model_args: Mapping[str, Any] | None = None


def run(options: ProfileOptions) -> Report:
    """Everything that can be wrong with the options is found before the long work begins."""
    size = parse_size(options.size)
    check_places(options.output)
    name = name_of(options.checkpoint, options.model)
    model = load_checkpoint(options.checkpoint, name, options.model_args)
    with progress() as on_progress:
        profiler = _Profiler(trace_model(model), size, options.threads, on_progress)
        facts = provenance.collect(
            threads=options.threads,
            model=name,
            checkpoint=checkpoint_sha256(options.checkpoint),
            repeats=REPEATS,
        )
        table = profiler.measure(facts)
    table.save(options.output)
    return Report({"output": str(options.output), **table.to_json()}, lambda: _show(table, options.output))


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) from "768x512"; each 64 to 8192."""
    found = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text.strip())
    sides = tuple(int(n) for n in found.groups()) if found else ()
    if len(sides) != 2 or not all(_SMALLEST <= n <= _LARGEST for n in sides):
        raise LicquantError(f"the size {text!r}: write for instance 768x512, sides from {_SMALLEST} to {_LARGEST}")
    return sides[0], sides[1]


class _Profiler:
    """One model, one image size."""

    def __init__(
        self, traced: TracedModel, size: tuple[int, int], threads: int | None, on_progress: pipeline.OnProgress
    ) -> None:
        self.traced, self.size, self.threads, self.on_progress = traced, size, threads, on_progress
        self.statistics = collect_statistics(traced, dead_leaves(_IMAGES, _IMAGE_SIDE))
        self.plan = uniform_plan(traced, NARROW, NARROW)

    def program_of(self, plan: Plan) -> Program:
        return lower_model(insert_quantizers(self.traced, plan, self.statistics))

    def measure(self, facts: Mapping[str, Any]) -> LatencyTable:
        layers, outside_free, others = self._layers()
        predicted = _total(layers, self.plan) + outside_free + others
        coder = max(self._whole_codec(self.plan) - predicted, 0.0)
        rest = outside_free + others + coder
        return LatencyTable(
            layers={name: layers[name] for name in self.plan},
            rest_ms=rest,
            size=self.size,
            threads=self.threads,
            geometry=geometry_hash(self.traced),
            machine=latency.machine(),
            check=self._check(layers, outside_free, rest),
            provenance=facts,
        )

    def _layers(self) -> tuple[dict[str, LayerTimes], float, float]:
        """(layer → times, ms outside of kernels in the free zone, ms of operations that no plan names)."""
        free = layer_timing.lower_all(self.program_of, self.plan, layer_timing.CLASSES)
        exact = layer_timing.lower_all(self.program_of, self.plan, layer_timing.EXACT_CLASSES)
        narrow = free[NARROW, NARROW]
        sizes = layer_timing.input_sizes(narrow, self.size)
        layers: dict[str, LayerTimes] = {}
        outside = others = 0.0
        for name in narrow:
            count = len(free) + REPEATS if name in layer_timing.FREE else len(exact)
            on_step = self._counter(f"timing {name}", count)
            if name in layer_timing.FREE:
                parts = {widths: program[name] for widths, program in free.items()}
                times, ms = layer_timing.time_free_part(parts, sizes[name], self.threads, REPEATS, on_step)
                outside += ms
            else:
                parts = {widths: program[name] for widths, program in exact.items()}
                times = layer_timing.time_exact_part(parts, sizes[name], REPEATS, on_step)
            planned, rest = layer_timing.layer_times(name, times, self.plan)
            layers |= planned
            others += rest
        return layers, outside, others

    def _check(self, layers: Mapping[str, LayerTimes], outside: float, rest: float) -> dict[str, Any]:
        """Random mixed plans: the free zone's time of an encode and a decode, and of one all of it, both as predicted
        and as measured.
        """
        rng = np.random.default_rng(0)

        def mixed(widths: Sequence[int]) -> Plan:
            return layer_timing.with_widths(self.plan, lambda _: tuple(rng.choice(widths, 2).tolist()))

        plans = [self.plan, *(mixed([NARROW, WIDE]) for _ in range(CHECK_PLANS))]
        parts = sum(name in layer_timing.FREE for name in self.traced.graphs)
        on_step = self._counter("checking mixed plans", parts * (REPEATS + 1))
        programs = [self.program_of(plan) for plan in plans]
        measured = layer_timing.time_plans(programs, self.size, self.threads, REPEATS, on_step)
        free = {name: times for name, times in layers.items() if times.engine == OPENVINO}
        predicted = [outside + _total(free, plan) for plan in plans]
        # The uniform plan ran in turn with the others: it tells how much faster or slower the machine is by now.
        drift = measured[0] / predicted[0]
        errors = [p * drift / m - 1 for p, m in zip(predicted[1:], measured[1:], strict=True)]
        plan = mixed(_CHECKED_WIDTHS)
        whole = {"predicted_ms": _total(layers, plan) + rest, "measured_ms": self._whole_codec(plan)}
        whole["relative_error"] = whole["predicted_ms"] * drift / whole["measured_ms"] - 1
        return {
            "whole": whole,
            "predicted_ms": predicted,
            "measured_ms": measured,
            "drift": drift,
            "relative_errors": errors,
            "tolerance": TOLERANCE,
            "within": max(map(abs, [*errors, whole["relative_error"]])) <= TOLERANCE,
        }

    def _whole_codec(self, plan: Plan) -> float:
        """Median ms of an encode and a decode, array to bytes to array."""
        on_step = self._counter("timing the codec", REPEATS)
        settings = pipeline.Settings(plan=plan)
        images = dead_leaves(_IMAGES, _IMAGE_SIDE)
        artifact = pipeline.quantize(self.traced.model, images, settings=settings).artifact
        with tempfile.TemporaryDirectory() as folder:
            artifact.save(Path(folder) / "model.licq")
            codec = load(Path(folder) / "model.licq", threads=self.threads)
        image = _photograph(self.size)
        codec.decode(codec.encode(image))
        return 1000 * median(_timed(lambda: codec.decode(codec.encode(image)), on_step) for _ in range(REPEATS))

    def _counter(self, what: str, total: int) -> Callable[[], None]:
        done: Iterator[int] = iter(range(1, total + 1))
        self.on_progress(what, 0, total)
        return lambda: self.on_progress(what, next(done, total), total)


def _total(layers: Mapping[str, LayerTimes], plan: Plan) -> float:
    """ms of these layers at the plan's widths."""
    return sum(times.at(plan[name].weight, plan[name].activation) for name, times in layers.items())


def _photograph(size: tuple[int, int]) -> RGB:
    """uint8 height×width×3, drawn once and repeated."""
    tile = dead_leaves(1, 256)[0]
    down, across = -(-size[1] // 256), -(-size[0] // 256)
    return np.ascontiguousarray(np.tile(tile, (down, across, 1))[: size[1], : size[0]])


def _timed(call: Callable[[], object], on_step: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    on_step()
    return seconds


# --- for people ---------------------------------------------------------------------------------------------


def _show(table: LatencyTable, output: Path) -> None:
    width, height = table.size
    show_table(_table(table), least=120)
    check = table.check
    pairs = zip(check["predicted_ms"][1:], check["measured_ms"][1:], check["relative_errors"], strict=True)
    found = ", ".join(f"{p:.0f} for {m:.0f} ms ({100 * e:+.1f} %)" for p, m, e in pairs)
    whole, error = check["whole"], check["whole"]["relative_error"]
    codec = f"{whole['predicted_ms']:.0f} for {whole['measured_ms']:.0f} ms ({100 * error:+.1f} %)"
    verdict = "within" if check["within"] else "NOT within: is the machine busy?"
    say(
        f"encode and decode of {width}×{height} with everything at {NARROW} bits: "
        f"{sum(t.at(NARROW, NARROW) for t in table.layers.values()) + table.rest_ms:.1f} ms, "
        f"of which {table.rest_ms:.1f} ms are not layers\n"
        f"mixed plans, predicted for measured times: of the free zone {found}; of an encode and a decode {codec}; "
        f"{verdict} {100 * check['tolerance']:.0f} %, "
        f"the machine's drift since the table ({check['drift']:.2f} ×) taken out\n"
        f"{output}: use it with --budget latency=MILLISECONDS or latency=110% (of everything at 8 bits)",
    )


def _table(table: LatencyTable) -> Table:
    """One row a layer: ms at each class of widths; in the exact zone those that differ most."""
    machine = table.machine
    threads = "" if table.threads is None else f", {table.threads} threads"
    shown = Table(
        title=f"ms in one encode and one decode, {table.size[0]}×{table.size[1]}, {machine['cpu']}, "
        f"{machine['cores']} cores{threads}, OpenVINO {machine['openvino']}",
        title_justify="left",
    )
    shown.add_column("layer", no_wrap=True)
    shown.add_column("engine")
    for heading in ("≤ 8 bits", "weights > 8", "activations > 8", "both > 8"):
        shown.add_column(heading, justify="right")
    for name, times in table.layers.items():
        cells = [times.at(w, a) for w, a in ((NARROW, NARROW), (WIDE, NARROW), (NARROW, WIDE), (WIDE, WIDE))]
        shown.add_row(name, times.engine, *(f"{ms:.2f}" for ms in cells))
    return shown
