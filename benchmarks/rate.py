"""What the integer exact zone costs: bits under its tables, σ and μ against the FP32 model's own, for the same latents.

    python -m benchmarks.rate --model model.licq --checkpoint CKPT --images DIR -o DIR      trained weights
    python -m benchmarks.rate --family mbt2018 --images DIR -o DIR                          untrained ones

Both sides code the same y, given the same ẑ and the same ŷ before it:

    integer   round(y - μ) with the table of σ, as the file has it
    FP32      round(y - μ) under the float Gaussian of the σ and μ that the float networks give

Untrained weights know nothing about images, so their y says little about the price. Hence a second figure for
every model: y drawn from the Gaussians that the float networks predict, as a well trained model's y is.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.families import SUBJECTS, make_artifact
from benchmarks.latent_reference import coded_parameters, gaussian_parameters
from benchmarks.speed import embedded
from licquant.codec.codec import Codec, Latents, load
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.evaluate import provenance
from licquant.images import RGB, list_images, pad_to_multiple, read_image
from licquant.models import load_model
from licquant.models.trace import TracedModel, trace_model
from licquant.program.arithmetic import Floats
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.program.part import Part
from licquant.quant.dataflow import bottleneck_bits, code_lengths, medians_of
from licquant.quant.grids import SCALE_FRACTION_BITS
from licquant.reports import report

ALLOWED_SHARE, ALLOWED_BYTES = 0.005, 64  # of a file over the entropy of its symbols
BAR = 0.003  # of the bits, for the integer exact zone
_PADDING = 64


def price(codec: Codec, traced: TracedModel, rgb: RGB) -> dict[str, float]:
    """Bits of one image: its file, the entropy under the integer tables, the FP32 model's, and both for drawn y."""
    latents = codec.analyse(rgb)
    found = {"file_bits": 8.0 * len(codec.encode(rgb)), "table_bits": codec.entropy_bits(latents)}
    coder = codec.coder
    if not isinstance(coder, GaussianCoder):  # the tables of y are all there is
        y_hat = torch.from_numpy(latents.y).float()[None] / (1 << coder.latent.fraction_bits)
        return {**found, "fp32_bits": _bits(bottleneck_bits(traced, y_hat))}
    y_bits, mean_bits = coder.quantizer.latent_bits, SCALE_FRACTION_BITS
    z_hat = torch.from_numpy(latents.z).float()[None] + medians_of(traced).view(1, -1, 1, 1)
    of_z = {"table": float(coder.hyper.element_bits(latents.z).sum()), "fp32": _bits(bottleneck_bits(traced, z_hat))}
    sigma, mean = coded_parameters(coder, latents.y, latents.z)
    float_sigma, float_mean = _float_parameters(codec, traced, latents)
    noise = np.random.default_rng(0).standard_normal(sigma.shape)
    drawn = float_mean + np.maximum(float_sigma, 0.11 * 2**mean_bits) * noise
    pixels = np.moveaxis(pad_to_multiple(rgb, _PADDING), -1, 0)
    of_image = OpenVinoEngine(codec.artifact.program["g_a"]).run(pixels)
    of_model = np.rint(drawn * 2.0 ** (y_bits - mean_bits)).astype(np.int64)
    for prefix, y in (("", of_image), ("drawn_", of_model)):
        symbols = coder.quantizer.symbols(y, coder.quantizer.mean(mean))
        levels = coder.quantizer.tables.level(sigma)
        found[f"{prefix}table_bits"] = of_z["table"] + float(
            coder.quantizer.tables.y.symbol_bits(symbols.ravel(), levels.ravel()).sum()
        )
        values = y * 2.0**-y_bits - float_mean * 2.0**-mean_bits
        found[f"{prefix}fp32_bits"] = of_z["fp32"] + _float_bits(traced, values, float_sigma * 2.0**-mean_bits)
    return found


