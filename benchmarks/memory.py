"""Peak memory and start-up of the codec alone, each in a process of its own.

The image of ordinary size is coded twice, first with an empty cache, then with what the first process has kept there.

python -m benchmarks.memory --model model.licq --image kodim01.png [--width 6000 --height 4000] -o DIR
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from licquant.evaluate import provenance
from licquant.images import RGB, read_image, write_image
from licquant.reports import report

# What runs in the process: the codec only. Prints seconds and the process's largest resident size.
WORKER = """
import json, sys, time
start = time.perf_counter()
from pathlib import Path
import licquant
codec = licquant.load(sys.argv[2], threads=2, cache=Path(sys.argv[5]))
ready = time.perf_counter() - start
if sys.argv[1] == "encode":
    data = codec.encode(licquant.read_image(sys.argv[3]))
    open(sys.argv[4], "wb").write(data)
else:
    codec.decode(open(sys.argv[4], "rb").read())
seconds = time.perf_counter() - start
assert "torch" not in sys.modules
# Not getrusage: its figure begins with the size of the process that this one was forked from.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
peak_bytes = 1024 * int(peak.split()[1])
cpu = time.process_time()
print(json.dumps({"ready_seconds": ready, "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak_bytes}))
"""


def with_bytecode(folder: Path) -> dict[str, str]:
    """The environment of a process that finds Python's compiled modules, as in an installation that was used before.

    Where PYTHONDONTWRITEBYTECODE is set, as in many images of containers, every start compiles 800 modules again.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def measure(what: str, model: Path, image: Path, coded: Path, cache: Path) -> dict[str, float]:
    """Seconds and bytes of one process; cache: the folder in which it finds, and leaves, what is kept for a start.

    Bytecode lies beside that folder.
    """
    words = [sys.executable, "-c", WORKER, what, str(model), str(image), str(coded), str(cache)]
    environment = with_bytecode(cache.with_name("bytecode"))
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def enlarged(rgb: RGB, width: int, height: int) -> RGB:
    """The image repeated, every other copy mirrored, to the wanted size: large, and with real statistics."""
    pair = np.concatenate([rgb, rgb[:, ::-1]], axis=1)
    block = np.concatenate([pair, pair[::-1]])
    counts = (-(-height // block.shape[0]), -(-width // block.shape[1]), 1)
    return np.ascontiguousarray(np.tile(block, counts)[:height, :width])


def main(
    model: Annotated[Path, typer.Option(help="A .licq file.")],
    image: Annotated[Path, typer.Option(help="An image of ordinary size.")],
    width: int = 6000,
    height: int = 4000,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Measure encode and decode of the image and of a large one made from it."""
    output.mkdir(parents=True, exist_ok=True)
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        large, coded = Path(temporary) / "large.ppm", Path(temporary) / "x.lic"
        rgb = read_image(image)
        write_image(large, enlarged(rgb, width, height))
        usual = f"{rgb.shape[1]}×{rgb.shape[0]}"
        for what in ("encode", "decode"):  # so that the bytecode is there
            measure(what, model, image, coded, Path(temporary) / "other")
        for name, path in ((usual, image), (f"{usual}, again", image), (f"{width}×{height}", large)):
            for what in ("encode", "decode"):
                results[f"{what} {name}"] = measure(what, model, path, coded, Path(temporary) / "cache")
    table = Table(title="one process each, 2 threads", title_justify="left")
    for heading in ("what", "import and load", "in all", "CPU time", "peak memory"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, row in results.items():
        seconds = [f"{row[key]:.2f} s" for key in ("ready_seconds", "seconds", "cpu_seconds")]
        table.add_row(name, *seconds, f"{row['peak_bytes'] / 1e6:,.0f} MB")
    Console().print(table)
    record = {"schema": "licquant-memory/1", "results": results, "provenance": provenance.collect(threads=2)}
    report.write_json(output / "memory.json", record)


if __name__ == "__main__":
    typer.run(main)
