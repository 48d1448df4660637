"""How fast each layer of g_a and g_s runs, and the whole of them, against the fastest that INT8 kernels do here.

    python -m benchmarks.layer_speed --model model.licq [--width 768 --height 512] -o DIR

The peak is a convolution that suits the kernels best: 256 channels in and out, 3×3, in the same engine. The same one
with wider factors: of 9 to 14 bits they are two INT8 products, where both are so wide float32.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import licquant
from licquant.evaluate import provenance
from licquant.evaluate.bops import macs_per_pixel
from licquant.evaluate.latency import NARROW
from licquant.evaluate.layer_timing import input_sizes, time_free_part
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Rescaling
from licquant.program.part import INPUT, Part
from licquant.reports import report

_CHANNELS, _SIDE = 256, 64  # of the layer that stands for the peak
_CLASS = (NARROW, NARROW)


def best(bits: int, weight_bits: int, threads: int, repeats: int) -> float:
    """Multiply-accumulates a second (10⁹) of the layer that suits the kernels best, at these widths."""
    rng, top = np.random.default_rng(0), (1 << (weight_bits - 1)) - 1
    weight = rng.integers(-top, top + 1, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.int32)
    read, out = (Grid(b, np.ones(_CHANNELS), np.full(_CHANNELS, 1 << (b - 1), dtype=np.int64)) for b in (bits, 8))
    rescaling, bias = Rescaling.of_ratio(np.full(_CHANNELS, 1e-4)), np.zeros(_CHANNELS, dtype=np.int64)
    part = Part("best", read, (Convolution("best", (INPUT,), out, weight, weight_bits, bias, 1, 1, 1, rescaling),))
    times, _ = time_free_part({_CLASS: part}, (_SIDE, _SIDE), threads, repeats)
    return weight.size * _SIDE**2 / times["best"][_CLASS] / 1e6


def main(
    model: Annotated[Path, typer.Option(help="A .licq file of a scale hyperprior.")],
    width: int = 768,
    height: int = 512,
    threads: int = 2,
    repeats: int = 15,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Milliseconds, MACs a second and the share of the peak: medians over the runs, by OpenVINO's own counters."""
    program = licquant.load(model).artifact.program
    macs, sizes = macs_per_pixel(program), input_sizes(program, (width, height))
    speeds = {f"{a} × {w} bits": best(a, w, threads, repeats) for a, w in ((8, 8), (10, 8), (8, 10), (10, 10))}
    peak = speeds["8 × 8 bits"]
    Console().print("values × weights:", ", ".join(f"{name} {speed:.0f} GMAC/s" for name, speed in speeds.items()))
    table = Table(title=f"{width}×{height}, {threads} threads; peak {peak:,.0f} GMAC/s", title_justify="left")
    for heading in ("layer", "kind", "10⁹ MACs", "ms", "GMAC/s", "of the peak"):
        table.add_column(heading, justify="left" if heading in ("layer", "kind") else "right")
    found = []
    for name in ("g_a", "g_s"):
        times, outside = time_free_part({_CLASS: program[name]}, sizes[name], threads, repeats)
        kinds = {op.name: type(op).__name__ for op in program[name].operations}
        rows = [(n, kinds[n], macs[n] * width * height / 1e9, ms[_CLASS]) for n, ms in times.items() if macs[n]]
        whole = sum(ms[_CLASS] for ms in times.values()) + outside
        rows.append((f"{name}, whole", "", sum(row[2] for row in rows), whole))
        for layer, kind, giga, ms in rows:
            speed = 1e3 * giga / ms
            table.add_row(layer, kind, f"{giga:.2f}", f"{ms:.1f}", f"{speed:.0f}", f"{100 * speed / peak:.0f} %")
            found.append({"layer": layer, "kind": kind, "macs": giga * 1e9, "ms": ms, "gmacs_per_second": speed})
    Console().print(table)
    output.mkdir(parents=True, exist_ok=True)
    facts = provenance.collect(threads=threads, model=model.name)
    record = {"schema": "licquant-layer-speed/1", "best_gmacs_per_second": speeds, "layers": found, "provenance": facts}
    report.write_json(output / "layer-speed.json", record)


if __name__ == "__main__":
    typer.run(main)
