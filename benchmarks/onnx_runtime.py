"""Exported models on ONNX Runtime beside OpenVINO: seconds, size, and how far their pixels are from one another.

Every model runs in turn with what licquant does for the same on the first image; medians, and medians of paired
ratios. Pixels and the symbols of z are compared on all images, the coding tables checked on the way. docs/onnx.md has
the figures of ``python -m benchmarks.onnx_runtime``.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
from rich.console import Console
from rich.table import Table

from licquant.codec.codec import Codec, load
from licquant.errors import DataError
from licquant.evaluate import provenance
from licquant.images import RGB, list_images, pad_to_multiple, read_image
from licquant.onnx_export.folder import export
from licquant.program.openvino_engine import OpenVinoEngine

ASSETS = Path(__file__).parents[1] / "src" / "licquant" / "assets"


Run = Callable[[], object]


class Exported:
    """An artifact's models on ONNX Runtime."""

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory() as home:
            self.sizes = export(model, Path(home) / "onnx")
            self.sessions = {
                file.stem: onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
                for file in (Path(home) / "onnx").glob("*.onnx")
            }

    def run(self, name: str, **inputs: np.ndarray) -> list[np.ndarray]:
        return self.sessions[name].run(None, inputs)


def measure(model: Path, images: list[Path], runs: int, threads: int) -> dict[str, Any]:
    """Times of each model and of licquant's own part in milliseconds, and differences of pixels and symbols."""
    exported, codec = Exported(model, threads), load(model, threads=threads)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in exported.sessions}
    differing, largest, symbols = [], 0, []
    for image in images:
        rgb = read_image(image)
        pairs, pixels = _pairs(exported, codec, rgb, threads)
        for name, (ours, theirs) in pairs.items() if image == images[0] else ():
            ours(), theirs()  # the first run of a size compiles
            times[name] += [(_seconds(ours), _seconds(theirs)) for _ in range(runs)]
        difference = abs(pixels[0].astype(int) - pixels[1])
        differing.append(float((difference > 0).mean()))
        largest = max(largest, int(difference.max()))
        _, found = exported.run("analysis", image=rgb[None])[::-1]
        symbols.append(int((found[0] != codec.analyse(rgb).z).sum()))
    return {"times": times, "sizes": exported.sizes, "pixels": differing, "largest": largest, "z": symbols}


def _pairs(
    exported: Exported, codec: Codec, rgb: np.ndarray, threads: int
) -> tuple[dict[str, tuple[Run, Run]], tuple[RGB, RGB]]:
    """Model → (on ONNX Runtime, the same in licquant), and the pixels of both, for one family: a scale hyperprior."""
    program, latents = codec.artifact.program, codec.analyse(rgb)
    engines = {name: OpenVinoEngine(program[name], threads) for name in ("g_a", "h_a", "g_s")}
    planes = np.moveaxis(pad_to_multiple(rgb, 64), -1, 0)
    z, y = latents.z[None], latents.y[None]
    index, means = exported.run("hyper", z_symbols=z)
    coder: Any = codec.coder
    own = coder.tables.level(coder.synthesise_hyper(coder.hyper.restore(latents.z)))
    if not np.array_equal(index[0], own):
        raise DataError("hyper.onnx gives other tables than licquant")
    pairs: dict[str, tuple[Run, Run]] = {
        "analysis": (
            lambda: exported.run("analysis", image=rgb[None]),
            lambda: engines["h_a"].run(engines["g_a"].run(planes)),
        ),
        "hyper": (
            lambda: exported.run("hyper", z_symbols=z),
            lambda: coder.synthesise_hyper(coder.hyper.restore(latents.z)),
        ),
        "synthesis": (
            lambda: exported.run("synthesis", y_symbols=y, means=means),
            lambda: engines["g_s"].run(latents.y),
        ),
    }
    height, width = rgb.shape[:2]
    (image,) = exported.run("synthesis", y_symbols=y, means=means)
    return pairs, (image[0, :height, :width], codec.synthesise(latents.y, height, width))


def _seconds(function: Run) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main(
    images: Annotated[Path, typer.Option(help="A folder.")] = ASSETS / "images",
    runs: Annotated[int, typer.Option(help="Of each model.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads of both.")] = 2,
) -> None:
    """All embedded models on the images."""
    files = list_images(images)
    found = [measure(model, files, runs, threads) for model in sorted(ASSETS.glob("*.licq"))]
    table = Table("model", "bytes", "ONNX Runtime, ms", "licquant, ms", "times as long")
    for name in ("analysis", "hyper", "synthesis"):
        both = [pair for one in found for pair in one["times"][name]]
        theirs, own = (f"{1e3 * median(pair[side] for pair in both):.0f}" for side in (0, 1))
        sizes = sorted(one["sizes"][f"{name}.onnx"] for one in found)
        table.add_row(name, f"{sizes[0]:,} to {sizes[-1]:,}", theirs, own, f"{median(a / b for a, b in both):.1f}")
    console = Console()
    console.print(table)
    share = [100 * value for one in found for value in one["pixels"]]
    console.print(f"pixel values that differ from OpenVINO's: {min(share):.1f} to {max(share):.1f} %, ", end="")
    console.print(f"by at most {max(one['largest'] for one in found)}")
    console.print(f"symbols of z that the encoders choose differently, of each image: {[one['z'] for one in found]}")
    console.print(f"{provenance.machine()['cpu']}, {threads} threads, ONNX Runtime {onnxruntime.__version__}")


if __name__ == "__main__":
    typer.run(main)
