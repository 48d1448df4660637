"""File sizes against the entropy that the model predicts, for every image: under the artifact's integer tables, and
under the FP32 checkpoint's own float entropy models for the same symbols and scales.

    python -m benchmarks.rate --model model.licq --checkpoint CKPT --images DIR -o DIR
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from licquant.codec.codec import Codec, Latents, load
from licquant.codec.hyperprior import HyperpriorCoder
from licquant.evaluate import provenance, report
from licquant.images import list_images, read_image
from licquant.models import load_model
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.dataflow import code, medians_of
from licquant.quant.grids import SCALE_FRACTION_BITS

ALLOWED_SHARE, ALLOWED_BYTES = 0.005, 64


def predicted_bits(codec: Codec, traced: TracedModel, latents: Latents) -> float:
    """-Σ log2 p under the float models, with σ as the codec computes it."""
    assert isinstance(codec.coder, HyperpriorCoder)
    z_fixed = codec.coder.hyper.restore(latents.z)
    sigma = torch.from_numpy(codec.coder.synthesise_hyper(z_fixed)).float()[None] / (1 << SCALE_FRACTION_BITS)
    z_hat = torch.from_numpy(latents.z).float()[None] + medians_of(traced).view(1, -1, 1, 1)
    y = torch.from_numpy(latents.y).float()[None]
    given = {"g_a": y, "h_a": z_hat, "h_s": sigma, "g_s": torch.zeros(1)}
    with torch.no_grad():
        return float(code(traced, lambda part, _: given[part], torch.zeros(1)).bits)


def main(
    model: Annotated[Path, typer.Option(help="A .licq file.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint that it was made from.")],
    images: Annotated[Path, typer.Option(help="A folder of images.")],
    name: str = "bmshj2018-hyperprior",
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Print the largest excess over all images, and whether each is within 0.5 % + 64 bytes."""
    output.mkdir(parents=True, exist_ok=True)
    codec, traced = load(model), trace_model(load_model(name, checkpoint))
    rows = {}
    for path in list_images(images):
        rgb = read_image(path)
        latents = codec.analyse(rgb)
        found = (8 * len(codec.encode(rgb)), codec.entropy_bits(latents), predicted_bits(codec, traced, latents))
        rows[path.name] = dict(zip(("file_bits", "table_bits", "model_bits"), found, strict=True))
    table = Table(title=f"{model.name}: files against predicted entropy", title_justify="left")
    for heading in ("predicted by", "mean excess", "largest excess", "beyond 0.5 % + 64 bytes"):
        table.add_column(heading, justify="left" if heading == "predicted by" else "right")
    for key, label in (("table_bits", "integer tables"), ("model_bits", "FP32 entropy models")):
        excess = [100 * (row["file_bits"] / row[key] - 1) for row in rows.values()]
        beyond = [row["file_bits"] > row[key] * (1 + ALLOWED_SHARE) + 8 * ALLOWED_BYTES for row in rows.values()]
        mean = sum(excess) / len(excess)
        table.add_row(label, f"{mean:+.3f} %", f"{max(excess):+.3f} %", f"{sum(beyond)} of {len(rows)}")
    Console().print(table)
    record = {"schema": "licquant-rate/1", "images": rows, "provenance": provenance.collect()}
    report.write_json(output / "rate.json", record)


if __name__ == "__main__":
    typer.run(main)
