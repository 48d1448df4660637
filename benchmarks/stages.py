"""What the quantization of each part, tensor and layer costs, image by image: where a loss comes from.

    python -m benchmarks.stages --checkpoint CKPT --calib DIR --images DIR [--steps 250] [--count 8] [--side 256] -o DIR

Each part is left in float32 in turn; then, in g_a and g_s, all sums of two tensors, all other tensors and all weights
get 16 bits; then every activation tensor and every layer's weights in turn, with the range that they have, and every
tensor also a range eight times as wide, which no value leaves.
What the loss falls by is what that one thing cost. Simulated, estimated rate.

Without steps, weights are rounded to nearest. Reconstruction fits the parts to one another: a part in float32 is then
no longer what the others expect, and only the changes of tensors say something.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from licquant.evaluate import provenance
from licquant.images import RGB, evenly, list_images, read_image
from licquant.models.graph import ADDITION
from licquant.quant.after_training.reconstruct import reconstruct
from licquant.quant.calibrate import calibrate, to_tensor
from licquant.quant.dataflow import Run, run_float
from licquant.quant.insert import insert_quantizers
from licquant.quant.layers import QuantizedLayer, QuantizedTensor
from licquant.quant.network import QuantizedModel, QuantizedPart, uniform_plan
from licquant.quant.rd import evaluate
from licquant.reports import report
from licquant.train.card import load_checkpoint, loss_of, name_of

WIDE = 16
EXAMINED = ("g_a", "g_s")


class Measured:
    """The losses of one quantized model on some images, against the float model's."""

    def __init__(self, quantized: QuantizedModel, images: list[Tensor], lmbda: float) -> None:
        self.quantized, self.images, self.lmbda = quantized, images, lmbda
        self.reference = self._losses(run_float(quantized.traced))

    def each(self, run: Run) -> list[float]:
        """Increase of every image's loss, in percent of its own."""
        return [100 * (a / b - 1) for a, b in zip(self._losses(run), self.reference, strict=True)]

    def increase(self, run: Run | None = None) -> float:
        """Increase of the average loss, in percent."""
        return 100 * (fmean(self._losses(run or self.quantized.run)) / fmean(self.reference) - 1)

    @torch.no_grad()
    def _losses(self, run: Run) -> list[float]:
        return [evaluate(self.quantized.traced, run, x).loss(self.lmbda).item() for x in self.images]


def with_float(quantized: QuantizedModel, part: str) -> Run:
    """The quantized model with one part as it was."""
    plain = run_float(quantized.traced)
    return lambda name, value: (plain if name == part else quantized.run)(name, value)


def readers(part: QuantizedPart, tensor: QuantizedTensor) -> list[QuantizedLayer]:
    """The layers whose product reads the tensor."""
    return [part.layers[step.name] for step in part.graph if step.has_weights and part.weight_tensor(step) is tensor]


@contextmanager
def wide_tensor(part: QuantizedPart, name: str, range_times: float = 1.0) -> Iterator[None]:
    """The tensor in 16 bits, its range so many times as wide; the weights that read it stay the integers they are."""
    tensor = part.tensors[name]
    bits, log_scale, zero_point = tensor.bits, tensor.log_scale.data.clone(), tensor.zero_point.clone()
    factor = range_times / 2.0 ** (WIDE - bits)
    layers = readers(part, tensor)
    tensor.bits, tensor.zero_point = WIDE, zero_point * 2 ** (WIDE - bits)
    tensor.log_scale.data += torch.tensor(factor).log()
    for layer in layers:
        layer.unit *= factor
    yield
    tensor.bits, tensor.zero_point = bits, zero_point
    tensor.log_scale.data.copy_(log_scale)
    for layer in layers:
        layer.unit /= factor


@contextmanager
def wide_weights(layer: QuantizedLayer) -> Iterator[None]:
    """The layer's weights in 16 bits."""
    bits, unit = layer.bits, layer.unit.clone()
    layer.bits = WIDE
    layer.unit /= 2 ** (WIDE - bits)
    yield
    layer.bits = bits
    layer.unit.copy_(unit)


