"""Time of the latent coding alone, stage by stage, for the families' real sizes with random integer weights.

y is drawn from the distributions that the random model predicts, so that the number of coding tables in use, and
of escapes, is that of a trained model with as wide a spread of σ. A Kodak image has 8×12 elements of z.

OPENBLAS_NUM_THREADS=2 python -m benchmarks.context -o DIR
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from licquant.codec.latents import families
from licquant.codec.latents.families import latent_coder
from licquant.codec.latents.gaussian import LatentReader, LatentWriter
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.evaluate import provenance
from licquant.program.arithmetic import Ints
from licquant.reports import report
from tests.latent_programs import random_latents, random_program, random_tables

# name → (family, N, M, groups)
SIZES: dict[str, tuple[str, int, int, tuple[int, ...]]] = {
    "bmshj2018-hyperprior N=128 M=192": (families.SCALE_HYPERPRIOR, 128, 192, ()),
    "mbt2018-mean N=192 M=320": (families.MEAN_SCALE_HYPERPRIOR, 192, 320, ()),
    "cheng2020-anchor N=128": (families.AUTOREGRESSIVE, 128, 128, ()),
    "cheng2020-anchor N=192": (families.AUTOREGRESSIVE, 192, 192, ()),
    "mbt2018 N=192 M=320": (families.AUTOREGRESSIVE, 192, 320, ()),
    "cheng2020-anchor-checkerboard N=192": (families.CHECKERBOARD, 192, 192, ()),
    "elic2022-official N=192 M=320": (families.CHANNEL_GROUPS, 192, 320, (16, 16, 32, 64, 192)),
}


class Drawn(LatentWriter):
    """Draws y from σ and μ of each pass."""

    rng = np.random.default_rng(0)

    def __call__(self, channels: slice, positions: Ints | slice, sigma: Ints, mean: Ints | int) -> Ints:
        ratio = 2.0 ** (self.quantizer.latent_bits - self.quantizer.parameter_bits)
        spread = np.maximum(sigma, 0.11 * 2**self.quantizer.parameter_bits)
        self._y[channels, positions] = (mean + spread * self.rng.standard_normal(sigma.shape)) * ratio
        return super().__call__(channels, positions, sigma, mean)


def drawn(coder: GaussianCoder, shape: tuple[int, ...], z: Ints) -> Ints:
    """y in fixed point for the symbols of z."""
    writer = Drawn(coder.quantizer, np.zeros(shape, dtype=np.int64))
    coder.code_passes(coder.synthesise_hyper(coder.hyper.restore(z)), writer)
    return writer.y_hat.astype(np.int64) << (coder.quantizer.latent_bits - coder.quantizer.output_bits)


def stages(coder: GaussianCoder, y: Ints, z: Ints) -> dict[str, Callable[[], object]]:
    """Name → what to time. The context model alone is given ŷ instead of coding it."""
    strings, y_hat = coder.encode(y, z), coder.quantize(y, z)
    parameters, flat = coder.synthesise_hyper(coder.hyper.restore(z)), y_hat.reshape(len(y_hat), -1)
    written, size = LatentWriter(coder.quantizer, y), (z.shape[1], z.shape[2])
    coder.code_passes(parameters, written)
    decoded = coder.decode(strings, size)
    assert np.array_equal(decoded[0], y_hat)
    assert np.array_equal(decoded[1], z)
    return {
        "h_s": lambda: coder.synthesise_hyper(coder.hyper.restore(z)),
        "context model": lambda: coder.code_passes(parameters, lambda c, p, sigma, mean: flat[c, p]),
        "encode passes": lambda: coder.code_passes(parameters, LatentWriter(coder.quantizer, y)),
        "write string": written.to_bytes,
        "decode passes": lambda: coder.code_passes(parameters, LatentReader(coder.quantizer, strings[1], y.shape)),
        "encode": lambda: coder.encode(y, z),
        "decode": lambda: coder.decode(strings, size),
    }


def milliseconds(work: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return 1e3 * median(times)


def main(
    only: Annotated[str, typer.Option(help="Part of the names of the models to time.")] = "",
    height: int = 512,
    width: int = 768,
    repeats: int = 5,
    cpu: Annotated[bool, typer.Option(help="CPU time of all threads in place of elapsed time.")] = False,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Print the median time of every stage in milliseconds."""
    output.mkdir(parents=True, exist_ok=True)
    clock = time.process_time if cpu else time.perf_counter
    results: dict[str, dict[str, float]] = {}
    for name, (family, n, m, groups) in SIZES.items():
        if only in name:
            program = random_program(family, n, m, groups=groups)
            coder = latent_coder(family, program, random_tables(program, family, 128))
            assert isinstance(coder, GaussianCoder)
            y, z = random_latents(program, (-(-height // 64), -(-width // 64)))
            y = drawn(coder, y.shape, z)
            results[name] = {stage: milliseconds(work, repeats, clock) for stage, work in stages(coder, y, z).items()}
            results[name]["bytes"] = sum(map(len, coder.encode(y, z)))
    headings = list(next(iter(results.values())))
    table = Table(title=f"{width}×{height}, {'CPU' if cpu else 'elapsed'} time in ms", title_justify="left")
    table.add_column("model")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, row in results.items():
        table.add_row(name, *(f"{row[heading]:,.0f}" for heading in headings))
    Console(width=140).print(table)
    record = {"schema": "licquant-context/1", "clock": clock.__name__, "results": results}
    report.write_json(output / "context.json", {**record, "provenance": provenance.collect()})


if __name__ == "__main__":
    typer.run(main)
