"""The same codec on lower instruction sets, which oneDNN is held to in processes of their own: rate, quality, time.

    python -m benchmarks.instruction_sets --images DIR -o DIR [--models A.licq ...]

The first level is what all others are compared with. Encodes and decodes of all levels are timed in turn: one round of
every level after another. Generated pictures that are no photographs are added to the images.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.speed import embedded
from licquant.codec.codec import load
from licquant.evaluate import provenance
from licquant.images import RGB, list_images, read_image
from licquant.program.openvino_engine import machine
from licquant.reports import report

LEVELS = ("AVX512_CORE_VNNI", "AVX512_CORE", "AVX2", "SSE41")
_SIDE = 256


def no_photographs() -> dict[str, RGB]:
    """Noise, black, white, one-pixel checkers and saturated colours."""
    rng, shape = np.random.default_rng(0), (_SIDE, _SIDE, 3)
    checkers = 255 * (np.indices(shape[:2]).sum(0) % 2)[..., None].repeat(3, 2)
    pictures = {
        "noise": rng.integers(0, 256, shape),
        "black": np.zeros(shape),
        "white": np.full(shape, 255),
        "checkers": checkers,
        "red": np.full(shape, (255, 0, 0)),
        "saturated-noise": 255 * rng.integers(0, 2, shape),
    }
    return {name: picture.astype(np.uint8) for name, picture in pictures.items()}


def work(model: Path, images: Path, target: Path, lmbda: float) -> None:
    """One level's process: every image encoded and decoded once; then a timed round for each line on standard input."""
    codec, pictures, found = load(model), dict(np.load(images)), {}
    decoded: dict[str, Any] = {}
    for name, rgb in pictures.items():
        data = codec.encode(rgb)
        back = codec.decode(data)
        mse, bpp = float(np.mean((back.astype(float) - rgb) ** 2)), 8 * len(data) / (rgb.shape[0] * rgb.shape[1])
        psnr = 10 * np.log10(255**2 / max(mse, 1e-9))
        found[name] = {"bpp": bpp, "psnr": psnr, "loss": bpp + lmbda * mse}
        decoded |= {f"{name}/pixels": back, f"{name}/symbols": codec.decode_symbols(data).y}
    np.savez(target, **decoded)
    print(json.dumps({"used": machine().used, "images": found}), flush=True)
    first = next(iter(pictures))
    for _ in sys.stdin:
        start = perf_counter()
        data = codec.encode(pictures[first])
        middle = perf_counter()
        codec.decode(data)
        print(json.dumps([1000 * (middle - start), 1000 * (perf_counter() - middle)]), flush=True)


def measure(model: Path, pictures: dict[str, RGB], lmbda: float, rounds: int) -> dict[str, Any]:
    """Level → its figures, compared with those of the first level."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "images.npz", **pictures)
        workers, records = {}, {}
        for level in LEVELS:
            words = ["work", str(model), str(folder / "images.npz"), str(folder / f"{level}.npz"), str(lmbda)]
            workers[level] = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.instruction_sets", *words],
                env={**os.environ, "ONEDNN_MAX_CPU_ISA": level},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            records[level] = _answer(workers[level])
        times: dict[str, list[list[float]]] = {level: [] for level in LEVELS}
        for _ in range(rounds):
            for level, worker in workers.items():
                assert worker.stdin is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
                times[level].append(_answer(worker))
        for worker in workers.values():
            worker.communicate()
        for level, record in records.items():
            record["encode_ms"], record["decode_ms"] = (median(t[i] for t in times[level]) for i in (0, 1))
            _compare(record, records[LEVELS[0]], folder / f"{level}.npz", folder / f"{LEVELS[0]}.npz")
    return records


def _answer(worker: "subprocess.Popen[str]") -> Any:
    assert worker.stdout is not None
    return json.loads(worker.stdout.readline())


def _compare(record: dict[str, Any], first: dict[str, Any], here: Path, there: Path) -> None:
    mine, theirs = np.load(here), np.load(there)
    for name, figures in record["images"].items():
        other = first["images"][name]
        figures["loss_percent"] = 100 * (figures["loss"] / other["loss"] - 1)
        figures["psnr_difference"] = figures["psnr"] - other["psnr"]
        pixels = (npz[f"{name}/pixels"].astype(int) for npz in (mine, theirs))
        figures["largest_pixel_difference"] = int(abs(np.subtract(*pixels)).max())
        figures["symbols_differ"] = int((mine[f"{name}/symbols"] != theirs[f"{name}/symbols"]).sum())


def main(
    images: Annotated[Path, typer.Option(help="A folder of images.")],
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")],
    models: Annotated[list[Path] | None, typer.Option(help=".licq files; default: the embedded one.")] = None,
    lmbda: Annotated[float, typer.Option(help="λ of the loss.")] = 0.013,
    limit: Annotated[int, typer.Option(help="How many of the images.")] = 6,
    rounds: Annotated[int, typer.Option(help="Timed rounds.")] = 9,
) -> None:
    """Print, for every level, the largest differences of any image to the first level, and times."""
    pictures = {path.stem: read_image(path) for path in list_images(images)[:limit]} | no_photographs()
    results = {}
    for model in models or [embedded("*-lambda0.0130.licq")]:
        results[model.name] = measure(model, pictures, lmbda, rounds)
        table = Table(title=f"{model.name}: largest difference of any image")
        for heading in ("level", "used", "loss", "PSNR", "pixel", "encoder's symbols", "encode", "decode"):
            table.add_column(heading, justify="right")
        for level, record in results[model.name].items():
            rows = record["images"].values()
            table.add_row(
                level,
                record["used"],
                f"{max(abs(r['loss_percent']) for r in rows):.4f} %",
                f"{max(abs(r['psnr_difference']) for r in rows):.4f} dB",
                str(max(r["largest_pixel_difference"] for r in rows)),
                str(sum(r["symbols_differ"] for r in rows)),
                f"{record['encode_ms']:.0f} ms",
                f"{record['decode_ms']:.0f} ms",
            )
        Console().print(table)
    output.mkdir(parents=True, exist_ok=True)
    record = {"schema": "licquant-instruction-sets/1", "models": results, "provenance": provenance.collect()}
    report.write_json(output / "instruction_sets.json", record)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), float(sys.argv[5]))
    else:
        typer.run(main)
