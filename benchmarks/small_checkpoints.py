"""What storing FP32 checkpoints small costs: bits a parameter, and the RD loss beside that of the full weights.

python -m benchmarks.small_checkpoints CHECKPOINT … --images DIR [-o DIR]

The rate is the models' own estimate; both are measured on the same whole images, their sides cut to multiples of 64.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from licquant.evaluate import provenance
from licquant.images import list_images, read_image
from licquant.models import load_model
from licquant.models.load import read_state
from licquant.models.shards import checkpoint_sha256
from licquant.models.small import SUFFIX, to_small
from licquant.models.trace import trace_model
from licquant.quant.calibrate import to_tensor
from licquant.quant.rd import evaluate_float
from licquant.train.card import loss_of, name_of


def rd_loss(model: torch.nn.Module, images: Sequence[Path], lmbda: float) -> float:
    """The mean of R + λ·D over the images."""
    traced = trace_model(model)
    with torch.no_grad():
        losses = [float(evaluate_float(traced, to_tensor(read_image(path))).loss(lmbda)) for path in images]
    return sum(losses) / len(losses)


def measured(checkpoint: Path, images: Sequence[Path]) -> dict[str, Any]:
    """One checkpoint: its size stored small, and what that does to its loss."""
    lmbda, _ = loss_of(checkpoint)
    assert lmbda is not None, f"{checkpoint}: its model card does not say λ"
    name, data = name_of(checkpoint, None), to_small(read_state(checkpoint))
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / f"model{SUFFIX}"
        small.write_bytes(data)
        model = load_model(name, checkpoint)
        full, loss = rd_loss(model, images, lmbda), rd_loss(load_model(name, small), images, lmbda)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "model": name,
        "lmbda": lmbda,
        "checkpoint_sha256": checkpoint_sha256(checkpoint),
        "bytes": len(data),
        "bits_a_parameter": 8 * len(data) / parameters,
        "rd_loss": full,
        "rd_loss_small": loss,
        "change_percent": 100 * (loss / full - 1),
    }


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="FP32 checkpoints with model cards.")],
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Store each small, measure both, print and write what was found."""
    output.mkdir(parents=True, exist_ok=True)
    paths = list_images(images)
    rows = [measured(checkpoint, paths) for checkpoint in checkpoints]
    table = Table(title=f"stored small, {len(paths)} images")
    for heading in ("model", "λ", "bytes", "bits a parameter", "RD loss", "stored small"):
        table.add_column(heading)
    for row in rows:
        bits, change = f"{row['bits_a_parameter']:.2f}", f"{row['change_percent']:+.4f} %"
        table.add_row(row["model"], f"{row['lmbda']:g}", f"{row['bytes']:,}", bits, f"{row['rd_loss']:.4f}", change)
    Console().print(table)
    record = {"schema": "licquant-small-checkpoints/1", **provenance.collect(images=len(paths)), "rows": rows}
    (output / "small-checkpoints.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    typer.run(main)
