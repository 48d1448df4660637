"""The same coded files decode to the same symbols: other thread counts, other BLAS kernels, other instruction
sets, the slow reference. Every setting runs in a process of its own.

    python -m benchmarks.exactness --model model.licq --images DIR -o DIR
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.symbols import digest, reference_agrees
from licquant.codec.codec import load
from licquant.evaluate import provenance
from licquant.images import RGB, list_images, read_image
from licquant.reports import report

Setting = tuple[dict[str, str], int, bool]  # environment, threads, whether the slow reference checks σ and μ
SLOW = "slow reference"
SETTINGS: dict[str, Setting] = {
    "1 thread": ({}, 1, False),
    "2 threads": ({}, 2, False),
    "OPENBLAS_CORETYPE=Haswell": ({"OPENBLAS_CORETYPE": "Haswell"}, 2, False),
    "OPENBLAS_CORETYPE=SkylakeX": ({"OPENBLAS_CORETYPE": "SkylakeX"}, 2, False),
    "ONEDNN_MAX_CPU_ISA=AVX2": ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, 2, False),
    SLOW: ({}, 2, True),
}


def decode_all(model: Path, folder: Path, threads: int, slow: bool) -> dict[str, str]:
    """File name → SHA-256 of its decoded symbols; of nothing if the slow reference gives other σ or μ for them."""
    codec = load(model, threads=threads)
    found = {}
    for path in sorted(folder.glob("*.lic")):
        latents = codec.decode_symbols(path.read_bytes())
        if slow and not reference_agrees(codec, latents):
            found[path.name] = ""
            continue
        found[path.name] = digest(latents)
    return found


def files_that_differ(model: Path, images: Mapping[str, RGB], settings: Mapping[str, Setting]) -> dict[str, int]:
    """Name of the setting → how many of the images, encoded here, decode to other symbols there."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, codec, encoded = Path(temporary), load(model), {}
        for name, rgb in images.items():
            encoded[f"{name}.lic"] = digest(codec.analyse(rgb))
            (folder / f"{name}.lic").write_bytes(codec.encode(rgb))
        return {name: _different(encoded, model, folder, setting) for name, setting in settings.items()}


def main(
    model: Annotated[Path, typer.Option(help="A .licq file.")],
    images: Annotated[Path, typer.Option(help="A folder of images.")],
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Encode once, decode under every setting, count the files that differ from what was encoded."""
    output.mkdir(parents=True, exist_ok=True)
    paths = list_images(images)
    results = files_that_differ(model, {path.stem: read_image(path) for path in paths}, SETTINGS)
    table = Table(title=f"files of {len(paths)} whose symbols differ", title_justify="left")
    table.add_column("decoded with")
    table.add_column("different", justify="right")
    for name, count in results.items():
        table.add_row(name, str(count))
    Console().print(table)
    record = {"schema": "licquant-exactness/1", "images": len(paths), "different": results}
    report.write_json(output / "exactness.json", {**record, "provenance": provenance.collect()})
    sys.exit(any(results.values()))


def _different(encoded: dict[str, str], model: Path, folder: Path, setting: Setting) -> int:
    environment, threads, slow = setting
    arguments = ["worker", str(model), str(folder), str(threads), str(int(slow))]
    words = [sys.executable, "-m", "benchmarks.exactness", *arguments]
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return sum(found[name] != digest for name, digest in encoded.items())


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        print(json.dumps(decode_all(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "1")))
    else:
        typer.run(main)
