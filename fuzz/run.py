"""Fuzz every parser: each target in a process of its own, one after another, then what was found.

python -m fuzz.run --inputs 1000000 [--target NAME]… -o DIR      python -m fuzz.run --minutes 1 -o DIR

Exits with status 1 if an input raised anything but the declared error, took too long or too much memory, or was
accepted and then could not be used. The inputs are left in DIR/TARGET/findings.
"""

import contextlib
import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from licquant.evaluate import provenance
from licquant.reports import report

# Target → its share of all inputs. Artifacts take a hundred times as long as headers of coded images.
SHARES = {
    "container": 0.2,
    "coded-image": 0.25,
    "artifact": 0.1,
    "checkpoint": 0.05,
    "netpbm": 0.05,
    "plan": 0.1,
    "training-plan": 0.1,
    "card": 0.1,
    "latency": 0.05,
}
_STATE = re.compile(r"^#(\d+)\t.*cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)
_EVER = 10**12
_AROUND = 1800  # seconds for starting a target and for its last input; 600 were not enough beside twenty other jobs


def run_target(name: str, inputs: int, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """The worker's record, with the edges and features that libFuzzer has seen."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = [sys.executable, "-m", "fuzz.worker", name, str(inputs), str(seconds), str(seed), str(folder)]
    start = time.monotonic()
    status = "without an end"
    with (folder / "log.txt").open("wb") as log, contextlib.suppress(subprocess.TimeoutExpired):
        limit = min(seconds + _AROUND, threading.TIMEOUT_MAX)
        ended = subprocess.run(words, stdout=log, stderr=log, check=False, timeout=limit)
        status = f"with status {ended.returncode}"
    text = (folder / "log.txt").read_text(errors="replace")
    states = _STATE.findall(text)
    edges, features, corpus = map(int, states[-1][1:]) if states else (0, 0, 0)
    result = folder / "result.json"
    if result.exists():
        record = json.loads(result.read_text())
    else:  # the process died: a hang, or a crash below Python
        detail = text.strip().splitlines()[-1:] or [""]
        record = {
            "target": name, "seconds": time.monotonic() - start, "inputs": int(states[-1][0]) if states else 0,
            "accepted": 0, "slowest_seconds": None, "slowest_input": "", "largest_input_bytes": 0, "peak_bytes": 0,
            "findings": [{"kind": f"died {status}", "detail": detail[0], "input": "log.txt", "count": 1}],
        }  # fmt: skip
    return {**record, "edges": edges, "features": features, "corpus": corpus}


def show(records: Sequence[dict[str, Any]]) -> None:
    table = Table(title="fuzzing", title_justify="left")
    for heading in (
        "target",
        "inputs",
        "accepted",
        "a second",
        "edges",
        "features",
        "slowest",
        "peak memory",
        "findings",
    ):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for record in records:
        slowest = record["slowest_seconds"]
        table.add_row(
            record["target"],
            f"{record['inputs']:,}",
            f"{record['accepted']:,}",
            f"{record['inputs'] / max(record['seconds'], 1e-9):,.0f}",
            f"{record['edges']:,}",
            f"{record['features']:,}",
            "–" if slowest is None else f"{1000 * slowest:,.0f} ms",
            f"{record['peak_bytes'] / 1e6:,.0f} MB",
            str(len(record["findings"])),
        )
    report.print_table(table)
    console = Console()
    for record in records:
        for found in record["findings"]:
            line = f"{record['target']}: {found['kind']}, {found['count']} times, {found['input']}: {found['detail']}"
            console.print(line, markup=False, highlight=False)


def main(
    inputs: Annotated[int | None, typer.Option(help="How many, all targets together.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long, all targets together.")] = None,
    target: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SHARES)}; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Another one tries other inputs.")] = 1,
    output: Annotated[Path, typer.Option("-o", help="Folder for results and for inputs that found something.")] = Path(
        "bench-output/fuzz"
    ),
) -> None:
    """Fuzz for so many inputs or minutes, whichever comes first."""
    if importlib.util.find_spec("atheris") is None:
        raise typer.BadParameter("fuzzing needs atheris: pip install 'licquant[fuzz]'")
    names = target or list(SHARES)
    if set(names) - set(SHARES) or (inputs is None and minutes is None):
        raise typer.BadParameter("give --inputs or --minutes, and only targets that there are")
    whole = sum(SHARES[name] for name in names)
    seconds = 60 * minutes / len(names) if minutes else _EVER
    records = []
    for name in names:
        share = math.ceil(inputs * SHARES[name] / whole) if inputs else _EVER
        records.append(run_target(name, share, seconds, seed, output / name))
        record = {"schema": "licquant-fuzz/1", "inputs": sum(r["inputs"] for r in records), "targets": records}
        report.write_json(output / "fuzz.json", {**record, "seed": seed, "provenance": provenance.collect()})
    show(records)
    sys.exit(any(record["findings"] for record in records))


if __name__ == "__main__":
    typer.run(main)
