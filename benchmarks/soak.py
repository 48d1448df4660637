"""Hours of encoding and decoding: two processes of four threads each, every family, images of random sizes.

In every round the symbols that the encoder coded are held against what the decoder, the exact engine and the other
process read, and now and then against the slow reference; memory and file handles are written down all the time.

nice -n 15 python -m benchmarks.soak --hours 2 [--share 0.35] [--models DIR] -o DIR
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import licquant
from licquant.evaluate import provenance
from licquant.reports import report
from licquant.reports.pictures import SERIES, save

PROCESSES = 2
EMBEDDED = Path(licquant.__file__).parent / "assets"
# From the third quarter of the run to the last; before, the engine still meets sizes that are new to it.
MAX_GROWTH, MAX_MORE = 0.05, 4  # of memory, as a share; of handles and threads, how many
GROWING = ("rss_bytes", "handles", "threads")
_WRITING = 60  # seconds between two states of the result on the disk
Sample = dict[str, Any]


class Process:
    """A worker and all that it has said."""

    def __init__(self, words: Sequence[str]) -> None:
        self.samples: list[Sample] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak_worker", *words], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.samples.append(json.loads(line))

    def finished(self, timeout: float) -> bool:
        """Whether it has ended within that many seconds."""
        self._reader.join(timeout)
        return not self._reader.is_alive()

    def exit_status(self) -> int:
        return self._process.wait()


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """What one process did and whether its memory and handles grew. The last sample, without codecs, is left out."""
    running, last = samples[:-1] or samples, samples[-1]
    half = running[len(running) // 2 :]
    third, fourth = half[: max(1, len(half) // 2)], half[len(half) // 2 :]
    medians = {key: [median(sample[key] for sample in part) for part in (third, fourth)] for key in GROWING}
    hours = [sample["seconds"] / 3600 for sample in half]
    slope = np.polyfit(hours, [sample["rss_bytes"] for sample in half], 1)[0] if len(half) > 2 else 0.0
    kept = ("seconds", "cpu_seconds", "rounds", "compared", "pixels", "failures", "torch")
    return {
        **{key: last[key] for key in kept},
        "median_of_third_and_last_quarter": medians,
        "rss_bytes_per_hour": float(slope),
        "peak_rss_bytes": max(sample["rss_bytes"] for sample in samples),
        "rss_bytes_without_codecs": last["rss_bytes"],
        "peak_handles": max(sample["handles"] for sample in samples),
    }


def complaints(summaries: Sequence[dict[str, Any]], statuses: Sequence[int]) -> list[str]:
    """What is wrong with a run: symbols that differ, errors, processes that died, memory or handles that grow."""
    found = []
    for index, (each, status) in enumerate(zip(summaries, statuses, strict=True)):
        if status:
            found.append(f"process {index} ended with status {status}")
        found += [f"process {index}: {failure}" for failure in each["failures"][:10]]
        for key in GROWING:
            before, after = each["median_of_third_and_last_quarter"][key]
            if after > (before * (1 + MAX_GROWTH) if key == "rss_bytes" else before + MAX_MORE):
                found.append(f"process {index}: {key} grew from {before:,.0f} to {after:,.0f}")
        if each["torch"]:
            found.append(f"process {index} imported torch")
    return found


def picture(samples: Sequence[Sequence[Sample]]) -> Figure:
    """Memory, handles and rounds over the hours, one line a process."""
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    titles = {"resident memory, MB": 1e-6, "file handles and threads": 1.0, "rounds, thousands": 1e-3}
    for index, of_process in enumerate(samples):
        running = of_process[:-1]
        hours = [sample["seconds"] / 3600 for sample in running]
        columns = (
            [sample["rss_bytes"] for sample in running],
            [sample["handles"] for sample in running],
            [sum(sample["rounds"].values()) for sample in running],
        )
        for axis, (title, scale), values in zip(axes, titles.items(), columns, strict=True):
            axis.plot(hours, scale * np.array(values), color=SERIES[index], lw=1, label=f"process {index}")
            axis.set(ylabel=title, ylim=(0, None))
        axes[1].plot(hours, [sample["threads"] for sample in running], color=SERIES[index], lw=1, ls="--")
    axes[1].set_title("handles solid, threads dashed", loc="left", fontsize=9)
    axes[0].legend()
    axes[-1].set_xlabel("hours")
    return figure


def make_models(folder: Path) -> list[Path]:
    """The embedded artifacts and those of the folder, which are made first if it holds none."""
    if not list(folder.glob("*.licq")):
        subprocess.run([sys.executable, "-m", "benchmarks.soak_models", str(folder)], check=True)
    return sorted(folder.glob("*.licq")) + sorted(EMBEDDED.glob("*.licq"))


def write(output: Path, processes: Sequence[Process], statuses: Sequence[int]) -> list[str]:
    """The state of the run as JSON and picture; returns what is wrong with it."""
    samples = [list(process.samples) for process in processes]
    if not all(samples):
        return ["a process said nothing"]
    summaries = [summary(each) for each in samples]
    found = complaints(summaries, statuses)
    record = {"schema": "licquant-soak/1", "complaints": found, "processes": summaries}
    keys = ("seconds", "rss_bytes", "handles", "threads")
    thin = [[{key: sample[key] for key in keys} for sample in each[:: 1 + len(each) // 500]] for each in samples]
    report.write_json(output / "soak.json", {**record, "samples": thin, "provenance": provenance.collect()})
    save(picture(samples), output / "soak.png")
    return found


def show(summaries: Sequence[dict[str, Any]]) -> None:
    table = Table(title="soak", title_justify="left")
    for heading in ("process", "hours", "CPU hours", "rounds", "megapixels", "peak memory", "per hour", "handles"):
        table.add_column(heading, justify="right")
    compared: Counter[str] = Counter()
    for index, each in enumerate(summaries):
        compared.update(each["compared"])
        table.add_row(
            str(index),
            f"{each['seconds'] / 3600:.2f}",
            f"{each['cpu_seconds'] / 3600:.2f}",
            f"{sum(each['rounds'].values()):,}",
            f"{each['pixels'] / 1e6:,.0f}",
            f"{each['peak_rss_bytes'] / 1e6:,.0f} MB",
            f"{each['rss_bytes_per_hour'] / 1e6:+.1f} MB",
            str(each["peak_handles"]),
        )
    Console().print(table)
    Console().print("compared: " + ", ".join(f"{name} {count:,}" for name, count in sorted(compared.items())))


def main(
    hours: Annotated[float, typer.Option(help="How long.")],
    share: Annotated[float, typer.Option(help="Of one core, on average, all processes together.")] = 2.0,
    models: Annotated[Path | None, typer.Option(help="Folder of small artifacts; made if it holds none.")] = None,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result and the plot.")] = Path("bench-output"),
) -> None:
    """Encode and decode for hours; exits with status 1 if anything differs, fails or grows."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        paths = make_models(models or output / "soak-models")
        names = json.dumps([str(path) for path in paths])
        words = [[temporary, names, str(me), str(share / PROCESSES), str(hours * 3600)] for me in range(PROCESSES)]
        processes = [Process(each) for each in words]
        written = time.monotonic()
        while not all(process.finished(1.0) for process in processes):
            if time.monotonic() - written > _WRITING:
                write(output, processes, [0] * PROCESSES)
                written = time.monotonic()
        found = write(output, processes, [process.exit_status() for process in processes])
    show([summary(process.samples) for process in processes if process.samples])
    for complaint in found:
        Console().print(complaint, highlight=False)
    sys.exit(bool(found))


if __name__ == "__main__":
    typer.run(main)