def costs_of_parts(measured: Measured, on_row: Callable[[str, float], None]) -> None:
    """Call ``on_row`` with what is changed in turn, and by how much the loss falls, in percent of J: whole parts."""
    quantized = measured.quantized
    whole = measured.increase()
    for name in quantized.parts:
        on_row(f"{name} in float32", whole - measured.increase(with_float(quantized, name)))
    for part in (quantized.part(name) for name in EXAMINED):
        sums = {step.name for step in part.graph if step.kind == ADDITION}
        narrow = [name for name, tensor in part.tensors.items() if tensor.bits < WIDE and tensor.log_scale.is_leaf]
        groups = {
            "sums of two tensors": [wide_tensor(part, name) for name in narrow if name in sums],
            "other tensors": [wide_tensor(part, name) for name in narrow if name not in sums],
            "weights": [wide_weights(layer) for layer in part.layers.values()],
        }
        for told, changes in groups.items():
            with ExitStack() as stack:
                for change in changes:
                    stack.enter_context(change)
                on_row(f"{part.graph.name}, all {told}: {WIDE} bits", whole - measured.increase())


def costs(measured: Measured, on_row: Callable[[str, float], None]) -> None:
    """The same of single tensors and layers."""
    quantized = measured.quantized
    whole = measured.increase()
    for part in (quantized.part(name) for name in EXAMINED):
        for name, tensor in part.tensors.items():
            if tensor.bits <= WIDE and tensor.log_scale.is_leaf:  # neither fixed point nor the grid of another
                told = name if name.startswith(part.graph.name) else f"{part.graph.name}.{name}"
                if tensor.bits < WIDE:
                    with wide_tensor(part, name):
                        on_row(f"{told}: {WIDE} bits", whole - measured.increase())
                with wide_tensor(part, name, range_times=8):
                    on_row(f"{told}: {WIDE} bits, 8 times the range", whole - measured.increase())
        for name, layer in part.layers.items():
            with wide_weights(layer):
                on_row(f"{name}: {WIDE}-bit weights", whole - measured.increase())


def middle(rgb: RGB, side: int) -> RGB:
    """The middle of an image, at most ``side`` pixels a side."""
    top, left = (max(n - side, 0) // 2 for n in rgb.shape[:2])
    return rgb[top : top + side, left : left + side]


def main(
    checkpoint: Annotated[Path, typer.Option(help="A trained FP32 checkpoint with its model card.")],
    calib: Annotated[Path, typer.Option(help="A folder of photographs.")],
    images: Annotated[Path, typer.Option(help="The images that are measured, never those of --calib.")],
    steps: Annotated[int, typer.Option(help="Of reconstruction.")] = 0,
    count: Annotated[int, typer.Option(help="Images that are measured, evenly spaced.")] = 8,
    side: Annotated[int, typer.Option(help="Pixels a side of the middle of each that is measured.")] = 256,
    each: Annotated[bool, typer.Option(help="Single tensors and layers too: hours for a deep model.")] = True,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Where the loss of a model with 8-bit weights and activations comes from."""
    lmbda = loss_of(checkpoint, None, None)[0] or 0.01
    photographs = [read_image(path) for path in list_images(calib)]
    traced, statistics = calibrate(load_checkpoint(checkpoint, name_of(checkpoint, None)), photographs)
    quantized = insert_quantizers(traced, uniform_plan(traced, 8, 8), statistics)
    reconstruct(quantized, photographs, lmbda, steps)
    chosen = list(evenly(list_images(images), count))
    measured = Measured(quantized, [to_tensor(middle(read_image(path), side)) for path in chosen], lmbda)

    record: dict[str, Any] = {"schema": "licquant-stages/1", "increase_percent": measured.increase()}
    record["images"] = dict(zip((path.name for path in chosen), measured.each(quantized.run), strict=True))
    table = Table(title=f"RD loss against FP32: {record['increase_percent']:+.2f} %", title_justify="left")
    table.add_column("image, or what is changed")
    table.add_column("increase, or what it cost", justify="right")
    for name, value in record["images"].items():
        table.add_row(name, f"{value:+.2f} %")
    record["cost_percent"] = found = dict[str, float]()
    costs_of_parts(measured, found.__setitem__)
    if each:
        costs(measured, found.__setitem__)
    for name, value in sorted(found.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{value:+.2f} %")
    Console().print(table)
    record["provenance"] = provenance.collect(checkpoint=checkpoint.name, lmbda=lmbda, steps=steps, side=side)
    output.mkdir(parents=True, exist_ok=True)
    report.write_json(output / "stages.json", record)


if __name__ == "__main__":
    typer.run(main)