def _float_parameters(codec: Codec, traced: TracedModel, latents: Latents) -> tuple[Floats, Floats]:
    """(σ, μ) by the float networks from ŷ and ẑ, in the units of the integer ones but not rounded."""

    def run(part: Part, q: Any) -> Any:  # floats where the codec has integers
        graph, read, written = traced.graphs[part.name], part.input_grid, part.output_grid
        with torch.no_grad():
            value = graph.forward(torch.from_numpy(read.dequantize(q)).float()[None])[graph.output][0].double()
        return value.numpy() / written.scale[:, None, None] + written.zero_point[:, None, None]

    assert isinstance(codec.coder, GaussianCoder)
    artifact, z_hat = codec.artifact, codec.coder.hyper.restore(latents.z)
    sigma, mean = gaussian_parameters(artifact.family, artifact.program, latents.y, z_hat, run)
    return sigma.astype(np.float64), mean.astype(np.float64)


def _float_bits(traced: TracedModel, values: Floats, sigma: Floats) -> float:
    """Of the rounded y - μ under the model's float Gaussian."""
    assert traced.conditional is not None
    symbols = torch.from_numpy(np.floor(values + 0.5)).float()
    return _bits(code_lengths(traced.conditional._likelihood(symbols, torch.from_numpy(sigma).float())))


def _bits(value: Tensor) -> float:
    return float(value.detach().sum())


def summarize(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean excess over the images, as shares: of the integer exact zone, the same for drawn y, of the files."""

    def excess(above: str, below: str) -> float:
        found = [row[above] / row[below] - 1 for row in rows.values() if above in row]
        return sum(found) / len(found) if found else 0.0

    beyond = [r["file_bits"] > r["table_bits"] * (1 + ALLOWED_SHARE) + 8 * ALLOWED_BYTES for r in rows.values()]
    return {
        "exact_zone": excess("table_bits", "fp32_bits"),
        "exact_zone_drawn": excess("drawn_table_bits", "drawn_fp32_bits"),
        "file": excess("file_bits", "table_bits"),
        "files_beyond": float(sum(beyond)),
    }


def main(
    model: Annotated[Path | None, typer.Option(help="A .licq file of trained weights.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="The checkpoint that it was made from.")] = None,
    name: Annotated[str, typer.Option(help="CompressAI's name of that model.")] = "bmshj2018-hyperprior",
    family: Annotated[str, typer.Option(help="Without --model: part of the names of untrained models.")] = "",
    images: Annotated[Path | None, typer.Option(help="A folder of images; default: the embedded ones.")] = None,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Print the price in percent, and whether each file is within 0.5 % + 64 bytes of its symbols' entropy."""
    output.mkdir(parents=True, exist_ok=True)
    paths = list_images(images or embedded("*.png").parent)
    results = {}
    if model is not None and checkpoint is not None:
        codec, traced = load(model), trace_model(load_model(name, checkpoint))
        results[f"{model.name}, trained"] = {path.name: price(codec, traced, read_image(path)) for path in paths}
    for subject in SUBJECTS if model is None else ():
        if family in subject.label:
            fp32, artifact = make_artifact(subject, output)
            codec, traced = load(artifact), trace_model(fp32)
            results[f"{subject.label}, untrained"] = {p.name: price(codec, traced, read_image(p)) for p in paths}
            Console(stderr=True).print(f"{subject.label}: done", markup=False)
    table = Table(title="bits of the integer exact zone over FP32 parameters", title_justify="left")
    for heading in ("model", "y of the images", "y as predicted", "file over entropy", "beyond 0.5 % + 64 bytes"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    summaries = {label: summarize(rows) for label, rows in results.items()}
    for label, row in summaries.items():
        shares = (f"{100 * row[key]:+.3f} %" for key in ("exact_zone", "exact_zone_drawn", "file"))
        table.add_row(label, *shares, f"{row['files_beyond']:.0f} of {len(paths)}")
    Console(width=140).print(table)
    record = {"schema": "licquant-rate/2", "models": results, "summary": summaries, "bar": BAR}
    report.write_json(output / "rate.json", {**record, "provenance": provenance.collect()})


if __name__ == "__main__":
    typer.run(main)
